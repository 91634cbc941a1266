"""The rows that are to get rationales, and what a teacher is asked of each (Zhou et al. 2025, arXiv 2509.21487, appendix E.3)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from transformers.utils import logging

from ..data.joining import NamedRows, key_column
from ..data.label_names import check_missing, is_missing, label_name, some, tell_odd
from ..data.labels import check_fractions
from ..data.prompts import DEFAULT_PROMPT, has_input, render, template_columns
from ..data.tables import check_columns

logger = logging.get_logger(__name__)
SENTINEL = "[END OF REASONING]"
SENTENCES = (2, 5)  # of an explanation, from how many to how many

_SYSTEM = (
    "You explain decisions of a text classifier to a student who learns from you. You keep to the form you are given."
)
_GUARDED = """Here is an input and the label that is right for it.

Input:
{text}

{labels}

Right label: {label}

Explain in {sentences}, as one paragraph, why this label is right. Go step by step from what the input says."""
_FREE = """Here is an input, and labels of which one is right for it.

Input:
{text}

{labels}

Explain in {sentences}, as one paragraph, how one comes to the right label. Go step by step from what the input says."""
_FORM = """Never name a label in the explanation, in any form, nor a word that means the same: whoever reads it has to come to the label by the reasoning alone. Do not speak of this task, of labels or of yourself. {language}
Close the explanation with {sentinel} and write the label on a line of its own below it. The form is exactly this:

(your explanation) {sentinel}
Answer: {answer}"""
_SAME_LANGUAGE = "Write in the language of the input."
_OTHER_LANGUAGE = "Write the explanation in {language}."
_AGAIN = "This can't be used, because:\n{reasons}\n\nWrite the explanation and the answer once more, in the same form."

_TOLD = (_SYSTEM, _GUARDED, _FREE, _FORM, _SAME_LANGUAGE, _OTHER_LANGUAGE, _AGAIN)
# It changes with every word that a teacher is told, also where nobody thinks of raising the number.
PROMPT_VERSION = "1-" + hashlib.sha256("\0".join(_TOLD).encode()).hexdigest()[:8]

_WHOLE_NUMBER = re.compile(r"-?\d+")
_MOST_LABELS = 1000


@dataclass(frozen=True)
class TeacherPrompt:
    r"""The prompt for a rationale: the input, the labels, the form of the reply, and with `style="guarded"` the gold label.

    The teacher explains the label in a few sentences without naming it, closes with a sentinel, and names the label on
    the next line, so that every reply can be checked. With `style="free"` it isn't shown the gold label and has to come
    to it: replies with another answer are thrown away (rejection sampling).

    Example:

    ```python
    >>> from dhrd_hf.rationales.prompt import TeacherPrompt
    >>> prompt = TeacherPrompt(["wet", "dry"], template="{place}: {weather}")
    >>> system, user = prompt.messages({"place": "The quay", "weather": "It rains."}, "wet")
    >>> print(user["content"][:73])
    Here is an input and the label that is right for it.
    <BLANKLINE>
    Input:
    The quay: It

    ```

    Args:
        labels (`Sequence[str]`): The labels' names, two or more.
        style (`str`, *optional*, defaults to `"guarded"`): `"guarded"` shows the gold label, `"free"` hides it.
        template (`str`, *optional*, defaults to `"{text}"`): The input over the row's columns, as the classifier gets it.
        descriptions (`Mapping[str, str]`, *optional*): What a label means, told to the teacher.
        examples (`Sequence[Mapping]`, *optional*): Rows with the template's columns, `label` and `rationale`, shown as
            requests that were answered well.
        system (`str`, *optional*): The system prompt; `""` for none. By default one sentence.
        language (`str`, *optional*): Such as `"German"`; by default the input's.
        spellings (`Mapping[str, Sequence[str]]`, *optional*): What else is taken for a label in the answer's line; the
            teacher is not told.

    Raises:
        ValueError: if a label can't be named (it is no text, empty, or there twice), there are fewer than two, or another
            argument is not as above.

    Source: appendix E.3 of arXiv 2509.21487; rejection sampling as in STaR, arXiv 2203.14465.
    """

    labels: Sequence[str]
    style: Literal["guarded", "free"] = "guarded"
    template: str = DEFAULT_PROMPT
    descriptions: Mapping[str, str] = field(default_factory=dict)
    examples: Sequence[Mapping[str, Any]] = ()
    system: str = _SYSTEM
    language: str | None = None
    spellings: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "labels", tuple(self.labels))
        for it in self.labels:
            if not isinstance(it, str) or not it.strip() or "\n" in it:
                raise ValueError(
                    f"the teacher prompt can't name the label {it!r}: labels are names, of one line of text"
                )
        if len({*self.labels}) < max(2, len(self.labels)):
            raise ValueError(f"a teacher prompt needs two labels or more, each once; these are {list(self.labels)}")
        if self.style not in ("guarded", "free"):
            raise ValueError(f"style={self.style!r} is not one of guarded, free")
        self._check_labels(*self.descriptions, *self.spellings)
        for number, example in enumerate(self.examples):
            lacking = [name for name in (*self.columns, "label", "rationale") if is_missing(example.get(name))]
            if lacking:
                raise ValueError(f"example {number} of the prompt has no {lacking[0]!r}")
            self._check_labels(example["label"])

    def _check_labels(self, *labels: Any) -> None:
        for label in labels:
            if label not in self.labels:
                known = f"there is no label {label!r} among {', '.join(map(repr, self.labels))}"
                raise ValueError(f"the teacher prompt can't name the label {label!r}: {known}")

    @cached_property
    def columns(self) -> list[str]:
        return template_columns(self.template)

    def lacks(self, row: Mapping[str, Any]) -> str | None:
        """The column of the input that is empty in a row, so that there is nothing to ask."""
        return empty_column(self.template, row)

    def text(self, row: Mapping[str, Any]) -> str:
        return render(self.template, row)

    def messages(self, row: Mapping[str, Any], label: str) -> list[dict[str, str]]:
        """The chat that asks for a row's rationale."""
        self._check_labels(label)
        return [*self._before, {"role": "user", "content": self._request(row, label)}]

    @cached_property
    def _before(self) -> list[dict[str, str]]:
        """What stands before each request: the system prompt and the examples."""
        chat = [{"role": "system", "content": self.system}] if self.system.strip() else []
        for example in self.examples:
            chat.append({"role": "user", "content": self._request(example, example["label"])})
            reply = f"{example['rationale']} {SENTINEL}\nAnswer: {example['label']}"
            chat.append({"role": "assistant", "content": reply})
        return chat

    @staticmethod
    def again(reply: str, reasons: Sequence[str]) -> list[dict[str, str]]:
        """What is added to a chat whose reply can't be used."""
        listed = "\n".join(f"- {reason}" for reason in reasons)
        return [{"role": "assistant", "content": reply}, {"role": "user", "content": _AGAIN.format(reasons=listed)}]

    def settings(self) -> dict[str, Any]:
        """All that shapes what the teacher is told, for a manifest."""
        names = ("style", "template", "system", "language")
        told = {"version": PROMPT_VERSION, "sentinel": SENTINEL} | {name: getattr(self, name) for name in names}
        told |= {"labels": list(self.labels), "descriptions": dict(self.descriptions)}
        return told | {"examples": list(map(dict, self.examples)), "sentences": list(SENTENCES)}

    def _request(self, row: Mapping[str, Any], label: str) -> str:
        meant = self.descriptions
        labels = "\n- ".join(["Labels:", *(f"{it}: {meant[it]}" if it in meant else it for it in self.labels)])
        body, answer = (_GUARDED, label) if self.style == "guarded" else (_FREE, "(the label)")
        language = _SAME_LANGUAGE if self.language is None else _OTHER_LANGUAGE.format(language=self.language)
        told = {
            "label": label,
            "labels": labels,
            "sentences": "{} to {} sentences".format(*SENTENCES),
            "language": language,
            "answer": answer,
        }
        return f"{body}\n{_FORM}".format(text=self.text(row), sentinel=SENTINEL, **told)


def empty_column(template: str, row: Mapping[str, Any]) -> str | None:
    """The first empty column of a row without an input; one that is blank beside others that are not is none."""
    if has_input(template, row):
        return None
    return next((name for name in template_columns(template) if is_missing(row.get(name))), None)


class LabelledRow(NamedTuple):
    """A row, with what it is called and the name of its label."""

    key: Any
    row: dict[str, Any]
    label: str


class LabelledTable:
    """A table with labels that a teacher can be told.

    It is read once to learn the labels and to find what is wrong before anything is paid for, and streamed thereafter.

    Example:

    ```python
    >>> import os, tempfile
    >>> from dhrd_hf.data.table_writing import write_rows
    >>> from dhrd_hf.rationales.prompt import LabelledTable
    >>> os.chdir(tempfile.mkdtemp())
    >>> write_rows("rows.jsonl", [{"text": "It rains.", "label": 1}, {"text": "It is noon.", "label": 0}])
    2
    >>> table = LabelledTable("rows.jsonl", label_map={"1": "wet", "0": "dry"})
    >>> table.labels, [row.label for row in table]
    (['wet', 'dry'], ['wet', 'dry'])

    ```

    Args:
        source (`str` or `Path`): A table, but for standard input: it is read more than once.
        template (`str`, *optional*, defaults to `"{text}"`), label_column (`str`, *optional*, defaults to `"label"`): The
            input over the columns, and the column of the labels.
        id_column (`str`, *optional*): The column of the keys; by default the first of `id`, `key` and `idx`, else a row's
            number from 0.
        label_map (`Mapping[str, str | Sequence[str]]`, *optional*): Names for the values of the label column; of several
            the first is told to the teacher, and the others are taken for it in an answer. Other values keep theirs if
            they are text.
        rationale_column (`str`, *optional*, defaults to `"rationale"`): Where the rationales will go.
        keeps_rationales (`bool`, *optional*, defaults to `False`): The rationales in that column are what is wanted.
        problem_type (`str`, *optional*): `"single_label_classification"` where numbers with fractions are names.
        drop_unlabelled (`bool`, *optional*, defaults to `False`): Leave out rows without a label; `dropped` counts them.
        say (`Callable[[str], None]`, *optional*): Is told of those, of rows with an empty input, and of names that may be a
            slip; by default it is logged.

    Raises:
        ValueError: if a column is missing, a row's label can't be named, or its input holds a list or an object.
    """

    def __init__(
        self,
        source: str | Path,
        template: str = DEFAULT_PROMPT,
        *,
        label_column: str = "label",
        id_column: str | None = None,
        label_map: Mapping[str, str | Sequence[str]] | None = None,
        rationale_column: str = "rationale",
        keeps_rationales: bool = False,
        problem_type: str | None = None,
        drop_unlabelled: bool = False,
        say: Callable[[str], None] = logger.warning,
    ):
        if str(source) == "-":
            raise ValueError("--data - can't be read more than once: write the rows to a file and name it")
        if problem_type not in (None, "single_label_classification"):
            raise ValueError(f"a rationale explains one label a row, which problem_type: {problem_type} has not")
        self.source, self.label_column, self.rationale_column = source, label_column, rationale_column
        self.names: dict[str, str] = {}
        self.spellings: dict[str, list[str]] = {}
        for value, spelt in (label_map or {}).items():
            name, *others = [spelt] if isinstance(spelt, str) else spelt
            self.names[label_name(value) or str(value)] = name
            self.spellings.setdefault(name, []).extend(others)
        self.counts: Counter[str] = Counter()
        self._rows = NamedRows(source, label_column)
        what, columns, filled, cells, lacking, empty = f"column {label_column!r}", {}, 0, [], [], []
        for number, row in enumerate(self._rows):
            if number == 0:
                check_columns(row, [*template_columns(template), label_column, *filter(None, [id_column])])
            columns.update(dict.fromkeys(row))
            value = row.get(label_column)
            if is_missing(value):
                lacking.append(number)
                continue
            try:
                self.counts[self._name(value)] += 1
            except ValueError as error:
                raise ValueError(
                    f"the teacher prompt can't name the labels in {what}: row {number}: {error}"
                ) from None
            if len(self.counts) > _MOST_LABELS:
                raise ValueError(f"{what} has more than {_MOST_LABELS} labels: name the right one by --label-column")
            cells.append(value)
            filled += bool(row.get(rationale_column))
            if (column := empty_column(template, row)) is not None:
                empty.append(f"row {number} (column {column!r})")
                continue
            try:
                render(template, row)
            except ValueError as error:
                raise ValueError(f"Row {number} of {source}: {error}") from None
        where, self.dropped = f"{source}, {what}", len(lacking)
        check_missing(lacking, len(lacking) + len(self), where, drop_unlabelled, say)
        if empty:
            say(
                f"{source}: {len(empty)} of {len(self)} rows have no input, and nobody is asked for them: {some(empty)}."
            )
        unnamed = [value for value in dict.fromkeys(cells) if label_name(value) not in self.names]
        try:
            check_fractions(() if problem_type else unnamed, where)
        except ValueError as error:
            raise ValueError(
                f"{str(error).partition(': add --')[0]}: name them by --label-map, or, if these are their names, add "
                "--settings 'problem_type: single_label_classification'"
            ) from None
        tell_odd(cells, self.counts, where, say)
        given = {*self.names.values()}
        if numbers := sorted((it for it in {*self.counts} - given if _WHOLE_NUMBER.fullmatch(it)), key=float):
            example = ", ".join(f'"{it}": "..."' for it in numbers[:3])
            told = f"{', '.join(numbers[:5])} {'are numbers' if len(numbers) > 1 else 'is a number'}"
            raise ValueError(
                f"the teacher prompt can't name the labels in {what}: {told}, which tells a teacher nothing. Name them: "
                f"--label-map '{{{example}}}'"
            )
        if filled and not keeps_rationales:
            raise ValueError(
                f"{filled} of {len(self)} rows have a rationale in column {rationale_column!r} already. To check "
                f"those: --teacher column:{rationale_column}. To write others: --settings 'rationale_column: NAME'"
            )
        self.columns, self.id_column = list(columns), id_column or key_column(columns)

    def __iter__(self) -> Iterator[LabelledRow]:
        for number, row in enumerate(self._rows):
            value = row.get(self.label_column)
            if not is_missing(value):
                key = number if self.id_column is None or row.get(self.id_column) is None else row[self.id_column]
                yield LabelledRow(key, row, self._name(value))

    def __len__(self) -> int:
        return self.counts.total()

    @property
    def labels(self) -> list[str]:
        """The labels' names: those of the label map, then the others in order."""
        return list(dict.fromkeys([*self.names.values(), *sorted(self.counts)]))

    def _name(self, value: Any) -> str:
        if isinstance(value, (list, tuple)):
            raise ValueError(f"{value!r} are several; a rationale explains one, so give each its own row")
        name = label_name(value)
        return self.names.get(name, name)
