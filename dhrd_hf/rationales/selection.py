"""Choosing rationales: those that pass the checks, and the best of several."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..data.joining import key_column
from ..data.label_names import label_names
from ..data.labels import named_rows
from ..data.prompts import DEFAULT_PROMPT, rationale_text, render, template_columns
from .checks import CHECKS, MAX_WORDS, MIN_WORDS, check_bounds, check_rationale, near_duplicates
from .repair import repairs
from .tally import Tally

# A near duplicate is one of several rows: in sets where one rationale stands in all rows of a question that is no fault.
ROW_CHECKS = tuple(name for name in CHECKS if name != "near_duplicate")
DROPS = ("rationales", "rows")
_WINDOW = 512  # samples scored together

Score = Callable[[Sequence[Mapping[str, Any]]], Sequence[float]]


def filter_rationales(
    rows: Iterable[Mapping[str, Any]],
    checks: Collection[str] = ROW_CHECKS,
    *,
    drop: str = "rationales",
    repair: bool = False,
    labels: Sequence[str] | None = None,
    label_words: Mapping[str, Sequence[str]] | None = None,
    min_words: int = MIN_WORDS,
    max_words: int = MAX_WORDS,
    prompt: str = DEFAULT_PROMPT,
    label_column: str = "label",
    rationale_column: str = "rationale",
    tally: Tally | None = None,
    rejected: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Drop, or repair, the rationales that fail a check.

    A row whose rationale is dropped stays, with None, and trains on its label alone. A repair takes something away: the
    echo of the prompt, what is repeated, a last sentence without an end, the sentences beyond `max_words`; a rationale
    that still fails is dropped. Of near duplicates the first that passes the other checks is
    kept; rows with the same value in a column `group` may be alike.

    Example:

    ```python
    >>> from dhrd_hf.rationales.selection import filter_rationales
    >>> rows = [{"text": "Rain", "label": "wet", "rationale": "Rain is water, after all. Water makes thi"}]
    >>> [row["rationale"] for row in filter_rationales(rows)]
    [None]
    >>> [row["rationale"] for row in filter_rationales(rows, repair=True)]
    ['Rain is water, after all.']

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): The rows, streamed if `labels` are given and there is no `near_duplicate`.
        checks (`Collection[str]`, *optional*): Names of [`~dhrd_hf.rationales.checks.CHECKS`]; by default all but
            `near_duplicate`.
        drop (`str`, *optional*, defaults to `"rationales"`): `"rationales"`, or `"rows"` to drop the row as well; then
            a row that has no rationale goes too if `empty` is among the checks.
        repair (`bool`, *optional*, defaults to `False`): Repair what can be repaired before it is dropped.
        labels (`Sequence[str]`, *optional*): All labels' names; by default those of the rows.
        label_words (`Mapping[str, Sequence[str]]`, *optional*), min_words, max_words (`int`, *optional*): As for
            [`~dhrd_hf.rationales.checks.check_rationale`].
        prompt (`str`, *optional*, defaults to `"{text}"`): The input over the columns, for `copy` and `wrong_language`; in
            a table that lacks its columns these two say nothing.
        label_column (`str`, *optional*, defaults to `"label"`), rationale_column (`str`, *optional*, defaults to
            `"rationale"`): The columns.
        tally ([`~dhrd_hf.rationales.tally.Tally`], *optional*): Counts what happens.
        rejected (`Callable[[dict], None]`, *optional*): Is given each row that lost its rationale, as it was, with a
            column `reasons`.

    Returns:
        `Iterator[dict[str, Any]]`: the rows in their order.

    Raises:
        ValueError: if there is no such check, `drop` is neither, or the bounds leave no length between them.
    """
    checks = list(checks)
    for name in checks:
        if name not in CHECKS:
            near = difflib.get_close_matches(name, CHECKS, n=1)
            raise ValueError(
                f"no check {name!r}{f': did you mean {near[0]!r}?' if near else '.'} There are {', '.join(CHECKS)}"
            )
    if drop not in DROPS:
        raise ValueError(f"drop={drop!r} is neither 'rationales' nor 'rows'")
    check_bounds(min_words, max_words)
    tally = Tally() if tally is None else tally
    mend = repairs(max_words) if repair else {}
    options = {"label_words": label_words, "min_words": min_words, "max_words": max_words, "only": checks}
    columns = template_columns(prompt)

    def filtered() -> Iterator[dict[str, Any]]:
        stream, names = named_rows(rows, label_column), labels
        if names is None:
            stream = [dict(row) for row in stream]
            names = list(dict.fromkeys(name for row in stream for name in label_names(row.get(label_column))))

        def judged() -> Iterator[_Judged]:
            for row in stream:
                text = render(prompt, row) if all(row.get(name) is not None for name in columns) else ""
                before = rationale_text(row.get(rationale_column))
                yield _Judged(dict(row), before, *_judge(before, mend, text=text, labels=names, **options))

        for row, before, after, reasons in _first_of_alike(judged()) if "near_duplicate" in checks else judged():
            stays = drop == "rationales" or not reasons or after is not None
            if before is None and stays:
                reasons = {}  # it had none, and nothing happened to it
            tally.add(row.get(label_column), before, after, reasons, stays)
            if rejected is not None and reasons and after is None:
                rejected({**row, "reasons": reasons})
            if stays:
                yield {**row, rationale_column: after}

    return filtered()  # a generator of its own, so that wrong arguments raise at the call


class _Judged(NamedTuple):
    row: dict[str, Any]
    before: str | None
    after: str | None  # what is left of the rationale, if anything
    reasons: dict[str, str]  # what was wrong with it


def _judge(
    rationale: str | None, mend: Mapping[str, Callable[[str], str]], **options: Any
) -> tuple[str | None, dict[str, str]]:
    """What is left of a rationale after the checks and the repairs, and what was wrong with it."""
    reasons = check_rationale(rationale, **options)
    if not reasons or rationale is None:
        return rationale, reasons
    left, now = rationale, reasons
    for name, repair in mend.items():
        if name in now:
            left = repair(left)
            # All checks, also those that said nothing before: what is left may be a copy, or too short.
            now = check_rationale(left, **options)
    return (None, {**now, **reasons}) if now or not left else (left, reasons)


def _first_of_alike(judged: Iterable[_Judged]) -> Iterator[_Judged]:
    """Of rationales that are left and nearly the same, all but the first dropped; those of one `group` may be alike."""
    table = list(judged)
    own = [number if it.row.get("group") is None else str(it.row["group"]) for number, it in enumerate(table)]
    alike = near_duplicates([it.after for it in table], groups=own)
    again = {number for rows in alike for number in rows[1:]}
    for number, it in enumerate(table):
        if number in again:
            said = {"near_duplicate": "The explanation is nearly that of another row."}
            it = it._replace(after=None, reasons={**it.reasons, **said})
        yield it


def select_best(
    rows: Iterable[Mapping[str, Any]],
    score: Score,
    best_of: int | None = None,
    *,
    key: str | None = None,
    label_column: str = "label",
    rationale_column: str = "rationale",
    score_column: str = "rationale_score",
    tally: Tally | None = None,
    progress: Callable[[int], Any] | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Keep, of several rationales of a row, the one with the highest score; of equal ones the first.

    The samples of a row are rows with one key, or a list in the rationale column.

    Example:

    ```python
    >>> from dhrd_hf.rationales.selection import select_best
    >>> rows = [{"id": 1, "label": "wet", "rationale": why} for why in ("It is so.", "Rain is water.")]
    >>> best, fewer = select_best(rows, score=lambda rows: [len(row["rationale"]) for row in rows])
    >>> best
    [{'id': 1, 'label': 'wet', 'rationale': 'Rain is water.', 'rationale_score': 14.0}]

    ```

    Args:
        rows (`Iterable[Mapping[str, Any]]`): The rows; they are held in memory.
        score (`Callable`): Takes rows that have a rationale each and gives a number for each, more being better, such as
            [`~dhrd_hf.rationales.likelihood.LikelihoodScore`].
        best_of (`int`, *optional*): Most samples of a row that are looked at, the first ones; by default all.
        key (`str`, *optional*): Column of the keys; by default the first of `id`, `key` and `idx`. Not needed where
            the rationales are lists.
        label_column (`str`, *optional*, defaults to `"label"`), rationale_column (`str`, *optional*, defaults to
            `"rationale"`), score_column (`str`, *optional*, defaults to `"rationale_score"`): The columns; the last is
            added, None where there was nothing to choose from.
        tally ([`~dhrd_hf.rationales.tally.Tally`], *optional*): Counts the samples that come in and go.
        progress (`Callable[[int], Any]`, *optional*): Is told how many samples were scored.

    Returns:
        `tuple[list[dict[str, Any]], int]`: a row for each key, in the order of their first samples, and how many of them
        had fewer than `best_of` samples.

    Raises:
        ValueError: if no row has `best_of` samples, there is no column of keys, the samples of a row differ in their
            labels, or the score gives something else than a number for each.
    """
    if best_of is not None and best_of < 1:
        raise ValueError(f"best_of={best_of} must be 1 or greater")
    tally = Tally() if tally is None else tally
    groups = _samples(rows, key, label_column, rationale_column)
    sizes = [sum(rationale_text(row[rationale_column]) is not None for row in group) for group in groups]
    fewer = sum(size < (best_of or 0) for size in sizes)
    if best_of is not None and groups and fewer == len(groups):
        raise ValueError(
            f"the best of {best_of} can't be chosen: all {len(groups)} rows have fewer samples, {max(sizes)} at most"
        )
    kept = [[row for row in group if rationale_text(row[rationale_column]) is not None][:best_of] for group in groups]
    flat = [row for group in kept for row in group]
    scores: list[float] = []
    for start in range(0, len(flat), _WINDOW):
        part = flat[start : start + _WINDOW]
        found = [float(value) for value in score(part)]
        if len(found) != len(part) or any(map(math.isnan, found)):
            raise ValueError(f"the score gave {found[:5]}... for {len(part)} samples: expected a number for each")
        scores += found
        if progress is not None:
            progress(len(part))
    chosen, place = [], 0
    for group, samples in zip(groups, kept, strict=True):
        its = scores[place : place + len(samples)]
        place += len(samples)
        best = its.index(max(its)) if its else None
        row = {**group[0], rationale_column: None} if best is None else samples[best]
        chosen.append({**row, score_column: None if best is None else its[best]})
        for number, sample in enumerate(samples):
            said = sample[rationale_column]
            it_is = number == best
            tally.add(
                row.get(label_column), said, said if it_is else None, () if it_is else ["another is better"], it_is
            )
        if best is None:
            tally.add(row.get(label_column), None, None)
    return chosen, fewer


def _samples(
    rows: Iterable[Mapping[str, Any]], key: str | None, label_column: str, rationale_column: str
) -> list[list[dict[str, Any]]]:
    """The samples of each row, one rationale each; a row without one is a sample whose rationale is None."""
    table = [dict(row) for row in rows]
    for row in table:
        if rationale_column not in row:
            raise ValueError(f"a row has no column {rationale_column!r}; it has {', '.join(map(repr, row))}")
    name = key or key_column(dict.fromkeys(column for row in table for column in row))
    lists = any(isinstance(row[rationale_column], (list, tuple)) for row in table)
    if name is None and not lists:
        raise ValueError(
            "there is no column of keys (id, key or idx) that tells which samples belong to one row: name it"
        )
    groups: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(table):
        if name is not None and row.get(name) is None:
            raise ValueError(f"row {number} has no {name!r}, so nothing tells which samples it belongs to")
        group = groups.setdefault(str(number if name is None else row[name]), [])
        if group and group[0].get(label_column) != row.get(label_column):
            raise ValueError(
                f"the samples of {name} {row[name]!r} have several labels, such as {group[0].get(label_column)!r} and "
                f"{row.get(label_column)!r}: is {name!r} the column of their keys?"
            )
        said = row[rationale_column]
        samples = said if isinstance(said, (list, tuple)) else [said]
        group.extend({**row, rationale_column: sample} for sample in (samples or [None]))
    return list(groups.values())
