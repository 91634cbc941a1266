"""What language a text is in, and what its words are, for as many scripts as labels and rationales come in.

Everything here is a guess from the text alone, without a model: scripts by Unicode, languages of one script by their
commonest words. It says nothing rather than guess from a few words.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

import regex

# Scripts that put no spaces between words: a character is a unit of these.
_UNSPACED = r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}"
_UNIT = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|[[\w'’]--[{_UNSPACED}_]]+", regex.VERSION1)
_ASCII_UNIT = re.compile(r"[a-z0-9']+")
_UNSPACED_UNIT = regex.compile(rf"[{_UNSPACED}]")
_CHARACTERS_A_WORD = 1.7  # of Chinese, in common segmentations
_LETTER = regex.compile(r"\p{L}")
_SCRIPTS = {
    name: regex.compile(pattern)
    for name, pattern in {
        "Latin": r"\p{Script=Latin}",
        "Cyrillic": r"\p{Script=Cyrillic}",
        "Greek": r"\p{Script=Greek}",
        "Arabic": r"\p{Script=Arabic}",
        "Hebrew": r"\p{Script=Hebrew}",
        "Devanagari": r"\p{Script=Devanagari}",
        "Bengali": r"\p{Script=Bengali}",
        "Tamil": r"\p{Script=Tamil}",
        "Telugu": r"\p{Script=Telugu}",
        "Thai": r"\p{Script=Thai}",
        "Georgian": r"\p{Script=Georgian}",
        "Armenian": r"\p{Script=Armenian}",
        "Korean": r"\p{Script=Hangul}",
        "Chinese or Japanese": r"\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}",
    }.items()
}
_KANA = regex.compile(r"\p{Script=Hiragana}|\p{Script=Katakana}")
_MOST_LETTERS = 2000  # a guess needs no more of a long text
_FEWEST_LETTERS, _FEWEST_HAN = 10, 4
# The commonest words of each language that are no word, or a rare one, of the others beside it.
_COMMON_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "English": "a an in i the of and to is that it was for on are with as his they at be this have from or had by but not what all "
        "were we when your can said there which their if how she will would about out them then so some her has him "
        "because who than been its does cannot could while these into only other also more no any must being both same "
        "one two you do did just like i'm it's",
        "German": "der die und den von zu das mit sich des auf für ist im dem nicht ein eine als auch es werden aus er hat "
        "dass sie nach wird bei einer um am sind noch wie einem über einen so zum haben nur oder aber vor zur bis mehr durch "
        "kann sein wenn weil keine kein ihr wurde diese dieser dieses damit ich wir daher ihre",
        "French": "le de la les et des en un du une que est pour qui dans sur pas plus par au avec ce il sont ne se aux "
        "mais comme ou si leur elle cette ces nous être fait été ont aussi donc car peut ses son sa lui tout c'est l'on "
        "n'est d'un d'une qu'il qu'elle même ainsi parce très",
        "Spanish": "el la de que y en los se del las un por con una para es al lo como más o pero sus le ya este porque "
        "esta entre cuando muy sin sobre también hasta hay donde quien desde son fue ser está no su puede ni otro así ese "
        "eso ella ellos tiene han pues",
        "Italian": "il di che e la un a per in una è sono con non si da del le dei della nel alla più anche gli lo come ma al "
        "delle ha ho questo questa sul dal nella perché quindi può essere degli loro suo sua quando dove cui tra così molto "
        "poiché ogni stato",
        "Portuguese": "o de a que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem "
        "seu sua ou ser quando muito há nos já está eu também só pelo pela até isso ela entre depois sem mesmo aos seus "
        "são porque pode então",
        "Dutch": "de het een en van is dat op te in zijn niet met voor die aan er om als ook maar bij naar uit door over "
        "heeft worden wordt nog kan geen deze dit wel hebben meer omdat dus werd moet ze hij wij zou tot hun",
        "Polish": "i w na nie z się do to że jest o jak po co ale za tak od przez tym jego dla czy już są być który która "
        "może tylko więc ponieważ oraz ten jej bo gdy także",
        "Swedish": "och att det i en som på är av för med den till inte har om ett men var jag de så vi kan från när eller "
        "hade sig man där också eftersom därför kunde ska inga ingen",
        "Danish or Norwegian": "og at det i en som på er av af for med den til ikke har om et men var jeg de så vi kan fra når "
        "eller hvis hadde havde seg sig man der også fordi derfor kunne skal ingen",
        "Finnish": "ja on ei se että hän oli ovat mutta kun niin myös tai joka voi kuin mitä siksi koska ole jos sen tämä "
        "eivät mukaan",
        "Turkish": "ve bir bu için ile da de çok daha olarak gibi olan değil ama ne kadar sonra en her çünkü veya var yok "
        "olduğu ise bunu",
        "Indonesian": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga saya ke karena tersebut bisa ada "
        "mereka lebih sudah atau seperti oleh adalah tetapi jadi",
        "Romanian": "și de în la a cu nu că este pe o din un care pentru mai sau sunt dar ca fi se lui această acest poate "
        "deci când după fost deoarece",
        "Czech": "a se na je že v to s z do o jako i ale si pro za by tak jsou po jeho když které který podle nebo až být "
        "také není protože tedy má",
        "Hungarian": "a az és hogy nem is egy ez meg de csak van ha már még mint vagy volt aki azt nincs mert ezért kell "
        "lehet között után",
        "Vietnamese": "và của là có không được trong cho một với những các này người khi đã từ để như vì nên cũng thì đó",
        "Russian": "и в не на что с по это как а из у за от то же для так но он был она они были есть его чтобы или если "
        "потому который может только при также поэтому",
        "Ukrainian": "і в не на що з та це як у до за від то же для так але він був вона вони були є його щоб або якщо тому "
        "який може тільки при також",
    }.items()
}
_FEWEST_HITS, _FEWEST_DISTINCT = 4, 3


def units(text: str) -> list[str]:
    """The words of a text in lower case, and the characters of what is written without spaces."""
    return list(_units(text))


@lru_cache(maxsize=256)
def _units(text: str) -> tuple[str, ...]:
    # Each check of a row asks for the same words; and most texts are ASCII, for which the simple pattern is much faster.
    return tuple(_ASCII_UNIT.findall(text.lower()) if text.isascii() else _UNIT.findall(text.casefold()))


def count_words(text: str) -> int:
    """The number of words of a text; of what is written without spaces, a word for every 1.7 characters."""
    characters = 0 if text.isascii() else len(_UNSPACED_UNIT.findall(text))
    return len(_units(text)) - characters + round(characters / _CHARACTERS_A_WORD)


@lru_cache(maxsize=4096)
def script_shares(text: str) -> dict[str, int]:
    """How many letters of a text are in each script; those of Japanese are told from Chinese by their kana."""
    text = text[:_MOST_LETTERS]
    if text.isascii():
        letters = sum(map(str.isalpha, text))
        return {"Latin": letters} if letters else {}
    counts = {name: len(pattern.findall(text)) for name, pattern in _SCRIPTS.items()}
    together = counts.pop("Chinese or Japanese")
    if together:
        counts["Japanese" if len(_KANA.findall(text)) > 0.1 * together else "Chinese"] = together
    return {name: count for name, count in counts.items() if count}


@lru_cache(maxsize=4096)
def common_word_hits(text: str) -> dict[str, int]:
    """How many words of a text are among the commonest of each language that shares its script with others."""
    counts = Counter(_units(text[:_MOST_LETTERS]))
    return {language: sum(counts[word] for word in words & counts.keys()) for language, words in _COMMON_WORDS.items()}


def language_of(text: str) -> str | None:
    """The language of a text, where there is no doubt about it."""
    scripts = script_shares(text)
    if not scripts:
        return None
    script = max(scripts, key=scripts.__getitem__)
    fewest = _FEWEST_HAN if script in ("Chinese", "Japanese", "Korean") else _FEWEST_LETTERS
    if scripts[script] < max(fewest, 0.6 * sum(scripts.values())):
        return None
    if script not in ("Latin", "Cyrillic"):
        return script
    hits = common_word_hits(text)
    first, second = sorted(hits, key=hits.__getitem__, reverse=True)[:2]
    words = _units(text[:_MOST_LETTERS])
    distinct = len(set(words) & _COMMON_WORDS[first])
    fewest = max(_FEWEST_HITS, 0.15 * len(words), 1.3 * hits[second])
    if distinct < _FEWEST_DISTINCT or hits[first] < fewest:
        return None
    return first
