"""`dhrd bench`: rows a second of one's own classifier."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.prompts import chosen_prompt, input_columns
from ..data.table_writing import check_file
from ..data.tables import check_columns, load_table, table_name
from ..files import did_you_mean, strict_json, write_whole
from ..opening import load_tokenizer
from ..pages import padded, ratio_text
from .parsing import Parser, add_label_options, add_model_options, quiet, shown_command

if TYPE_CHECKING:
    from ..evaluation.ranks import Ranks
    from ..evaluation.throughput_engines import BenchRows, Engine

_PROG = "dhrd bench"
# In the order in which they are shown.
ENGINES = ("torch", "pipeline", "onnx", "openvino", "cot")
# A large table would take hours on a CPU, and say no more.
_ROWS = 256
_EXAMPLES = """examples:
  dhrd bench --model runs/first --data dev.jsonl
  dhrd bench --model runs/first --data dev.jsonl --engines torch,cot --cot-rows 16 --output throughput.json
  dhrd bench --model my-classifier --exported my-classifier-onnx --data dev.jsonl --batch-sizes 1,16
  torchrun --nproc-per-node 8 -m dhrd_hf.cli bench throughput --model runs/first --data dev.jsonl

engines:
  torch     the pooled forward pass of the model, on padded batches: tokenisation is timed apart
  pipeline  its export through transformers' pipeline, which tokenises as well
  onnx      its export on ONNX Runtime, on the CPU with torch's number of threads; float32, or what --exported holds
  openvino  its export on OpenVINO, likewise
  cot       answers decoded with the reasoning head: temperature 0.1, top_p 0.7

The engines take turns in every round, and rows a second are medians over the rounds. What is not installed, not possible or
too large for the memory is told and left out. On several ranks each runs its share, and the slowest one's time counts. cot
is slow: it decodes --cot-rows of the rows, sorted where both orders are measured, in the batch sizes up to that number.
"""
after_interrupt = "With --output, the rounds that were measured are in the file."


def run(argv: Sequence[str]) -> int:
    """Measure how many rows a second a classifier does.

    The JSON of `--output` holds, of each engine, batch size and order, the medians over the rounds with the slowest and the
    fastest one, and what they were measured with. A plot of accuracy against queries per second takes `rows[i]["accuracy"]`
    and `rows[i]["samples_per_second"]` with its `low` and `high`.
    """
    argv = list(argv) or ["--help"]
    argv = argv[argv[:1] == ["throughput"] :]  # as the command was once called
    args = _arguments(argv)

    from ..auto import load_config
    from ..evaluation.loading import is_training_checkpoint
    from ..evaluation.ranks import Ranks
    from ..export.engines import engine_of

    table = load_table(args.data)
    if engine_of(args.model) != "torch":
        raise ValueError(
            f"{args.model} is an export for {engine_of(args.model)}: name the classifier that it was made from with --model, "
            f"and give this one as --exported {args.model}."
        )
    if "cot" in (args.engines or ()) and not is_training_checkpoint(args.model):
        raise ValueError(
            f"{args.model} is a classifier without a reasoning head, which can't decode an answer: leave cot out of "
            "--engines, or name the run directory of `dhrd train` that it was exported from."
        )
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
        with contextlib.ExitStack() as stack:
            _measure(args, argv, table.select(range(ranks.rank, len(table), ranks.count)), prompt, ranks, stack)
    return 0


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(_PROG, "Rows a second of a classifier: pooled, exported, and decoding its answers.", _EXAMPLES)
    add_model_options(parser, batch_tokens=False)
    add = parser.add_argument
    add("--data", required=True, metavar="TABLE", help="the rows; with labels, accuracy is measured too")
    add_label_options(parser)
    said = "what dhrd export wrote for pipeline, onnx or openvino; may be repeated. Default: written into a temporary folder"
    add("--exported", action="append", default=[], metavar="DIR", help=said)
    add("--engines", metavar="NAMES", help=f"some of {','.join(ENGINES)} (default: all that are possible)")
    add("--batch-sizes", default="1,8,32", metavar="N,N", help="rows of a batch (default: 1,8,32)")
    add("--sort", action="store_true", help="measure rows sorted by length (default: both)")
    add("--no-sort", action="store_true", help="measure rows in the order of the table (default: both)")
    add("--rows", type=int, default=_ROWS, metavar="N", help=f"the first N rows (default: {_ROWS})")
    add("--repeats", type=int, default=3, metavar="N", help="rounds that count (default: 3)")
    add("--warmup", type=int, default=1, metavar="N", help="rounds before them (default: 1)")
    add("--cot-rows", type=int, default=32, metavar="N", help="rows that are decoded, drawn evenly (default: 32)")
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
        number, least = getattr(args, name), int(name != "warmup")
        if number is not None and number < least:
            raise ValueError(f"--{name.replace('_', '-')} {number} must be {least} or greater.")
    if args.output not in (None, "-"):  # before there is a result to lose
        check_file(args.output, args.data)
    args.orders = [True, False] if args.sort == args.no_sort else [args.sort]
    if args.engines is not None:
        args.engines = [word.strip() for word in args.engines.split(",")]
        for word in args.engines:
            if word not in ENGINES:
                raise ValueError(
                    f"--engines: no engine {word!r}{did_you_mean(word, ENGINES) or '.'} There are {', '.join(ENGINES)}."
                )
    return args


def _measure(
    args: argparse.Namespace, argv: Sequence[str], table: Any, prompt: str, ranks: Ranks, stack: contextlib.ExitStack
) -> None:
    from ..evaluation import load_classifier
    from ..evaluation.cot import TEMPERATURE, TOP_P
    from ..evaluation.throughput import measure_throughput
    from ..evaluation.throughput_engines import BenchRows

    model, tokenizer = load_classifier(args.model, device=args.device, dtype=args.dtype)
    rows = BenchRows.of(
        table, model.config, tokenizer, prompt, args.label_column, args.max_length, args.drop_unlabelled
    )
    engines, left_out = _open_engines(args, model, tokenizer, ranks, stack)
    if ranks.rank == 0:
        _say_what_is_measured(rows, args.label_column, ranks)
    about = {
        "model": Path(args.model).resolve().name if Path(args.model).is_dir() else args.model,
        "data": table_name(args.data),
        "repeats": args.repeats,
        "warmup": args.warmup,
        "ranks": ranks.count,
        "cot": {
            "rows": 0,
            "max_new_tokens": args.max_new_tokens,
            "temperature": TEMPERATURE,
            "top_p": TOP_P,
            "seed": 0,
        },
    }
    options = {"batch_sizes": args.batch_sizes, "orders": args.orders, "repeats": args.repeats, "warmup": args.warmup}
    result: dict[str, Any] = {}
    for found in measure_throughput(engines, rows, tokenizer, cot_rows=args.cot_rows, ranks=ranks, **options):
        found["left_out"] = left_out + found["left_out"]
        about["cot"]["rows"] = next((row["rows"] for row in found["rows"] if row["engine"] == "cot"), 0)
        result = _with_origin({**about, **found, "complete": found["rounds"] == args.repeats}, _PROG, argv)
        if ranks.rank == 0 and args.output not in (None, "-"):
            write_whole(args.output, strict_json(result, indent=2, ensure_ascii=False) + "\n")
    if ranks.rank == 0:
        _show(args.output, result)
    if not result["rows"]:
        raise ValueError(
            "nothing was measured: no batch fitted into memory. Try smaller --batch-sizes or --max-length."
        )


def _open_engines(
    args: argparse.Namespace, model: Any, tokenizer: Any, ranks: Ranks, stack: contextlib.ExitStack
) -> tuple[dict[str, Engine], list[dict[str, Any]]]:
    """The engines that every rank could open, and why the others are left out."""
    from ..evaluation.throughput_engines import CoTEngine, ForwardEngine

    exported = _exported(args.exported, model)

    @cache
    def dense() -> str:
        from ..evaluation.loading import dense_folder

        return stack.enter_context(dense_folder(exported.get("torch") or args.model))

    openers: dict[str, Callable[[], Engine]] = {
        "torch": lambda: ForwardEngine(model, tokenizer),
        "pipeline": lambda: _open_pipeline(dense(), model),
        "onnx": lambda: _open_export("onnx", exported.get("onnx"), dense, stack),
        "openvino": lambda: _open_export("openvino", exported.get("openvino"), dense, stack),
        "cot": lambda: CoTEngine(model, tokenizer, max_new_tokens=args.max_new_tokens),
    }
    engines, why = {}, {}
    for name in ENGINES:
        if name in (args.engines or ENGINES):
            try:
                engines[name] = openers[name]()
            except (ModuleNotFoundError, OSError, ValueError) as error:
                why[name] = " ".join(str(error).split())[:300]
    failed = {name: reason for of_rank in ranks.gather(why) for name, reason in of_rank.items()}
    for name, reason in failed.items():
        engines.pop(name, None)
        if ranks.rank == 0:
            print(f"{name}: left out, {reason}", file=sys.stderr)
    if not engines:
        raise ValueError(f"there is nothing to measure: {'; '.join(failed.values())}")
    return engines, [{"engine": name, "batch_size": None, "sorted": None, "why": it} for name, it in failed.items()]


def _exported(folders: Sequence[str], model: Any) -> dict[str, str]:
    """The folders of `--exported` by what they are for; their labels have to be the model's."""
    from ..auto import load_config
    from ..evaluation.loading import is_training_checkpoint
    from ..export.engines import engine_of

    found: dict[str, str] = {}
    for folder in folders:
        if is_training_checkpoint(folder):
            raise ValueError(
                f"--exported {folder} is a training checkpoint: name it with --model, or export it first."
            )
        labels = load_config(folder).id2label
        if labels != model.config.id2label:
            raise ValueError(f"--exported {folder} has the labels {labels}, and --model has {model.config.id2label}.")
        engine = engine_of(folder)
        if engine in found:
            raise ValueError(f"--exported {found[engine]} and {folder} are both for {engine}: name one.")
        found[engine] = folder
    return found


def _open_pipeline(folder: str, model: Any) -> Engine:
    from ..evaluation import load_classifier
    from ..evaluation.throughput_engines import PipelineEngine

    return PipelineEngine(*load_classifier(folder, device=model.device, dtype=str(model.dtype).removeprefix("torch.")))


def _open_export(engine: str, folder: str | None, dense: Callable[[], str], stack: contextlib.ExitStack) -> Engine:
    import tempfile

    import torch

    from ..evaluation.throughput_engines import ForwardEngine
    from ..export import EngineClassifier, export_engine

    if folder is None:
        folder = str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / engine)
        export_engine(dense(), folder, engine)
    # Left to itself each takes as many as it likes, and threads would be compared.
    classifier = EngineClassifier.from_pretrained(folder, threads=torch.get_num_threads())
    return ForwardEngine(classifier, load_tokenizer(folder))


def _say_what_is_measured(rows: BenchRows, label_column: str, ranks: Ranks) -> None:
    lengths = [len(ids) for ids in rows.ids]
    said = f"{len(lengths)} rows{' a rank' if ranks.count > 1 else ''} of {sum(lengths) / len(lengths):.0f} tokens on average, "
    said += f"{max(lengths)} at most; {rows.cut} cut to {rows.limit} tokens" if rows.cut else f"{max(lengths)} at most"
    if rows.empty:
        said += f"; {rows.empty} left out, whose text is empty"
    if rows.labels is None:
        said += f"; accuracy is not measured: there are no single labels in a column {label_column!r}"
    print(said, file=sys.stderr)


def _show(output: str | None, result: dict[str, Any]) -> None:
    columns = ["engine", "device", "dtype", "threads", "batch", "sorted", "rows/s", "min", "max", "/ torch", "ms/row"]
    cells = [[*columns, "accuracy", "new tokens/row"]]
    for row in result["rows"]:
        accuracy, tokens = row["accuracy"], row["new_tokens_per_row"]
        cells.append(
            [
                *(str(row[name]) for name in ("engine", "device", "dtype", "threads", "batch_size")),
                "yes" if row["sorted"] else "no",
                *(f"{row[name]:.4g}" for name in ("samples_per_second", "low", "high")),
                "" if row["ratio"] is None else ratio_text(row["ratio"]),
                f"{row['ms_per_row']:.4g}",
                "" if accuracy is None else f"{accuracy:.4f}",
                ""
                if tokens is None
                else f"{tokens:.1f}" + (f" ({row['unreadable']} unreadable)" if row["unreadable"] else ""),
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


def _with_origin(result: dict[str, Any], prog: str, argv: Sequence[str]) -> dict[str, Any]:
    """A result with the machine, the versions and the command that it came from."""
    from ..evaluation.timing import machine, versions

    return {
        **result,
        "machine": machine(),
        "versions": versions(),
        "command": shown_command(prog, argv),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
