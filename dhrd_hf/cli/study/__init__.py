"""`dhrd study`: a study file is run, `report` reports what it found."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .. import parsing

if TYPE_CHECKING:
    from ...study import Study

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


def run(argv: Sequence[str]) -> int:
    """Do the runs of a study that are not in its table yet, or report one; a file named report is ./report."""
    if argv[:1] == ["report"]:
        from . import report

        return report.run(argv[1:])
    args = _parser().parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit {args.limit} must be 1 or more")

    import datasets

    from ...study import read_study, run_study
    from ...study.machines import Machines
    from ...study.runner import planned_runs

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
        from . import report

        return parsing.after_interrupt(report, argv[1:])
    return f"The table holds what was done. To go on: dhrd study {shlex.join(argv)}"


def _parser() -> parsing.Parser:
    parser = parsing.Parser(
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

    from ...study.options import typed_options
    from ..main import quiet_libraries

    several = {tuple(typed_options(run.options)): None for run in study.runs}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=quiet_libraries) as pool:
        pool.submit(_parse_all, list(several), who).result()


def _parse_all(several: list[tuple[str, ...]], who: str) -> None:
    from ..arguments import parse_train

    for options in several:
        given = ("--model", "m", "--train-data", "t", "--eval-data", "e", "--output-dir", "o", *options)
        try:
            own, training = parse_train(given)
        except ValueError as error:
            raise ValueError(f"{who}{error}") from None
        # However it was written: what a run would write is what the study says.
        found = (own.train_data, own.eval_data, training.output_dir, own.export, own.predictions, own.logits)
        found += (own.encoding_cache, own.teacher_cache, training.push_to_hub or None)
        if found != ("t", "e", "o", *[None] * 6):
            raise ValueError(f"{who}what a run writes is in its folder, and not where {' '.join(options)} says")
