"""What training would cut off rationales, counted by the encoder that would cut them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..data.label_names import is_missing, kind_of, label_names, sorted_names

if TYPE_CHECKING:
    from ..data.encoding import DualHeadEncoder

_BATCH = 1000  # rows whose tokens are in memory at a time


def truncation(
    encode: DualHeadEncoder,
    ids: Sequence[Any],
    texts: Sequence[str] | None,
    values: Sequence[Any],
    rationales: Sequence[str | None],
) -> dict[str, Any]:
    """How many rationales, and texts, a training run would cut to fit."""
    cut, inputs_cut, most = [], 0, 0
    for start in range(0, len(ids), _BATCH):
        batch = slice(start, start + _BATCH)
        said = [(it or "").strip() for it in rationales[batch]]
        inputs = texts[batch] if texts else [""] * len(said)
        for row, parts in enumerate(encode.parts(inputs, _answers(values[batch], encode), said), start):
            if parts.rationale_cut:
                cut.append(ids[row])
            inputs_cut += parts.input_cut
            most = max(most, parts.whole)
    return {
        "max_length": encode.max_length,
        "rows": len(cut),
        "texts_alone": inputs_cut,
        "ids": cut,
        "most_tokens": most,
    }


def training_encoder(
    values: Sequence[Any], tokenizer: Any, max_length: int | None = None, suffix: str | None = None
) -> DualHeadEncoder:
    """The encoder of a training run on rows of these labels."""
    from ..data.encoding import DualHeadEncoder

    known = [value for value in values if not is_missing(value)]
    kind = kind_of(known)
    found = ["label"] if kind == "regression" else sorted_names(name for value in known for name in label_names(value))
    names = found or [""]
    given = {name: it for name, it in (("max_length", max_length), ("suffix", suffix)) if it is not None}
    return DualHeadEncoder(tokenizer, {name: n for n, name in enumerate(names)}, problem_type=kind, **given)


def _answers(values: Sequence[Any], encode: DualHeadEncoder) -> list[str]:
    """Each row's label as it stands in the answer."""
    labels = encode.labels
    longest = max(labels.longest_texts(), key=len)
    if labels.problem_type == "multi_label_classification":
        return [longest if is_missing(it) else labels.text(labels.read(label_names(it))) for it in values]
    if labels.problem_type == "regression":
        return [longest if is_missing(it) else labels.text(float(it)) for it in values]
    return [longest if is_missing(it) else label_names(it)[0] for it in values]
