"""Search over a Trainer's settings with Optuna: kept in a folder, shared by processes, and gone on with after a kill."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from ..files import strict_json, write_whole

if TYPE_CHECKING:
    import optuna

    from .trainer import DualHeadTrainer

SAMPLERS = ("tpe", "grid", "random")
PRUNERS = ("median", "none")
STORAGE_FILE = "search.db"
LOCK_FILE = ".search.lock"
TRIALS_FILE = "trials.jsonl"

# The names that dhrd_hf.evaluation gives its metrics; it is not imported from here.
_LOWER = ("mse", "mae", "nll", "brier_score", "expected_calibration_error")
_HIGHER = ("accuracy", "macro_f1", "f1a", "em", "row_accuracy")

# Seconds between two signs of life of a running trial, and after which a silent one counts as killed.
_HEARTBEAT, _GRACE = 10, 30
_STUDY = "search"
_ERROR = "error of trial {}"  # an attribute of the search: a trial that has ended takes none


def search(
    trainer: DualHeadTrainer,
    space: Mapping[str, list | dict[str, Any]],
    hp_space: Callable[[optuna.Trial], dict[str, Any]],
    folder: Path,
    trials: int = 20,
    *,
    metric: str = "eval_accuracy",
    direction: str | None = None,
    sampler: str = "tpe",
    pruner: str = "median",
    seed: int = 42,
    bound_to: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> optuna.trial.FrozenTrial | None:
    """Run `Trainer.hyperparameter_search` until the folder holds so many trials, in this process and in others."""
    if trainer.model is None:  # after an earlier search
        trainer.model = trainer.model_wrapped = trainer.call_model_init()
    rows = min(4, len(trainer.eval_dataset))
    found = trainer.evaluate(trainer.eval_dataset.select(range(rows)))
    if not isinstance(found.get(metric), (int, float)):
        known = sorted(name for name in found if name.startswith("eval_") and not name.endswith(("second", "runtime")))
        raise ValueError(f"The evaluation has no metric {metric!r}; it has {', '.join(known)}.")
    direction = direction or direction_of(metric)
    if direction is None:
        raise ValueError(
            f"It is not known whether a trial with more {metric} is better: add --direction maximize or minimize."
        )
    study, storage = _open(Path(folder), direction, {"space": dict(space), "metric": metric, **(bound_to or {})})
    if sampler == "grid":
        trials = min(trials, grid_size(space))
    import optuna

    current: list[optuna.Trial] = []
    lock = FileLock(Path(folder) / LOCK_FILE)
    model_init = trainer.model_init

    def started(trial: optuna.Trial) -> Any:
        current[:] = [trial]
        lock.release()
        return model_init(trial)

    trainer.model_init = started

    def objective(metrics: dict[str, float]) -> float:
        if math.isnan(metrics[metric]):
            raise ValueError(f"{metric} is not a number")  # Optuna would fail the trial without an error
        current[0].set_user_attr("metrics", {name: value for name, value in metrics.items() if name != "epoch"})
        return metrics[metric]

    def run_trial() -> str | None:
        current.clear()
        # What is drawn hangs on the trial's number: the same after a resume, another in each process.
        number = len(study.get_trials(deepcopy=False))
        samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        if sampler == "grid":
            chosen = optuna.samplers.GridSampler(dict(space), seed=seed)
        else:
            chosen = samplers[sampler](seed=seed + number)
        try:
            trainer.hyperparameter_search(
                hp_space=hp_space,
                compute_objective=objective,
                n_trials=1,
                direction=direction,
                backend="optuna",
                study_name=_STUDY,
                storage=storage,
                load_if_exists=True,
                sampler=chosen,
                pruner=optuna.pruners.MedianPruner() if pruner == "median" else optuna.pruners.NopPruner(),
            )
        except Exception as error:
            # No trial's failure: what comes before one has begun, or keeps its end from being written.
            if not current or not study.trials[current[0].number].state.is_finished():
                raise
            # Optuna says in the same way that there is no best trial yet.
            said = " ".join(str(error).split())
            return said if isinstance(error, (ValueError, FloatingPointError)) else f"{type(error).__name__}: {said}"
        except KeyboardInterrupt:
            if current:
                _run_again(study, study.trials[current[0].number])
            raise
        return None

    try:
        while True:
            # No two processes take the last trial: `started` lets the others look when this one's is there to be seen.
            with lock:
                optuna.storages.fail_stale_trials(study)
                done, running, waiting = _progress(study.get_trials(deepcopy=False))
                if done >= trials:
                    break
                free = waiting or done + running < trials
                error = run_trial() if free else None
            if not free:
                time.sleep(1)  # other processes are at the last ones, and may not live to end them
                continue
            _release(trainer)  # here, where the error's traceback no longer holds the trial's tensors
            trial = study.trials[current[0].number]
            if trial.state == optuna.trial.TrialState.FAIL:
                study.set_user_attr(_ERROR.format(trial.number), error)
            say(_line(trial, study, metric, trials))
            write_whole(Path(folder) / TRIALS_FILE, _table(study))
    finally:
        trainer.model_init = model_init
    write_whole(Path(folder) / TRIALS_FILE, _table(study))
    return _best(study)


def direction_of(metric: str) -> str | None:
    name = metric.removeprefix("eval_")
    if name.endswith("loss") or name in _LOWER:
        return "minimize"
    return "maximize" if name in _HIGHER else None


def check_optuna() -> None:
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError("A search needs Optuna: pip install 'dhrd-hf[search]'") from None


def _open(folder: Path, direction: str, bound_to: dict[str, Any]) -> tuple[optuna.Study, optuna.storages.RDBStorage]:
    check_optuna()
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**bound_to, "direction": direction}, sort_keys=True, default=str)
    try:
        # Processes that start together would each make the tables, and each bind the folder to its own search.
        with FileLock(folder / LOCK_FILE):
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{(folder / STORAGE_FILE).resolve()}",
                engine_kwargs={"connect_args": {"timeout": 60}},  # while another process writes
                heartbeat_interval=_HEARTBEAT,
                grace_period=_GRACE,
                heartbeat_stale_trial_callback=_run_again,
            )
            study = optuna.create_study(study_name=_STUDY, storage=storage, direction=direction, load_if_exists=True)
            if "bound_to" not in study.user_attrs:
                study.set_user_attr("bound_to", text)
            known = study.user_attrs["bound_to"]
    # A RuntimeError where another version of Optuna has made the tables.
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        said = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(
            f"{folder / STORAGE_FILE} can't be opened as a search: {said}. Remove it if it is broken, or name another "
            "--output-dir."
        ) from None
    if known != text:
        theirs, ours = json.loads(known), json.loads(text)
        names = [name for name in ours if theirs.get(name) != ours[name]]
        raise ValueError(f"{folder} holds another search, with another {', '.join(names)}: name another --output-dir.")
    return study, storage


def _release(trainer: DualHeadTrainer) -> None:
    """Free what the last trial has allocated, before the next one loads its model beside it."""
    for owner in (trainer, trainer.callback_handler):
        owner.model = owner.optimizer = owner.lr_scheduler = None
    trainer.model_wrapped = None
    trainer.accelerator.free_memory()


def _run_again(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    study.enqueue_trial(trial.params, user_attrs={"again": trial.number})


def _progress(trials: list[optuna.trial.FrozenTrial]) -> tuple[int, int, int]:
    """Numbers of trials that are done, running and waiting; one that was stopped and runs again is none of them."""
    replaced = {trial.user_attrs.get("again") for trial in trials}
    done = sum(trial.state.is_finished() and trial.number not in replaced for trial in trials)
    return done, *(sum(trial.state.name == state for trial in trials) for state in ("RUNNING", "WAITING"))


def _best(study: optuna.Study) -> optuna.trial.FrozenTrial | None:
    import optuna

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return study.best_trial if complete else None


def _line(trial: Any, study: optuna.Study, metric: str, trials: int) -> str:
    values = " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in trial.params.items())  # fmt: skip
    seconds = (trial.datetime_complete - trial.datetime_start).total_seconds()
    best = _best(study)
    result = {"COMPLETE": f"{metric} {trial.value:.4g}" if trial.value is not None else "", "PRUNED": "pruned"}
    said = result.get(trial.state.name, f"failed: {study.user_attrs.get(_ERROR.format(trial.number))}")
    best_said = "" if best is None else f" (best {best.value:.4g}, trial {best.number})"
    return f"trial {trial.number}, {_progress(study.get_trials(deepcopy=False))[0]}/{trials}  {said}{best_said}  {values}  {seconds:.0f} s"


def _table(study: optuna.Study) -> str:
    lines = []
    for trial in study.get_trials(deepcopy=False):
        complete = trial.datetime_complete
        row = {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "error": study.user_attrs.get(_ERROR.format(trial.number)),
            "value": trial.value,
            "params": trial.params,
            "intermediate_values": trial.intermediate_values,
            "metrics": trial.user_attrs.get("metrics"),
            "again": trial.user_attrs.get("again"),
            "seconds": None if complete is None else (complete - trial.datetime_start).total_seconds(),
        }
        lines.append(strict_json(row) + "\n")
    return "".join(lines)


def read_space(space: Any, where: str = "space") -> dict[str, list | dict[str, Any]]:
    if not isinstance(space, Mapping) or not space:
        raise ValueError(f"{where} holds nothing to search: write lines such as 'alpha: {{low: 0.1, high: 2.0}}'.")
    return {str(name): _read_entry(entry, f"{where}: {name}") for name, entry in space.items()}


def _read_entry(entry: Any, where: str) -> list | dict[str, Any]:
    if isinstance(entry, list):
        if not entry or any(isinstance(value, (list, dict)) for value in entry):
            raise ValueError(f"{where} must be a list of one value or more, each a number or a word, found {entry}.")
        return entry
    if not isinstance(entry, Mapping) or not {"low", "high"} <= set(entry) <= {"low", "high", "log", "step"}:
        raise ValueError(f"{where} must be a list of values, or low and high (and log or step), found {entry!r}.")
    numbers = {}
    for key in ("low", "high", "step"):
        try:
            value = entry.get(key)
            # YAML takes 1e-4, which has no point, for a word.
            numbers[key] = value if value is None or type(value) is int else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{where}: {key} must be a number, found {entry[key]!r}.") from None
    low, high, step, log = numbers["low"], numbers["high"], numbers["step"], entry.get("log", False)
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise ValueError(
            f"{where}: low {low} is above high {high}." if low > high else f"{where}: bounds must be finite."
        )
    if log not in (True, False) or (log and (low <= 0 or step is not None)):
        raise ValueError(f"{where}: log is true or false, and wants a low above 0 and no step.")
    if step is not None and step <= 0:
        raise ValueError(f"{where}: step {step} must be above 0.")
    return {"low": low, "high": high, "log": log, "step": step}


def suggest(trial: optuna.Trial, space: Mapping[str, list | dict[str, Any]]) -> dict[str, Any]:
    values = {}
    for name, entry in space.items():
        if isinstance(entry, list):
            values[name] = trial.suggest_categorical(name, entry)
        elif type(entry["low"]) is int and type(entry["high"]) is int and type(entry["step"] or 1) is int:
            values[name] = trial.suggest_int(
                name, entry["low"], entry["high"], step=entry["step"] or 1, log=entry["log"]
            )
        else:
            values[name] = trial.suggest_float(name, entry["low"], entry["high"], step=entry["step"], log=entry["log"])
    return values


def candidates(space: Mapping[str, list | dict[str, Any]]) -> list[dict[str, Any]]:
    """A few points of a space that between them have each listed value and both ends of each range: to check it by."""
    values = {
        name: entry if isinstance(entry, list) else [entry["low"], entry["high"]] for name, entry in space.items()
    }
    length = max(map(len, values.values()))
    return [{name: each[min(index, len(each) - 1)] for name, each in values.items()} for index in range(length)]


def grid_size(space: Mapping[str, list | dict[str, Any]]) -> int:
    ranges = [name for name, entry in space.items() if not isinstance(entry, list)]
    if ranges:
        raise ValueError(f"--sampler grid wants a list of values for {ranges[0]}, which has a range.")
    return math.prod(len(values) for values in space.values())
