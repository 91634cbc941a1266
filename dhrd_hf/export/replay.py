"""The replay: golden texts through a tokenizer and a classifier, held against the ids and logits of a contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..data.collator import padded_inputs
from ..data.inputs import known_limit, positions_of, tokenize_inputs
from ..modeling_dhrd import logits_tolerance
from ..opening import evaluating
from .contract import Contract, Golden, written_ids
from .golden import OWN_TEXT, Pieces, golden_texts, text_of

# Longer inputs are compared by their ids alone: on a CPU their logits would take minutes.
_LONGEST_RUN = 2048
_SHORT, _BATCH_ROWS, _BATCH_TOKENS = 64, 16, 4096
# An export is asked to be as near as it was when it was written, with room for another processor's rounding.
_ROOM = 1.5


@dataclass(frozen=True)
class Replay:
    """What golden texts, or the rows of a table, gave, beside what they should have.

    Example:

    ```python
    >>> from dhrd_hf.export.replay import Replay
    >>> Replay(texts=34, answered=33, largest_difference=2e-7, flips=0, allowed=1e-4).faults()
    []

    ```

    Args:
        texts (`int`): How many there are.
        answered (`int`): How many of them have logits to compare.
        largest_difference (`float`): Of a logit on a folder, of a probability on a server (of a regression's number on both);
            infinity where a number was not finite.
        flips (`int`): How many have another label.
        allowed (`float`): The largest difference that passes.
        allowed_flips (`int`, *optional*, defaults to 0): The number of flips that passes.
        unit (`str`, *optional*, defaults to `"logit"`): What the difference is one of.
        measured (`dict[str, float]`, *optional*): How far padded batches were from the golden logits, as a contract keeps it.
        wrong_ids (`list[str]`, *optional*): The texts that became other ids, and where.
        farthest (`list[str]`, *optional*): The texts that differ by more than is allowed, the farthest first.
        remarks (`list[str]`, *optional*): What else differs, and what may be the reason.
    """

    texts: int
    answered: int
    largest_difference: float
    flips: int
    allowed: float
    allowed_flips: int = 0
    unit: str = "logit"
    measured: dict[str, float] = field(default_factory=dict)
    wrong_ids: list[str] = field(default_factory=list)
    farthest: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def faults(self, max_flips: int | None = None) -> list[str]:
        """What is past the limits, a sentence each; none where all is as promised."""
        max_flips = self.allowed_flips if max_flips is None else max_flips
        found = []
        if self.wrong_ids:
            found.append(
                f"{len(self.wrong_ids)} of {self.texts} texts become other token ids: {_some(self.wrong_ids)}"
            )
        if not self.largest_difference <= self.allowed:
            farthest = f": {_some(self.farthest)}" if self.farthest else ""
            found.append(
                f"a {self.unit} differs by {self.largest_difference:.3g}, {self.allowed:.3g} is allowed{farthest}"
            )
        if self.flips > max_flips:
            found.append(f"{self.flips} of {self.answered} labels flip, {max_flips} may")
        return found + self.remarks


def _some(told: Sequence[str], most: int = 3) -> str:
    return "; ".join(told[:most]) + (f"; and {len(told) - most} more" if len(told) > most else "")


@torch.no_grad()
def class_logits(model: nn.Module, rows: Sequence[Sequence[int]], pad: int, side: str = "right") -> Tensor:
    """Class logits `[N, K]` of rows of ids in float32 on the CPU, in padded batches of mixed lengths."""
    found: dict[int, Tensor] = {}
    device = getattr(model, "device", torch.device("cpu"))
    with evaluating(model):
        for batch in _batches([len(row) for row in rows]):
            padded = padded_inputs([rows[place] for place in batch], pad, side)
            logits = model(**{name: it.to(device) for name, it in padded.items()}).logits
            found |= dict(zip(batch, logits.float().cpu(), strict=True))
    return torch.stack([found[place] for place in range(len(rows))])


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Short rows as they come, longer ones by length, in batches that a CPU runs in seconds."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda it: lengths[it] if lengths[it] > _SHORT else 0):
        longest = max([lengths[place], *(lengths[it] for it in batch)])
        if len(batch) == _BATCH_ROWS or (len(batch) > 1 and longest * (len(batch) + 1) > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def golden_of(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
    temperature: float = 1.0,
    own: Sequence[str] = (),
) -> list[Golden]:
    """The golden texts, and one's own, with the ids of the tokenizer and the logits of the model (over the temperature)."""
    config = model.config
    texts: list[tuple[str, Pieces]] = [
        *golden_texts(tokenizer, limit, getattr(config, "prompt_template", None)),
        *((f"{OWN_TEXT}{number}", text) for number, text in enumerate(own, 1)),
    ]
    rows, cut = tokenize_inputs(tokenizer, [text_of(text) for _, text in texts], limit)
    pad = tokenizer.pad_token_id
    longest = min(_LONGEST_RUN, positions_of(config) or _LONGEST_RUN)

    def logits(ids: Sequence[int], text: Pieces) -> list[float] | None:
        """None: nothing answers a text that is empty, or whose tokens the model does not know."""
        if not text or len(ids) > longest or all(token == pad for token in ids) or not _known(ids, config):
            return None
        return (class_logits(model, [ids], pad) / temperature)[0].tolist()

    found = [
        Golden(about, text, written_ids(rows[place]), place in cut, logits(rows[place], text))
        for place, (about, text) in enumerate(texts)
    ]
    wrong = [it.about for it in found if it.logits and not all(map(math.isfinite, it.logits))]
    if wrong:
        raise ValueError(f"The model's logits are not finite: {_some(wrong)}. There is nothing to export.")
    return found


def _known(ids: Sequence[int], config: PreTrainedConfig) -> bool:
    return max(ids, default=0) < config.get_text_config().vocab_size


def replay(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    contract: Contract,
    tolerance: float | None = None,
    beside: Callable[..., Tensor] | None = None,
) -> Replay:
    """Retokenise the golden texts as a stranger does, run them in padded batches and a few alone, and compare.

    Batches are compared with what `beside` gives for the same ones, by default with the golden logits, which are of each text
    alone: some families' sparse attention sees padding.
    """
    cut = {"truncation": True} if known_limit(tokenizer) is not None else {}
    rows = tokenizer(contract.texts, verbose=False, **cut)["input_ids"]
    wrong = [
        f"{golden.about} ({golden.difference(ids)})"
        for golden, ids in zip(contract.golden, rows, strict=True)
        if not golden.same_ids(ids)
    ]
    run = [
        place
        for place, it in enumerate(contract.golden)
        if it.logits is not None and rows[place] and _known(rows[place], model.config)
    ]
    if not run:
        return Replay(len(rows), 0, float("inf"), 0, 0.0, wrong_ids=wrong)
    golden = torch.tensor([contract.golden[place].logits for place in run])
    pad = contract.pad_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    batch = [rows[place] for place in run], pad, tokenizer.padding_side
    found = class_logits(model, *batch)
    off = row_differences(found, golden if beside is None else beside(*batch))
    # Some alone: nothing is padded, and nothing but the tokenizer stands between them and their logits.
    alone = list(range(0, len(run), 8))
    singly = torch.cat([class_logits(model, [rows[run[it]]], pad) for it in alone])
    off[alone] = torch.maximum(off[alone], row_differences(singly, golden[alone]))
    allowed = allowed_difference(contract, "logits") if tolerance is None else tolerance
    shown, should = contract.probabilities(found), contract.probabilities(golden)
    names = [contract.golden[place].about for place in run]
    told = beside_each_other(contract, shown, should, off, names, allowed)
    differences = {"logits": row_differences(found, golden), "probabilities": row_differences(shown, should)}
    measured = {name: it.max().item() for name, it in differences.items()} | {"flips": told.flips}
    return replace(told, texts=len(rows), measured=measured, wrong_ids=wrong)


def beside_each_other(
    contract: Contract, found: Tensor, should: Tensor, off: Tensor, names: Sequence[str], allowed: float, **more: Any
) -> Replay:
    """Probabilities beside those that they should be; `off` is how far each row differs."""
    decided = contract.decisions(found)
    flipped = (
        torch.zeros(0) if decided is None else (decided != contract.decisions(should)).reshape(len(off), -1).any(1)
    )
    order = off.argsort(descending=True).tolist()
    return Replay(
        texts=len(off),
        answered=len(off),
        largest_difference=off.max().item(),
        flips=int(flipped.sum()),
        allowed=allowed,
        allowed_flips=int(contract.measured.get("flips", 0)),
        farthest=[f"{names[place]} by {off[place].item():.3g}" for place in order if not off[place] <= allowed],
        **more,
    )


def row_differences(found: Tensor, expected: Tensor) -> Tensor:
    """The largest difference of each row `[N]`; infinity where a number is not finite."""
    return (found - expected).abs().amax(-1).nan_to_num(nan=float("inf"))


def allowed_difference(contract: Contract, unit: str) -> float:
    """How far logits, or probabilities, may be from the golden ones where nobody said."""
    tolerance = logits_tolerance(getattr(torch, contract.dtype, torch.int8))
    if unit == "probabilities":
        # What serves a classifier mostly computes in 16 bits.
        return max(1e-2, _ROOM * contract.measured.get("probabilities", 0.0))
    largest = max((abs(it) for golden in contract.golden for it in golden.logits or ()), default=0.0)
    return max(tolerance * max(1.0, largest), _ROOM * contract.measured.get("logits", 0.0))
