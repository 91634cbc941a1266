"""The seven SuperGLUE tasks in the paper's form: one prompt for all, labels by name, rationales joined by key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..files import did_you_mean
from .label_names import label_name
from .prompts import render
from .tables import iter_rows

if TYPE_CHECKING:
    import datasets

# Appendix E.2 of the paper.
SUPERGLUE_PROMPT = "Passage:\n{passage}\nQuestion:\n{question}\nAnswer:\n{answer}\nIs the answer correct Yes or No?"
_YES_NO = ("No", "Yes")
# In the order of the Hub's ClassLabel. The paper does not say how it reads CB's third class: it is kept.
SUPERGLUE_LABELS: dict[str, tuple[str, ...]] = {
    "boolq": _YES_NO,
    "cb": ("entailment", "contradiction", "neutral"),
    "copa": _YES_NO,
    "multirc": _YES_NO,
    "rte": ("entailment", "not_entailment"),
    "wic": _YES_NO,
    "wsc": _YES_NO,
}
_COLUMNS = ("id", "group", "text", "label", "rationale", "passage", "question", "answer")
_FILES = (".jsonl.gz", ".jsonl", ".parquet")
# Round brackets, asterisks and quotation marks occur in the sentences themselves; square brackets do not.
_MARK = "[{}]"


class _Item(NamedTuple):
    """A row of the prompt; `key` is its id behind the task's name, `group` that of the question it belongs to."""

    key: str
    group: str
    passage: str
    question: str
    answer: str
    label: str | None


def load_superglue(
    task: str,
    split: str = "train",
    source: str | Path = "super_glue",
    rationales: str | Path | None = None,
    *,
    revision: str | None = None,
) -> datasets.Dataset:
    """Load a SuperGLUE task, of the Hub or of a folder with `<task>/<split>.jsonl`, as rows of text, label and rationale.

    The text is [`SUPERGLUE_PROMPT`]: a candidate answer is right or not, and the label says which by `Yes` or `No`. CB and
    RTE keep their own labels, three and two. COPA has two rows a question, MultiRC one for each candidate answer; `group`
    tells the question. The word that WiC asks about, and the occurrence of the pronoun that WSC means, stand in `[ ]`.
    `rationales` are joined by `key`: a table, or a folder with `<task>.jsonl`. All columns are strings.
    """
    import datasets

    _check_task(task)
    rows = list(superglue_rows(task, _raw_rows(task, split, source, revision)))
    if rationales is not None:
        from .joining import join_rationales

        rows, _ = join_rationales(rows, _file_in(Path(rationales), task) or rationales, key="id", rationale_key="key")
    features = datasets.Features({name: datasets.Value("string") for name in _COLUMNS})
    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in _COLUMNS}, features=features)


def superglue_rows(task: str, raw: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, str | None]]:
    """Rows of SuperGLUE, as its files or the Hub's `super_glue` have them (there -1 is no label), in the paper's form."""
    _check_task(task)
    for number, row in enumerate(raw):
        try:
            for item in _READERS[task](row):
                yield {
                    "id": f"{task}-{item.key}",
                    "group": f"{task}-{item.group}",
                    "text": render(SUPERGLUE_PROMPT, item._asdict()),
                    "label": item.label,
                    "rationale": None,
                    "passage": item.passage,
                    "question": item.question,
                    "answer": item.answer,
                }
        except KeyError as error:
            fields = ", ".join(map(repr, row))
            raise ValueError(f"row {number} of {task} has no field {error}; it has {fields}") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"row {number} of {task} (idx {row.get('idx')}): {error}") from None


def _check_task(task: str) -> None:
    if task not in SUPERGLUE_LABELS:
        near = did_you_mean(str(task).lower(), SUPERGLUE_LABELS, quote="'") or "."
        raise ValueError(
            f"no task {task!r}{near} The paper's seven are {', '.join(SUPERGLUE_LABELS)}; it leaves ReCoRD out."
        )


def _raw_rows(task: str, split: str, source: str | Path, revision: str | None) -> Iterable[Mapping[str, Any]]:
    folder = Path(source).expanduser()
    if folder.is_dir():
        file = _file_in(folder / task, split)
        if file is None:
            there = sorted(entry.name for entry in (folder / task if (folder / task).is_dir() else folder).iterdir())
            raise ValueError(
                f"no {task}/{split}.jsonl (or .jsonl.gz, .parquet) in {folder}; there: {', '.join(there)}"
            )
        return iter_rows(file)
    if isinstance(source, Path) or folder.exists() or str(source).count("/") > 1:
        raise ValueError(f"{source} is no folder with {task}/{split}.jsonl in it, and no Hub data set")

    import datasets

    try:
        return datasets.load_dataset(str(source), task, split=split, revision=revision)
    # The Hub fails in many ways (network, access, unknown name or split), with as many exception classes.
    except Exception as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise ValueError(
            f"can't read {task}, split {split}, of {source} from the Hub: {reason}. A folder with {task}/{split}.jsonl "
            "will do as well: source=FOLDER."
        ) from error


def _file_in(folder: Path, stem: str) -> Path | None:
    return next((file for ending in _FILES if (file := folder / f"{stem}{ending}").is_file()), None)


def _choice(value: Any, names: tuple[str, ...]) -> int | None:
    """The number of a label given as a number, true or false, or a name; None where there is none."""
    spelt = (label_name(value) or "-1").lower()
    if spelt == "-1":
        return None
    known = {**{str(place): place for place in range(len(names))}, **{name: place for place, name in enumerate(names)}}
    known |= {"false": 0, "true": 1} if names == _YES_NO else {}
    folded = {name.lower(): place for name, place in known.items()}
    if spelt not in folded:
        raise ValueError(f"its label {value!r} is none of {', '.join(names)}")
    return folded[spelt]


def _name(value: Any, names: tuple[str, ...] = _YES_NO) -> str | None:
    place = _choice(value, names)
    return None if place is None else names[place]


def _boolq(row: Mapping[str, Any]) -> Iterator[_Item]:
    yield _Item(str(row["idx"]), str(row["idx"]), row["passage"], row["question"], "Yes", _name(row.get("label")))


def _entailment(row: Mapping[str, Any], task: str) -> Iterator[_Item]:
    question = f"Is the hypothesis entailed by the premise? {row['hypothesis']}"
    label = _name(row.get("label"), SUPERGLUE_LABELS[task])
    yield _Item(str(row["idx"]), str(row["idx"]), row["premise"], question, "Yes", label)


def _copa(row: Mapping[str, Any]) -> Iterator[_Item]:
    asked = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
    if row["question"] not in asked:
        raise ValueError(f"its question {row['question']!r} is neither cause nor effect")
    right = _choice(row.get("label"), ("choice1", "choice2"))
    for place, choice in enumerate((row["choice1"], row["choice2"])):
        label = None if right is None else _YES_NO[right == place]
        yield _Item(f"{row['idx']}-{place}", str(row["idx"]), row["premise"], asked[row["question"]], choice, label)


def _multirc(row: Mapping[str, Any]) -> Iterator[_Item]:
    if "paragraph" in row:  # the Hub's form: a row is one answer
        index = row["idx"]
        group = f"{index['paragraph']}-{index['question']}"
        label = _name(row.get("label"))
        yield _Item(f"{group}-{index['answer']}", group, row["paragraph"], row["question"], row["answer"], label)
        return
    passage = row["passage"]
    for question in passage["questions"]:
        group = f"{row['idx']}-{question['idx']}"
        for answer in question["answers"]:
            label = _name(answer.get("label"))
            yield _Item(
                f"{group}-{answer['idx']}", group, passage["text"], question["question"], answer["text"], label
            )


def _wic(row: Mapping[str, Any]) -> Iterator[_Item]:
    marked = []
    for sentence, start, end in (
        (row["sentence1"], row["start1"], row["end1"]),
        (row["sentence2"], row["start2"], row["end2"]),
    ):
        if not 0 <= start < end <= len(sentence):
            raise ValueError(f"the word is said to stand at {start} to {end} of {len(sentence)} characters")
        marked.append(sentence[:start] + _MARK.format(sentence[start:end]) + sentence[end:])
    question = f'Does the word "{row["word"]}" have the same meaning in both sentences?'
    yield _Item(str(row["idx"]), str(row["idx"]), "\n".join(marked), question, "Yes", _name(row.get("label")))


def _wsc(row: Mapping[str, Any]) -> Iterator[_Item]:
    target = row.get("target", row)  # the Hub's form has no "target"
    pronoun = target["span2_text"].strip()
    start, end = _occurrence(row["text"], pronoun, target["span2_index"])
    marked = row["text"][:start] + _MARK.format(row["text"][start:end]) + row["text"][end:]
    question = f'What does the pronoun "{_MARK.format(pronoun)}" refer to?'
    yield _Item(
        str(row["idx"]), str(row["idx"]), marked, question, target["span1_text"].strip(), _name(row.get("label"))
    )


def _occurrence(text: str, phrase: str, word_index: int) -> tuple[int, int]:
    """Where a phrase stands that begins in the given word of a text; of several places the nearest to it.

    A word, as SuperGLUE counts, is what stands between spaces, with its punctuation. Some of its numbers are off.
    """
    starts = [word.start() for word in re.finditer(r"\S+", text)]
    pattern = rf"(?<!\w){re.escape(phrase)}(?!\w)"
    found = [match.span() for match in re.finditer(pattern, text, re.IGNORECASE)]
    if not phrase or not found:
        raise ValueError(f"{phrase!r}, which it asks about, does not stand in the text")

    def distance(span: tuple[int, int]) -> int:
        return abs(sum(start <= span[0] for start in starts) - 1 - word_index)

    return min(found, key=distance)


_READERS: dict[str, Callable[[Mapping[str, Any]], Iterator[_Item]]] = {
    "boolq": _boolq,
    "cb": partial(_entailment, task="cb"),
    "copa": _copa,
    "multirc": _multirc,
    "rte": partial(_entailment, task="rte"),
    "wic": _wic,
    "wsc": _wsc,
}
