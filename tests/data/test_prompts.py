"""Templates: which columns they take, how rows fill them, and what is refused."""

import numpy as np
import pytest

from dhrd_hf.data.prompts import (
    DEFAULT_SUFFIX,
    Suffix,
    closing,
    has_input,
    input_columns,
    rationale_text,
    render,
    template_columns,
)


def test_columns_are_named_in_order_and_once():
    assert template_columns("{b} and {a}, {b}; {{literal}}") == ["b", "a"]
    assert template_columns("no column") == []


def test_values_are_text_and_braces_in_them_are_left_alone():
    row = {"text": "a {curly} {0} value", "n": 3, "unused": None}
    assert render("{{{text}}} / {n}", row) == "{a {curly} {0} value} / 3"


@pytest.mark.parametrize(
    "template", ["{text", "text}", "{}", "{0}", "{text.upper}", "{text[0]}", "{text!r}", "{n:>8}"]
)
def test_malformed_templates_are_refused_and_shown(template):
    with pytest.raises(ValueError) as error:
        template_columns(template)
    assert repr(template) in str(error.value) and "}}" in str(error.value)


@pytest.mark.parametrize("row", [{}, {"text": None}, {"text": float("nan")}, {"text": np.float64("nan")}])
def test_a_missing_value_is_named(row):
    with pytest.raises(ValueError, match="column 'text' has no value"):
        render("{text}", row)
    assert not has_input("{text}", row) and not has_input("Q: {text}", {"text": " "})
    assert has_input("{text} {more}", {"text": "", "more": 0}) and not has_input("{text} {more}", {"text": "a", **row})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (["a", "b"], "a list"),
        (("a",), "a list"),
        (np.array(["a"]), "a list"),
        ({"a": 1}, "an object"),
        (b"a", "bytes"),
        (bytearray(b"a"), "bytes"),
        (object(), "an object"),  # as an image, which `str` makes a text of
        (range(3), "an object"),
    ],
)
def test_what_is_no_text_is_not_made_one(value, kind):
    with pytest.raises(ValueError, match=f"column 'text' holds {kind}, not a text"):
        render("{text}", {"text": value})
    assert render("{text}", {"text": "x", "label": value}) == "x"


def test_true_is_written_as_in_the_table():
    assert render("{a} {b} {c}", {"a": True, "b": "true", "c": 1}) == "true true 1"


def test_what_a_template_ends_with():
    assert closing("{b}: {a}, {b} is {{it}}?") == ("b", " is {it}?")
    assert closing("Q: {a}") == ("a", "")


def test_no_rationale_is_none():
    assert [rationale_text(it) for it in (None, float("nan"), "", " \n")] == [None] * 4
    assert [rationale_text(it) for it in (" It rains.\n", 3)] == ["It rains.", "3"]


def test_an_input_needs_a_column():
    assert input_columns("{b} and {a}") == ["b", "a"]
    with pytest.raises(ValueError, match="'fixed' names no column, so every row would be the same text"):
        input_columns("fixed")


def test_an_empty_value_is_a_value():
    assert render("<{text}>", {"text": ""}) == "<>"


def test_the_default_suffix_is_the_papers():
    assert Suffix.parse(DEFAULT_SUFFIX) == ("\nReasoning:\n", "\nFinal Answer:\n", "")
    assert Suffix.parse("[{rationale}|{label}]") == ("[", "|", "]")
    assert Suffix.parse("{rationale}{label}{{end}}").after.endswith("end}")


@pytest.mark.parametrize(
    "suffix",
    ["{label}{rationale}", "{rationale}", "{label}", "none", "{rationale}{label}{label}", "{rationale}{text}{label}"],
)
def test_a_suffix_without_rationale_and_then_label_is_refused(suffix):
    with pytest.raises(ValueError, match="Final Answer"):
        Suffix.parse(suffix)
