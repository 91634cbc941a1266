r"""From a labelled CSV to a trained classifier: local server, rationales, audit, filter, training.

    pip install "transformers[serving]" "dhrd-hf[teacher]"
    python examples/rationales_from_a_csv.py --output runs/from-csv
    python examples/rationales_from_a_csv.py --data mine.csv --teacher http://localhost:8000/v1 --output runs/mine

Without --teacher it serves a model with `transformers serve` itself: the embedded SmolLM2-135M, which shows the way and is
too weak to teach. Few of its rationales pass the checks, often none; rows without one train on their label alone. Serve a
stronger model with `--serve DIR`, or name any OpenAI-compatible endpoint. Without --data the CSV is made of invented rows.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dhrd_hf.cli import main as dhrd
from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.embedded import smollm2_path


@contextmanager
def served(model: str, log: Path) -> Iterator[str]:
    """`transformers serve` for a model, until the block ends; its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("w") as written:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "transformers.cli.transformers",
                "serve",
                model,
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ],
            stdout=written,
            stderr=written,
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait()


def wait_for(url: str, server: subprocess.Popen, log: Path, seconds: float = 180) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"the server ended: {log.read_text()[-500:]}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"the server did not answer within {seconds:.0f} s: {log.read_text()[-500:]}")


def command(*words: str | Path) -> None:
    """Run a `dhrd` command as one would type it."""
    print(f"\n$ dhrd {' '.join(map(str, words))}", flush=True)
    if dhrd([str(word) for word in words]):
        raise SystemExit(2)


def main() -> None:
    """Parse the command line and go the way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a table with the columns text and label")
    parser.add_argument("--teacher", help="URL of an endpoint; by default one is started")
    parser.add_argument("--serve", metavar="DIR", help="the model to serve (default: the embedded SmolLM2-135M)")
    parser.add_argument("--model", default="smollm2", help="the model to train (default: the embedded SmolLM2-135M)")
    # Ten rows in a row that can't be used stop the teacher, and this one is too weak for most.
    parser.add_argument("--rows", type=int, default=9, help="invented rows, where there is no --data")
    parser.add_argument("--max-steps", default="3", help="of training; -1 for a whole epoch")
    parser.add_argument("--output", type=Path, default=Path("runs/from-csv"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    data = args.data
    if data is None:
        from dhrd_hf.data.synthetic import synthetic_errands

        data = args.output / "rows.csv"
        write_rows(
            data, ({"text": row["text"], "label": row["label"]} for row in synthetic_errands("train", args.rows))
        )

    rationales, checked = args.output / "rationales.jsonl", args.output / "checked.jsonl"
    asked = [
        "rationales",
        "generate",
        "--data",
        data,
        "--output",
        rationales,
        "--max-reply-tokens",
        "200",
        "--teacher",
    ]
    if args.teacher:
        command(*asked, args.teacher)
    else:
        model = args.serve or str(smollm2_path())
        with served(model, args.output / "server.log") as url:
            # One retry, and few at a time: this is a small machine's server.
            options = ["--teacher-model", model, "--concurrency", "2", "--settings", "retries: 1, timeout: 300"]
            command(*asked, url, *options)

    joined = []
    if rationales.stat().st_size:
        command("rationales", "audit", rationales, "--html", args.output / "audit.html")
        command("rationales", "filter", rationales, "--output", checked)
        joined = ["--rationales", checked]
    else:
        print(
            "\nNo rationale passed the checks, as is to be expected of so small a teacher: all rows train on the label."
        )
    training = ["--per-device-train-batch-size", "4", "--max-steps", args.max_steps, "--overwrite-output-dir"]
    command(
        "train", "--model", args.model, "--train-data", data, *joined, "--lora", *training,
        "--output-dir", args.output / "model", "--export", args.output / "classifier",
    )  # fmt: skip


if __name__ == "__main__":
    main()
