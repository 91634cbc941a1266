"""The words, sentences and language of a text in any script, and the wordings that a rationale must not hold.

The language is py3langid's guess. Sentences are ours: pysbd wants to be told the language, and splits 13 of 15 hard cases as
it should to our 15, in 40 times the time. So is what names a label: Snowball's stems join "positive" with "position".

A *plain* word ("entailment", "true") names the label wherever it stands. An *ordinary* word ("no", "A", "1", "other") does
only where an answer is given ("the answer is no", "statement A", "Therefore, yes."). Every repeated part of a pattern is
bounded, so that no text, however degenerate, takes longer than its length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import regex

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# Scripts that put no spaces between words: a character is a unit of these.
_UNSPACED = r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}"
_UNIT = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|[[\w'’]--[{_UNSPACED}_]]+", regex.VERSION1)
_ASCII_UNIT = re.compile(r"[a-z0-9']+")
_UNSPACED_UNIT = regex.compile(rf"[{_UNSPACED}]")
_CHARACTERS_A_WORD = 1.7  # of Chinese, in common segmentations
# A guess of the language needs no more of a long text, and is none with less: 12 bytes are 4 characters of Chinese.
_MOST_READ, _FEWEST_BYTES = 500, 12
# Of 73 short sentences in 24 languages 71 are told from English by these, and none of 3,651 real rationales from its text.
_SURE, _POSSIBLE = 0.4, 0.05

# A mark that ends a sentence, what closes after it, and the space behind; a full stop of the East needs no space.
_END = regex.compile(
    r"(?<![\p{Sentence_Terminal}…])(?P<mark>[\p{Sentence_Terminal}…]++)(?P<close>[\"'”’»›)\]}」』】》〉）*_]*+)(?P<space>\s++|$)"
    r"|(?<![。！？｡．])(?P<mark>[。！？｡．]++)(?P<close>[\"'”’)\]」』】》〉）]*+)(?P<space>\s*+)"
    r"|(?P<space>\n\s*+)"
)
_LAST_WORD = regex.compile(r"[\p{L}\p{M}\p{N}.&]{1,40}$")
# Before a name, a number or more of the sentence: these do not end one.
_WITHIN = (
    "dr mr mrs ms mx prof st mt capt col gen lt sgt rev hon gov sen rep pres messrs mme mlle hr fr "
    "e.g i.e eg ie vs v cf viz approx ca fig figs eq eqs nos vol pp eds sec ch al resp incl excl esp "
    "z.b d.h bzw u.a s.o vgl nr bspw ggf p.ex par.ex p.ej jan feb apr jun jul aug sep sept oct nov dec"
)
_NEVER_LAST = frozenset(_WITHIN.split())
# These end one where a capital follows: some are words as well ("No. 5", "Of these there are no.").
_SELDOM_LAST = frozenset(("no", "art", "ed", "mar", "etc", "inc", "ltd", "corp", "co", "jr", "sr"))
_ABBREVIATION = regex.compile(r"(?:\p{L}\.)+\p{L}$")  # U.S, a.m: may end a sentence if a capital follows
_INITIAL = regex.compile(r"\p{Lu}$")


@lru_cache(maxsize=256)  # each check of a row asks for the same words
def units(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, and the characters of what is written without spaces."""
    # Most texts are ASCII, for which the simple pattern is much faster.
    return tuple(_ASCII_UNIT.findall(text.lower()) if text.isascii() else _UNIT.findall(text.casefold()))


def count_words(text: str) -> int:
    """The number of words of a text; of what is written without spaces, a word for every 1.7 characters."""
    characters = 0 if text.isascii() else len(_UNSPACED_UNIT.findall(text))
    return len(units(text)) - characters + round(characters / _CHARACTERS_A_WORD)


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def other_language(text: str, than: str) -> tuple[str, str] | None:
    """The languages of two texts, where they are two beyond doubt."""
    text, than = text[:_MOST_READ], than[:_MOST_READ]
    if "the" in units(text) and "the" in units(than):
        return None  # a word of English alone, and most rows' quickest answer
    if min(len(text.encode()), len(than.encode())) < _FEWEST_BYTES:
        return None
    classify = _identifier().classify
    (own, sure), (theirs, theirs_sure) = classify(text), classify(than)
    if own == theirs or min(sure, theirs_sure) < _SURE or _may_be(theirs, text):
        return None
    # A text may be in one language, and the words of its template around it in another.
    return None if any(_may_be(own, part) for part in (than, *split_sentences(than))) else (own, theirs)


def _may_be(language: str, text: str) -> bool:
    return dict(_identifier().rank(text))[language] > _POSSIBLE


def split_sentences(text: str) -> list[str]:
    """The sentences of a text; joined they are the text."""
    found, start = [], 0
    for match in _END.finditer(text):
        if match.end() > start and _ends(text, start, match):
            found.append(text[start : match.end()])
            start = match.end()
    return [*found, text[start:]] if start < len(text) else found


def _ends(text: str, start: int, match: regex.Match) -> bool:
    mark, after = match["mark"], text[match.end() : match.end() + 1]
    if mark is None or not after:
        return True
    if mark.startswith(("..", "…")) or mark.endswith("…"):
        return not after.islower()  # a pause
    if mark != ".":
        # "Stop!" he said: the sentence goes on behind the quotation.
        return not (match["close"] and after.islower())
    word = _LAST_WORD.search(text, max(start, match.start() - 40), match.start())
    last = word[0] if word else ""
    if last.lower() in _NEVER_LAST:
        return False
    if last.lower() in _SELDOM_LAST or _ABBREVIATION.search(last):
        return after.isupper()
    if _INITIAL.fullmatch(last):
        return last == "I" or not after.isupper()
    # "1. It rains": the number of a list, and not a sentence.
    return not (last.isdecimal() and not text[start : word.start()].strip())


# What means the same as a label. A label of the first list of a line is also named by the plain words after it, and,
# as an ordinary word, by the last ones: these are only looked for where an answer is given ("is right", "so wrong.").
_SYNONYMS = """
yes|true|correct|right; ; yes|yep|yeah|true|correct|right|affirmative|accurate|valid
no|false|incorrect|wrong; untrue|incorrect|incorrectly; \
no|nope|false|wrong|negative|inaccurate|invalid|not true|not correct|not right
true|false; truth|truths|truthful|truthfully|truthfulness|falsehood|falsehoods|falsity|untrue|falsely|\
falsify|falsified|falsifies;
correct|incorrect; correctness|incorrectly|correctly;
entailment|entailed|entails|not_entailment|non_entailment|contradiction|contradicts|neutral; entail|entails|entailed|\
entailing|entailment|contradict|contradicts|contradicted|contradicting|contradiction|contradictory;
positive|negative; positivity|negativity|favorable|favourable|unfavorable|unfavourable;
supports|supported|support|refutes|refuted|refute; refutation|refuting|substantiated|unsupported;
oui|vrai|vraie; ; oui|vrai|vraie|exact|exacte|juste|correct|correcte
non|faux|fausse; ; non|faux|fausse|inexact|inexacte|incorrect|incorrecte
ja|wahr|richtig; ; ja|wahr|richtig|korrekt|zutreffend
nein|falsch; ; nein|falsch|unwahr|unrichtig|inkorrekt|unzutreffend
sí|si|verdadero|verdadera|cierto; ; sí|si|verdadero|verdadera|cierto|cierta|correcto|correcta
no|falso|falsa; ; no|falso|falsa|incorrecto|incorrecta|sbagliato|sbagliata|errato|errata
sì|vero|vera; ; sì|vero|vera|giusto|giusta|corretto|corretta
sim|verdadeiro|verdadeira; ; sim|verdadeiro|verdadeira|certo|certa|correto|correta
não|nao|falso|falsa; ; não|nao|falso|falsa|errado|errada|incorreto|incorreta
да|верно|правда|истина; ; да|верно|правда|истина|правильно
нет|неверно|ложь; ; нет|неверно|ложь|неправда|неправильно
是|对|真|正确; 正确; 是|对|真
否|不是|错|假|错误; 错误; 否|错|假|不对|不是
はい|正しい|真; 正しい; はい
いいえ|誤り|偽; 誤り|正しくない|間違い; いいえ
"""
# Labels with other uses than as the name of one: every word of at most two letters, those above, and these.
_ORDINARY = frozenset(["yes", "no", "yeah", "nope", "right", "wrong", "other", "others", "none", "same", "different", "both", "neither", "either", "not", "more", "less", "like", "unlike", "maybe", "perhaps", "good", "bad", "up", "down", "left", "first", "second", "third", "high", "low", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "all", "any", "some", "most", "few", "many", "on", "off", "in", "out", "before", "after", "equal", "question", "answer", "cause", "effect", "person", "place", "thing", "time", "date", "number", "entity", "description", "location", "human", "object", "subject", "news", "world", "people", "general", "new", "old", "big", "small", "great", "poor", "fine", "ok", "okay", "oui", "non", "ja", "nein", "sí", "si", "sì", "sim", "não", "nao", "richtig", "да", "нет", "是", "否", "对", "错", "真", "假", "はい", "いいえ"])  # fmt: skip
_ENDINGS = (
    "s|es|ed|d|ing|ings|ly|ment|ments|ion|ions|or|ory|able|ably|ive|ively|al|ally|ity|ness|ize|ized|ise|ised|"
    "er|e|en|em|y|ies|ied|a|o|as|os|i|x|le"
)
# From a label to what its inflections have in common, where enough is left.
_SUFFIX = regex.compile(r"(?i)(?<=.{5})(?:ments?|ness|ions?|ings?|ie[sd]|ely|e[sd]?|(?<!s)s|y)$")
_ALL_UNSPACED = regex.compile(rf"^[{_UNSPACED}\s_-]+$")
_OPEN, _CLOSE = r"[\s\"'“”„«»‘’`*_(\[「『（【]{0,4}", r"[\s\"'“”„«»‘’`*_)\]」』）】]{0,4}"
_ENDS = rf"{_CLOSE}(?:[.!?;,:…。！？；，।؟]|—|–|$)"
# What an answer is called, and what stands between that and the answer.
_NOUNS = (
    r"(?:answer|label|class|category|verdict|conclusion|classification|judge?ment|option|choice|prediction|response|decision"
    r"|relation|relationship|rating|grade|result|claim|statement|hypothesis|candidate|sentiment"
    r"|réponse|réponses|étiquette|catégorie|Antwort|Bezeichnung|Klasse|Kategorie|Ergebnis|respuesta|etiqueta|risposta|etichetta"
    r"|resposta|rótulo|antwoord|ответ|метка|odpowiedź|svaret|vastaus|cevap|jawaban)"
)
_LINKS = (
    r"(?:is|are|was|be|being|been|becomes|seems|remains|would\sbe|should\sbe|must\sbe|will\sbe|has\sto\sbe|can\sonly\sbe|comes\sout\sas|to\sbe"
    r"|est|serait|doit\sêtre|ist|lautet|wäre|es|sería|è|sarebbe|é|seria|to|är|er|[:=—–-]|это)"
)
_ADVERBS = r"(?:\s(?:therefore|thus|hence|then|clearly|obviously|certainly|simply|definitely|indeed|also|in\sfact|a|an|the|clear|definite|firm|donc|also|daher|por\stanto|quindi|label(?:led)?|answer)){0,3}"
_CONCLUDES = (
    r"(?:so|therefore|thus|hence|consequently|accordingly|ergo|in\sconclusion|overall|making\s(?:it|this|that)|makes\s(?:it|this|that|the\s\w{1,30})"
    r"|means|say|saying|answers?|answered|with|as|in\sshort|which\sis|donc|ainsi|also|daher|folglich|deshalb|por\slo\stanto|por\stanto|así\sque|quindi"
    r"|dunque|perciò|portanto|logo|dus|поэтому|значит|следовательно|итак|więc|alltså|所以|因此|故|したがって|よって|つまり)"
)
_NUMBERED = (
    "(?:option|answer|choice|statement|sentence|candidate|label|class|category|letter|alternative|response|aussage|antwort"
    "|opción|affirmation|énoncé|phrase)s?"
)
_ANSWER_IS_UNSPACED = r"(?:答案|标签|標籤|结论|結論|答え|ラベル|判断)(?:应该|應該|应|應|就)?(?:是|为|為|は|：|:)"
_BLANKS = regex.compile(r"\s{2,}+")


@lru_cache(maxsize=16)
def spaced(text: str) -> str:
    """A text with one blank or line end where there are several."""
    return _BLANKS.sub(lambda run: "\n" if "\n" in run[0] else " ", text)


class Matcher(NamedTuple):
    """What finds the labels' names in a rationale."""

    plain: regex.Pattern | None
    answers: regex.Pattern | None
    keys: frozenset[str]

    def find(self, text: str) -> str | None:
        text = spaced(text)
        found = self.plain and self.plain.search(text)
        if not found and not self.keys.isdisjoint(units(text)):
            found = self.answers and self.answers.search(text)
        return found[0].strip(" \t\r\n.,;:!?") if found else None


def label_matcher(labels: Sequence[str], label_words: Mapping[str, Sequence[str]] | None = None) -> Matcher:
    """Compile what finds the names of a set's labels."""
    further = tuple((str(label), *map(str, words)) for label, words in (label_words or {}).items())
    return _matcher(tuple(map(str, labels)), further)


@lru_cache(maxsize=64)
def _matcher(labels: tuple[str, ...], further: tuple[tuple[str, ...], ...]) -> Matcher:
    names = [name for name in labels if name.strip()]
    every = [*names, *(word for _, *words in further for word in words)]
    ordinary = [name for name in every if _is_ordinary(name)]
    plain = [_inflected(name) for name in every if not _is_ordinary(name)]
    folded = {name.strip().casefold().replace("-", "_").replace(" ", "_") for name in names}
    for line in _SYNONYMS.strip().splitlines():
        known, always, sometimes = (its.strip().split("|") for its in line.split(";"))
        if folded & {*known}:
            plain += [_inflected(word, inflect=False) for word in always if word]
            ordinary += [word for word in sometimes if word]
    keys = frozenset(words[-1] for word in ordinary if (words := units(word)))
    anywhere = regex.compile("|".join(dict.fromkeys(plain)), regex.IGNORECASE) if plain else None
    return Matcher(anywhere, _as_answer([_exactly(word) for word in ordinary]) if ordinary else None, keys)


def _is_ordinary(name: str) -> bool:
    name = name.strip()
    letters = regex.findall(r"\p{L}", name)
    return len(letters) <= (1 if _ALL_UNSPACED.match(name) else 2) or name.casefold() in _ORDINARY


def _exactly(name: str) -> str:
    pattern = regex.sub(r"(?:\\?[\s_-])+", r"[\\s_-]{1,3}", regex.escape(name.strip()))
    # A letter is a label only as it is written: "a" is an article.
    return pattern if len(name.strip()) == 1 else f"(?i:{pattern})"


def _inflected(name: str, inflect: bool = True) -> str:
    """A pattern for a word wherever it stands, with its endings."""
    name = name.strip()
    words = [word for word in regex.split(r"[\s_/-]+", name) if word]
    if _ALL_UNSPACED.match(name):
        return "".join(map(regex.escape, words))
    last = words[-1]
    if len(last) == 1 and last.isalpha():  # "statement A", and not "the statement a person made"
        last = f"(?-i:{last})"
    elif inflect and len(last) >= 4 and regex.fullmatch(r"\p{Script=Latin}+", last):
        last = f"(?:{regex.escape(last)}|{regex.escape(_SUFFIX.sub('', last))})(?:{_ENDINGS})?"
    elif inflect and len(last) >= 5 and regex.fullmatch(r"[\p{L}\p{M}]+", last):
        stem = regex.sub(r"[аеёиоуыэюяіїєйьαεηιουωάέήίόύώ]{1,2}$", "", last)
        last = rf"{regex.escape(stem)}[\p{{L}}\p{{M}}]{{0,3}}"
    else:
        last = regex.escape(last)
    pattern = r"[\s_/-]{1,3}".join([*map(regex.escape, words[:-1]), last])
    # Korean, Arabic and Hebrew put particles and articles onto a word.
    after = "" if regex.search(r"\p{Script=Hangul}", name) else r"(?![\p{L}\p{M}\p{N}])"
    before = "(?:ال|و|ب|ל|ה)?" if regex.search(r"[\p{Script=Arabic}\p{Script=Hebrew}]", name) else ""
    return rf"(?<![\p{{L}}\p{{M}}\p{{N}}]){before}{pattern}{after}"


def _as_answer(words: list[str]) -> regex.Pattern:
    """A pattern for words where an answer is given."""
    word = "(?:" + "|".join(sorted(dict.fromkeys(words), key=len, reverse=True)) + ")"
    begins, ends = r"(?<![\p{L}\p{M}\p{N}])", r"(?![\p{L}\p{M}\p{N}])"
    whole = rf"{_OPEN}{begins}{word}{ends}"
    marks = "|".join(it for it in words if len(regex.sub(r"^\(\?i:|\)$", "", it)) == 1) or r"(?!)"
    sentence = r"(?:^|(?<=[.!?…:;。！？।\n])\s?)"
    ways = (
        # the answer is no; label: 1; the claim is not correct
        rf"{begins}(?i:{_NOUNS}\s?{_LINKS}{_ADVERBS}(?:\s(?:not|indeed))?){whole}{_ENDS}",
        rf"{begins}(?i:answer|label|class|rating|grade|réponse|Antwort|respuesta|risposta|resposta|antwoord|ответ)\s?(?i:{_LINKS}){_ADVERBS}{whole}",
        rf"{_ANSWER_IS_UNSPACED}{_OPEN}{word}",
        # statement A, option (1), choice "B"
        rf"{begins}(?i:{_NUMBERED})\s{_OPEN}(?:{marks}){ends}(?!['’]\p{{L}})",
        # A is correct; (B)
        rf"{begins}(?-i:(?=\p{{Lu}}{ends}){word}){_CLOSE}\s(?i:is|must\sbe|would\sbe|was)\s(?i:(?:the\s)?(?:correct|right|wrong|incorrect|answer|true|false|one|best|odd|nonsens\w{{1,30}}|against|absurd|implausible|impossible|illogical))",
        # Yes, it does. No: nobody did.
        rf"{sentence}{_OPEN}{word}{ends}{_CLOSE}(?:[,:;!—–，。]|\.(?!\s?\d)|\s-|$)",
        # Therefore, yes. It is right.
        rf"{begins}(?i:{_CONCLUDES})\s?,?\s?(?i:(?:the\sanswer\sis\s)?(?:a|an|clearly|definitely|certainly|simply|not)?\s?){whole}{_ENDS}",
        rf"(?i:所以|因此|故|したがって|よって|つまり|答え)[，、]?{_OPEN}{word}",
        rf"{begins}(?i:is|are|was|be|est|ist|es|è|é|это)\s(?i:(?:indeed|clearly|certainly|plainly|not|therefore|thus|simply|obviously|actually|factually|in\sfact|definitely)\s){{0,3}}{whole}{_CLOSE}(?:[.!?…]|$)",
        # "yes", **no**
        rf"(?:(?<![\p{{L}}\p{{M}}\p{{N}}])[\"“”«*]{{1,4}}{word}[\"“”»*]{{1,4}})",
    )
    return regex.compile("|".join(ways))


class Phrases:
    """Wordings, and the words and marks that make it worth to look for them."""

    def __init__(self, patterns: Sequence[str], keys: str, marks: str = ""):
        self.pattern, self.marks = regex.compile("(?i)" + "|".join(patterns)), marks
        self.keys = frozenset(keys.split())

    def find(self, text: str) -> str | None:
        worth_it = not self.keys.isdisjoint(units(text)) or any(mark in text for mark in self.marks)
        if not worth_it and text.isascii():
            return None
        found = self.pattern.search(spaced(text))
        return found[0].strip() if found else None


ANNOUNCEMENT = Phrases(
    (
        r"(?<!\p{L})(?:(?:the|my|our|this|final|correct|right|best|gold|proper|true|intended)\s){1,3}"
        r"(?:answer|label|verdict|option|choice|classification)\s"
        r"(?:is|must\sbe|should\sbe|would\sbe|has\sto\sbe|will\sbe|can\sonly\sbe|therefore|thus)(?!\p{L})",
        r"(?<!\p{L})(?:answer|label|verdict|final\sanswer)\s?[:=]",
        r"(?<!\p{L})(?:la\s(?:bonne\s)?réponse\sest|die\s(?:richtige\s)?antwort\s(?:ist|lautet)|la\srespuesta\s(?:correcta\s)?es"
        r"|la\srisposta\s(?:corretta\s)?è|a\sresposta\s(?:correta\s)?é|het\s(?:juiste\s)?antwoord\sis|ответ\s?(?:[:—–-]|такой))",
        r"(?:答案|正解|答え|정답|답)(?:是|为|為|は|은|:|：)|الجواب\sهو|الإجابة\sهي|उत्तर\sहै",
    ),
    "answer label verdict option choice classification réponse antwort respuesta risposta resposta antwoord",
)

_CANNOT = r"(?:can\s?not|can['’]?t|could\s?n['’]?t|could\snot|won['’]?t|will\snot|would\snot|am\s(?:unable|not\s(?:able|allowed|permitted|comfortable))|['’]m\s(?:unable|not\s(?:able|allowed|permitted|comfortable))|must\s(?:decline|refuse)|have\sto\s(?:decline|refuse)|decline|refuse|do\snot\sfeel\scomfortable|don['’]t\sfeel\scomfortable)"
_HELPS = r"(?:assist|help|provide|answer|comply|fulfill?|generate|give|explain|complete|continue|engage|discuss|respond|do\s(?:that|this)|support|create|write|produce|offer|process|justify|determine|access|browse|share|with\s(?:that|this))"

# Apologies and limits of an assistant: one that speaks of itself, and not a person in the row's text.
_REFUSAL = (
    r"(?<!\p{L})as\san?\s(?:\w{1,30}\s){0,2}(?:AI|A\.I\.|artificial\sintelligence|language\smodel|LLM|chat\s?bot|(?:virtual|digital|automated)\sassistant|assistant)(?!\p{L})",
    r"(?<!\p{L})I(?:['’]m|\sam)\s(?:just\s|only\s|merely\s)?an?\s(?:\w{1,30}\s){0,2}(?:AI|language\smodel|LLM|chat\s?bot|virtual\sassistant)(?!\p{L})",
    rf"(?:I['’]?m|I\sam|we\sare|my|our)\s(?:\w{{1,30}}\s){{0,2}}(?:sorry|apolog\w{{1,30}}|afraid|regret)[^.!?]{{0,40}}?(?<!\p{{L}})(?:I|we)\s?{_CANNOT}",
    r"(?<!\p{L})(?:I|we)\s(?:sincerely\s|do\s|must\s)?apologi[sz]e|(?<!\p{L})my\sapologies",
    r"(?:^|[.!?]\s)(?:I['’]m|I\sam|we\sare|we['’]re)?\s?(?:very\s|so\s|really\s)?sorry[,.!]?\s(?:but|I|we|this|that|about|for|,)",
    rf"(?<!\p{{L}})I\s?{_CANNOT}\s(?:to\s)?(?:\w{{1,30}}\s){{0,2}}?{_HELPS}(?!\p{{L}})",
    r"(?<!\p{L})(?:I|we)\s(?:do\snot|don['’]t)\shave\s(?:\w{1,30}\s){0,2}(?:information|context|access|ability|opinions?|beliefs|capabilit\w{1,30}|enough|permission)(?!\p{L})",
    r"(?:^|[.!?]\s)(?:unable|not\sable|not\spossible\sfor\sme)\sto\s(?:assist|help|comply|provide|fulfill?|answer|generate|complete)(?!\p{L})",
    r"(?<!\p{L})I\s(?:do\snot|don['’]t)\sfeel\scomfortable|(?<!\p{L})I(?:['’]m|\sam)\snot\scomfortable",
    r"(?<!\p{L})(?:no|an?)\sexplanation\s(?:is|was)\s(?:not\s)?(?:possible|available|provided)",
    r"(?:this|that|your|the)\s(?:request|content|prompt)\s(?:violates|goes\sagainst|is\sagainst|cannot\sbe|can['’]t\sbe|is\s(?:inappropriate|harmful))",
    r"(?:against|violat\w{1,30})\s(?:my|our|the)\s(?:\w{1,30}\s)?(?:guidelines|programming|polic(?:y|ies)|principles|values|terms)",
    r"(?<!\p{L})my\s(?:training\sdata|knowledge\scut-?off|programming|guidelines|developers|creators)(?!\p{L})",
    r"(?<!\p{L})I\swas\s(?:trained|developed|created|designed)\sby(?!\p{L})",
    r"please\s(?:consult|seek|contact)\s(?:with\s)?(?:a|an)\s(?:\w{1,30}\s){0,2}(?:professional|expert|doctor|lawyer)",
    r"(?:could|can|would)\syou\s(?:please\s)?(?:provide|clarify|share|give|rephrase|specify)|please\s(?:provide|clarify|share|rephrase)\s(?:me|more|the|your|a|additional|further)",
    r"(?:how|what)\s(?:else\s)?(?:can|may)\sI\s(?:help|assist)|(?:is\sthere\s)?anything\selse\sI\scan|I['’]?(?:d|\swould)\sbe\shappy\sto\s(?:help|assist)|let\sme\sknow\sif\syou",
    r"en\stant\squ['’]\s?(?:IA(?!\p{L})|intelligence\sartificielle|assistant|modèle)|je\s(?:suis\sdésolée?|ne\speux\spas|ne\ssuis\spas\sen\smesure)",
    r"(?<!\p{L})als\s(?:KI(?!\p{L})|künstliche\sintelligenz|sprachmodell|eine?\s(?:KI(?!\p{L})|künstliche|sprachmodell))|(?<!\p{L})(?:tut\smir\sleid|ich\skann\s(?:\w{1,30}\s){0,4}nicht|ich\sbin\snicht\sin\sder\slage)",
    r"(?<!\p{L})como\s(?:una?\s)?(?:modelo\sde\s(?:lenguaje|linguagem)|IA(?!\p{L})|inteligencia\sartificial|inteligência\sartificial|asistente|assistente)|lo\ssiento|no\spuedo\s(?:ayudar|responder|proporcionar|cumplir|asistir)|não\sposso\s(?:ajudar|responder|fornecer)|(?<!\p{L})desculpe",
    r"(?<!\p{L})come\s(?:modello\slinguistico|IA(?!\p{L})|intelligenza\sartificiale|assistente)|mi\sdispiace|non\sposso\s(?:aiutare|rispondere|fornire)",
    r"(?<!\p{L})als\s(?:AI(?!\p{L})|taalmodel|een\staalmodel)|het\sspijt\sme|ik\skan\s(?:\w{1,30}\s){0,3}niet\s(?:helpen|beantwoorden)",
    r"(?<!\p{L})как\s(?:ИИ(?!\p{L})|языковая\sмодель|искусственный\sинтеллект)|(?:извините|простите|к\sсожалению),?\s(?:но\s)?я\sне\sмог|я\sне\sмогу\s(?:помочь|ответить|предоставить|выполнить)",
    r"作为(?:一个|一款|一名)?(?:人工智能|AI|语言模型|大?语言模型|助手)|(?:抱歉|对不起|很遗憾)，?(?:但)?我|我(?:无法|不能|没办法)(?:提供|回答|帮助|协助|满足|完成|解释)",
    r"(?:AI|人工知能|言語モデル)として|申し訳(?:ありません|ございません)|お(?:手伝い|答え)(?:することは)?でき(?:ません|かねます)",
    r"(?:AI|인공지능|언어\s?모델)로서|죄송(?:합니다|하지만)|(?:도와|답변|제공)[^.]{0,10}수\s?없습니다",
    r"عذر[اًا]|آسف|لا\s(?:أستطيع|يمكنني)\s(?:مساعد|تقديم|الإجابة)|كنموذج\sلغوي",
)
REFUSAL = Phrases(
    _REFUSAL,
    "i i'm i'd im we we're my our ai llm assistant chatbot bot chat model intelligence sorry unable able "
    "request content prompt guidelines programming policy policies principles please you else possible suis "
    "peux tant leid kann bin ki sprachmodell siento puedo posso desculpe modelo ia dispiace modello spijt kan "
    "taalmodel",
)

_FIELDS = (
    r"passage|question|(?:final|gold|correct|candidate)?\s?answer|reasoning|explanation|rationale|premise|hypothesis|context|paragraph"
    r"|instructions?|task|input|output|(?:gold|correct)?\s?label|system|user|assistant|example(?:\s\d{1,4})?|response|text|statement\s[A-Z]|claim|sentence\s\d"
)
_ECHO = (
    rf"(?:^|(?<=[.!?\n>*#\]])\s?)[*#_\s]{{0,6}}(?:{_FIELDS})\*{{0,3}}\s?:(?!\d)",
    r"\[?(?:END|START|BEGIN)(?:ING)?\sOF\s(?:THE\s)?(?:REASONING|EXPLANATION|RATIONALE|PROMPT|TEXT)\]?(?!\s\p{L})",
    r"</?(?:reason(?:ing)?|ans(?:wer)?|think|rationale|explanation|s|pad|eos|bos|unk)>|<\|\w{1,30}\|>|\[/?INST\]|<<SYS>>|#{2,}\s?(?:instruction|response|input|task|question|answer|reasoning)",
    r"is\sthe\s(?:answer|hypothesis|claim|statement)\s(?:correct|entailed\sby\sthe\spremise)[^.]{0,12}\b(?:yes\sor\sno|\?)|is\sthe\sfollowing\s(?:claim|statement|sentence)\s(?:true|false)\sor|\byes\sor\sno\?",
    r"\b(?:\d{1,4}|two|three|one)\s?(?:to|-|–|and)\s?(?:\d{1,4}|four|five|three)\s(?:short\s)?sentences\b|in\s(?:one|a\ssingle)\s(?:short\s)?paragraph\b",
    r"\b(?:do\snot|don['’]t|never|without|must\snot|avoid|should\snot)\s(?:\w{1,30}\s){0,3}?(?:nam(?:e|ing)|mention(?:ing)?|reveal(?:ing)?|stat(?:e|ing)|us(?:e|ing)|writ(?:e|ing)|say(?:ing)?|includ(?:e|ing)|repeat(?:ing)?|giv(?:e|ing))\s(?:\w{1,30}\s){0,3}?(?:label|labels|answer|verdict|synonyms?|yes\W{1,5}no|true\W{1,5}false|words?\s(?:yes|no|true|false))\b",
    r"\b(?:write|give|provide|generate|produce|compose)\s(?:me\s)?(?:an?|the|your|one)\s(?:\w{1,30},?\s){0,4}?(?:explanation|rationale|reasoning|justification|paragraph)\b",
    r"\b(?:explain|justify|describe|show|reason|think|justifies)\s(?:\w{1,30}\s){0,8}?step[\s-]by[\s-]step\b|\blet['’]?s\s(?:think|reason|go|work|break)\b[^.]{0,30}\bstep\b",
    r"\b(?:explain|justify)\s(?:briefly\s|in\syour\sown\swords\s)?(?:why|how)\s(?:the\s)?(?:\w{1,30}\s){0,2}?(?:label|answer)\b",
    r"\b(?:end|finish|close|conclude)\s(?:the|your|with)\s(?:\w{1,30}\s){0,5}?(?:sentinel|marker|line|token|tag)\b|\bon\sa\snew\sline\b",
    r"(?:^|(?<=[.!?\n])\s?)(?:sure|certainly|of\scourse|okay|absolutely)[,!.]?\s(?:here|I|let)\b|\bhere(?:['’]s|\sis|\sare)\s(?:an?|the|your|my)\s(?:\w{1,30}\s){0,5}?(?:explanation|rationale|reasoning|justification|answer|response)s?\b",
    r"\b(?:the\s)?(?:gold|given|provided|correct|target|ground[\s-]truth)\slabel\b|\bthe\suser\s(?:wants|asks|asked|is\sasking|has\sasked)\b|\bas\s(?:requested|instructed)\b|\b(?:follow|following)\s(?:the|these)\sinstructions\b",
    r"\b(?:your\stask\sis|you\s(?:are|will\sbe)\s(?:an?\s\w{1,30}\s(?:assistant|teacher|model|annotator|expert)|given)|you\sare\sgiven|your\s(?:explanation|reply|rationale|reasoning)\s(?:must|should|has))\b",
    # What this package tells a teacher (prompt.py), in its own words.
    r"\b(?:right|correct)\slabel\b|\bwhy\sthis\slabel\b|\ban?\sinput,?\sand\s(?:the\s)?labels?\b|\bfrom\swhat\sthe\sinput\ssays\b"
    r"|\bname\sa\slabel\b|\bcome\sto\sthe\slabel\b|\bthe\sform\sis\sexactly\b|\blanguage\sof\sthe\sinput\b|\blabel\son\sa\sline\b|\btext\sclassifier\b",
    r"\{(?:text|label|rationale|passage|question|answer|premise|hypothesis|paragraph)\}",
)
PROMPT_ECHO = Phrases(
    _ECHO,
    "sentences paragraph step label labels answer verdict synonym synonyms explanation rationale reasoning "
    "justification justify instructions requested instructed task user line here here's correct entailed "
    "following sentinel marker given tag token no let let's you your input",
    marks=":[<#{",
)
