"""`dhrd bench`: finds the command behind it."""

from __future__ import annotations

from ..parsing import CommandGroup

COMMANDS = {
    "throughput": "rows a second of a classifier: pooled, exported, and decoding its answers",
    "train": "time and memory of a training step, beside the plain ones and the two-pass way",
}
_EXAMPLES = """examples:
  dhrd bench throughput --model runs/first --data dev.jsonl --output throughput.json
  dhrd bench train --model smollm2 --data train.jsonl --output step.json

Each command has its own help: dhrd bench throughput --help
"""

_GROUP = CommandGroup(
    "dhrd bench", COMMANDS, __package__, "Benchmarks on your own machine, model and rows.", _EXAMPLES
)
run, after_interrupt = _GROUP.run, _GROUP.after_interrupt
