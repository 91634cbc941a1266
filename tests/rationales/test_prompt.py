"""The teacher prompt and its replies."""

import pytest

from dhrd_hf.rationales.checks import parse_reply
from dhrd_hf.rationales.journal import request_key
from dhrd_hf.rationales.prompt import PROMPT_VERSION, TeacherPrompt

LABELS = ["Yes", "No", "not_entailed"]
GOOD = "It rained. Rain is water."


@pytest.mark.parametrize(
    ("reply", "rationale", "answer"),
    [
        (f"{GOOD} [END OF REASONING]\nAnswer: Yes", GOOD, "Yes"),
        (f"  {GOOD}\n[END OF REASONING]  \n\nAnswer: yes.  \n", GOOD, "Yes"),
        (f"{GOOD} **[END OF REASONING]**\n**Answer:** **Yes**", GOOD, "Yes"),
        (f"{GOOD} [END OF REASONING]\n**Answer: NO**", GOOD, "No"),
        (f"{GOOD} [END OF REASONING]\nAnswer:\nNo", GOOD, "No"),
        (f"{GOOD} [end of reasoning]\nFinal Answer: \"No\"", GOOD, "No"),
        (f"{GOOD} [END OF REASONING]\nAnswer: Not Entailed", GOOD, "not_entailed"),
        (f"<think>Answer: No. [END OF REASONING]</think>\n{GOOD} [END OF REASONING]\nAnswer: Yes", GOOD, "Yes"),
        (f"so it is No.\n</think>\n\n{GOOD} [END OF REASONING]\nAnswer: Yes", GOOD, "Yes"),
        (f"**Explanation:** {GOOD} [END OF REASONING]\nAnswer: Yes", GOOD, "Yes"),
        ("<think>It is Yes [END OF REASONING]\nAnswer: Yes", None, None),
        (f"{GOOD}\nAnswer: Yes", GOOD, "Yes"),
        (GOOD, GOOD, None),
        ("", None, None),
        # Nothing is guessed.
        (f"{GOOD} [END OF REASONING]\nAnswer: Yes or No", GOOD, "Yes or No"),
        (f"{GOOD} [END OF REASONING]\nYes", GOOD, None),
        (f"{GOOD} [END OF REASONING]\nAnswer: Yes\nAnswer: No", GOOD, None),
        (f"{GOOD} [END OF REASONING]\nAnswer: (the label)", GOOD, "(the label)"),
    ],
)  # fmt: skip
def test_replies_are_taken_apart(reply, rationale, answer):
    parsed = parse_reply(reply, LABELS)
    assert (parsed.rationale, parsed.answer) == (rationale, answer)


def test_spellings_and_labels_that_differ_by_case_alone():
    assert (
        parse_reply("x [END OF REASONING]\nAnswer: true", ["Yes", "No"], spellings={"Yes": ["True"]}).answer == "Yes"
    )
    assert parse_reply("x [END OF REASONING]\nAnswer: a", ["a", "A"]).answer == "a"
    assert parse_reply("x [END OF REASONING]\nAnswer: 不是", ["是", "不是"]).answer == "不是"
    assert (
        parse_reply("x [END OF REASONING]\nAnswer: A B", ["a b", "a_b"]).answer == "A B"
    )  # which of them nobody knows


def test_the_prompt_says_what_appendix_e3_asks_for():
    prompt = TeacherPrompt(
        ["entailment", "contradiction", "neutral"],
        template="Premise: {premise}\nHypothesis: {hypothesis}",
        descriptions={"neutral": "neither follows nor is ruled out"},
        examples=[{"premise": "a", "hypothesis": "b", "label": "neutral", "rationale": "Nothing is said of it."}],
        language="German",
        system="Be brief.",
    )
    chat = prompt.messages({"premise": "It {rains}.", "hypothesis": "It is wet."}, "entailment")
    assert [message["role"] for message in chat] == ["system", "user", "assistant", "user"]
    assert chat[0]["content"] == "Be brief."
    assert chat[2]["content"] == "Nothing is said of it. [END OF REASONING]\nAnswer: neutral"
    said = chat[-1]["content"]
    for part in (
        "Premise: It {rains}.\nHypothesis: It is wet.",
        "Right label: entailment",
        "- neutral: neither follows nor is ruled out",
        "2 to 5 sentences, as one paragraph",
        "Never name a label",
        "in German",
        "[END OF REASONING]\nAnswer: entailment",
    ):
        assert part in said
    free = TeacherPrompt(prompt.labels, style="free", system="", template="{premise}")
    chat = free.messages({"premise": "It rains."}, "entailment")
    assert [message["role"] for message in chat] == ["user"]
    # Whatever the gold label is, the prompt is the same.
    assert chat == free.messages({"premise": "It rains."}, "neutral")


@pytest.mark.parametrize("label", [None, "", " ", 1, ["a", "b"], True, "two\nlines"])
def test_a_label_that_can_not_be_named(label):
    with pytest.raises(ValueError, match="can't"):
        TeacherPrompt(["fine", label])
    with pytest.raises(ValueError, match="can't name the label"):
        TeacherPrompt(["fine", "poor"]).messages({"text": "x"}, label)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": ["one"]}, "two labels or more"),
        ({"labels": ["a", "a"]}, "each once"),
        ({"style": "loose"}, "guarded, free"),
        ({"descriptions": {"c": "?"}}, "no label 'c'"),
        ({"examples": [{"text": "x", "label": "a"}]}, "example 0 of the prompt has no 'rationale'"),
        ({"examples": [{"text": "x", "label": "a", "rationale": ""}]}, "example 0 of the prompt has no 'rationale'"),
    ],
)
def test_wrong_prompts(wrong, message):
    with pytest.raises(ValueError, match=message):
        TeacherPrompt(**{"labels": ["a", "b"], **wrong})


def test_a_number_of_nought_is_an_input():
    prompt = TeacherPrompt(["a", "b"], template="{count} of {what}")
    assert prompt.lacks({"count": 0, "what": "eggs"}) is None
    assert prompt.lacks({"count": 0, "what": None}) == "what" and prompt.lacks({"what": "eggs"}) == "count"


def test_the_key_changes_with_row_prompt_model_and_sampling():
    def key(text="It rains.", label="a", model="m", sampling=None, **options):
        return request_key(
            TeacherPrompt(["a", "b"], **options).messages({"text": text}, label), label, model, sampling or {}
        )

    keys = [
        key(), key("It snows."), key(label="b"), key(model="n"), key(sampling={"temperature": 0}), key(language="French"),
        key(style="free"), key(style="free", label="b"),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys) and key() == keys[0]
    assert PROMPT_VERSION.startswith("1-")
