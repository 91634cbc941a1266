"""`CardFacts`: what is known of a classifier for its model card, and which of it the Hub would refuse."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard import metadata_load
from huggingface_hub.utils import validate_repo_id

from ..files import checkpoints, did_you_mean, read_yaml, strict_json, write_whole

# What `dhrd train` leaves in a run directory for the card of its export.
FACTS_FILE = "card_facts.json"

_LISTS = ("language", "datasets", "intended_use", "limits")
# What only a person knows: the keys of a YAML file of facts.
_GIVEN = ("model_name", "base_model", "license", "license_name", "license_link", *_LISTS, "rationale_source")
# The identifiers that the Hub takes, as its check of a card's metadata lists them (2026-11); huggingface_hub has no list.
_LICENSES = (
    *("apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0"),
    *("bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause"),
    *("bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    *("cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0"),
    *("etalab-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1"),
    *("lgpl-3.0", "isc", "h-research", "intel-research", "lppl-1.3c", "ms-pl", "apple-ascl", "apple-amlr", "mpl-2.0"),
    *("odc-by", "odbl", "openmdw-1.0", "openmdw-1.1", "openrail++", "osl-3.0", "postgresql", "ofl-1.1", "ncsa"),
    *("unlicense", "zlib", "pddl", "lgpl-lr", "deepfloyd-if-license", "fair-noncommercial-research-license"),
    *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "grok2-community", "gemma", "unknown"),
    "other",
)


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
        thresholds (`dict`, *optional*): `target`, such as `"precision 0.95"`, and `labels`: for each label its `threshold`
            and, on the table of the results, its `precision`, `recall` and `rows`.
        rationale_audit (`dict`, *optional*): From [`~dhrd_hf.rationales.audit.summary`].
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
    alpha: float | str | None = None
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
    thresholds: dict[str, Any] | None = None
    rationale_audit: dict[str, Any] | None = None
    inputs_cut: int | None = None
    group_column: str | None = None

    def updated(self, other: CardFacts) -> CardFacts:
        """These facts, with those that another has."""
        return dataclasses.replace(self, **other._known())

    def save(self, path: str | os.PathLike) -> None:
        """Write the known facts as JSON, whole or not at all."""
        write_whole(path, strict_json(self._known(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> CardFacts:
        """Read what [`~CardFacts.save`] wrote."""
        try:
            return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} does not hold the facts of a model card ({error}): remove it.") from error

    @classmethod
    def from_yaml(cls, path: str | os.PathLike) -> CardFacts:
        """Read what only a person knows: license, language, datasets, rationale_source, intended_use, limits, names."""
        given = read_yaml(path)
        if not isinstance(given, dict):
            raise ValueError(
                f"{path} must hold lines such as 'license: apache-2.0', and holds {type(given).__name__}."
            )
        for key, value in given.items():
            if key not in _GIVEN:
                near = did_you_mean(str(key), _GIVEN, quote="'") or "."
                raise ValueError(f"{path}: unknown key {key!r}{near} There are {', '.join(_GIVEN)}.")
            entries = value if isinstance(value, list) and key in _LISTS else [value]
            wrong = [entry for entry in entries if not isinstance(entry, str) or not entry.strip()]
            if wrong:  # `no` is a boolean in YAML, and an empty value None
                raise ValueError(
                    f"{path}: {key} must be text{' or a list of texts' if key in _LISTS else ''}, and holds {wrong[0]!r}. "
                    f"Put quotes around it, or leave the line out."
                )
            given[key] = entries if key in _LISTS else value
        facts = cls(**given)
        check_metadata(facts)
        return facts

    def _known(self) -> dict[str, Any]:
        return {f.name: value for f in dataclasses.fields(self) if (value := getattr(self, f.name)) is not None}


def hub_name(name: str | None) -> str | None:
    """A model's name if it is one on the Hub by its form, and None if it is a folder here."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return None if name is None or Path(name).exists() else name


def inherited_license(name: str | None, revision: str | None = None) -> CardFacts:
    """The license in the card of a base model, where the card is in its folder or in the Hub's cache."""
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


def check_metadata(facts: CardFacts) -> None:
    if facts.license is not None and facts.license not in _LICENSES:
        near = did_you_mean(facts.license.lower().replace(" ", "-"), _LICENSES) or "."
        raise ValueError(
            f"license {facts.license!r} is not an identifier of the Hub's{near} "
            "They are at https://huggingface.co/docs/hub/repositories-licenses. For another: license: other, license_name: NAME."
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


# Of a run, a table and a file


def read_card_facts(model: str, output: str, card: str | None) -> CardFacts:
    facts = CardFacts(model_name=Path(output).resolve().name).updated(_run_facts(Path(model).resolve()))
    return facts if card is None else facts.updated(CardFacts.from_yaml(card))


def _run_facts(folder: Path) -> CardFacts:
    """What a run says of itself; of one of its checkpoints, without what is true of its last step alone."""
    if (folder / FACTS_FILE).exists():
        return CardFacts.load(folder / FACTS_FILE)
    if folder not in checkpoints(folder.parent) or not (folder.parent / FACTS_FILE).exists():
        return CardFacts()
    facts = CardFacts.load(folder.parent / FACTS_FILE)
    settings = {name: it for name, it in (facts.hyperparameters or {}).items() if name not in ("steps", "epochs")}
    with suppress(OSError, ValueError, KeyError):  # what the Trainer writes beside the weights, and some remove
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        settings |= {"steps": state["global_step"], "epochs": f"{state['epoch'] or 0:.4g}"}
    return dataclasses.replace(facts, hyperparameters=settings, dev_data=None, dev_rows=None, dev_metrics=None)
