"""A study's YAML file, and the runs that its grid makes."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.ablations import ABLATIONS
from ..files import read_yaml
from .metrics import METRICS, TASK_METRICS
from .options import hint, kind_of, read_options, read_train

MAIN_SET, VALIDATION = "eval", "validation="  # no further set has such a name
# Options that a run with alpha = 0, which sees no rationale, does not depend on.
_SCHEDULE = ("alpha_schedule", "alpha_end", "alpha_step_at")
REASONING_OPTIONS = (*_SCHEDULE, "reasoning_share", "reasoning_span", "rationale_after_label")
REASONING_OPTIONS += ("distillation_weight", "temperature", "teacher", "teacher_cache", "teacher_top_k")
_AXES = ("data", "setting", "seed", "train_size")
SETTINGS = ("pooled", "dual_head", *(name for name in ABLATIONS if name != "consistent"), "cot_decoding")
WEIGHTS = ("alpha", "beta", "classifier_head")  # options with a column of their own in the table

# What a key must be, in words, and whether it is; what is null is left out.
_ANY = "anything", lambda it: True
_TEXT = "a text", lambda it: isinstance(it, str)
_WORD = "a text", lambda it: not isinstance(it, list | dict)
_COUNT = "a whole number above 0", lambda it: type(it) is int and it > 0
_KEYS = {"name": _WORD, **dict.fromkeys(("model", "data", "train", "metric", "grid"), _ANY)}
_KEYS |= dict.fromkeys(("eval_size", "cot_eval_size", "cot_max_new_tokens"), _COUNT)
_KEYS |= {"keep_models": ("true or false, without quotes", lambda it: isinstance(it, bool))}
_DATA_KEYS = dict.fromkeys(("train", "rationales", "prompt", "label_column", "rationale_column"), _TEXT)
_DATA_KEYS |= dict.fromkeys(("group_column", "metric", "problem_type", "validation"), _TEXT)
_DATA_KEYS |= {"eval": ("a text", lambda it: isinstance(it, str | dict)), "label_map": _ANY}
_DATA_KEYS |= {"drop_unlabelled": ("true", lambda it: it is True)}
_TASK_KEYS = dict.fromkeys(("superglue", "source", "rationales", "metric"), _TEXT)


@dataclass(frozen=True)
class DataSet:
    """A data set of a study."""

    name: str
    spec: dict[str, Any]

    @property
    def metric(self) -> str:
        """What its runs are scored by; one of `METRICS`."""
        return self.spec.get("metric") or TASK_METRICS.get(self.spec.get("superglue", ""), "accuracy")

    @property
    def eval_sets(self) -> dict[str, str]:
        """The tables to evaluate on by their names, the main one, called `MAIN_SET`, first."""
        given = self.spec.get("eval")
        sets = given if isinstance(given, list) else [(MAIN_SET, given)]
        return {name if place else MAIN_SET: table for place, (name, table) in enumerate(sets)}

    @property
    def folder_name(self) -> str:
        """The name of the folder of its rows."""
        return f"{file_name(self.name)}-{self.rows_digest}"

    @property
    def rows_digest(self) -> str:
        """Tells its rows from those of a data set that has its name and is read from something else, or otherwise."""
        return digest(self.spec)


@dataclass(frozen=True)
class Run:
    """One training run of a study.

    Example:

    ```python
    >>> from dhrd_hf.study.plan import Run
    >>> run = Run(data="cb", setting="pooled", seed=0, train_size=250, model="smollm2", options={"alpha": 0.0})
    >>> len(run.id)
    10

    ```

    Args:
        data (`str`), setting (`str`), seed (`int`): As in the table.
        train_size (`int`, *optional*): Rows to train on; None is all.
        model (`str`): As `dhrd train --model`.
        options (`dict[str, Any]`): `alpha`, `beta`, `classifier_head`, and every other option of `dhrd train` that is set.
        decides (`dict[str, Any]`, *optional*): What else its result depends on: how the data are read and scored.
    """

    data: str
    setting: str
    seed: int
    train_size: int | None
    model: str
    options: dict[str, Any]
    decides: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """A short hash of everything that decides its result."""
        return digest(self.__dict__)

    @property
    def config(self) -> dict[str, Any]:
        """What may tell it from other runs of its data and setting."""
        return {"model": self.model, "train_size": self.train_size, **self.options}

    @property
    def asked(self) -> dict[str, Any]:
        """What its row in the table says of what was asked for."""
        options = dict(self.options)
        row = {"data": self.data, "setting": self.setting} | {name: options.pop(name) for name in WEIGHTS}
        return row | {"train_size": self.train_size, "seed": self.seed, "options": options, "model": self.model}


@dataclass(frozen=True)
class Study:
    """A study as its YAML file describes it.

    Example:

    ```python
    >>> from dhrd_hf.study.plan import read_study
    >>> study = read_study("study.yaml")  # doctest: +SKIP
    >>> len(study.runs)  # doctest: +SKIP
    240

    ```

    Args:
        name (`str`): Its name, which the table's rows bear.
        folder (`Path`): The folder of the YAML file, from which paths are taken.
        data (`dict[str, DataSet]`): Its data sets by name.
        runs (`list[Run]`): Its runs, each once, in their order.
        eval_size (`int`, *optional*), cot_eval_size (`int`, *optional*): Evaluation rows, of CoT decoding; None is all.
        cot_max_new_tokens (`int`, *optional*, defaults to 500): Most tokens of a decoded answer.
        keep_models (`bool`, *optional*, defaults to `False`): Whether the trained models are kept.
    """

    name: str
    folder: Path
    data: dict[str, DataSet]
    runs: list[Run]
    eval_size: int | None = None
    cot_eval_size: int | None = None
    cot_max_new_tokens: int = 500
    keep_models: bool = False

    @cached_property
    def varying(self) -> list[str]:
        """What tells runs of one setting apart: options of which there are several values."""
        said = [{"": run.setting} | {name: repr(it) for name, it in run.config.items()} for run in self.runs]
        several = pd.DataFrame(said).groupby("").nunique(dropna=False).max()
        return [*several.index[several > 1]]

    def label(self, run: Run) -> str:
        """A run in words: what tells it from the others."""
        said, fixed = [run.data, run.setting], ("alpha", "beta") if run.setting in ("pooled", "cot_decoding") else ()
        for name in self.varying:
            value = run.config.get(name)
            if value is not None and name not in fixed:
                said.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
        return " ".join([*said, f"seed={run.seed}"])


def digest(value: Any) -> str:
    """A short hash of something that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:10]


def file_name(name: str) -> str:
    """A name as part of a file's: what is no word, or long, is told from others by a hash."""
    clean = re.sub(r"[^\w.+ -]", "-", name).encode()[:100].decode(errors="ignore")
    return clean if clean == name else f"{clean}-{digest(name)}"


def ablation_of(setting: str) -> str:
    """The kind of [`~dhrd_hf.data.ablations.ablate`] that makes a setting's training rows."""
    return setting if setting in ABLATIONS else "consistent"


def read_study(path: str | Path) -> Study:
    """Read a study's YAML file and make its runs.

    Example:

    ```python
    >>> from dhrd_hf.study.plan import read_study
    >>> study = read_study("study.yaml")  # doctest: +SKIP
    >>> [study.label(run) for run in study.runs[:2]]  # doctest: +SKIP
    ['esnli pooled seed=0', 'esnli pooled seed=1']

    ```

    Args:
        path (`str` or `Path`): The file.

    Returns:
        [`Study`]: the study.

    Raises:
        ValueError: if the file is not such a YAML file, has an unknown key, data set, setting or metric, or no runs.
        OSError: if it can't be read.
    """
    path = Path(path).expanduser()
    return study_of(read_yaml(path), str(path), path.parent)


def study_of(given: Any, where: str, folder: Path) -> Study:
    """The study that a file describes; `where` begins each complaint, and paths are taken from the folder."""
    if not isinstance(given, dict):
        raise ValueError(f"{where} must hold keys such as name, model, data and grid, and holds {kind_of(given)}")
    given = _checked(given, _KEYS, where)
    if missing := [key for key in ("name", "model", "data") if not given.get(key)]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    if not isinstance(given["data"], dict):
        raise ValueError(f"{where}: data must hold data sets by name, such as esnli: {{train: FILE, eval: FILE}}")
    data: dict[str, DataSet] = {}
    for name, spec in given["data"].items():
        name = _name(f"{where}: data", name)
        if name in data:
            raise ValueError(f"{where}: data {name!r} is there twice")
        data[name] = DataSet(name, _data_spec(f"{where}: data {name!r}", spec, given.get("metric")))
    fixed = read_train(given.get("train"), f"{where}: train", folder)
    for place, value in (("", given["model"]), ("train: ", fixed.get("model", given["model"]))):
        _model_name(f"{where}: {place}", value)
    blocks = given.get("grid") or []
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        said = "grid must be a list of blocks such as {data: esnli, setting: pooled, seed: [0, 1]}"
        raise ValueError(f"{where}: {said}")
    own = ("eval_size", "cot_eval_size", "cot_max_new_tokens", "keep_models")
    study = Study(str(given["name"]), folder, data, [], **{name: given[name] for name in own if name in given})
    runs: dict[str, Run] = {}
    for number, block in enumerate(blocks, 1):
        place = f"{where}: block {number} of grid"
        axes = _axes(read_options(block, place, folder), fixed, study, place)
        if empty := [name for name, values in axes.items() if not values]:
            raise ValueError(f"{where}: the grid has no runs in block {number}: {empty[0]} is an empty list")
        for values in product(*axes.values()):
            run = _run(dict(zip(axes, values, strict=True)), given["model"], fixed, study, f"{place}: ")
            runs.setdefault(run.id, run)
    if not runs:
        raise ValueError(f"{where}: the grid has no runs: write blocks as {{data: ..., setting: [pooled, dual_head]}}")
    return replace(study, runs=list(runs.values()))


def _known(names: Iterable[Any], known: Collection[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{what} {name!r}{hint(name, known)}")


def _checked(given: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a mapping says, if its keys are known and their values of their kinds."""
    _known(given, kinds, f"{where} has an unknown key")
    said = {key: value for key, value in given.items() if value is not None}
    for key, value in said.items():
        words, holds = kinds[key]
        if not holds(value):
            its = kind_of(value) if words == "a text" else repr(value)
            raise ValueError(f"{where}: {key} must be {words}, and is {its}")
    return said


def _data_spec(where: str, given: Any, metric: str | None) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ValueError(f"{where} must be such as {{train: FILE, eval: FILE}}, and is {kind_of(given)}")
    task = given.get("superglue")
    keys, needed = (_TASK_KEYS, ("superglue",)) if "superglue" in given else (_DATA_KEYS, ("train", "eval"))
    spec = _checked(given, keys, where)
    if missing := [key for key in needed if not given.get(key)]:
        raise ValueError(f"{where} lacks {' and '.join(missing)}: the tables to train and evaluate on")
    # Of group_column null is a value: no groups, also where the table has a column of that name.
    spec |= {"group_column": None} if given.get("group_column", "") is None else {}
    spec |= _eval_sets(where, spec) if isinstance(spec.get("eval"), dict) or "label_map" in spec else {}
    spec |= {"metric": metric} if metric is not None and "metric" not in spec else {}
    own = DataSet("", spec).metric
    _known([own], METRICS, f"{where} has an unknown metric")
    if {"question_accuracy", "f1a"} & {*METRICS[own]} and task not in ("copa", "multirc"):
        raise ValueError(f"{where}: the metric {own} is for COPA and MultiRC")
    return spec


def _eval_sets(where: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Several evaluation sets in their order, which the first of them is the main one by, and the labels of the others."""
    if not isinstance(spec["eval"], dict):
        said = "label_map is of further sets: name them as eval: {validation: FILE, other: FILE}"
        raise ValueError(f"{where}: {said}")
    sets: dict[str, str] = {}
    folded: dict[str, str] = {}  # as disks without upper case have them
    for name, table in spec["eval"].items():
        name = _name(f"{where}: eval", name)
        if not isinstance(table, str):
            raise ValueError(f"{where}: eval {name!r} must be a table, and is {kind_of(table)}")
        alike = unicodedata.normalize("NFKC", name).casefold()
        if alike in folded:
            raise ValueError(f"{where}: eval has {folded[alike]!r} and {name!r}, which some disks take for one")
        if "=" in name or (sets and alike in (MAIN_SET, "train")):
            raise ValueError(f"{where}: eval can't have a further set called {name!r}: name it otherwise")
        sets[name], folded[alike] = table, name
    others, given = list(sets)[1:], spec.get("label_map", {})
    nested = isinstance(given, dict) and {isinstance(it, dict) for it in given.values()}
    if not isinstance(given, dict) or len(nested) > 1:
        raise ValueError(f"{where}: label_map must be such as {{no-entailment: neutral}}, and is {kind_of(given)}")
    if nested == {False}:  # of all of them
        given = dict.fromkeys(others, given)
    _known(given, others, f"{where}: label_map is of an unknown set")
    maps = {name: {str(key): str(it) for key, it in labels.items()} for name, labels in given.items()}
    return {"eval": [[name, table] for name, table in sets.items()]} | ({"label_map": maps} if maps else {})


def _name(what: str, name: Any) -> str:
    """A name of the study's, which names files too: one part of a path."""
    name = str(name)
    if not name.strip(" .") or not name.isprintable() or {"/", "\\"} & {*name} or len(name) > 200:
        shown = repr(name if len(name) <= 60 else name[:60] + "...")
        raise ValueError(f"{what} {shown} can't be a name: it names files in the study's folder; no / and \\")
    return name


def _model_name(where: str, value: Any) -> str:
    if not isinstance(value, str):
        hints = "several are a list in a block of the grid, and what YAML takes for a number wants quotes"
        raise ValueError(f"{where}model must be one name, and is {value!r}: {hints}")
    return value


def _axes(block: Mapping[str, Any], fixed: Mapping[str, Any], study: Study, where: str) -> dict[str, list[Any]]:
    """What a block is the product of: its own lists, and what it does not say."""
    axes = {"data": list(study.data), "setting": ["pooled", "dual_head"], "seed": [0]}
    axes |= {name: fixed[name] for name in _AXES if name in fixed}
    axes = {name: values for name, values in axes.items() if name not in block} | dict(block)
    axes = {name: values if isinstance(values, list) else [values] for name, values in axes.items()}
    _known(axes["data"], study.data, f"{where} names unknown data")
    _known(axes["setting"], SETTINGS, f"{where} has an unknown setting")
    for name, least in (("seed", 0), ("train_size", 1)):
        for it in axes.get(name, ()):
            if not (type(it) is int and it >= least) and (name, it) != ("train_size", None):
                raise ValueError(f"{where}: {name} must be whole numbers, and is {it!r}")
    return axes


def _run(values: Mapping[str, Any], model: str, fixed: Mapping[str, Any], study: Study, where: str) -> Run:
    of_data, setting = study.data[values["data"]], values["setting"]
    options = {"prompt": of_data.spec.get("prompt"), **fixed, **values}
    model = _model_name(where, options.pop("model", None) or model)
    options = {name: _number(it) for name, it in options.items() if name not in _AXES and it is not None}
    options = json.loads(json.dumps(options, default=str))  # as the table will have them: YAML knows dates
    by_length = options.get("train_sampling_strategy") == "group_by_length"
    if by_length and options.get("length_column_name") != "input_length":
        raise ValueError(
            f"{where}train_sampling_strategy: group_by_length orders rows by the length of x and rationale, and runs of one "
            "seed would see theirs in different orders: add length_column_name: input_length"
        )
    # What the setting fixes is fixed, what it ignores is left out.
    found = {"alpha": options.get("alpha", 1.0), "beta": options.get("beta", 1.0)}
    found |= {"pooled": {"alpha": 0, "beta": 1}, "cot_decoding": {"alpha": 1, "beta": 0}}.get(setting, {})
    for name, value in found.items():
        if not isinstance(value, int | float | str):
            raise ValueError(
                f"{where}{name} must be a number, and is {value!r}: several are a list in a block of the grid"
            )
        # A word is auto, or what dhrd train refuses.
        found[name] = value if isinstance(value, str) else float(value)
    found["classifier_head"] = options.get("classifier_head") or "linear"
    ignored = {"pooled": REASONING_OPTIONS, "cot_decoding": _SCHEDULE}.get(setting, ())
    found |= {name: value for name, value in options.items() if name not in {*found, *ignored}}
    decides = {"data": of_data.spec, "metric": of_data.metric, "eval_size": study.eval_size}
    if setting == "cot_decoding":
        decides |= {"cot_eval_size": study.cot_eval_size, "cot_max_new_tokens": study.cot_max_new_tokens}
    return Run(of_data.name, setting, values["seed"], values.get("train_size"), model, found, decides)


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
