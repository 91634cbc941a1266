"""Several processes, as `torchrun` starts them: each takes its share of the rows, and one file is put together.

They talk through the key-value store that `torchrun` runs and need no process group: no collective can time out while
one rank is slower than another, and none can hang when one has failed.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import count, cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import distributed

from ..data.table_writing import write_rows

_POLL_SECONDS = 0.1
_FAILED = "failed"
_jobs = count()  # a store keeps its keys: each job has names of its own


class Ranks:
    """The processes that share a job, of which this is one: rank 0 is the one that speaks and writes."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0)) if self.count > 1 else 0
        self._looked = 0.0
        self._gathered = count()

    def __enter__(self) -> Ranks:
        if self.count > 1:
            store, self.rank, self.count = next(distributed.rendezvous("env://"))
            self._store = distributed.PrefixStore(f"dhrd {next(_jobs)}", store)
            # The launcher ends the ranks with it: half-written files have to be removed first.
            self._handler = signal.signal(signal.SIGTERM, _leave)
            if torch.accelerator.is_available():
                local = int(os.environ.get("LOCAL_RANK", self.rank))
                torch.accelerator.set_device_index(local % torch.accelerator.device_count())
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.count == 1:
            return
        signal.signal(signal.SIGTERM, self._handler)
        if error is not None:
            if self._first_to_fail() != self.rank:
                raise SystemExit(2) from None
        elif self.rank > 0:
            self._store.set(f"{self.rank} left", "")
        else:  # the store may live in this process
            for other in range(1, self.count):
                self._wait_for(f"{other} left")

    def share(self, rows: Iterable[Any]) -> Iterator[Any]:
        """This rank's share of the rows: every `count`-th."""
        for row in islice(rows, self.rank, None, self.count):
            self._leave_if_one_failed()
            yield row

    def gather(self, value: Any) -> list[Any]:
        """One value of each rank, in all of them; so they also wait for each other."""
        if self.count == 1:
            return [value]
        job = next(self._gathered)
        self._store.set(f"gathered {job} of {self.rank}", json.dumps(value))
        return [json.loads(self._wait_for(f"gathered {job} of {other}")) for other in range(self.count)]

    def write_rows(self, path: str | Path, rows: Iterable[dict[str, Any]], counts: Counter | None = None) -> int:
        """Write the rows of all ranks in their order to a file that appears whole or not at all."""
        if self.count == 1:
            return write_rows(path, rows)
        counts = Counter() if counts is None else counts
        scratch = None
        try:
            scratch = self._scratch(Path(path).expanduser())
            with open(scratch / str(self.rank), "wb") as part:
                for row in rows:
                    pickle.dump(row, part)  # which keeps a date of a Parquet file a date
            self._store.set(f"{self.rank} counts", json.dumps(counts))
            if self.rank == 0:
                for other in range(1, self.count):
                    counts.update(json.loads(self._wait_for(f"{other} counts")))
                self._store.set("written", str(write_rows(path, _in_turn(scratch, self.count))))
            return int(self._wait_for("written"))
        except BaseException:
            self._first_to_fail()  # said before the folder goes, which would be an error of the others
            raise
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)

    def _scratch(self, path: Path) -> Path:
        """A folder beside the target, made by rank 0."""
        if self.rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
            self._store.set("scratch", str(scratch))
            return scratch
        scratch = Path(self._wait_for("scratch"))
        if not scratch.is_dir():
            raise FileNotFoundError(
                f"rank {self.rank} does not see {scratch.parent}: write to a disk that all ranks see"
            )
        return scratch

    def _first_to_fail(self) -> int:
        return int(self._store.compare_set(_FAILED, "", str(self.rank)))

    def _wait_for(self, key: str) -> str:
        while not self._store.check([key]):
            self._leave_if_one_failed()
            time.sleep(_POLL_SECONDS)
        return self._store.get(key).decode()

    def _leave_if_one_failed(self) -> None:
        if self.count > 1 and time.monotonic() - self._looked > _POLL_SECONDS:
            self._looked = time.monotonic()
            if self._store.check([_FAILED]):
                raise SystemExit(2)


def _in_turn(scratch: Path, count: int) -> Iterator[dict[str, Any]]:
    """The rows of the parts, one of each in turn: the first part that ends is the end."""
    with ExitStack() as stack:
        parts = [stack.enter_context(open(scratch / str(rank), "rb")) for rank in range(count)]
        for part in cycle(parts):
            try:
                yield pickle.load(part)
            except EOFError:
                return


def _leave(number: int, frame: Any) -> NoReturn:
    raise SystemExit(128 + number)
