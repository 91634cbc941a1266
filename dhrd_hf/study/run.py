"""One run: its `dhrd train` command, the process that runs it, and what its files say."""

from __future__ import annotations

import json
import math
import os
import random
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.ablations import ABLATIONS
from ..evaluation.logits import Logits, read_logits, write_logits
from ..files import last_checkpoint
from .data import RunRows
from .machines import Ended
from .metrics import METRICS, score
from .options import PATHS, typed_options
from .plan import MAIN_SET, DataSet, Run, Study, ablation_of

LAUNCH = (sys.executable, "-m", "dhrd_hf.cli", "train")
DECODE = (sys.executable, "-m", "dhrd_hf.evaluation.decode")
# Of each epoch's weights those that are best on the validation rows; a run that is killed starts again.
BEST_EPOCH = {"eval_strategy": "epoch", "save_strategy": "best", "save_total_limit": 1, "save_only_model": True}
BEST_EPOCH |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_classification_loss"}
_KEPT = ("train_results.json", "eval_results.json", "trainer_state.json")
# What decides a run's time and memory besides its command: of its environment no more than this is recorded.
_ENVIRONMENT = re.compile(r"MALLOC_.*|LD_PRELOAD|.*_NUM_THREADS")
_NOT_METRICS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "epoch")
_FOUND = ("score", "metrics", "labels", "predictions", "groups", "logits", "train_seconds", "evaluate_seconds")
_FOUND += ("train_samples_per_second", "peak_memory_mb")


class RunError(Exception):
    """A run's process failed: the message says in one line how, and `killed` whether it is to be run again."""

    def __init__(self, message: str, killed: bool = False):
        super().__init__(message)
        self.killed = killed


def runs_folder(folder: Path) -> Path:
    """Where a study has the folders of its runs: `cells` in one that was begun by 0.1."""
    return folder / ("cells" if (folder / "cells").is_dir() else "runs")


def launch_of(processes: int) -> Sequence[str]:
    """What a `dhrd train` of so many processes is started by."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    return LAUNCH if processes == 1 else (*torchrun, *LAUNCH[1:])


@dataclass(frozen=True)
class Job:
    """A run of a study in its folder: the rows that it has, and the part of its own folder that its process writes."""

    run: Run
    study: Study
    folder: Path
    rows: RunRows | None  # None: its data could not be read
    name: str = "run"

    @property
    def data(self) -> DataSet:
        return self.study.data[self.run.data]

    @property
    def here(self) -> Path:
        return runs_folder(self.folder) / self.run.id / self.name

    @property
    def log(self) -> Path:
        return self.here.with_name("log.txt")

    def command(self) -> list[str]:
        """The arguments of its `dhrd train`, with paths as seen from the study's output folder."""
        run, spec, here = self.run, self.data.spec, self._seen(self.here)
        options = {"model": run.model, "train_data": self._seen(self.rows.train)}
        if run.setting == "cot_decoding":
            options |= {"eval_split": 0}
        else:
            tables = {name: self._seen(path) for name, path in self.rows.eval.items()}
            options |= {"eval_data": tables.pop(MAIN_SET)}
            options |= {"more_eval_data": [f"{name}={table}" for name, table in tables.items()] or None}
            options |= {"predictions": f"{here}/predictions.jsonl", "logits": f"{here}/logits.parquet"}
        options |= {"output_dir": here, "encoding_cache": "encoded"}
        options |= {it: spec[it] for it in ("label_column", "rationale_column", "problem_type") if it in spec}
        # Once, at the end; and nothing to go on from, which costs the disk more than a run that starts again costs time.
        options |= {"eval_strategy": "no", "save_strategy": "no", "disable_tqdm": True}
        if self.rows.validation is not None:
            options |= {"validation_data": self._seen(self.rows.validation), **BEST_EPOCH}
        options |= {"seed": run.seed, **run.options}
        for it, is_there in PATHS.items():
            path = self.study.folder / Path(options[it]).expanduser() if isinstance(options.get(it), str) else None
            if path is not None and is_there(path):
                options[it] = self._seen(path)
        if run.setting != "pooled":
            options |= ABLATIONS[ablation_of(run.setting)].encoder
        # The evaluation of a run that decodes is the decoding.
        return typed_options(options | ({"eval_strategy": "no"} if run.setting == "cot_decoding" else {}))

    def _seen(self, path: Path) -> str:
        try:
            return Path(os.path.relpath(path, self.folder)).as_posix()
        except ValueError:  # Windows: on another drive
            return path.as_posix()

    def row(self, environment: Mapping[str, str]) -> dict[str, Any]:
        """Its row before it has run: what was asked for, by whom, and where."""
        from ..evaluation.timing import machine, versions  # which import torch

        rows, of_run = self.rows, {**os.environ, **environment}
        row = {"study": self.study.name, "cell": self.run.id, "status": "failed", "error": None, **self.run.asked}
        row |= {"train_rows": rows and rows.train_rows, "eval_rows": rows and len(rows.labels[MAIN_SET])}
        row |= {"rows_digest": self.data.rows_digest, "metric": self.data.metric, **dict.fromkeys(_FOUND)}
        typed = [] if rows is None else ["dhrd", "train", *replace(self, name="run").command()]
        row |= {"epoch_metrics": [], "command": shlex.join(typed), "versions": versions(), "machine": machine()}
        row["environment"] = {name: of_run[name] for name in sorted(of_run) if _ENVIRONMENT.fullmatch(name)}
        return row | {"finished": None}

    def prepare(self) -> bool:
        """Make way for it; whether an interrupted one left checkpoints to go on from."""
        self.here.parent.mkdir(parents=True, exist_ok=True)
        old = [it for it in self.here.parent.glob("run*") if it.is_dir()]
        with_best = "validation" in self.data.spec  # whose checkpoints are weights alone
        whole = [it for it in old if not with_best and last_checkpoint(it) is not None]
        latest = max(whole, key=lambda it: it.stat().st_mtime, default=None)
        for it in old:
            if it != latest:
                shutil.rmtree(it)
        if latest is None:
            self.log.unlink(missing_ok=True)
        elif latest != self.here:
            os.replace(latest, self.here)
        self.here.with_name("predictions.jsonl").unlink(missing_ok=True)
        return latest is not None

    def do(self, launch: Sequence[str], start: Callable[[Sequence[str], Path, Path], Ended]) -> dict[str, Any]:
        """Train and evaluate, and read what the row has of it from the run's files."""
        resume, began, peaks = self.prepare(), time.time(), []
        commands = [[*launch, *self.command(), *(["--resume"] if resume else [])]]
        if self.run.setting == "cot_decoding":
            options = {"model": self.here, "data": self.rows.eval[MAIN_SET]}
            options |= {"output": self.here / "predictions.jsonl", "label_column": self.data.spec.get("label_column")}
            options |= {"seed": self.run.seed, "max_new_tokens": self.study.cot_max_new_tokens}
            commands.append([*DECODE, *typed_options(options | {"metrics": self.here / "eval_results.json"})])
        for command in commands:
            ended = start(command, self.folder, self.log)
            if ended.code != 0:
                raise self._failure(ended.code)
            peaks.append(ended.peak_memory_mb)
        try:
            found = self._found()
        except (OSError, ValueError, KeyError) as error:
            raise RunError(
                f"its files make no row: {' '.join(str(error).split())} ({type(error).__name__})"
            ) from error
        found |= {"peak_memory_mb": None if None in peaks else max(peaks), "seconds": round(time.time() - began, 2)}
        return found | {"status": "done"} | ({"resumed": True} if resume else {})  # its times: of the last part

    def clear(self, keep_model: bool) -> None:
        """Remove its model and checkpoints, and keep beside them what its row was read from."""
        for kept in ("predictions.jsonl", *(() if keep_model else _KEPT)):
            if (self.here / kept).exists():
                os.replace(self.here / kept, self.here.with_name(kept))
        if not keep_model and self.here.is_dir():
            shutil.rmtree(self.here)

    def _failure(self, code: int) -> RunError:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("dhrd: error:")] or lines or ["it said nothing"]
        how = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
        how += ", as where memory is short" if -code == getattr(signal, "SIGKILL", 0) else ""
        return RunError(f"{said[-1].removeprefix('dhrd: error: ')[:500]} ({how})", killed=code < 0)

    def _found(self) -> dict[str, Any]:
        here, rows, metric = self.here, self.rows, self.data.metric
        trained, evaluated, state = (json.loads((here / name).read_text()) for name in _KEPT)
        lines = (here / "predictions.jsonl").read_text(encoding="utf-8").split("\n")
        said, asked = [json.loads(line) for line in lines if line], rows.labels[MAIN_SET]
        if [row[self.data.spec.get("label_column", "label")] for row in said] != asked:
            raise ValueError(f"its {len(said)} predictions are not those of the {len(asked)} evaluation rows")
        odd = sum(not math.isfinite(it or 0.0) for row in said for it in row.get("probabilities", {}).values())
        if odd:
            raise ValueError(f"{odd} of its probabilities are no numbers: the training has diverged")
        ids = {None: -1} | {name: place for place, name in enumerate(rows.names)}
        labels, predictions = [ids[label] for label in asked], [ids[row["predicted_label"]] for row in said]
        own, theirs = score("accuracy", labels, predictions), evaluated.get("eval_accuracy")
        if theirs is not None and not abs(own - theirs) <= 1e-6:
            raise ValueError(f"its predictions have an accuracy of {own:.6f}, and its evaluation said {theirs:.6f}")
        logits = logits_of(here / "logits.parquet", rows) if (here / "logits.parquet").exists() else {}
        if logits and any(row[label] < row.max() for row, label in zip(logits[MAIN_SET][1], predictions, strict=True)):
            raise ValueError("its logits are not those of its predictions")
        if metric == "question_accuracy":
            predictions = self._chosen(said, ids)
        parts = {part: score(part, labels, predictions, rows.groups) for part in METRICS[metric]}
        found = {"score": score(metric, labels, predictions, rows.groups), "metrics": _metrics(evaluated) | parts}
        found |= {"labels": labels, "predictions": predictions, "groups": rows.groups, "label_names": rows.names}
        found |= {"logits": f"logits/{self.run.id}.parquet" if logits else None, "eval_sets": eval_sets(logits)}
        if logits:
            write_logits(self.folder / found["logits"], rows.names, logits)
        found |= {"train_seconds": trained["train_runtime"], "evaluate_seconds": evaluated["eval_runtime"]}
        found["train_samples_per_second"] = trained["train_samples_per_second"]
        epochs = [entry for entry in state["log_history"] if any(name.startswith("eval_") for name in entry)]
        return found | {"epoch_metrics": [{"epoch": entry["epoch"], **_metrics(entry)} for entry in epochs]}

    def _chosen(self, said: Sequence[Mapping[str, Any]], ids: Mapping[str | None, int]) -> list[int]:
        """Yes for the candidate of each question with the highest probability of it, No for its others."""
        draw, best = random.Random(self.run.seed), {}
        for place, (group, row) in enumerate(zip(self.rows.groups, said, strict=True)):
            if self.run.setting == "cot_decoding":
                yes = float(row["predicted_label"] == "Yes")
            else:
                yes = row["probabilities"]["Yes"] / max(row["probabilities"]["No"], 1e-300)
            best[group] = max(best.get(group, ()), (yes, draw.random(), place))
        return [ids["Yes" if best[group][-1] == place else "No"] for place, group in enumerate(self.rows.groups)]


def _metrics(evaluated: Mapping[str, Any]) -> dict[str, Any]:
    named = {name.removeprefix("eval_"): value for name, value in evaluated.items() if name.startswith("eval_")}
    return {name: value for name, value in named.items() if name not in _NOT_METRICS}


def logits_of(path: Path, rows: RunRows) -> Logits:
    """What a run left of each evaluation set, by the study's label ids."""
    found = read_logits(path, rows.names)
    for name, expected in rows.labels.items():
        labels, logits = found.get(name, ((), ()))
        if [rows.names[it] for it in labels] != expected:
            raise ValueError(f"its {len(labels)} logits are not those of the {len(expected)} rows of {name!r}")
        if np.isnan(logits).any():
            raise ValueError(f"its logits of {name!r} are no numbers: the training has diverged")
    return found


def eval_sets(logits: Logits) -> dict[str, Any]:
    """Of each further evaluation set its number of rows and its metrics."""
    found = {}
    for name, (labels, its) in logits.items():
        if name != MAIN_SET:
            metrics = {part: score(part, labels, its.argmax(1)) for part in ("accuracy", "macro_f1")}
            metrics["loss"] = score("log_loss", labels, its)
            found[name] = {"rows": len(labels), "metrics": metrics}
    return found
