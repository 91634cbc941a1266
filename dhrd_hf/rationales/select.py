"""The best of several rationales of a row, by what a student makes of them."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ..adapters import merged
from ..auto import AutoModelForDualHeadClassification, load_config
from ..configuration_dhrd import DHRDConfig
from ..data.encoding import DualHeadEncoder
from ..data.joining import key_column
from ..data.label_names import is_missing, label_names, read_each
from ..data.prompts import rationale_text, render_rows
from ..opening import put_on
from .filter import Tally

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..modeling_dhrd import DHRDForDualHeadClassification

SCORE_COLUMN = "rationale_score"
_WINDOW = 512  # samples scored together
# As for prediction: a CPU gains nothing from more, an accelerator is left idle by less.
_CPU_BATCH_TOKENS, _ACCELERATOR_BATCH_TOKENS = 1024, 16384

Score = Callable[[Sequence[Mapping[str, Any]]], Sequence[float]]


def select_best(
    rows: Iterable[Mapping[str, Any]],
    score: Score,
    best_of: int | None = None,
    *,
    key: str | None = None,
    label_column: str = "label",
    rationale_column: str = "rationale",
    tally: Tally | None = None,
    progress: Callable[[int], Any] | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Keep, of several rationales of a row, the one with the highest score; of equal ones the first.

    The samples of a row are rows with one key, or a list in the rationale column.

    Example:

    ```python
    >>> from dhrd_hf.rationales.select import select_best
    >>> rows = [{"id": 1, "label": "wet", "rationale": why} for why in ("It is so.", "Rain is water.")]
    >>> best, fewer = select_best(rows, score=lambda rows: [len(row["rationale"]) for row in rows])
    >>> best
    [{'id': 1, 'label': 'wet', 'rationale': 'Rain is water.', 'rationale_score': 14.0}]

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): The rows; they are held in memory.
        score (`Callable`): Takes rows that have a rationale each and gives a number for each, more being better, such as
            [`~dhrd_hf.rationales.select.LikelihoodScore`].
        best_of (`int`, *optional*): Most samples of a row that are looked at, the first ones; by default all.
        key (`str`, *optional*): Column of the keys; by default the first of `id`, `key` and `idx`. Not needed where
            the rationales are lists.
        label_column (`str`, *optional*, defaults to `"label"`), rationale_column (`str`, *optional*, defaults to
            `"rationale"`): The columns.
        tally ([`~dhrd_hf.rationales.filter.Tally`], *optional*): Counts the samples that come in and go.
        progress (`Callable[[int], Any]`, *optional*): Is told how many samples were scored.

    Returns:
        `tuple[list[dict[str, Any]], int]`: a row for each key, in the order of their first samples, with a column
        `rationale_score`, None where there was nothing to choose from; and how many had fewer than `best_of` samples.

    Raises:
        ValueError: if no row has `best_of` samples, there is no column of keys, the samples of a row differ in their
            labels, or the score gives something else than a number for each.
    """
    if best_of is not None and best_of < 1:
        raise ValueError(f"best_of={best_of} must be 1 or greater")
    tally = Tally() if tally is None else tally
    groups = _samples(rows, key, label_column, rationale_column)
    kept = [[row for row in group if rationale_text(row[rationale_column]) is not None] for group in groups]
    sizes = list(map(len, kept))
    fewer = sum(size < (best_of or 0) for size in sizes)
    if best_of is not None and groups and fewer == len(groups):
        raise ValueError(
            f"the best of {best_of} can't be chosen: all {len(groups)} rows have fewer samples, {max(sizes)} at most"
        )
    flat = [row for samples in kept for row in samples[:best_of]]
    scores: list[float] = []
    for start in range(0, len(flat), _WINDOW):
        part = flat[start : start + _WINDOW]
        found = [float(value) for value in score(part)]
        if len(found) != len(part) or any(map(math.isnan, found)):
            raise ValueError(f"the score gave {found[:5]}... for {len(part)} samples: expected a number for each")
        scores += found
        if progress is not None:
            progress(len(part))
    chosen, left = [], iter(scores)
    for group, samples in zip(groups, kept, strict=True):
        scored = [(next(left), sample) for sample in samples[:best_of]]
        most, best = max(scored, key=lambda it: it[0], default=(None, group[0] | {rationale_column: None}))
        for _, sample in scored or [(None, best)]:
            said, stays = sample[rationale_column], sample is best
            tally.add(group[0].get(label_column), said, said, () if stays else ["another is better"], stays)
        chosen.append({**best, SCORE_COLUMN: most})
    return chosen, fewer


def _samples(
    rows: Iterable[Mapping[str, Any]], key: str | None, label_column: str, rationale_column: str
) -> list[list[dict[str, Any]]]:
    """The samples of each row, one rationale each; a row without one is a sample whose rationale is None."""
    table = [dict(row) for row in rows]
    for row in table:
        if rationale_column not in row:
            raise ValueError(f"a row has no column {rationale_column!r}; it has {', '.join(map(repr, row))}")
    name = key or key_column(dict.fromkeys(column for row in table for column in row))
    lists = any(isinstance(row[rationale_column], (list, tuple)) for row in table)
    if name is None and not lists:
        raise ValueError(
            "there is no column of keys (id, key or idx) that tells which samples belong to one row: name it"
        )
    groups: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(table):
        if name is not None and row.get(name) is None:
            raise ValueError(f"row {number} has no {name!r}, so nothing tells which samples it belongs to")
        group = groups.setdefault(str(number if name is None else row[name]), [])
        if group and group[0].get(label_column) != row.get(label_column):
            raise ValueError(
                f"the samples of {name} {row[name]!r} have several labels, such as {group[0].get(label_column)!r} and "
                f"{row.get(label_column)!r}: is {name!r} the column of their keys?"
            )
        said = row[rationale_column]
        samples = said if isinstance(said, (list, tuple)) else [said]
        group.extend({**row, rationale_column: sample} for sample in (samples or [None]))
    return list(groups.values())


class LikelihoodScore:
    """`log p(label | text, rationale) - log p(label | text)` under a student, in nats."""

    def __init__(
        self,
        model: DHRDForDualHeadClassification,
        tokenizer: PreTrainedTokenizerBase,
        label2id: Mapping[str, int],
        *,
        batch_tokens: int | None = None,
        named: bool = False,
        **encoding: Any,
    ):
        if batch_tokens is not None and batch_tokens < 1:
            raise ValueError(f"batch_tokens={batch_tokens} must be 1 or greater")
        self.model = model.eval()
        encoding.setdefault("problem_type", "single_label_classification")
        # A copy: what an encoder does is remembered with its tokenizer, and a run that trains with that is no matter of ours.
        self.encode = DualHeadEncoder(copy.copy(tokenizer), label2id, **encoding)
        self.named = named  # labels that are numbers are names, and not ids
        # Any token will do: causal attention keeps what follows a row out of it.
        self._pad = tokenizer.pad_token_id or 0
        usual = _CPU_BATCH_TOKENS if model.device.type == "cpu" else _ACCELERATOR_BATCH_TOKENS
        self.batch_tokens = batch_tokens or usual

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        labels: Iterable[str],
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        **options: Any,
    ) -> LikelihoodScore:
        """Open the student: a causal LM, a dual-head checkpoint or a run directory, asked in the form that it was trained in."""
        from ..opening import load_tokenizer

        config, names = load_config(name_or_path), list(dict.fromkeys(labels))
        trained = isinstance(config, DHRDConfig)
        label2id = config.label2id if trained else {name: number for number, name in enumerate(names)}
        unknown = [name for name in names if name not in label2id]
        if unknown:
            raise ValueError(
                f"the rows have labels that {name_or_path} does not know: {', '.join(map(repr, unknown[:5]))}; it has "
                f"{', '.join(map(repr, label2id))}"
            )
        # The classification head is not asked: a causal LM gets one that stays as it was drawn.
        own = {} if trained else {"num_labels": max(2, len(names))}
        model = merged(AutoModelForDualHeadClassification.from_pretrained(name_or_path, dtype=dtype, **own))
        known = getattr(config.get_text_config(), "max_position_embeddings", None) or 1024
        form = {name: getattr(config, f"{name}_template", None) for name in ("prompt", "suffix")}
        given = {name: value for name, value in options.items() if value is not None}
        tokenizer = load_tokenizer(name_or_path)
        return cls(put_on(model, device), tokenizer, label2id, **{"max_length": min(known, 1024), **form, **given})

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        if not rows:
            return []
        encode = self.encode
        texts = list(render_rows(encode.prompt, rows))
        labels = list(map(encode.labels.text, read_each(encode.labels.read, list(map(self._label, rows)))))
        said = [rationale_text(row.get(encode.rationale_column)) or "" for row in rows]
        after, before = (list(self._encoded(texts, labels, its)) for its in (said, [""] * len(rows)))
        # The samples of a row share what they are compared with.
        distinct = list(dict.fromkeys([*after, *before]))
        found = dict(zip(distinct, self._log_likelihoods(distinct), strict=True))
        return [found[one] - found[other] for one, other in zip(after, before, strict=True)]

    def _label(self, row: Mapping[str, Any]) -> Any:
        label = row.get(self.encode.label_column)
        names, several = label_names(label), self.encode.labels.problem_type == "multi_label_classification"
        return label if not self.named or is_missing(label) else names if several else names[0]

    def _encoded(self, *columns: list[str]) -> Iterator[tuple[tuple[int, ...], int]]:
        """The token ids of each row up to the label's last, and how many of them are the label's."""
        [between] = self.encode.continued([self.encode.suffix.between])
        for row in self.encode.parts(*columns):
            # The delimiter and the label are tokenised as one: the label begins where they part from the bare delimiter.
            pairs = enumerate(zip(row.answer, between, strict=False))
            shared = next((n for n, (one, other) in pairs if one != other), len(between))
            yield (*row.x, *row.reasoning, *row.answer), len(row.answer) - min(shared, len(row.answer) - 1)

    @torch.inference_mode()
    def _log_likelihoods(self, rows: Sequence[tuple[tuple[int, ...], int]]) -> list[float]:
        order = sorted(range(len(rows)), key=lambda row: len(rows[row][0]), reverse=True)
        found, device = [0.0] * len(rows), self.model.device
        while order:
            size = max(1, self.batch_tokens // len(rows[order[0]][0]))
            batch, order = order[:size], order[size:]
            padded = pad_sequence([torch.tensor(rows[row][0]) for row in batch], True, self._pad)  # [B, L]
            # Nothing before the padding can see it, so there is no mask; with one, a sliding window that holds nothing but
            # padding has no key left, and in some kernels that is NaN.
            outputs = self.model.model(input_ids=padded.to(device), use_cache=False)
            # Only what comes before a token of a label is given to the vocabulary.
            spans = [(len(ids) - of_label, len(ids)) for ids, of_label in map(rows.__getitem__, batch)]
            places = [(place, token) for place, span in enumerate(spans) for token in range(*span)]
            at, token = (torch.tensor(numbers) for numbers in zip(*places, strict=True))
            hidden = outputs.last_hidden_state[at.to(device), token.to(device) - 1]  # [N, H]
            log_p = self.model.reasoning_logits(hidden, outputs).float().log_softmax(-1)
            values = log_p.gather(-1, padded[at, token].to(device)[:, None]).squeeze(-1).double().cpu()
            for place, value in zip(at.tolist(), values.tolist(), strict=True):
                found[batch[place]] += value
        return found
