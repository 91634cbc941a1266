"""Templates: how a row's columns become the classifier's input x and the suffix that follows it in training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, time, timedelta
from functools import cache
from numbers import Number
from string import Formatter
from typing import Any, NamedTuple

DEFAULT_PROMPT = "{text}"
REASONING_SPANS = ("input+rationale", "rationale")  # the tokens that the reasoning loss may be over

_ZERO_WIDTH = "\u200b\u2060\ufeff"  # blanks that `str.strip` leaves: zero-width space, word joiner, byte order mark
_TEXTS = (str, Number, date, time, timedelta)
_NO_TEXT = {(list, tuple, set): "a list", (bytes, bytearray): "bytes"}
# The paper's delimiters are plain text (appendix E.2).
DEFAULT_SUFFIX = "\nReasoning:\n{rationale}\nFinal Answer:\n{label}"


def template_columns(template: str) -> list[str]:
    """Names of the columns that a template takes, each once; `{{` and `}}` are literal braces."""
    return list(_columns(template))


@cache
def _columns(template: str) -> tuple[str, ...]:
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
    except ValueError as error:
        raise ValueError(
            f"The template {template!r} is malformed ({error}). Write {{{{ and }}}} for braces."
        ) from None
    for name, spec, conversion in fields:
        if not name or name.isdigit() or spec or conversion or any(mark in name for mark in ".["):
            raise ValueError(
                f"The template {template!r} holds {{{name}{spec and ':' + spec}}}; only plain column names are allowed, "
                "such as {text}. Write {{ and }} for braces."
            )
    return tuple(dict.fromkeys(name for name, _, _ in fields))


def input_columns(prompt: str) -> list[str]:
    """Names of the columns that make the input, as [`template_columns`]; there has to be one."""
    names = template_columns(prompt)
    if not names:
        raise ValueError(f"The prompt {prompt!r} names no column, so every row would be the same text. Say {{text}}.")
    return names


def closing(template: str) -> tuple[str, str]:
    """The column that a template names last, and the text behind it."""
    last = behind = ""
    for text, name, *_ in Formatter().parse(template):
        behind += text  # an escaped brace comes as a piece of its own, without a name
        if name is not None:
            last, behind = name, ""
    return last, behind


def chosen_prompt(prompt: str | None, text_column: str | None, default: str | None = None) -> str:
    if prompt is not None and text_column is not None:
        raise ValueError(f"--prompt and --text-column exclude each other: write --prompt '{{{text_column}}}'.")
    if prompt is not None:
        return unescaped(prompt)
    return f"{{{text_column}}}" if text_column is not None else default or "{text}"


def unescaped(template: str) -> str:
    r"""A template as it was meant on a command line, where a new line is typed as `\n`."""
    return template.replace("\\n", "\n").replace("\\t", "\t")


def has_input(prompt: str, row: Mapping[str, Any]) -> bool:
    """Whether a row has a value for each column of the prompt, and not blanks alone."""
    values = [row.get(name) for name in _columns(prompt)]
    return not any(map(_is_missing, values)) and any(stripped(str(value)) for value in values)


def render_input(prompt: str, row: Mapping[str, Any]) -> str:
    """As [`render`]; a row with nothing to classify in it is an error."""
    values = _values(prompt, row)
    if not any(map(stripped, values.values())):
        raise ValueError("its text is empty")
    return prompt.format(**values)


def input_or_empty(prompt: str, row: Mapping[str, Any]) -> str:
    """As [`render`], but empty for a row with nothing to classify in it."""
    return render(prompt, row) if has_input(prompt, row) else ""


def render_rows(
    prompt: str, rows: Iterable[Mapping[str, Any]], read: Callable[[str, Mapping[str, Any]], str] = render_input
) -> Iterator[str]:
    """The input of each row of a table; an error names the row."""
    for number, row in enumerate(rows):
        try:
            text = read(prompt, row)
        except ValueError as error:
            raise ValueError(f"Row {number}: {error}.") from None
        yield text


def render(template: str, row: Mapping[str, Any]) -> str:
    """A template with a row's values in it, which are no lists or objects."""
    return template.format(**_values(template, row))


def _values(template: str, row: Mapping[str, Any]) -> dict[str, str]:
    values = {}
    for name in _columns(template):
        value = row.get(name)
        if _is_missing(value):
            raise ValueError(f"column {name!r} has no value")
        values[name] = as_text(value, f"column {name!r}")
    return values


def stripped(text: str) -> str:
    """A text without blanks around it, of whatever width."""
    return text.strip().strip(_ZERO_WIDTH).strip()


def as_text(value: Any, what: str) -> str:
    """A cell as text; raises on lists, bytes and objects, such as images, of which `str` makes some text too."""
    value = value.tolist() if hasattr(value, "tolist") else value  # of NumPy
    if not isinstance(value, _TEXTS):
        kind = next((kind for kinds, kind in _NO_TEXT.items() if isinstance(value, kinds)), "an object")
        raise ValueError(f"{what} holds {kind}, not a text: make one text of it before")
    return str(value).lower() if isinstance(value, bool) else str(value)


def rationale_text(rationale: Any, what: str = "a rationale") -> str | None:
    """A rationale without blanks around it; None where there is none: null, NaN, or blanks alone."""
    return None if _is_missing(rationale) else stripped(as_text(rationale, what)) or None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


class Suffix(NamedTuple):
    """A suffix template, split where its two values stand."""

    before: str  # the <REASON> delimiter
    between: str  # the <ANS> delimiter
    after: str

    @classmethod
    def parse(cls, template: str) -> Suffix:
        """Split a template such as [`DEFAULT_SUFFIX`], which holds `{rationale}` and then `{label}`, each once."""
        parts, names = [""], []
        if template_columns(template):
            for text, name, *_ in Formatter().parse(template):
                parts[-1] += text  # an escaped brace comes as a piece of its own, without a name
                if name is not None:
                    names.append(name)
                    parts.append("")
        if names != ["rationale", "label"]:
            raise ValueError(
                f"The suffix template {template!r} must hold {{rationale}} and then {{label}}, each once; "
                f"the default is {DEFAULT_SUFFIX!r}."
            )
        return cls(*parts)
