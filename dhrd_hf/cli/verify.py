"""`dhrd verify`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..data.table_writing import check_file
from ..data.tables import load_table, table_name
from ..files import strict_json, write_whole
from .parsing import Parser, add_label_options, with_labels, without_bars

if TYPE_CHECKING:
    from ..export import Contract, Replay, Server

_EXAMPLES = """examples:
  dhrd verify my-classifier
  dhrd verify my-classifier --server http://localhost:8000
  dhrd verify my-classifier --server http://localhost:7997 --data test.jsonl --max-flips 2 --output verified.json
  dhrd verify my-classifier --server https://abc.endpoints.huggingface.cloud --token-env HF_TOKEN

The folder's dhrd_contract.json holds some thirty golden texts with their token ids and logits. Exit code: 0 where all is as
it says, 1 past --tolerance or --max-flips, 2 where it could not be found out. A server is vLLM or infinity (/classify),
text-embeddings-inference (/predict) or an Inference Endpoint; which it is is found out. It is sent the golden texts and the
inputs of --data, nothing else.
"""
after_interrupt = "Nothing was changed."
# Their hosts want the Hub's token; no other server is sent one that nobody named.
_HUB_HOSTS = (".huggingface.co", ".hf.co", ".huggingface.cloud")


def run(argv: Sequence[str]) -> int:
    """Hold an export, or the server that serves it, against the export's contract; 1 where it differs."""
    parser = Parser(
        "dhrd verify",
        "Replay the golden texts of an export on the export itself, or on a server that serves it.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="what dhrd export wrote, in whatever format")
    add("--server", metavar="URL", help="the server that serves it, such as http://localhost:8000")
    add("--model", metavar="NAME", help="with --server: the model's name there, if it serves several")
    said = "with --server: the variable of its token; default: HF_TOKEN for the Hub's hosts"
    add("--token-env", metavar="NAME", help=said)
    said = "with --server: leave out golden texts with blanks at an end, which infinity strips"
    add("--ignore-blanks", action="store_true", help=said)
    add("--timeout", type=float, default=60.0, metavar="S", help="seconds of a request (default: 60)")
    said = "rows with labels as well: the folder's accuracy, and with --server its change there"
    add("--data", metavar="TABLE", help=said)
    add_label_options(parser)
    add(
        "--tolerance",
        type=float,
        metavar="X",
        help="largest difference of a logit on the folder (default: 1e-4 of the largest in float32), of a probability on a "
        "server (default: 0.01)",
    )
    add("--max-flips", type=int, metavar="N", help="most labels that may flip (default: 0)")
    add("--output", metavar="FILE", help="write the same facts to this .json file")
    args = parser.parse_args(argv)
    _check_options(args)

    from ..export import Contract, Server, verify_export, verify_server

    if args.output:
        check_file(args.output, args.data)
    without_bars()
    contract = Contract.read(args.folder)
    server = None
    if args.server:
        server = Server(args.server, contract, args.model, _token(args.server, args.token_env), args.timeout)
    if server:
        replays = {"golden": verify_server(server, args.tolerance, args.ignore_blanks)}
    else:
        replays = {"golden": verify_export(args.folder, args.tolerance)}
    facts: dict[str, Any] = {"folder": args.folder, "server": server and server.name, "kind": server and server.kind}
    print(_line(f"{server.name} ({server.kind})" if server else args.folder, "golden texts", replays["golden"]))
    if args.data:
        replays["data"], facts["data"] = _on_rows(args, contract, server)
    faults = [fault for replay in replays.values() if replay for fault in replay.faults(args.max_flips)]
    for fault in faults:
        print(f"DIFFERS: {fault}")
    print("Not as the contract says." if faults else "As the contract says.", flush=True)
    if args.output:
        told = {name: asdict(replay) for name, replay in replays.items() if replay}
        write_whole(args.output, strict_json({**facts, "replays": told, "faults": faults}, indent=1) + "\n")
    return 1 if faults else 0


def _check_options(args: argparse.Namespace) -> None:
    for name in ("model", "token_env", "ignore_blanks"):
        if getattr(args, name) and not args.server:
            raise ValueError(f"--{name.replace('_', '-')} goes with --server URL.")
    for name, least in (("tolerance", 0), ("max_flips", 0), ("timeout", 1e-3)):
        value = getattr(args, name)
        if value is not None and not value >= least:
            raise ValueError(f"--{name.replace('_', '-')} {value} must be {least:g} or a number above it.")


def _token(url: str, variable: str | None) -> str | None:
    from huggingface_hub import get_token

    if variable is None:
        return get_token() if f".{urlsplit(url).hostname}".endswith(_HUB_HOSTS) else None
    if not os.environ.get(variable, "").strip():
        raise ValueError(f"--token-env {variable}: there is no environment variable {variable!r}, or it is empty.")
    return os.environ[variable].strip()


def _line(where: str, what: str, replay: Replay) -> str:
    return (
        f"{where}: {replay.answered} {what}; a {replay.unit} differs by "
        f"{replay.largest_difference:.3g} at most ({replay.allowed:.3g} is allowed), {replay.flips} labels flip."
    )


def _on_rows(args: argparse.Namespace, contract: Contract, server: Server | None) -> tuple[Any, dict[str, Any]]:
    """What a table's rows say of the folder, and of the server beside it."""
    from ..auto import load_config
    from ..evaluation import compare_on_rows

    table = with_labels(args, load_table(args.data), args.data, load_config(args.folder))
    replay, facts = compare_on_rows(args.folder, contract, table, args.label_column, server, args.tolerance)
    if replay is not None:
        print(_line(f"{table_name(args.data)} on the server", "rows", replay))
    for name, whose in (("accuracy", "the folder"), ("server_accuracy", "the server")):
        if name in facts:
            found = facts[name]
            print(f"Accuracy of {whose}: {found['value']:.4f} (95% {found['low']:.4f} to {found['high']:.4f}).")
    if "change" in facts:
        points = {name: f"{100 * value:+.2f}" for name, value in facts["change"].items()}
        print("A change of {change} points (95% {low} to {high}, Tango's paired score interval).".format(**points))
    return replay, facts
