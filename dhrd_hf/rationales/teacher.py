"""Teachers: who is asked for a rationale, and how fast. An endpoint of the OpenAI protocol, or a chat model on this machine."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

PROVIDERS = "inference-providers:"
# Waits before the second, third, ... try: 0.5 s, 1 s, 2 s, ..., of which a random half is left out.
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
LONGEST_ASKED = 300.0  # seconds that an endpoint's Retry-After is followed for; then it is asked again
TRIES = 8  # after which a row is left for the next run: about a minute, if nothing tells how long to wait
_TELL = 3.0  # seconds of a wait that a person should hear of
_POLL = 0.01  # how often a request that has to wait looks whether it may go
_WAIT_FOR_MORE = 0.02  # seconds that a batch which is not full waits for further requests
_BYTES_PER_TOKEN = 4  # of English
_HOST = re.compile(r"(?:[\w-]+\.)*[\w-]+:\d{1,5}(?:/|$)")
_SECRET_NAME = re.compile(
    r"(?i)(?<![a-z])(?:(?:api)?key|token|secret|passw(?:or)?d|credentials?|auth|authorization|bearer|cookie)(?![a-z])"
)
_SECRET = re.compile(r"(?:sk|hf|gsk|pk)[-_]\w{8}|Bearer ")


class TeacherError(ValueError):
    """No request to this teacher can succeed: a wrong key, a model that it doesn't have, nobody there."""


class NoAnswer(Exception):
    """A request brought no answer that can be used, and another try may; `paid` where it may cost something all the same."""

    def __init__(self, reason: str, retry_after: float | None = None, crowded: bool = False, paid: bool = False):
        super().__init__(reason)
        self.retry_after, self.crowded, self.paid = retry_after, crowded, paid


class Unusable(Exception):
    """A reply that is empty, cut off or a refusal, or a request that is refused."""

    def __init__(self, reason: str, reply: Reply | None = None, check: str = "refused"):
        super().__init__(reason)
        self.reply, self.check = reply, check


@dataclass(frozen=True)
class Reply:
    """What a teacher said, and what it took; `estimated` where the endpoint does not tell."""

    text: str
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"
    estimated: bool = False

    def judged(self, thoughts: bool = False, refusal: str = "") -> Reply:
        """The reply, where it is whole and says something."""
        empty = not self.text.strip()
        if refusal and empty:
            raise Unusable(f"the teacher refuses: {refusal[:200]}", self, "refusal")
        if self.finish_reason == "content_filter":
            raise Unusable("the endpoint's content filter stopped the reply", self, "refusal")
        if self.finish_reason == "length":
            cut = f"the reply was cut off after {self.completion_tokens} tokens; --max-reply-tokens allows more"
            raise Unusable(cut, self, "cut_off")
        if empty:
            why = "all of it is thoughts; --max-reply-tokens leaves room for more, and --extra-body can turn them off"
            raise Unusable(f"the reply was empty{': ' + why if thoughts else ''}", self, "empty")
        return self


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, for whom a tokenizer is not at hand."""
    return -(-len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)


def tokens_of(usage: Any, prompt_tokens: int, completion_tokens: int) -> tuple[int, int, bool]:
    """Tokens of the prompt and of the reply, and whether one of them had to be taken from what its length suggests."""
    told = usage if isinstance(usage, Mapping) else {}
    details = told.get("completion_tokens_details")
    thoughts = _count(details, "reasoning_tokens") if isinstance(details, Mapping) else 0
    prompt, completion = (
        _count(told, f"{it}_tokens", f"{its}_tokens") for it, its in (("prompt", "input"), ("completion", "output"))
    )
    total = _count(told, "total_tokens")
    if prompt and not completion:
        completion = max(0, total - prompt)
    elif completion and not prompt:
        prompt = max(0, total - completion)
    if completion and thoughts > completion:  # they are a part of the reply, and are paid
        completion += thoughts
    estimated = not prompt or (not completion and completion_tokens > 0)
    prompt, completion = prompt or prompt_tokens, completion or completion_tokens
    return prompt, max(completion, total - prompt), estimated


def _count(told: Mapping[str, Any], *names: str) -> int:
    """The first number of tokens that is one; else 0."""
    for value in (told.get(name) for name in names):
        try:
            number = 0.0 if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            continue
        if 0 < number < 1e9:
            return int(number)
    return 0


class Pace:
    """Lets requests through: fewer at a time where the teacher says that they are too many, and later where it says when."""

    def __init__(self, concurrency: int, tries: int | None = None, say: Callable[[str], None] = lambda _: None):
        self.concurrency, self.tries, self.say = concurrency, tries or TRIES, say
        self.limit = float(concurrency)
        self.active = self.requests = self.errors = self.crowded = 0
        self._resume = self._last_cut = 0.0

    async def ask(self, request: Callable[[], Awaitable[Reply]], admit: Callable[[], bool] = lambda: True) -> Reply:
        for tried in range(1, self.tries + 1):
            while self.active >= int(self.limit) or time.monotonic() < self._resume or not admit():
                await asyncio.sleep(max(_POLL, min(self._resume - time.monotonic(), 1.0)))
            self.active += 1
            self.requests += 1
            started = time.monotonic()
            try:
                answer = await request()
                self.limit = min(self.concurrency, self.limit + 1 / self.limit)
                return answer
            except NoAnswer as error:
                self.errors += 1
                self._give_way(error, started)
                if tried == self.tries:
                    raise
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tried - 1)) * random.uniform(0.5, 1.0)
                wait = wait if error.retry_after is None else min(error.retry_after, LONGEST_ASKED)
            finally:
                self.active -= 1
            await asyncio.sleep(wait)
        raise AssertionError("there is one try at least")

    def _give_way(self, error: NoAnswer, started: float) -> None:
        now = time.monotonic()
        self.crowded += error.crowded
        if error.crowded and started >= self._last_cut:  # requests that were under way together are one sign
            self.limit, self._last_cut = max(1.0, self.limit / 2), now
        if error.retry_after is None:
            return
        wait = min(error.retry_after, LONGEST_ASKED)
        if wait > _TELL and now + wait > self._resume + 1:
            at = time.strftime("%H:%M:%S", time.localtime(time.time() + wait))
            bound = f", of which {wait:.0f} are waited" if wait < error.retry_after else ""
            self.say(f"{error}. It asks for {error.retry_after:.0f} s (Retry-After){bound}: on it goes at {at}.")
        self._resume = max(self._resume, now + wait)


@dataclass(frozen=True)
class Sampling:
    """How a teacher draws its replies.

    Example:

    ```python
    >>> from dhrd_hf.rationales.teacher import Sampling
    >>> Sampling(temperature=0.2).settings()
    {'temperature': 0.2, 'max_reply_tokens': 1024}

    ```

    Args:
        temperature (`float`, *optional*, defaults to 0.7): 0 is greedy.
        top_p (`float`, *optional*): Nucleus sampling.
        max_reply_tokens (`int`, *optional*, defaults to 1024): Most tokens of a reply, thoughts of a reasoning model
            included; 0 leaves it to the endpoint.
        seed (`int`, *optional*): Sent with each request, another one for each try and sample.
        extra_body (`Mapping[str, Any]`, *optional*): What else is sent, such as
            `{"chat_template_kwargs": {"enable_thinking": False}}`.

    Raises:
        ValueError: if a number makes no sense.
    """

    temperature: float = 0.7
    top_p: float | None = None
    max_reply_tokens: int = 1024
    seed: int | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not (self.temperature >= 0 and self.max_reply_tokens >= 0 and (self.top_p is None or 0 < self.top_p <= 1)):
            raise ValueError(
                f"temperature={self.temperature}, max_reply_tokens={self.max_reply_tokens}, top_p={self.top_p}: the first "
                "two must not be negative, the last between 0 and 1"
            )

    def settings(self) -> dict[str, Any]:
        """The settings that are not at rest, for a key and a manifest; secrets in the extra body are left out."""
        every = vars(self) | {"extra_body": without_secrets(dict(self.extra_body), []) or None}
        return {name: value for name, value in every.items() if value is not None}


def without_secrets(value: Any, found: list[str], inside: bool = False) -> Any:
    """A JSON value with "[secret]" for the texts that are secret by their name or form, which are added to `found`."""
    if isinstance(value, Mapping):
        shown = {}
        for name, its in value.items():
            named = _SECRET_NAME.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name)))
            shown[name] = without_secrets(its, found, inside or named is not None)
        return shown
    if isinstance(value, (list, tuple)):
        return [without_secrets(its, found, inside) for its in value]
    if isinstance(value, str) and (inside or _SECRET.match(value)):
        found.append(value)
        return "[secret]"
    return value


class Teacher(Protocol):
    """What [`generate_rationales`] asks, as an async context manager; the model is known once it is entered."""

    name: str
    model: str | None
    sampling: Sampling
    concurrency: int

    async def __aenter__(self) -> Teacher: ...
    async def __aexit__(self, *error: Any) -> None: ...
    async def ask(self, messages: Sequence[Mapping[str, str]], seed: int | None = None) -> Reply: ...


def open_teacher(
    name: str,
    model: str | None = None,
    sampling: Sampling | None = None,
    *,
    api_key_env: str | None = None,
    concurrency: int = 32,
    timeout: float = 120.0,
    batch_size: int = 8,
    device: str | None = None,
) -> Teacher:
    """The teacher of a name, as `--teacher` takes it.

    Example:

    ```python
    >>> from dhrd_hf.rationales.teacher import open_teacher
    >>> open_teacher("localhost:8000").name
    'http://localhost:8000/v1'

    ```

    Args:
        name (`str`): A URL, `inference-providers:MODEL`, a folder or Hub id of a chat model, or `smollm2`.
        model (`str`, *optional*): The model at an endpoint.
        sampling ([`Sampling`], *optional*): How to draw replies.
        api_key_env (`str`, *optional*): The environment variable with the endpoint's key.
        concurrency (`int`, *optional*, defaults to 32): Most requests at a time to an endpoint.
        timeout (`float`, *optional*, defaults to 120): Seconds until a request is given up.
        batch_size (`int`, *optional*, defaults to 8): Rows at a time of a local model.
        device (`str`, *optional*): Of a local model; by default the accelerator if there is one.

    Returns:
        [`Teacher`]: not entered yet.

    Raises:
        ValueError: if the name is none of these, or a key is missing.
    """
    if name.startswith(PROVIDERS):
        named = name.removeprefix(PROVIDERS)
        if not named or model not in (None, named):
            raise ValueError(f"--teacher {name}: name one model, as in {PROVIDERS}Qwen/Qwen3-8B")
        url, model = None, named
    elif name.startswith(("http://", "https://")) or (_HOST.match(name) and not Path(name).exists()):
        url = name if "://" in name else f"http://{name}"
    elif "://" in name or (":" in name and not Path(name).exists()) or not name.strip():
        raise ValueError(
            f"--teacher {name.rpartition('@')[2]!r} is none of: an http(s) URL of an OpenAI-compatible endpoint such as "
            "http://localhost:8000/v1, inference-providers:MODEL, a local folder or Hub id of a chat model, smollm2, "
            "column:NAME or file:PATH"
        )
    elif model is not None:
        raise ValueError(f"--teacher-model is for an endpoint, and --teacher {name} is a local model: leave it out")
    else:
        return LocalTeacher(name, sampling, batch_size=batch_size, device=device)
    from .endpoint import EndpointTeacher

    return EndpointTeacher(url, model, sampling, api_key_env=api_key_env, concurrency=concurrency, timeout=timeout)


class LocalTeacher:
    """A transformers chat model, on whatever device there is; requests that come together are one batch."""

    def __init__(self, name: str, sampling: Sampling | None = None, *, batch_size: int = 8, device: str | None = None):
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be above 0")
        self.name = self.model = name
        self.sampling, self.device = sampling or Sampling(), device
        self.batch_size = self.concurrency = batch_size  # a batch is full when all that may run wait for it
        self._model: Any = None

    async def __aenter__(self) -> LocalTeacher:
        self._turn = asyncio.Lock()
        self._waiting: list[tuple[Sequence[Mapping[str, str]], int | None, asyncio.Future]] = []
        if self._model is None:  # a judge is entered for each window of rows
            await asyncio.to_thread(self._load)
        return self

    async def __aexit__(self, *error: Any) -> None: ...

    async def ask(self, messages: Sequence[Mapping[str, str]], seed: int | None = None) -> Reply:
        """Ask for one reply; whose turn it is asks for all that wait."""
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, seed, mine))
        async with self._turn:
            if not mine.done():
                if len(self._waiting) < self.batch_size:
                    await asyncio.sleep(_WAIT_FOR_MORE)
                chats, seeds, futures = zip(*self._waiting[: self.batch_size], strict=True)
                del self._waiting[: self.batch_size]
                try:
                    replies = await asyncio.to_thread(self._generate, chats, seeds[0])
                    for future, reply in zip(futures, replies, strict=True):
                        future.set_result(reply)
                except Exception as error:  # to whoever waits: an error that stays here would leave them waiting
                    for future in futures:
                        future.set_exception(error)
                finally:
                    for future in futures:
                        future.cancel()  # where this one was; those that are done stay so
        return (await mine).judged()

    def _load(self) -> None:
        from transformers import AutoModelForCausalLM

        from ..embedded import smollm2_path
        from ..opening import load_tokenizer, put_on, without_its_code

        name = self.name
        folder = Path(smollm2_path() if name == "smollm2" else name).expanduser()
        if name.startswith((".", "/", "~")) and not folder.is_dir():
            raise TeacherError(f"--teacher {name}: there is no such folder")
        path = str(folder) if folder.is_dir() else name
        self._tokenizer = load_tokenizer(path, padding_side="left")
        if self._tokenizer.chat_template is None:
            raise TeacherError(f"--teacher {name} has no chat template: name a model that is tuned to follow requests")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        with without_its_code(path):
            lm = AutoModelForCausalLM.from_pretrained(path, dtype="auto", trust_remote_code=False)
        self._model = put_on(lm.eval(), self.device)

    def _generate(self, chats: Sequence[Sequence[Mapping[str, str]]], seed: int | None) -> list[Reply]:
        import torch

        inputs = self._tokenizer(
            [self._render(chat) for chat in chats], return_tensors="pt", padding=True, add_special_tokens=False
        ).to(self._model.device)
        sampling = self.sampling
        if seed is not None:
            torch.manual_seed(seed)
        draw: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if sampling.temperature > 0:
            draw = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p or 1.0, "top_k": 0}
        draw |= {"max_new_tokens": sampling.max_reply_tokens or 1024, "pad_token_id": self._tokenizer.pad_token_id}
        try:
            with torch.inference_mode():
                drawn = self._model.generate(**inputs, **draw)[:, inputs["input_ids"].shape[1] :].tolist()
        except torch.OutOfMemoryError as error:
            raise TeacherError(
                f"no memory for {len(chats)} rows at a time on {self._model.device}: lower --concurrency"
            ) from error
        return list(map(self._reply, drawn, inputs["attention_mask"].sum(1).tolist()))

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
