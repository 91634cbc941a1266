r"""Generation of rationales: how much of an endpoint's capacity is used, and how memory grows with the rows.

The endpoint is a stand-in on loopback, in a process of its own, that answers each request well after a fixed time; its
capacity is the concurrency divided by that time.

    python examples/benchmarks/generation.py --latency 0.2 --rows 2000
    python examples/benchmarks/generation.py --latency 0.02 --rows 100000
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.rationales.generate import generate_rationales
from dhrd_hf.rationales.labelled import LabelledTable
from dhrd_hf.rationales.prompt import TeacherPrompt
from dhrd_hf.rationales.teacher import open_teacher

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


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--concurrency", type=int, default=32)
    args = parser.parse_args()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(args.latency, theirs), daemon=True)
    server.start()
    url = ours.recv()
    memory = []
    with tempfile.TemporaryDirectory() as folder:
        for part, count in (("a tenth", max(1, args.rows // 10)), ("all", args.rows)):
            write_rows(f"{folder}/{count}.jsonl", rows(count))
            table = LabelledTable(f"{folder}/{count}.jsonl")
            teacher = open_teacher(url, concurrency=args.concurrency)
            started, cpu = time.perf_counter(), time.process_time()
            counts = generate_rationales(
                table, TeacherPrompt(table.labels), teacher, f"{folder}/{count}/rationales.jsonl", progress=True
            )
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
            memory.append(resident())
            rate, capacity = count / seconds, args.concurrency / args.latency
            print(
                f"{part}: {counts}; {rate:.1f} rows/s of {capacity:.1f}: {rate / capacity:.3f} of the capacity; "
                f"{1000 * cpu / count:.2f} ms of CPU a row; {memory[-1]:.0f} MB"
            )
    print(f"memory: {(memory[1] - memory[0]) * 1e6 / (args.rows * 0.9):.0f} bytes more for each further row")
    ours.send("stop")
    server.join()


if __name__ == "__main__":
    main()
