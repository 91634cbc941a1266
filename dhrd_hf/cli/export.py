"""`dhrd export`."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.prompts import render_rows
from ..data.tables import check_columns, load_table, table_name
from ..export import ENGINES, FORMATS
from ..files import check_new_folder
from .parsing import (
    Parser,
    add_card_options,
    add_label_options,
    add_table_options,
    check_card_tables,
    check_command,
    with_labels,
    without_bars,
)

if TYPE_CHECKING:
    import datasets

_EXAMPLES = """examples:
  dhrd export --model runs/first --output my-classifier
  dhrd export --model runs/lora --output my-adapter --format adapter
  dhrd export --model runs/first --output my-classifier --calibrate calibration.jsonl
  dhrd export --model my-classifier --output my-classifier-onnx --format onnx
  dhrd export --model my-classifier --output my-classifier-int8 --format onnx --int8 --eval-data test.jsonl
  dhrd export --model my-classifier --output my-classifier-js --format onnx --layout transformers.js
  dhrd export --model runs/first --output my-classifier --eval-data test.jsonl --group-column genre --card card.yaml

card.yaml holds what only you know, for the model card (README.md):
  license: apache-2.0
  language: en
  rationale_source: written by Qwen/Qwen3-8B and checked

then, where only transformers is installed:
  from transformers import pipeline
  pipeline("text-classification", "my-classifier", truncation=True)("It rains. So: It is wet.")
"""
after_interrupt = "No half-written export was left behind."


def run(argv: Sequence[str]) -> int:
    parser = Parser(
        "dhrd export",
        "Write the classifier without its reasoning head, and compare its logits with the model's.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="run directory of dhrd train, or a checkpoint in it")
    add("--output", required=True, metavar="DIR", help="the folder to write; new or empty")
    add(
        "--format",
        choices=(*FORMATS, *ENGINES),
        default="dense",
        help="dense: a whole stock classifier (default); adapter: a PEFT adapter and its head for the stock base model; "
        "onnx, openvino: for that engine, from a run directory or a dense export",
    )
    said = "with onnx: the files and the config that transformers.js opens, float32 and int8 side by side"
    add("--layout", choices=("transformers.js",), help=said)
    add("--int8", action="store_true", help="with onnx or openvino: weights in 8 bits")
    add("--calibrate", metavar="TABLE", help="fit the temperature on these rows (see dhrd calibrate) and bake it in")
    said = "measure on these rows, for the model card, or what another engine costs and wins; not those of --calibrate"
    add("--eval-data", metavar="TABLE", help=said)
    add_label_options(parser, default=None)
    add_table_options(parser)
    add(
        "--golden",
        metavar="TABLE",
        help="with dense or adapter: rows of your own among the golden texts of dhrd_contract.json (see dhrd verify); whoever "
        "has the export can read them",
    )
    add_card_options(parser)
    add("--overwrite", action="store_true", help="replace the folder if it holds something")
    add("--max-shard-size", default="5GB", metavar="SIZE", help="largest weights file (default: 5GB)")
    args = parser.parse_args(argv)
    check_command(args, args.eval_data, args.calibrate)

    from ..export.classifier import check_apart

    if args.int8 and args.format not in ENGINES:
        raise ValueError(f"--int8 goes with --format {' or '.join(ENGINES)}.")
    if args.golden and args.format in ENGINES:
        raise ValueError(
            "--golden goes with --format dense or adapter; another engine's export keeps the texts of these."
        )
    if args.layout and (args.format != "onnx" or args.int8):
        raise ValueError(f"--layout {args.layout} goes with --format onnx, without --int8: it writes both.")
    if args.format in ENGINES and (args.card or args.group_column):
        raise ValueError(
            "--card and --group-column are for the model card, which goes with --format dense or adapter."
        )
    without_bars()
    check_apart(args.output, args.model)
    check_new_folder(args.output, args.overwrite)
    folder = _for_engine(args) if args.format in ENGINES else _write(args, args.output, args.format)
    print(f"Next:\n  dhrd predict --model {shlex.quote(str(folder))} --data TABLE --output predictions.jsonl")
    return 0


def _write(args: argparse.Namespace, output: str, format: str) -> Path:
    from .. import DHRDConfig, export_classifier
    from ..auto import load_config
    from ..evaluation import fit_temperature, predict_table
    from ..evaluation.loading import open_run
    from ..evaluation.verdict import card_results
    from ..export.card_facts import read_card_facts

    config = load_config(args.model)
    if not isinstance(config, DHRDConfig):
        raise ValueError(
            f"{args.model} is a plain {config.model_type} checkpoint, not a dual-head one: there is nothing to "
            "export. Name a run directory of `dhrd train`."
        )
    check_card_tables(args.eval_data, args.calibrate, args.group_column)
    facts = read_card_facts(args.model, output, args.card)
    model, tokenizer = open_run(args.model)
    temperature = 1.0
    prompt = config.prompt_template or "{text}"
    evaluated = None
    args.label_column = args.label_column or getattr(config, "label_column", None) or "label"
    golden = list(render_rows(prompt, load_table(args.golden))) if args.golden else ()
    if args.eval_data:
        evaluated = load_table(args.eval_data)
        check_columns(evaluated.column_names, filter(None, [args.label_column, args.group_column]))
        evaluated = with_labels(args, evaluated, args.eval_data, config)
    if args.calibrate:
        table = with_labels(args, load_table(args.calibrate), args.calibrate, config)
        found = predict_table(model, tokenizer, table, prompt, args.label_column)
        temperature = fit_temperature(found.logits, found.labels)
        facts.calibration_data, facts.calibration_rows = table_name(args.calibrate), len(found.labels)
        print(f"Temperature {temperature:.4g}, fitted on {len(found.labels)} rows.")
    if evaluated is not None:
        found = predict_table(model, tokenizer, evaluated, prompt, args.label_column)
        names = list(model.config.id2label.values())
        results = card_results(args.eval_data, evaluated, found, temperature, args.group_column, names)
        facts = replace(facts, **results)
    folder = export_classifier(
        model,
        tokenizer,
        output,
        format,
        temperature=temperature,
        overwrite=args.overwrite,
        max_shard_size=args.max_shard_size,
        card=facts,
        golden=golden,
    )
    print(
        f"Wrote {folder}: labels {', '.join(config.id2label.values())}; golden texts become the same ids, and the "
        f"logits equal the model's{' over the temperature' if args.calibrate else ''}."
    )
    return folder


def _for_engine(args: argparse.Namespace) -> str:
    """Write the classifier for another engine, and say what that costs and wins on the rows of --eval-data."""
    from ..auto import load_config
    from ..evaluation.loading import dense_folder, is_training_checkpoint
    from ..export import export_engine

    if args.calibrate and not is_training_checkpoint(args.model):
        raise ValueError(
            f"{args.model} is an export already: --calibrate goes with the run directory that it was made from."
        )
    table = None
    args.label_column = args.label_column or getattr(load_config(args.model), "label_column", None) or "label"
    if args.eval_data:
        table = load_table(args.eval_data)
        check_columns(table.column_names, [args.label_column])
    with contextlib.ExitStack() as stack:
        if args.calibrate:
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            dense = str(_write(argparse.Namespace(**vars(args) | {"eval_data": None}), f"{scratch}/dense", "dense"))
        else:
            dense = stack.enter_context(dense_folder(args.model))
        off = export_engine(
            dense, args.output, args.format, int8=args.int8, layout=args.layout, overwrite=args.overwrite
        )
        print(f"Wrote {args.output}: its logits are within {off:.2g} of torch's, on golden texts, of the largest.")
        if args.format == "openvino":
            print(
                "On processors that have bfloat16 OpenVINO computes in it unless told INFERENCE_PRECISION_HINT=f32, as dhrd "
                "predict does: logits would be off by some hundredths."
            )
        if table is not None:
            print(_compared(args, dense, table))
    return args.output


def _compared(args: argparse.Namespace, dense: str, table: datasets.Dataset) -> str:
    """A line on what an engine's export costs and wins on the rows of a table."""
    from ..auto import load_config
    from ..evaluation import compute_metrics, load_classifier, predict_table

    table = with_labels(args, table, args.eval_data, load_config(dense))
    found, seconds = [], []
    for folder in (dense, args.output):
        model, tokenizer = load_classifier(folder, device="cpu")
        prompt = getattr(model.config, "prompt_template", None) or "{text}"
        predict_table(model, tokenizer, table.select(range(min(8, len(table)))), prompt, args.label_column)  # warms up
        started = time.perf_counter()
        found.append(predict_table(model, tokenizer, table, prompt, args.label_column))
        seconds.append(time.perf_counter() - started)
    metrics = [compute_metrics((it.logits, it.labels), it.problem_type) for it in found]
    name = next(iter(metrics[0]))
    equal = ""
    if name == "accuracy":
        points = 100 * (metrics[1][name] - metrics[0][name])
        same = (found[0].logits.argmax(-1) == found[1].logits.argmax(-1)).mean()
        equal = f" ({points:+.2f} points), {same:.1%} of the labels the same" if found[0].labels.ndim == 1 else ""
    what = f"{args.format}{' int8' if args.int8 else ''}"
    return (
        f"On {len(table)} rows of {table_name(args.eval_data)}: {name} {metrics[0][name]:.4f} on torch, "
        f"{metrics[1][name]:.4f} on {what}{equal}; {seconds[0] / seconds[1]:.2f} times as fast "
        f"({len(table) / seconds[1]:.1f} against {len(table) / seconds[0]:.1f} rows/s on this CPU)."
    )
