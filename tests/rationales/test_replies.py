"""Replies in every form that endpoints send: each is read, or said to be what it is, and what it took is counted."""

import asyncio
import json
import re
import time

import pytest
from chat_stand_in import SENTINEL, ChatStandIn, good, rows

from dhrd_hf.rationales.checks import parse_reply, without_thoughts
from dhrd_hf.rationales.endpoint import base_url
from dhrd_hf.rationales.prompt import TeacherPrompt
from dhrd_hf.rationales.teacher import NoAnswer, Sampling, TeacherError, Unusable, open_teacher, tokens_of

TEXT = f"{good(0)}{SENTINEL}\nAnswer: soaked"
REQUEST = TeacherPrompt(["soaked", "arid"]).messages(rows(1)[0], "soaked")


def ask(answer, **options):
    """The stand-in's good answer, changed, and read."""

    async def main(url):
        async with open_teacher(url, **options) as teacher:
            return await teacher.ask(REQUEST)

    with ChatStandIn(answer=answer) as chat:
        return asyncio.run(main(chat.url))


def message(**fields):
    """An answer whose message has these fields."""

    def change(answer):
        answer["choices"][0]["message"] = {"role": "assistant", **fields}
        return answer

    return change


def events(*pieces, end="data: [DONE]\n\n", usage=None, **last):
    lines = [": a comment\n\n"]
    for piece in pieces:
        lines.append(f"data: {json.dumps({'model': 'm', 'choices': [{'index': 0, 'delta': piece}]})}\r\n\r\n")
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", **last}], "usage": usage}
    return ("".join(lines) + f"event: x\ndata: {json.dumps(last)}\n\n" + end).encode()


HALF = len(TEXT) // 2
TWO = [{"content": TEXT[:HALF]}, {"content": TEXT[HALF:]}]


@pytest.mark.parametrize(
    "answer",
    [
        message(content=TEXT),
        message(content=[{"type": "text", "text": TEXT[:HALF]}, {"type": "text", "text": TEXT[HALF:]}]),
        message(content=[TEXT[:HALF], {"text": TEXT[HALF:]}]),
        message(content=[{"type": "output_text", "text": {"value": TEXT}}]),
        message(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": TEXT}]),
        message(content={"type": "text", "text": TEXT}),
        message(content=TEXT, reasoning="Is it arid? Answer: arid"),
        message(content=TEXT, reasoning_content="Is it arid? Answer: arid", refusal=None, tool_calls=None),
        message(content=TEXT, refusal=""),
        message(content=TEXT, refusal="I would rather not."),
        lambda answer: answer | {"choices": [{"text": TEXT, "finish_reason": "stop"}]},
        lambda answer: answer | {"choices": {"message": {"content": TEXT}}},
        lambda answer: answer | {"choices": [{"message": TEXT}]},
        lambda answer: answer | {"choices": [{"message": {"content": None}}, *answer["choices"]]},
        lambda answer: {"model": "m", "message": {"content": TEXT}, "done_reason": "stop"},
        lambda answer: {"choices": answer["choices"]},
        lambda answer: answer | {"model": 7, "id": None, "created": "now", "choices": [answer["choices"][0] | {"index": "a"}]},
        lambda answer: answer | {"error": None},
        lambda answer: answer | {"error": {"message": "a warning"}},
        lambda answer: [answer],
        lambda answer: b"\xef\xbb\xbf" + json.dumps(answer).encode(),
        lambda answer: b"\n\n  \n" + json.dumps(answer).encode() + b"\n",
        lambda answer: json.dumps(answer).encode() + b'{"choices": []}',
        lambda answer: json.dumps(answer).encode() + b"\n\ndata: [DONE]",
        lambda answer: events(*TWO),
        lambda answer: events(*TWO, end=""),
        lambda answer: b'data: {"choices": [{"index": 1, "delta": {"content": "another"}}]}\n\n' + events(*TWO),
        lambda answer: events({"reasoning": "Is it arid?"}, *TWO, {"content": "", "reasoning_content": None}),
        lambda answer: events(*[{"content": [{"type": "text", "text": it["content"]}]} for it in TWO]),
        lambda answer: b"data: not json\n\ndata: 7\n\n" + events(*TWO),
    ],
)  # fmt: skip
def test_a_reply_is_read_in_whatever_form_it_comes(answer):
    reply = ask(answer)
    assert reply.text == TEXT and reply.finish_reason == "stop"
    assert reply.prompt_tokens > 0 and reply.completion_tokens > 0


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (message(content=None), Unusable, "was empty$"),
        (message(content=[]), Unusable, "was empty$"),
        (message(content=" \n"), Unusable, "was empty$"),
        (message(content=None, reasoning_content=TEXT), Unusable, "empty: all of it is thoughts; --max-reply-tokens"),
        (message(content=[{"type": "reasoning", "summary": ["Hm."]}]), Unusable, "empty: all of it is thoughts"),
        (message(content=None, refusal="I can't help."), Unusable, "the teacher refuses: I can't help"),
        (message(content=[{"type": "refusal", "refusal": "No."}]), Unusable, "the teacher refuses: No"),
        (lambda it: it | {"choices": [it["choices"][0] | {"finish_reason": "content_filter"}]}, Unusable, "filter"),
        (lambda it: it | {"choices": [it["choices"][0] | {"finish_reason": "MAX_TOKENS"}]}, Unusable, "cut off after 50"),
        (lambda it: events(*TWO, finish_reason="length"), Unusable, "cut off"),
        (lambda it: events(*TWO).partition(b"event: x")[0], NoAnswer, "breaks off before its end"),
        (lambda it: b"", NoAnswer, "the answer is empty"),
        (lambda it: b"[]", NoAnswer, "no JSON object"),
        (lambda it: b"<html>busy</html>", NoAnswer, "no whole JSON .*<html>busy"),
        (lambda it: b"[" * 100_000, NoAnswer, "no whole JSON"),
        (lambda it: it | {"choices": None}, NoAnswer, "no choices"),
        (lambda it: {"message": "the model is busy"}, NoAnswer, "no choices"),
        (lambda it: {"error": {"message": "come back later"}}, NoAnswer, "come back later"),
        (lambda it: {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, NoAnswer, "429: slow down"),
        (lambda it: {"error": {"message": "slow down", "code": 429}}, NoAnswer, "slow down"),
        (lambda it: {"object": "error", "message": "too long", "code": 400}, Unusable, r"\(400\): too long"),
        (lambda it: {"error": {"message": "too long", "type": "invalid_request_error"}}, Unusable, "too long"),
        (lambda it: {"error": {"message": "no such", "type": "not_found_error"}}, TeacherError, "no such"),
        (lambda it: {"error": {"message": "who?", "code": "invalid_api_key"}}, TeacherError, "no key was found.*who"),
        (lambda it: {"error": {"message": "pay", "code": "insufficient_quota"}}, TeacherError, "to be paid .*402: pay"),
        (lambda it: {"error": "invalid_request: no"}, Unusable, "no"),
        (lambda it: {"detail": "the model is loading"}, NoAnswer, "the model is loading"),
        (lambda it: it | {"choices": [{"error": {"code": 502, "message": "gone"}, "finish_reason": "error"}]}, NoAnswer, "gone"),
        (lambda it: b'data: {"error": {"message": "overloaded", "type": "overloaded_error"}}\n\n', NoAnswer, "overloaded"),
    ],
)  # fmt: skip
def test_what_is_no_reply_is_said(answer, kind, said):
    with pytest.raises(kind, match=said) as caught:
        ask(answer)
    if kind is NoAnswer:
        # What may have been paid counts; an error was not.
        assert caught.value.paid == ("error" not in str(caught.value) and "loading" not in str(caught.value))
        assert caught.value.crowded == ("429" in str(caught.value) or "529" in str(caught.value))
    if kind is Unusable and "(400)" not in said and "too long" not in said and said != "no":
        assert caught.value.reply.completion_tokens > 0 or "empty" in said


@pytest.mark.parametrize("content", [5, 2.5, True, {"rationale": "It rains.", "n": None}])
def test_a_content_that_is_no_text_is_its_json(content):
    assert json.loads(ask(message(content=content)).text) == content


def test_half_a_surrogate_pair_is_no_end(tmp_path):
    reply = ask(lambda it: json.dumps(it).replace(SENTINEL, "\\ud83d \\ud83d\\ude00").encode())
    assert "\ufffd \U0001f600" in reply.text and reply.text.encode()


LENGTH = {"prompt": 10, "completion": 20}


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}, (7, 5, False)),
        ({"input_tokens": 7, "output_tokens": 5}, (7, 5, False)),
        ({"prompt_tokens": "7", "completion_tokens": 5.0}, (7, 5, False)),
        (None, (10, 20, True)),
        ({}, (10, 20, True)),
        ("many", (10, 20, True)),
        ([7, 5], (10, 20, True)),
        ({"prompt_tokens": -7, "completion_tokens": -5}, (10, 20, True)),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, (10, 20, True)),
        ({"prompt_tokens": "few", "completion_tokens": None}, (10, 20, True)),
        ({"prompt_tokens": True, "completion_tokens": [5]}, (10, 20, True)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (10, 20, True)),
        ({"prompt_tokens": 7}, (7, 20, True)),
        ({"completion_tokens": 5}, (10, 5, True)),
        # What thoughts took shows in the total alone, or beside it.
        ({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 100}, (7, 93, False)),
        ({"prompt_tokens": 7, "total_tokens": 100}, (7, 93, False)),
        ({"completion_tokens": 5, "total_tokens": 100}, (95, 5, False)),
        ({"total_tokens": 100}, (10, 90, True)),
        ({"total_tokens": 12}, (10, 20, True)),
        ({"prompt_tokens": 7, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 30}}, (7, 35, False)),
        ({"prompt_tokens": 7, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 4}}, (7, 5, False)),
        ({"prompt_tokens": 7, "completion_tokens": 5, "completion_tokens_details": "none"}, (7, 5, False)),
        ({"prompt_tokens": 10**400, "completion_tokens": 5}, (10, 5, True)),
    ],
)  # fmt: skip
def test_what_is_not_told_is_estimated(usage, tokens):
    assert tokens_of(usage, 10, 20) == tokens
    said = json.dumps(usage).encode()
    reply = ask(lambda it: json.dumps(it | {"usage": "U"}).encode().replace(b'"U"', said))
    assert reply.text == TEXT and reply.estimated == tokens[2]
    size = sum(len(it["content"]) for it in REQUEST) / 4
    assert reply.prompt_tokens == (tokens[0] if tokens[0] != 10 else pytest.approx(size, abs=2))
    if tokens[1] == 20:
        assert reply.completion_tokens == pytest.approx(len(TEXT) / 4, abs=1)


def test_thoughts_that_nobody_counted_are_counted():
    reply = ask(lambda it: message(content=TEXT, reasoning="Hm. " * 400)(it) | {"usage": None})
    assert reply.completion_tokens == pytest.approx(len(TEXT) / 4 + 400, abs=2) and reply.estimated


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<Thought>", "</Thought>"), ("<reasoning>", "</reasoning>"),
        ("<seed:think>", "</seed:think>"), ("<longcat_think>", "</longcat_think>"), ("<mm:think>", "</mm:think>"),
        ("<reflection>", "</reflection>"), ("<scratchpad>", "</scratchpad>"), ("<analysis>", "</analysis>"),
        ("<inner_thoughts>", "</inner_thoughts>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<｜begin▁of▁thinking｜>", "<｜end▁of▁thinking｜>"), ("<|thinking|>", "<|/thinking|>"),
        ("<unused94>thought\n", "<unused95>"), ("<|inner_prefix|>", "<|inner_suffix|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("<|channel>thought\n", "<channel|>"), ("```thinking\n", "\n```\n"),
        ("Here is my thought process:\n", "\nHere is my response:\n"),
    ],
)  # fmt: skip
def test_thoughts_are_left_out_in_whatever_marks(before, after):
    thought = f"It may be arid. {SENTINEL}\nAnswer: arid"
    for reply in (f"{before}{thought}{after}{TEXT}", f"{before}{thought}{after}\n\n{TEXT}<|im_end|>"):
        parsed = parse_reply(reply, ["soaked", "arid"])
        assert (parsed.rationale, parsed.answer) == (good(0).strip(), "soaked")
    assert parse_reply(TEXT, ["soaked", "arid"]).rationale == good(0).strip()
    if before[0] in "<[◁":
        assert without_thoughts(before + thought).strip() == ""
        assert without_thoughts(f"{before}a{after}b{before}c{after}{TEXT}")[-len(TEXT) :] == TEXT
        assert without_thoughts(f"x{before}a{after}y{after}{TEXT}") == TEXT
        assert "It may" not in without_thoughts(thought + after + TEXT)  # of a template that opens the thought itself


def test_a_heading_is_no_thought_and_an_answers_marks_go():
    for reply in (f"[Reasoning] {TEXT}", f"Here is my thought process:\n{TEXT}", f"```thinking of rain\n{TEXT}"):
        assert good(0).strip() in parse_reply(reply, ["soaked"]).rationale
    assert parse_reply(f"<answer>{TEXT}</answer>", ["soaked"]).answer == "soaked"


@pytest.mark.parametrize(
    "piece", ["<think>", "</think>", "*", "> ", "\n", "```\n", "Answer: ", "[END OF ", "<|", "Here is "]
)
def test_a_degenerate_reply_of_100_kb_is_read_in_milliseconds(piece):
    reply = piece * (100_000 // len(piece))
    started = time.perf_counter()
    parse_reply(reply, ["soaked", "arid"])
    assert time.perf_counter() - started < 0.5  # quadratic, it takes minutes


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        *((f"http://localhost:8000{end}", "http://localhost:8000/v1") for end in (
            "", "/", "/v1", "/v1/", "//v1//", "/v1/chat/completions", "/v1/chat/completions/", "/v1/completions", "/v1/models",
            "/v1/responses", "/chat/completions",
        )),
        ("localhost:8000", "http://localhost:8000/v1"),
        ("gpu-1.lan:8000/v1", "http://gpu-1.lan:8000/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
        *((f"http://localhost:11434{end}", "http://localhost:11434/v1") for end in ("", "/api", "/api/chat", "/api/generate")),
        ("https://api.openai.com", "https://api.openai.com/v1"),
        ("https://openrouter.ai", "https://openrouter.ai/api/v1"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
        ("https://api.groq.com/openai/v1/chat/completions", "https://api.groq.com/openai/v1"),
        ("https://generativelanguage.googleapis.com", "https://generativelanguage.googleapis.com/v1beta/openai"),
        ("https://mine.openai.azure.com", "https://mine.openai.azure.com/openai/v1"),
        ("https://mine.openai.azure.com/openai", "https://mine.openai.azure.com/openai/v1"),
        ("https://x.example/compatible-mode/v1/chat/completions", "https://x.example/compatible-mode/v1"),
        ("http://webui.example:3000/api", "http://webui.example:3000/api"),
        ("https://Host.Example/V1", "https://host.example/V1"),
    ],
)  # fmt: skip
def test_a_base_url_is_known_whatever_it_ends_in(typed, url):
    assert base_url(typed if "://" in typed else f"http://{typed}")[0] == url
    if "localhost" in typed or "://" not in typed:
        assert open_teacher(typed, "m").name == url


@pytest.mark.parametrize("end", ["", "/v1", "/v1/models", "/v1/chat/completions/"])
def test_and_is_asked_there(end):
    with ChatStandIn() as chat:

        async def main():
            async with open_teacher(chat.url.removesuffix("/v1") + end) as teacher:
                return (await teacher.ask(REQUEST)).text

        assert asyncio.run(main()) == TEXT


@pytest.mark.parametrize("typed", ["http://", "http://user:pass-word@:1/v1", "http://host:port/v1?key=pass-word"])
def test_a_url_without_a_host_is_said_without_its_secrets(typed):
    with pytest.raises(ValueError, match="names no host") as caught:
        open_teacher(typed, "m")
    assert "pass-word" not in str(caught.value)


def test_a_reasoning_model_of_openai_gets_its_own_limit():
    def answer(asked):
        if "max_tokens" in asked:
            return 400, {
                "error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}
            }
        return None

    async def main(url):
        async with open_teacher(url, sampling=Sampling(max_reply_tokens=77)) as teacher:
            with pytest.raises(NoAnswer, match="max_completion_tokens") as caught:
                await teacher.ask(REQUEST)
            assert caught.value.retry_after == 0 and not caught.value.paid
            return await teacher.ask(REQUEST)

    with ChatStandIn(before=answer) as chat:
        chat.keep_bodies = True
        assert asyncio.run(main(chat.url)).text == TEXT
        assert chat.bodies[-1]["max_completion_tokens"] == 77


def test_requests_that_were_under_way_get_that_limit_too():
    def answer(asked):
        return (400, {"error": {"message": "Use 'max_completion_tokens'."}}) if "max_tokens" in asked else None

    async def main(url):
        async with open_teacher(url) as teacher:
            return await asyncio.gather(*(teacher.ask(REQUEST) for _ in range(4)), return_exceptions=True)

    with ChatStandIn(before=answer) as chat:
        assert [type(it) for it in asyncio.run(main(chat.url))] == [NoAnswer] * 4


def secrets_told(url, sampling, **options):
    """All that an error says where a server repeats what it was sent."""
    with pytest.raises((Unusable, NoAnswer, TeacherError)) as caught:
        asyncio.run(_ask_once(url, sampling, **options))
    return str(caught.value)


async def _ask_once(url, sampling=None, **options):
    async with open_teacher(url, "stand-in", sampling, **options) as teacher:
        return await teacher.ask(REQUEST)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_no_secret_is_in_an_error(status, monkeypatch):
    monkeypatch.setenv("MINE", "key-abcdef")
    extra = {
        "api_key": "body-secret",
        "nested": [{"authToken": "deep-secret"}],
        "max_tokens": 5,
        "stop": ["no secret"],
    }

    def echo(asked, headers):
        return status, {"error": {"message": f"can't take {json.dumps(asked)[-300:]} {headers}"}}

    with ChatStandIn(before=echo) as chat:
        url = chat.url.replace("://", "://user:pass-word@") + "?token=query-secret"
        said = secrets_told(url, Sampling(extra_body=extra), api_key_env="MINE")
        with_login = secrets_told(url, Sampling(extra_body=extra))
        assert chat.authorizations[0] == "Bearer key-abcdef" and chat.authorizations[-1].startswith("Basic ")
    for secret in ("key-abcdef", "body-secret", "deep-secret", "pass-word", "query-secret"):
        assert secret not in said + with_login
    # Nor the half of one that stands where a long message is cut.
    with ChatStandIn(before=lambda asked: (status, {"error": {"message": f"{'x' * 295}key-abcdef"}})) as chat:
        assert "key-" not in secrets_told(chat.url, Sampling(), api_key_env="MINE")
    shown = json.dumps(Sampling(extra_body=extra | {"auth": {"user": "deep-secret"}}).settings())
    assert not re.search("body-secret|deep-secret", shown) and "no secret" in shown and '"max_tokens": 5' in shown


def test_a_short_secret_is_left_in_a_reply_where_it_may_be_a_word():
    async def main(url):
        async with open_teacher(url.replace("://", "://me:rain@"), "stand-in") as teacher:
            return (await teacher.ask(REQUEST)).text

    with ChatStandIn(answer=message(content="Of rain one gets wet.")) as chat:
        assert asyncio.run(main(chat.url)) == "Of rain one gets wet."


def test_a_server_that_has_answered_and_is_gone_may_come_back():
    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head)[1]))
        body = json.dumps({"choices": [{"message": {"content": TEXT}}]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    async def main():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with open_teacher(url, "m", timeout=10) as teacher:
            assert (await teacher.ask(REQUEST)).text == TEXT
            server.close()
            with pytest.raises(NoAnswer, match="Connect") as caught:
                await teacher.ask(REQUEST)
            assert not caught.value.paid

    asyncio.run(main())


def test_a_model_that_has_answered_is_not_looked_for_again():
    def answer(asked):
        refused = 400, {"error": {"message": "this model takes no such row"}}
        return refused if "case 1" in asked["messages"][1]["content"] else None

    async def main(chat):
        async with open_teacher(chat.url, "alias") as teacher:
            chat.models = ("alias",)
            await teacher.ask(REQUEST)
            chat.models = ("stand-in",)
            with pytest.raises(Unusable, match="takes no such row"):
                await teacher.ask(TeacherPrompt(["soaked", "arid"]).messages(rows(2)[1], "arid"))

    with ChatStandIn(before=answer) as chat:
        asyncio.run(main(chat))


def test_a_key_does_not_follow_a_redirect(monkeypatch):
    monkeypatch.setenv("MINE", "key-abcdef")
    with (
        ChatStandIn() as other,
        ChatStandIn(before=lambda asked: (307, {}, {"Location": f"{other.url}/x?y=1"})) as chat,
    ):
        with pytest.raises(TeacherError, match=re.escape(f"sends on to {other.url}/x (307)")):
            asyncio.run(_ask_once(chat.url, api_key_env="MINE"))
        assert not other.authorizations


def test_what_the_environment_says_of_an_account_stays_at_its_origin(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key-abcdef")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Account: mine\nAuthorization: Bearer other")
    with ChatStandIn() as chat:
        asyncio.run(_ask_once(chat.url))
        assert chat.authorizations == [None]
        assert not [name for name in chat.headers[0] if name in ("openai-organization", "openai-project", "x-account")]
        monkeypatch.setenv("OPENAI_BASE_URL", chat.url)
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Account: mine")
        asyncio.run(_ask_once(chat.url))
        assert chat.headers[1]["x-account"] == "mine" and chat.headers[1]["openai-organization"] == "org-1"
        assert chat.authorizations[1] == "Bearer key-abcdef"


def test_this_machine_is_asked_directly_whatever_proxy_there_is(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ChatStandIn() as chat:
        assert asyncio.run(_ask_once(chat.url)).text == TEXT


def test_as_many_requests_are_under_way_as_may_be():
    async def main(url):
        async with open_teacher(url, "stand-in", concurrency=130) as teacher:
            await asyncio.gather(*(teacher.ask(REQUEST) for _ in range(130)))

    with ChatStandIn(latency=1.0) as chat:
        asyncio.run(main(chat.url))
        assert chat.most_active == 130
