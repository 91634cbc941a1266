"""What a generation says and writes down, to the letter: its sentences, its manifest, its journal, its files."""

import asyncio
import io
import json
import sys
import time
from types import SimpleNamespace

import pytest
from chat_stand_in import ChatStandIn, rows

from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.rationales import journal as journals
from dhrd_hf.rationales import teacher as pacing
from dhrd_hf.rationales.checks import ReplyChecks
from dhrd_hf.rationales.generate import generate_rationales
from dhrd_hf.rationales.journal import Budget, BudgetSpent, Journal, request_key
from dhrd_hf.rationales.outputs import OutputFiles, take_rationales
from dhrd_hf.rationales.prompt import LabelledTable, TeacherPrompt
from dhrd_hf.rationales.teacher import NoAnswer, Pace, Sampling, TeacherError, open_teacher


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.01)


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def generate(chat, folder, count=4, given=None, concurrency=1, sampling=None, **options):
    write_rows(folder / "rows.jsonl", given or rows(count))
    table, said = LabelledTable(folder / "rows.jsonl"), []
    teacher = open_teacher(chat.url, sampling=sampling, concurrency=concurrency)
    prompt = TeacherPrompt(table.labels)
    counts = generate_rationales(table, prompt, teacher, folder / "rationales.jsonl", say=said.append, **options)
    return counts, said


def test_what_a_run_says_and_writes_down(tmp_path, monkeypatch):
    monkeypatch.setattr(pacing, "TRIES", 2)
    plan = {1: ["leak"], 2: ["429"], 3: ["500", "500"]}
    given = rows(4)
    given[0]["note"] = "ß"
    with ChatStandIn(lambda row: plan.get(row, [])) as chat:
        budget = Budget(price_input=1.0, price_output=2.0)
        counts, said = generate(chat, tmp_path, given=given, retries=0, budget=budget)
        assert vars(counts) == {
            "rows": 4, "accepted": 2, "rejected": 1, "pending": 1, "rationales": 2, "rejected_by": {"label_leak": 1},
        }  # fmt: skip
        assert said == [
            "accepted 2 + rejected 1 + pending 1 = 4 rows; rejected for: label_leak 1",
            "This run: 6 requests, 3 of them without an answer (1 were too many for the endpoint). All runs: 3 replies, "
            "300 prompt tokens, 150 reply tokens, cost 0.0006.",
            "Rows are pending (1 x an error, status 500: told to fail): to go on, start the same command.",
        ]
        manifest = json.loads((tmp_path / "rationales.manifest.json").read_text())
        assert manifest.pop("versions").keys() == {"python", "dhrd-hf", "openai", "transformers"}
        assert manifest.pop("started") <= manifest.pop("written")
        prompt = TeacherPrompt(["arid", "soaked"]).settings()
        assert manifest == {
            "format": 1, "status": "pending rows", "prompt_version": prompt["version"], "teacher": chat.url,
            "models_returned": {"stand-in-2026": 3}, "max_reply_tokens": 1024, "retries": 0,
            "settings": {
                "model": "stand-in", "sampling": {"temperature": 0.7, "max_reply_tokens": 1024}, "samples": 1,
                "prompt": manifest["settings"]["prompt"],
            },
            "checks": json.loads(json.dumps(ReplyChecks().settings())),
            "usage": {
                "requests": 6, "replies": 3, "prompt_tokens": 300, "completion_tokens": 150, "estimated": 0,
                "unanswered": 0, "lost": [0, 0], "price_input": 1.0, "price_output": 2.0, "cost": 0.0006,
            },
            "data": {"source": str(tmp_path / "rows.jsonl"), "rows": 4, "label_column": "label"},
            "counts": vars(counts),
            "files": {"output": "rationales.jsonl", "rejected": "rejected.jsonl", "replies": "rationales.replies.jsonl"},
        }  # fmt: skip
        written = read(tmp_path / "rationales.replies.jsonl")
        assert [next(it for it in ("sent", "void", "reply") if it in line) for line in written] == [
            "sent", "reply", "sent", "reply", "sent", "void", "sent", "reply", "sent", "void", "sent", "void",
        ]  # fmt: skip
        assert [written[n].keys() - {"key", "sample"} for n in (0, 1, 5)] == [
            {"sent"}, {"reply", "finish_reason", "model", "usage", "at"}, {"void"},
        ]  # fmt: skip
        assert written[1]["usage"] == {"prompt_tokens": 100, "completion_tokens": 50} and written[1]["sample"] == 0
        assert written[0]["sent"][1] == 1024 and written[2]["sent"] == [100, 50]
        assert written[5]["void"] == "an error, status 429: Rate limit reached"
        (rejected,) = read(tmp_path / "rejected.jsonl")
        assert (rejected["id"], rejected["key"], rejected["tries"]) == ("r1", "r1", 1)

        budget = Budget(max_requests=7, price_output=2.0)
        counts, said = generate(chat, tmp_path, given=[*given, *rows(6)[4:]], retries=0, budget=budget)
        assert (counts.accepted, counts.pending, sum(chat.asked.values())) == (3, 2, 7)
        assert said[1].startswith("This run: 1 requests, 0 of them") and "All runs: 4 replies, 400 prompt" in said[1]
        assert (
            said[2]
            == "The budget is spent: 7 of 7 requests (max_requests). To go on, raise it and start the same command."
        )
        counts, said = generate(chat, tmp_path, given=[*given, *rows(6)[4:]], retries=0, budget=Budget(max_requests=0))
        assert counts.pending == 2 and said[1].startswith("This run: 0 requests") and len(said) == 3


def test_samples_are_counted_and_rows_that_lack_their_input_are_not_asked(tmp_path):
    empty = [None, " ", float("nan"), "\u200b\n"]
    given = [*rows(3), *(row | {"text": text} for row, text in zip(rows(7)[3:], empty, strict=True))]
    with ChatStandIn(lambda row: ["forever:leak"] if row == 1 else []) as chat:
        counts, said = generate(chat, tmp_path, given=given, samples=2, retries=1)
        assert "accepted 2 + rejected 5 + pending 0 = 7 rows; 4 rationales; rejected for: no_input 4" in said[0]
        assert (chat.asked[0], chat.asked[1], sum(chat.asked.values())) == (2, 4, 8)
    rejected = {row["id"]: row for row in read(tmp_path / "rejected.jsonl")}
    assert rejected["r1"]["tries"] == 4 and rejected["r3"]["tries"] == 0
    assert all(rejected[f"r{n}"]["why"] == {"no_input": "Column 'text' is empty."} for n in range(3, 7))
    written = read(tmp_path / "rationales.replies.jsonl")
    assert {line["sample"] for line in written} == {0, 1}
    assert json.loads((tmp_path / "rationales.manifest.json").read_text())["status"] == "finished"


def test_what_a_journal_holds_that_is_no_record_is_counted_and_asked_again(tmp_path):
    with ChatStandIn() as chat:
        generate(chat, tmp_path, 3)
        path = tmp_path / "rationales.replies.jsonl"
        strange = [
            {"sent": [1, 1]}, {"key": "zz", "sent": [1, 1]}, {"key": 5}, {"key": "00", "sample": -1}, {"key": "00", "sent": 3},
            {"key": "00", "sent": [1]}, {"key": "00", "sent": ["x", 1]}, {"key": "00", "usage": 5}, [1],
        ]  # fmt: skip
        with open(path, "a") as file:
            file.write("".join(json.dumps(it) + "\n" for it in strange) + '{"key": "0')
        counts, said = generate(chat, tmp_path, 3)
        assert counts.accepted == 3 and sum(chat.asked.values()) == 3
        assert said[:2] == [
            f"A half-written line, 10 bytes, is cut off {path}.",
            f"9 lines of {path} can't be read: their rows are asked again.",
        ]
    # How replies are filed must not change: whoever goes on with a file of before would pay for them again.
    messages = [{"role": "user", "content": "Naß?"}]
    assert request_key(messages, "wet", "m", {"temperature": 0.7, "seed": 1}) == "e09e3cfcedb0df174ca1eff58e8ad3ca"


def test_a_line_of_the_journal_counts_when_it_is_read_as_when_it_was_written(tmp_path):
    one, other = (key * 16 + b"\0\0" for key in (b"a", b"b"))
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    with Journal(tmp_path / "x.jsonl") as written:
        written.write(one, sent=[7, 1024])
        written.write(one, void="an error, status 500")
        written.write(one, sent=[7, 1024])
        written.write(one, failed="the reply was empty", usage=usage, model="m")
        written.write(one, sent=[10, 5])
        written.write(one, sent=[10, 6])  # the answer to the one before never came
        written.write(one, reply="So.", usage=usage | {"estimated": True})
        written.write(other, sent=[20, 30])
        written.lose(written.slots[other])
    with Journal(tmp_path / "x.jsonl") as again:
        again.load()
        slot = again.slots[one]
        assert again.reply(slot.replies[0]) == "So." and (len(slot.replies), slot.unusable, slot.sent) == (1, 1, None)
    assert again.budget == written.budget and again.slots == written.slots and again.models == {"m": 1, "unnamed": 1}
    budget = again.budget
    assert (budget.requests, budget.replies, budget.estimated, budget.unanswered) == (5, 2, 1, 2)
    assert (budget.tokens, budget.lost) == (95, (30, 35))


def test_why_rows_are_left_is_told_in_short_and_so_is_what_a_batch_brought(tmp_path, monkeypatch):
    monkeypatch.setattr(pacing, "TRIES", 1)
    reasons = ["x" * 290, "x" * 290, "b", "b", "c", "d"]

    def answer(asked):
        case = int(asked["messages"][1]["content"].partition("case ")[2].partition(":")[0])
        return 500, {"error": {"message": reasons[case]}}

    with ChatStandIn(before=answer) as chat:
        counts, said = generate(chat, tmp_path, 6)
        long = "an error, status 500: " + "x" * 178
        told = f"2 x {long}; 2 x an error, status 500: b; 1 x an error, status 500: c"
        assert said[2] == f"Rows are pending ({told}): to go on, start the same command." and counts.pending == 6
        voids = [it["void"] for it in read(tmp_path / "rationales.replies.jsonl") if "void" in it]
        assert voids[0] == long and len(voids) == 6

        requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
        (tmp_path / "batch").mkdir()
        batch = {"given": [rows(1)[0] | {"text": "This is case 0: ß."}, *rows(3)[1:]], "concurrency": 2}
        model = open_teacher(chat.url, "stand-in")
        monkeypatch.setitem(globals(), "open_teacher", lambda *_, **__: model)
        _, said = generate(chat, tmp_path / "batch", batch_write=requests, budget=Budget(max_requests=2), **batch)
        assert said[:2] == [
            f"2 requests are in {requests}. When a batch service has answered them: the same command with --batch-read RESULTS",
            "1 requests more are left out, for which the budget has no room.",
        ]
        assert "ß" in requests.read_text(encoding="utf-8") and len(read(requests)) == 2
        first, second = (it["custom_id"] for it in read(requests))
        body = {"choices": [{"message": {"content": "So."}, "finish_reason": "stop"}], "model": "m"}
        lines = [
            {"custom_id": first, "error": {"message": "x" * 300}, "response": None},
            {"custom_id": second, "response": {"body": json.dumps(body)}},  # as some services write it
            {"custom_id": "of another", "response": {"body": body, "status_code": 200}},
        ]
        results.write_text("".join(json.dumps(it) + "\n" for it in lines) + " \nx\n")
        counts, said = generate(chat, tmp_path / "batch", batch_read=results, **batch)
        assert said[0] == (
            f"1 replies are taken from {results}, 1 requests have none, 1 lines are of requests that are not open: answered "
            "before, or of another table, 1 lines can't be read."
        )
        assert said[3] == f"Rows are pending (1 x status 200: {'x' * 188}): to go on, start the same command."
        usage = json.loads((tmp_path / "batch" / "rationales.manifest.json").read_text())["usage"]
        assert (usage["requests"], usage["replies"], usage["estimated"], counts.pending) == (1, 1, 1, 3)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_shown_where_it_is_wanted_and_stderr_is_a_terminal(tmp_path, monkeypatch):
    shown = []
    with ChatStandIn() as chat:
        for number, (progress, stderr) in enumerate([(True, Terminal()), (False, Terminal()), (True, io.StringIO())]):
            (tmp_path / str(number)).mkdir()
            monkeypatch.setattr(sys, "stderr", stderr)
            budget = Budget(price_output=2.0)
            generate(chat, tmp_path / str(number), 3, progress=progress, budget=budget, concurrency=2)
            shown.append(stderr.getvalue())
    assert "0/3 [" in shown[0] and " 3/3 [" in shown[0] and "tokens=450, cost=0.0003, at_a_time=2]" in shown[0]
    assert shown[1:] == ["", ""]


def test_a_disk_that_fails_later_is_told_and_all_is_on_it_in_time(tmp_path, monkeypatch):
    synced, fails = [], []

    def fsync(_):
        synced.append(1)
        if fails:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(journals, "_SYNC", 0.01)
    monkeypatch.setattr(journals, "os", SimpleNamespace(fsync=fsync, SEEK_END=2))
    with Journal(tmp_path / "x.jsonl") as journal:
        places = [journal.append({"reply": text}) for text in ("ß", "b")]
        assert places == [0, len('{"reply": "ß"}\n'.encode())] and [journal.reply(it) for it in places] == ["ß", "b"]
        deadline = time.monotonic() + 5
        while not synced and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.05)
        assert 1 <= len(synced) <= 2  # and not again where nothing came
        synced.clear()
        journal.append({"reply": "c"})
    assert len(synced) == 1  # what came last is on the disk when it is closed
    fails.append(1)
    with ChatStandIn(latency=0.02) as chat, pytest.raises(OSError) as caught:
        generate(chat, tmp_path, 8)
    assert str(caught.value) == (
        f"can't write {tmp_path}: Input/output error. What was done so far is kept in "
        f"{tmp_path / 'rationales.replies.jsonl'}; when there is room, start the same command to go on"
    )


def test_what_was_paid_without_use_is_told_and_the_first_error_is_the_one_that_is(tmp_path, monkeypatch):
    with ChatStandIn(lambda row: {1: ["cut before"], 2: ["null", "cut off"]}.get(row, [])) as chat:
        counts, said = generate(chat, tmp_path, 3)
        lost = " 1 requests without an answer may have been paid, 150 tokens at most."
        assert said[1].endswith("5 replies, 500 prompt tokens, 250 reply tokens." + lost) and len(said) == 2
        assert said[1].startswith("This run: 6 requests, 1 of them without an answer (0 were too many")
        failed = [it["failed"] for it in read(tmp_path / "rationales.replies.jsonl") if "failed" in it]
        cut = "the reply was cut off after 50 tokens; --max-reply-tokens allows more"
        assert failed == ["the reply was empty", cut] and counts.accepted == 3
        _, said = generate(chat, tmp_path, 3)
        assert said[1].startswith("This run: 0 requests, 0 of") and said[1].endswith(lost) and len(said) == 2

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def revoked(asked):
        monkeypatch.setattr(OutputFiles, "write_manifest", full)
        return 401, {"error": {"message": "revoked"}}

    (tmp_path / "b").mkdir()
    with ChatStandIn(before=revoked) as chat, pytest.raises(TeacherError, match="revoked"):
        generate(chat, tmp_path / "b")
    # Where nothing was begun yet, nothing is said to be kept.
    monkeypatch.setattr(OutputFiles, "read_manifest", full)
    with ChatStandIn() as chat, pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device$"):
        generate(chat, tmp_path / "b")


@pytest.fixture
def clock(monkeypatch):
    """Time that passes where it is waited for, and only there; the waits, and the longest that was drawn for each."""
    now, waits, sleep = [1000.0], [], pacing.asyncio.sleep

    async def passes(seconds):
        waits.append(round(seconds, 6))
        now[0] += seconds
        await sleep(0)

    def uniform(low, high):
        assert (low, high) == (0.5, 1.0)
        return high

    clock = SimpleNamespace(**{name: getattr(time, name) for name in ("strftime", "gmtime")}, localtime=time.gmtime)
    clock.monotonic, clock.time = lambda: now[0], lambda: now[0]
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.5)
    monkeypatch.setattr(pacing, "time", clock)
    monkeypatch.setattr(pacing, "random", SimpleNamespace(uniform=uniform))
    monkeypatch.setattr(pacing, "asyncio", SimpleNamespace(sleep=passes))
    return SimpleNamespace(now=now, waits=waits)


def asks(pace, *answers):
    """One request after the other; what the teacher brings, errors and replies, and the limit after each."""
    answers, limits = list(answers), []

    async def request():
        limits.append(round(pace.limit, 3))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def main():
        while answers:
            await pace.ask(request)

    try:
        asyncio.run(main())
    finally:
        limits.append(round(pace.limit, 3))
    return limits


def test_waits_double_and_end(clock):
    with pytest.raises(NoAnswer, match="status 500"):
        asks(Pace(2), *[NoAnswer("status 500")] * 8)
    assert clock.waits == [0.5, 1, 2, 4, 8, 16, 32]
    clock.waits.clear()
    pace = Pace(2, tries=10)
    assert asks(pace, *[NoAnswer("status 500")] * 9, "fine") == [2.0] * 11
    assert clock.waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60] and (pace.requests, pace.errors, pace.crowded) == (
        10,
        9,
        0,
    )


def test_the_limit_halves_to_one_and_grows_to_where_it_was(clock):
    crowded = [NoAnswer("status 429", crowded=True)] * 3
    assert asks(Pace(4), "fine", *crowded, "fine") == [4.0, 4.0, 2.0, 1.0, 1.0, 2.0]
    assert asks(Pace(3), *crowded[:1], *["fine"] * 5) == [3.0, 1.5, 2.167, 2.628, 3.0, 3.0, 3.0]


def test_a_wait_that_is_asked_for_is_told_once_where_it_is_long(clock):
    said = []
    pace = Pace(2, say=said.append)
    asks(pace, NoAnswer("status 503", 3.0), NoAnswer("status 503", 0.0), NoAnswer("status 503", 1.5), "fine")
    assert said == [] and clock.waits == [3.0, 0.0, 1.5]
    clock.waits.clear()
    clock.now[0] = 1000.0
    pace = Pace(2, say=said.append)
    asks(pace, NoAnswer("status 429", 100.0), NoAnswer("status 429", 300.0), NoAnswer("status 429", 1000.0), "fine")
    assert said == [
        "status 429. It asks for 100 s (Retry-After): on it goes at 00:18:20.",
        "status 429. It asks for 300 s (Retry-After): on it goes at 00:23:20.",
        "status 429. It asks for 1000 s (Retry-After), of which 300 are waited: on it goes at 00:28:20.",
    ]
    assert clock.waits == [100, 300, 300]
    # Who has not been told to wait waits as well, and looks again each second.
    clock.waits.clear()
    pace._give_way(NoAnswer("status 429", 2.5), clock.now[0])
    pace._give_way(NoAnswer("status 429", 3.2), clock.now[0])  # not told again for less than a second more
    asks(pace, "fine")
    assert clock.waits == [1.0, 1.0, 1.0, pytest.approx(0.2)] and len(said) == 3


def test_a_budget_is_checked_and_says_how_many_requests_it_has_room_for():
    for name in ("max_requests", "max_tokens", "price_input", "price_output"):
        for value in (-1, float("nan")):
            with pytest.raises(ValueError, match=f"{name}={value} must not be negative"):
                Budget(**{name: value})
    Budget(max_requests=0, max_tokens=0, max_cost=0, price_input=1)
    assert Budget().room() == float("inf") and Budget(max_requests=3, requests=1).room() == 2
    budget = Budget(max_tokens=1000, max_cost=1e-3, price_input=1.0, price_output=3.0, one=(40, 60))
    assert budget.price(1e6, 2e6) == 7 and budget.room() == pytest.approx(1000 / 220)
    budget.lose(400, 100)
    assert budget.tokens == 500 and budget.cost == pytest.approx(7e-4) and budget.room() == pytest.approx(300 / 220)
    budget.lose(400, 100)
    assert budget.room() == 0 and budget.unanswered == 2
    with pytest.raises(BudgetSpent, match=r"^1000 of 1000 tokens \(--max-total-tokens\)$"):
        budget.admit()
    budget = Budget(max_cost=1e-3, price_input=1.0, price_output=3.0, one=(40, 60), replies=1, requests=1)
    budget.settle(500, 150)
    with pytest.raises(BudgetSpent, match=r"^0.00095 of 0.001 in money \(--max-cost\)$"):
        budget.admit()
    budget = Budget(max_tokens=200, one=(30, 0), replies=3, prompt_tokens=100)
    assert budget.admit() and budget.admit() and budget.admit()
    budget.open -= 1
    budget.settle(60, 0)
    assert not budget.admit() and budget.spent is None  # what is told is what all that was under way took
    budget.settle(30, 0)
    budget.open = 0
    with pytest.raises(BudgetSpent, match="^190 of 200 tokens"):
        budget.admit()
    budget = Budget(max_requests=2)
    assert budget.admit() and budget.admit() and budget.open == 2
    assert not budget.admit() and budget.open == 2  # one that is open may come to nothing
    budget.open, budget.requests = 0, 2
    with pytest.raises(BudgetSpent, match=r"^2 of 2 requests \(max_requests\)$"):
        budget.admit()


def test_files_that_can_not_be_told_apart_or_read_are_refused(tmp_path):
    output = tmp_path / "rationales.jsonl"
    for options, message in (
        ({"output": tmp_path / "rationales.csv"}, "--output .*rationales.csv must be a .jsonl file"),
        ({"rejected": tmp_path / "rejected.csv"}, "the rejected rows: .*rejected.csv must be a .jsonl file"),
        ({"rejected": output}, "rationales.jsonl and the rejected rows are one file"),
        (
            {"rejected": tmp_path / "rationales.replies.jsonl"},
            "rationales.replies.jsonl and the rejected rows are one",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            OutputFiles(**{"output": output, **options})
    files = OutputFiles(output, tmp_path / "x" / "aside.jsonl")
    files.prepare()
    assert (tmp_path / "x").is_dir() and files.read_manifest() is None
    for broken in ("{", "[1]", "7"):
        files.manifest.write_text(broken)
        with pytest.raises(
            ValueError, match=r"manifest.json can't be read .*: remove it, or start anew by --overwrite"
        ):
            files.read_manifest()
    settings = {"a": 1, "b": {"c": 2, "same": 3}, "d": "x" * 58, "e": "x" * 59, "f": 1, "g": None}
    files.manifest.write_text(json.dumps({"settings": settings}))
    files.check_ours(settings)
    now = {"a": 2, "b": {"c": 4, "same": 3}, "d": 0, "e": {"i": 1}, "f": 2, "h": "ß"}
    with pytest.raises(ValueError, match="was written by other settings") as caught:
        files.check_ours(now)
    told = str(caught.value).partition("settings: ")[2].partition(". Repeat those, name another --output, or start")[0]
    assert told.split("; ") == [
        "a was 1 and is 2 now", "b c was 2 and is 4 now", f'd was "{"x" * 58}" and is 0 now',
        f'e was "{"x" * 59}... and is {{"i": 1}} now',
    ]  # fmt: skip
    with pytest.raises(ValueError, match='h was null and is "ß" now'):
        files.check_ours(settings | {"h": "ß"})
    # Rejected rows of the same name in another folder are another file, and so are those of another name.
    (tmp_path / "other.manifest.json").write_text(
        json.dumps({"files": {"rejected": "aside.jsonl", "output": "o.jsonl"}})
    )
    (tmp_path / "broken.manifest.json").write_text("[]")
    files.check_rejected()
    OutputFiles(output, tmp_path / "mine.jsonl").check_rejected()
    with pytest.raises(
        ValueError, match="aside.jsonl holds the rejected rows of o.jsonl: add .*rationales.rejected.jsonl"
    ):
        OutputFiles(output, tmp_path / "aside.jsonl").check_rejected()


def test_there_has_to_be_something_to_re_read(tmp_path):
    with ChatStandIn() as chat:
        with pytest.raises(ValueError, match=r"there is nothing to re-read: .*rationales.manifest.json is missing"):
            generate(chat, tmp_path, budget=Budget(max_requests=0))
        generate(chat, tmp_path)
        counts, _ = generate(chat, tmp_path, budget=Budget(max_requests=0), overwrite=True)
        assert (counts.accepted, counts.pending, sum(chat.asked.values())) == (0, 4, 4)
        assert (tmp_path / "rationales.replies.jsonl").read_text() == ""


def test_rationales_that_are_taken_are_written_with_how_they_were_checked(tmp_path):
    texts = ["Clouds bring water, ß.", "It is arid there.", None, " ", "Boots will be needed."]
    given = [row | {"why": why} for row, why in zip(rows(5), texts, strict=True)]
    given[4]["text"] = None
    write_rows(tmp_path / "rows.jsonl", given)
    table, output = LabelledTable(tmp_path / "rows.jsonl"), tmp_path / "out" / "rationales.jsonl"
    prompt = TeacherPrompt(table.labels)
    counts = take_rationales(table, prompt, output, column="why")
    assert str(counts) == "accepted 1 + rejected 2 + pending 2 = 5 rows; rejected for: label_leak 1, no_input 1"
    (accepted,) = read(output)
    assert accepted == given[0] | {"key": "r0", "rationale": texts[0]}
    first, second = read(tmp_path / "out" / "rejected.jsonl")
    assert (first["id"], list(first["why"]), first["tries"]) == ("r1", ["label_leak"], 1)
    assert (second["id"], second["why"], second["tries"]) == ("r4", {"no_input": "Column 'text' is empty."}, 0)
    manifest = json.loads((tmp_path / "out" / "rationales.manifest.json").read_text())
    assert (
        manifest["settings"] == {"model": None, "rationales": "column why"} and "label_leak" not in manifest["checks"]
    )
    said, file = [], tmp_path / "given.jsonl"
    write_rows(file, [{"key": "r0", "rationale": "Water comes down."}])
    with pytest.raises(ValueError, match='rationales was "column why" and is "file .* now'):
        take_rationales(table, prompt, output, file=file)
    counts = take_rationales(table, prompt, output, file=file, overwrite=True, say=said.append)
    assert counts.accepted == 1 and said[0].startswith(f"{file}: ")
    with pytest.raises(ValueError, match="itself, which would be lost"):
        take_rationales(table, prompt, file, file=file)
    with pytest.raises(ValueError, match="rejected.jsonl holds the rejected rows of rationales.jsonl"):
        take_rationales(table, prompt, tmp_path / "out" / "other.jsonl", column="why", overwrite=True)
    with pytest.raises(ValueError, match="no column 'nothing'"):
        take_rationales(table, prompt, tmp_path / "n.jsonl", column="nothing")


def test_the_settings_are_in_the_request_where_they_are_set(tmp_path):
    with ChatStandIn() as chat:
        chat.keep_bodies = True
        generate(chat, tmp_path, 2, sampling=Sampling(max_reply_tokens=0))
        assert chat.bodies[0].keys() - {"stream"} == {"model", "messages", "temperature"}
    assert read(tmp_path / "rationales.replies.jsonl")[0]["sent"][1] == 1024
