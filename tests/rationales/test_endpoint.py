"""An endpoint's errors, to the letter: what each is taken for, what it says, whether it is asked again."""

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from chat_stand_in import SENTINEL, ChatStandIn, good, rows

from dhrd_hf.rationales.endpoint import base_url, find_api_key, retry_after
from dhrd_hf.rationales.prompt import TeacherPrompt
from dhrd_hf.rationales.teacher import NoAnswer, Sampling, TeacherError, Unusable, open_teacher

TEXT = f"{good(0)}{SENTINEL}\nAnswer: soaked"
REQUEST = TeacherPrompt(["soaked", "arid"]).messages(rows(1)[0], "soaked")
CHECK = "Check --teacher-model ('stand-in') and the URL, which usually ends in /v1"


def one_after_the_other(answers):
    return lambda asked: answers.pop(0)


def ask_each(answers, model="stand-in", **options):
    """What a teacher that has answered nothing yet makes of each answer: a reply or an error."""
    found = []

    async def main(url):
        for _ in answers:
            async with open_teacher(url, model, **options) as teacher:
                (it,) = await asyncio.gather(teacher.ask(REQUEST), return_exceptions=True)
                found.append(it)

    with ChatStandIn(before=one_after_the_other(list(answers))) as chat:
        asyncio.run(main(chat.url))
    return [str(it).removeprefix(chat.url) if isinstance(it, Exception) else it for it in found], found


def test_what_each_status_is_taken_for():
    said = lambda text: {"error": {"message": text}}  # noqa: E731
    cases = [
        ((405, said("no")), TeacherError, f" answers (405: no). {CHECK}"),
        ((404, said("gone")), TeacherError, f" answers (404: gone). {CHECK}"),
        ((402, said("pay")), TeacherError, " wants to be paid before it answers (402: pay)"),
        ((429, said("see your billing")), TeacherError, " wants to be paid before it answers (429: see your billing)"),
        ((500, said("see your billing")), NoAnswer, "an error, status 500: see your billing"),
        ((307, {}), TeacherError, " sends on to nowhere (307), where no key follows: name that in --teacher"),
        ((300, {}, {"Location": "http://x/y"}), TeacherError,
         " sends on to http://x/y (300), where no key follows: name that in --teacher"),
        ((401, {}), TeacherError,
         ": no key was found, and the endpoint wants one: name the variable that holds it, such as --api-key-env "
         "OPENAI_API_KEY (401)"),
        ((400, said("the model can't")), Unusable, "the endpoint refuses the request (400): the model can't"),
        ((413, said("large")), Unusable, "the endpoint refuses the request (413): large"),
        ((422, {"detail": [{"msg": "odd"}]}), Unusable, "the endpoint refuses the request (422): [{'msg': 'odd'}]"),
        ((500, {}), NoAnswer, "an error, status 500"),
        ((500, b"no JSON"), NoAnswer, "an error, status 500"),
        ((408, {"error": "late  by\n far"}), NoAnswer, "an error, status 408: late by far"),
        ((529, {"message": "busy", "code": "full"}), NoAnswer, "an error, status 529: busy [full]"),
        ((503, {"error": {"message": "full: busy", "code": "full"}}), NoAnswer, "an error, status 503: full: busy"),
        ((500, {"error": {"message": {"msg": "inner"}, "code": 7}}), NoAnswer, "an error, status 500: inner"),
        ((500, {"error": {"code": "ß"}}), NoAnswer, 'an error, status 500: {"code": "ß"}'),
        ((500, said("x" * 400)), NoAnswer, "an error, status 500: " + "x" * 300),
        # In a body, where the status says that all is well.
        ((200, {"error": {"message": "m", "code": "599"}}), NoAnswer, "an error, status 599: m [599]"),
        ((200, {"error": {"message": "m", "status": 503}}), NoAnswer, "an error, status 503: m"),
        ((200, {"error": {"message": "m", "code": 299}}), NoAnswer, "an error instead of an answer: m"),
        ((200, {"error": {"message": "m", "code": 600}}), NoAnswer, "an error instead of an answer: m"),
        ((200, {"error": {"message": "m", "type": "Rate Limit"}}), NoAnswer, "an error, status 429: m [Rate Limit]"),
        ((200, {"object": "error", "message": "m", "choices": None}), NoAnswer, "an error instead of an answer: m"),
    ]  # fmt: skip
    told, found = ask_each([answer for answer, *_ in cases])
    assert told == [text for *_, text in cases]
    for (answer, kind, text), error in zip(cases, found, strict=True):
        assert type(error) is kind, answer
        if kind is NoAnswer:
            crowded = any(status in text for status in ("429", "503", "529"))
            assert (error.crowded, error.paid, error.retry_after) == (crowded, False, None), answer
        if kind is Unusable:
            assert (error.reply, error.check) == (None, "refused")
    kinds = {
        "authentication_error": 401, "invalid_api_key": 401, "permission_error": 403, "insufficient_quota": 402,
        "billing_error": 402, "not_found_error": 404, "invalid_request_error": 400, "bad_request": 400, "BadRequestError": 400,
        "context_length_exceeded": 400, "content_filter": 400, "rate_limit_exceeded": 429, "overloaded_error": 529,
    }  # fmt: skip
    told, _ = ask_each([(200, {"error": {"message": "m", "type": kind}}) for kind in kinds])
    assert all(str(status) in text for status, text in zip(kinds.values(), told, strict=True)), told
    told, found = ask_each([(503, {}, {"Retry-After": "7"}), (404, said("no")), (400, said("unknown Model"))], "other")
    assert found[0].retry_after == 7
    assert told[1:] == [
        " has no model 'other': type --teacher-model stand-in (404: no)",
        " has no model 'other': type --teacher-model stand-in (400: unknown Model)",
    ]
    whole = {"message": {"content": TEXT}, "finish_reason": "length"}
    text, thoughts = TEXT[:40], {"reasoning": "Hm. " * 100}
    told, found = ask_each([
        (200, {"choices": [whole]}),
        (200, {"message": {"content": TEXT}, "done_reason": "length", "usage": {"prompt_tokens": 9, "completion_tokens": 8}}),
        (200, {"choices": [{"message": {"content": text} | thoughts}, {"message": {"content": TEXT}}], "model": None}),
        (200, {"choices": [{"message": {"content": [{"type": "image", "url": "x"}, {"type": "text", "content": TEXT}]}}]}),
        (200, {"choices": [{"message": {"content": None, "refusal": "N" * 300}}]}),
        (200, {"choices": [{"message": {"content": {"why": "Naß.", "n": 1}}}]}),
    ])  # fmt: skip
    assert [type(it).__name__ for it in found] == ["Unusable", "Unusable", "Reply", "Reply", "Unusable", "Reply"]
    assert [it.check for it in (found[0], found[1], found[4])] == ["cut_off", "cut_off", "refusal"]
    assert told[1] == "the reply was cut off after 8 tokens; --max-reply-tokens allows more"
    assert told[4] == "the teacher refuses: " + "N" * 200
    assert (found[2].text, found[2].model, found[2].finish_reason, found[3].text) == (text, "", "stop", TEXT)
    assert found[5].text == '{"why": "Naß.", "n": 1}'
    spent = 10 + 100 + -(-len(TEXT) // 4)  # of all that it wrote
    assert found[2].completion_tokens == spent and found[2].estimated
    assert found[2].prompt_tokens == sum(-(-len(it["content"].encode()) // 4) for it in REQUEST)


def test_what_is_no_answer_is_shown_by_its_beginning_and_without_secrets():
    bodies = (b"<" + b"x" * 100, b" ", b"[7]", b'"' + b"x" * 100 + b'"', b"{}")
    told, found = ask_each([(200, body) for body in bodies])
    assert told == [
        f"the answer is no whole JSON (JSONDecodeError: '<{'x' * 59}'...)", "the answer is empty",
        "the answer is no JSON object but '[7]'", f"the answer is no JSON object but '\"{'x' * 59}'",
        "the answer holds no choices",
    ]  # fmt: skip
    assert all(it.paid and not it.crowded for it in found)

    async def main(url, password):
        async with open_teacher(url.replace("://", f"://me:{password}@"), "stand-in") as teacher:
            return (await asyncio.gather(teacher.ask(REQUEST), return_exceptions=True))[0]

    for password, in_error, in_reply in (
        ("abc", "abc", "abc"), ("abcd", "[secret]", "abcd"), ("abcdefg", "[secret]", "abcdefg"),
        ("abcdefgh", "[secret]", "[secret]"),
    ):  # fmt: skip
        reply = {"choices": [{"message": {"content": f"So {password}."}}]}
        left = [(500, {"error": {"message": f"at {password}."}}), (200, reply)]
        with ChatStandIn(before=one_after_the_other(left)) as chat:
            assert str(asyncio.run(main(chat.url, password))) == f"an error, status 500: at {in_error}."
            assert asyncio.run(main(chat.url, password)).text == f"So {in_reply}."


def test_event_streams_that_end_early_or_late():
    def stream(*events, end="data: [DONE]\n\n"):
        return 200, "".join(f"data: {json.dumps(it)}\n\n" for it in events).encode() + end.encode()

    piece = lambda text, **more: {"choices": [{"index": 0, "delta": {"content": text}, **more}]}  # noqa: E731
    told, found = ask_each([
        stream(piece("It "), {"model": "m"}, piece("rains."), {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
        stream(piece("It "), piece("[DONE] " + "x" * 60), end=""),
        stream(piece("It "), {"error": {"message": "gone"}}, end=""),
        stream(piece("It rains.", finish_reason="stop"), {"choices": [{"index": 1, "delta": {"content": "So."}}]}, end=""),
        stream({"error": {"message": "gone", "code": 500}}),
        stream(),
        stream(piece("It ", finish_reason="length"), piece("rains.")),
        stream({"choices": [{"delta": {"content": "It rains."}, "finish_reason": "stop"}]}, end="data: [DONE]" + " " * 33),
    ])  # fmt: skip
    assert (found[0].text, found[0].model, found[0].prompt_tokens, found[0].completion_tokens) == (
        "It rains.",
        "m",
        7,
        3,
    )
    assert told[1] == "the event stream breaks off before its end" and found[1].paid
    assert told[2] == "an error instead of an answer: gone" and found[3].text == "It rains."
    assert told[4] == "an error, status 500: gone" and told[5] == "the reply was empty"
    assert found[6].check == "cut_off" and found[6].reply.text == "It rains." == found[7].text


@pytest.mark.parametrize(
    ("count", "said"),
    [(5, "a or b or c or d or e"), (7, "a or b or c or d or e or one of 2 more"), (2, "a or b")],
)
def test_models_are_told_where_one_has_to_be_chosen(count, said):
    async def main(url):
        async with open_teacher(url) as teacher:
            await teacher.ask(REQUEST)

    with ChatStandIn(models=tuple("abcdefg"[:count])) as chat, pytest.raises(TeacherError) as caught:
        asyncio.run(main(chat.url))
    assert str(caught.value) == f"{chat.url} has several models: type --teacher-model {said}"


def test_an_endpoint_that_lists_no_model_is_asked_for_its_default():
    async def main(url):
        async with open_teacher(url, sampling=Sampling(max_reply_tokens=0)) as teacher:
            await teacher.ask(REQUEST)

    with ChatStandIn(models=()) as chat, pytest.raises(TeacherError, match=r"answers \(404: The model `default` does"):
        chat.keep_bodies = True
        asyncio.run(main(chat.url))
    assert chat.bodies == [{"model": "default", "messages": REQUEST, "temperature": 0.7}]


def test_what_is_typed_of_a_teacher(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hub-token")
    for options in ({"concurrency": 0}, {"timeout": 0}, {"timeout": float("nan")}):
        with pytest.raises(ValueError, match="must be above 0"):
            open_teacher("http://localhost:1", "m", **options)
    assert open_teacher("http://localhost:1", "m", concurrency=1, timeout=0.1).concurrency == 1
    teacher = open_teacher("inference-providers:a/b")
    assert (teacher.name, teacher.url, teacher.model) == (
        "inference-providers", "https://router.huggingface.co/v1", "a/b"
    )  # fmt: skip
    assert (teacher.concurrency, teacher.timeout) == (32, 120)
    for name, model in (("inference-providers:", None), ("inference-providers:a/b", "c")):
        with pytest.raises(ValueError, match="name one model"):
            open_teacher(name, model)
    assert base_url("http://us%40er:pa%20ss@Host:1/?key=x&q=y") == (
        "http://host:1/v1",
        "us@er:pa ss",
        {"key": "x", "q": "y"},
    )
    assert base_url("http://me@host") == ("http://host/v1", "me:", {})
    with ChatStandIn() as chat:

        async def main():
            async with open_teacher(chat.url.replace("://", "://us%40er:pa%20ss@"), "stand-in") as teacher:
                await teacher.ask(REQUEST)

        asyncio.run(main())
        assert chat.authorizations == ["Basic " + base64.b64encode(b"us@er:pa ss").decode()]
        assert chat.headers[0]["accept"] == chat.headers[0]["content-type"] == "application/json"


def test_where_a_key_is_lacking(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "GROQ_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    wanted = "api.groq.com wants a key: set GROQ_API_KEY, or name a variable by --api-key-env"
    assert find_api_key("https://api.groq.com/openai/v1") == (None, "GROQ_API_KEY", wanted)
    assert find_api_key("https://api.groq.com:443/openai/v1")[2] == wanted
    monkeypatch.setenv("MINE", " ")
    with pytest.raises(ValueError, match="no environment variable 'MINE', or it is empty"):
        find_api_key("https://api.groq.com/openai/v1", "MINE")
    for url, lacks in (("http://127.0.0.1:1/v1", False), ("http://localhost/v1", False), ("http://10.0.0.1/v1", True)):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        assert find_api_key(url)[1] == "OPENAI_API_KEY" and bool(find_api_key(url)[2]) == lacks
        assert not find_api_key("http://10.0.0.2/v1")[2]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://host/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "open-key")
    assert find_api_key("http://host:80/v1")[0] == "open-key" and find_api_key("https://host/v1")[0] is None
    monkeypatch.setenv("HF_TOKEN", "hub-token")
    for host, key in (
        ("huggingface.co", "hub-token"), ("x.endpoints.huggingface.cloud", "hub-token"), ("nothuggingface.co", None),
    ):  # fmt: skip
        assert find_api_key(f"https://{host}/v1")[0] == key
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert retry_after({"retry-after": "Fri, 01 May 2026 12:01:40 -0000"}, noon) == 100
    assert retry_after({"retry-after-ms": "soon", "retry-after": "Fri, 01 May 2026 12:00:05 GMT"}, noon) == 5
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < retry_after({"retry-after": soon}) <= 60
