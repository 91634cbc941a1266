"""The model card of an export: what is known of it, in a README.md with the Hub's metadata. What is not known is left out."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard import metadata_load
from huggingface_hub.utils import validate_repo_id
from transformers.utils import logging

from ..configuration_dhrd import ADAPTER_CONFIG_FOLDER

logger = logging.get_logger(__name__)

# What `dhrd train` leaves in a run directory for the card of its export.
FACTS_FILE = "card_facts.json"
TAG = "dual-head-reasoning-distillation"

_DIAGRAM = "reliability.png"
_LISTS = ("language", "datasets", "intended_use", "limits")
# What only a person knows: the keys of a YAML file of facts.
_GIVEN = (
    "model_name",
    "base_model",
    "license",
    "license_name",
    "license_link",
    *_LISTS,
    "rationale_source",
)
_MEASURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "expected_calibration_error": "expected calibration error",
    "brier_score": "Brier score",
    "nll": "negative log-likelihood",
}
_METRIC_IDS = {"macro_f1": "f1"}  # where the Hub's name of a metric is another


@dataclass
class CardFacts:
    """What a model card says that the exported folder does not; each fact is optional, and left out where it is None.

    Example:

    ```python
    >>> from dhrd_hf.export import CardFacts
    >>> CardFacts(alpha=1.0, license="mit").updated(CardFacts(license="apache-2.0")).license
    'apache-2.0'

    ```

    Args:
        model_name (`str`, *optional*): Title of the card and name in its `model-index`, which needs one.
        base_model (`str`, *optional*): Name of the language model on the Hub.
        base_model_revision (`str`, *optional*): Its commit or branch.
        license (`str`, *optional*): The Hub's identifier, such as `"apache-2.0"`; `"other"` goes with `license_name`. By
            default the base model's, where its card is at hand.
        license_name, license_link (`str`, *optional*): What `"other"` is.
        language (`list[str]`, *optional*): Codes such as `"en"`.
        datasets (`list[str]`, *optional*): Names on the Hub of what it was trained on.
        intended_use, limits (`list[str]`, *optional*): Sentences.
        rationale_source (`str`, *optional*): Where the rationales come from, such as the name of the teacher.
        train_data (`str`, *optional*): Name of the training table.
        train_rows, rows_without_rationale (`int`, *optional*): Its rows, and those without a rationale.
        alpha, beta (`float`, *optional*): Weights of the reasoning and the classification loss.
        classifier_head (`str`, *optional*): `"linear"` or `"mlp"`.
        hyperparameters, versions (`dict`, *optional*): By name.
        dev_data (`str`, *optional*), dev_rows (`int`, *optional*), dev_metrics (`dict[str, float]`, *optional*): The
            last evaluation in training; shown where there are no `results`.
        temperature (`float`, *optional*): What the head's weights were divided by.
        calibration_data (`str`, *optional*), calibration_rows (`int`, *optional*): What it was fitted on.
        eval_data (`str`, *optional*): Name of the table of the results.
        results (`dict`, *optional*): From [`~dhrd_hf.evaluation.evaluation_report`].
        inputs_cut (`int`, *optional*): Number of its texts that were cut to the model's input length.
        group_column (`str`, *optional*): Column of the groups in the results.
    """

    model_name: str | None = None
    base_model: str | None = None
    base_model_revision: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: list[str] | None = None
    datasets: list[str] | None = None
    intended_use: list[str] | None = None
    limits: list[str] | None = None
    rationale_source: str | None = None
    train_data: str | None = None
    train_rows: int | None = None
    rows_without_rationale: int | None = None
    alpha: float | None = None
    beta: float | None = None
    classifier_head: str | None = None
    hyperparameters: dict[str, Any] | None = None
    versions: dict[str, str] | None = None
    dev_data: str | None = None
    dev_rows: int | None = None
    dev_metrics: dict[str, float] | None = None
    temperature: float | None = None
    calibration_data: str | None = None
    calibration_rows: int | None = None
    eval_data: str | None = None
    results: dict[str, Any] | None = None
    inputs_cut: int | None = None
    group_column: str | None = None

    def updated(self, other: CardFacts) -> CardFacts:
        """These facts, with those that another has.

        Args:
            other ([`CardFacts`]): Wins where it is not None.

        Returns:
            [`CardFacts`]: new ones.
        """
        return dataclasses.replace(self, **other._known())

    def save(self, path: str | os.PathLike) -> None:
        """Write the known facts as JSON, whole or not at all.

        Args:
            path (`str` or `os.PathLike`): The file.
        """
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            unfinished.write_text(json.dumps(self._known(), indent=2) + "\n", encoding="utf-8")
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> CardFacts:
        """Read what [`~CardFacts.save`] wrote.

        Args:
            path (`str` or `os.PathLike`): The file.

        Returns:
            [`CardFacts`]: the facts.

        Raises:
            ValueError: if the file is none of them.
            OSError: if it can't be read.
        """
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} does not hold the facts of a model card ({error}): remove it.") from error

    @classmethod
    def from_yaml(cls, path: str | os.PathLike) -> CardFacts:
        """Read what only a person knows: license, language, datasets, rationale_source, intended_use, limits, names.

        Args:
            path (`str` or `os.PathLike`): A YAML file with any of these keys; lists may be single texts.

        Returns:
            [`CardFacts`]: the facts.

        Raises:
            ValueError: on an unknown key, or a value that is no text.
            OSError: if the file can't be read.
        """
        try:
            given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {error}") from None
        if not isinstance(given, dict):
            raise ValueError(
                f"{path} must hold lines such as 'license: apache-2.0', and holds {type(given).__name__}."
            )
        for key, value in given.items():
            if key not in _GIVEN:
                near = difflib.get_close_matches(str(key), _GIVEN, n=1)
                meant = f": did you mean {near[0]!r}?" if near else "."
                raise ValueError(f"{path}: unknown key {key!r}{meant} There are {', '.join(_GIVEN)}.")
            entries = value if isinstance(value, list) and key in _LISTS else [value]
            wrong = [entry for entry in entries if not isinstance(entry, str) or not entry.strip()]
            if wrong:  # `no` is a boolean in YAML, and an empty value None
                raise ValueError(
                    f"{path}: {key} must be text{' or a list of texts' if key in _LISTS else ''}, and holds {wrong[0]!r}. "
                    f"Put quotes around it, or leave the line out."
                )
            given[key] = entries if key in _LISTS else value
        facts = cls(**given)
        _check_metadata(facts)
        return facts

    def _known(self) -> dict[str, Any]:
        return {f.name: value for f in dataclasses.fields(self) if (value := getattr(self, f.name)) is not None}


def make_model_card(
    folder: str | os.PathLike, facts: CardFacts | None = None, diagram: str | None = None
) -> ModelCard:
    """The model card of an export, from what its folder holds and what else is known.

    Example:

    ```python
    >>> from dhrd_hf.export import CardFacts, make_model_card
    >>> card = make_model_card("my-classifier", CardFacts(license="mit", language=["en"]))  # doctest: +SKIP
    >>> card.data.license, card.data.pipeline_tag  # doctest: +SKIP
    ('mit', 'text-classification')

    ```

    Args:
        folder (`str` or `os.PathLike`): What [`export_classifier`] wrote: labels, prompt template, input length and format
            are read from it.
        facts ([`CardFacts`], *optional*): What else is known.
        diagram (`str`, *optional*): Name of the reliability diagram's file.

    Returns:
        `huggingface_hub.ModelCard`: the card.

    Raises:
        ValueError: if a license or a language has a form that the Hub has none of.
    """
    folder, facts = Path(folder), facts or CardFacts()
    _check_metadata(facts)
    is_adapter = (folder / "adapter_config.json").exists()
    config = _json(folder / (f"{ADAPTER_CONFIG_FOLDER}/config.json" if is_adapter else "config.json"))
    adapter = _json(folder / "adapter_config.json") if is_adapter else {}
    local_or_hub = adapter.get("base_model_name_or_path")
    base_model = hub_name(local_or_hub) or facts.base_model
    if is_adapter:  # which says itself
        facts = dataclasses.replace(facts, base_model_revision=adapter.get("revision"))
    if facts.license is None:
        facts = facts.updated(inherited_license(local_or_hub or base_model, facts.base_model_revision))

    names = config.get("id2label") or {}
    labels = [names[key] for key in sorted(names, key=int)]
    problem = config.get("problem_type") or ("regression" if len(labels) == 1 else "single_label_classification")
    template = config.get("prompt_template")
    calibration = (facts.results or {}).get("calibration") or {}
    metrics = (facts.results or {}).get("metrics") or {}
    with_rationale = None
    if facts.train_rows is not None and facts.rows_without_rationale is not None:
        with_rationale = facts.train_rows - facts.rows_without_rationale
    return ModelCard.from_template(
        _metadata(facts, base_model, is_adapter),
        template_str=_template(),
        title=facts.model_name or "Text classifier",
        facts=facts,
        base_model=base_model,
        kind="adapter" if is_adapter else "code" if config.get("model_type") == "dhrd" else "dense",
        adapter_base=_literal(local_or_hub),
        adapter_revision=_literal(adapter.get("revision")) if adapter.get("revision") else None,
        options=", top_k=None" if problem == "multi_label_classification" else "",
        example=_example(template),
        problem=problem,
        labels="" if problem == "regression" else ", ".join(map(_code, labels)),
        prompt=_fenced(template) if template not in (None, "{text}") else None,
        rows_with_rationale=with_rationale,
        training=_training(facts, with_rationale),
        hyperparameters=[(_cell(name), _cell(value)) for name, value in (facts.hyperparameters or {}).items()],
        results=[
            (_MEASURES[name], {key: _number(value) for key, value in it.items()}) for name, it in metrics.items()
        ],
        method="Wilson's for accuracy, 1000 bootstrap samples for macro F1" if "accuracy" in metrics else "bootstrap",
        dev_metrics=[(_MEASURES[name], _number(value)) for name, value in (facts.dev_metrics or {}).items()],
        groups=[
            {**it, "group": _cell(it["group"]), **{key: _number(it[key]) for key in ("value", "low", "high")}}
            for it in (facts.results or {}).get("groups") or []
        ],
        temperature=_number(facts.temperature),
        calibration_columns=list(calibration) if len(calibration) > 1 else ["value"],
        calibration=[
            (_MEASURES[name], [_number(state[name]) for state in calibration.values()])
            for name in calibration.get("before", {})
        ],
        diagram=diagram,
        limits=_limits(facts, folder, problem, with_rationale),
    )


def write_model_card(folder: str | os.PathLike, facts: CardFacts | None = None) -> Path:
    """Write the model card of an export into its folder: README.md, and the reliability diagram where there are results.

    Example:

    ```python
    >>> from dhrd_hf.export import CardFacts, write_model_card
    >>> write_model_card("my-classifier", CardFacts(license="apache-2.0", language=["en"]))  # doctest: +SKIP

    ```

    Args:
        folder (`str` or `os.PathLike`): What [`export_classifier`] wrote.
        facts ([`CardFacts`], *optional*): What is known beside what the folder holds.

    Returns:
        `Path`: the README.md.

    Raises:
        ValueError: as [`make_model_card`].
    """
    folder, facts = Path(folder), facts or CardFacts()
    curves = (facts.results or {}).get("reliability")
    drawn = _draw(curves, folder / _DIAGRAM) if curves else False
    text = str(make_model_card(folder, facts, _DIAGRAM if drawn else None))
    (folder / "README.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    return folder / "README.md"


def hub_name(name: str | None) -> str | None:
    """A model's name if it is one on the Hub by its form, and None if it is a folder here.

    Example:

    ```python
    >>> from dhrd_hf.export.model_card import hub_name
    >>> hub_name("Qwen/Qwen3-0.6B"), hub_name("/models/mine")
    ('Qwen/Qwen3-0.6B', None)

    ```

    Args:
        name (`str`, *optional*): What `from_pretrained` takes.

    Returns:
        `str`, *optional*: the name.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return None if name is None or Path(name).exists() else name


def inherited_license(name: str | None, revision: str | None = None) -> CardFacts:
    """The license in the card of a base model, where the card is in its folder or in the Hub's cache; nothing is fetched.

    Args:
        name (`str`, *optional*): The base model's folder, or its name on the Hub.
        revision (`str`, *optional*): Its commit or branch.

    Returns:
        [`CardFacts`]: with `license`, `license_name` and `license_link`, or nothing.
    """
    card = None
    if name is not None and (Path(name) / "README.md").is_file():
        card = Path(name) / "README.md"
    elif (hub := hub_name(name)) is not None:
        card = try_to_load_from_cache(hub, "README.md", revision=revision)
    if not isinstance(card, (str, Path)):
        return CardFacts()
    try:
        found = metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError):  # others wrote it
        return CardFacts()
    given = {key: found.get(key) for key in ("license", "license_name", "license_link")}
    if not isinstance(given["license"], str):
        return CardFacts()
    link = given["license_link"]
    if link is not None and not link.startswith("http"):  # a file beside the base model
        given["license_link"] = f"https://huggingface.co/{hub_name(name)}/blob/main/{link}" if hub_name(name) else None
    return CardFacts(**given)


def _template() -> str:
    """The template, from the wheel, or from the checkout of an editable install."""
    name = "classifier.md.jinja"
    shipped = Path(__file__).with_name(name)
    return (shipped if shipped.exists() else Path(__file__).parents[2] / "model_cards" / name).read_text("utf-8")


def _check_metadata(facts: CardFacts) -> None:
    """Raise on what the Hub would refuse by its form; huggingface_hub has no list of licenses or languages."""
    if facts.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", facts.license):
        raise ValueError(
            f"license {facts.license!r} is not an identifier of the Hub's, such as apache-2.0, mit or cc-by-4.0 "
            "(https://huggingface.co/docs/hub/repositories-licenses). For another: license: other, license_name: NAME."
        )
    if facts.license == "other" and facts.license_name is None:
        raise ValueError(
            "license other needs its name: add license_name: NAME, and license_link: URL if there is one."
        )
    if facts.license != "other" and facts.license is not None and facts.license_name is not None:
        raise ValueError(f"license_name goes with license: other, and license is {facts.license!r}. Leave one out.")
    if facts.license is None and (facts.license_name or facts.license_link):
        raise ValueError("license_name and license_link go with license: other. Add that line.")
    for language in facts.language or ():
        if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual", language):
            raise ValueError(f"language {language!r} is no ISO 639 code of two or three letters, such as en or deu.")


def _metadata(facts: CardFacts, base_model: str | None, is_adapter: bool) -> ModelCardData:
    results = []
    metrics = (facts.results or {}).get("metrics") or {}
    values = {name: it["value"] for name, it in metrics.items()} or facts.dev_metrics or {}
    data = facts.eval_data if metrics else facts.dev_data
    if facts.model_name is not None and data is not None:
        where, _, split = data.partition("@")
        where, _, name = where.partition(":")
        results = [
            EvalResult(
                task_type="text-classification",
                task_name="Text Classification",
                dataset_type=where,
                dataset_name=where,
                dataset_config=name or None,
                dataset_split=split or None,
                metric_type=_METRIC_IDS.get(metric, metric),
                metric_name=_MEASURES[metric],
                metric_value=round(value, 6),
            )
            for metric, value in values.items()
        ]
    trained_on = facts.train_data.partition("@")[0].partition(":")[0] if facts.train_data else ""
    more = {"base_model_relation": "adapter" if is_adapter else "finetune"} if base_model else {}
    return ModelCardData(
        base_model=base_model,
        datasets=facts.datasets or ([trained_on] if "/" in trained_on else None),
        eval_results=results or None,
        language=facts.language,
        library_name="peft" if is_adapter else "transformers",
        license=facts.license,
        license_name=facts.license_name,
        license_link=facts.license_link,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=facts.model_name if results else None,
        pipeline_tag="text-classification",
        tags=[TAG],
        **more,
    )


def _training(facts: CardFacts, with_rationale: int | None) -> list[str]:
    lines = []
    if facts.train_data is not None or facts.train_rows is not None:
        rows = "" if facts.train_rows is None else f"{facts.train_rows} rows"
        data = facts.train_data or ""
        lines.append(f"Data: {rows}{' of ' if rows and data else ''}{data}")
    if facts.datasets:
        lines.append(f"Data sets: {', '.join(facts.datasets)}")
    if with_rationale is not None:
        lines.append(f"Rationales: {with_rationale} of the rows have one")
    if facts.rationale_source is not None:
        lines.append(f"Source of the rationales: {facts.rationale_source}")
    if facts.alpha is not None and facts.beta is not None:
        lines.append(f"Objective: {facts.beta:g} * classification loss + {facts.alpha:g} * reasoning loss")
    if facts.classifier_head is not None:
        heads = {"linear": "one linear layer, without bias", "mlp": "two layers"}
        lines.append(f"Classification head: {heads.get(facts.classifier_head, facts.classifier_head)}")
    if facts.versions:
        lines.append(f"Versions: {', '.join(f'{name} {version}' for name, version in facts.versions.items())}")
    return lines


def _limits(facts: CardFacts, folder: Path, problem: str, with_rationale: int | None) -> list[str]:
    """What follows from the method and the folder, after what the user says."""
    lines = [*(facts.intended_use or ()), *(facts.limits or ())]
    if problem == "single_label_classification":
        lines.append("Every text gets one of the labels above, also one that fits none of them.")
    lines.append("It gives no reasons for a label: the head that could write them was left out.")
    if with_rationale and facts.alpha:
        lines.append("It learned from the rationales of the training data, so also from what is wrong in them.")
    limit = _json(folder / "tokenizer_config.json").get("model_max_length")
    if isinstance(limit, (int, float)) and limit < 1e9:  # beyond is transformers' way to say that there is none
        lines.append(f"A text is cut to {int(limit)} tokens (`truncation=True`): what is beyond is not read.")
    if problem != "regression" and facts.temperature is None:
        lines.append("Its probabilities were not calibrated on data of their own.")
    elif problem != "regression":
        rows = "" if facts.calibration_rows is None else f"{facts.calibration_rows} rows"
        data = facts.calibration_data or ""
        where = f", fitted on {rows}{' of ' if rows and data else ''}{data}" if rows or data else ""
        lines.append(
            f"Its probabilities were calibrated by one temperature, {facts.temperature:.4g}{where}: on other kinds of "
            "text they may be off."
        )
    return lines


def _example(template: str | None) -> str:
    """The lines of the snippet that make a text."""
    if template in (None, "{text}"):
        return 'text = "..."'
    columns = dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name)
    row = ", ".join(f'{_literal(name)}: "..."' for name in columns)
    return f"prompt = {_literal(template)}\ntext = prompt.format(**{{{row}}})"


def _literal(text: str | None) -> str:
    return json.dumps(text, ensure_ascii=False)


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _fenced(text: str) -> str:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 0)
    return f"{fence}text\n{text}\n{fence}"


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _draw(curves: Mapping[str, list[dict[str, float]]], path: Path) -> bool:
    """Draw accuracy against confidence; False where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        logger.warning(
            "The model card has no reliability diagram: matplotlib is not installed. Type: pip install 'dhrd-hf[card]'"
        )
        return False
    figure = Figure(figsize=(5, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="as sure as right")
    styles = {"before": ("#b35806", "o"), "after": ("#2166ac", "s")}
    rows = max(point["rows"] for curve in curves.values() for point in curve)
    for name, curve in curves.items():
        color, marker = styles[name]
        x, y = ([point[axis] for point in curve] for axis in ("confidence", "accuracy"))
        label = f"{name} temperature" if len(curves) > 1 else "classifier"
        axes.plot(x, y, color=color, linewidth=1, alpha=0.6)
        sizes = [20 + 130 * point["rows"] / rows for point in curve]
        axes.scatter(x, y, sizes, color=color, marker=marker, alpha=0.8, label=label)
    axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.02), xlabel="confidence (mean of a bin)", ylabel="accuracy")
    axes.set_title("Reliability; the larger a mark, the more rows in its bin", fontsize=10)
    axes.legend(loc="upper left", markerscale=0.6)
    figure.savefig(path, format="png")
    return True
