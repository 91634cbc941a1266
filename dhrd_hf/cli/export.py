"""`dhrd export`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from .card import add_card_options, check_card_tables, read_card_facts, with_results
from .parsing import Parser

ENGINES = ("onnx", "openvino")
FORMATS = ("dense", "adapter", *ENGINES)

_EXAMPLES = """examples:
  dhrd export --model runs/first --output my-classifier
  dhrd export --model runs/lora --output my-adapter --format adapter
  dhrd export --model runs/first --output my-classifier --calibrate calibration.jsonl
  dhrd export --model my-classifier --output my-classifier-onnx --format onnx
  dhrd export --model runs/first --output my-classifier --eval-data test.jsonl --group-column genre --card card.yaml

card.yaml holds what only you know, for the model card (README.md):
  license: apache-2.0
  language: en
  rationale_source: written by Qwen/Qwen3-8B and checked

then, where only transformers is installed:
  from transformers import pipeline
  pipeline("text-classification", "my-classifier", truncation=True)("It rains. So: It is wet.")
"""


def run(argv: Sequence[str]) -> int:
    """Write the classifier of a run as a checkpoint that needs no dhrd_hf.

    Args:
        argv (`Sequence[str]`): The arguments behind `dhrd export`.

    Returns:
        `int`: 0.

    Raises:
        ValueError, OSError: as [`export_classifier`], or if the model has not two heads.
    """
    parser = Parser(
        prog="dhrd export",
        description="Write the classifier without its reasoning head, and compare its logits with the model's.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="run directory of dhrd train, or a checkpoint in it"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to write; new or empty")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="dense",
        help="dense: a whole stock classifier (default); adapter: a PEFT adapter and its head for the stock base model; "
        "onnx, openvino: a dense export (--model) for that engine",
    )
    parser.add_argument("--int8", action="store_true", help="with onnx or openvino: weights in 8 bits")
    parser.add_argument(
        "--calibrate", metavar="TABLE", help="fit the temperature on these rows (see dhrd calibrate) and bake it in"
    )
    parser.add_argument(
        "--eval-data", metavar="TABLE", help="measure on these rows, for the model card; not those of --calibrate"
    )
    parser.add_argument(
        "--label-column", default="label", metavar="NAME", help="column of their labels (default: label)"
    )
    add_card_options(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it holds something")
    parser.add_argument("--max-shard-size", default="5GB", metavar="SIZE", help="largest weights file (default: 5GB)")
    args = parser.parse_args(argv)
    if args.format in ENGINES:
        return _for_engine(args)
    if args.int8:
        raise ValueError(f"--int8 goes with --format {' or '.join(ENGINES)}.")

    from transformers import AutoTokenizer

    from .. import AutoModelForDualHeadClassification, DHRDConfig, export_classifier
    from ..auto import load_config
    from ..data.tables import check_columns, load_table, table_name
    from ..evaluation import fit_temperature, predict_table

    config = load_config(args.model)
    if not isinstance(config, DHRDConfig):
        raise ValueError(
            f"{args.model} is a plain {config.model_type} checkpoint, not a dual-head one: there is nothing to "
            "export. Name a run directory of `dhrd train`."
        )
    check_card_tables(args.eval_data, args.calibrate, args.group_column)
    facts = read_card_facts(args.model, args.output, args.card)
    model = AutoModelForDualHeadClassification.from_pretrained(args.model)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    temperature = 1.0
    prompt = config.prompt_template or "{text}"
    evaluated = None
    if args.eval_data:
        evaluated = load_table(args.eval_data)
        check_columns(evaluated.column_names, filter(None, [args.label_column, args.group_column]))
    if args.calibrate:
        found = predict_table(model, tokenizer, load_table(args.calibrate), prompt, args.label_column)
        temperature = fit_temperature(found.logits, found.labels)
        facts.calibration_data, facts.calibration_rows = table_name(args.calibrate), len(found.labels)
        print(f"Temperature {temperature:.4g}, fitted on {len(found.labels)} rows.")
    if evaluated is not None:
        found = predict_table(model, tokenizer, evaluated, prompt, args.label_column)
        facts = with_results(facts, args.eval_data, evaluated, found, temperature, args.group_column)
    folder = export_classifier(
        model,
        tokenizer,
        args.output,
        args.format,
        temperature=temperature,
        overwrite=args.overwrite,
        max_shard_size=args.max_shard_size,
        card=facts,
    )
    print(
        f"Wrote {folder}: labels {', '.join(config.id2label.values())}; its logits equal the model's"
        f"{' over the temperature' if args.calibrate else ''}."
    )
    print(f"Next:\n  dhrd predict --model {shlex.quote(str(folder))} --data TABLE --output predictions.jsonl")
    return 0


def _for_engine(args: argparse.Namespace) -> int:
    """Write a dense export for another engine."""
    from ..auto import load_config
    from ..configuration_dhrd import DHRDConfig
    from ..export import export_engine

    config = load_config(args.model)
    if isinstance(config, DHRDConfig) and config.reasoning_head:
        raise ValueError(
            f"{args.model} is a training checkpoint: export it first (dhrd export --model {args.model} --output "
            f"classifier), then that (dhrd export --model classifier --output {args.output} --format {args.format})."
        )
    if args.calibrate or args.eval_data or args.card:
        raise ValueError("--calibrate, --eval-data and --card go with the dense export that this one is made from.")
    off = export_engine(args.model, args.output, args.format, int8=args.int8, overwrite=args.overwrite)
    print(f"Wrote {args.output}: its logits are within {off:.2g} of torch's on random inputs.")
    print(f"Next:\n  dhrd evaluate --model {shlex.quote(args.output)} --data TABLE   # what int8 costs, if anything")
    return 0


def after_interrupt(argv: Sequence[str]) -> str:
    """What is left after Ctrl-C.

    Args:
        argv (`Sequence[str]`): The arguments.

    Returns:
        `str`: a sentence.
    """
    return "No half-written export was left behind."
