"""The verdict's page and its table: their numbers, their figures, escaped and self-contained, drawn by a real browser if there is one."""

import re
from html import unescape

import numpy as np
import pytest
from browser import needs_browser, shown, widths

from dhrd_hf.evaluation import evaluation_report
from dhrd_hf.pages import picture
from dhrd_hf.pages.verdict import (
    confident_mistakes,
    confusion,
    reliability_picture,
    shortened,
    verdict_lines,
    verdict_page,
    verdict_text,
)

EVIL = "<script>document.title='taken'</script>"
NAMES = ["entailment", EVIL, "a class that is never said, with a name that is long"]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 90, p=[0.5, 0.3, 0.2])
    logits = rng.normal(size=(90, 3)) + 2 * np.eye(3)[labels] - [0, 0, 9]
    return logits, labels, [f"text {place} {EVIL}" for place in range(90)]


@pytest.fixture(scope="module")
def report(rows):
    logits, labels, _ = rows
    others = {"commonest label": np.zeros(90, int), "as good": logits.argmax(-1), "perfect": labels}
    return evaluation_report(logits, labels, label_names=NAMES, others=others, temperature=1.5)


@pytest.fixture(scope="module")
def page(report, rows):
    logits, labels, texts = rows
    history = [
        {"step": it, "loss": 3 / it, "classification_loss": 1 / it, "reasoning_loss": 2 / it} for it in range(1, 999)
    ]
    history += [{"step": it, "eval_loss": 1.0, "eval_accuracy": 0.5} for it in (300, 600)] + [
        {"step": 998, "train_loss": 1.0}
    ]
    return verdict_page(
        report,
        title=f"run {EVIL}",
        data="dev.jsonl",
        mistakes=confident_mistakes(logits, labels, NAMES, texts),
        doubts=[{"row": 7, "label": "yes", "other": EVIL, "probability": 0.91, "text": EVIL}],
        history=history,
        cut=["3 of 90 texts were cut."],
    )


def test_the_table_is_the_report(report):
    lines = verdict_text(report).splitlines()
    metrics = report["metrics"]
    shown_ = "  ".join(
        "{value:.3f} [{low:.3f}, {high:.3f}]".format(**metrics[name]) for name in ("accuracy", "macro_f1")
    )
    assert re.sub(" +", " ", lines[1]) == re.sub(" +", " ", f"this classifier {shown_}")
    assert len(lines[0].split("accuracy")[0]) == len(lines[1].split("0.")[0])  # columns stand below each other
    assert lines[5:] == verdict_lines(report)


def test_the_verdict_says_what_the_intervals_do(report):
    better, unsure, worse, never = verdict_lines(report)
    assert better == "More accurate than commonest label."
    assert unsure.startswith("These 90 rows do not show whether it is more accurate than as good")
    assert worse == "LESS accurate than perfect."
    missed = sum(it["rows"] for it in report["classes"][2:])
    assert never == f"Never predicted: {NAMES[2]} ({missed} rows)."
    leads = {it["name"]: it["accuracy_lead"] for it in report["others"]}
    assert leads["commonest label"]["low"] > 0 > leads["perfect"]["high"] and leads["as good"]["value"] == 0


def test_the_page_has_the_numbers_and_the_figures(report, page):
    cells = [unescape(it) for it in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page, re.DOTALL)]
    for it in report["classes"]:
        place = cells.index(it["label"])
        assert cells[place + 1] == str(it["rows"]) and cells[place + 2].startswith(str(it["predicted"]))
        assert cells[place + 5] == f"{it['f1']:.3f}"
    assert page.count("<figure>") == 7  # beside others, matrix, classes, reliability, three losses
    for words in ("3 of 90 texts were cut.", "91.0%", "never</span>"):
        assert words in page
    drawn = confusion(report).body
    counts = [int(it) for it in re.findall(r'text-anchor="middle">(\d+)</text></g>', drawn)]
    assert counts == [count for line in report["confusion"] for count in line]
    bins = report["reliability"]["before"] + report["reliability"]["after"]
    titles = [int(it) for it in re.findall(r": (\d+) rows, sure to", reliability_picture(report).body)]
    assert titles == [point["rows"] for point in bins]


def test_curves_have_few_points_and_end_at_the_last(page):
    assert "classification_loss" in page and page.count('class="join"') < 4 * 260
    assert "training: 3 at 1, 0.003006 at 998" in page and "train_loss" not in page


def test_mistakes_are_the_surest_first(rows):
    logits, labels, texts = rows
    found = confident_mistakes(logits, labels, NAMES, texts)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wrong = [it for it in range(90) if shares[it].argmax() != labels[it]]
    assert [it["row"] for it in found] == sorted(wrong, key=lambda it: -shares[it].max())[:20]
    assert all(it["text"] == texts[it["row"]] and it["label"] != it["predicted"] for it in found)
    assert shortened("x" * 601).endswith("… (601 characters)") and shortened("x" * 600) == "x" * 600


def test_nothing_is_loaded_and_nothing_is_run(page, report):
    for text in (page, picture(reliability_picture(report))):
        assert "<script" not in text and "<img" not in text and "<link" not in text
        assert not re.search(r"(?:src|href)\s*=\s*[\"']?\s*(?:https?:|//)", text)
        assert "url(" not in text and "@import" not in text and "prefers-color-scheme: dark" in text
    assert "default-src 'none'" in page


def test_a_bare_report_has_a_page_too():
    several = evaluation_report(np.array([[1.0, -1], [-1, 1.0]]), np.array([[1, 0], [1, 1]]), label_names=["a", "b"])
    page = verdict_page(several, title="t", data="d")
    assert "Confusion" not in page and "Learning" not in page and "looks wrong" not in page and "None" not in page
    assert verdict_text(evaluation_report(np.array([[1.0], [2.0]]), np.array([1.5, 2.5]))).startswith("  ")


@needs_browser
def test_a_browser_shows_it_on_a_narrow_screen(page, tmp_path):
    document = shown(page, tmp_path)
    assert unescape(re.search(r"<title>(.*?)</title>", document, re.DOTALL)[1]) == f"run {EVIL}: is it any good?"
    assert document.count("<figure>") == page.count("<figure>")
    for width in (500, 1000):  # no wider than the screen: what is wide scrolls by itself
        assert widths(page, tmp_path, width) == (width, width)
