"""`dhrd study report`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from ..parsing import Parser

_EXAMPLES = """examples:
  dhrd study report --results runs/study/results.jsonl                      (Markdown on standard output)
  dhrd study report --results runs/study/results.jsonl --throughput throughput.json --output study.html
  dhrd study report --results runs/study/results.jsonl --where alpha=1 --where data!=cb --readme README.md

Where runs differ in several options, each table takes for each data set those with the most runs and says which.
--where fixes an option wherever a table is not about it, and study, model, data and seed everywhere; KEY=VALUE,VALUE takes
either, KEY!=VALUE all others. --not-in-mean is for data sets with the test rows of another, which would count twice: they
stand in every table, and in the first below the mean. --readme replaces what stands between the lines <!-- study:begin --> and <!-- study:end -->.
Intervals are 95%, paired, over test items and seeds.
"""
after_interrupt = "No half-written report was left behind."


def run(argv: Sequence[str]) -> int:
    """Report what a study has found so far."""
    parser = Parser(
        prog="dhrd study report",
        description="Tables and plots of a study: gains over pooled with paired intervals, ablations, curves, throughput.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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

    from ...data.table_writing import check_file, same_file
    from ...files import write_whole
    from ...study import read_study
    from ...study.measures import read_throughput
    from ...study.report import build_report, report_markdown, report_page, with_results
    from ...study.table import read_results

    for path in targets.values():
        check_file(path, *args.results, args.throughput, args.study)
    if any(same_file(*pair) for pair in combinations(targets.values(), 2)):
        raise ValueError("--output, --markdown and --readme must be different files.")

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    rows, planned = read_results(args.results, say), []
    throughput = read_throughput(args.throughput) if args.throughput else None
    before = targets["readme"].read_text(encoding="utf-8") if "readme" in targets else ""
    # A table that was made elsewhere comes without the study's file.
    if args.study and not Path(args.study).expanduser().is_file():
        say(f"--study {args.study} is not there: which of its runs have not been done is not said")
    elif args.study:
        planned = read_study(args.study).runs
    report = build_report(
        rows,
        throughput=throughput,
        where=where,
        not_in_mean=[name for part in args.not_in_mean.split(",") if (name := part.strip())],
        commands=_commands(args, rows, throughput or {}, where),
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
        say(f"Wrote {path}")
    if not targets:
        sys.stdout.write(markdown)
    say(report.counts)
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


def _commands(
    args: argparse.Namespace, rows: Sequence[dict[str, Any]], throughput: dict[str, Any], where: dict[str, str]
) -> list[str]:
    """What makes the results and the report again; of folders elsewhere on this machine the last part alone."""
    from ...study.report import meets

    asked = [(name, typed) for name, typed in where.items() if name.rstrip("!") == "study"]
    named = dict.fromkeys(row["study"] for row in rows if all(meets(row["study"], *it) for it in asked))
    studies = [args.study] if args.study else [f"{it}.yaml" for it in named]
    found = [shlex.join(["dhrd", "study", _here(it)]) for it in studies]
    found += [throughput["command"]] if throughput.get("command") else []
    words = ["dhrd", "study", "report", "--results", *map(_here, args.results)]
    for name in ("throughput", "study", "output", "markdown", "readme"):
        value = getattr(args, name)
        words += [f"--{name}", _here(value)] if value else []
    words += ["--not-in-mean", args.not_in_mean] if args.not_in_mean else []
    return [*found, shlex.join([*words, *(word for it in args.where for word in ("--where", it))])]


def _here(name: str) -> str:
    path = Path(name).expanduser()
    if not path.is_absolute():
        return name
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.name
