"""Requests in a file and replies from one, in OpenAI's batch format, as hosted batch services and `vllm run-batch` read it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..files import written_whole
from .budget import estimated_tokens
from .generate import Run
from .journal import Unit
from .replies import message_of, read_body, read_reply
from .teacher import Unusable, without_secret_values


def write_batch(run: Run, path: str | Path) -> None:
    """Write what is to be asked, as far as the budget has room for it."""
    standing, teacher = run.standing, run.teacher
    if without_secret_values(dict(teacher.sampling.extra_body))[1]:
        raise ValueError("--extra-body holds a secret, which --batch-write would write into the file: leave it out")
    room, count, left = run.budget.room(), 0, 0
    with written_whole(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        for unit in standing.to_ask():
            tries = _tries(run, unit)
            if tries > standing.retries:
                standing.given_up[unit.slot] = {"empty": "Its replies were empty or cut off."}, tries
                run.changed = True
            elif count + 1 > room:
                left += 1
            else:
                body = teacher.body(*standing.request(unit, tries, standing.last_failed(unit)))  # type: ignore[attr-defined]
                line = {"custom_id": _id(run, unit), "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
    standing.busy.clear()
    run.say(
        f"{count} requests are in {path}. When a batch service has answered them: the same command with --batch-read RESULTS"
    )
    if left:
        run.say(f"{left} requests more are left out, for which the budget has no room.")


def read_batch(run: Run, path: str | Path) -> None:
    """Take the replies to what is still to be asked; replies that were taken before are passed over."""
    standing = run.standing
    places, unreadable = {}, 0
    with open(Path(path).expanduser(), "rb") as file:
        place = 0
        for line in file:
            try:
                places[json.loads(line)["custom_id"]] = place
            except (ValueError, LookupError, TypeError, RecursionError):
                unreadable += bool(line.strip())
            place += len(line)
        if not places:
            raise ValueError(f"{path} holds no results of a batch, which are JSON lines with a custom_id")
        taken, errors = 0, Counter[str]()
        for unit in standing.to_ask():
            found = places.pop(_id(run, unit), None)
            if found is not None:
                file.seek(found)
                problem = _take(run, unit, json.loads(file.readline()))
                taken += not problem
                errors.update([problem] if problem else [])
    standing.busy.clear()
    run.left.update(errors)
    told = f"{taken} replies are taken from {path}"
    told += f", {errors.total()} requests have none" if errors else ""
    told += (
        f", {len(places)} lines are of requests that are not open: answered before, or of another table"
        if places
        else ""
    )
    run.say(told + (f", {unreadable} lines can't be read." if unreadable else "."))


def _take(run: Run, unit: Unit, record: dict[str, Any]) -> str:
    """File one result; why there is nothing to file, if so."""
    response = record.get("response") if isinstance(record.get("response"), dict) else {}
    body, status = response.get("body"), response.get("status_code", 200)
    if record.get("error") or not body or status != 200:
        return f"status {status}: {message_of(record.get('error') or body or 'no answer')}"[:200]
    tries = _tries(run, unit) + 1
    messages, _ = run.standing.request(unit, tries - 1, run.standing.last_failed(unit))
    try:
        found = read_body(body.encode() if isinstance(body, str) else json.dumps(body).encode())
        reply, why_empty, refusal = read_reply(found, sum(estimated_tokens(it["content"]) for it in messages))
    except (ValueError, RecursionError) as error:
        return str(error)[:200]
    run.budget.requests += 1
    try:
        run.take(unit, reply.judged(why_empty, refusal), tries)
    except Unusable as error:
        run.unusable(unit, error, tries)
    return ""


def _tries(run: Run, unit: Unit) -> int:
    return unit.tries + run.standing.unusable[unit.slot]


def _id(run: Run, unit: Unit) -> str:
    """What a request of a batch is called: another name each time that it is asked."""
    return f"{unit.slot.hex()}-{_tries(run, unit)}"
