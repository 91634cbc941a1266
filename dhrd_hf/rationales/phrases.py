"""The wordings of teachers that announce an answer, decline, or repeat their prompt."""

from __future__ import annotations

from typing import NamedTuple

import regex

from .languages import units


class Phrases(NamedTuple):
    """Wordings, and what makes it worth to look for them."""

    pattern: regex.Pattern
    keys: frozenset[str]
    marks: str = ""
    unless_ascii: bool = False

    def find(self, text: str) -> str | None:
        """The first of them in a text."""
        worth_it = not self.keys.isdisjoint(units(text)) or any(mark in text for mark in self.marks)
        if not worth_it and (text.isascii() or not self.unless_ascii):
            return None
        found = self.pattern.search(text)
        return found[0].strip() if found else None


ANNOUNCEMENT = Phrases(
    regex.compile(
        r"(?i)(?<!\p{L})(?:(?:the|my|our|this|final|correct|right|best|gold|proper|true|intended)\s+){1,3}"
        r"(?:answer|label|verdict|option|choice|classification)\s+"
        r"(?:is|must\s+be|should\s+be|would\s+be|has\s+to\s+be|will\s+be|can\s+only\s+be|therefore|thus)(?!\p{L})"
        r"|(?<!\p{L})(?:answer|label|verdict|final\s+answer)\s*[:=]"
        r"|(?<!\p{L})(?:la\s+(?:bonne\s+)?réponse\s+est|die\s+(?:richtige\s+)?antwort\s+(?:ist|lautet)|la\s+respuesta\s+(?:correcta\s+)?es"
        r"|la\s+risposta\s+(?:corretta\s+)?è|a\s+resposta\s+(?:correta\s+)?é|het\s+(?:juiste\s+)?antwoord\s+is|ответ\s*(?:[:—–-]|такой))"
        r"|(?:答案|正解|答え|정답|답)(?:是|为|為|は|은|:|：)|الجواب\s+هو|الإجابة\s+هي|उत्तर\s+है"
    ),
    frozenset(
        """
        answer label verdict option choice classification réponse antwort respuesta risposta resposta antwoord
        """.split()  # noqa: SIM905
    ),
    unless_ascii=True,
)

_CANNOT = r"(?:can\s?not|can['’]?t|could\s?n['’]?t|could\s+not|won['’]?t|will\s+not|would\s+not|am\s+(?:unable|not\s+(?:able|allowed|permitted|comfortable))|['’]m\s+(?:unable|not\s+(?:able|allowed|permitted|comfortable))|must\s+(?:decline|refuse)|have\s+to\s+(?:decline|refuse)|decline|refuse|do\s+not\s+feel\s+comfortable|don['’]t\s+feel\s+comfortable)"
_HELPS = r"(?:assist|help|provide|answer|comply|fulfil+|generate|give|explain|complete|continue|engage|discuss|respond|do\s+(?:that|this)|support|create|write|produce|offer|process|justify|determine|access|browse|share|with\s+(?:that|this))"

# Apologies and limits of an assistant: one that speaks of itself, and not a person in the row's text.
_REFUSAL_ENGLISH = (
    r"(?<!\p{L})as\s+an?\s+(?:\w+\s+){0,2}(?:AI|A\.I\.|artificial\s+intelligence|language\s+model|LLM|chat\s?bot|(?:virtual|digital|automated)\s+assistant|assistant)(?!\p{L})",
    r"(?<!\p{L})I(?:['’]m|\s+am)\s+(?:just\s+|only\s+|merely\s+)?an?\s+(?:\w+\s+){0,2}(?:AI|language\s+model|LLM|chat\s?bot|virtual\s+assistant)(?!\p{L})",
    rf"(?:I['’]?m|I\s+am|we\s+are|my|our)\s+(?:\w+\s+){{0,2}}(?:sorry|apolog\w+|afraid|regret)[^.!?]{{0,40}}?(?<!\p{{L}})(?:I|we)\s?{_CANNOT}",
    r"(?<!\p{L})(?:I|we)\s+(?:sincerely\s+|do\s+|must\s+)?apologi[sz]e|(?<!\p{L})my\s+apologies",
    r"(?:^|[.!?]\s+)(?:I['’]m|I\s+am|we\s+are|we['’]re)?\s*(?:very\s+|so\s+|really\s+)?sorry[,.!]?\s+(?:but|I|we|this|that|about|for|,)",
    rf"(?<!\p{{L}})I\s?{_CANNOT}\s+(?:to\s+)?(?:\w+\s+){{0,2}}?{_HELPS}(?!\p{{L}})",
    r"(?<!\p{L})(?:I|we)\s+(?:do\s+not|don['’]t)\s+have\s+(?:\w+\s+){0,2}(?:information|context|access|ability|opinions?|beliefs|capabilit\w+|enough|permission)(?!\p{L})",
    r"(?:^|[.!?]\s+)(?:unable|not\s+able|not\s+possible\s+for\s+me)\s+to\s+(?:assist|help|comply|provide|fulfil+|answer|generate|complete)(?!\p{L})",
    r"(?<!\p{L})I\s+(?:do\s+not|don['’]t)\s+feel\s+comfortable|(?<!\p{L})I(?:['’]m|\s+am)\s+not\s+comfortable",
    r"(?<!\p{L})(?:no|an?)\s+explanation\s+(?:is|was)\s+(?:not\s+)?(?:possible|available|provided)",
    r"(?:this|that|your|the)\s+(?:request|content|prompt)\s+(?:violates|goes\s+against|is\s+against|cannot\s+be|can['’]t\s+be|is\s+(?:inappropriate|harmful))",
    r"(?:against|violat\w+)\s+(?:my|our|the)\s+(?:\w+\s+)?(?:guidelines|programming|polic(?:y|ies)|principles|values|terms)",
    r"(?<!\p{L})my\s+(?:training\s+data|knowledge\s+cut-?off|programming|guidelines|developers|creators)(?!\p{L})",
    r"(?<!\p{L})I\s+was\s+(?:trained|developed|created|designed)\s+by(?!\p{L})",
    r"please\s+(?:consult|seek|contact)\s+(?:with\s+)?(?:a|an)\s+(?:\w+\s+){0,2}(?:professional|expert|doctor|lawyer)",
    r"(?:could|can|would)\s+you\s+(?:please\s+)?(?:provide|clarify|share|give|rephrase|specify)|please\s+(?:provide|clarify|share|rephrase)\s+(?:me|more|the|your|a|additional|further)",
    r"(?:how|what)\s+(?:else\s+)?(?:can|may)\s+I\s+(?:help|assist)|(?:is\s+there\s+)?anything\s+else\s+I\s+can|I['’]?(?:d|\s+would)\s+be\s+happy\s+to\s+(?:help|assist)|let\s+me\s+know\s+if\s+you",
)
_REFUSAL_OTHERS = (
    r"en\s+tant\s+qu['’]\s?(?:IA(?!\p{L})|intelligence\s+artificielle|assistant|modèle)|je\s+(?:suis\s+désolée?|ne\s+peux\s+pas|ne\s+suis\s+pas\s+en\s+mesure)",
    r"(?<!\p{L})als\s+(?:KI(?!\p{L})|künstliche\s+intelligenz|sprachmodell|eine?\s+(?:KI(?!\p{L})|künstliche|sprachmodell))|(?<!\p{L})(?:tut\s+mir\s+leid|ich\s+kann\s+(?:\w+\s+){0,4}nicht|ich\s+bin\s+nicht\s+in\s+der\s+lage)",
    r"(?<!\p{L})como\s+(?:una?\s+)?(?:modelo\s+de\s+(?:lenguaje|linguagem)|IA(?!\p{L})|inteligencia\s+artificial|inteligência\s+artificial|asistente|assistente)|lo\s+siento|no\s+puedo\s+(?:ayudar|responder|proporcionar|cumplir|asistir)|não\s+posso\s+(?:ajudar|responder|fornecer)|(?<!\p{L})desculpe",
    r"(?<!\p{L})come\s+(?:modello\s+linguistico|IA(?!\p{L})|intelligenza\s+artificiale|assistente)|mi\s+dispiace|non\s+posso\s+(?:aiutare|rispondere|fornire)",
    r"(?<!\p{L})als\s+(?:AI(?!\p{L})|taalmodel|een\s+taalmodel)|het\s+spijt\s+me|ik\s+kan\s+(?:\w+\s+){0,3}niet\s+(?:helpen|beantwoorden)",
    r"(?<!\p{L})как\s+(?:ИИ(?!\p{L})|языковая\s+модель|искусственный\s+интеллект)|(?:извините|простите|к\s+сожалению),?\s+(?:но\s+)?я\s+не\s+мог|я\s+не\s+могу\s+(?:помочь|ответить|предоставить|выполнить)",
    r"作为(?:一个|一款|一名)?(?:人工智能|AI|语言模型|大?语言模型|助手)|(?:抱歉|对不起|很遗憾)，?(?:但)?我|我(?:无法|不能|没办法)(?:提供|回答|帮助|协助|满足|完成|解释)",
    r"(?:AI|人工知能|言語モデル)として|申し訳(?:ありません|ございません)|お(?:手伝い|答え)(?:することは)?でき(?:ません|かねます)",
    r"(?:AI|인공지능|언어\s*모델)로서|죄송(?:합니다|하지만)|(?:도와|답변|제공)[^.]{0,10}수\s*없습니다",
    r"عذر[اًا]|آسف|لا\s+(?:أستطيع|يمكنني)\s+(?:مساعد|تقديم|الإجابة)|كنموذج\s+لغوي",
)
REFUSAL = Phrases(
    regex.compile("(?i)" + "|".join((*_REFUSAL_ENGLISH, *_REFUSAL_OTHERS))),
    frozenset(
        """
        i i'm i'd im we we're my our ai llm assistant chatbot bot chat model intelligence sorry unable able request content
        prompt guidelines programming policy policies principles please you else possible suis peux tant leid kann bin ki
        sprachmodell siento puedo posso desculpe modelo ia dispiace modello spijt kan taalmodel
        """.split()  # noqa: SIM905
    ),
    unless_ascii=True,
)

_FIELDS = (
    r"passage|question|(?:final|gold|correct|candidate)?\s*answer|reasoning|explanation|rationale|premise|hypothesis|context|paragraph"
    r"|instructions?|task|input|output|(?:gold|correct)?\s*label|system|user|assistant|example(?:\s+\d+)?|response|text|statement\s+[A-Z]|claim|sentence\s+\d"
)
_ECHO = (
    rf"(?:^|(?<=[.!?\n>*#\]])\s*)[*#_\s]*(?:{_FIELDS})\**\s*:(?!\d)",
    r"\[?(?:END|START|BEGIN)(?:ING)?\s+OF\s+(?:THE\s+)?(?:REASONING|EXPLANATION|RATIONALE|PROMPT|TEXT)\]?(?!\s+\p{L})",
    r"</?(?:reason(?:ing)?|ans(?:wer)?|think|rationale|explanation|s|pad|eos|bos|unk)>|<\|\w+\|>|\[/?INST\]|<<SYS>>|#{2,}\s*(?:instruction|response|input|task|question|answer|reasoning)",
    r"is\s+the\s+(?:answer|hypothesis|claim|statement)\s+(?:correct|entailed\s+by\s+the\s+premise)[^.]{0,12}\b(?:yes\s+or\s+no|\?)|is\s+the\s+following\s+(?:claim|statement|sentence)\s+(?:true|false)\s+or|\byes\s+or\s+no\?",
    r"\b(?:\d+|two|three|one)\s*(?:to|-|–|and)\s*(?:\d+|four|five|three)\s+(?:short\s+)?sentences\b|in\s+(?:one|a\s+single)\s+(?:short\s+)?paragraph\b",
    r"\b(?:do\s+not|don['’]t|never|without|must\s+not|avoid|should\s+not)\s+(?:\w+\s+){0,3}?(?:nam(?:e|ing)|mention(?:ing)?|reveal(?:ing)?|stat(?:e|ing)|us(?:e|ing)|writ(?:e|ing)|say(?:ing)?|includ(?:e|ing)|repeat(?:ing)?|giv(?:e|ing))\s+(?:\w+\s+){0,3}?(?:label|labels|answer|verdict|synonyms?|yes\W+no|true\W+false|words?\s+(?:yes|no|true|false))\b",
    r"\b(?:write|give|provide|generate|produce|compose)\s+(?:me\s+)?(?:an?|the|your|one)\s+(?:\w+,?\s+){0,4}?(?:explanation|rationale|reasoning|justification|paragraph)\b",
    r"\b(?:explain|justify|describe|show|reason|think|justifies)\s+(?:\w+\s+){0,8}?step[\s-]by[\s-]step\b|\blet['’]?s\s+(?:think|reason|go|work|break)\b[^.]{0,30}\bstep\b",
    r"\b(?:explain|justify)\s+(?:briefly\s+|in\s+your\s+own\s+words\s+)?(?:why|how)\s+(?:the\s+)?(?:\w+\s+){0,2}?(?:label|answer)\b",
    r"\b(?:end|finish|close|conclude)\s+(?:the|your|with)\s+(?:\w+\s+){0,5}?(?:sentinel|marker|line|token|tag)\b|\bon\s+a\s+new\s+line\b",
    r"(?:^|(?<=[.!?\n])\s*)(?:sure|certainly|of\s+course|okay|absolutely)[,!.]?\s+(?:here|I|let)\b|\bhere(?:['’]s|\s+is|\s+are)\s+(?:an?|the|your|my)\s+(?:\w+\s+){0,5}?(?:explanation|rationale|reasoning|justification|answer|response)s?\b",
    r"\b(?:the\s+)?(?:gold|given|provided|correct|target|ground[\s-]truth)\s+label\b|\bthe\s+user\s+(?:wants|asks|asked|is\s+asking|has\s+asked)\b|\bas\s+(?:requested|instructed)\b|\b(?:follow|following)\s+(?:the|these)\s+instructions\b",
    r"\b(?:your\s+task\s+is|you\s+(?:are|will\s+be)\s+(?:an?\s+\w+\s+(?:assistant|teacher|model|annotator|expert)|given)|you\s+are\s+given|your\s+(?:explanation|reply|rationale|reasoning)\s+(?:must|should|has))\b",
    # What this package tells a teacher (prompt.py), in its own words.
    r"\b(?:right|correct)\s+label\b|\bwhy\s+this\s+label\b|\ban?\s+input,?\s+and\s+(?:the\s+)?labels?\b|\bfrom\s+what\s+the\s+input\s+says\b"
    r"|\bname\s+a\s+label\b|\bcome\s+to\s+the\s+label\b|\bthe\s+form\s+is\s+exactly\b|\blanguage\s+of\s+the\s+input\b|\blabel\s+on\s+a\s+line\b|\btext\s+classifier\b",
    r"\{(?:text|label|rationale|passage|question|answer|premise|hypothesis|paragraph)\}",
)
PROMPT_ECHO = Phrases(
    regex.compile("(?i)" + "|".join(_ECHO)),
    frozenset(
        """
        sentences paragraph step label labels answer verdict synonym synonyms explanation rationale reasoning
        justification justify instructions requested instructed task user line here here's correct entailed following sentinel
        marker given tag token no let let's you your input
        """.split()  # noqa: SIM905
    ),
    marks=":[<#{",
    unless_ascii=True,
)
