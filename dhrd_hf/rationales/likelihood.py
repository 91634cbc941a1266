"""A score of rationales: how much more likely the gold label is to a student that has read one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ..adapters import merged
from ..auto import AutoModelForDualHeadClassification, load_config
from ..configuration_dhrd import DHRDConfig
from ..data.encoding import DualHeadEncoder
from ..data.prompts import DEFAULT_PROMPT, DEFAULT_SUFFIX
from ..device import put_on

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..modeling_dhrd import DHRDForDualHeadClassification

# As for prediction: a CPU gains nothing from more, an accelerator is left idle by less.
_CPU_BATCH_TOKENS, _ACCELERATOR_BATCH_TOKENS = 1024, 16384


class LikelihoodScore:
    """`log p(label | text, rationale) - log p(label | text)` under a student, in nats."""

    def __init__(
        self,
        model: DHRDForDualHeadClassification,
        tokenizer: PreTrainedTokenizerBase,
        label2id: Mapping[str, int],
        prompt: str = DEFAULT_PROMPT,
        max_length: int = 1024,
        *,
        suffix: str = DEFAULT_SUFFIX,
        label_column: str = "label",
        rationale_column: str = "rationale",
        problem_type: str = "single_label_classification",
        batch_tokens: int | None = None,
    ):
        if batch_tokens is not None and batch_tokens < 1:
            raise ValueError(f"batch_tokens={batch_tokens} must be 1 or greater")
        self.model = model.eval()
        self.encode = DualHeadEncoder(
            tokenizer,
            label2id,
            prompt,
            max_length,
            suffix=suffix,
            label_column=label_column,
            rationale_column=rationale_column,
            problem_type=problem_type,
        )
        # Any token will do: causal attention keeps what follows a row out of it.
        self._pad = tokenizer.pad_token_id or 0
        on_cpu = model.device.type == "cpu"
        by_default = _CPU_BATCH_TOKENS if on_cpu else _ACCELERATOR_BATCH_TOKENS
        self.batch_tokens = by_default if batch_tokens is None else batch_tokens

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        labels: Iterable[str],
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        prompt: str | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> LikelihoodScore:
        """Open the student: a causal LM, a dual-head checkpoint or a run directory."""
        from ..files import load_tokenizer

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
        model = AutoModelForDualHeadClassification.from_pretrained(name_or_path, dtype=dtype, **own)
        model = merged(model)
        known = getattr(config.get_text_config(), "max_position_embeddings", None) or 1024
        prompt = prompt or getattr(config, "prompt_template", None) or DEFAULT_PROMPT
        tokenizer = load_tokenizer(name_or_path)
        max_length = min(known, 1024) if max_length is None else max_length
        return cls(put_on(model, device), tokenizer, label2id, prompt, max_length, **kwargs)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        if not rows:
            return []
        why = self.encode.rationale_column
        after = self._encoded(rows)
        before = self._encoded([{**row, why: None} for row in rows])
        # The samples of a row share what they are compared with.
        distinct = list(dict.fromkeys([*after, *before]))
        found = dict(zip(distinct, self._log_likelihoods(distinct), strict=True))
        return [found[one] - found[other] for one, other in zip(after, before, strict=True)]

    def _encoded(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[int, ...], int]]:
        """The token ids of each row up to the label's last, and how many of them are the label's."""
        names = dict.fromkeys(name for row in rows for name in row)
        ids = self.encode({name: [row.get(name) for row in rows] for name in names})
        suffix, tokenize = self.encode.suffix, self.encode.continued
        labels = [self.encode.labels.text(label) for label in ids["labels"]]
        between = tokenize([suffix.between])[0]
        found = []
        for row, label in zip(ids["input_ids"], labels, strict=True):
            # The delimiter and the label are tokenised as one: the label begins where they part from the bare delimiter.
            answer = tokenize([suffix.between + label + suffix.after])[0]
            shared = next((n for n, (a, b) in enumerate(zip(answer, between, strict=False)) if a != b), len(between))
            end = len(row) - (self.encode.tokenizer.eos_token_id is not None)
            found.append((tuple(row[:end]), len(answer) - min(shared, len(answer) - 1)))
        return found

    @torch.inference_mode()
    def _log_likelihoods(self, rows: Sequence[tuple[tuple[int, ...], int]]) -> list[float]:
        order = sorted(range(len(rows)), key=lambda row: len(rows[row][0]), reverse=True)
        found = [0.0] * len(rows)
        while order:
            size = max(1, self.batch_tokens // len(rows[order[0]][0]))
            batch, order = order[:size], order[size:]
            ids = [torch.tensor(rows[row][0]) for row in batch]
            padded = pad_sequence(ids, True, self._pad)  # [B, L]
            device = self.model.device
            # Nothing before the padding can see it, so there is no mask; with one, a sliding window that holds nothing but
            # padding has no key left, and in some kernels that is NaN.
            outputs = self.model.model(input_ids=padded.to(device), use_cache=False)
            # Only what comes before a token of a label is given to the vocabulary.
            places = [
                (place, len(it) - back - 1)
                for place, (row, it) in enumerate(zip(batch, ids, strict=True))
                for back in range(rows[row][1], 0, -1)
            ]
            at, before = (torch.tensor(numbers) for numbers in zip(*places, strict=True))
            hidden = outputs.last_hidden_state[at.to(device), before.to(device)]  # [N, H]
            log_p = self.model.reasoning_logits(hidden, outputs).float().log_softmax(-1)
            targets = padded[at, before + 1].to(device)
            values = log_p.gather(-1, targets[:, None]).squeeze(-1).double().cpu()
            for place, value in zip(at.tolist(), values.tolist(), strict=True):
                found[batch[place]] += value
        return found
