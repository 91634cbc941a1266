"""Batch files: requests out, results in, round after round, with the journal, the checks and the budget of a live run."""

import json
from pathlib import Path

import pytest
from chat_stand_in import SENTINEL, good, rows

from dhrd_hf.data.table_writing import write_rows
from dhrd_hf.rationales.generate import generate_rationales
from dhrd_hf.rationales.journal import Budget
from dhrd_hf.rationales.prompt import LabelledTable, TeacherPrompt
from dhrd_hf.rationales.teacher import LocalTeacher, Sampling, TeacherError, open_teacher


@pytest.fixture
def table(tmp_path):
    write_rows(tmp_path / "rows.jsonl", rows(6))
    return LabelledTable(tmp_path / "rows.jsonl")


def generate(table, folder, **options):
    said = []
    teacher = open_teacher("http://127.0.0.1:9/v1", "m", options.pop("sampling", None))  # where nobody is
    counts = generate_rationales(
        table, TeacherPrompt(table.labels), teacher, folder / "rationales.jsonl", say=said.append, **options
    )
    assert counts.accepted + counts.rejected + counts.pending == counts.rows == len(table)
    return counts, "\n".join(said)


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def answered(requests, path, faults=None):
    """A batch service: results in another order, of which some are wrong in a way."""
    results = []
    for number, request in enumerate(reversed(lines(requests))):
        asked = request["body"]["messages"][1]["content"]
        row = int(asked.partition("case ")[2].partition(":")[0])
        text = f"{good(row)}{SENTINEL}\nAnswer: {('soaked', 'arid')[row % 2]}"
        fault = (faults or {}).get(row)
        if fault == "bad":
            text = text.replace("Answer", "So")
        choice = {"message": {"content": "" if fault == "empty" else text}, "finish_reason": "stop"}
        body = {"model": "m-1", "choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 50}}
        response = {"status_code": 200, "request_id": "x", "body": body}
        if fault == "error":
            response = {"status_code": 429, "body": {"error": {"message": "too many"}}}
        if fault == "form":
            response["body"] = {"choices": []}
        if fault != "missing":
            results.append(
                {"id": f"b{number}", "custom_id": request["custom_id"], "response": response, "error": None}
            )
    Path(path).write_text("".join(json.dumps(it) + "\n" for it in results))


def test_rounds_of_a_batch_end_with_the_set_of_a_live_run(table, tmp_path):
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    counts, said = generate(table, tmp_path, batch_write=requests, sampling=Sampling(0.3, seed=5, max_reply_tokens=99))
    assert counts.pending == 6 and "6 requests are in" in said
    written = lines(requests)
    assert len({it["custom_id"] for it in written}) == 6 and max(len(it["custom_id"]) for it in written) <= 64
    body = written[0].pop("body")
    assert written[0].pop("custom_id") and written[0] == {"method": "POST", "url": "/v1/chat/completions"}
    messages = TeacherPrompt(table.labels).messages(rows(1)[0], "soaked")
    assert body == {"model": "m", "messages": messages, "temperature": 0.3, "max_tokens": 99, "seed": 5}

    sampling = {"sampling": Sampling(0.3, seed=5, max_reply_tokens=99)}
    answered(requests, results, {1: "bad", 2: "empty", 3: "error", 4: "missing", 5: "form"})
    counts, said = generate(table, tmp_path, batch_read=results, batch_write=requests, **sampling)
    assert (counts.accepted, counts.pending) == (1, 5)
    assert "3 replies are taken" in said and "2 requests have none" in said and "status 429: too many" in said
    again = {int(it["body"]["messages"][1]["content"].partition("case ")[2][0]): it["body"] for it in lines(requests)}
    assert sorted(again) == [1, 2, 3, 4, 5]
    # Who failed a check is told why, as in a live run; who said nothing is asked the same, by another name.
    assert [len(again[row]["messages"]) for row in (1, 2, 3)] == [4, 2, 2] and again[1]["seed"] == 6

    # Results that were taken before change nothing, and cost nothing.
    before = (tmp_path / "rationales.replies.jsonl").read_bytes()
    counts, said = generate(table, tmp_path, batch_read=results, **sampling)
    assert "0 replies are taken" in said and "3 lines are of requests that are not open" in said
    assert (tmp_path / "rationales.replies.jsonl").read_bytes() == before

    answered(requests, results)
    counts, _ = generate(table, tmp_path, batch_read=results, **sampling)
    assert counts.accepted == 6
    assert [row["id"] for row in lines(tmp_path / "rationales.jsonl")] == [f"r{n}" for n in range(6)]
    manifest = json.loads((tmp_path / "rationales.manifest.json").read_text())
    assert manifest["status"] == "finished" and manifest["models_returned"] == {"m-1": 8}
    assert (
        manifest["usage"]["requests"] == manifest["usage"]["replies"] == 8
        and manifest["usage"]["prompt_tokens"] == 800
    )


def test_what_never_passes_is_set_aside_after_its_rounds(table, tmp_path):
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    generate(table, tmp_path, batch_write=requests, retries=1)
    faults = {0: "bad", 1: "empty"}
    for _ in range(2):
        answered(requests, results, faults)
        counts, _ = generate(table, tmp_path, batch_read=results, batch_write=requests, retries=1)
    assert (counts.accepted, counts.rejected, counts.pending) == (4, 2, 0) and requests.read_text() == ""
    why = {row["id"]: (row["why"], row["tries"]) for row in lines(tmp_path / "rejected.jsonl")}
    assert "answer" in why["r0"][0] and "empty" in why["r1"][0] and why["r0"][1] == why["r1"][1] == 2


@pytest.mark.parametrize(
    ("budget", "count"),
    [
        ({"max_requests": 2}, 2),
        ({"max_tokens": 4000}, 3),
        ({"max_cost": 4e-3, "price_output": 1.0}, 3),
        ({"max_cost": 1e-9, "price_input": 1.0}, 0),
    ],
)
def test_a_batch_is_no_larger_than_the_budget_has_room_for(table, tmp_path, budget, count):
    counts, said = generate(table, tmp_path, batch_write=tmp_path / "requests.jsonl", budget=Budget(**budget))
    assert len(lines(tmp_path / "requests.jsonl")) == count and f"{6 - count} requests more are left out" in said
    manifest = json.loads((tmp_path / "rationales.manifest.json").read_text())
    assert manifest["usage"]["requests"] == 0


def test_files_that_are_none_and_secrets_are_refused(table, tmp_path):
    requests = tmp_path / "requests.jsonl"
    with pytest.raises(ValueError, match="holds a secret"):
        secret = Sampling(extra_body={"api_key": "body-secret"})
        generate(table, tmp_path / "secret", batch_write=requests, sampling=secret)
    with pytest.raises(ValueError, match="holds no results of a batch"):
        generate(table, tmp_path, batch_read=tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="itself, which would be lost"):
        generate(table, tmp_path, batch_write=tmp_path / "rationales.jsonl")
    with pytest.raises(ValueError, match="itself, which would be lost"):
        generate(table, tmp_path, batch_write=tmp_path / "rows.jsonl")
    with pytest.raises(FileNotFoundError):
        generate(table, tmp_path, batch_read=tmp_path / "absent.jsonl")
    teacher = LocalTeacher("anything")
    with pytest.raises(ValueError, match="--teacher-model NAME"):
        generate_rationales(
            table, TeacherPrompt(table.labels), teacher, tmp_path / "local" / "o.jsonl", batch_write=requests
        )
    assert not requests.exists()


def test_a_batch_is_written_without_a_key(table, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    prompt, requests = TeacherPrompt(table.labels), tmp_path / "requests.jsonl"
    teacher = open_teacher("https://api.openai.com", "m")
    generate_rationales(table, prompt, teacher, tmp_path / "rationales.jsonl", batch_write=requests)
    assert len(lines(requests)) == 6
    with pytest.raises(TeacherError, match="api.openai.com wants a key: set OPENAI_API_KEY"):
        generate_rationales(table, prompt, teacher, tmp_path / "rationales.jsonl")


def test_broken_lines_of_results_are_counted(table, tmp_path):
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    generate(table, tmp_path, batch_write=requests)
    answered(requests, results)
    good_lines = results.read_text().splitlines(keepends=True)
    results.write_text(
        "".join([*good_lines[:3], "{half\n", "[]\n", "\n", good_lines[3].replace('"response"', '"other"')])
    )
    counts, said = generate(table, tmp_path, batch_read=results)
    assert counts.accepted == 3 and "2 lines can't be read" in said and "1 requests have none" in said
