"""`dhrd study FILE`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..parsing import Parser

if TYPE_CHECKING:
    from ...study import Study

_EXAMPLES = """examples:
  dhrd study study.yaml --dry-run                                 (lists the cells and their commands)
  dhrd study study.yaml --output-dir runs/study                   (a second call goes on where it stopped)
  dhrd study report --results runs/study/results.jsonl --output study.html

study.yaml:
  name: first
  model: smollm2                # as dhrd train --model; paths are taken from this file's folder
  data:
    nli: {train: train.jsonl, eval: dev.jsonl, rationales: rationales.jsonl}  # also prompt, label_column,
                                #   rationale_column, metric (accuracy, macro_f1), group_column (rows of a group are drawn
                                #   together by the intervals; default: group, where there is one; null: none)
    cb: {superglue: cb, source: data/superglue, rationales: data/superglue_rationales}
  train: {lora: true, learning_rate: 2e-4, num_train_epochs: 3}               # any option of dhrd train
  eval_size: 500                # evaluation rows, the same for all cells; absent: all
  cot_eval_size: 100            # those that cot_decoding answers, the first of the others
  grid:                         # blocks in their order; each is the product of its lists
    - {data: [nli, cb], setting: [pooled, dual_head], seed: [0, 1, 2], train_size: 400}
    - {data: nli, setting: dual_head, alpha: [0.25, 0.5, 2], seed: [0, 1, 2], train_size: 400}

Settings: pooled (alpha 0), dual_head, cot_decoding (alpha 1, beta 0, answers decoded), and the ablations label_only,
shuffled_rationale, shuffled_rationale_and_label, permuted_tokens, keywords_only, same_label_rationale,
rationale_after_label. Each cell is a dhrd train in a process of its own. Several calls, also on several machines that
share the folder, take turns in the cells. Exit code 1: some cells failed.
"""


def run(argv: Sequence[str]) -> int:
    """Run the cells of a study that are not in its table yet."""
    args = _parser().parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit {args.limit} must be 1 or more")

    import datasets

    from ...study import read_study, run_study

    datasets.disable_progress_bars()
    study = read_study(args.study)
    folder = _output_dir(args)
    _check_options(study)
    if args.dry_run:
        return _list_cells(study, folder)
    with _ended_as_by_ctrl_c():
        outcome = run_study(study, folder, retry_failed=args.retry_failed, limit=args.limit)
    said = f"{outcome.ran} cells run; of {outcome.total} {outcome.done} are done and {outcome.failed} failed"
    said += f", {outcome.elsewhere} are run by other processes" if outcome.elsewhere else ""
    print(f"{said}: {folder / 'results.jsonl'}", file=sys.stderr)
    return 1 if outcome.failed else 0


def after_interrupt(argv: Sequence[str]) -> str:
    """How to go on after Ctrl-C."""
    import shlex

    return f"The table holds what was done. To go on: dhrd study {shlex.join(argv)}"


def _parser() -> Parser:
    parser = Parser(
        prog="dhrd study",
        usage="dhrd study FILE.yaml --output-dir DIR [options]\n       dhrd study report ...",
        description="Run a grid of dhrd train runs, paired across settings; the table results.jsonl grows as they end.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", metavar="FILE.yaml", help="the study")
    parser.add_argument("--output-dir", metavar="DIR", help="its folder; default: runs/NAME of the study file")
    parser.add_argument("--dry-run", action="store_true", help="list the cells and their commands, and run nothing")
    parser.add_argument("--limit", type=int, metavar="N", help="run at most N cells")
    parser.add_argument("--retry-failed", action="store_true", help="run the cells again that failed before this call")
    return parser


def _output_dir(args: argparse.Namespace) -> Path:
    return Path(args.output_dir) if args.output_dir else Path("runs") / Path(args.study).stem


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """A polite `kill`, or a terminal that is closed, ends the running cell's process as well."""

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


def _check_options(study: Study) -> None:
    """Have `dhrd train` read the options of all cells before the first of them runs."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from ...study.cells import typed_options

    several = {tuple(typed_options(cell.options)): None for cell in study.cells}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(_parse_all, list(several)).result()


def _parse_all(several: list[tuple[str, ...]]) -> None:
    from ..arguments import parse_train

    for options in several:
        try:
            parse_train(["--model", "m", "--train-data", "t", "--eval-data", "e", "--output-dir", "o", *options])
        except ValueError as error:
            raise ValueError(f"an option of the study: {error}") from None


def _list_cells(study: Study, folder: Path) -> int:
    from ...study.runner import planned_cells

    for cell, state, command in planned_cells(study, folder):
        print(f"{cell.id}  {state:7}  {study.label(cell)}\n    {command}")
    print(f"{len(study.cells)} cells. The commands run in {folder}", file=sys.stderr)
    return 0
