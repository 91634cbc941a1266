"""`dhrd pilot`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any

from .parsing import Parser, add_label_options

if TYPE_CHECKING:
    from ..study.machines import Machines
    from ..study.pilot import Plan
    from ..study.plan import Study

_EXAMPLES = """examples:
  dhrd pilot --model smollm2 --data rows.jsonl --rationales rationales.jsonl --output-dir runs/pilot --hours 2 --lora
  dhrd pilot --model smollm2 --data rows.jsonl --output-dir runs/pilot --hours 2 --lora --dry-run     (the estimate alone)

TABLE holds labelled rows, some of them with a rationale: a hundred do to start. For each seed the same rows are trained on
with their rationales, with shuffled ones, pooled (the classification loss alone), and pooled for as many seconds; each run
keeps the epoch of the lowest log loss on rows set aside for that. Any option of dhrd train goes too, for all runs;
--num-train-epochs is how many epochs there are to choose from (default: 10). It is a study, dhrd study DIR/study.yaml
--output-dir DIR; the same command goes on with it, and with more --hours or --seeds adds seeds. DIR/verdict.json and DIR/report.html hold what it found.

Buy: the 97.5% interval of the gain lies above 0 over every control, in accuracy or in log loss (also after a temperature), and
below 0 over none in the other. Do not buy, which goes first: the gain in accuracy over a control is below --worth to the end of
its interval. Cannot tell: all else.
"""
_EPOCHS, _LEAST_SEEDS, _MOST_SEEDS = 10, 2, 20
_TIMING = 0.2  # of the hours, which timing a few steps may take
# What a pilot says itself of its runs, besides how the best epoch is kept.
_OURS = ("max_steps", "seed", "greater_is_better", "early_stopping_patience", "train_size", "setting", "data")


def run(argv: Sequence[str]) -> int:
    """Find out whether rationales are worth buying for one's own rows."""
    args, rest = _parser().parse_known_args(argv)
    train = train_options(rest)
    epochs = train.setdefault("num_train_epochs", _EPOCHS)
    if not isinstance(epochs, int) or epochs < 1 or args.worth < 0 or not (args.seeds or _LEAST_SEEDS) >= _LEAST_SEEDS:
        raise ValueError(
            "--num-train-epochs is a whole number above 0, --worth 0 points or more, and --seeds 2 or more."
        )

    import datasets

    from ..study import run_study
    from ..study.machines import Machines
    from ..study.pilot import Plan, write_tables
    from .study import check_options, ended_as_by_ctrl_c

    datasets.disable_progress_bars()
    folder, machines = Path(args.output_dir).expanduser().resolve(), Machines.of()
    columns = {"label_column": args.label_column, "rationale_column": args.rationale_column}
    sizes = write_tables(folder, args.data, args.rationales, args.eval_data, columns, args.drop_unlabelled, _say)
    model = str(Path(args.model).resolve()) if Path(args.model).is_dir() else args.model
    plan = Plan(folder, model, train, columns, *sizes, epochs)
    timing = plan.timing()
    check_options(timing)
    with ended_as_by_ctrl_c():
        _time(args, timing, folder / "timing", machines)
        timed = plan.two(timing, folder / "timing")
        hours = (args.hours - sum(row["seconds"] for row in timed) / 3600) * machines.jobs
        _seeds(args, plan.with_equal_epochs(*timed).seconds(*timed), hours)
        if args.dry_run:
            return 0
        start = plan.study(1, only=("rationales", "pooled"))
        run_study(start, folder, retry_failed=True, machines=machines)
        first = plan.two(start, folder)
        plan = plan.with_equal_epochs(*first)
        study = plan.study(_seeds(args, plan.seconds(*first), hours, started=True))
        outcome = run_study(study, folder, retry_failed=True, machines=machines)
    _report(args, plan, study)
    return 1 if outcome.failed else 0


def after_interrupt(argv: Sequence[str]) -> str:
    """How to go on after Ctrl-C."""
    return f"What was done is kept. To go on: dhrd pilot {shlex.join(argv)}"


def train_options(words: Sequence[str]) -> dict[str, Any]:
    """Options of `dhrd train` as a study's file has them."""
    from ..study.options import PATHS, SAID_BY
    from ..study.run import BEST_EPOCH
    from .train import given_options

    found = given_options(words)
    for name, value in found.items():
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if name in ("config", *PATHS) and Path(str(value)).exists():
            value = str(Path(value).resolve())
        if name in (*BEST_EPOCH, *_OURS) or (name in SAID_BY and name != "config"):
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is what a pilot says itself of its runs. All options: dhrd pilot --help")
        found[name] = value
    if found.get("train_sampling_strategy") == "group_by_length":
        found.setdefault("length_column_name", "input_length")  # so that sides see their rows in one order
    return found


def _time(args: argparse.Namespace, timing: Study, folder: Path, machines: Machines) -> None:
    """Do the runs that the first estimate is made of, in a share of the hours or not at all."""
    from ..study import run_study
    from ..study.machines import Interrupted, Processes

    most, processes = _TIMING * args.hours, Processes()
    _say(f"Timing a few steps with rationales and pooled, for {most:.3g} h at most.")
    timer = Timer(3600 * most, processes.end)
    timer.start()
    try:
        run_study(timing, folder, retry_failed=True, machines=machines, processes=processes, say=lambda _: None)
    except Interrupted:
        raise ValueError(
            f"timing a few steps and an evaluation takes more than {most:.3g} h, a fifth of what there is, and --hours is "
            f"{args.hours:g}: ask for more hours, or name a smaller --model or fewer rows."
        ) from None
    finally:
        timer.cancel()


def _seeds(args: argparse.Namespace, seconds: Mapping[str, float], hours: float, started: bool = False) -> int:
    """How many seeds there is time for, told; too few are refused, unless it has begun."""
    each = sum(seconds.values()) / 3600
    fit = max(min(int(hours / each), _MOST_SEEDS), 0)
    seeds = args.seeds or max(fit, _LEAST_SEEDS)
    sides = ", ".join(f"{side.replace('_', ' ')} {it / 60:.2g}" for side, it in seconds.items())
    _say(
        f"Estimate: {60 * each:.2g} min a seed ({sides}), {seeds} seeds in {seeds * each:.2g} h; --hours {args.hours:g}."
    )
    if seeds > fit and not started:
        raise ValueError(
            f"{seeds} seeds take about {seeds * each:.2g} h, and --hours is {args.hours:g}: ask for more hours, fewer "
            "--num-train-epochs (all have a fair choice among them), or fewer rows."
        )
    return seeds


def _report(args: argparse.Namespace, plan: Plan, study: Study) -> None:
    from ..files import strict_json, write_whole
    from ..pages import padded
    from ..pages.study import report_page
    from ..study.pilot import gains_table, price_of, said, verdict_of
    from ..study.report import build_report
    from ..study.results import read_results

    ours = {run.id for run in study.runs}
    rows = [row for row in read_results([plan.folder / "results.jsonl"]) if row["cell"] in ours]
    price = args.price_per_rationale if args.price_per_rationale is not None else price_of(args.rationales, args.data)
    verdict = verdict_of(plan, rows, args.worth, price)
    if verdict is None:
        raise ValueError(
            f"no seed has all its runs done, so there is no verdict: see the errors in {plan.folder / 'results.jsonl'}"
        )
    lines, table = said(verdict), gains_table(verdict)
    write_whole(plan.folder / "verdict.json", strict_json(asdict(verdict), indent=2) + "\n")
    report = build_report(rows, planned=study.runs, commands=["dhrd study study.yaml --output-dir ."])
    page = report_page(replace(report, headline=lines, tables=[table, *report.tables]))
    write_whole(plan.folder / "report.html", page)
    print("\n".join([*padded([table.columns, *table.rows]), *table.notes, *lines]))
    _say(f"{plan.folder / 'report.html'}, verdict.json and results.jsonl beside it")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "dhrd pilot",
        usage="dhrd pilot --model MODEL --data TABLE --output-dir DIR --hours H [options, also of dhrd train]",
        description="Are rationales worth buying here? A small study of one's own rows that ends with a verdict.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("--model", required=True, help="as dhrd train --model")
    add("--data", required=True, metavar="TABLE", help="labelled rows, some of them with a rationale")
    add("--rationales", metavar="TABLE", help="the rationales, as of dhrd train; default: in a column of --data")
    tested = "rows to test on; default: some are set aside, of those without a rationale first"
    add("--eval-data", metavar="TABLE", help=tested)
    add("--output-dir", required=True, metavar="DIR", help="the study's folder; the same command goes on in it")
    add("--hours", required=True, type=float, metavar="H", help="time to spend; as many seeds as fit, 20 at most")
    add("--seeds", type=int, metavar="N", help="so many seeds, if they fit")
    add("--worth", type=float, default=1.0, metavar="POINTS", help="the smallest gain in accuracy worth having [1]")
    add("--price-per-rationale", type=float, metavar="PRICE", help="default: by the manifest beside the rationales")
    add("--rationale-column", default="rationale", metavar="NAME", help="column of the rationales [rationale]")
    add_label_options(parser)
    add("--dry-run", action="store_true", help="stop after the estimate of time and seeds")
    return parser
