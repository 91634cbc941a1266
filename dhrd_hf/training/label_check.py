"""Whether the labels of an encoded data set are the model's, before anything is trained or evaluated on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..losses import IGNORE_INDEX

if TYPE_CHECKING:
    from ..configuration_dhrd import DHRDConfig


def check_labels(dataset: Any, config: DHRDConfig, training: bool) -> None:
    """Raise on class ids that a model does not have, and on a training set with a single one."""
    features = getattr(dataset, "features", None) or {}
    dtype = getattr(features.get("labels"), "dtype", None)  # None of a list
    if config.num_labels == 1 or config.problem_type not in (None, "single_label_classification"):
        return
    if dtype is None or dtype.startswith("float") or not hasattr(dataset, "unique"):
        return
    what = "training" if training else "evaluation"
    if not dtype.startswith(("int", "uint")):
        raise ValueError(
            f"The {what} set's column 'labels' holds {dtype}, and the model takes class ids from 0 to "
            f"{config.num_labels - 1}: encode it with DualHeadEncoder(tokenizer, label2id=model.config.label2id)."
        )
    found = [label for label in dataset.unique("labels") if label != IGNORE_INDEX]
    wrong = [label for label in found if label is None or not 0 <= label < config.num_labels]
    if wrong:
        raise ValueError(
            f"The {what} set has label id {wrong[0]}; the model has {config.num_labels} labels: {config.id2label}. "
            "Encode it with label2id=model.config.label2id."
        )
    if training and len(found) < 2 and len(dataset) and config.beta > 0:
        have = f"have the label {config.id2label[found[0]]!r}" if found else "have no label (-100)"
        raise ValueError(
            f"All {len(dataset)} training rows {have}: there is nothing to learn. Check the label column, or sample rows "
            "of every class."
        )
