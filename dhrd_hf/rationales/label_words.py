"""The words that name a label: its own, their inflections, and their synonyms in the languages of the world's labels.

Two kinds of words are told apart. A *plain* word ("entailment", "contradiction", "true") names the label wherever it
stands. An *ordinary* word ("no", "A", "1", "other") has other uses as well: it names the label only where an answer is
given ("the answer is no", "statement A", "Therefore, yes.").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import regex

from .languages import units

# What means the same as a label. A label of the first list of a line is also named by the plain words after it, and,
# as an ordinary word, by the last ones: these are only looked for where an answer is given ("is right", "so wrong.").
_SYNONYMS: tuple[tuple[str, str, str], ...] = (
    # labels | plain | ordinary
    ("yes|true|correct|right", "", "yes|yep|yeah|true|correct|right|affirmative|accurate|valid"),
    (
        "no|false|incorrect|wrong",
        "untrue|incorrect|incorrectly",
        "no|nope|false|wrong|negative|inaccurate|invalid|not true|not correct|not right",
    ),
    (
        "true|false",
        "truth|truths|truthful|truthfully|truthfulness|falsehood|falsehoods|falsity|untrue|falsely|falsify|falsified|falsifies",
        "",
    ),
    ("correct|incorrect", "correctness|incorrectly|correctly", ""),
    (
        "entailment|entailed|entails|not_entailment|non_entailment|contradiction|contradicts|neutral",
        "entail|entails|entailed|entailing|entailment|contradict|contradicts|contradicted|contradicting|contradiction|contradictory",
        "",
    ),
    ("positive|negative", "positivity|negativity|favorable|favourable|unfavorable|unfavourable", ""),
    ("supports|supported|support|refutes|refuted|refute", "refutation|refuting|substantiated|unsupported", ""),
    ("oui|vrai|vraie", "", "oui|vrai|vraie|exact|exacte|juste|correct|correcte"),
    ("non|faux|fausse", "", "non|faux|fausse|inexact|inexacte|incorrect|incorrecte"),
    ("ja|wahr|richtig", "", "ja|wahr|richtig|korrekt|zutreffend"),
    ("nein|falsch", "", "nein|falsch|unwahr|unrichtig|inkorrekt|unzutreffend"),
    ("sí|si|verdadero|verdadera|cierto", "", "sí|si|verdadero|verdadera|cierto|cierta|correcto|correcta"),
    ("no|falso|falsa", "", "no|falso|falsa|incorrecto|incorrecta"),
    ("sì|vero|vera", "", "sì|vero|vera|giusto|giusta|corretto|corretta"),
    ("no|falso|falsa", "", "no|falso|falsa|sbagliato|sbagliata|errato|errata"),
    ("sim|verdadeiro|verdadeira", "", "sim|verdadeiro|verdadeira|certo|certa|correto|correta"),
    ("não|nao|falso|falsa", "", "não|nao|falso|falsa|errado|errada|incorreto|incorreta"),
    ("да|верно|правда|истина", "", "да|верно|правда|истина|правильно"),
    ("нет|неверно|ложь", "", "нет|неверно|ложь|неправда|неправильно"),
    ("是|对|真|正确", "正确", "是|对|真"),
    ("否|不是|错|假|错误", "错误", "否|错|假|不对|不是"),
    ("はい|正しい|真", "正しい", "はい"),
    ("いいえ|誤り|偽", "誤り|正しくない|間違い", "いいえ"),
)
# Labels with other uses than as the name of one: every word of at most two letters, those above, and these.
_ORDINARY = frozenset(
    """
    yes no yeah nope right wrong other others none same different both neither either not more less like unlike
    maybe perhaps good bad up down left first second third high low one two three four five six seven eight nine
    ten all any some most few many on off in out before after equal question answer cause effect person place
    thing time date number entity description location human object subject news world people general new old big
    small great poor fine ok okay oui non ja nein sí si sì sim não nao richtig да нет 是 否 对 错 真 假 はい いいえ
    """.split()  # noqa: SIM905
)
_ENDINGS = (
    "s|es|ed|d|ing|ings|ly|ment|ments|ion|ions|or|ory|able|ably|ive|ively|al|ally|ity|ness|ize|ized|ise|ised|"
    "er|e|en|em|y|ies|ied|a|o|as|os|i|x|le"
)
# From a label to what its inflections have in common; the longest first, each kept only where enough is left.
_SUFFIXES = ("ments", "ment", "ness", "ions", "ion", "ings", "ing", "ies", "ied", "ely", "ed", "es", "s", "e", "y")
_UNSPACED = regex.compile(
    r"^[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\s_-]+$"
)
_OPEN, _CLOSE = r"[\s\"'“”„«»‘’`*_(\[「『（【]*", r"[\s\"'“”„«»‘’`*_)\]」』）】]*"
_END = rf"{_CLOSE}(?:[.!?;,:…。！？；，।؟]|—|–|$)"
# What an answer is called, and what stands between that and the answer.
_NOUNS = (
    r"(?:answer|label|class|category|verdict|conclusion|classification|judge?ment|option|choice|prediction|response|decision"
    r"|relation|relationship|rating|grade|result|claim|statement|hypothesis|candidate|sentiment"
    r"|réponse|réponses|étiquette|catégorie|Antwort|Bezeichnung|Klasse|Kategorie|Ergebnis|respuesta|etiqueta|risposta|etichetta"
    r"|resposta|rótulo|antwoord|ответ|метка|odpowiedź|svaret|vastaus|cevap|jawaban)"
)
_LINKS = (
    r"(?:is|are|was|be|being|been|becomes|seems|remains|would\s+be|should\s+be|must\s+be|will\s+be|has\s+to\s+be|can\s+only\s+be|comes\s+out\s+as|to\s+be"
    r"|est|serait|doit\s+être|ist|lautet|wäre|es|sería|è|sarebbe|é|seria|to|är|er|[:=—–-]|это)"
)
_ADVERBS = r"(?:\s+(?:therefore|thus|hence|then|clearly|obviously|certainly|simply|definitely|indeed|also|in\s+fact|a|an|the|clear|definite|firm|donc|also|daher|por\s+tanto|quindi|label(?:led)?|answer))*"
_CONCLUDES = (
    r"(?:so|therefore|thus|hence|consequently|accordingly|ergo|in\s+conclusion|overall|making\s+(?:it|this|that)|makes\s+(?:it|this|that|the\s+\w+)"
    r"|means|say|saying|answers?|answered|with|as|in\s+short|which\s+is|donc|ainsi|also|daher|folglich|deshalb|por\s+lo\s+tanto|por\s+tanto|así\s+que|quindi"
    r"|dunque|perciò|portanto|logo|dus|поэтому|значит|следовательно|итак|więc|alltså|所以|因此|故|したがって|よって|つまり)"
)
_NUMBERED = (
    "(?:option|answer|choice|statement|sentence|candidate|label|class|category|letter|alternative|response|aussage|antwort"
    "|opción|affirmation|énoncé|phrase)s?"
)
_ANSWER_IS_UNSPACED = r"(?:答案|标签|標籤|结论|結論|答え|ラベル|判断)(?:应该|應該|应|應|就)?(?:是|为|為|は|：|:)"


class Matcher(NamedTuple):
    """What finds the labels' names in a rationale."""

    plain: regex.Pattern | None
    answers: regex.Pattern | None
    keys: frozenset[str]

    def find(self, text: str) -> str | None:
        """The first name of a label."""
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
    plain: list[str] = []
    ordinary: list[str] = []
    names = [name for name in labels if name.strip()]
    for name in (*names, *(word for _, *words in further for word in words)):
        if _is_ordinary(name):
            ordinary.append(name)
        else:
            plain.append(_inflected(name))
    folded = {name.strip().casefold().replace("-", "_").replace(" ", "_") for name in names}
    for known, always, sometimes in _SYNONYMS:
        if folded & set(known.split("|")):
            plain += [_inflected(word, inflect=False) for word in always.split("|") if word]
            ordinary += [word for word in sometimes.split("|") if word]
    keys = frozenset(words[-1] for word in ordinary if (words := units(word)))
    return Matcher(_any_of(plain), _as_answer([_exactly(word) for word in ordinary]), keys)


def _any_of(patterns: list[str]) -> regex.Pattern | None:
    return regex.compile("|".join(dict.fromkeys(patterns)), regex.IGNORECASE) if patterns else None


def _is_ordinary(name: str) -> bool:
    name = name.strip()
    letters = regex.findall(r"\p{L}", name)
    return len(letters) <= (1 if _UNSPACED.match(name) else 2) or name.casefold() in _ORDINARY


def _exactly(name: str) -> str:
    pattern = regex.sub(r"(?:\\?[\s_-])+", r"[\\s_-]+", regex.escape(name.strip()))
    # A letter is a label only as it is written: "a" is an article.
    return pattern if len(name.strip()) == 1 else f"(?i:{pattern})"


def _inflected(name: str, inflect: bool = True) -> str:
    """A pattern for a word wherever it stands, with its endings."""
    name = name.strip()
    words = [word for word in regex.split(r"[\s_/-]+", name) if word]
    if _UNSPACED.match(name):
        return "".join(map(regex.escape, words))
    last = words[-1]
    if len(last) == 1 and last.isalpha():  # "statement A", and not "the statement a person made"
        last = f"(?-i:{last})"
    elif inflect and len(last) >= 4 and regex.fullmatch(r"\p{Script=Latin}+", last):
        stem = _stem(last)
        last = f"(?:{regex.escape(last)}|{regex.escape(stem)})(?:{_ENDINGS})?"
    elif inflect and len(last) >= 5 and regex.fullmatch(r"[\p{L}\p{M}]+", last):
        stem = regex.sub(r"[аеёиоуыэюяіїєйьαεηιουωάέήίόύώ]{1,2}$", "", last)
        last = rf"{regex.escape(stem)}[\p{{L}}\p{{M}}]{{0,3}}"
    else:
        last = regex.escape(last)
    pattern = r"[\s_/-]+".join([*map(regex.escape, words[:-1]), last])
    # Korean, Arabic and Hebrew put particles and articles onto a word.
    after = "" if regex.search(r"\p{Script=Hangul}", name) else r"(?![\p{L}\p{M}\p{N}])"
    before = "(?:ال|و|ب|ל|ה)?" if regex.search(r"[\p{Script=Arabic}\p{Script=Hebrew}]", name) else ""
    return rf"(?<![\p{{L}}\p{{M}}\p{{N}}]){before}{pattern}{after}"


def _stem(word: str) -> str:
    folded = word.lower()
    for suffix in _SUFFIXES:
        if folded.endswith(suffix) and not (suffix == "s" and folded.endswith("ss")) and len(word) - len(suffix) >= 5:
            return word[: -len(suffix)]
    return word


def _as_answer(words: list[str]) -> regex.Pattern | None:
    """A pattern for words where an answer is given."""
    if not words:
        return None
    word = "(?:" + "|".join(sorted(dict.fromkeys(words), key=len, reverse=True)) + ")"
    begins, ends = r"(?<![\p{L}\p{M}\p{N}])", r"(?![\p{L}\p{M}\p{N}])"
    whole = rf"{_OPEN}{begins}{word}{ends}"
    marks = "|".join(it for it in words if len(regex.sub(r"^\(\?i:|\)$", "", it)) == 1) or r"(?!)"
    sentence = r"(?:^|(?<=[.!?…:;。！？।\n])\s*)"
    ways = (
        # the answer is no; label: 1; the claim is not correct
        rf"{begins}(?i:{_NOUNS}\s*{_LINKS}{_ADVERBS}(?:\s+(?:not|indeed))?){whole}{_END}",
        rf"{begins}(?i:answer|label|class|rating|grade|réponse|Antwort|respuesta|risposta|resposta|antwoord|ответ)\s*(?i:{_LINKS}){_ADVERBS}{whole}",
        rf"{_ANSWER_IS_UNSPACED}{_OPEN}{word}",
        # statement A, option (1), choice "B"
        rf"{begins}(?i:{_NUMBERED})\s+{_OPEN}(?:{marks}){ends}(?!['’]\p{{L}})",
        # A is correct; (B)
        rf"{begins}(?-i:(?=\p{{Lu}}{ends}){word}){_CLOSE}\s+(?i:is|must\s+be|would\s+be|was)\s+(?i:(?:the\s+)?(?:correct|right|wrong|incorrect|answer|true|false|one|best|odd|nonsens\w+|against|absurd|implausible|impossible|illogical))",
        # Yes, it does. No: nobody did.
        rf"{sentence}{_OPEN}{word}{ends}{_CLOSE}(?:[,:;!—–，。]|\.(?!\s*\d)|\s+-|$)",
        # Therefore, yes. It is right.
        rf"{begins}(?i:{_CONCLUDES})\s*,?\s*(?i:(?:the\s+answer\s+is\s+)?(?:a|an|clearly|definitely|certainly|simply|not)?\s*){whole}{_END}",
        rf"(?i:所以|因此|故|したがって|よって|つまり|答え)[，、]?{_OPEN}{word}",
        rf"{begins}(?i:is|are|was|be|est|ist|es|è|é|это)\s+(?i:(?:indeed|clearly|certainly|plainly|not|therefore|thus|simply|obviously|actually|factually|in\s+fact|definitely)\s+)*{whole}{_CLOSE}(?:[.!?…]|$)",
        # "yes", **no**
        rf"(?:(?<![\p{{L}}\p{{M}}\p{{N}}])[\"“”«*]+{word}[\"“”»*]+)",
    )
    return regex.compile("|".join(ways))
