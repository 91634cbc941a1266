"""The model card of an export: what is known of it, in a README.md with the Hub's metadata. What is not known is left out."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..configuration_dhrd import ADAPTER_CONFIG_FOLDER
from .card_facts import CardFacts, check_metadata, hub_name, inherited_license
from .contract import CONTRACT
from .exported_files import EVAL_RESULTS, write_eval_results
from .portable import NOT_IN_VERSION_4

if TYPE_CHECKING:
    from jinja2 import Template

TAG = "dual-head-reasoning-distillation"

_DIAGRAM, _MATRIX = "reliability.svg", "confusion.svg"
_USAGE = re.compile(r"^## How to use\n.*?(?=^## )", re.MULTILINE | re.DOTALL)
_MEASURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mse": "mean squared error",
    "mae": "mean absolute error",
    "expected_calibration_error": "expected calibration error",
    "brier_score": "Brier score",
    "nll": "negative log-likelihood",
}
_HERE = 'name = "."  # this folder, or its name on the Hub'
_METRIC_IDS = {"macro_f1": "f1"}  # where the Hub's name of a metric is another


def make_model_card(
    folder: str | os.PathLike, facts: CardFacts | None = None, diagram: str | None = None, matrix: str | None = None
) -> ModelCard:
    """The model card of an export, from what its folder holds and what else is known.

    Example:

    ```python
    >>> from dhrd_hf.export import CardFacts, make_model_card
    >>> card = make_model_card("my-classifier", CardFacts(license="mit", language=["en"]))
    >>> card.data.license, card.data.pipeline_tag
    ('mit', 'text-classification')

    ```

    Args:
        folder (`str` or `os.PathLike`): What [`export_classifier`] wrote: labels, prompt template, input length and format
            are read from it.
        facts ([`CardFacts`], *optional*): What else is known.
        diagram (`str`, *optional*): Name of the reliability diagram's file.
        matrix (`str`, *optional*): Name of the confusion matrix's file.

    Returns:
        `huggingface_hub.ModelCard`: the card.

    Raises:
        ValueError: if a license or a language has a form that the Hub has none of.
    """
    folder, facts = Path(folder), facts or CardFacts()
    check_metadata(facts)
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
    with_rationale = None
    if facts.train_rows is not None and facts.rows_without_rationale is not None:
        with_rationale = facts.train_rows - facts.rows_without_rationale
    metadata = _metadata(facts, base_model, adapter)
    content = _template().render(
        metadata.to_dict(),
        card_data=metadata.to_yaml(),
        here=_HERE,
        title=facts.model_name or "Text classifier",
        facts=facts,
        base_model=base_model,
        kind=_kind(folder, config),
        opens=_opens(config),
        adapter_base=_literal(local_or_hub),
        adapter_revision=_literal(adapter.get("revision")) if adapter.get("revision") else None,
        options=", top_k=None" if problem == "multi_label_classification" else "",
        example=_example(template),
        problem=problem,
        labels="" if problem == "regression" else ", ".join(map(_code, labels)),
        prompt=_fenced(template) if template not in (None, "{text}") else None,
        rows_with_rationale=with_rationale,
        training=_training(facts, with_rationale),
        measures=_MEASURES,
        number=_number,
        share=_share,
        cell=_cell,
        code=_code,
        diagram=diagram,
        matrix=matrix,
        contract=CONTRACT if (folder / CONTRACT).is_file() else None,
        limits=_limits(facts, folder, problem, with_rationale),
    )
    return ModelCard(content)


def write_model_card(folder: str | os.PathLike, facts: CardFacts | None = None) -> Path:
    """Write the model card of an export into its folder: README.md, and the reliability diagram where there are results.

    Example:

    ```python
    >>> from dhrd_hf.export import CardFacts, write_model_card
    >>> write_model_card("my-classifier", CardFacts(license="apache-2.0", language=["en"]))

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
    from ..pages import picture
    from ..pages.verdict import confusion, reliability_picture

    results, drawn = facts.results or {}, {}
    for name, plot in ((_DIAGRAM, reliability_picture(results)), (_MATRIX, confusion(results))):
        if plot is not None:
            drawn[name] = (folder / name).write_text(picture(plot), encoding="utf-8")
    text = str(make_model_card(folder, facts, *(name if name in drawn else None for name in (_DIAGRAM, _MATRIX))))
    write_eval_results(folder, facts)
    (folder / "README.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    return folder / "README.md"


def write_engine_card(classifier: Path, folder: Path) -> None:
    """Write the card of an export for another engine: the classifier's own, with how this one is opened."""
    here, own = str(make_model_card(folder)), classifier / "README.md"
    usage = _USAGE.search(here).group()
    text = _USAGE.sub(lambda _: usage, own.read_text("utf-8"), count=1) if own.is_file() else here
    (folder / "README.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    for name in (_DIAGRAM, _MATRIX):
        if (classifier / name).is_file():
            shutil.copyfile(classifier / name, folder / name)
    if (classifier / EVAL_RESULTS).is_dir():
        shutil.copytree(classifier / EVAL_RESULTS, folder / EVAL_RESULTS, dirs_exist_ok=True)


def card_at(folder: Path, repo_id: str) -> bytes:
    """The model card of an export, with the name of its repository where its snippet says the folder."""
    file = folder / "README.md"
    text = file.read_text("utf-8") if file.exists() else str(make_model_card(folder)).rstrip() + "\n"
    return text.replace(_HERE, f"name = {_literal(repo_id)}").encode()


@cache
def _template() -> Template:
    """The template, from the wheel, or from the checkout of an editable install; compiled once."""
    from jinja2 import Template

    name = "classifier.md.jinja"
    shipped = Path(__file__).with_name(name)
    file = shipped if shipped.exists() else Path(__file__).parents[2] / "model_cards" / name
    return Template(file.read_text("utf-8"))


def _kind(folder: Path, config: dict[str, Any]) -> str:
    if (folder / "adapter_config.json").exists():
        return "adapter"
    if (folder / "onnx" / "model_quantized.onnx").exists():
        return "transformers.js"
    return _json(folder / "export.json").get(
        "export_format", "code" if config.get("model_type") == "dhrd" else "dense"
    )


def _opens(config: dict[str, Any]) -> str:
    name, kind = (config.get("architectures") or ["classifier"])[0], config.get("model_type")
    if kind in NOT_IN_VERSION_4:
        return f"It is a stock `{name}` of transformers 5; version 4 has none for {kind}."
    line = f"It is a stock `{name}` of transformers 5, which version 4.57, `CrossEncoder` and infinity open as well."
    if config.get("attn_logit_softcapping"):
        line += ' In version 4 give `attn_implementation="eager"`: its default leaves the cap on attention scores out.'
    return line


def _metadata(facts: CardFacts, base_model: str | None, adapter: dict[str, Any]) -> ModelCardData:
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
    more = {"base_model_relation": "adapter" if adapter else "finetune"} if base_model else {}
    return ModelCardData(
        base_model=base_model,
        datasets=facts.datasets or ([trained_on] if "/" in trained_on else None),
        eval_results=results or None,
        language=facts.language,
        library_name="peft" if adapter else "transformers",
        license=facts.license,
        license_name=facts.license_name,
        license_link=facts.license_link,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=facts.model_name if results else None,
        pipeline_tag="text-classification",
        tags=[TAG, *([adapter["peft_type"].lower()] if "peft_type" in adapter else [])],
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
    if facts.rationale_audit is not None:
        lines.append(_audited(facts.rationale_audit))
    if facts.alpha is not None and facts.beta is not None:
        weight = "(a balanced weight)" if facts.alpha == "auto" else f"{facts.alpha:g}"
        lines.append(f"Objective: {facts.beta:g} * classification loss + {weight} * reasoning loss")
    if facts.classifier_head is not None:
        heads = {"linear": "one linear layer, without bias", "mlp": "two layers"}
        lines.append(f"Classification head: {heads.get(facts.classifier_head, facts.classifier_head)}")
    if facts.versions:
        lines.append(f"Versions: {', '.join(f'{name} {version}' for name, version in facts.versions.items())}")
    return lines


def _audited(audit: dict[str, Any]) -> str:
    found = [
        f"{share:.1%} {name.replace('_', ' ')}"
        for name, share in sorted(audit["flagged"].items(), key=lambda it: -it[1])
        if share
    ]
    line = f"Audit of {audit['rows']} rationales: {', '.join(found) if found else 'no check flags any'}"
    if audit["matching"] is not None:
        line += f"; matched to their rows: {audit['matching']}"
    if audit["rationale_only"] is not None:
        line += (
            f"; a small classifier gets the label from the rationale alone in {audit['rationale_only']:.1%} of the rows "
            f"(majority {audit['majority']:.1%})"
        )
    return line


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


def _share(it: Mapping[str, float] | None, sign: str = "") -> str:
    return "" if it is None else f"{it['value']:{sign}.4f} ({it['low']:{sign}.4f} to {it['high']:{sign}.4f})"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) else ""


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
