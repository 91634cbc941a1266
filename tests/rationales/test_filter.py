"""Filtering, repairing and shortening rationales."""

from collections import Counter

import pytest

from dhrd_hf.rationales.checks import ROW_CHECKS, check_rationale
from dhrd_hf.rationales.filter import (
    Tally,
    filter_rationales,
    shorten,
    shorten_rationales,
    within_words,
    without_echo,
    without_repetition,
    without_rest,
)
from dhrd_hf.rationales.words import split_sentences

CLEAN = [
    "A kiln that is cold gives off no light, so nothing in the yard could be lit by it.",
    "Every rook there is asleep, and Pim is one of the rooks, which settles it for him as well.",
    "Two cups is more than a single cup, and both of them are on the floor by now.",
]
FAULTY = {
    "truncated": "A kiln that is cold gives off no light at all. So whatever shines in the yar",
    "prompt_echo": "Reasoning: A kiln that is cold gives off no light at all. [END OF REASONING]\nAnswer: refuted",
    "repetition": "The kiln gives off no light at all. It is cold. " + "The kiln gives off no light at all. " * 3,
    "length": "The kiln is as cold as the yard around it. "
    + " ".join(f"Brick {n} of it is cold too." for n in range(40)),
    "label_leak": "The claim is refuted, since a kiln that is cold gives off no light at all.",
    "empty": "N/A",
    "refusal": "I'm sorry, but I can't help with that request at this time.",
}
# What a repair leaves of those that can be repaired.
REPAIRED = {
    "truncated": "A kiln that is cold gives off no light at all.",
    "prompt_echo": "A kiln that is cold gives off no light at all.",
    "repetition": "The kiln gives off no light at all. It is cold.",
}


@pytest.fixture
def rows():
    rationales = [CLEAN[0], *FAULTY.values(), CLEAN[1], None, CLEAN[2]]
    return [
        {"id": n, "text": f"Text {n}.", "label": ["entailed", "refuted"][n % 2], "rationale": rationale}
        for n, rationale in enumerate(rationales)
    ]


# Filter


def test_what_fails_loses_its_rationale_and_the_row_stays(rows):
    tally, rejected = Tally(), []
    after = list(filter_rationales(rows, tally=tally, rejected=rejected.append))
    assert [row["id"] for row in after] == [row["id"] for row in rows]
    assert [row["rationale"] for row in after if row["rationale"] is not None] == CLEAN
    assert [row["rationale"] for row in rejected] == list(FAULTY.values())
    assert all(name in row["reasons"] for name, row in zip(FAULTY, rejected, strict=True))
    assert (tally.rows_in, tally.rows_out) == (11, 11)
    assert (tally.rationales_in, tally.rationales_out, tally.changed) == (10, 3, 0)
    assert all(tally.dropped[name] >= 1 for name in FAULTY) and not tally.repaired
    assert tally.labels_in == Counter(row["label"] for row in rows if row["rationale"])
    assert tally.labels_out == Counter(row["label"] for row in after if row["rationale"])
    assert rows[1]["rationale"] == FAULTY["truncated"]  # the caller's rows are left as they are


def test_rows_with_several_labels_lose_what_names_one_of_them(rows):
    several = [row | {"label": [row["label"], "spoken"]} for row in rows]
    tally = Tally()
    filtered = [row["rationale"] for row in filter_rationales(several, ["label_leak"], tally=tally)]
    assert filtered == [row["rationale"] for row in filter_rationales(rows, ["label_leak"])]
    assert tally.dropped == {"label_leak": 1 + 1}  # FAULTY["label_leak"], and what echoes "Answer: refuted"
    assert tally.labels_in == {"entailed": 6, "refuted": 4, "spoken": 10}


def test_rows_may_go_as_well(rows):
    tally = Tally()
    after = list(filter_rationales(rows, drop="rows", tally=tally))
    assert [row["rationale"] for row in after] == CLEAN
    assert (tally.rows_in, tally.rows_out, tally.dropped["empty"]) == (11, 3, 2)
    # A row that never had one stays where nobody asks for `empty`.
    assert None in [row["rationale"] for row in filter_rationales(rows, ["truncated"], drop="rows")]


def test_only_the_checks_that_are_named(rows):
    after = list(filter_rationales(rows, ["refusal"]))
    lost = [
        row["rationale"] for row, now in zip(rows, after, strict=True) if row["rationale"] and not now["rationale"]
    ]
    assert lost == [FAULTY["refusal"]]


def test_what_can_be_repaired_is(rows):
    tally = Tally()
    after = list(filter_rationales(rows, repair=True, max_words=30, tally=tally))
    found = dict(zip(FAULTY, (row["rationale"] for row in after[1:8]), strict=True))
    long = found.pop("length")
    assert found == {name: REPAIRED.get(name) for name in found}
    assert FAULTY["length"].startswith(long) and long.endswith("too.") and 20 <= len(long.split()) <= 30
    for row in after:  # whatever comes out passes
        assert not row["rationale"] or not check_rationale(
            row["rationale"], text=row["text"], labels=["entailed", "refuted"], max_words=30
        )
    assert all(tally.repaired[name] for name in [*REPAIRED, "length"])
    assert tally.changed == 4 and tally.rationales_out == 7
    assert "prompt_echo: 1 repaired" in str(tally) and "refusal: 1 dropped" in str(tally)
    assert [row["rationale"] for row in after if row["rationale"] in CLEAN] == CLEAN  # untouched


def test_a_repair_that_leaves_too_little_is_none():
    row = {"text": "The kiln.", "label": "refuted", "rationale": "It is so. But the kiln gives off no li"}
    tally = Tally()
    assert next(filter_rationales([row], repair=True, min_words=5, tally=tally))["rationale"] is None
    assert tally.dropped == {"truncated": 1, "length": 1}


def test_what_is_much_too_long_is_not_mended():
    row = {"text": "The kiln.", "label": "refuted", "rationale": "So it is wet and cold there. " * 400}
    assert next(filter_rationales([row], repair=True))["rationale"] is None
    row["rationale"] = row["rationale"][:9000]
    assert next(filter_rationales([row], repair=True))["rationale"] == "So it is wet and cold there."


def test_counts_in_words():
    tally = Tally()
    for label in range(22):
        tally.add(label, "So it is.", "So it is.")
    tally.add(0, "So.", None, ["length"])
    tally.add(0, "So.", None, ["truncated"])
    tally.add(0, "So.", "It is so.", ["truncated"])
    for _ in range(2):
        tally.add(None, "So.", "So.", ["refusal"], row_stays=False)
    tally.add(0, None, None)
    counts, reasons, labels = str(tally).splitlines()
    assert counts == "28 rows in, 26 out; 27 rationales in, 23 out, 1 of them changed"
    assert reasons == "by reason  refusal: 2 dropped; length: 1 dropped; truncated: 1 dropped, 1 repaired"
    assert labels.startswith("by label   (none): 2 in, 0 out; 0: 4 in, 2 out; 1: 1 in, 1 out; 10: 1 in, 1 out;")
    assert labels.endswith("; and 3 more labels") and labels.count(";") == 20


def test_the_first_near_duplicate_that_is_sound_is_kept():
    def alike(name, end="."):
        return f"A kiln that is cold gives off no light, so {name} can not see in the yard{end}"

    rows = [{"rationale": alike("Pim", " and th")}, {"rationale": alike("Oto")}, {"rationale": CLEAN[2]}]
    rows += [{"rationale": alike("Ada")}]
    rows = [{**row, "text": f"Text {n}.", "label": "refuted"} for n, row in enumerate(rows)]
    tally = Tally()
    after = list(filter_rationales(rows, [*ROW_CHECKS, "near_duplicate"], tally=tally))
    assert [row["rationale"] for row in after] == [None, alike("Oto"), CLEAN[2], None]
    assert tally.dropped == {"truncated": 1, "near_duplicate": 1}
    assert [row["rationale"] for row in filter_rationales(rows)][3] == alike("Ada")  # not asked for: kept
    pairs = [{"text": f"Is it {n}?", "label": "yes", "rationale": CLEAN[0], "group": "q"} for n in range(2)]
    assert all(row["rationale"] for row in filter_rationales(pairs, ["near_duplicate"]))


def test_rows_are_streamed_where_the_labels_are_known():
    def endless():
        while True:
            yield {"text": "The kiln.", "label": "refuted", "rationale": CLEAN[0]}

    assert next(filter_rationales(endless(), labels=["entailed", "refuted"]))["rationale"] == CLEAN[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"checks": ["trunkated"]}, "did you mean truncated"), ({"drop": "both"}, "neither 'rationales' nor 'rows'")],
)
def test_wrong_arguments_of_filter(arguments, message):
    with pytest.raises(ValueError, match=message):
        filter_rationales([], **arguments)


def test_as_many_words_as_may_be_are_kept():
    assert within_words("It is wet. It rains.", 5) == "It is wet. It rains."
    assert within_words("It is wet. It rains.", 4) == "It is wet." and within_words("It is wet. It rains.", 2) == ""


def test_a_row_that_had_none_is_not_dropped():
    tally = Tally()
    tally.add("yes", None, None, ["empty"])
    assert not tally.dropped and tally.repaired == {"empty": 1}


def test_repairs_leave_sound_text_alone():
    for text in CLEAN:
        assert without_echo(text) == without_repetition(text) == text
        assert within_words(text, 100) == text
    assert without_rest("No end to it") == ""
    assert without_echo("**Explanation:** It is wet. <|im_end|>") == "It is wet."
    assert without_echo("It is wet. Answer: yes") == "It is wet."
    assert without_repetition("It is wet and it is wet and it is wet and it is wet and").count("wet") <= 2


# Sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["Dr. Wen is 3.5 feet tall, i.e. 1.07 m. ", "So she is small."],
        ["He met J. Smith at 3 p.m. on Monday. ", "Then he left."],
        ["She rows, and so did I. ", "Then he left."],
        ["In the U.S. it rains! ", "Does it? ", "Yes."],
        ["It is late ... and dark. ", "They sleep."],
        ["no end\n", "but a line"],
        ["Is it? ", "yes, it is."],
        ['"Stop!" ', "He left."],
        ["a dog is running. ", "so it is outside."],
        ['"Stop!" he said. ', '"No." ', "She left."],
        ["1. It rains.\n", "2. It pours."],
        ["This was in 1999. ", "He left."],
        ["They sell pens, ink, etc. in here. ", "No. 5 is the best of them."],
        ["那只狗在睡觉。", "所以它没有跑！", "对吗？"],
        ["यह एक कुत्ता है। ", "वह सोता है।"],
        ["هل هو هنا؟ ", "نعم هو هنا."],
        ["Τι είναι; Είναι σκύλος. ", "Κοιμάται."],
        ["สุนัขกำลังนอนหลับ ดังนั้นมันจึงไม่วิ่ง"],
        ["(It is so.) ", "[It is.] ", "Good."],
        ["no end at all"],
        [],
    ],
)
def test_sentences(sentences):
    assert split_sentences("".join(sentences)) == sentences


def test_what_is_shortened_is_whole_and_fits(tokenizer):
    def count(text):
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    text = "Snow is wet. The moor is under it, e.g. in the north. So the moor is not dry! It can't be."
    sentences = split_sentences(text)
    for limit in range(1, count(text) + 2):
        found = shorten(text, limit, tokenizer)
        fitting = [n for n in range(1, 5) if count("".join(sentences[:n]).strip()) <= limit]
        assert found == ("".join(sentences[: fitting[-1]]).strip() if fitting else None)
    assert shorten(f"  {text}\n", 500, tokenizer) == text


def test_shortening_rows_counts(tokenizer):
    rows = [
        {"label": "a", "rationale": "Snow is wet. " * 20},
        {"label": "a", "rationale": "Snow is wet and " * 20},
        {"label": "b", "rationale": "Snow is wet."},
        {"label": "b", "rationale": None},
        {"label": "b", "rationale": 0},  # a number is text, as for a filter
    ]
    tally = Tally()
    after = list(shorten_rationales(rows, 12, tokenizer, tally=tally))
    assert [row["rationale"] is None for row in after] == [False, True, False, True, False]
    assert len(tokenizer(after[0]["rationale"])["input_ids"]) <= 12
    assert (tally.rows_out, tally.rationales_in, tally.rationales_out, tally.changed) == (5, 4, 3, 1)
    assert tally.dropped == {"first sentence too long": 1}
    with pytest.raises(ValueError, match="max_tokens=0"):
        shorten_rationales(rows, 0, tokenizer)
