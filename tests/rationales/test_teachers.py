"""Teachers: endpoints, keys, pace and budget."""

import asyncio
import re
import time
from datetime import UTC, datetime

import pytest
import torch
from chat_stand_in import ChatStandIn, rows

from dhrd_hf.rationales import teacher as pacing
from dhrd_hf.rationales.endpoint import find_api_key, retry_after
from dhrd_hf.rationales.journal import Budget, BudgetSpent
from dhrd_hf.rationales.prompt import TeacherPrompt
from dhrd_hf.rationales.teacher import LocalTeacher, NoAnswer, Pace, Sampling, TeacherError, Unusable, open_teacher


@pytest.fixture
def chat_request():
    return TeacherPrompt(["soaked", "arid"]).messages(rows(1)[0], "soaked")


def ask(teacher, messages, **options):
    async def main():
        async with teacher:
            return await teacher.ask(messages, **options)

    return asyncio.run(main())


def test_an_endpoint_gets_the_settings_and_its_key_and_says_what_it_took(chat_request, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sesame\r\n")  # from a file of Windows
    sampling = Sampling(0.3, 0.9, 77, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    with ChatStandIn(key="sesame") as chat:
        chat.keep_bodies = True
        teacher = open_teacher(chat.url, sampling=sampling, api_key_env="OPENAI_API_KEY")
        reply = ask(teacher, chat_request, seed=4)
        assert chat.authorizations == ["Bearer sesame"] * 2  # the list of models, and the chat
    sent = chat.bodies[0]
    assert sent.pop("messages") == chat_request
    assert {**sent, "stream": False} == {
        "model": "stand-in", "temperature": 0.3, "top_p": 0.9, "max_tokens": 77, "seed": 4, "stream": False,
        "chat_template_kwargs": {"enable_thinking": False},
    }  # fmt: skip
    assert (reply.model, reply.prompt_tokens, reply.completion_tokens) == ("stand-in-2026", 100, 50)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("429 seconds", NoAnswer, "429: Rate limit reached"),
        ("502 html", NoAnswer, "status 502"),
        ("hang", NoAnswer, "no answer within 0.3 s"),
        ("cut midway", NoAnswer, "Not enough data to satisfy content length"),
        ("bad json", NoAnswer, "no whole JSON .JSONDecodeError"),
        ("no choices", NoAnswer, "no choices"),
        ("null", Unusable, "empty"),
        ("cut off", Unusable, "cut off after 50 tokens; --max-reply-tokens"),
        ("400", Unusable, r"refuses the request \(400\): told to fail"),
    ],
)
def test_what_an_endpoint_does_wrong_is_named(chat_request, fault, kind, message):
    with ChatStandIn(lambda row: [fault]) as chat, pytest.raises(kind, match=message) as caught:
        ask(open_teacher(chat.url, timeout=0.3), chat_request)
    if fault == "429 seconds":
        assert caught.value.crowded and caught.value.retry_after == 0.2


def test_a_wrong_model_a_wrong_key_nobody_there(chat_request, monkeypatch):
    monkeypatch.setenv("MINE", "secret-key")
    with ChatStandIn(key="right") as chat:
        with pytest.raises(TeacherError, match="key from MINE was refused") as caught:
            ask(open_teacher(chat.url, "stand-in", api_key_env="MINE"), chat_request)
        assert "secret-key" not in str(caught.value)
    with ChatStandIn() as chat:
        with pytest.raises(TeacherError, match="has no model 'other': type --teacher-model stand-in"):
            ask(open_teacher(chat.url, "other"), chat_request)
        url = chat.url
    with pytest.raises(TeacherError, match=f"nothing answers at {url}.*start the server"):
        ask(open_teacher(url), chat_request)
    with pytest.raises(ValueError, match="no environment variable 'ABSENT'"):
        open_teacher(url, api_key_env="ABSENT")
    for name in ("", "ftp://host/v1", "columns:x"):
        with pytest.raises(ValueError, match="is none of"):
            open_teacher(name)


@pytest.mark.parametrize("key", ["secret\rkey", "secret key", "sécret-key"])
def test_a_key_that_can_not_be_sent_is_not_quoted(monkeypatch, key):
    monkeypatch.setenv("MINE", key)
    with pytest.raises(ValueError, match="the key from MINE holds a blank") as caught:
        open_teacher("http://127.0.0.1:9/v1", "stand-in", api_key_env="MINE")
    assert "cret" not in str(caught.value)


def test_a_key_goes_to_its_own_origin_alone(monkeypatch):
    for name in ("OPENAI_BASE_URL", "MISTRAL_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hub-token")
    monkeypatch.setenv("OPENAI_API_KEY", "open-key")
    for url in (
        "https://elsewhere.example/v1", "https://huggingface.co.elsewhere.example/v1", "https://somebody-elses.hf.space/v1",
        "https://api.openai.com.elsewhere.example/v1", "http://api.openai.com/v1", "http://router.huggingface.co/v1",
        "https://api.openai.com:8443/v1", "http://localhost:8000/v1", "http://127.0.0.1:1/v1", "http://[::1]:8000/v1",
    ):  # fmt: skip
        assert find_api_key(url)[0] is None, url
        assert find_api_key(url, "OPENAI_API_KEY")[0] == "open-key"
    assert find_api_key("https://router.huggingface.co/v1")[:2] == ("hub-token", "HF_TOKEN or `hf auth login`")
    assert find_api_key("https://api.openai.com/v1")[0] == "open-key"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert find_api_key("http://localhost:8000/v1")[0] == find_api_key("https://api.openai.com/v1")[0] == "open-key"
    assert find_api_key("http://localhost:8001/v1")[0] is None
    assert "api.mistral.ai wants a key: set MISTRAL_API_KEY" in find_api_key("https://api.mistral.ai/v1")[2]
    monkeypatch.setenv("MISTRAL_API_KEY", "mistral-key")
    assert find_api_key("https://api.mistral.ai:8443/v1")[0] is find_api_key("http://api.mistral.ai/v1")[0] is None
    assert find_api_key("https://api.mistral.ai/v1") == ("mistral-key", "MISTRAL_API_KEY", "")


def test_retry_after_in_seconds_and_as_a_date():
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    for value, seconds in (
        ("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("soon", None), ("", None),
        ("Fri, 01 May 2026 12:01:40 GMT", 100.0), ("Fri, 01 May 2026 11:00:00 GMT", 0.0), ("nan", None), ("1e9", 1e9),
    ):  # fmt: skip
        assert retry_after({"Retry-After": value}, noon) == seconds
    assert retry_after({}) is None
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5


@pytest.mark.parametrize(("asked", "waited"), [(0.2, 0.2), (1e9, 0.3), (float("inf"), 0.3)])
def test_a_wait_that_is_asked_for_is_bounded_and_told(monkeypatch, asked, waited):
    monkeypatch.setattr(pacing, "LONGEST_ASKED", 0.3)
    monkeypatch.setattr(pacing, "_TELL", 0.1)
    said, refusals = [], [NoAnswer("status 429", asked, crowded=True)] * 4
    pace = Pace(4, say=said.append)

    async def request():
        await asyncio.sleep(0.001)
        if refusals:
            raise refusals.pop()
        return time.monotonic()

    async def main():
        return await asyncio.gather(*(pace.ask(request) for _ in range(6)))

    started = time.monotonic()
    answered = asyncio.run(main())
    assert min(answered) - started >= waited * 0.99
    assert len(said) == 1 and re.search(r"^status 429. It asks for .*on it goes at \d\d:\d\d:\d\d\.$", said[0])
    assert ("of which" in said[0]) == (asked > 0.3)


def test_too_many_requests_halve_the_concurrency_and_hold_all_back_until_retry_after(monkeypatch):
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)
    pace, begun, limits, refusals = Pace(8), [], [], [NoAnswer("429", 0.3, crowded=True)] * 3

    async def request():
        begun.append(time.monotonic())
        limits.append(pace.limit)
        await asyncio.sleep(0.01)
        if refusals:
            raise refusals.pop()
        return "fine"

    async def main():
        return await asyncio.gather(*(pace.ask(request) for _ in range(30)))

    start = time.monotonic()
    assert asyncio.run(main()) == ["fine"] * 30
    assert pace.requests == 33 and pace.errors == pace.crowded == 3
    # Three that were under way together are one sign, not three.
    assert 4 <= min(limits) < 6 < pace.limit <= 8  # and it grows again
    later = sorted(begun)[8:]
    assert min(later) - start >= 0.3


def test_a_shorter_wait_does_not_end_a_longer_one():
    waits, pace = [0.3, 0.01], Pace(4)

    async def request():
        await asyncio.sleep(0.001 if len(waits) == 2 else 0.02)
        if waits:
            raise NoAnswer("429", waits.pop(0))
        return time.monotonic()

    async def main():
        return await asyncio.gather(*(pace.ask(request) for _ in range(4)))

    started = time.monotonic()
    answered = sorted(asyncio.run(main()))
    assert answered[2] - started >= 0.3  # those that were under way already are in before


def test_a_request_is_given_up_after_its_tries(monkeypatch):
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.001)

    async def fails():
        raise NoAnswer("status 500")

    pace = Pace(2, tries=3)
    with pytest.raises(NoAnswer, match="500"):
        asyncio.run(pace.ask(fails))
    assert (pace.requests, pace.active) == (3, 0)


def test_a_budget_waits_for_what_is_under_way():
    budget = Budget(max_tokens=100, one=(30, 30))
    assert budget.admit() and not budget.admit()
    budget.open -= 1
    budget.settle(30, 10)
    assert budget.admit() and not budget.admit()
    budget.open -= 1
    budget.settle(30, 10)
    with pytest.raises(BudgetSpent, match="80 of 100 tokens"):
        budget.admit()
    with pytest.raises(ValueError, match="needs the prices"):
        Budget(max_cost=1)


def test_a_budget_reckons_with_the_largest_reply_and_with_what_was_lost():
    budget = Budget(max_tokens=1000, max_cost=1.0, price_output=1.0, one=(300, 300))
    for prompt_tokens, completion_tokens in ((40, 10), (20, 50), (30, 20)):
        assert budget.admit()
        budget.open -= 1
        budget.settle(prompt_tokens, completion_tokens)
    assert budget.one == (40, 50) and budget.tokens == 170
    budget.lose(*budget.one)
    budget.lose(700, 10)
    assert (budget.tokens, budget.unanswered, budget.lost) == (970, 2, (740, 60))
    assert budget.cost == pytest.approx(140e-6)
    with pytest.raises(BudgetSpent, match="970 of 1000 tokens"):
        budget.admit()
    # Of few replies nobody knows how long others are: no more at a time than there were.
    budget = Budget(max_tokens=10_000, one=(10, 10))
    assert budget.admit() and not budget.admit()
    budget.open -= 1
    budget.settle(1, 1)
    assert budget.admit() and budget.admit() and not budget.admit()
    assert Budget(max_tokens=10, one=(40, 50)).admit()  # nobody knows what the first one takes
    with pytest.raises(BudgetSpent):
        Budget(max_tokens=0, one=(1, 1)).admit()


def test_who_may_be_asked_again_at_once_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(pacing, "FIRST_WAIT", 30.0)
    failures = [NoAnswer("it wants another name of the limit", 0.0)]

    async def request():
        if failures:
            raise failures.pop()
        return "fine"

    async def main():
        async with asyncio.timeout(5):
            return await Pace(1).ask(request)

    assert asyncio.run(main()) == "fine"


def test_a_template_without_a_place_for_a_system_prompt_has_it_in_the_request(tokenizer):
    teacher = LocalTeacher("any")
    teacher._tokenizer = tokenizer
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer.chat_template = refuses + "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    try:
        said = teacher._render([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])
    finally:
        tokenizer.chat_template = None
    assert said == "user: Be brief.\n\nWhy?\n"


def test_a_local_model_answers_a_batch_as_it_answers_one(lm_dir_of, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(lm_dir_of("llama")).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    chats = [[{"role": "user", "content": text}] for text in ("Why is rain wet?", "Why?", "And snow?")]
    with pytest.raises(TeacherError, match="no chat template"):
        ask(LocalTeacher(str(tmp_path)), chats[0])
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    try:
        tokenizer.save_pretrained(tmp_path)
    finally:
        tokenizer.chat_template = None

    with pytest.raises(ValueError, match="the model can't be put on device 'cuda:99'"):
        ask(LocalTeacher(str(tmp_path), device="cuda:99"), chats[0])

    async def main(batch_size):
        teacher = LocalTeacher(str(tmp_path), Sampling(0, max_reply_tokens=8), batch_size=batch_size, device="cpu")
        sizes = []
        generate = teacher._generate
        teacher._generate = lambda chats, seed: (sizes.append(len(chats)), generate(chats, seed))[1]
        async with teacher:
            found = await asyncio.gather(*(teacher.ask(chat) for chat in chats), return_exceptions=True)
        return [error.reply.text for error in found], sizes  # a random model knows no end

    teacher = LocalTeacher(str(tmp_path))
    teacher._load()
    end = teacher._tokenizer.eos_token_id
    teacher._model.generation_config.eos_token_id = end
    assert teacher._reply([5, 6, end, 7], 3).completion_tokens == 3  # the end was drawn as well
    assert teacher._reply([5, end], 3).finish_reason == "stop" and teacher._reply([5], 3).finish_reason == "length"

    async def enter():
        async with teacher:
            return teacher._model

    assert asyncio.run(enter()) is asyncio.run(enter())  # a judge is entered for each window of rows, and loaded once
    alone, sizes = asyncio.run(main(1))
    assert sizes == [1, 1, 1]
    together, sizes = asyncio.run(main(4))
    assert sizes == [3] and together == alone
    assert torch.is_inference_mode_enabled() is False
