"""Generation against an endpoint that answers wrong on purpose: what is kept, what is asked again, what is never lost."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from chat_stand_in import BAD, EMPTY, ERRORS, FAULTS, ChatStandIn, rows

from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.rationales import teacher as pacing
from dhrd_hf.rationales.checks import ReplyChecks
from dhrd_hf.rationales.generate import Run, generate_rationales
from dhrd_hf.rationales.journal import Budget, Journal
from dhrd_hf.rationales.outputs import OutputFiles
from dhrd_hf.rationales.prompt import LabelledTable, TeacherPrompt
from dhrd_hf.rationales.teacher import Sampling, TeacherError, open_teacher


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(pacing, "FIRST_WAIT", 0.02)


def read(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def generate(chat, folder, count=40, table=None, prompt=None, sampling=None, **options):
    """Rows, their counts, and what was said."""
    folder.mkdir(exist_ok=True)
    if table is None:
        write_rows(folder / "rows.jsonl", rows(count))
        table = LabelledTable(folder / "rows.jsonl")
    said = []
    named = {name: options.pop(name) for name in ("api_key_env", "concurrency") if name in options}
    url, said = options.pop("url", chat.url), options.pop("told", said)
    teacher = open_teacher(url, sampling=sampling, timeout=options.pop("timeout", 20.0), **named)
    prompt = prompt or TeacherPrompt(table.labels, **options.pop("prompt_options", {}))
    counts = generate_rationales(table, prompt, teacher, folder / "rationales.jsonl", say=said.append, **options)
    assert counts.accepted + counts.rejected + counts.pending == counts.rows == len(table)
    assert any(f"= {counts.rows} rows" in text for text in said)
    return counts


def test_every_fault_is_survived_and_only_whole_replies_are_kept(tmp_path):
    assert len(FAULTS) >= 25
    with ChatStandIn(lambda row: [FAULTS[row % len(FAULTS)]], retry_after=0.05) as chat:
        counts = generate(chat, tmp_path, 2 * len(FAULTS), timeout=4.0)
        assert (counts.accepted, counts.rejected, counts.pending) == (2 * len(FAULTS), 0, 0)
        assert set(chat.asked.values()) == {2}
    accepted = read(tmp_path / "rationales.jsonl")
    assert [row["id"] for row in accepted] == [f"r{number}" for number in range(2 * len(FAULTS))]  # the table's order
    assert accepted[0].keys() == {"id", "text", "label", "key", "rationale"}
    lines = read(tmp_path / "rationales.replies.jsonl")
    records = [line for line in lines if "usage" in line]
    kept = [record for record in records if "reply" in record]
    assert len(kept) == 2 * len(FAULTS) + 2 * len(BAD)
    assert all(record["reply"] and record["finish_reason"] == "stop" for record in kept)
    # What was paid for and not kept is counted all the same.
    assert len(records) - len(kept) == 2 * len(EMPTY)
    manifest = json.loads((tmp_path / "rationales.manifest.json").read_text())
    assert manifest["models_returned"] == {"stand-in-2026": len(records)}
    assert manifest["usage"]["prompt_tokens"] == 100 * len(records)
    assert manifest["settings"]["model"] == "stand-in" and manifest["status"] == "finished"


def test_what_never_passes_is_set_aside_with_why_and_what_never_answers_is_pending(tmp_path, monkeypatch):
    monkeypatch.setattr(pacing, "TRIES", 2)
    bad = [*BAD, *EMPTY, "400"]
    gone = ["500", "hang", "cut before"]
    plan = dict(enumerate([*bad, *gone]))
    with ChatStandIn(lambda row: [f"forever:{plan[row]}"] if row in plan else []) as chat:
        counts = generate(chat, tmp_path, 20, timeout=2.0, retries=2)
        asked = dict(chat.asked)
    assert (counts.rejected, counts.pending) == (len(bad), len(gone))
    rejected = {row["id"]: row for row in read(tmp_path / "rejected.jsonl")}
    expected = {
        "wrong answer": "answer", "leak": "label_leak", "no sentinel": "sentinel", "refusal": "refusal",
        "loop": "repetition", "echo": "prompt_echo", "language": "wrong_language", "no answer": "answer",
        "null": "empty", "empty": "empty", "cut off": "cut_off", "400": "refused", "refusal field": "refusal",
    }  # fmt: skip
    for row, fault in plan.items():
        if fault in bad:
            assert expected[fault] in rejected[f"r{row}"]["why"], fault
            assert rejected[f"r{row}"]["tries"] == asked[row] == 3
            assert all(isinstance(reason, str) for reason in rejected[f"r{row}"]["why"].values())


def test_the_teacher_is_told_what_was_wrong_but_not_the_label_that_it_has_to_find(tmp_path):
    plan = ["leak", "wrong answer"]
    for style in ("guarded", "free"):
        with ChatStandIn(lambda row: plan) as chat:
            chat.keep_bodies = True
            generate(chat, tmp_path / style, 2, prompt_options={"style": style})
            of_row = [body["messages"] for body in chat.bodies if "case 0:" in body["messages"][1]["content"]]
        first, second, third = of_row
        assert [message["role"] for message in second] == ["system", "user", "assistant", "user"]
        assert "names a label" in second[-1]["content"] and "arid" not in second[-1]["content"]
        if style == "guarded":
            assert "Answer: soaked" in first[1]["content"] and "should be 'soaked'" in third[-1]["content"]
        else:
            assert "Answer: soaked" not in first[1]["content"] and third == first


def test_a_second_run_asks_nothing_and_other_checks_re_read(tmp_path):
    with ChatStandIn(lambda row: ["leak"] if row < 3 else []) as chat:
        generate(chat, tmp_path)
        before, first = sum(chat.asked.values()), (tmp_path / "rationales.jsonl").read_text()
        generate(chat, tmp_path)
        assert sum(chat.asked.values()) == before
        assert (tmp_path / "rationales.jsonl").read_text() == first
        counts = generate(chat, tmp_path, checks=ReplyChecks(skip=["label_leak"]))
        assert sum(chat.asked.values()) == before
        assert "So the ground is soaked" in read(tmp_path / "rationales.jsonl")[0]["rationale"]
        counts = generate(
            chat, tmp_path, checks=ReplyChecks(label_words={"soaked": ["boots"]}), budget=Budget(max_requests=0)
        )
        assert (counts.accepted, counts.pending) == (0, 40) and sum(chat.asked.values()) == before
        # A row that is new is asked; the others are not.
        counts = generate(chat, tmp_path, 41)
        assert (counts.accepted, sum(chat.asked.values())) == (41, before + 1)


def test_a_row_that_was_set_aside_is_asked_again_only_where_more_tries_are_allowed(tmp_path):
    with ChatStandIn(lambda row: ["forever:leak"] if row == 0 else []) as chat:
        for count, retries, asked in ((5, 1, 2), (6, 1, 2), (7, 3, 4)):
            counts = generate(chat, tmp_path, count, retries=retries)
            assert (counts.rejected, counts.accepted, chat.asked[0]) == (1, count - 1, asked)


def test_a_row_whose_tries_failed_in_different_ways_is_set_aside_as_any_other(tmp_path):
    with ChatStandIn(lambda row: {0: ["leak", "null"], 1: ["null", "leak"]}.get(row, [])) as chat:
        assert generate(chat, tmp_path, 3, retries=1).rejected == 2
        rejected = [(row["id"], *row["why"], row["tries"]) for row in read(tmp_path / "rejected.jsonl")]
        assert rejected == [("r0", "empty", 2), ("r1", "label_leak", 2)]
        # An empty reply is no evidence for the next run, which may give more room.
        assert generate(chat, tmp_path, 3, retries=1).accepted == 3 and chat.asked[0] == chat.asked[1] == 3


def test_equal_rows_are_asked_once(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [row | {"id": f"{row['id']}-{copy}"} for row in rows(5) for copy in range(3)])
    with ChatStandIn() as chat:
        counts = generate(chat, tmp_path, table=LabelledTable(tmp_path / "rows.jsonl"))
        assert counts.accepted == 15 and sum(chat.asked.values()) == 5
    assert [row["key"] for row in read(tmp_path / "rationales.jsonl")][:4] == ["r0-0", "r0-1", "r0-2", "r1-0"]


def test_several_samples_of_a_row(tmp_path):
    with ChatStandIn(lambda row: ["forever:leak"] if row == 0 else []) as chat:
        counts = generate(chat, tmp_path, 4, samples=3, retries=1)
        assert (counts.accepted, counts.rejected, counts.rationales) == (3, 1, 9)
        assert chat.asked[0] == 6 and chat.asked[1] == 3
    assert [(row["id"], row["sample"]) for row in read(tmp_path / "rationales.jsonl")][:3] == [
        ("r1", 0),
        ("r1", 1),
        ("r1", 2),
    ]
    with ChatStandIn() as chat, pytest.raises(ValueError, match="all the same at temperature 0"):
        generate(chat, tmp_path / "cold", samples=2, sampling=Sampling(temperature=0))


@pytest.mark.parametrize(
    ("limit", "most"),
    [({"max_requests": 12}, 12), ({"max_tokens": 1500}, 10), ({"max_cost": 3e-3, "price_output": 4.0}, 15)],
)
def test_a_budget_stops_cleanly_and_holds_over_runs(tmp_path, limit, most):
    with ChatStandIn(latency=0.01) as chat:
        for _ in range(2):
            counts = generate(chat, tmp_path, budget=Budget(**limit))
            assert counts.pending == 40 - sum(chat.finished.values())
            assert most - 2 <= sum(chat.asked.values()) <= most
            assert len(read(tmp_path / "rationales.jsonl")) == counts.accepted
        assert generate(chat, tmp_path).pending == 0
        assert sum(chat.asked.values()) == 40


def test_requests_without_an_answer_count_over_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(pacing, "TRIES", 1)
    with ChatStandIn(lambda row: ["forever:500"]) as chat:
        for _ in range(2):
            generate(chat, tmp_path, budget=Budget(max_requests=6))
            assert sum(chat.asked.values()) == 6
        generate(chat, tmp_path, budget=Budget(max_requests=6), overwrite=True)
        assert sum(chat.asked.values()) == 12


def test_what_was_under_way_when_the_teacher_was_lost_may_have_been_paid(tmp_path):
    def answer(asked):
        revoked = 401, {"error": {"message": "revoked"}}
        return revoked if "case 3:" in asked["messages"][1]["content"] else None

    plan = {1: ["hang"], 2: ["hang"]}
    with (
        ChatStandIn(lambda row: plan.get(row, []), before=answer) as chat,
        pytest.raises(TeacherError, match="revoked"),
    ):
        generate(chat, tmp_path, 8, concurrency=3)
    usage = json.loads((tmp_path / "rationales.manifest.json").read_text())["usage"]
    assert usage["unanswered"] == 2 and usage["lost"][1] >= 100


def test_each_try_of_each_sample_has_a_seed_of_its_own(tmp_path):
    with ChatStandIn(lambda row: ["leak"]) as chat:
        chat.keep_bodies = True
        generate(chat, tmp_path, 2, samples=3, sampling=Sampling(seed=7), concurrency=1)
        assert [body["seed"] for body in chat.bodies] == [7, 8, 1007, 2007] * 2


def test_a_table_is_never_replaced_by_what_is_made_from_it(tmp_path):
    files = ("rejected.jsonl", "rationales.jsonl", "rationales.replies.jsonl", "rationales.manifest.json")
    with ChatStandIn() as chat:
        for name in files:
            lines = [json.dumps(row) for row in rows(4)]
            text = "\n".join(lines) + "\n" if name.endswith("l") else f"[{','.join(lines)}]"
            (tmp_path / name).write_text(text)
            with pytest.raises(ValueError, match="itself, which would be lost"):
                generate(chat, tmp_path, table=LabelledTable(tmp_path / name), overwrite=True)
            assert (tmp_path / name).read_text() == text
            (tmp_path / name).unlink()
        assert not chat.asked and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stand_in", "message"),
    [
        ({"key": "right"}, r"no key was found.*OPENAI_API_KEY"),
        ({"models": ("one", "two")}, "several models: type --teacher-model one or two"),
    ],
)
def test_a_failing_key_or_model_stops_at_once(tmp_path, stand_in, message, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("HF_TOKEN", "")
    with ChatStandIn(**stand_in) as chat, pytest.raises(TeacherError, match=message):
        generate(chat, tmp_path)
    assert not chat.asked


def test_other_settings_another_table_and_foreign_files_are_refused_and_nothing_is_lost(tmp_path):
    with ChatStandIn() as chat:
        generate(chat, tmp_path)
        before = (tmp_path / "rationales.jsonl").read_text()
        with pytest.raises(ValueError, match=r"temperature was 0.7 and is 0.2 now.*--overwrite"):
            generate(chat, tmp_path, sampling=Sampling(temperature=0.2))
        with pytest.raises(ValueError, match='style was "guarded" and is "free" now'):
            generate(chat, tmp_path, prompt_options={"style": "free"})
        write_rows(tmp_path / "other.jsonl", [row | {"text": "Another case 7: no clouds."} for row in rows(4)])
        with pytest.raises(ValueError, match="made from another table: none of the replies"):
            generate(chat, tmp_path, table=LabelledTable(tmp_path / "other.jsonl"))
        with pytest.raises(
            ValueError, match=r"rejected.jsonl holds the rejected rows of rationales.jsonl: add --settings 'rejected"
        ):
            OutputFiles(tmp_path / "second.jsonl").check_rejected()
        assert (tmp_path / "rationales.jsonl").read_text() == before
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "rationales.jsonl").write_text('{"mine": 1}\n')
        with pytest.raises(ValueError, match="not from this command"):
            generate(chat, tmp_path / "b")
        assert (tmp_path / "b" / "rationales.jsonl").read_text() == '{"mine": 1}\n'
        generate(chat, tmp_path, sampling=Sampling(temperature=0.2), overwrite=True)


def test_one_process_at_a_time(tmp_path):
    with ChatStandIn() as chat, Journal(tmp_path / "rationales.replies.jsonl"):
        with pytest.raises(ValueError, match="another process is writing"):
            generate(chat, tmp_path)
        assert not chat.asked


def test_nothing_is_written_behind_what_did_not_reach_the_disk(tmp_path):
    with Journal(tmp_path / "x.replies.jsonl") as journal:
        journal.append({"key": "00", "sent": [1, 1]})
        journal.error = OSError(5, "Input/output error")  # as fsync, in its thread, leaves it
        with pytest.raises(OSError, match="Input/output error"):
            journal.append({"key": "01", "sent": [1, 1]})
    assert len(read(tmp_path / "x.replies.jsonl")) == 1


def test_what_a_kill_left_half_written_is_cleared_away(tmp_path):
    left = [
        tmp_path / f".{name}.0f.tmp" for name in ("rationales.jsonl", "rejected.jsonl", "rationales.manifest.json")
    ]
    for path in [*left, tmp_path / ".mine.jsonl.0f.tmp"]:
        path.write_text("{")
    OutputFiles(tmp_path / "rationales.jsonl").prepare()
    assert [path.name for path in tmp_path.iterdir()] == [".mine.jsonl.0f.tmp"]


def test_rows_with_two_reasons_do_not_join_those_of_one_to_those_of_the_other():
    run = SimpleNamespace(in_a_row=0, common=set())
    for reasons in [("refusal",)] * 5 + [("refusal", "prompt_echo")] + [("prompt_echo",)] * 9:
        Run._set_aside(run, dict.fromkeys(reasons, "It is so."))
    with pytest.raises(TeacherError, match="10 rows after each other can't be used for one reason, prompt_echo"):
        Run._set_aside(run, {"prompt_echo": "It is so."})


def test_a_torn_line_is_repaired_and_a_broken_one_is_asked_again(tmp_path):
    with ChatStandIn() as chat:
        generate(chat, tmp_path, 10)
        path = tmp_path / "rationales.replies.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        replies = [number for number, line in enumerate(lines) if b'"reply"' in line]
        assert len(replies) == 10 and replies[-1] == len(lines) - 1
        lines[replies[3]], lines[replies[9]] = b"\0" * 20 + b"\n", lines[replies[9]][:30]
        path.write_bytes(b"".join(lines))
        assert generate(chat, tmp_path, 10).accepted == 10
        assert sum(chat.asked.values()) == 12
        lines = path.read_bytes().splitlines()
        assert sum(b'"reply"' in line for line in lines) == 10
        # What was cut off is not grown together with what came after it.
        lines.remove(b"\0" * 20)
        assert all(json.loads(line)["key"] for line in lines)


def test_a_full_disk_is_one_line_and_keeps_what_was_done(tmp_path, monkeypatch):
    from dhrd_hf.rationales import journal

    written = [0]
    write = journal.write_all

    def fills_up(file, data):
        written[0] += len(data)
        if written[0] > 9000:
            file.write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        write(file, data)

    with ChatStandIn(latency=0.002) as chat:
        monkeypatch.setattr(journal, "write_all", fills_up)
        with pytest.raises(OSError, match=r"No space left on device.*start the same command to go on"):
            generate(chat, tmp_path)
        kept = [line for line in read(tmp_path / "rationales.replies.jsonl") if "reply" in line]
        assert 0 < len(kept) < 40
        monkeypatch.undo()
        already = dict(chat.asked)
        assert generate(chat, tmp_path).accepted == 40
        assert sum(chat.asked.values()) - sum(already.values()) == 40 - len(kept)


def in_a_child(run):
    """Run something in a process that can be killed, and that has imported all already."""
    child = os.fork()
    if child:
        return child
    try:
        run()
    finally:
        os._exit(0)


def draw_plans(count, draw):
    plans = {}
    for row in range(count):
        kind = draw.random()
        plans[row] = (
            [] if kind < 0.6
            else [draw.choice([fault for fault in FAULTS if fault not in ("429 date", "hang")])] if kind < 0.9
            else draw.sample([*BAD, *ERRORS[4:6]], 2) if kind < 0.96
            else [f"forever:{draw.choice(BAD)}"]
        )  # fmt: skip
    return plans


def test_100_rows_killed_fifteen_times(tmp_path):
    """The accepted set is the undisturbed run's, none is lost, none is asked again after it was accepted, each is counted."""
    draw, count = random.Random(5), 100
    plans, sets = draw_plans(count, draw), {}
    for name, kills in (("undisturbed", 0), ("killed", 15)):
        folder = tmp_path / name
        folder.mkdir()
        with ChatStandIn(plans.get, latency=0.02, retry_after=0.05) as chat:
            before = {}
            for kill in range(kills):
                target = (kill + 1) * count // 20
                child = in_a_child(lambda: generate(chat, folder, count, concurrency=8))  # noqa: B023
                while len(chat.finished) < target and os.waitpid(child, os.WNOHANG) == (0, 0):
                    time.sleep(0.002)
                time.sleep(draw.random() * 0.03)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                whole = (folder / "rationales.jsonl").read_bytes().split(b"\n")[:-1]
                accepted = {int(json.loads(line)["id"][1:]) for line in whole}
                assert all(chat.asked[row] == times for row, times in before.items())
                before = {row: chat.asked[row] for row in accepted}
            counts = generate(chat, folder, count, concurrency=8)
            assert all(chat.asked[row] == times for row, times in before.items())
            manifest = json.loads((folder / "rationales.manifest.json").read_text())
            assert manifest["usage"]["requests"] >= sum(chat.asked.values())
        assert counts.pending == 0 and len(before) > (55 if kills else -1)
        sets[name] = {row["id"] for row in read(folder / "rationales.jsonl")}
        rejected = {row["id"] for row in read(folder / "rejected.jsonl")}
        assert len(sets[name]) + len(rejected) == count and not sets[name] & rejected
    assert sets["killed"] == sets["undisturbed"]
    assert 80 < len(sets["killed"]) < count


def test_a_budget_holds_over_kills_and_counts_what_was_under_way(tmp_path):
    with ChatStandIn(lambda row: ["forever:hang"]) as chat:
        for _ in range(5):
            child = in_a_child(lambda: generate(chat, tmp_path, budget=Budget(max_requests=20), concurrency=6))
            asked = sum(chat.asked.values())
            deadline = time.monotonic() + 30
            while sum(chat.asked.values()) < min(20, asked + 6) and time.monotonic() < deadline:
                time.sleep(0.005)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert sum(chat.asked.values()) == 20
        said = []
        generate(chat, tmp_path, budget=Budget(max_requests=20, max_tokens=10**6), told=said)
        assert sum(chat.asked.values()) == 20 and any("20 of 20 requests" in it for it in said)
    usage = json.loads((tmp_path / "rationales.manifest.json").read_text())["usage"]
    # Nobody knows what they took: each counts as a whole prompt and the longest reply.
    assert usage["unanswered"] == 20 and usage["lost"][1] == 20 * 1024 and usage["replies"] == 0
    assert any("20 requests without an answer may have been paid" in it for it in said)


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": -1}, "none", {"total_tokens": float("nan")}])
@pytest.mark.parametrize("limit", [{"max_tokens": 4000}, {"max_cost": 4e-3, "price_input": 1.0, "price_output": 1.0}])
def test_a_budget_holds_where_the_endpoint_tells_no_tokens(tmp_path, usage, limit):
    said = []

    def answer(it):
        return json.dumps(it | {"usage": "U"}).encode().replace(b'"U"', json.dumps(usage).encode())

    with ChatStandIn(answer=answer) as chat:
        counts = generate(chat, tmp_path, budget=Budget(**limit), told=said)
        # A prompt of some 840 characters and a reply of some 200 are about 260 tokens.
        assert 12 <= sum(chat.asked.values()) == counts.accepted <= 16
    assert any(f"Of {counts.accepted} replies the endpoint did not tell the tokens" in it for it in said)
    used = json.loads((tmp_path / "rationales.manifest.json").read_text())["usage"]
    assert used["estimated"] == counts.accepted and used["prompt_tokens"] + used["completion_tokens"] <= 4000


def test_errors_cost_nothing_and_what_broke_off_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(pacing, "TRIES", 3)
    plan = {0: ["429", "500"], 1: ["503"], 2: ["400"], 3: ["cut midway"], 4: ["bad json", "no choices"], 5: ["hang"]}
    with ChatStandIn(lambda row: plan.get(row, [])) as chat:
        for _ in range(2):  # the second run reads from the journal what the first one counted
            generate(chat, tmp_path, 6, timeout=2.0)
            usage = json.loads((tmp_path / "rationales.manifest.json").read_text())["usage"]
            assert (usage["requests"], usage["replies"], usage["unanswered"]) == (sum(chat.asked.values()), 6, 4)
            assert usage["prompt_tokens"] == 600 and usage["lost"][0] > 0
    kinds = Counter(
        next(it for it in ("sent", "void", "reply") if it in line)
        for line in read(tmp_path / "rationales.replies.jsonl")
    )
    assert kinds == {"sent": 14, "void": 4, "reply": 6}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("null", r"empty, .*the reply was empty.? What helps: .*--max-reply-tokens 8192"),
        ("cut off", r"cut_off, .*What helps: .*--max-reply-tokens 4096"),
        ("echo", r"prompt_echo, .*What helps: .*--teacher-model"),
        ("400", r"refused, .*told to fail.*What helps: .*--extra-body"),
        ("500", r"brings no answers any more: 1\d rows after each other"),
    ],
)
def test_ten_rows_that_can_not_be_used_for_one_reason_stop_the_run(tmp_path, monkeypatch, fault, said):
    monkeypatch.setattr(pacing, "TRIES", 2)
    with ChatStandIn(lambda row: [f"forever:{fault}"] if row >= 5 else []) as chat:
        with pytest.raises(TeacherError, match=said):
            generate(chat, tmp_path, 60, retries=1, concurrency=4)
        assert 15 <= len(chat.asked) <= 20
    assert len(read(tmp_path / "rationales.jsonl")) == 5
    # Nine in a row, then a good one, then nine, stop nothing.
    with ChatStandIn(lambda row: [f"forever:{fault}"] if row % 10 else []) as chat:
        counts = generate(chat, tmp_path / "b", 39, retries=0, concurrency=1)
        assert counts.accepted == 4


def test_more_room_for_a_reply_goes_on_with_the_same_file(tmp_path):
    with ChatStandIn(lambda row: ["cut off"] * 4 if row < 3 else []) as chat:
        assert generate(chat, tmp_path, 8, sampling=Sampling(max_reply_tokens=50)).rejected == 3
        before = dict(chat.asked)
        assert generate(chat, tmp_path, 8, sampling=Sampling(max_reply_tokens=500)).accepted == 8
        assert {row for row in range(8) if chat.asked[row] != before[row]} == {0, 1, 2}
    manifest = json.loads((tmp_path / "rationales.manifest.json").read_text())
    assert (manifest["settings"]["sampling"]["max_reply_tokens"], manifest["max_reply_tokens"]) == (50, 500)


def test_a_journal_and_a_manifest_of_0_1_are_gone_on_with(tmp_path):
    """Lines of replies alone, a manifest without what is new in it."""
    with ChatStandIn(lambda row: ["leak"] if row == 1 else []) as chat:
        generate(chat, tmp_path, 10, concurrency=1)
        path, manifest = tmp_path / "rationales.replies.jsonl", tmp_path / "rationales.manifest.json"
        old = [line for line in path.read_text().splitlines(keepends=True) if '"reply"' in line]
        path.write_text("".join(old[:8]))
        facts = json.loads(manifest.read_text())
        facts["usage"] = {"requests": 31, "replies": 11, "prompt_tokens": 1100, "completion_tokens": 550}
        del facts["max_reply_tokens"]
        manifest.write_text(json.dumps(facts))
        (tmp_path / "rationales.jsonl").write_text("")
        asked = sum(chat.asked.values())
        assert generate(chat, tmp_path, 10).accepted == 10
        assert sum(chat.asked.values()) - asked == 3
    assert json.loads(manifest.read_text())["usage"]["requests"] == 31 + 3


def test_no_secret_is_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("MINE", "key-abcdef")
    sampling = Sampling(extra_body={"api_key": "body-secret", "user": {"password": "deep-secret"}})

    def echo(it):
        it["choices"][0]["message"] = {"content": "body-secret key-abcdef pass-word"}
        return it

    said = []
    with ChatStandIn(answer=echo) as chat:
        url = chat.url.replace("://", "://user:pass-word@")
        generate(chat, tmp_path, 3, sampling=sampling, url=url, api_key_env="MINE", retries=0, told=said)
    text = "".join(path.read_text() for path in tmp_path.iterdir()) + "".join(said)
    for secret in ("body-secret", "deep-secret", "pass-word", "key-abcdef"):
        assert secret not in text
    assert text.count("[secret] [secret] [secret]") >= 3 and '"api_key": "[secret]"' in text
    # Another secret is no other setting, also where a run of before has stored it.
    manifest = tmp_path / "rationales.manifest.json"
    manifest.write_text(manifest.read_text().replace('"api_key": "[secret]"', '"api_key": "old-secret"'))
    with ChatStandIn() as chat:
        other = Sampling(extra_body={"api_key": "new-secret", "user": {"password": "new-word"}})
        assert generate(chat, tmp_path, 3, sampling=other).accepted == 3
