"""The checks, on hand-written rationales in several languages; slow: planted faults and clean rows of the real sets."""

import gzip
import json
import random
import time
from pathlib import Path

import pytest

from dhrd_hf.rationales.checks import (
    CHECKS,
    ReplyChecks,
    answer,
    check_rationale,
    copy,
    empty,
    label_leak,
    length,
    prompt_echo,
    refusal,
    repetition,
    sentinel,
    truncated,
    wrong_language,
)
from dhrd_hf.rationales.matching import near_duplicates
from dhrd_hf.rationales.prompt import TeacherPrompt
from dhrd_hf.rationales.words import count_words

DATA = Path(__file__).parents[3] / "shared" / "data"
NLI, YES_NO, TRUE_FALSE = ["entailment", "neutral", "contradiction"], ["yes", "no"], ["true", "false"]
GOOD = "The heron was fed at noon, and one that has eaten is not hungry. So it leaves the fish alone."


@pytest.mark.parametrize(
    ("rationale", "labels"),
    [
        ("The first sentence contradicts the second.", NLI),
        ("Taken together they are contradictory.", NLI),
        ("Being fed entails having eaten.", NLI),
        ("It is not entailed by it.", ["entailment", "not_entailment"]),
        ("It rains, so the answer is no.", YES_NO),
        ("It rains. Therefore yes.", YES_NO),
        ("Yes, because it rains.", YES_NO),
        ("It rains, which makes it true.", YES_NO),
        ("It rains, so the claim is incorrect.", YES_NO),
        ("That is untrue.", TRUE_FALSE),
        ("Hence statement A is odd.", ["A", "B"]),
        ("Nobody cooks stones. So the answer is B.", ["A", "B"]),
        ("It has wheels, so the label is 1.", ["0", "1"]),
        ("The tone is negatively coloured.", ["positive", "negative"]),
        ("Il pleut, donc la réponse est non.", ["oui", "non"]),
        ("Es regnet, die Antwort lautet nein.", ["ja", "nein"]),
        ("Das ist ein klarer Widerspruch.", ["Folgerung", "Widerspruch"]),
        ("El tono es positivo aquí.", ["positivo", "negativo"]),
        ("They go by option B, for want of a boat.", ["A", "B"]),
        ("هذا التناقض واضح.", ["تناقض", "استلزام"]),
        ("It rains, so the\n\nanswer  is  no.", YES_NO),
        ("因为下雨，所以答案是否。", ["是", "否"]),
        ("这句话与前提矛盾。", ["蕴含", "矛盾"]),
        ("Это противоречит; ответ: нет.", ["да", "нет"]),
        ("All of it supports the claim.", ["SUPPORTS", "REFUTES"]),
        ("A single complaint is enough.", ["complaints", "praises"]),
        ("The correct answer is plain from the second line.", ["x-ray", "scan"]),
    ],
)
def test_a_label_is_named(rationale, labels):
    assert label_leak(rationale, labels)


@pytest.mark.parametrize(
    ("rationale", "labels"),
    [
        (GOOD, NLI + TRUE_FALSE),
        ("There is no sign of rain, and no one has an umbrella.", YES_NO),
        ("A heron is a bird.", ["A", "B"]),
        ("They say that he is at home.", ["he", "them"]),
        ("The truth of it is contradictory, and favourable.", ["x-ray", "scan"]),
        ("In 1 of 10 cases 0 remain.", ["0", "1"]),
        ("He turns right and picks the other one.", ["yes", "no", "other"]),
        ("这只鸟是吃鱼的。", ["是", "否"]),
        ("Non loin de là, il ne pleut pas.", ["oui", "non"]),
        ("Nachdem er ja lange gewartet hatte, ging er.", ["ja", "nein"]),
    ],
)
def test_no_label_is_named(rationale, labels):
    assert label_leak(rationale, labels) is None


def test_further_label_words():
    assert label_leak("He is thrilled by it.", ["joy", "anger"]) is None
    assert "thrilled" in label_leak("He is thrilled by it.", ["joy", "anger"], {"joy": ["thrilled"]})


@pytest.mark.parametrize(
    "whole",
    [GOOD, 'He said "no."', "狗在睡觉。", "क्या यह है?", "वह सो रहा है।", "هل هو نائم؟", "(It rains.)", "สุนัขกำลังนอน"],
)
def test_whole(whole):
    assert truncated(whole) is None


@pytest.mark.parametrize(
    "cut", [GOOD[:30], GOOD[:-1], "It rains,", "It rains because the.", "狗在睡", "It is wet...", "वह सो रहा"]
)
def test_truncated(cut):
    assert truncated(cut)


def test_every_cut_inside_a_sentence_is_found():
    ends = {place for place, mark in enumerate(GOOD, 1) if mark == "."}
    for place in range(10, len(GOOD)):
        inside = place not in ends and place - 1 not in ends
        assert bool(truncated(GOOD[:place])) == inside


def test_repetition():
    assert repetition(GOOD) is None
    assert repetition("It rains here. " * 3)
    assert repetition(f"{GOOD} {GOOD}")
    assert repetition("It is wet and wet and wet and wet and wet and so on.")
    assert repetition("因为下雨因为下雨因为下雨因为下雨所以地湿。")
    assert repetition("A very, very old heron is a heron all the same.") is None


@pytest.mark.parametrize(
    ("once", "times", "phrase"),
    [
        ("cold ", 3, None),
        ("cold ", 4, "cold"),
        ("so cold ", 2, None),
        ("so cold ", 3, "so cold"),
        ("as cold as ", 3, "as cold as"),
    ],
)
def test_a_phrase_is_looped_from_the_third_time_on(once, times, phrase):
    found = repetition(f"The kiln behind the mill is {once * times}today, and nobody lights it.")
    assert found == (f"The explanation repeats itself ({phrase!r})." if phrase else None)


def test_a_phrase_of_many_words_is_looped():
    phrase = " ".join(f"w{n}" for n in range(25))
    assert f"({phrase[:60]!r})" in repetition(f"{phrase} {phrase} {phrase}")
    scattered = " ".join(f"in the old mill {n} b{n}" for n in range(3))  # a third of what was said before
    assert repetition(scattered) is None and repetition(f"{scattered} {scattered}")


@pytest.mark.parametrize(("sentence", "times"), [("The kiln is cold.", 3), ("The kiln is quite cold.", 2)])
def test_a_sentence_of_five_words_is_said_once_and_a_shorter_one_twice(sentence, times):
    others = [f"Nobody lights number {place} behind the mill." for place in ("one", "two", "three")]
    said = [" ".join(f"{sentence} {other}" for other in others[:count]) for count in (times - 1, times)]
    assert repetition(said[0]) is None and f"({sentence!r})" in repetition(said[1])


@pytest.mark.parametrize(("own", "again", "found"), [(24, 14, True), (26, 14, False), (6, 7, True), (6, 6, False)])
def test_more_than_three_tenths_of_ten_phrases_or_more_is_said_before(own, again, found):
    words = [f"w{n}" for n in range(own)]
    assert bool(repetition(" ".join((words * 3)[: own + again]))) == found


@pytest.mark.parametrize(
    ("copied", "own", "found"), [(5, 0, True), (4, 0, False), (9, 3, True), (9, 4, False), (12, 4, True)]
)
def test_a_copy_is_three_quarters_of_five_words_or_more(copied, own, found):
    text = [f"w{n}" for n in range(60)]
    said = [*text[10 : 10 + copied], *(f"own{n}" for n in range(own))]
    assert bool(copy(" ".join(said), " ".join(text))) == found


def test_half_is_a_copy_where_it_is_all_that_there_was_to_copy():
    text = " ".join(f"w{n}" for n in range(8))
    assert copy(f"{text} and so it goes on by itself then", text)
    assert copy(f"{text} and so it goes on by itself then too", text) is None


def test_copy():
    text = "Passage: The old heron in the yard behind the mill was fed at noon by the girl from the farm next door."
    assert copy(text, text)
    assert copy("The old heron in the yard behind the mill was given food at noon by the girl from the farm.", text)
    assert copy(GOOD, text) is None
    assert (
        copy(
            'The text says "was fed at noon by the girl", and whoever was given fish has something in the belly.', text
        )
        is None
    )
    assert copy("磨坊后面院子里的老苍鹭中午被喂了。", "磨坊后面院子里的老苍鹭中午被喂了，女孩来自农场。")


@pytest.mark.parametrize(
    "said",
    [
        "As an AI language model, I have no opinion.",
        "I'm sorry, but I can't assist with that.",
        "I cannot help with this request.",
        "I am unable to provide an explanation.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Es tut mir leid, ich kann das nicht beantworten.",
        "Lo siento, no puedo ayudar con eso.",
        "作为一个语言模型，我无法回答。",
    ],
)
def test_refusal(said):
    assert refusal(said)


def test_people_in_the_text_decline_too():
    assert refusal("The man cannot help his friend, since he is away.") is None
    assert refusal("Wer nichts kann, lernt es; animals killed no one.") is None


@pytest.mark.parametrize(
    "echo",
    [
        "Reasoning: it rains.",
        "It rains. Final Answer: wet",
        "It rains. [END OF REASONING]",
        "Passage: It rains. So it is wet.",
        "Write 2 to 5 sentences. It rains.",
        "Is the answer correct Yes or No?",
        "Here is the explanation: it rains.",
        "Do not mention the label. It rains.",
    ],
)
def test_prompt_echo(echo):
    assert prompt_echo(echo)
    assert prompt_echo(GOOD) is None


def test_wrong_language():
    english = "Is the following claim true or false? The heron in the yard was fed at noon."
    german = "Der Reiher im Hof ist satt, weil er am Mittag von dem Mädchen mit Fisch gefüttert wurde."
    others = [
        german,
        "Le héron dans la cour a été nourri et il n'a plus faim, donc il ne mange pas.",
        "El pájaro que está en el patio no tiene hambre porque la niña le dio de comer.",
        "院子里的鸟中午已经吃过鱼了，所以不饿。",
        "Птицу во дворе покормили в полдень, поэтому она не голодна.",
    ]
    assert all(wrong_language(other, english) for other in others)
    assert not any(wrong_language(other, other) for other in [*others, GOOD])
    # An English template around a German text.
    assert wrong_language(german, f"Question: is this true or false? {german}") is None
    assert wrong_language(GOOD, german)
    assert wrong_language("Chat.", english) is None and wrong_language(german, "42") is None
    assert wrong_language(german, english) == "The explanation is in the language 'de', and the input in 'en'."


@pytest.mark.parametrize("unsure", ["Pim rows to Oto.", "Tokyo Osaka Kyoto."])
def test_both_languages_have_to_be_sure(unsure):
    assert wrong_language(SHORT["de"], unsure) is None and wrong_language(unsure, SHORT["de"]) is None


SHORT = {
    "de": "Die Frau steht vor dem Haus und wartet.",
    "fr": "Une femme attend devant la maison.",
    "es": "Una mujer espera delante de la casa.",
    "it": "Una donna aspetta davanti alla casa.",
    "nl": "Een vrouw wacht voor het huis.",
    "pl": "Kobieta czeka przed domem.",
    "tr": "Bir kadın evin önünde bekliyor.",
    "fi": "Nainen odottaa talon edessä.",
    "ru": "Женщина ждёт перед домом.",
    "zh": "一只猫在沙发上睡觉。",
}


def test_the_language_of_a_short_sentence():
    found = {language: wrong_language(said, GOOD) for language, said in SHORT.items()}
    # It may say nothing, and nothing wrong.
    assert all(
        said is None or f"in the language {language!r}, and the input in 'en'" in said
        for language, said in found.items()
    )
    assert list(found.values()).count(None) <= 2
    assert not any(wrong_language(said, f"Is this true? {said}") for said in SHORT.values())


def test_empty_and_length():
    assert all(empty(nothing) for nothing in (None, "", " \n", "N/A", "none", "..."))
    assert empty("It is wet.") is None
    assert length("It rains.") and length("word " * 200) and length(GOOD) is None
    assert length("word " * 5, 5, 5) is None and length("word " * 5, 6, 6) and length("word " * 5, 4, 4)
    assert length("狗在院子里睡觉。") is None


def test_seventeen_characters_are_ten_words():
    assert count_words("狗" * 17) == 10 and count_words("狗" * 34) == 20
    assert count_words("狗 is the word for dog") == 5 + 1


def test_sentinel_and_answer():
    assert sentinel("It rains. [END OF REASONING] Answer: yes") is None
    assert all(
        sentinel(reply) for reply in ("It rains.", "[END OF REASONING] yes", "a [END OF REASONING] [END OF REASONING]")
    )
    assert answer("**Not entailment.**", "not_entailment") is None
    assert answer("+", "+") is None and answer("+", "-")
    assert answer(None, "yes") and answer("no", "yes")


def test_a_teacher_that_is_asked_for_a_language_may_write_in_it():
    english = "Is the following claim true or false? The heron in the yard was fed at noon."
    said = "Der Reiher im Hof ist satt, weil er am Mittag von dem Mädchen mit Fisch gefüttert wurde."
    for language, flagged in ((None, ["wrong_language"]), ("German", [])):
        prompt = TeacherPrompt(["wet", "dry"], language=language)
        assert list(ReplyChecks().of_rationale(said, prompt, english)) == flagged
        reply = f"{said} [END OF REASONING]\nAnswer: wet"
        rationale, reasons = ReplyChecks().judge(reply, prompt, {"text": english}, "wet")
        assert list(reasons) == flagged and rationale == (None if flagged else said)


DEGENERATE = {
    "a word": "no ",
    "a phrase": "the answer is ",
    "an apology": "I'm sorry ",
    "line ends": "\n",
    "marks": "!",
    "quotes": "\"' *_(",
    "letters": "a",
    "one mark and one letter": "a.",
    "Han": "因为下雨",
    "Thai marks": "\u0e34",
    "tags": "<think>",
}


@pytest.mark.parametrize("kind", DEGENERATE)
def test_a_reply_of_100_kilobytes_is_read_in_milliseconds(kind):
    text = "The kiln is as cold as the yard around it."
    check_rationale("Yes.", text=text, labels=NLI)  # compiled
    start = time.process_time()
    found = check_rationale(DEGENERATE[kind] * (100_000 // len(DEGENERATE[kind])) + "x", text=text, labels=NLI)
    # Some 50 ms; what goes with the square of the length takes minutes.
    assert time.process_time() - start < 0.5 and found


def test_both_ends_of_a_long_rationale_are_looked_at():
    filler = " ".join(f"Brick{n} tops stone{n}." for n in range(2000))
    for long in (f"It is contradicted. {filler}", f"{filler} It is contradicted."):
        found = check_rationale(long, labels=NLI)
        assert set(found) == {"label_leak", "length"} and f"has {len(long.split())} words" in found["length"]


def test_check_rationale_names_each_check():
    assert check_rationale(GOOD, text="Is the heron hungry?", labels=YES_NO) == {}
    assert list(check_rationale(None)) == ["empty"] and check_rationale(None, only=["copy"]) == {}
    assert set(check_rationale("Yes", labels=YES_NO)) == {"label_leak", "truncated", "length"}
    assert set(check_rationale("Yes", labels=YES_NO, only=["length"])) == {"length"}
    with pytest.raises(ValueError, match="no check 'lenght': did you mean length"):
        check_rationale("Yes", only=["lenght"])


def rows_of(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["esnli", "creak", "comve", "strategyqa"])
def test_planted_faults_are_found_and_clean_rows_are_not(name):
    texts = {row["id"]: row["text"] for row in rows_of(f"{name}/train.jsonl.gz")}
    rows = rows_of(f"{name}/teacher_rationales.jsonl.gz")
    labels, generator = sorted({row["label"] for row in rows}), random.Random(0)
    foreign = [
        "Der Satz sagt, dass die Frau im Haus ist, und nicht auf der Straße.",
        "В тексте говорится, что он находится в доме.",
    ]

    def plant(rationale, text, label):
        words, sentence = rationale.split(), rationale.partition(". ")[0] + "."
        lightly = text.split()
        lightly[generator.randrange(len(lightly))] = "thing"
        return {
            "label_leak": f"{rationale} So the answer is {label}.",
            "empty": generator.choice(["", None, "N/A"]),
            "truncated": " ".join(words[: generator.randrange(5, len(words) - 1)]).rstrip(".!?\"'"),
            "refusal": generator.choice(
                ["I'm sorry, but I can't help with that.", "As an AI model, I cannot judge this."]
            ),
            "repetition": f"{sentence} " * 3,
            "copy": " ".join(lightly),
            "prompt_echo": generator.choice(
                ["Reasoning: {}", "{} [END OF REASONING]", "In 2 to 5 sentences: {}"]
            ).format(rationale),
            "wrong_language": generator.choice(foreign),
            "length": generator.choice(["Because.", f"{rationale} " * 12]),
        }

    found, false = dict.fromkeys(CHECKS, 0), dict.fromkeys(CHECKS, 0)
    for row in rows:
        text = texts[row["key"]]
        for check in check_rationale(row["rationale"], text=text, labels=labels):
            false[check] += 1
        for check, planted in plant(row["rationale"], text, row["label"]).items():
            found[check] += check in check_rationale(planted, text=text, labels=labels)
    template = rows[0]["rationale"].split()
    rationales = [row["rationale"] for row in rows]
    changed = generator.sample(range(len(rows)), 40)
    for row in changed:
        words = list(template)
        words[generator.randrange(len(words))] = f"word{row}"
        rationales[row] = " ".join(words)
    flagged = {row for group in near_duplicates(rationales) for row in group}
    found["near_duplicate"] = len(rows) * len(flagged & set(changed)) / len(changed)
    false["near_duplicate"] = len(flagged - set(changed) - {0})
    assert min(found.values()) >= 0.95 * len(rows), found
    assert max(false.values()) <= 0.02 * len(rows), false
