r"""Generation of rationales: how much of an endpoint's capacity is used, and how memory grows with the rows.

The endpoint is a stand-in on loopback, in a process of its own, that answers each request well after a fixed time; its
capacity is the concurrency divided by that time. Each rate is measured with its own latency, start and end included.

    python examples/benchmarks/generation.py --rates 160,320,640 --concurrency 32 --rows 3000
    python examples/benchmarks/generation.py --rates 640 --concurrency 128 --rows 100000
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.rationales import LabelledTable, TeacherPrompt, generate_rationales, open_teacher

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from chat_stand_in import ChatStandIn, rows  # noqa: E402


def serve(latency: float, pipe) -> None:
    """The stand-in's process."""
    with ChatStandIn(latency=latency) as chat:
        pipe.send(chat.url)
        pipe.recv()


def resident() -> float:
    """Megabytes in use now, and at most so far where the system doesn't say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(folder: Path, count: int, rate: float, concurrency: int) -> float:
    """Generate for so many rows from an endpoint of such a capacity; the memory in use after it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(concurrency / rate, theirs), daemon=True)
    server.start()
    url = ours.recv()
    write_rows(folder / "rows.jsonl", rows(count))
    table = LabelledTable(folder / "rows.jsonl")
    started, cpu = time.perf_counter(), time.process_time()
    teacher = open_teacher(url, concurrency=concurrency)
    counts = generate_rationales(table, TeacherPrompt(table.labels), teacher, folder / str(count) / "rationales.jsonl")
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(
        f"{counts}; {count / seconds:.1f} rows/s of {rate:.0f}: {count / seconds / rate:.3f} of the capacity; "
        f"{1000 * cpu / count:.2f} ms of CPU a row; load {os.getloadavg()[0]:.1f}; {resident():.0f} MB",
        flush=True,
    )
    ours.send("stop")
    server.join()
    return resident()


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rates", default="160,320,640", help="capacities in rows a second")
    parser.add_argument("--concurrency", type=int, default=32)
    args = parser.parse_args()
    for rate in map(float, args.rates.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            few = max(1, args.rows // 10)
            before = measure(Path(folder), few, rate, args.concurrency)
            grown = measure(Path(folder), args.rows, rate, args.concurrency) - before
            print(f"memory: {grown * 1e6 / (args.rows - few):.0f} bytes more for each further row", flush=True)


if __name__ == "__main__":
    main()
