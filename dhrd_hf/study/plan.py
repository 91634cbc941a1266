"""A study's YAML file, and the runs that its grid makes."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from .metrics import METRICS, TASK_METRICS
from .options import hint, read_options, read_train, read_yaml

MAIN_SET, VALIDATION = "eval", "validation="  # no further set has such a name
# Options that a run with alpha = 0, which sees no rationale, does not depend on.
_SCHEDULE = ("alpha_schedule", "alpha_end", "alpha_step_at")
REASONING_OPTIONS = (*_SCHEDULE, "reasoning_share", "reasoning_span", "rationale_after_label")
REASONING_OPTIONS += ("distillation_weight", "temperature", "teacher", "teacher_cache", "teacher_top_k")
_AXES = ("data", "setting", "seed", "train_size")

# What a key must be, in words, and whether it is.
_Kind = tuple[str, Callable[[Any], bool]]
_ANY: _Kind = "anything", lambda it: True
_TEXT: _Kind = "a text", lambda it: isinstance(it, str)
_WORD: _Kind = "a text", lambda it: not isinstance(it, list | dict)
_COUNT: _Kind = "a whole number above 0", lambda it: type(it) is int and it > 0
_FLAG: _Kind = "true or false, without quotes", lambda it: isinstance(it, bool)
_TRUE: _Kind = "true", lambda it: it is True
_SETS: _Kind = "a text", lambda it: isinstance(it, str | dict | list)
_KEYS = {"name": _WORD, "model": _ANY, "data": _ANY, "train": _ANY, "metric": _ANY, "grid": _ANY}
_KEYS |= {"eval_size": _COUNT, "cot_eval_size": _COUNT, "cot_max_new_tokens": _COUNT, "keep_models": _FLAG}
_DATA_KEYS = dict.fromkeys(("train", "rationales", "prompt", "label_column", "rationale_column"), _TEXT)
_DATA_KEYS |= dict.fromkeys(("group_column", "metric", "problem_type", "validation"), _TEXT)
_DATA_KEYS |= {"eval": _SETS, "label_map": _SETS, "drop_unlabelled": _TRUE}
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
        varying (`tuple[str, ...]`, *optional*): Options of which there are several values, for the names of runs.
    """

    name: str
    folder: Path
    data: dict[str, DataSet]
    runs: list[Run]
    eval_size: int | None = None
    cot_eval_size: int | None = None
    cot_max_new_tokens: int = 500
    keep_models: bool = False
    varying: tuple[str, ...] = ()

    def label(self, run: Run) -> str:
        """A run in words: what tells it from the others."""
        said = [run.data, run.setting]
        for name in self.varying:
            value = run.config.get(name)
            if value is not None and not (name in ("alpha", "beta") and run.setting in ("pooled", "cot_decoding")):
                said.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
        return " ".join([*said, f"seed={run.seed}"])


def digest(value: Any) -> str:
    """A short hash of something that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:10]


def file_name(name: str) -> str:
    """A name as part of a file's: what is no word, or long, is told from others by a hash."""
    clean = re.sub(r"[^\w.+ -]", "-", name)
    while len(clean.encode()) > 100:
        clean = clean[:-1]
    return clean if clean == name else f"{clean}-{digest(name)}"


def setting_names() -> list[str]:
    """The settings that a run can have."""
    from ..data.ablations import ABLATIONS

    return ["pooled", "dual_head", "cot_decoding", *(name for name in ABLATIONS if name != "consistent")]


def ablation_of(setting: str) -> str:
    """The kind of [`~dhrd_hf.data.ablations.ablate`] that makes a setting's training rows."""
    return "consistent" if setting in ("pooled", "dual_head", "cot_decoding") else setting


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
    given = read_yaml(path)
    if not isinstance(given, dict):
        raise ValueError(f"{path} must hold keys such as name, model, data and grid, and holds {_kind(given)}")
    _check_names(given, _KEYS, f"{path}: unknown key")
    if missing := [key for key in ("name", "model", "data") if not given.get(key)]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    _check_kinds(given, _KEYS, str(path))
    data, fixed = _data_sets(path, given["data"], given.get("metric")), read_train(given.get("train"), path)
    for where, value in (("", given["model"]), ("train: ", fixed.get("model", given["model"]))):
        _at(f"{path}: {where}", _model_name, value)
    sizes = {name: given.get(name) for name in ("eval_size", "cot_eval_size")}
    sizes["cot_max_new_tokens"] = given.get("cot_max_new_tokens") or 500
    study = Study(str(given["name"]), path.parent, data, [], **sizes, keep_models=given.get("keep_models") is True)
    runs = _runs(path, given, fixed, study)
    if not runs:
        raise ValueError(f"{path}: the grid has no runs: write blocks as {{data: ..., setting: [pooled, dual_head]}}")
    # What tells runs of one setting apart.
    names = dict.fromkeys(name for run in runs for name in run.config)
    values = {name: {(run.setting, json.dumps(run.config.get(name), default=str)) for run in runs} for name in names}
    varying = tuple(name for name, its in values.items() if len(its) > len({setting for setting, _ in its}))
    return replace(study, runs=runs, varying=varying)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _at(where: str, function: Callable[..., Any], *given: Any) -> Any:
    """What a function makes of something, or its complaint with the place."""
    try:
        return function(*given)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None


def _check_names(names: Iterable[Any], known: Collection[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{what} {name!r}{hint(name, known)}")


def _check_kinds(given: Mapping[str, Any], kinds: Mapping[str, _Kind], where: str) -> None:
    for key, value in given.items():
        words, holds = kinds[key]
        if value is not None and not holds(value):
            raise ValueError(
                f"{where}: {key} must be {words}, and is {_kind(value) if 'text' in words else repr(value)}"
            )


def _data_sets(path: Path, given: Any, metric: str | None) -> dict[str, DataSet]:
    if not isinstance(given, dict):
        raise ValueError(f"{path}: data must hold data sets by name, such as esnli: {{train: FILE, eval: FILE}}")
    found: dict[str, DataSet] = {}
    for name, spec in ((_name(path, "data", name), spec) for name, spec in given.items()):
        where = f"{path}: data {name!r}"
        if name in found:
            raise ValueError(f"{where} is there twice")
        if not isinstance(spec, dict):
            raise ValueError(f"{where} must be such as {{train: FILE, eval: FILE}}, and is {_kind(spec)}")
        is_task = "superglue" in spec
        keys, needed = (_TASK_KEYS, ("superglue",)) if is_task else (_DATA_KEYS, ("train", "eval"))
        _check_names(spec, keys, f"{where} has an unknown key")
        if missing := [key for key in needed if not spec.get(key)]:
            raise ValueError(f"{where} lacks {' and '.join(missing)}: the tables to train and evaluate on")
        _check_kinds(spec, keys, where)
        # Of group_column null is a value: no groups, also where the table has a column of that name.
        spec = {key: value for key, value in spec.items() if value is not None or key == "group_column"}
        spec |= _eval_sets(where, spec) if isinstance(spec.get("eval"), dict) or "label_map" in spec else {}
        if metric is not None:
            spec.setdefault("metric", metric)
        found[name] = DataSet(name, spec)
        own = found[name].metric
        _check_names([own], METRICS, f"{where} has an unknown metric")
        if {"question_accuracy", "f1a"} & {*METRICS[own]} and spec.get("superglue") not in ("copa", "multirc"):
            raise ValueError(f"{where}: the metric {own} is for COPA and MultiRC")
    return found


def _eval_sets(where: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Several evaluation sets in their order, which the first of them is the main one by, and the labels of the others."""
    if not isinstance(spec["eval"], dict):
        said = "label_map is of further sets: name them as eval: {validation: FILE, other: FILE}"
        raise ValueError(f"{where}: {said}")
    sets: dict[str, str] = {}
    for name, table in spec["eval"].items():
        name = _name(where, "eval", name)
        if not isinstance(table, str):
            raise ValueError(f"{where}: eval {name!r} must be a table, and is {_kind(table)}")
        twin = next((it for it in sets if _folded(it) == _folded(name)), None)
        if twin is not None:
            raise ValueError(f"{where}: eval has {twin!r} and {name!r}, which some disks take for one")
        if "=" in name or (sets and _folded(name) in (MAIN_SET, "train")):
            raise ValueError(f"{where}: eval can't have a further set called {name!r}: name it otherwise")
        sets[name] = table
    others, given = list(sets)[1:], spec.get("label_map", {})
    nested = isinstance(given, dict) and {isinstance(it, dict) for it in given.values()}
    if not isinstance(given, dict) or len(nested) > 1:
        raise ValueError(f"{where}: label_map must be such as {{no-entailment: neutral}}, and is {_kind(given)}")
    if nested == {False}:  # of all of them
        given = dict.fromkeys(others, given)
    _check_names(given, others, f"{where}: label_map is of an unknown set")
    maps = {name: {str(key): str(it) for key, it in labels.items()} for name, labels in given.items()}
    return {"eval": [[name, table] for name, table in sets.items()]} | ({"label_map": maps} if maps else {})


def _name(where: Any, what: str, name: Any) -> str:
    """A name of the study's, which names files too: one part of a path."""
    name = str(name)
    if not name.strip(" .") or not name.isprintable() or {"/", "\\"} & {*name} or len(name) > 200:
        shown = repr(name if len(name) <= 60 else name[:60] + "...")
        raise ValueError(f"{where}: {what} {shown} can't be a name: it names files in the study's folder; no / and \\")
    return name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _model_name(value: Any) -> str:
    if isinstance(value, list):
        raise ValueError(f"model is one name, and is {value!r}: several are a list in a block of the grid")
    if not isinstance(value, str):
        raise ValueError(f"model must be a name, and is {value!r}: a name that YAML takes for a number wants quotes")
    return value


def _runs(path: Path, given: Mapping[str, Any], fixed: Mapping[str, Any], study: Study) -> list[Run]:
    blocks = given.get("grid") or []
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        said = "grid must be a list of blocks such as {data: esnli, setting: pooled, seed: [0, 1]}"
        raise ValueError(f"{path}: {said}")
    found: dict[str, Run] = {}
    for number, block in enumerate(blocks, 1):
        where = f"{path}: block {number} of grid"
        block = read_options(block, where, path.parent)
        axes = {"data": list(study.data), "setting": ["pooled", "dual_head"], "seed": [0]}
        axes |= {name: fixed[name] for name in _AXES if name in fixed}
        axes = {name: values for name, values in axes.items() if name not in block} | block
        axes = {name: values if isinstance(values, list) else [values] for name, values in axes.items()}
        if empty := [name for name, values in axes.items() if not values]:
            raise ValueError(f"{path}: the grid has no runs in block {number}: {empty[0]} is an empty list")
        _check_names(axes["data"], study.data, f"{where} names unknown data")
        _check_names(axes["setting"], setting_names(), f"{where} has an unknown setting")
        for name, least in (("seed", 0), ("train_size", 1)):
            for it in axes.get(name, ()):
                if not (type(it) is int and it >= least) and (name, it) != ("train_size", None):
                    raise ValueError(f"{where}: {name} must be whole numbers, and is {it!r}")
        for values in product(*axes.values()):
            run = _at(f"{where}: ", _run, dict(zip(axes, values, strict=True)), given["model"], fixed, study)
            found.setdefault(run.id, run)
    return list(found.values())


def _run(values: dict[str, Any], model: str, fixed: Mapping[str, Any], study: Study) -> Run:
    of_data = study.data[values["data"]]
    options = {name: of_data.spec[name] for name in ("prompt",) if name in of_data.spec}
    options |= {name: value for its in (fixed, values) for name, value in its.items() if name not in _AXES}
    model = _model_name(options.pop("model", None) or model)
    options = {name: _number(value) for name, value in options.items() if value is not None}
    options = json.loads(json.dumps(options, default=str))  # as the table will have them: YAML knows dates
    by_length = options.get("train_sampling_strategy") == "group_by_length"
    if by_length and options.get("length_column_name") != "input_length":
        raise ValueError(
            "train_sampling_strategy: group_by_length orders rows by the length of x and rationale, and runs of one seed "
            "would see theirs in different orders: add length_column_name: input_length"
        )
    decides = {"data": of_data.spec, "metric": of_data.metric, "eval_size": study.eval_size}
    if values["setting"] == "cot_decoding":
        decides |= {"cot_eval_size": study.cot_eval_size, "cot_max_new_tokens": study.cot_max_new_tokens}
    setting, options = values["setting"], _in_setting(values["setting"], options)
    return Run(of_data.name, setting, values["seed"], values.get("train_size"), model, options, decides)


def _in_setting(setting: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a run as its setting has them: what the setting fixes is fixed, what it ignores is left out."""
    fixed = {"pooled": (0.0, 1.0, REASONING_OPTIONS), "cot_decoding": (1.0, 0.0, _SCHEDULE)}
    given = options.get("alpha", 1.0), options.get("beta", 1.0), ()
    *weights, ignored = fixed.get(setting, given)
    found = dict(zip(("alpha", "beta"), weights, strict=True))
    for name, value in found.items():
        if not isinstance(value, (int, float, str)):
            raise ValueError(f"{name} must be a number, and is {value!r}: several are a list in a block of the grid")
        # A word is auto, or what dhrd train refuses.
        found[name] = value if isinstance(value, str) else float(value)
    found["classifier_head"] = options.get("classifier_head") or "linear"
    return found | {name: value for name, value in options.items() if name not in {*found, *ignored}}


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
