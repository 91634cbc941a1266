"""`dhrd bench train`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..parsing import Parser, add_label_options, chosen_prompt, warn
from .output import add_output_options, at_least, check_output, show, whole_numbers, with_origin, write_result

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROG = "dhrd bench train"
_LENGTHS = (48, 48)
_EXAMPLES = """examples:
  dhrd bench train --model smollm2
  dhrd bench train --model Qwen/Qwen3-0.6B --lora --data train.jsonl --batch-size 16 --output step.json
  dhrd bench train --model smollm2 --lengths 200,100 --steps 20

ways:
  causal_lm   the plain causal LM on x with its rationale
  ours        one forward pass over x with its rationale, both heads
  two_pass    a pass over x for the label, another over x with its rationale for the tokens, each with its backward
  classifier  the stock classifier on x alone

A step is forward, backward, clipping and AdamW. The ways start from the same weights and take turns on the same batches; times
are medians over the steps. Memory is measured in a process for each, above what the process has without a model; for the times
all are in memory at once, and one that does not fit beside the others has none.
"""
after_interrupt = "With --output, the steps that were measured are in the file."


def run(argv: Sequence[str]) -> int:
    """Measure the time and memory of a training step.

    The JSON of `--output` holds what [`~dhrd_hf.evaluation.step_comparison.compare_steps`] says (`rows`, one for each way;
    `ratios`, such as that of two passes to our one; `left_out`, `batches`, `tokens_per_step`, `input_tokens_per_step`,
    `rounds`), and `model`, `data` (None where the rows are random), `lengths` (None with data), `batch_size`, `steps`,
    `warmup`, `lora`, `dtype`, `device`, `complete` (whether all rounds were measured), `machine`, `versions`, `command`,
    `finished`.

    Args:
        argv (`Sequence[str]`): The arguments behind `dhrd bench train`.

    Returns:
        `int`: 0.

    Raises:
        ValueError, OSError: if the model or the table cannot be read, or a number is out of range.
    """
    args = _arguments(argv)

    import torch

    from ...auto import load_config
    from ...configuration_dhrd import DHRDConfig
    from ...data import ensure_pad_token
    from ...data.tables import load_table, table_name
    from ...evaluation.step_comparison import compare_steps
    from ...evaluation.steps import StepSetup, random_rows
    from ...files import load_tokenizer

    if not isinstance(getattr(torch, args.dtype, None), torch.dtype):
        raise ValueError(f"--dtype {args.dtype} is not one of torch's; say float32, bfloat16 or float16.")
    table = None if args.data is None else load_table(args.data)
    path = _model_path(args.model)
    config = load_config(path)
    if isinstance(config, DHRDConfig):
        raise ValueError(
            f"{args.model} is a dual-head checkpoint: name the causal LM that it was trained from, which every way starts from."
        )
    tokenizer = load_tokenizer(path)
    pad = ensure_pad_token(tokenizer)
    if table is None:
        rows = random_rows(args.batch_size * args.steps, args.lengths, config.get_text_config().vocab_size, pad)
        num_labels = 3
    else:
        rows, num_labels = _encoded(args, table, tokenizer)
    setup = StepSetup(path, num_labels, pad, args.lora, args.device, args.dtype)
    about = {
        "model": Path(args.model).resolve().name if Path(args.model).is_dir() else args.model,
        "data": None if args.data is None else table_name(args.data),
        "lengths": None if args.lengths is None else list(args.lengths),
        "lora": args.lora,
        "dtype": args.dtype,
        "device": setup.torch_device.type,
    }
    about |= {name: getattr(args, name) for name in ("batch_size", "steps", "warmup")}
    options = {"batch_size": args.batch_size, "steps": args.steps, "warmup": args.warmup}
    result: dict[str, Any] = {}
    for found in compare_steps(setup, rows, tokenizer, **options):
        result = with_origin({**about, **found, "complete": found["rounds"] == args.steps}, _PROG, argv)
        write_result(args.output, result)
    _show(args.output, result)
    if not result["rows"]:
        raise ValueError("nothing was measured: no step fitted into memory. Try a smaller --batch-size, or --lora.")
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog=_PROG,
        description="Time and memory of a training step, beside the plain ones and the two-pass way.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", required=True, metavar="MODEL", help="Hub id or folder of a causal LM; smollm2: the embedded one")
    add(
        "--data", metavar="TABLE", help="rows with labels, and rationales where they have some; default: random tokens"
    )
    add(
        "--lengths",
        metavar="X,SUFFIX",
        help=f"mean tokens of an input and of what follows it, without --data (default: {','.join(map(str, _LENGTHS))})",
    )
    add("--prompt", metavar="TEMPLATE", help="the input over a row's columns (default: {text})")
    add("--text-column", metavar="NAME", help="the same as --prompt '{NAME}'")
    add_label_options(parser)
    add(
        "--rationale-column", default="rationale", metavar="NAME", help="column of the rationales (default: rationale)"
    )
    add("--max-length", type=int, default=1024, metavar="N", help="most tokens of a row (default: 1024)")
    add("--batch-size", type=int, default=8, metavar="N", help="rows of a step (default: 8)")
    add("--steps", type=int, default=7, metavar="N", help="steps of each way that count (default: 7)")
    add("--warmup", type=int, default=1, metavar="N", help="steps of each before them (default: 1)")
    add("--lora", action="store_true", help="train LoRA adapters and the classification head, not everything")
    add("--device", help="such as cpu or cuda:1; default: the accelerator if there is one")
    add("--dtype", default="float32", help="of the weights, such as bfloat16 (default: float32)")
    add_output_options(parser)
    args = parser.parse_args(argv)
    for name in ("batch_size", "steps", "max_length"):
        at_least(getattr(args, name), f"--{name.replace('_', '-')}")
    at_least(args.warmup, "--warmup", 0)
    check_output(args.output, args.data)
    if args.data is not None and args.lengths is not None:
        raise ValueError("--lengths is for random rows, and --data has its own: leave one of them out.")
    if args.data is None:
        given = list(_LENGTHS) if args.lengths is None else whole_numbers(args.lengths, "--lengths", "48,48")
        if len(given) != 2:
            raise ValueError(f"--lengths {args.lengths} must be two numbers: of the input and of what follows it.")
        args.lengths = tuple(given)
    return args


def _model_path(model: str) -> str:
    if model == "smollm2":
        from ...embedded import smollm2_path

        return str(smollm2_path())
    return model


def _encoded(
    args: argparse.Namespace, table: Any, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[dict[str, Any]], int]:
    """The rows that are needed, and how many labels the table has."""
    from ...data import DualHeadEncoder
    from ...data.labels import read_labels
    from ...data.prompts import template_columns
    from ...data.tables import check_columns

    prompt = chosen_prompt(args.prompt, args.text_column)
    check_columns(table.column_names, [*template_columns(prompt), args.label_column], [args.rationale_column])
    options = {"drop_unlabelled": args.drop_unlabelled, "where": args.data, "say": warn}
    table, labels = read_labels(table, args.label_column, **options)
    if len(labels.names) < 2:
        raise ValueError(
            f"all {len(table)} rows of {args.data} have the label {labels.names[0]}: a step needs two classes."
        )
    columns = {"label_column": args.label_column, "rationale_column": args.rationale_column}
    columns["problem_type"] = labels.problem_type
    encode = DualHeadEncoder(tokenizer, labels.label2id, prompt, args.max_length, **columns)
    needed = min(len(table), args.batch_size * (args.steps + args.warmup))
    rows = list(encode.encode_dataset(table.select(range(needed))))
    return rows, len(labels.names)


def _show(output: str | None, result: dict[str, Any]) -> None:
    steps = [["way", "s/step", "min", "max", "rows/s", "peak MiB"]]
    for row in result["rows"]:
        numbers = [_number(row[name], ".4g") for name in ("seconds_per_step", "low", "high", "samples_per_second")]
        steps.append([row["way"], *numbers, f"{row['peak_memory_mb']:.0f}"])
    ratios = [["ratio", "time", "min", "max", "peak memory"]]
    for row in result["ratios"]:
        numbers = [_number(row[name], ".3f") for name in ("time", "time_low", "time_high", "peak_memory")]
        ratios.append([f"{row['above']} / {row['below']}", *numbers])
    show(output, result, steps, ratios)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
