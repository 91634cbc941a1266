"""The audit of a table's rationales: what they are worth before a training run is spent on them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..data.joining import key_column
from ..data.label_names import is_missing, kind_of, label_names, sorted_names
from ..data.labels import check_lists, named_rows
from ..data.prompts import DEFAULT_PROMPT, as_text, input_or_empty, render, render_rows, template_columns
from .checks import CHECKS, MAX_WORDS, MIN_WORDS, check_bounds, check_rationale, near_duplicates
from .report import advice_on
from .words import count_words, units

if TYPE_CHECKING:
    from ..data.encoding import DualHeadEncoder

_OPENING = 4  # words at the start of a rationale that make it like others
_SHOWN = 5
_QUICK_ROWS = 2000  # of each kind that quick_audit looks at
_BATCH = 1000  # rows whose tokens are in memory at a time
NOT_TEXT = "not_text"
# What an audit tells of single rows: what the checks flag, and lists and objects, which training refuses.
AUDIT_CHECKS = (*CHECKS, NOT_TEXT)

Judge = Callable[[list[str], list[str]], list[str | None]]


def audit_rationales(
    rows: Sequence[Mapping[str, Any]],
    *,
    prompt: str = DEFAULT_PROMPT,
    label_column: str = "label",
    rationale_column: str = "rationale",
    id_column: str | None = None,
    group_column: str | None = None,
    label_words: Mapping[str, Sequence[str]] | None = None,
    min_words: int = MIN_WORDS,
    max_words: int = MAX_WORDS,
    other_splits: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    tokenizer: Any = None,
    max_length: int | None = None,
    suffix: str | None = None,
    judge: Judge | None = None,
    probe_rows: int = 10_000,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Audit the rationales of a table.

    Example:

    ```python
    >>> from dhrd_hf.rationales.audit import audit_rationales
    >>> rows = [{"id": 7, "text": "Is ice cold?", "label": "yes", "rationale": "Yes, ice is frozen water."}]
    >>> found = audit_rationales(rows)
    >>> found["checks"]["label_leak"], found["matching"]["verdict"], found["label_probe"]["reason"]
    ([7], None, 'a probe needs two labels, and there is one')

    ```

    Args:
        rows (`Sequence[Mapping[str, Any]]`): The table's rows; a `datasets.Dataset` is one.
        prompt (`str`, *optional*, defaults to `"{text}"`): Template of a row's text. Where its columns are missing from the
            table, what needs a text is left out.
        label_column, rationale_column (`str`, *optional*): Names of columns. A rationale may be missing; so may all labels. A
            row with a list of labels (multi label) counts for each of them, and for the probe their set is one.
        id_column (`str`, *optional*): Column of what the rows are called; by default the first of `id`, `key`, `idx` that
            is there, else rows are numbered from 0. So they are where the ids of a default column repeat.
        group_column (`str`, *optional*): Column of what belongs together; by default `group`, if it is there.
        label_words (`Mapping[str, Sequence[str]]`, *optional*): Further words that name a label.
        min_words, max_words (`int`, *optional*, default to 3 and 150): Bounds of a rationale's length.
        other_splits (`Mapping[str, Sequence]`, *optional*): Rows of other splits by name, for duplicates across them.
        tokenizer (`PreTrainedTokenizerBase`, *optional*), max_length (`int`, *optional*), suffix (`str`, *optional*): To
            count the rationales that training would cut, as [`DualHeadEncoder`] does, by default with its `max_length` and
            the paper's suffix. A row without a label counts as if it had the longest.
        judge (`Callable`, *optional*): Takes texts and rationales, and gives the label that each pair argues for, which
            has to be one of the row's, or None where it can't say; such as [`~dhrd_hf.rationales.select.LabelJudge`].
        probe_rows (`int`, *optional*, defaults to 10000): Rows drawn for the probe from a larger table.
        seed (`int`, *optional*, defaults to 0): Of the draws.
        progress (`bool`, *optional*, defaults to `False`): Show a bar on standard error.

    Returns:
        `dict`: `rows`; `checks`, for each of [`~dhrd_hf.rationales.checks.CHECKS`] the ids of the rows it flags, and as
        `not_text` those whose rationale is a list or an object; `matching`
        ([`~dhrd_hf.rationales.matching.match_rationales`], with ids); `label_probe`
        ([`~dhrd_hf.rationales.probe.label_probe`]); `labels`, `per_label`, `lengths`, `openings`, `duplicates`,
        `truncation`, `consistency`; `verdict`, sentences of what to do; `notes`, what could not be looked at.

    Raises:
        ValueError: if there are no rows, no rationale column, ids of a named column repeat, no length is between
            `min_words` and `max_words`, `max_length` leaves no room for the
            text, or the suffix lacks `{rationale}` or `{label}`.
    """
    from tqdm import tqdm

    from .matching import label_probe, match_rationales

    check_bounds(min_words, max_words)
    table = _Table(rows, prompt, label_column, rationale_column, id_column, group_column)
    ids, texts, labels, rationales = table.ids, table.texts, table.labels, table.rationales
    encode = None if tokenizer is None else _training_encoder(table.label_values, tokenizer, max_length, suffix)
    names = sorted({name for its in table.names for name in its})
    flagged: dict[str, list[int]] = {name: [] for name in AUDIT_CHECKS}
    examples: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def flag(name: str, row: int, reason: str) -> None:
        flagged[name].append(row)
        if len(examples[name]) < _SHOWN:
            examples[name].append({"id": ids[row], "reason": reason, "rationale": (rationales[row] or "")[:300]})

    options = {"labels": names, "label_words": label_words, "min_words": min_words, "max_words": max_words}
    words, openings = [], Counter()
    same: list[bytes | None] = []
    for row, rationale in enumerate(tqdm(rationales, desc="checks", unit="row", disable=not progress)):
        same.append(_folded(rationale))
        if row in table.not_text:
            flag(NOT_TEXT, row, f"It is {table.not_text[row]}, not a text.")
            continue
        for name, reason in check_rationale(rationale, text=texts[row] if texts else "", **options).items():
            flag(name, row, reason)
        if rationale:
            words.append(count_words(rationale))
            openings[" ".join(units(rationale)[:_OPENING])] += 1
    alike = near_duplicates(rationales, groups=table.groups)
    for group in alike[:_SHOWN]:
        flag("near_duplicate", group[0], f"{len(group)} rows are alike.")
    flagged["near_duplicate"] = sorted(row for group in alike for row in group)

    with tqdm(total=2, desc="matching and probe", disable=not progress) as bar:
        if texts:
            matching = match_rationales(texts, rationales, groups=table.groups, seed=seed)
        else:
            nothing = {"verdict": None, "accuracy": None, "mismatched": []}
            matching = nothing | {"reason": "matching needs the rows' texts"}
        matching["mismatched"] = [ids[row] for row in matching["mismatched"]]
        bar.update()
        known = [row for row, label in enumerate(labels) if label is not None]
        probe = label_probe(
            [rationales[row] for row in known],
            [labels[row] for row in known],
            texts=[texts[row] for row in known] if texts else None,
            groups=None if table.groups is None else [table.groups[row] for row in known],
            most_rows=probe_rows,
            seed=seed,
        )
        bar.update()

    report: dict[str, Any] = {
        "rows": len(ids),
        "labels": dict(sorted(Counter(name for its in table.names for name in its).items())),
        "checks": {name: [ids[row] for row in found] for name, found in flagged.items()},
        "per_label": _per_label(table.names, flagged),
        "matching": matching,
        "label_probe": probe,
        "lengths": _lengths(words),
        "openings": [
            {"words": its, "rows": count} for its, count in openings.most_common(_SHOWN) if count > 1 and its
        ],
        "duplicates": _duplicates(table, same, other_splits or {}, prompt, rationale_column),
        "truncation": None if encode is None else _truncation(encode, table),
        "consistency": _consistency(table, judge) if judge is not None else None,
        "examples": dict(examples),
        "notes": table.notes,
    }
    if probe.get("rows", 0) < len([row for row in known if rationales[row]]) and "reason" not in probe:
        report["notes"].append(f"The label probe saw {probe['rows']} rows, drawn with seed {seed}.")
    for part in (matching, probe):
        if "reason" in part:
            report["notes"].append(f"Not looked at: {part['reason']}.")
    report["verdict"] = advice_on(report)
    return report


class _Table:
    """The columns that an audit reads, each as a list."""

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        prompt: str,
        label_column: str,
        rationale_column: str,
        id_column: str | None,
        group_column: str | None,
    ):
        rows = list(named_rows(rows, label_column))
        if not rows:
            raise ValueError("there are no rows to audit")
        columns = list(dict.fromkeys(name for row in rows for name in row))
        for name in filter(None, (rationale_column, id_column, group_column)):
            if name not in columns:
                raise ValueError(f"no column {name!r}; the table has: {', '.join(map(repr, columns))}")
        self.notes: list[str] = []
        self.not_text: dict[int, str] = {}
        self.rationales = [self._text(number, row.get(rationale_column)) for number, row in enumerate(rows)]
        self.label_values = [row.get(label_column) for row in rows]
        check_lists(self.label_values, f"column {label_column!r}")
        # Each once, and in order, so that one set of labels reads the same in every row.
        self.names = [sorted(set(label_names(value))) for value in self.label_values]
        self.labels = [
            None if is_missing(value) else ", ".join(its) or "none"
            for value, its in zip(self.label_values, self.names, strict=True)
        ]
        if None in self.labels:
            missing = [str(row) for row, label in enumerate(self.labels) if label is None]
            some = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            self.notes.append(
                f"{len(missing)} of {len(rows)} rows have no label in column {label_column!r}: {some} (numbered from 0)."
            )
        wanted = template_columns(prompt)
        self.texts: list[str] | None = None
        if set(wanted) <= set(columns):
            self.texts = list(render_rows(prompt, rows, input_or_empty))
        else:
            lacking = ", ".join(repr(name) for name in wanted if name not in columns)
            self.notes.append(
                f"There is no column {lacking}: matching, copies of the text, its language and the probe of the text alone "
                "are not possible."
            )
        group_column = group_column or ("group" if "group" in columns else None)
        # A row without a group is one of its own.
        self.groups = (
            [row.get(group_column) if row.get(group_column) is not None else ("row", n) for n, row in enumerate(rows)]
            if group_column
            else None
        )
        self.ids = self._ids(rows, columns, id_column)

    def _text(self, number: int, value: Any) -> str | None:
        try:
            return None if value is None or value != value else as_text(value, "it")
        except ValueError:
            self.not_text[number] = "a list" if isinstance(value, (list, tuple)) else "an object"
            return None

    def _ids(self, rows: list[Mapping[str, Any]], columns: list[str], id_column: str | None) -> list[Any]:
        name = id_column or key_column(columns)
        if name is None:
            return list(range(len(rows)))
        ids = [row.get(name) for row in rows]
        if all(isinstance(it, (str, int)) for it in ids) and len(set(ids)) == len(ids):
            return ids
        twice = next((str(it) for it, count in Counter(map(str, ids)).items() if count > 1), None)
        problem = f"repeat, such as {twice!r}" if twice is not None else "are missing or no text or number"
        if id_column:
            raise ValueError(f"ids in column {name!r} {problem}: name another --id-column, or none to number the rows")
        self.notes.append(f"Ids in column {name!r} {problem}: rows are numbered from 0 instead.")
        return list(range(len(rows)))


def _per_label(names: list[list[str]], flagged: dict[str, list[int]]) -> dict[str, Any]:
    rows = Counter(label for its in names for label in its)
    counts = {name: Counter(label for row in found for label in names[row]) for name, found in flagged.items()}
    return {
        label: {"rows": count, "flagged": {name: counts[name][label] for name in AUDIT_CHECKS}}
        for label, count in sorted(rows.items())
    }


def _lengths(words: list[int]) -> dict[str, Any]:
    if not words:
        return {"mean": None, "median": None, "least": None, "most": None, "histogram": []}
    ordered = sorted(words)
    width = max(1, -(-ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] // 20))
    bins = Counter(min(it // width, 20) for it in words)
    return {
        "mean": sum(words) / len(words),
        "median": ordered[len(ordered) // 2],
        "least": ordered[0],
        "most": ordered[-1],
        "histogram": [{"from": place * width, "rows": bins[place]} for place in range(max(bins) + 1)],
    }


def _folded(text: str | None) -> bytes | None:
    """What is the same for texts of the same words; None where there are none."""
    words = " ".join(units(text or ""))
    return hashlib.blake2b(words.encode(), digest_size=16).digest() if words else None


def _duplicates(
    table: _Table,
    said: list[bytes | None],
    others: Mapping[str, Sequence[Mapping[str, Any]]],
    prompt: str,
    rationale_column: str,
) -> dict[str, Any]:
    counts, texts = Counter(said), list(map(_folded, table.texts or ()))
    of_texts, wanted = Counter(texts), template_columns(prompt)
    found: dict[str, Any] = {
        "same_rationale": sum(counts[it] > 1 for it in said if it),
        "same_text": sum(of_texts[it] > 1 for it in texts if it) if texts else None,
        "across_splits": {},
    }
    for name, rows in others.items():
        theirs = {_folded(it) for row in rows if isinstance(it := row.get(rationale_column), str)}
        their_texts = {
            _folded(render(prompt, row)) for row in rows if all(row.get(column) is not None for column in wanted)
        }
        found["across_splits"][name] = {
            "rationales": sum(it in theirs for it in said if it),
            "texts": sum(it in their_texts for it in texts if it) if texts else None,
        }
    return found


def _training_encoder(
    values: Sequence[Any], tokenizer: Any, max_length: int | None = None, suffix: str | None = None
) -> DualHeadEncoder:
    """The encoder of a training run on rows of these labels."""
    from ..data.encoding import DualHeadEncoder

    known = [value for value in values if not is_missing(value)]
    kind = kind_of(known)
    found = ["label"] if kind == "regression" else sorted_names(name for value in known for name in label_names(value))
    given = {name: it for name, it in (("max_length", max_length), ("suffix", suffix)) if it is not None}
    ids = {name: number for number, name in enumerate(found or [""])}
    return DualHeadEncoder(tokenizer, ids, problem_type=kind, **given)


def _truncation(encode: DualHeadEncoder, table: _Table) -> dict[str, Any]:
    """How many rationales, and texts, a training run would cut to fit, by the encoder that would cut them."""
    cut, inputs_cut, most = [], 0, 0
    for start in range(0, len(table.ids), _BATCH):
        batch = slice(start, start + _BATCH)
        said = [(it or "").strip() for it in table.rationales[batch]]
        inputs = table.texts[batch] if table.texts else [""] * len(said)
        for row, parts in enumerate(encode.parts(inputs, _answers(table.label_values[batch], encode), said), start):
            if parts.rationale_cut:
                cut.append(table.ids[row])
            inputs_cut += parts.input_cut
            most = max(most, parts.whole)
    return {
        "max_length": encode.max_length,
        "rows": len(cut),
        "texts_alone": inputs_cut,
        "ids": cut,
        "most_tokens": most,
    }


def _answers(values: Sequence[Any], encode: DualHeadEncoder) -> list[str]:
    """Each row's label as it stands in the answer; the longest where there is none."""
    labels = encode.labels
    longest = max(labels.longest_texts(), key=len)
    if labels.problem_type == "multi_label_classification":
        return [longest if is_missing(it) else labels.text(labels.read(label_names(it))) for it in values]
    if labels.problem_type == "regression":
        return [longest if is_missing(it) else labels.text(float(it)) for it in values]
    return [longest if is_missing(it) else label_names(it)[0] for it in values]


def _consistency(table: _Table, judge: Judge) -> dict[str, Any]:
    if table.texts is None:
        nothing = {"accuracy": None, "inconsistent": [], "rows": 0, "unjudged": 0}
        return nothing | {"reason": "a judge needs the rows' texts"}
    kept = [n for n, it in enumerate(table.rationales) if it and table.names[n]]
    said = judge([table.texts[n] for n in kept], [table.rationales[n] for n in kept])
    if len(said) != len(kept):
        raise ValueError(f"the judge gave {len(said)} labels for {len(kept)} rows")
    judged = [(n, str(label)) for n, label in zip(kept, said, strict=True) if label is not None]
    wrong = [n for n, label in judged if label not in table.names[n]]
    return {
        "accuracy": 1 - len(wrong) / len(judged) if judged else None,
        "inconsistent": [table.ids[n] for n in wrong],
        "rows": len(judged),
        "unjudged": len(kept) - len(judged),
    }


def quick_audit(rows: Sequence[Mapping[str, Any]], *, seed: int = 0, **options: Any) -> dict[str, Any] | None:
    """The audit of at most 2000 rows that have a rationale, drawn at random: what a training run looks at first."""
    import random

    column = options.get("rationale_column", "rationale")
    rows = named_rows(rows, options.get("label_column", "label"))
    drawn = sorted(random.Random(seed).sample(range(len(rows)), min(_QUICK_ROWS, len(rows))))
    chosen = [row for row in (rows[place] for place in drawn) if str(row.get(column) or "").strip()]
    return audit_rationales(chosen, seed=seed, **options) if chosen else None


def summary(audit: Mapping[str, Any]) -> dict[str, Any]:
    """What a model card says of an audit."""
    return {
        "rows": audit["rows"],
        "flagged": {name: len(ids) / audit["rows"] for name, ids in audit["checks"].items()},
        "matching": audit["matching"]["verdict"],
        "matching_accuracy": audit["matching"]["accuracy"],
        **{name: audit["label_probe"][name] for name in ("rationale_only", "text_only", "majority")},
    }
