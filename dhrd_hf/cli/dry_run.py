"""`dhrd train --dry-run`: labels, lengths, duplicates and leaks, looked at before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .parsing import unescaped, warn

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

    from ..data.labels import Labels
    from .arguments import TrainArguments

_MOST_NAMED = 5


def look_at_tables(
    own: TrainArguments,
    prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    train: datasets.Dataset,
    dev: datasets.Dataset | None,
    labels: Labels,
    say: Callable[[str], None],
) -> None:
    """Say what a run would be trained on, and warn of what is rarely meant."""
    import numpy as np

    from .. import DualHeadEncoder
    from ..data.prompts import render_rows
    from ..evaluation import doubtful_labels
    from ..evaluation.baselines import odd_rows

    texts = list(render_rows(prompt, train))
    others = [] if dev is None else list(render_rows(prompt, dev))
    say(f"rows        {len(train)} to train on, {len(others)} to evaluate on")
    say(f"labels      {labels}")
    encode = DualHeadEncoder(
        tokenizer,
        labels.label2id,
        prompt,
        own.max_length,
        own.max_input_length,
        suffix=None if own.suffix is None else unescaped(own.suffix),
        label_column=own.label_column,
        rationale_column=own.rationale_column,
        problem_type=labels.problem_type,
        reasoning_span=own.reasoning_span,
    )
    rows = encode.encode_dataset(train, say=lambda _: None)
    lengths = np.array(rows["input_length"][:])
    few, half, most = np.quantile(lengths, [0.05, 0.5, 0.95]).astype(int)
    say(f"length      inputs of {few} to {most} tokens (9 of 10), half below {half}, the longest {lengths.max()}")
    say(f"encoding    {encode.counts}")
    for line in encode.counts.advice:
        warn(line)
    cells = train[own.label_column][:]
    found = odd_rows(texts, cells, others)
    if labels.problem_type != "regression" and found["rare"]:
        said = ", ".join(f"{name} {count}" for name, count in list(found["rare"].items())[:_MOST_NAMED])
        warn(f"labels with fewer than 10 rows can neither be learned nor measured well: {said}")
    if found["repeated"]:
        warn(f"{found['repeated']} training rows repeat the text of another (upper and lower case alike)")
    if found["contradicting"]:
        warn(f"{len(found['contradicting'])} texts have several labels: rows {_named(found['contradicting'])}")
    if found["leaked"]:
        warn(
            f"{len(found['leaked'])} of the {len(others)} evaluation rows have the text of a training row, which makes the "
            f"evaluation too good: rows {_named([[it] for it in found['leaked']])}"
        )
    if labels.problem_type == "single_label_classification":
        ids = np.array(rows["labels"][:])
        doubts = doubtful_labels(texts, ids)
        say(
            f"doubtful    {len(doubts)} training rows have a label that looks wrong to a linear model{':' if doubts else ''}"
        )
        for it in doubts[:_MOST_NAMED]:
            say(f"            row {it['row']}: {_doubt(it, labels.names)}  {texts[it['row']][:80]!r}")
    say("\nNothing was trained. Leave --dry-run out to train.")


def _named(groups: Sequence[Sequence[int]]) -> str:
    shown = "; ".join(", ".join(map(str, rows[:_MOST_NAMED])) for rows in groups[:_MOST_NAMED])
    return shown + " ..." * (len(groups) > _MOST_NAMED)


def _doubt(it: Mapping[str, Any], names: Sequence[str]) -> str:
    return f"{names[it['label']]}, looks like {names[it['other']]} ({it['probability']:.0%})"
