"""`dhrd rationales generate`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.prompts import chosen_prompt
from ...files import did_you_mean
from ..parsing import Parser, add_label_options, warn

if TYPE_CHECKING:
    from ...rationales.journal import Budget
    from ...rationales.prompt import LabelledTable, TeacherPrompt
    from ...rationales.teacher import Teacher

# What --settings takes: of the rows, the prompt, the teacher, the budget and the checks.
_SETTINGS: dict[str, tuple[type, str]] = {
    "id_column": (str, "column of the keys (default: id, key or idx, else the row's number)"),
    "rationale_column": (str, "column to write (default: rationale)"),
    "problem_type": (str, "single_label_classification where numbers such as 3.5 are names"),
    "rejected": (str, "file of the rejected rows (default: rejected.jsonl beside the output)"),
    "style": (str, "free hides the gold label: replies with another answer are thrown away"),
    "descriptions": (dict, "what a label means, by label"),
    "examples": (str, "table of rows with the prompt's columns, label and rationale, shown as examples"),
    "system": (str, "the system prompt; '' for none"),
    "language": (str, "such as German (default: the input's)"),
    "temperature": (float, "default: 0.7"),
    "top_p": (float, "nucleus sampling"),
    "seed": (int, "sent with each request, another one for each try"),
    "timeout": (float, "seconds of a request (default: 120)"),
    "device": (str, "of a model on this machine (default: the accelerator if there is one)"),
    "retries": (int, "times that a row is asked again (default: 3)"),
    "max_requests": (int, "stop after so many requests; 0 only re-reads the replies that are there"),
    "price_input": (float, "price of a million prompt tokens, which --max-cost needs"),
    "price_output": (float, "price of a million reply tokens"),
    "label_words": (dict, "further words that name a label, by label"),
    "min_words": (int, "fewest words of a rationale"),
    "max_words": (int, "most words of a rationale"),
    "skip_check": (list, "checks to leave out"),
}
_EXAMPLES = """examples:
  dhrd rationales generate --data train.jsonl --teacher http://localhost:8000/v1 --dry-run
  dhrd rationales generate --data train.jsonl --teacher http://localhost:8000/v1 --output rationales.jsonl
  dhrd rationales generate --data train.csv --teacher inference-providers:Qwen/Qwen3-32B --output rationales.jsonl \\
      --max-cost 5 --settings 'price_input: 0.1, price_output: 0.3'
  dhrd rationales generate --data train.jsonl --teacher file:human.jsonl --output rationales.jsonl

A teacher is an OpenAI-compatible endpoint (http://... or https://...), inference-providers:MODEL, a chat model on this
machine (a folder, a Hub id, or smollm2), or rationales that are there already (column:NAME or file:PATH, joined by key).
The key of a well-known host is read from its own variable (OPENAI_API_KEY for api.openai.com, HF_TOKEN or the Hub's login
for the Hub); to any other host, this machine too, goes the key alone that --api-key-env names.

Stopped or killed, it goes on with the same command. Beside rationales.jsonl it writes rejected.jsonl (with why),
rationales.replies.jsonl (every reply as it came) and rationales.manifest.json. Other checks re-read the replies.

settings, as YAML or JSON typed or in a file, such as --settings 'temperature: 0.2, style: free':
"""


def run(argv: Sequence[str]) -> int:
    """Have a teacher write the rationales of a table."""
    args = _parser().parse_args(argv)
    if args.output is None and not args.dry_run:
        raise ValueError("--output is missing: the file to write, such as rationales.jsonl")
    kind, _, where = args.teacher.partition(":")
    given = kind in ("column", "file") and bool(where)
    if given and args.dry_run:
        raise ValueError("--dry-run shows what a teacher would be asked, and rationales that are there ask nobody")
    if not given and Path(args.teacher).expanduser().is_file():
        raise ValueError(
            f"--teacher {args.teacher} is a file: to take the rationales in it, --teacher file:{args.teacher}"
        )
    settings = _settings(args.settings)
    label_map = _mapping("--label-map", args.label_map)
    extra_body = _mapping("--extra-body", args.extra_body)

    def chosen(*names: str) -> dict[str, Any]:
        return {name: settings[name] for name in names if name in settings}

    from ...data.joining import NamedRows
    from ...rationales.checks import ReplyChecks
    from ...rationales.generate import RETRIES, generate_rationales
    from ...rationales.journal import Budget
    from ...rationales.outputs import take_rationales
    from ...rationales.prompt import LabelledTable, TeacherPrompt
    from ...rationales.teacher import Sampling, open_teacher

    template = chosen_prompt(args.prompt, None)
    table = LabelledTable(
        args.data,
        template,
        label_column=args.label_column,
        label_map=label_map,
        rationale_column=settings.get("rationale_column") or (where if kind == "column" else "rationale"),
        keeps_rationales=given,
        drop_unlabelled=args.drop_unlabelled,
        say=warn,
        **chosen("id_column", "problem_type"),
    )
    examples = tuple(NamedRows(settings["examples"])) if "examples" in settings else ()
    asked = {"template": template, "examples": examples, "spellings": table.spellings}
    prompt = TeacherPrompt(table.labels, **asked, **chosen("style", "descriptions", "system", "language"))
    words = {label: [its] if isinstance(its, str) else its for label, its in settings.get("label_words", {}).items()}
    checks = ReplyChecks(words, skip=settings.get("skip_check", ()), **chosen("min_words", "max_words"))
    common = {"rejected": settings.get("rejected"), "checks": checks, "overwrite": args.overwrite, "say": _say}
    if given:
        key = settings.get("id_column")
        _say(str(take_rationales(table, prompt, args.output, **{kind: where}, key=key, **common)))
        return 0
    sampling = Sampling(
        max_reply_tokens=args.max_reply_tokens, extra_body=extra_body, **chosen("temperature", "top_p", "seed")
    )
    at_a_time = {} if args.concurrency is None else {"concurrency": args.concurrency, "batch_size": args.concurrency}
    options = {"api_key_env": args.api_key_env, **at_a_time, **chosen("timeout", "device")}
    teacher = open_teacher(args.teacher, args.teacher_model, sampling, **options)
    prices = chosen("max_requests", "price_input", "price_output")
    budget = Budget(max_tokens=args.max_total_tokens, max_cost=args.max_cost, **prices)
    retries = settings.get("retries", RETRIES)
    if args.dry_run:
        _dry_run(table, prompt, teacher, budget, args.samples, retries)
        return 0
    if args.teacher == "smollm2":
        _say("smollm2 is too weak to teach: it shows the way, and few of its rationales will pass the checks.")
    common |= {"batch_write": args.batch_write, "batch_read": args.batch_read, "progress": True, "budget": budget}
    generate_rationales(table, prompt, teacher, args.output, samples=args.samples, retries=retries, **common)
    return 0


def after_interrupt(argv: Sequence[str]) -> str:
    """What is left after Ctrl-C."""
    # Passwords of URLs and secrets of an extra body are not printed.
    shown = not any(option in word for word in argv for option in ("@", "--extra-body", "--settings", "?"))
    again = shlex.join(["dhrd", "rationales", "generate", *(word for word in argv if word != "--overwrite")])
    return f"Every reply so far is kept. To go on: {again if shown else 'the same command, without --overwrite'}"


def _parser() -> Parser:
    width = max(map(len, _SETTINGS))
    listed = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in _SETTINGS.items())
    said = "Have a teacher write the rationales of a table with labels, and check each."
    parser = Parser("dhrd rationales generate", said, _EXAMPLES + listed)
    add = parser.add_argument
    add("--data", required=True, metavar="TABLE", help="the rows, with their labels")
    over = r"the input over a row's columns, such as '{premise}\n{hypothesis}' (default: {text})"
    add("--prompt", metavar="TEMPLATE", help=over)
    add_label_options(parser)
    names = """names of labels, as JSON or a file of it: '{"0": "No", "1": ["Yes", "True"]}'"""
    add("--label-map", metavar="JSON", help=names)
    add("--teacher", required=True, metavar="TEACHER", help="who writes: see below")
    add("--teacher-model", metavar="NAME", help="the model at the endpoint (default: its only one)")
    add("--api-key-env", metavar="NAME", help="the environment variable that holds the endpoint's key")
    add("--output", metavar="FILE", help="the .jsonl file of accepted rows to write, or to go on with")
    add("--overwrite", action="store_true", help="start anew, without the replies that are there")
    add("--dry-run", action="store_true", help="show three prompts, tokens and price; ask nothing")
    add("--batch-write", metavar="FILE", help="write the requests to a file in OpenAI's batch format, and send none")
    add("--batch-read", metavar="FILE", help="take the replies from a file of a batch's results")
    add("--samples", type=int, default=1, metavar="K", help="rationales of a row (default: 1)")
    at_a_time = "most requests, or rows of a model here, at a time (default: 32; 8)"
    add("--concurrency", type=int, metavar="N", help=at_a_time)
    add("--max-reply-tokens", type=int, default=1024, metavar="N", help="most tokens of a reply (default: 1024)")
    add("--max-total-tokens", type=int, metavar="N", help="stop after so many tokens, over all runs on one output")
    add("--max-cost", type=float, metavar="X", help="stop after such a cost, over all runs on one output")
    thoughts = """sent as it is: '{"chat_template_kwargs": {"enable_thinking": false}}'"""
    add("--extra-body", metavar="JSON", help=thoughts)
    add("--settings", metavar="YAML", help="anything else: see below")
    return parser


def _dry_run(
    table: LabelledTable, prompt: TeacherPrompt, teacher: Teacher, budget: Budget, samples: int, retries: int
) -> None:
    """Three prompts to standard output, and what all of them would take."""
    from ...rationales.journal import check_tries
    from ...rationales.prompt import SENTENCES
    from ...rationales.teacher import estimated_tokens

    check_tries(teacher, samples, retries)
    tokens = rows = 0
    for it in table:
        if prompt.lacks(it.row) is None:
            messages = prompt.messages(it.row, it.label)
            tokens += samples * sum(estimated_tokens(message["content"]) for message in messages)
            rows += 1
            if rows <= 3:
                print(f"--- row {it.key}, label {it.label!r}")
                print("\n".join(f"[{message['role']}]\n{message['content']}\n" for message in messages))
    requests = rows * samples
    least, most = requests * 30 * SENTENCES[1], requests * (teacher.sampling.max_reply_tokens or 1024)
    print(
        f"{rows} of {len(table)} rows x {samples} samples = {requests} requests: about {tokens} prompt tokens, and "
        f"about {least} reply tokens (at most {most}), if no row is asked twice."
    )
    if budget.price_input or budget.price_output:
        print(f"Price: about {budget.price(tokens, least):.4g}, at most {budget.price(tokens, most):.4g} per try.")
    else:
        print("Price: unknown; --settings 'price_input: 0.1, price_output: 0.3' are the prices of a million tokens.")
    print("Nothing was asked.")


def _settings(typed: str | None) -> dict[str, Any]:
    found = _mapping("--settings", typed, "a file nor settings such as 'temperature: 0.2, style: free'", is_yaml=True)
    return {name.replace("-", "_"): _setting(name.replace("-", "_"), value) for name, value in found.items()}


def _mapping(
    option: str, typed: str | None, kind: str = "JSON in braces nor a file", is_yaml: bool = False
) -> dict[str, Any]:
    """What an option says, typed or in a file."""
    import yaml

    if typed is None:
        return {}
    path = Path(typed).expanduser()
    text = path.read_text(encoding="utf-8") if len(typed) < 250 and path.is_file() else typed
    braced = text.lstrip().startswith("{")
    try:
        if is_yaml:
            # A line such as "temperature: 0.2, style: free" is a mapping once there are braces around it. All of it is
            # text to this loader: to the others, a label that is called yes would be true.
            found = yaml.load(text if braced or "\n" in text else f"{{{text}}}", yaml.BaseLoader)
            found = found if ":" in text else None
        else:
            found = json.loads(text) if braced else None
    except (ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{option} is no {'YAML' if is_yaml else 'JSON'}: {said}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{option} is neither {kind}")
    return found


def _setting(name: str, value: Any) -> Any:
    if name not in _SETTINGS:
        raise ValueError(
            f"--settings has no {name!r}{did_you_mean(name, _SETTINGS) or '.'} There are {', '.join(_SETTINGS)}"
        )
    kind = _SETTINGS[name][0]
    if kind is list:
        return [value] if isinstance(value, str) else list(value)
    try:
        if isinstance(value, str) == (kind is dict):
            raise ValueError
        return kind(value)
    except ValueError:
        wanted = {int: "a whole number", float: "a number", dict: "by label, as in {yes: ...}", str: "a text"}[kind]
        raise ValueError(f"--settings: {name} is {value!r}, and must be {wanted}") from None


def _say(text: str) -> None:
    print(text, file=sys.stderr)
