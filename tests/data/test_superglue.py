"""The seven tasks from hand-made rows in the files' and in the Hub's form, and the shared data."""

import gzip
import json
from collections import Counter
from pathlib import Path

import datasets
import pytest

from dhrd_hf.data.superglue import SUPERGLUE_LABELS, load_superglue, superglue_rows

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
LAST = "Is the answer correct Yes or No?"

# Invented rows as the files have them.
FILES = {
    "boolq": [
        {"question": "is a heron a bird", "passage": "Heron -- It wades and flies.", "idx": 4, "label": True},
        {"question": "is a kiln cold", "passage": "Kiln -- An oven for clay.", "idx": 7, "label": False},
    ],
    "cb": [
        {"premise": "Oto said he rows.", "hypothesis": "Oto rows", "label": name, "idx": n}
        for n, name in enumerate(SUPERGLUE_LABELS["cb"])
    ],
    "copa": [
        {
            "premise": "The lamp hums.",
            "choice1": "It is on.",
            "choice2": "It is blue.",
            "question": "cause",
            "label": 0,
            "idx": 2,
        },
        {
            "premise": "The cup fell.",
            "choice1": "It sang.",
            "choice2": "It broke.",
            "question": "effect",
            "label": 1,
            "idx": 3,
        },
    ],
    "multirc": [
        {
            "idx": 5,
            "version": 1.1,
            "passage": {
                "text": "Mira has two geese and a goat.",
                "questions": [
                    {
                        "question": "What has Mira?",
                        "idx": 30,
                        "answers": [
                            {"text": "A goat", "idx": 90, "label": 1},
                            {"text": "A cow", "idx": 91, "label": 0},
                        ],
                    },
                    {
                        "question": "How many geese?",
                        "idx": 31,
                        "answers": [{"text": "Two", "idx": 92, "label": 1}],
                    },
                ],
            },
        }
    ],
    "rte": [
        {"premise": "Pim sleeps.", "hypothesis": "Pim rests.", "label": name, "idx": n}
        for n, name in enumerate(SUPERGLUE_LABELS["rte"])
    ],
    "wic": [
        {
            "word": "bank",
            "sentence1": "The banks are open, banks say.",
            "sentence2": "A bank of reeds",
            "start1": 4,
            "end1": 9,
            "start2": 2,
            "end2": 6,
            "version": 1.1,
            "idx": 0,
            "label": False,
        }
    ],
    "wsc": [
        {
            "text": 'Sela told Ada that she ran, and she laughed: "Not her!" She left.',
            "target": {"span1_text": "Ada", "span1_index": 2, "span2_text": pronoun, "span2_index": place},
            "idx": n,
            "label": label,
        }
        for n, (pronoun, place, label) in enumerate([("she", 4, False), ("she", 7, True), ("her", 10, True)])
    ],
}


def hub_form(task, rows):
    """The same rows as the Hub's `super_glue` has them: labels as numbers of a ClassLabel, flat columns."""
    names = {
        "cb": list(SUPERGLUE_LABELS["cb"]),
        "rte": list(SUPERGLUE_LABELS["rte"]),
        "copa": ["choice1", "choice2"],
    }.get(task, ["False", "True"])
    flat = []
    for row in rows:
        if task == "multirc":
            flat += [
                {
                    "paragraph": row["passage"]["text"],
                    "question": question["question"],
                    "answer": answer["text"],
                    "idx": {"paragraph": row["idx"], "question": question["idx"], "answer": answer["idx"]},
                    "label": answer["label"],
                }
                for question in row["passage"]["questions"]
                for answer in question["answers"]
            ]
        else:
            row = {name: value for name, value in row.items() if name not in ("target", "version")} | row.get(
                "target", {}
            )
            flat.append(row | {"label": names.index(row["label"]) if task in ("cb", "rte") else int(row["label"])})
    return datasets.Dataset.from_list(flat).cast_column("label", datasets.ClassLabel(names=names))


@pytest.fixture
def folder(tmp_path):
    for task, rows in FILES.items():
        (tmp_path / task).mkdir()
        with gzip.open(tmp_path / task / "train.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return tmp_path


@pytest.mark.parametrize("task", FILES)
def test_files_and_hub_give_the_same_rows(task, folder, monkeypatch):
    asked = []

    def load_dataset(path, name, split, revision=None):
        asked.append((path, name, split))
        return datasets.DatasetDict({"train": hub_form(task, FILES[task])})[split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    mine, hub = load_superglue(task, source=folder), load_superglue(task)
    assert asked == [("super_glue", task, "train")]
    assert mine.features == hub.features
    assert mine.to_list() == hub.to_list()
    assert set(mine["label"]) <= set(SUPERGLUE_LABELS[task])
    assert all(text.startswith("Passage:\n") and text.endswith(f"\n{LAST}") for text in mine["text"])
    assert set(mine["rationale"]) == {None}
    unlabelled = hub_form(task, FILES[task]).map(lambda row: {"label": -1})  # as the Hub's test split
    assert {row["label"] for row in superglue_rows(task, unlabelled)} == {None}


def rows_of(task):
    return list(superglue_rows(task, FILES[task]))


def test_what_stands_where():
    first, second = rows_of("boolq")
    assert first["text"] == (
        f"Passage:\nHeron -- It wades and flies.\nQuestion:\nis a heron a bird\nAnswer:\nYes\n{LAST}"
    )
    assert (first["id"], first["label"], second["id"], second["label"]) == ("boolq-4", "Yes", "boolq-7", "No")
    assert [row["label"] for row in rows_of("cb")] == ["entailment", "contradiction", "neutral"]
    assert "Is the hypothesis entailed by the premise? Pim rests.\nAnswer:" in rows_of("rte")[1]["text"]
    assert [(row["id"], row["group"], row["answer"], row["label"]) for row in rows_of("copa")] == [
        ("copa-2-0", "copa-2", "It is on.", "Yes"),
        ("copa-2-1", "copa-2", "It is blue.", "No"),
        ("copa-3-0", "copa-3", "It sang.", "No"),
        ("copa-3-1", "copa-3", "It broke.", "Yes"),
    ]
    assert len({row["question"] for row in rows_of("copa")}) == 2
    assert [(row["id"], row["group"], row["label"]) for row in rows_of("multirc")] == [
        ("multirc-5-30-90", "multirc-5-30", "Yes"),
        ("multirc-5-30-91", "multirc-5-30", "No"),
        ("multirc-5-31-92", "multirc-5-31", "Yes"),
    ]
    assert rows_of("wic")[0]["passage"] == "The [banks] are open, banks say.\nA [bank] of reeds"


def test_the_meant_pronoun_is_marked_and_only_that():
    rows = rows_of("wsc")
    assert [row["passage"] for row in rows] == [
        'Sela told Ada that [she] ran, and she laughed: "Not her!" She left.',
        'Sela told Ada that she ran, and [she] laughed: "Not her!" She left.',
        'Sela told Ada that she ran, and she laughed: "Not [her]!" She left.',
    ]
    assert {row["answer"] for row in rows} == {"Ada"}


@pytest.mark.parametrize(
    ("index", "pronoun", "marked"),
    [
        (4, "it", "When it came, [it] saw its unit; it ran."),  # one word off: the nearest
        (9, "IT", "When it came, it saw its unit; [it] ran."),  # beyond the end, in another case
        (3, "came, it", "When it [came, it] saw its unit; it ran."),  # more than a word
    ],
)
def test_a_position_that_is_off(index, pronoun, marked):
    target = {"span1_text": "Wen", "span1_index": 0, "span2_text": pronoun, "span2_index": index}
    row = {"text": "When it came, it saw its unit; it ran.", "target": target, "idx": 0, "label": 1}
    assert next(superglue_rows("wsc", [row]))["passage"] == marked


def test_rationales_from_a_folder_or_a_file(folder, tmp_path):
    said = [{"key": "copa-3-1", "label": "Yes", "rationale": "Cups are brittle."}]
    path = tmp_path / "why" / "copa.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(said[0]) + "\n")
    for where in (path, path.parent, str(path)):
        rows = load_superglue("copa", source=folder, rationales=where)
        assert rows["rationale"][:] == [None, None, None, "Cups are brittle."]
    with pytest.raises(ValueError, match="0 of its 1 keys .* match the 2 keys"):
        load_superglue("boolq", source=folder, rationales=path)


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("boolq", {"label": "maybe"}, r"row 0 of boolq \(idx 4\): its label 'maybe' is none of No, Yes"),
        ("cb", {"label": 3}, "its label 3 is none of entailment"),
        ("copa", {"question": "why"}, "its question 'why' is neither cause nor effect"),
        ("wic", {"end1": 900}, "stand at 4 to 900 of 30 characters"),
    ],
)
def test_rows_that_make_no_sense(task, change, message):
    with pytest.raises(ValueError, match=message):
        list(superglue_rows(task, [FILES[task][0] | change]))


def test_a_field_or_a_pronoun_that_is_not_there():
    with pytest.raises(ValueError, match="row 0 of rte has no field 'hypothesis'; it has 'premise'"):
        list(superglue_rows("rte", [{"premise": "Pim sleeps.", "idx": 0}]))
    target = FILES["wsc"][0]["target"] | {"span2_text": "they"}
    with pytest.raises(ValueError, match="'they', which it asks about, does not stand in the text"):
        list(superglue_rows("wsc", [FILES["wsc"][0] | {"target": target}]))


def test_sources_that_are_not_there(folder, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'multirc'"):
        load_superglue("multi-rc", source=folder)
    with pytest.raises(ValueError, match="leaves ReCoRD out"):
        load_superglue("record", source=folder)
    with pytest.raises(ValueError, match="no cb/validation.jsonl .* there: train.jsonl.gz"):
        load_superglue("cb", "validation", source=folder)
    with pytest.raises(ValueError, match="no folder with cb/train.jsonl in it"):
        load_superglue("cb", source=tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="can't read cb, split train, of super_glue from the Hub.*source=FOLDER"):
        load_superglue("cb")  # the tests are offline


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_all_teacher_rationales_join():
    joined = Counter()
    for task, labels in SUPERGLUE_LABELS.items():
        for split in ("train", "validation"):
            rows = load_superglue(
                task,
                split,
                source=SHARED / "superglue",
                rationales=SHARED / "superglue_rationales" if split == "train" else None,
            )
            assert set(rows["label"]) == set(labels)
            assert len(set(rows["id"])) == len(rows)
            joined[task] += sum(rationale is not None for rationale in rows["rationale"])
    assert joined == {"boolq": 300, "cb": 250, "copa": 400, "multirc": 300, "rte": 400, "wic": 300, "wsc": 300}
    assert sum(joined.values()) == 2250


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
@pytest.mark.parametrize("split", ["train", "validation"])
def test_real_wsc_rows_with_equal_prompts_are_equal_rows(split):
    with gzip.open(SHARED / "superglue" / "wsc" / f"{split}.jsonl.gz", "rt") as file:
        raw = [json.loads(line) for line in file]
    seen = {}
    for row, made in zip(raw, superglue_rows("wsc", raw), strict=True):
        assert seen.setdefault(made["text"], row["target"]) == row["target"]
        words = row["text"].split()
        if words[row["target"]["span2_index"]].strip(".,;:!?\"'").lower() == row["target"]["span2_text"].lower():
            before = made["passage"].partition("[")[0]
            assert len(before.split()) == row["target"]["span2_index"]
