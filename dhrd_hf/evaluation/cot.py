"""Answers by decoding: the reasoning head writes its reasons out, and the label is read from what it wrote."""

from __future__ import annotations

import re
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..data.collator import padded_inputs
from ..data.inputs import continued_ids, input_limit, positions_of, tokenize_inputs
from ..data.prompts import DEFAULT_SUFFIX, Suffix
from ..modeling_dhrd import DHRDForDualHeadClassification
from ..opening import evaluating
from .prediction import agree_on_pad_token

logger = logging.get_logger(__name__)

# Appendix E.6 of the paper.
TEMPERATURE, TOP_P, MAX_NEW_TOKENS = 0.1, 0.7, 500


@dataclass(frozen=True, slots=True)
class CoTAnswer:
    r"""What the reasoning head answered to one text.

    Example:

    ```python
    >>> from dhrd_hf.evaluation.cot import CoTAnswer
    >>> CoTAnswer("It rains.\nFinal Answer:\nyes", "yes", 12).label
    'yes'

    ```

    Args:
        text (`str`): What was decoded, without special tokens; empty where there was nothing to go on from.
        label (`str`, *optional*): The label that it names; None where it names none.
        new_tokens (`int`): Number of decoded tokens, the end-of-sequence token among them.
    """

    text: str
    label: str | None
    new_tokens: int


def decode_answers(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str | None],
    labels: Sequence[str],
    batch_size: int = 8,
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = TEMPERATURE,
    top_p: float = TOP_P,
    seed: int = 0,
    suffix: str | None = None,
    rationale_after_label: bool | None = None,
) -> list[CoTAnswer]:
    r"""Classify texts the slow way: sample a rationale and a label with the reasoning head, and read the label.

    A text has the token ids that it has for the classification head, and those of the suffix's first delimiter
    (`"\nReasoning:\n"`) are put behind it: the paper does not say whether the model has to write that one itself. A model
    that was trained on the label before the rationale writes both delimiters itself. Rows of nearly one length share a
    batch, padded on the left; a row ends with the end-of-sequence token. What the model's generation config says, such as a
    repetition penalty, does not count. How many answers name no label, had no room or were not ended is logged.

    The same seed gives the same answers in whatever order the texts come. They are drawn a batch at a time, so another
    `batch_size`, or other texts beside them, draws others.

    Example:

    ```python
    >>> from dhrd_hf.evaluation import load_classifier
    >>> from dhrd_hf.evaluation.cot import decode_answers
    >>> model, tokenizer = load_classifier("runs/cot")
    >>> decode_answers(model, tokenizer, ["It rains. So: It is wet."], ["entailed", "refuted"])
    [CoTAnswer(text='Rain is water.\nFinal Answer:\nentailed', label='entailed', new_tokens=14)]

    ```

    Args:
        model ([`DHRDForDualHeadClassification`], a `PeftModel` around one, or a causal LM): Who answers.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer. Without a pad token its eos token becomes one.
        texts (`Sequence[str]`): Inputs, with the prompt around them if the model was trained with one. One that is empty
            or None gets no answer.
        labels (`Sequence[str]`): The labels' names, as they were trained on.
        batch_size (`int`, *optional*, defaults to 8): Rows decoded together.
        max_new_tokens (`int`, *optional*, defaults to 500): Most tokens of an answer; fewer where the model has no more
            positions.
        temperature (`float`, *optional*, defaults to 0.1): What the logits are divided by.
        top_p (`float`, *optional*, defaults to 0.7): Draw from the fewest tokens that have this probability together.
        seed (`int`, *optional*, defaults to 0): Of the draws; torch's own generator is left as it was.
        suffix (`str`, *optional*), rationale_after_label (`bool`, *optional*): As for [`DualHeadEncoder`]; by default what
            the model's config says that it was trained with, else the paper's.

    Returns:
        `list[CoTAnswer]`: one for each text, in their order.

    Raises:
        ValueError: if the model has no reasoning head, there are no labels, model and tokenizer pad with different
            tokens, or a number is out of range.

    Source: Zhou et al. 2025, arXiv 2509.21487, appendix E.6.
    """
    if batch_size < 1 or not labels:
        raise ValueError(f"batch_size={batch_size} with {len(labels)} labels: both must be 1 or greater.")
    decoder = CoTDecoder(model, tokenizer, max_new_tokens, temperature, top_p, seed, suffix, rationale_after_label)
    prompts, cut = decoder.prompts(texts)
    order = sorted(
        (index for index, ids in enumerate(prompts) if ids), key=lambda index: (len(prompts[index]), texts[index])
    )
    answers = [CoTAnswer("", None, 0)] * len(texts)
    unended = 0
    with tqdm(
        total=len(texts), initial=len(texts) - len(order), unit=" rows", file=sys.stderr, disable=None
    ) as progress:
        # The longest first: a batch that does not fit is known at once.
        for end in range(len(order), 0, -batch_size):
            batch = order[max(end - batch_size, 0) : end]
            for index, ids in zip(batch, decoder.decode([prompts[index] for index in batch]), strict=True):
                unended += ids[-1:] != [tokenizer.eos_token_id]
                answers[index] = decoder.answer(ids, labels)
            progress.update(len(batch))
    unread = sum(answer.label is None for answer in answers)
    if unread or unended or cut:
        logger.warning(
            f"{len(answers)} answers decoded: {unread} name none of the labels, {len(texts) - len(order)} of them of empty "
            f"texts; {unended} not ended within {max_new_tokens} new tokens or the model's positions; {cut} inputs cut."
        )
    return answers


def read_answer(
    text: str, labels: Sequence[str], suffix: str = DEFAULT_SUFFIX, rationale_after_label: bool = False
) -> str | None:
    r"""The label that a decoded text names behind the second delimiter; never one that it names elsewhere."""
    parts = Suffix.parse(suffix)
    # An empty rationale leaves the two delimiters side by side.
    _, found, rest = (text if rationale_after_label else parts.before + text).partition(parts.between)
    if not found:
        words = r"\s*".join(map(re.escape, parts.between.split()))
        start = r"^\s*" if parts.between.startswith("\n") else ""
        match = re.search(start + words, text, re.IGNORECASE | re.MULTILINE) if words else None
        if match is None:
            return None
        rest = text[match.end() :]
    if rationale_after_label and parts.before:
        rest = rest.partition(parts.after + parts.before)[0]
    whole = rest.strip()
    candidates = [it.removesuffix(parts.after.strip()).strip() for it in (whole, whole.partition("\n")[0])]
    for candidate in candidates:
        if candidate in labels:
            return candidate
    for candidate in candidates:
        # Of a label that is nothing but punctuation no more is left than of an empty answer.
        near = [label for label in labels if _folded(candidate) and _folded(label) == _folded(candidate)]
        if len(near) == 1:
            return near[0]
    return None


def _folded(text: str) -> str:
    return text.strip().rstrip(string.punctuation + string.whitespace).casefold()


class CoTDecoder:
    """The three steps of [`decode_answers`], apart."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int = MAX_NEW_TOKENS,
        temperature: float = TEMPERATURE,
        top_p: float = TOP_P,
        seed: int = 0,
        suffix: str | None = None,
        rationale_after_label: bool | None = None,
    ):
        if max_new_tokens < 1 or not temperature > 0 or not 0 < top_p <= 1:
            raise ValueError(
                f"max_new_tokens={max_new_tokens} must be 1 or greater, temperature={temperature} above 0, and "
                f"top_p={top_p} above 0 and at most 1."
            )
        self.model = _who_reasons(model)
        agree_on_pad_token(self.model.config, tokenizer)
        self.tokenizer = tokenizer
        config = self.model.config  # a plain causal LM's says nothing of it
        self.suffix = (getattr(config, "suffix_template", None) or DEFAULT_SUFFIX) if suffix is None else suffix
        self.label_first = rationale_after_label
        if rationale_after_label is None:
            self.label_first = getattr(config, "rationale_after_label", False)
        # Token ids of the first delimiter, as they follow x in training; <ANS> is tokenised with its label there.
        before = "" if self.label_first else Suffix.parse(self.suffix).before
        [self.delimiter] = continued_ids(tokenizer, [before])
        self.max_new_tokens = max_new_tokens
        self.seed = seed
        self.options = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0, "use_cache": True}
        self.options |= {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}

    def prompts(self, texts: Sequence[str | None]) -> tuple[list[list[int]], int]:
        given = [text or "" for text in texts]
        if not given:
            return [], 0
        rows, cut = tokenize_inputs(self.tokenizer, given, input_limit(self.model.config, self.tokenizer))
        return [
            ids + self.delimiter if text.strip() and ids else [] for text, ids in zip(given, rows, strict=True)
        ], len(cut)

    @torch.inference_mode()
    def decode(self, prompts: Sequence[list[int]], max_new_tokens: int | None = None) -> list[list[int]]:
        """New token ids of a batch of rows, up to the end-of-sequence token."""
        longest = max(map(len, prompts))
        positions = positions_of(self.model.config)
        room = max_new_tokens or self.max_new_tokens
        room = room if positions is None else min(room, positions - longest)
        if room < 1:
            return [[] for _ in prompts]
        inputs = padded_inputs(prompts, self.tokenizer.pad_token_id, "left")
        own = self.model.generation_config
        # `generate` takes from the model's what a call leaves open: a repetition penalty would be one.
        self.model.generation_config = GenerationConfig(max_new_tokens=room, **self.options)
        try:
            with evaluating(self.model), torch.random.fork_rng():
                torch.manual_seed(self.seed)
                found = self.model.generate(
                    **{name: it.to(self.model.device) for name, it in inputs.items()},
                    generation_config=self.model.generation_config,
                )
        finally:
            self.model.generation_config = own
        end, rows = self.tokenizer.eos_token_id, found[:, longest:].tolist()
        return [ids[: ids.index(end) + 1] if end in ids else ids for ids in rows]

    def answer(self, ids: Sequence[int], labels: Sequence[str]) -> CoTAnswer:
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return CoTAnswer(text, read_answer(text, labels, self.suffix, self.label_first), len(ids))


def _who_reasons(model: nn.Module) -> PreTrainedModel:
    """The model whose `generate` writes: the dual-head one inside any wrapper, else a causal LM."""
    dual_head = next((it for it in model.modules() if isinstance(it, DHRDForDualHeadClassification)), None)
    if dual_head is not None and dual_head.lm_head is not None:
        return dual_head
    if dual_head is None and getattr(model, "can_generate", bool)():
        return model
    raise ValueError(
        f"This {type(model).__name__} is a classifier without a reasoning head, which can't decode an answer: name the "
        "run directory of `dhrd train` that it was exported from."
    )
