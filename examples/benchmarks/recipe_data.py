"""The rows on which the recipe is chosen: parts of the training files of three sets, that no table of results reads.

    python examples/benchmarks/recipe_data.py --data ../shared/data --output-dir runs/recipe-data

e-SNLI and ComVE: the 800 training rows that have a rationale of the teacher, and 500 others to choose by. CB has 250 training
rows in all: a fifth of them is to choose by.
"""

import argparse
import gzip
import json
from pathlib import Path

from sklearn.model_selection import train_test_split

from dhrd_hf.data.superglue import load_superglue
from dhrd_hf.files import write_whole

FIELDS = ("id", "text", "label", "rationale")


def read(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def with_rationales(data: Path, name: str) -> tuple[list[dict], list[dict]]:
    rows = read(data / name / "train.jsonl.gz")
    of_teacher = {row["key"]: row["rationale"] for row in read(data / name / "teacher_rationales.jsonl.gz")}
    train = [{**row, "rationale": of_teacher[row["id"]]} for row in rows if row["id"] in of_teacher]
    groups = {row["group"] for row in train}
    others = [row for row in rows[3000:] if row["group"] not in groups]
    return train, others[:500]


def of_superglue(data: Path, task: str) -> tuple[list[dict], list[dict]]:
    table = load_superglue(task, "train", source=data / "superglue", rationales=data / "superglue_rationales")
    rows = [{**row, "id": row.get("key") or f"{task}-{number}"} for number, row in enumerate(table)]
    return train_test_split(rows, test_size=0.2, random_state=0, stratify=[row["label"] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sets")
    parser.add_argument("--output-dir", type=Path, required=True)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in ("esnli", "comve", "cb"):
        parts = of_superglue(args.data, name) if name == "cb" else with_rationales(args.data, name)
        for split, rows in zip(("train", "choose"), parts, strict=True):
            lines = [json.dumps({field: row[field] for field in FIELDS if field in row}) for row in rows]
            write_whole(args.output_dir / f"{name}-{split}.jsonl", "\n".join(lines) + "\n")
            print(f"{name}-{split}: {len(rows)} rows")


if __name__ == "__main__":
    main()
