"""Invented rows whose rationales belong to them, and copies of a table in which some have changed places."""

import random


def made(count=60, seed=0):
    """Invented rows: each rationale speaks of its own row's rare word, and its wording of nothing else."""
    generator = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]
    ways = [
        "{} was seen at dusk by {}.",
        "Nobody but {} knows {}.",
        "In the end {} met {}.",
        "First came {}, then {}.",
    ]
    rows = []
    for number in range(count):
        one, two = ("".join(generator.choices(syllables, k=3)) for _ in range(2))
        rows.append(
            {
                "id": f"row-{number}",
                "text": f"Is it true that {one} was at the gate and did not meet {two}?",
                "label": generator.choice(["yes", "no"]),
                "rationale": generator.choice(ways).format(one.capitalize(), two),
            }
        )
    return rows


def shuffled(rows, share=1.0, seed=0):
    """Rationales moved within a share of the groups, none of which keeps its own."""
    groups = {}
    for row in rows:
        groups.setdefault(row.get("group", row["id"]), row["rationale"])
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    moved = names[: int(share * len(names))]
    now = dict(zip(moved, [groups[name] for name in moved[1:] + moved[:1]], strict=True))
    return [row | {"rationale": now.get(row.get("group", row["id"]), row["rationale"])} for row in rows]
