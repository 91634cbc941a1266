"""`dhrd study`: a study file is run; `dhrd study report` reports what it found."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .parsing import Parser, shown_command

if TYPE_CHECKING:
    from ..study import Study

_EXAMPLES = """examples:
  dhrd study study.yaml --dry-run                                 (lists the runs and their commands, and writes nothing)
  dhrd study study.yaml --output-dir runs/study                   (a second call goes on where it stopped)
  dhrd study study.yaml --output-dir runs/study --gpus-per-run 8  (8 processes of torchrun a run; default: one GPU a run)
  dhrd study study.yaml --output-dir /shared/study --backend ray --address auto --jobs 16 --gpus-per-run 1
  dhrd study report --results runs/study/results.jsonl --output study.html

study.yaml:
  name: first
  model: smollm2                # as dhrd train --model; paths are taken from this file's folder
  data:
    nli: {train: train.jsonl, eval: dev.jsonl, rationales: rationales.jsonl}  # also prompt, label_column,
                                #   rationale_column, metric (accuracy, macro_f1), group_column (rows of a group are drawn
                                #   together by the intervals; default: group, where there is one; null: none),
                                #   validation (a table by which each run keeps its best epoch; eval is then read at its end)
    snli:                       # scored on several sets: the first is the main one, label_map names the others' labels
      {train: snli.jsonl, eval: {validation: dev.jsonl, hans: hans.jsonl}, label_map: {hans: {non-entailment: neutral}}}
    cb: {superglue: cb, source: data/superglue, rationales: data/superglue_rationales}
  train: {lora: true, learning_rate: 2e-4, num_train_epochs: 3}  # any option of dhrd train; config: FILE takes a recipe's
  eval_size: 500                # evaluation rows, the same for all runs; absent: all
  cot_eval_size: 100            # those that cot_decoding answers, the first of the others
  grid:                         # blocks in their order; each is the product of its lists
    - {data: [nli, cb], setting: [pooled, dual_head], seed: [0, 1, 2], train_size: 400}
    - {data: nli, setting: dual_head, alpha: [0.25, 0.5, 2], seed: [0, 1, 2], train_size: 400}

Settings: pooled (alpha 0), dual_head, cot_decoding (alpha 1, beta 0, answers decoded), and the ablations label_only,
shuffled_rationale, shuffled_rationale_and_label, permuted_tokens, keywords_only, same_label_rationale,
rationale_after_label. Each run is a dhrd train of its own, and in the table with the logits of its rows. What was killed is
run again by the next call, what failed by --retry-failed, what is done never. Several calls, also on several machines that
share the folder, take turns in the runs. Exit code 1: some runs failed.
"""
_REPORT_EXAMPLES = """examples:
  dhrd study report --results runs/study/results.jsonl                      (Markdown on standard output)
  dhrd study report --results runs/study/results.jsonl --throughput throughput.json --output study.html
  dhrd study report --results runs/study/results.jsonl --where alpha=1 --where data!=cb --readme README.md

Where runs differ in several options, each table takes for each data set those with the most runs and says which.
--where fixes an option wherever a table is not about it, and study, model, data and seed everywhere; KEY=VALUE,VALUE takes
either, KEY!=VALUE all others. --not-in-mean is for data sets with the test rows of another, which would count twice: they
stand in every table, and in the first below the mean. --readme replaces what stands between the lines <!-- study:begin --> and <!-- study:end -->.
Intervals are 95%, paired, over test items and seeds.
"""


def run(argv: Sequence[str]) -> int:
    """Do the runs of a study that are not in its table yet, or report one; a file named report is ./report."""
    if argv[:1] == ["report"]:
        return _report(argv[1:])
    args = _parser().parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit {args.limit} must be 1 or more")

    import datasets

    from ..study import read_study, run_study
    from ..study.machines import Machines
    from ..study.runner import planned_runs

    datasets.disable_progress_bars()
    asked = {"jobs": args.jobs, "gpus": args.gpus_per_run, "processes": args.processes_per_run}
    machines = Machines.of(args.backend, args.address, **asked)
    study = read_study(args.study)
    folder = Path(args.output_dir or Path("runs") / Path(args.study).stem)
    check_options(study, "an option of the study: ")
    if args.dry_run:
        for run, state, command in planned_runs(study, folder):
            print(f"{run.id}  {state:7}  {study.label(run)}\n    {command}")
        print(f"{len(study.runs)} runs. The commands run in {folder}", file=sys.stderr)
        return 0
    with ended_as_by_ctrl_c():
        outcome = run_study(study, folder, retry_failed=args.retry_failed, limit=args.limit, machines=machines)
    said = f"{outcome.ran} runs; of {outcome.total} {outcome.done} are done and {outcome.failed} failed"
    said += f", {outcome.elsewhere} are of other starts" if outcome.elsewhere else ""
    print(f"{said}: {folder / 'results.jsonl'}", file=sys.stderr)
    return 1 if outcome.failed else 0


def after_interrupt(argv: Sequence[str]) -> str:
    """What is left after Ctrl-C, and how to go on."""
    if argv[:1] == ["report"]:
        return "No half-written report was left behind."
    return f"The table holds what was done. To go on: dhrd study {shlex.join(argv)}"


def _parser() -> Parser:
    parser = Parser(
        "dhrd study",
        usage="dhrd study FILE.yaml --output-dir DIR [options]\n       dhrd study report ...",
        description="Do a grid of dhrd train runs, paired across settings; the table results.jsonl grows as they end.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("study", metavar="FILE.yaml", help="the study")
    folder = "its folder, outside which nothing is written; default: runs/NAME of the file"
    add("--output-dir", metavar="DIR", help=folder)
    add("--dry-run", action="store_true", help="list the runs and their commands, and run nothing")
    add("--retry-failed", action="store_true", help="run again what failed before this call")
    numbers = {
        "--limit": "do at most N runs",
        "--jobs": "runs at a time; default: one, or one for each GPU or group of GPUs",
        "--gpus-per-run": "GPUs that a run has for itself; default: one, where there are several",
        "--processes-per-run": "processes of a run, by torchrun; default: one for each of its GPUs",
    }
    for name, text in numbers.items():
        add(name, type=int, metavar="N", help=text)
    add("--backend", default="local", metavar="NAME", help="where the runs are: local, ray or dask [local]")
    add("--address", help="of the Ray or Dask cluster; default: one is started on this machine")
    return parser


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """A polite `kill`, or a terminal that is closed, ends the running processes as well."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    polite = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # nohup has a terminal's end ignored, and so do we.
    before = {it: signal.signal(it, interrupt) for it in polite if signal.getsignal(it) != signal.SIG_IGN}
    try:
        yield
    finally:
        for it, handler in before.items():
            signal.signal(it, handler)


def check_options(study: Study, who: str = "") -> None:
    """Have `dhrd train` read the options of all runs before the first of them begins; `who` begins a complaint."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from ..study.options import typed_options
    from .main import quiet_libraries

    several = {tuple(typed_options(run.options)): None for run in study.runs}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=quiet_libraries) as pool:
        pool.submit(_parse_all, list(several), who).result()


def _parse_all(several: list[tuple[str, ...]], who: str) -> None:
    from .train import parse_train

    for options in several:
        given = ("--model", "m", "--train-data", "t", "--eval-data", "e", "--output-dir", "o", *options)
        try:
            parse_train(given)
        except ValueError as error:
            raise ValueError(f"{who}{error}") from None


# dhrd study report


def _report(argv: Sequence[str]) -> int:
    """Report what a study has found so far."""
    parser = Parser(
        prog="dhrd study report",
        description="Tables and plots of a study: gains over pooled with paired intervals, ablations, curves, throughput.",
        epilog=_REPORT_EXAMPLES,
    )
    add = parser.add_argument
    tables = "results.jsonl of dhrd study; several are one table"
    add("--results", required=True, nargs="+", metavar="TABLE", help=tables)
    option = "an option's value, such as alpha=1; repeatable"
    add("--where", action="append", default=[], metavar="KEY=VALUE", help=option)
    apart = "data sets that the mean and the headline leave out, with commas between them"
    add("--not-in-mean", default="", metavar="NAMES", help=apart)
    add("--throughput", metavar="FILE.json", help="what dhrd bench --output wrote")
    add("--study", metavar="FILE.yaml", help="the study file, to name it and the runs in it that have not been done")
    add("--output", metavar="PAGE.html", help="write one self-contained page with plots")
    add("--markdown", metavar="FILE.md", help="write the tables as Markdown")
    add("--readme", metavar="README.md", help="put the tables between the marker comments of this file")
    args = parser.parse_args(argv)
    where = _where(args.where)
    targets = {name: Path(it).expanduser() for name in ("output", "markdown", "readme") if (it := getattr(args, name))}

    from ..data.table_writing import check_file, same_file
    from ..files import write_whole
    from ..pages.study import report_markdown, report_page, with_results
    from ..pages.throughput import read_throughput
    from ..study import read_study
    from ..study.report import build_report, meets
    from ..study.results import read_results, to_stderr

    for path in targets.values():
        check_file(path, *args.results, args.throughput, args.study)
    if any(same_file(*pair) for pair in combinations(targets.values(), 2)):
        raise ValueError("--output, --markdown and --readme must be different files.")

    rows, planned = read_results(args.results, to_stderr), []
    throughput = read_throughput(args.throughput) if args.throughput else None
    before = targets["readme"].read_text(encoding="utf-8") if "readme" in targets else ""
    # A table that was made elsewhere comes without the study's file.
    if args.study and not Path(args.study).expanduser().is_file():
        to_stderr(f"--study {args.study} is not there: which of its runs have not been done is not said")
    elif args.study:
        planned = read_study(args.study).runs
    asked = [(name, typed) for name, typed in where.items() if name.rstrip("!") == "study"]
    named = dict.fromkeys(row["study"] for row in rows if all(meets(row["study"], *it) for it in asked))
    files = [args.study] if args.study else [f"{it}.yaml" for it in named]
    commands = [*(shown_command("dhrd study", [it]) for it in files), (throughput or {}).get("command")]
    report = build_report(
        rows,
        throughput=throughput,
        where=where,
        not_in_mean=[name for part in args.not_in_mean.split(",") if (name := part.strip())],
        commands=[*filter(None, commands), shown_command("dhrd study report", argv)],
        planned=planned,
    )
    markdown = report_markdown(report)
    texts = {"output": report_page(report) if "output" in targets else "", "markdown": markdown}
    if "readme" in targets:
        try:
            texts["readme"] = with_results(before, markdown)
        except ValueError as error:
            raise ValueError(f"{targets['readme']}: {error}") from None
    for name, path in targets.items():
        write_whole(path, texts[name])
        to_stderr(f"Wrote {path}")
    if not targets:
        sys.stdout.write(markdown)
    to_stderr(report.counts)
    return 0


def _where(given: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not name or not equals or not value:
            raise ValueError(f"--where {word}: expected a name and a value, such as --where alpha=1")
        name = name.replace("-", "_")
        if found.setdefault(name, value) != value:
            raise ValueError(f"--where has {name} twice, as {found[name]} and as {value}")
    return found
