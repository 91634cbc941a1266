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
from pathlib import Path
from typing import Any

from .data import RunRows
from .logits import eval_sets, keep_logits, read_logits
from .metrics import METRICS, score
from .options import typed_options
from .plan import MAIN_SET, DataSet, Run, Study
from .processes import Ended, Processes
from .settings import ablation_of

LAUNCH = (sys.executable, "-m", "dhrd_hf.cli", "train")
_DECODE = (sys.executable, "-m", "dhrd_hf.study.decoding")
# Of each epoch's weights those that are best on the validation rows; a run that is killed starts again.
BEST_EPOCH = {"eval_strategy": "epoch", "save_strategy": "best", "save_total_limit": 1, "save_only_model": True}
BEST_EPOCH |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_classification_loss"}
_KEPT = ("train_results.json", "eval_results.json", "trainer_state.json")
# Seen from the study file's folder, if they are there.
_FOLDERS, _SETTINGS = ("model", "teacher"), ("deepspeed", "fsdp_config", "accelerator_config")
# What decides a cell's time and memory besides its command: of its environment no more than this is recorded.
_ENVIRONMENT = re.compile(r"MALLOC_.*|LD_PRELOAD|.*_NUM_THREADS")
_NOT_METRICS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "epoch")


class RunError(Exception):
    """A run's process failed: the message says in one line how, and `killed` whether it is to be run again."""

    killed = False


def runs_folder(folder: Path) -> Path:
    """Where a study has the folders of its runs: `cells` in one that was begun by 0.1."""
    return folder / ("cells" if (folder / "cells").is_dir() else "runs")


def launch_of(processes: int) -> Sequence[str]:
    """What a `dhrd train` of so many processes is started by."""
    if processes == 1:
        return LAUNCH
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    return (*torchrun, *LAUNCH[1:])


def train_command(cell: Run, study: Study, folder: Path, rows: RunRows, run: str = "run") -> list[str]:
    """The arguments of a run's `dhrd train`, with paths as seen from the study's output folder."""
    here = f"{runs_folder(folder).name}/{cell.id}/{run}"
    options = {"model": cell.model, "train_data": _relative(rows.train, folder)}
    if cell.setting != "cot_decoding":
        options |= {"eval_data": _relative(rows.eval, folder)}
        more = [f"{name}={_relative(path, folder)}" for name, path in rows.more_eval.items()]
        options |= {"more_eval_data": more} if more else {}
        options |= {"predictions": f"{here}/predictions.jsonl", "logits": f"{here}/logits.parquet"}
    options |= {"output_dir": here, "encoding_cache": "encoded"}
    for name in ("label_column", "rationale_column", "problem_type"):
        if name in study.data[cell.data].spec:
            options[name] = study.data[cell.data].spec[name]
    # Once, at the end; and nothing to go on from, which costs the disk more than a run that starts again costs time.
    options |= {"eval_strategy": "no", "save_strategy": "no", "disable_tqdm": True}
    if rows.validation is not None:
        options |= {"validation_data": _relative(rows.validation, folder), **BEST_EPOCH}
    options |= {"seed": cell.seed, **cell.options}
    for name in (*_FOLDERS, *_SETTINGS):
        if isinstance(options.get(name), str):
            path = study.folder / Path(options[name]).expanduser()
            if (os.path.isdir if name in _FOLDERS else os.path.isfile)(path):
                options[name] = _relative(path, folder)
    if cell.setting != "pooled":
        from ..data.ablations import ABLATIONS

        options |= ABLATIONS[ablation_of(cell.setting)].encoder
    if cell.setting == "cot_decoding":
        options["eval_strategy"] = "no"  # its evaluation is the decoding
    return typed_options(options)


def do_run(
    cell: Run,
    study: Study,
    folder: Path,
    rows: RunRows,
    launch: Sequence[str] = LAUNCH,
    decode: Sequence[str] = _DECODE,
    run: str = "run",
    resume: bool = False,
    start: Callable[..., Ended] | None = None,
) -> dict[str, Any]:
    """Run a cell, and read its row from the run's files."""
    start = start or Processes().run
    here = runs_folder(folder) / cell.id
    here.mkdir(parents=True, exist_ok=True)
    log = here / "log.txt"
    command = train_command(cell, study, folder, rows, run)
    began = time.time()
    ended = start([*launch, *command, *(["--resume"] if resume else [])], folder, log)
    _check(ended, log)
    peak = ended.peak_memory_mb
    if cell.setting == "cot_decoding":
        options = {"model": here / run, "data": rows.eval, "output": here / run / "predictions.jsonl"}
        options["label_column"] = study.data[cell.data].spec.get("label_column")
        options |= {"seed": cell.seed, "max_new_tokens": study.cot_max_new_tokens}
        options["metrics"] = here / run / "eval_results.json"
        ended = start([*decode, *typed_options(options)], folder, log)
        _check(ended, log)
        peak = max(peak, ended.peak_memory_mb) if peak is not None else None
    try:
        found = _read_files(cell, folder, here / run, rows, study.data[cell.data])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"its files make no row: {' '.join(str(error).split())} ({type(error).__name__})") from error
    return {**found, "peak_memory_mb": peak, "seconds": round(time.time() - began, 2)}


def new_row(
    cell: Run, study: Study, folder: Path, rows: RunRows | None, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The row of a run before it has run: what was asked for, by whom, and where."""
    from ..evaluation.timing import machine, versions

    of_run = {**os.environ, **(environment or {})}
    options = dict(cell.options)
    weights = {name: options.pop(name) for name in ("alpha", "beta", "classifier_head")}
    command = "" if rows is None else shlex.join(["dhrd", "train", *train_command(cell, study, folder, rows)])
    empty = dict.fromkeys(
        ("score", "metrics", "labels", "predictions", "groups", "logits", "train_seconds", "evaluate_seconds")
        + ("train_samples_per_second", "peak_memory_mb")
    )
    return {
        "study": study.name,
        "cell": cell.id,
        "status": "failed",
        "error": None,
        "data": cell.data,
        "setting": cell.setting,
        **weights,
        "train_size": cell.train_size,
        "seed": cell.seed,
        "options": options,
        "train_rows": None if rows is None else rows.train_rows,
        "eval_rows": None if rows is None else len(rows.labels),
        "rows_digest": study.data[cell.data].rows_digest,
        "metric": study.data[cell.data].metric,
        **empty,
        "epoch_metrics": [],
        "model": cell.model,
        "command": command,
        "versions": versions(),
        "machine": machine(),
        "environment": {name: of_run[name] for name in sorted(of_run) if _ENVIRONMENT.fullmatch(name)},
        "finished": None,
    }


def clear(cell: Run, folder: Path, run: str, keep_model: bool) -> None:
    """Remove a run's model and checkpoints, and keep what its row was read from."""
    here = runs_folder(folder) / cell.id
    for name in ("predictions.jsonl", *(() if keep_model else _KEPT)):
        if (here / run / name).exists():
            os.replace(here / run / name, here / name)
    if not keep_model and (here / run).is_dir():
        shutil.rmtree(here / run)


def _check(ended: Ended, log: Path) -> None:
    if ended.code == 0:
        return
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("dhrd: error:")] or lines or ["it said nothing"]
    how = f"exit code {ended.code}"
    if ended.code < 0:
        how = f"ended by {signal.Signals(-ended.code).name}"
        how += ", as where memory is short" if -ended.code == getattr(signal, "SIGKILL", 0) else ""
    error = RunError(f"{said[-1].removeprefix('dhrd: error: ')[:500]} ({how})")
    error.killed = ended.code < 0
    raise error


def _read_files(cell: Run, folder: Path, run: Path, rows: RunRows, data: DataSet) -> dict[str, Any]:
    metric, label_column = data.metric, data.spec.get("label_column", "label")
    trained = json.loads((run / "train_results.json").read_text())
    evaluated = json.loads((run / "eval_results.json").read_text())
    with (run / "predictions.jsonl").open(encoding="utf-8") as file:
        said = [json.loads(line) for line in file]
    if [row[label_column] for row in said] != rows.labels:
        raise ValueError(f"its {len(said)} predictions are not those of the {len(rows.labels)} evaluation rows")
    odd = sum(not math.isfinite(it or 0.0) for row in said for it in row.get("probabilities", {}).values())
    if odd:
        raise ValueError(f"{odd} of its probabilities are no numbers: the training has diverged")
    ids = {name: place for place, name in enumerate(rows.names)}
    labels = [ids[label] for label in rows.labels]
    predictions = [-1 if row["predicted_label"] is None else ids[row["predicted_label"]] for row in said]
    own = score("accuracy", labels, predictions)
    if "eval_accuracy" in evaluated and not abs(own - evaluated["eval_accuracy"]) <= 1e-6:
        raise ValueError(
            f"its predictions have an accuracy of {own:.6f}, and its evaluation said {evaluated['eval_accuracy']:.6f}"
        )
    logits = read_logits(run / "logits.parquet", rows) if (run / "logits.parquet").exists() else {}
    for row, label in zip(logits.get(MAIN_SET, ()), predictions, strict=False):
        if row[label] < row.max():
            raise ValueError("its logits are not those of its predictions")
    if metric == "question_accuracy":
        predictions = _chosen(said, rows, ids, cell)
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    metrics = _metrics(evaluated) | {part: score(part, labels, predictions, rows.groups) for part in METRICS[metric]}
    return {
        "score": score(metric, labels, predictions, rows.groups),
        "metrics": metrics,
        "labels": labels,
        "predictions": predictions,
        "groups": rows.groups,
        "label_names": rows.names,
        "logits": keep_logits(cell.id, folder, logits, rows) if logits else None,
        "eval_sets": eval_sets(logits, rows),
        "train_seconds": trained["train_runtime"],
        "evaluate_seconds": evaluated["eval_runtime"],
        "train_samples_per_second": trained["train_samples_per_second"],
        "epoch_metrics": [
            {"epoch": entry["epoch"], **_metrics(entry)}
            for entry in history
            if any(k.startswith("eval_") for k in entry)
        ],
    }


def _metrics(evaluated: Mapping[str, Any]) -> dict[str, Any]:
    named = {name.removeprefix("eval_"): value for name, value in evaluated.items() if name.startswith("eval_")}
    return {name: value for name, value in named.items() if name not in _NOT_METRICS}


def _chosen(said: Sequence[Mapping[str, Any]], rows: RunRows, ids: Mapping[str, int], cell: Run) -> list[int]:
    """Yes for the candidate of each question with the highest probability of it, No for its others."""
    assert rows.groups is not None
    draw = random.Random(cell.seed)
    if cell.setting == "cot_decoding":
        yes = [(row["predicted_label"] == "Yes", draw.random()) for row in said]
    else:
        of = [row["probabilities"] for row in said]
        yes = [(it["Yes"] / max(it["No"], 1e-300), draw.random()) for it in of]
    best: dict[int, int] = {}
    for place, group in enumerate(rows.groups):
        if group not in best or yes[place] > yes[best[group]]:
            best[group] = place
    return [ids["Yes" if best[group] == place else "No"] for place, group in enumerate(rows.groups)]


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # Windows: on another drive
        return path.as_posix()
