"""`dhrd bench`: rows a second of one's own classifier."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.prompts import chosen_prompt, input_columns
from ..data.table_writing import check_file
from ..data.tables import check_columns, load_table, table_name
from ..files import strict_json, write_whole
from ..pages import padded, ratio_text
from .parsing import Parser, add_label_options, add_model_options, quiet, shown_command

if TYPE_CHECKING:
    from ..evaluation.ranks import Ranks

_PROG = "dhrd bench"
# A large table would take hours on a CPU, and say no more.
_ROWS = 256
_EXAMPLES = """examples:
  dhrd bench --model runs/first --data dev.jsonl
  dhrd bench --model runs/first --data dev.jsonl --cot-rows 16 --output throughput.json
  dhrd bench --model my-classifier-onnx --data dev.jsonl --batch-sizes 1,16
  torchrun --nproc-per-node 8 -m dhrd_hf.cli bench --model runs/first --data dev.jsonl

The classifier's forward pass runs on padded batches; tokenisation is timed apart. A model with a reasoning head also decodes
its answers (cot: temperature 0.1, top_p 0.7), which is slow: --cot-rows of the rows, sorted where both orders are measured, in
the batch sizes up to that number. All take turns in every round, and rows a second are medians over the rounds. What is too
large for the memory is told and left out. On several ranks each runs its share, and the slowest one's time counts.
"""
after_interrupt = "With --output, the rounds that were measured are in the file."


def run(argv: Sequence[str]) -> int:
    """Measure how many rows a second a classifier does.

    The JSON of `--output` holds, of each engine (torch, onnx or openvino, and cot), batch size and order, the medians over the
    rounds with the slowest and the fastest one, and what they were measured with. A plot of accuracy against queries per
    second takes `rows[i]["accuracy"]` and `rows[i]["samples_per_second"]` with its `low` and `high`.
    """
    argv = list(argv) or ["--help"]
    argv = argv[argv[:1] == ["throughput"] :]  # as the command was once called
    args = _arguments(argv)

    from ..auto import load_config
    from ..evaluation.ranks import Ranks

    table = load_table(args.data)
    prompt = chosen_prompt(args.prompt, args.text_column, getattr(load_config(args.model), "prompt_template", None))
    check_columns(table.column_names, input_columns(prompt))
    given, table = len(table), table.select(range(min(args.rows, len(table))))
    with Ranks() as ranks:
        if ranks.rank > 0:
            quiet()
        elif given > len(table):
            print(f"The first {len(table)} of {given} rows (--rows).", file=sys.stderr)
        if len(table) < ranks.count:
            raise ValueError(
                f"{args.data}: there are {len(table)} rows for {ranks.count} ranks: each needs one at least."
            )
        _measure(args, argv, table.select(range(ranks.rank, len(table), ranks.count)), prompt, ranks)
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(_PROG, "Rows a second of a classifier, and of decoding its answers.", _EXAMPLES)
    add_model_options(parser, batch_tokens=False)
    add = parser.add_argument
    add("--data", required=True, metavar="TABLE", help="the rows; with labels, accuracy is measured too")
    add_label_options(parser)
    add("--batch-sizes", default="1,8,32", metavar="N,N", help="rows of a batch (default: 1,8,32)")
    add("--sort", action="store_true", help="measure rows sorted by length (default: both)")
    add("--no-sort", action="store_true", help="measure rows in the order of the table (default: both)")
    add("--rows", type=int, default=_ROWS, metavar="N", help=f"the first N rows (default: {_ROWS})")
    add("--repeats", type=int, default=3, metavar="N", help="rounds that count (default: 3)")
    add("--warmup", type=int, default=1, metavar="N", help="rounds before them (default: 1)")
    add(
        "--cot-rows",
        type=int,
        default=32,
        metavar="N",
        help="rows that are decoded, drawn evenly; 0: none (default: 32)",
    )
    add("--max-new-tokens", type=int, default=500, metavar="N", help="most tokens of a decoded answer (default: 500)")
    said = "the result as JSON, written whole after each round; - is standard output, and the table goes to standard error"
    add("--output", metavar="FILE.json", help=said)
    args = parser.parse_args(argv)
    if not re.fullmatch(r" *0*[1-9]\d* *(, *0*[1-9]\d* *)*", args.batch_sizes):
        raise ValueError(
            f"--batch-sizes {args.batch_sizes} must be whole numbers of 1 or greater, such as --batch-sizes 1,8,32."
        )
    args.batch_sizes = list(dict.fromkeys(map(int, args.batch_sizes.split(","))))
    for name in ("rows", "repeats", "cot_rows", "max_new_tokens", "max_length", "warmup"):
        number, least = getattr(args, name), int(name not in ("warmup", "cot_rows"))
        if number is not None and number < least:
            raise ValueError(f"--{name.replace('_', '-')} {number} must be {least} or greater.")
    if args.output not in (None, "-"):  # before there is a result to lose
        check_file(args.output, args.data)
    return args


def _measure(args: argparse.Namespace, argv: Sequence[str], table: Any, prompt: str, ranks: Ranks) -> None:
    import torch

    from ..evaluation import load_classifier
    from ..evaluation.cot import TEMPERATURE, TOP_P, CoTDecoder
    from ..evaluation.loading import is_training_checkpoint
    from ..evaluation.throughput import decoding, measure_throughput, pooled, read_rows
    from ..evaluation.timing import machine, versions
    from ..export.engines import EngineClassifier, engine_of

    model, tokenizer = load_classifier(args.model, device=args.device, dtype=args.dtype)
    engine = engine_of(args.model)
    if engine != "torch":  # left to itself it takes as many threads as it likes
        model = EngineClassifier.from_pretrained(args.model, threads=torch.get_num_threads())
    rows, said = read_rows(
        table, model.config, tokenizer, prompt, args.label_column, args.max_length, args.drop_unlabelled
    )
    engines, left_out = {engine: partial(pooled, model, tokenizer)}, []
    if is_training_checkpoint(args.model) and args.cot_rows:
        engines["cot"] = partial(decoding, CoTDecoder(model, tokenizer, args.max_new_tokens))
    elif args.cot_rows:
        why = f"{args.model} has no reasoning head"
        left_out.append({"engine": "cot", "batch_size": None, "sorted": None, "why": why})
    if ranks.rank == 0:
        for it in left_out:
            print(f"{it['engine']}: left out, {it['why']}", file=sys.stderr)
        print(f"{len(rows)} rows{' a rank' if ranks.count > 1 else ''} {said}", file=sys.stderr)
    about = {
        "model": Path(args.model).resolve().name if Path(args.model).is_dir() else args.model,
        "data": table_name(args.data),
        "repeats": args.repeats,
        "warmup": args.warmup,
        "ranks": ranks.count,
        "machine": machine(),
        "versions": versions(),
        "command": shown_command(_PROG, argv),
    }
    decoded = {"max_new_tokens": args.max_new_tokens, "temperature": TEMPERATURE, "top_p": TOP_P, "seed": 0}
    threads = getattr(model, "threads", torch.get_num_threads())
    where = {"device": model.device.type, "dtype": str(model.dtype).removeprefix("torch."), "threads": threads}
    options = {name: getattr(args, name) for name in ("batch_sizes", "repeats", "warmup", "cot_rows")}
    options["orders"] = [True, False] if args.sort == args.no_sort else [args.sort]
    result: dict[str, Any] = {}
    for found in measure_throughput(engines, rows, tokenizer, ranks=ranks, **options):
        cot_rows = next((row["rows"] for row in found["rows"] if row["engine"] == "cot"), 0)
        result = {**about, **found, "cot": {"rows": cot_rows, **decoded}}
        result["rows"] = [row | where for row in found["rows"]]
        result["left_out"] = left_out + found["left_out"]
        result["complete"] = found["rounds"] == args.repeats
        result["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        if ranks.rank == 0 and args.output not in (None, "-"):
            write_whole(args.output, strict_json(result, indent=2, ensure_ascii=False) + "\n")
    if ranks.rank == 0:
        _show(args.output, result)
    if not result["rows"]:
        raise ValueError(
            "nothing was measured: no batch fitted into memory. Try smaller --batch-sizes or --max-length."
        )


def _show(output: str | None, result: dict[str, Any]) -> None:
    columns = ["engine", "device", "dtype", "threads", "batch", "sorted", "rows/s", "min", "max", "/ torch", "ms/row"]
    cells = [[*columns, "accuracy", "new tokens/row"]]
    for row in result["rows"]:
        accuracy, tokens, unreadable = row["accuracy"], row["new_tokens_per_row"], row["unreadable"]
        cells.append(
            [
                *(str(row[name]) for name in ("engine", "device", "dtype", "threads", "batch_size")),
                "yes" if row["sorted"] else "no",
                *(f"{row[name]:.4g}" for name in ("samples_per_second", "low", "high")),
                "" if row["ratio"] is None else ratio_text(row["ratio"]),
                f"{row['ms_per_row']:.4g}",
                "" if accuracy is None else f"{accuracy:.4f}",
                "" if tokens is None else f"{tokens:.1f}" + (f" ({unreadable} unreadable)" if unreadable else ""),
            ]
        )
    alone = result["tokenization"]
    speeds = [f"{alone[name]:.4g}" for name in ("samples_per_second", "low", "high")]
    cells.append(["tokenisation", *[""] * 5, *speeds, "", f"{1000 / alone['samples_per_second']:.4g}", "", ""])
    file = sys.stderr if output == "-" else sys.stdout
    print("\n".join(padded(cells, numbers=True)), file=file)
    print(f"{result['machine']}\n$ {result['command']}", file=file)
    if output == "-":
        print(json.dumps(result))
    elif output is not None:
        print(f"Wrote {output}", file=sys.stderr)
