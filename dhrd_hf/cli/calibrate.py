"""`dhrd calibrate`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..data.prompts import chosen_prompt
from ..data.tables import check_columns, load_table, table_name
from ..files import check_new_folder, strict_json
from .parsing import (
    Parser,
    add_card_options,
    add_label_options,
    add_model_options,
    add_table_options,
    check_card_tables,
    check_command,
    held_out_rows,
    warn,
    with_labels,
    without_bars,
)

# Of each table its logits, over the temperature, and its labels.
_Found = dict[str, tuple[Any, Any]]
_EXAMPLES = """examples:
  dhrd calibrate --model runs/first --data calibration.jsonl --test-data test.jsonl
  dhrd calibrate --model runs/first --data calibration.jsonl --eval-data test.jsonl --output my-classifier

  dhrd calibrate --model runs/first --data calibration.jsonl --precision 0.95 --output my-classifier

The temperature is fitted on --data, which should be neither trained nor tested on, and reported on both tables before and
after. With --output the classifier is exported with its head's weights divided by it: the labels stay the same. With
--precision or --recall each label gets the threshold on its calibrated probability from which on it is promised (the lower
end of its 95% interval reaches it); the export keeps them, and dhrd predict then says which labels a row reaches.
--min-accuracy leaves rows unanswered, as few as it takes; --label-sets gives each row the labels that may be meant.
"""
after_interrupt = "No half-written export was left behind."


def run(argv: Sequence[str]) -> int:
    parser = Parser(
        "dhrd calibrate",
        "Fit the temperature with which a classifier is as sure as it is right; prints one line of JSON.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add_model_options(parser)
    add("--data", metavar="TABLE", help="the rows to fit on, with their labels (default: those that the run held out)")
    add("--test-data", "--eval-data", metavar="TABLE", help="other rows, to report on, here and in the model card")
    add_label_options(parser, default=None)
    add_table_options(parser)
    target = parser.add_mutually_exclusive_group()
    for name in ("precision", "recall"):
        said = f"a threshold for each label from which on this {name} is promised"
        target.add_argument(f"--{name}", type=float, metavar="P", help=said)
    add("--min-accuracy", type=float, metavar="P", help="the confidence from which on this accuracy is promised")
    said = "sets of labels that hold the right one in this share of --eval-data"
    add("--label-sets", type=float, metavar="P", help=said)
    add("--output", metavar="DIR", help="export the calibrated classifier of a run directory to it")
    add("--overwrite", action="store_true", help="replace the folder if it holds something")
    add_card_options(parser)
    args = parser.parse_args(argv)
    args.data = args.data or held_out_rows(args.model, "--data")
    check_command(args, args.data, args.test_data)

    from ..auto import load_config
    from ..configuration_dhrd import DHRDConfig
    from ..evaluation import calibration_metrics, fit_temperature, load_classifier, predict_table
    from ..evaluation.loading import open_run
    from ..evaluation.thresholds import check_target
    from ..evaluation.verdict import card_results
    from ..export.card_facts import read_card_facts
    from ..export.classifier import check_apart
    from ..modeling_dhrd import find_dual_head

    if args.output and not isinstance(load_config(args.model), DHRDConfig):
        raise ValueError(
            f"{args.model} is an export already: --output writes the calibrated classifier of a run directory of "
            "`dhrd train`. Leave it out to see the temperature."
        )
    if (args.card or args.group_column) and not args.output:
        raise ValueError("--card and --group-column are for the model card of an export: add --output DIR.")
    check_target(**{name: getattr(args, name) for name in ("precision", "recall", "min_accuracy", "label_sets")})
    if args.label_sets is not None and not args.test_data:
        raise ValueError("--label-sets are measured on rows that did not fit them: add --eval-data TABLE.")
    if args.output:
        check_apart(args.output, args.model)
        check_new_folder(args.output, args.overwrite)
    check_card_tables(args.test_data, args.data, args.group_column)
    facts = read_card_facts(args.model, args.output, args.card) if args.output else None
    without_bars()
    tables = {"calibration": load_table(args.data)}
    args.label_column = args.label_column or getattr(load_config(args.model), "label_column", None) or "label"
    if args.test_data:
        tables["test"] = load_table(args.test_data)
        check_columns(tables["test"].column_names, filter(None, [args.label_column, args.group_column]))
    model, tokenizer = load_classifier(args.model, device=args.device, dtype=args.dtype)
    sources = {"calibration": args.data, "test": args.test_data}
    tables = {name: with_labels(args, table, sources[name], model.config) for name, table in tables.items()}
    prompt = chosen_prompt(args.prompt, args.text_column, getattr(model.config, "prompt_template", None))
    sizes = {"max_length": args.max_length, "batch_tokens": args.batch_tokens}
    found = {
        name: predict_table(model, tokenizer, table, prompt, args.label_column, **sizes)
        for name, table in tables.items()
    }
    if found["calibration"].problem_type == "regression":
        raise ValueError(f"{args.model} is a regression, which has no probabilities to calibrate.")
    temperature = fit_temperature(found["calibration"].logits, found["calibration"].labels)
    said: dict[str, Any] = {"temperature": temperature}
    for name, it in found.items():
        measures = {"before": it.logits, "after": it.logits / temperature}
        measures = {when: calibration_metrics(logits, it.labels) for when, logits in measures.items()}
        said[name] = {"rows": len(it.labels), **measures}
    names = list(model.config.id2label.values())
    fits = {
        "thresholds": (args.precision or args.recall, partial(_thresholds, args, names)),
        "abstention": (args.min_accuracy, partial(_abstention, args)),
        "label_sets": (args.label_sets, partial(_label_sets, args)),
    }
    calibrated = {name: (it.logits / temperature, it.labels) for name, it in found.items()}
    said |= {name: fit(calibrated) for name, (wanted, fit) in fits.items() if wanted is not None}
    print(strict_json(said))
    for line in _worse(said):
        warn(line)
    if args.output:
        from ..export import export_classifier

        if "test" in found:
            it = (tables["test"], found["test"], temperature, args.group_column, names)
            facts = replace(facts, **card_results(args.test_data, *it))
        thresholds, reached = said.get("thresholds"), None
        if thresholds is not None:
            best = "test" if "test" in thresholds else "calibration"
            facts.thresholds = {"target": thresholds["target"], "labels": thresholds[best]}
            reached = {label: it["threshold"] for label, it in thresholds[best].items() if it["threshold"] is not None}
        facts.calibration_data, facts.calibration_rows = table_name(args.data), len(found["calibration"].labels)
        dual_head, _ = open_run(args.model)
        config = find_dual_head(dual_head).config
        config.prompt_template = prompt  # what the temperature was fitted with, which may be the user's
        config.max_input_length = args.max_length or config.max_input_length
        options = {"temperature": temperature, "thresholds": reached, "overwrite": args.overwrite, "card": facts}
        options["abstention_threshold"] = said.get("abstention", {}).get("threshold")
        options["label_set_threshold"] = said.get("label_sets", {}).get("threshold")
        folder = export_classifier(dual_head, tokenizer, args.output, **options)
        print(f"Wrote {folder}: its head is divided by {temperature:.4g}, its labels are the same.", file=sys.stderr)
    return 0


def _thresholds(args: argparse.Namespace, names: Sequence[str], found: _Found) -> dict[str, Any]:
    from ..evaluation import fit_thresholds, rows_that_would_do, threshold_report

    wanted = {"precision": args.precision, "recall": args.recall}
    thresholds = fit_thresholds(*found["calibration"], **wanted)
    needed = rows_that_would_do(*found["calibration"], **wanted)
    name, value = next((name, value) for name, value in wanted.items() if value is not None)
    for label, threshold, rows in zip(names, thresholds, needed, strict=True):
        if threshold is None:
            warn(f"No threshold promises {label!r} a {name} of {value:g}. {_would_do(rows, found)}")
    reports = {table: threshold_report(*it, thresholds) for table, it in found.items()}
    reports = {table: dict(zip(names, it, strict=True)) for table, it in reports.items()}
    return {"target": f"{name} {value:g}", "rows_that_would_do": dict(zip(names, needed, strict=True)), **reports}


def _would_do(rows: int | None, found: _Found) -> str:
    there = len(found["calibration"][1])
    if rows is None:
        return f"On these {there} rows it has no more than that where it is surest: more rows alone would hardly do."
    return f"These are {there} rows; about {rows} like them would do."


def _abstention(args: argparse.Namespace, found: _Found) -> dict[str, Any]:
    from ..evaluation.thresholds import abstention_report, fit_abstention

    threshold, needed = fit_abstention(*found["calibration"], args.min_accuracy)
    said = {"min_accuracy": args.min_accuracy, "threshold": threshold, "rows_that_would_do": needed}
    if threshold is None:
        warn(f"No confidence promises an accuracy of {args.min_accuracy:g}. {_would_do(needed, found)}")
        return said
    return said | {table: abstention_report(*it, threshold) for table, it in found.items()}


def _label_sets(args: argparse.Namespace, found: _Found) -> dict[str, Any]:
    """From which probability on labels belong to a row's set, and how often the sets of other rows hold the right one."""
    from ..evaluation.thresholds import fit_label_sets, label_set_report

    said: dict[str, Any] = {"coverage": args.label_sets}
    threshold = said["threshold"] = fit_label_sets(*found["calibration"], args.label_sets)
    if threshold is not None:
        return said | {"test": label_set_report(*found["test"], threshold)}
    least, there = math.ceil(args.label_sets / (1 - args.label_sets) - 1e-9), len(found["calibration"][1])
    warn(f"Sets that hold the right label in {args.label_sets:g} want {least} rows of --data, and there are {there}.")
    return said


def _worse(said: dict[str, Any]) -> Iterator[str]:
    """What the temperature made worse, on the rows that did not fit it where there are some."""
    measured = said.get("test") or said["calibration"]
    names = {"expected_calibration_error": "calibration error", "brier_score": "Brier score"}
    worse = [
        f"{shown} from {measured['before'][name]:.4f} to {measured['after'][name]:.4f}"
        for name, shown in names.items()
        if measured["after"][name] > measured["before"][name]
    ]
    if worse:
        where = "--eval-data" if "test" in said else "--data"
        yield (
            f"The temperature {said['temperature']:.4g} makes the {' and the '.join(worse)} worse on the {measured['rows']} rows of "
            f"{where}: without it the classifier is better calibrated, or these rows are too few to tell."
        )
