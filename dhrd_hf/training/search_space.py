"""What a search may choose from: lists of values and ranges, as a YAML file has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna


def read_space(space: Any, where: str = "space") -> dict[str, list | dict[str, Any]]:
    """Check what a search may choose from."""
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
    """The values of a trial."""
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
    """Number of points of a space of lists."""
    ranges = [name for name, entry in space.items() if not isinstance(entry, list)]
    if ranges:
        raise ValueError(f"--sampler grid wants a list of values for {ranges[0]}, which has a range.")
    return math.prod(len(values) for values in space.values())
