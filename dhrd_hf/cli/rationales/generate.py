"""`dhrd rationales generate`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..parsing import Parser, add_label_options, chosen_prompt, warn

if TYPE_CHECKING:
    from ...rationales.labelled import LabelledTable
    from ...rationales.pacing import Budget
    from ...rationales.prompt import TeacherPrompt
    from ...rationales.teachers import Teacher
    from ...rationales.verdicts import ReplyChecks

_GIVEN = ("column:", "file:")
_EXAMPLES = """examples:
  dhrd rationales generate --data train.jsonl --teacher http://localhost:8000/v1 --dry-run
  dhrd rationales generate --data train.jsonl --teacher http://localhost:8000/v1 --output rationales.jsonl
  dhrd rationales generate --data train.csv --teacher inference-providers:Qwen/Qwen3-32B --output rationales.jsonl \\
      --max-cost 5 --price-input 0.1 --price-output 0.3
  dhrd rationales generate --data train.jsonl --teacher file:human.jsonl --output rationales.jsonl

A teacher is an OpenAI-compatible endpoint (http://... or https://...), inference-providers:MODEL, a chat model on this
machine (a folder, a Hub id, or smollm2), or rationales that are there already (column:NAME or file:PATH, joined by key).
An endpoint's key is read from OPENAI_API_KEY, HF_TOKEN, the Hub's login or the variable that --api-key-env names.

Stopped or killed, it goes on with the same command. Beside rationales.jsonl it writes rejected.jsonl (with why),
rationales.replies.jsonl (every reply as it came) and rationales.manifest.json. Other checks re-read the replies.
"""


def run(argv: Sequence[str]) -> int:
    """Have a teacher write the rationales of a table."""
    args = _parser().parse_args(argv)
    if args.output is None and not args.dry_run:
        raise ValueError("--output is missing: the file to write, such as rationales.jsonl")
    given = args.teacher.startswith(_GIVEN)
    if not given and Path(args.teacher).expanduser().is_file():
        raise ValueError(
            f"--teacher {args.teacher} is a file: to take the rationales in it, --teacher file:{args.teacher}"
        )

    from ...rationales.labelled import LabelledTable

    template = chosen_prompt(args.prompt, args.text_column)
    column = args.teacher.removeprefix("column:") if args.teacher.startswith("column:") else None
    table = LabelledTable(
        args.data,
        template,
        label_column=args.label_column,
        id_column=args.id_column,
        label_map=_json_option("--label-map", args.label_map),
        rationale_column=args.rationale_column or (column if column is not None else "rationale"),
        keeps_rationales=given,
        problem_type=args.problem_type,
        drop_unlabelled=args.drop_unlabelled,
        say=warn,
    )
    prompt = _prompt(args, table, template)
    checks = _checks(args)
    if given:
        return _take(args, table, prompt, checks)
    budget = _budget(args)
    teacher = _teacher(args)
    if args.dry_run:
        _dry_run(args, table, prompt, teacher, budget)
        return 0
    if args.teacher == "smollm2":
        _say("smollm2 is too weak to teach: it shows the way, and few of its rationales will pass the checks.")

    from ...rationales.generation import generate_rationales

    generate_rationales(
        table,
        prompt,
        teacher,
        args.output,
        rejected=args.rejected,
        checks=checks,
        samples=args.samples,
        retries=args.retries,
        budget=budget,
        overwrite=args.overwrite,
        reparse=args.reparse,
        progress=True,
        say=_say,
    )
    return 0


def after_interrupt(argv: Sequence[str]) -> str:
    """What is left after Ctrl-C."""
    again = [word for word in argv if word != "--overwrite"]
    return f"Every reply so far is kept. To go on: dhrd rationales generate {shlex.join(again)}"


def _parser() -> Parser:
    parser = Parser(
        prog="dhrd rationales generate",
        description="Have a teacher write the rationales of a table with labels, and check each.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", required=True, metavar="TABLE", help="the rows, with their labels")
    add("--teacher", required=True, metavar="TEACHER", help="who writes: see below")
    add("--output", metavar="FILE", help="the .jsonl file of accepted rows to write, or to go on with")
    add("--rejected", metavar="FILE", help="the rejected rows (default: rejected.jsonl beside the output)")
    add("--dry-run", action="store_true", help="show three prompts, tokens and price; ask nothing")
    add(
        "--reparse", action="store_true", help="only re-read the replies that are there, by the checks of this command"
    )
    add("--overwrite", action="store_true", help="start anew, without the replies that are there")

    rows = parser.add_argument_group("rows")
    add = rows.add_argument
    add("--prompt", metavar="TEMPLATE", help=r"the input over a row's columns, such as '{premise}\n{hypothesis}'")
    add("--text-column", metavar="NAME", help="the same as --prompt '{NAME}' (default: text)")
    add_label_options(parser)
    add("--problem-type", metavar="TYPE", help="single_label_classification where numbers such as 3.5 are names")
    add("--rationale-column", metavar="NAME", help="column to write (default: rationale)")
    add("--id-column", metavar="NAME", help="column of the keys (default: id, key or idx, else the row's number)")
    add(
        "--label-map",
        metavar="JSON",
        help="""names of labels, as JSON or a file of it: '{"0": "No", "1": ["Yes", "True"]}'""",
    )

    asked = parser.add_argument_group("what the teacher is asked")
    add = asked.add_argument
    add(
        "--style",
        choices=("guarded", "free"),
        default="guarded",
        help="show the gold label (default), or hide it: free",
    )
    add("--samples", type=int, default=1, metavar="K", help="rationales of a row (default: 1)")
    add("--label-descriptions", metavar="JSON", help="what a label means, as JSON by label, or a file of it")
    add("--examples", metavar="TABLE", help="rows with the prompt's columns, label and rationale, to show as examples")
    add("--system", metavar="TEXT", help="the system prompt; '' for none")
    add("--language", metavar="NAME", help="such as German (default: the input's)")

    sampling = parser.add_argument_group("how it answers")
    add = sampling.add_argument
    add("--teacher-model", metavar="NAME", help="the model at the endpoint (default: its only one)")
    add("--api-key-env", metavar="NAME", help="the environment variable that holds the endpoint's key")
    add("--temperature", type=float, default=0.7, metavar="T", help="default: 0.7")
    add("--top-p", type=float, metavar="P")
    add("--max-reply-tokens", type=int, default=1024, metavar="N", help="most tokens of a reply (default: 1024)")
    add("--seed", type=int, metavar="N", help="sent with each request, another one for each try")
    add(
        "--extra-body",
        metavar="JSON",
        help="""sent as it is: '{"chat_template_kwargs": {"enable_thinking": false}}'""",
    )

    pace = parser.add_argument_group("pace and budget, over all runs on one output")
    add = pace.add_argument
    add("--concurrency", type=int, default=32, metavar="N", help="most requests at a time (default: 32)")
    add("--timeout", type=float, default=120.0, metavar="SECONDS", help="of a request (default: 120)")
    add(
        "--batch-size", type=int, default=8, metavar="N", help="rows at a time of a model on this machine (default: 8)"
    )
    add("--device", help="of a model on this machine (default: the accelerator if there is one)")
    add("--max-requests", type=int, metavar="N", help="stop after so many requests")
    add("--max-total-tokens", type=int, metavar="N", help="stop after so many tokens, of prompts and replies")
    add("--max-cost", type=float, metavar="X", help="stop after such a cost")
    add("--price-input", type=float, default=0.0, metavar="X", help="price of a million prompt tokens")
    add("--price-output", type=float, default=0.0, metavar="X", help="price of a million reply tokens")

    checked = parser.add_argument_group("checks")
    add = checked.add_argument
    add("--retries", type=int, default=3, metavar="N", help="times that a row is asked again (default: 3)")
    add("--label-words", metavar="JSON", help="further words that name a label, as JSON by label, or a file of it")
    add("--min-words", type=int, metavar="N", help="fewest words of a rationale")
    add("--max-words", type=int, metavar="N", help="most words of a rationale")
    add("--skip-check", action="append", default=[], metavar="NAME", help="leave a check out; may be repeated")
    return parser


def _prompt(args: argparse.Namespace, table: LabelledTable, template: str) -> TeacherPrompt:
    from ...data.joining import NamedRows
    from ...rationales.prompt import TeacherPrompt

    return TeacherPrompt(
        table.labels,
        style=args.style,
        template=template,
        descriptions=_json_option("--label-descriptions", args.label_descriptions),
        examples=tuple(NamedRows(args.examples)) if args.examples else (),
        system=args.system,
        language=args.language,
        spellings=table.spellings,
    )


def _checks(args: argparse.Namespace) -> ReplyChecks:
    from ...rationales.verdicts import ReplyChecks

    words = _json_option("--label-words", args.label_words) or {}
    words = {label: [its] if isinstance(its, str) else list(its) for label, its in words.items()}
    bounds = {name: getattr(args, name) for name in ("min_words", "max_words") if getattr(args, name) is not None}
    return ReplyChecks(words, skip=tuple(args.skip_check), **bounds)


def _budget(args: argparse.Namespace) -> Budget:
    from ...rationales.pacing import Budget

    return Budget(args.max_requests, args.max_total_tokens, args.max_cost, args.price_input, args.price_output)


def _teacher(args: argparse.Namespace) -> Teacher:
    from ...rationales.replies import Sampling
    from ...rationales.teachers import open_teacher

    sampling = Sampling(
        args.temperature,
        args.top_p,
        args.max_reply_tokens,
        args.seed,
        _json_option("--extra-body", args.extra_body) or {},
    )
    return open_teacher(
        args.teacher,
        args.teacher_model,
        sampling,
        api_key_env=args.api_key_env,
        concurrency=args.concurrency,
        timeout=args.timeout,
        batch_size=args.batch_size,
        device=args.device,
    )


def _take(args: argparse.Namespace, table: LabelledTable, prompt: TeacherPrompt, checks: ReplyChecks) -> int:
    from ...rationales.given import take_rationales

    kind, _, where = args.teacher.partition(":")
    if args.dry_run:
        raise ValueError("--dry-run shows what a teacher would be asked, and rationales that are there ask nobody")
    counts = take_rationales(
        table,
        prompt,
        args.output,
        column=where if kind == "column" else None,
        file=where if kind == "file" else None,
        key=args.id_column,
        rejected=args.rejected,
        checks=checks,
        overwrite=args.overwrite,
        say=_say,
    )
    _say(str(counts))
    return 0


def _dry_run(
    args: argparse.Namespace, table: LabelledTable, prompt: TeacherPrompt, teacher: Teacher, budget: Budget
) -> None:
    """Three prompts to standard output, and what all of them would take."""
    from ...rationales.generation import check_tries, estimated_tokens

    check_tries(teacher, args.samples, args.retries)
    tokens = rows = 0
    for it in table:
        if any(it.row.get(name) is None for name in prompt.columns):
            continue
        messages = prompt.messages(it.row, it.label)
        if rows < 3:
            print(f"--- row {it.key}, label {it.label!r}")
            print("\n".join(f"[{message['role']}]\n{message['content']}\n" for message in messages))
        rows += 1
        tokens += sum(estimated_tokens(message["content"]) for message in messages)
    requests = rows * args.samples
    tokens *= args.samples
    least, most = requests * 30 * prompt.sentences[1], requests * (teacher.sampling.max_reply_tokens or 1024)
    print(
        f"{rows} of {len(table)} rows x {args.samples} samples = {requests} requests: about {tokens} prompt tokens, and "
        f"about {least} reply tokens (at most {most}), if no row is asked twice."
    )
    if budget.price_input or budget.price_output:
        print(f"Price: about {budget.price(tokens, least):.4g}, at most {budget.price(tokens, most):.4g} per try.")
    else:
        print("Price: unknown; --price-input and --price-output are the prices of a million tokens.")
    print("Nothing was asked.")


def _json_option(option: str, value: str | None) -> dict[str, Any] | None:
    """An option's JSON object, typed or in a file."""
    if value is None:
        return None
    text = value
    if not value.lstrip().startswith("{"):
        path = Path(value).expanduser()
        if not path.is_file():
            raise ValueError(f"{option} {value!r} is neither JSON in braces nor a file")
        text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{option} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{option} must be a JSON object, in braces")
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr)
