"""A chat model on this machine as the teacher, in batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .pacing import TeacherError
from .replies import Reply, Sampling, Unusable

_WAIT_FOR_MORE = 0.02  # seconds that a batch which is not full waits for further requests


class LocalTeacher:
    """A transformers chat model, on whatever device there is; requests that come together are one batch."""

    def __init__(self, name: str, sampling: Sampling | None = None, *, batch_size: int = 8, device: str | None = None):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be above 0")
        self.name = self.model = name
        self.sampling = sampling or Sampling()
        self.batch_size, self.device = batch_size, device
        self.concurrency = batch_size  # a batch is full when all that may run wait for it
        self._waiting: list[tuple[Sequence[Mapping[str, str]], int | None, asyncio.Future]] = []
        self._runner: asyncio.Task | None = None

    async def __aenter__(self) -> LocalTeacher:
        await asyncio.to_thread(self._load)
        return self

    async def __aexit__(self, *error: Any) -> None:
        if self._runner is not None:
            self._runner.cancel()

    async def ask(self, messages: Sequence[Mapping[str, str]], seed: int | None = None) -> Reply:
        """Ask for one reply."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, seed, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        reply = await future
        if reply.finish_reason == "length":
            raise Unusable(
                f"the reply was cut off after {reply.completion_tokens} tokens; --max-reply-tokens allows more",
                reply,
                "cut_off",
            )
        if not reply.text.strip():
            raise Unusable("the reply was empty", reply, "empty")
        return reply

    async def _run(self) -> None:
        while self._waiting:
            deadline = time.monotonic() + _WAIT_FOR_MORE
            while len(self._waiting) < self.batch_size and time.monotonic() < deadline:
                await asyncio.sleep(_WAIT_FOR_MORE / 4)
            batch, self._waiting = self._waiting[: self.batch_size], self._waiting[self.batch_size :]
            try:
                replies = await asyncio.to_thread(self._generate, [it[0] for it in batch], batch[0][1])
            # To whoever waits: an error that stays here would leave them waiting.
            except Exception as error:
                for *_, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (*_, future), reply in zip(batch, replies, strict=True):
                if not future.done():
                    future.set_result(reply)

    def _load(self) -> None:
        from transformers import AutoModelForCausalLM

        from ..device import put_on
        from ..files import load_tokenizer, without_its_code

        path = self.name
        if path == "smollm2":
            from ..embedded import smollm2_path

            path = str(smollm2_path())
        elif path.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir():
            raise TeacherError(f"--teacher {path}: there is no such folder")
        path = str(Path(path).expanduser()) if Path(path).expanduser().is_dir() else path
        self._tokenizer = load_tokenizer(path, padding_side="left")
        if self._tokenizer.chat_template is None:
            raise TeacherError(
                f"--teacher {self.name} has no chat template: name a model that is tuned to follow requests"
            )
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        with without_its_code(path):
            lm = AutoModelForCausalLM.from_pretrained(path, dtype="auto", trust_remote_code=False)
        self._model = lm.eval()
        put_on(self._model, self.device)

    def _generate(self, chats: list[Sequence[Mapping[str, str]]], seed: int | None) -> list[Reply]:
        import torch

        inputs = self._tokenizer(
            [self._render(chat) for chat in chats], return_tensors="pt", padding=True, add_special_tokens=False
        )
        inputs = inputs.to(self._model.device)
        sampling = self.sampling
        if seed is not None:
            torch.manual_seed(seed)
        draw = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if sampling.temperature > 0:
            draw = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p or 1.0, "top_k": 0}
        try:
            with torch.inference_mode():
                drawn = self._model.generate(
                    **inputs,
                    **draw,
                    max_new_tokens=sampling.max_reply_tokens or 1024,
                    pad_token_id=self._tokenizer.pad_token_id,
                )
        except torch.OutOfMemoryError as error:
            raise TeacherError(
                f"no memory for {len(chats)} rows at a time on {self._model.device}: lower --batch-size"
            ) from error
        width = inputs["input_ids"].shape[1]
        prompt_tokens = inputs["attention_mask"].sum(1).tolist()
        return [self._reply(ids[width:].tolist(), count) for ids, count in zip(drawn, prompt_tokens, strict=True)]

    def _render(self, chat: Sequence[Mapping[str, str]]) -> str:
        from jinja2 import TemplateError

        extra = self.sampling.extra_body.get("chat_template_kwargs", {})
        apply = self._tokenizer.apply_chat_template
        try:
            return apply(list(chat), tokenize=False, add_generation_prompt=True, **extra)
        except TemplateError:
            if chat[0]["role"] != "system" or len(chat) < 2:
                raise
        # Some templates have no place for a system prompt.
        first = {"role": "user", "content": f"{chat[0]['content']}\n\n{chat[1]['content']}"}
        return apply([first, *chat[2:]], tokenize=False, add_generation_prompt=True, **extra)

    def _reply(self, ids: list[int], prompt_tokens: int) -> Reply:
        ends = self._model.generation_config.eos_token_id
        ends = {*ends} if isinstance(ends, list) else {ends, self._tokenizer.eos_token_id}
        place = next((index for index, token in enumerate(ids) if token in ends), None)
        text = self._tokenizer.decode(ids[:place], skip_special_tokens=True)
        finish = "length" if place is None else "stop"
        return Reply(text, self.name, prompt_tokens, len(ids) if place is None else place + 1, finish)
