"""The audit of a table's rationales: what they are worth before a training run is spent on them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..data.joining import key_column
from ..data.label_names import alike, is_missing, kind_of, label_names, some, sorted_names
from ..data.labels import check_lists, named_rows
from ..data.prompts import DEFAULT_PROMPT, as_text, input_or_empty, render_rows, template_columns
from ..data.tables import check_columns
from .checks import CHECKS, MAX_WORDS, MIN_WORDS, check_bounds, check_rationale
from .matching import label_probe, match_rationales, near_duplicates
from .words import count_words, units

_OPENING = 4  # words at the start of a rationale that make it like others
_SHOWN = 5
_QUICK_ROWS = 2000  # of each kind that quick_audit looks at
_BATCH = 1000  # rows whose tokens are in memory at a time
NOT_TEXT = "not_text"
# What an audit tells of single rows: what the checks flag, and lists and objects, which training refuses.
AUDIT_CHECKS = (*CHECKS, NOT_TEXT)
MANY = 0.02  # from which share of the rows on a check is a matter for the verdict
# How much better than text alone or majority the rationale alone may do before its wording is called a give-away.
_GIVES_AWAY = 0.15
NOTHING_FOUND = "Nothing speaks against training on these rationales."
_ADVICE = {
    "label_leak": "name a label or announce the answer: a student learns to look for it. Drop them or have them written again",
    "empty": "are empty: these rows train on their label alone",
    "truncated": "stop in the middle of a sentence: raise the teacher's limit of new tokens, or drop the last piece",
    "refusal": "are refusals: drop them",
    "repetition": "repeat themselves: drop them, or raise the teacher's repetition penalty",
    "copy": "copy the input: they teach nothing that the input does not",
    "prompt_echo": "repeat the teacher's prompt: cut the echo",
    "wrong_language": "are in another language than their text: drop them",
    "near_duplicate": "are nearly the same as another row's: a template, which teaches its words instead of a reason",
    "length": "are too short or too long",
    NOT_TEXT: "are lists or objects, which training refuses: make one text of each",
}

Judge = Callable[[list[str], list[str]], list[str | None]]
Rows = Sequence[Mapping[str, Any]]


def audit_rationales(
    rows: Rows,
    *,
    prompt: str = DEFAULT_PROMPT,
    label_column: str = "label",
    rationale_column: str = "rationale",
    id_column: str | None = None,
    group_column: str | None = None,
    label_words: Mapping[str, Sequence[str]] | None = None,
    min_words: int = MIN_WORDS,
    max_words: int = MAX_WORDS,
    other_splits: Mapping[str, Rows] | None = None,
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
            has to be one of the row's, or None where it can't say; such as [`LabelJudge`].
        probe_rows (`int`, *optional*, defaults to 10000): Rows drawn for the probe from a larger table.
        seed (`int`, *optional*, defaults to 0): Of the draws.
        progress (`bool`, *optional*, defaults to `False`): Show a bar on standard error.

    Returns:
        `dict`: `rows`; `checks`, for each check the ids of the rows it flags, and as `not_text` those whose rationale is a
        list or an object; `matching` ([`~dhrd_hf.rationales.matching.match_rationales`], with ids); `label_probe`
        ([`~dhrd_hf.rationales.matching.label_probe`]); `labels`, `per_label`, `lengths`, `openings`, `duplicates`,
        `truncation`, `consistency`; `verdict`, sentences of what to do; `notes`, what could not be looked at.

    Raises:
        ValueError: if there are no rows, no rationale column, ids of a named column repeat, no length is between the bounds,
            `max_length` leaves no room for the text, or the suffix lacks `{rationale}` or `{label}`.
    """
    from tqdm import tqdm

    check_bounds(min_words, max_words)
    table = _Table(rows, prompt, label_column, rationale_column, id_column, group_column)
    ids, texts, rationales, groups = table.ids, table.texts, table.rationales, table.groups
    encode = None if tokenizer is None else _training_encoder(table.label_values, tokenizer, max_length, suffix)
    labels = Counter(sorted(name for its in table.names for name in its))
    flagged: dict[str, list[int]] = {name: [] for name in AUDIT_CHECKS}
    examples: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def flag(name: str, row: int, reason: str) -> None:
        flagged[name].append(row)
        if len(examples[name]) < _SHOWN:
            examples[name].append({"id": ids[row], "reason": reason, "rationale": (rationales[row] or "")[:300]})

    options = {"labels": list(labels), "label_words": label_words, "min_words": min_words, "max_words": max_words}
    lengths, openings, said = [], Counter(), []
    with tqdm(total=len(ids), desc="checks", unit="row", disable=not progress) as bar:
        for row, rationale in enumerate(rationales):
            bar.update()
            said.append(_folded(rationale))
            if row in table.not_text:
                flag(NOT_TEXT, row, f"It is {table.not_text[row]}, not a text.")
                continue
            for name, reason in check_rationale(rationale, text=texts[row] if texts else "", **options).items():
                flag(name, row, reason)
            if rationale:
                lengths.append(count_words(rationale))
                openings[" ".join(units(rationale)[:_OPENING])] += 1
        bar.set_description("near duplicates")
        near = near_duplicates(rationales, groups=groups)
        bar.set_description("matching")
        matching = match_rationales(texts, rationales, groups=groups, seed=seed)
        bar.set_description("label probe")
        probe = label_probe(rationales, table.labels, texts=texts, groups=groups, most_rows=probe_rows, seed=seed)
    for its in near[:_SHOWN]:
        flag("near_duplicate", its[0], f"{len(its)} rows are alike.")
    flagged["near_duplicate"] = sorted(row for its in near for row in its)
    matching["mismatched"] = [ids[row] for row in matching["mismatched"]]
    per_label = {label: {"rows": n, "flagged": dict.fromkeys(flagged, 0)} for label, n in labels.items()}
    for name, row in ((name, row) for name, its in flagged.items() for row in its):
        for label in table.names[row]:
            per_label[label]["flagged"][name] += 1
    report: dict[str, Any] = {
        "rows": len(ids),
        "labels": dict(labels),
        "checks": {name: [ids[row] for row in its] for name, its in flagged.items()},
        "per_label": per_label,
        "matching": matching,
        "label_probe": probe,
        "lengths": _lengths(lengths),
        "openings": [{"words": its, "rows": n} for its, n in openings.most_common(_SHOWN) if n > 1 and its],
        "duplicates": _duplicates(table, said, other_splits or {}, prompt, rationale_column),
        "truncation": None if encode is None else _truncation(encode, table),
        "consistency": None if judge is None else _consistency(table, judge),
        "examples": dict(examples),
        "notes": table.notes,
    }
    known = sum(label is not None for label, it in zip(table.labels, rationales, strict=True) if it and it.strip())
    if "reason" not in probe and probe["rows"] < known:
        table.notes.append(f"The label probe saw {probe['rows']} rows, drawn with seed {seed}.")
    table.notes += [f"Not looked at: {part['reason']}." for part in (matching, probe) if "reason" in part]
    return report | {"verdict": advice_on(report)}


class _Table:
    """The columns that an audit reads, each as a list."""

    def __init__(
        self,
        rows: Rows,
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
        check_columns(columns, filter(None, (rationale_column, id_column, group_column)))
        self.notes: list[str] = []
        self.not_text: dict[int, str] = {}
        self.rationales = [self._text(number, row.get(rationale_column)) for number, row in enumerate(rows)]
        self.label_values = [row.get(label_column) for row in rows]
        check_lists(self.label_values, f"column {label_column!r}")
        # Each once, and in order, so that one set of labels reads the same in every row.
        self.names = [sorted(set(label_names(value))) for value in self.label_values]
        named = zip(self.label_values, self.names, strict=True)
        self.labels = [None if is_missing(value) else ", ".join(its) or "none" for value, its in named]
        if missing := [str(row) for row, label in enumerate(self.labels) if label is None]:
            of = f"{len(missing)} of {len(rows)} rows have no label in column {label_column!r}"
            self.notes.append(f"{of}: {some(missing)} (numbered from 0).")
        lacking = ", ".join(repr(name) for name in template_columns(prompt) if name not in columns)
        self.texts = None if lacking else list(render_rows(prompt, rows, input_or_empty))
        if lacking:
            lost = "matching, copies of the text, its language and the probe of the text alone"
            self.notes.append(f"There is no column {lacking}: {lost} are not possible.")
        group_column = group_column or ("group" if "group" in columns else None)
        # A row without a group is one of its own.
        own = [("row", n) if row.get(group_column) is None else row[group_column] for n, row in enumerate(rows)]
        self.groups = own if group_column else None
        self.ids = self._ids(rows, id_column or key_column(columns), named=id_column is not None)

    def _text(self, number: int, value: Any) -> str | None:
        try:
            return None if value is None or value != value else as_text(value, "it")
        except ValueError:
            self.not_text[number] = "a list" if isinstance(value, (list, tuple)) else "an object"
            return None

    def _ids(self, rows: list[Mapping[str, Any]], column: str | None, named: bool) -> list[Any]:
        ids = [row.get(column) for row in rows]
        if column is not None:
            if all(isinstance(it, (str, int)) for it in ids) and len(set(ids)) == len(ids):
                return ids
            twice = next((name for name, count in Counter(map(str, ids)).items() if count > 1), None)
            problem = f"repeat, such as {twice!r}" if twice is not None else "are missing or no text or number"
            if named:
                raise ValueError(
                    f"ids in column {column!r} {problem}: name another --id-column, or none to number the rows"
                )
            self.notes.append(f"Ids in column {column!r} {problem}: rows are numbered from 0 instead.")
        return list(range(len(rows)))


def _lengths(words: list[int]) -> dict[str, Any]:
    if not words:
        return dict.fromkeys(("mean", "median", "least", "most")) | {"histogram": []}
    ordered, count = sorted(words), len(words)
    width = max(1, -(-ordered[int(0.99 * count)] // 20))
    bins = np.bincount([min(it // width, 20) for it in words]).tolist()
    histogram = [{"from": place * width, "rows": rows} for place, rows in enumerate(bins)]
    found = {"mean": sum(words) / count, "median": ordered[count // 2], "least": ordered[0], "most": ordered[-1]}
    return found | {"histogram": histogram}


def _folded(text: str | None) -> int | None:
    """What is the same for texts of the same words; None where there are none."""
    words = units(text or "")
    return hash(words) if words else None


def _duplicates(
    table: _Table, said: list[int | None], others: Mapping[str, Rows], prompt: str, rationale_column: str
) -> dict[str, Any]:
    texts = table.texts and [_folded(it) for it in table.texts]

    def among(values: list[int | None] | None, theirs: Collection[int | None]) -> int | None:
        return None if values is None else sum(it in theirs for it in values if it is not None)

    def twice(values: list[int | None] | None) -> int | None:
        return among(values, {it for it, count in Counter(values or ()).items() if count > 1})

    across = {}
    for name, rows in others.items():
        theirs = {_folded(it) for row in rows if isinstance(it := row.get(rationale_column), str)}
        of_texts = among(texts, {_folded(input_or_empty(prompt, row)) for row in rows})
        across[name] = {"rationales": among(said, theirs), "texts": of_texts}
    return {"same_rationale": twice(said), "same_text": twice(texts), "across_splits": across}


def _training_encoder(values: Sequence[Any], tokenizer: Any, max_length: int | None, suffix: str | None) -> Any:
    """The encoder of a training run on rows of these labels."""
    from ..data.encoding import DualHeadEncoder

    known = [value for value in values if not is_missing(value)]
    kind = kind_of(known)
    found = ["label"] if kind == "regression" else sorted_names(name for value in known for name in label_names(value))
    ids = {name: number for number, name in enumerate(found or [""])}
    limit = {} if max_length is None else {"max_length": max_length}
    return DualHeadEncoder(tokenizer, ids, problem_type=kind, suffix=suffix, **limit)


def _truncation(encode: Any, table: _Table) -> dict[str, Any]:
    """How many rationales, and texts, a training run would cut to fit, by the encoder that would cut them."""
    labels = encode.labels
    longest = max(labels.longest_texts(), key=len)  # of a row without a label
    read = {
        "multi_label_classification": lambda it: labels.text(labels.read(label_names(it))),
        "regression": lambda it: labels.text(float(it)),
    }.get(labels.problem_type, lambda it: label_names(it)[0])
    answers = [longest if is_missing(it) else read(it) for it in table.label_values]
    cut, texts_cut, most = [], 0, 0
    for start in range(0, len(table.ids), _BATCH):
        batch = slice(start, start + _BATCH)
        said = [(it or "").strip() for it in table.rationales[batch]]
        inputs = table.texts[batch] if table.texts else [""] * len(said)
        for name, parts in zip(table.ids[batch], encode.parts(inputs, answers[batch], said), strict=True):
            cut += [name] if parts.rationale_cut else []
            texts_cut, most = texts_cut + parts.input_cut, max(most, parts.whole)
    counts = {"max_length": encode.max_length, "rows": len(cut), "texts_alone": texts_cut}
    return counts | {"ids": cut, "most_tokens": most}


def _consistency(table: _Table, judge: Judge) -> dict[str, Any]:
    kept = [n for n, it in enumerate(table.rationales) if it and table.names[n]] if table.texts else []
    said = judge([table.texts[n] for n in kept], [table.rationales[n] for n in kept]) if kept else []
    if len(said) != len(kept):
        raise ValueError(f"the judge gave {len(said)} labels for {len(kept)} rows")
    judged = [(n, str(label)) for n, label in zip(kept, said, strict=True) if label is not None]
    wrong = [n for n, label in judged if label not in table.names[n]]
    found = {
        "accuracy": 1 - len(wrong) / len(judged) if judged else None,
        "inconsistent": [table.ids[n] for n in wrong],
        "rows": len(judged),
        "unjudged": len(kept) - len(judged),
    }
    return found if table.texts else found | {"reason": "a judge needs the rows' texts"}


def advice_on(report: Mapping[str, Any]) -> list[str]:
    """What a person should do about rationales, most important first."""
    said, rows, flagged = [], report["rows"], report["checks"]
    matching, probe, cut, judged = (report[it] for it in ("matching", "label_probe", "truncation", "consistency"))
    if matching["verdict"] == "shuffled":
        join = "Look for a join by the wrong key or a sort of one column."
        said.append(f"The rationales do not belong to their rows (or fit any row alike): do not train on them. {join}")
    elif matching["verdict"] == "partly shuffled":
        listed = len(matching["mismatched"])
        said.append(
            f"About {max(matching['unrelated'], listed / matching['rows']):.0%} of the rationales do not belong to their rows; "
            f"{listed} are listed. Look for a join by the wrong key before training."
        )
    alone, text_only = probe["rationale_only"], probe["text_only"]
    base = max(filter(None, (text_only, probe["majority"])), default=None)
    if alone is not None and base is not None and alone - base > _GIVES_AWAY:
        by_text = "not known" if text_only is None else f"{text_only:.0%}"
        said.append(
            f"The rationale alone gives the label away to {alone:.0%} (text alone {by_text}, majority "
            f"{probe['majority']:.0%}): accuracy with a gold rationale in the input is no result."
        )
    for name in sorted(_ADVICE, key=lambda it: -len(flagged[it])):
        count = len(flagged[name])
        if count > (0 if name == NOT_TEXT else MANY * rows):
            said.append(f"{count} of {rows} rationales ({count / rows:.1%}) {_ADVICE[name]} ({name}).")
    if across := sum(it["rationales"] for it in report["duplicates"]["across_splits"].values()):
        said.append(f"{across} rationales stand in another split as well: results on it are too good.")
    if cut and cut["rows"]:
        tokens = cut["max_length"]
        said.append(f"{cut['rows']} rationales do not fit into {tokens} tokens behind their texts: shorten them.")
    if judged and judged["accuracy"] is not None and judged["accuracy"] < 0.95:
        wrong = len(judged["inconsistent"])
        said.append(f"The judge reads another label out of {wrong} of {judged['rows']} rationales.")
    for names in alike(report["labels"]):
        said.append(
            f"Labels {' and '.join(map(repr, names))} differ by spaces, case or spelling alone, and are {len(names)} classes: spell "
            "them alike if they are one."
        )
    few = any(0 < len(ids) <= MANY * rows for ids in flagged.values())
    tail = " `dhrd rationales filter` drops the few that a check flags." if few else ""
    return said or [f"{NOTHING_FOUND}{tail}"]


def quick_audit(rows: Rows, *, seed: int = 0, **options: Any) -> dict[str, Any] | None:
    """The audit of at most 2000 rows that have a rationale, drawn at random: what a training run looks at first."""
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
