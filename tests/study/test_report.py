"""The tables of a study's report, against tables of cells worked out by hand."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import binomtest, ttest_1samp
from sklearn.metrics import log_loss

from dhrd_hf.pages.study import BEGIN, END, report_markdown, report_page, shown, signed, with_results
from dhrd_hf.pages.throughput import read_throughput
from dhrd_hf.study import groups
from dhrd_hf.study.groups import grouped
from dhrd_hf.study.intervals import noise, seeds_for, visible_gain
from dhrd_hf.study.plan import Run
from dhrd_hf.study.report import build_report
from dhrd_hf.study.results import read_results
from dhrd_hf.study.statistics import Pair, difference, paired_gains


def cell(data, setting, seed, right, of=4, **given):
    """A row of a cell that has the first `right` of its `of` test rows right."""
    labels = [place % 2 for place in range(of)]
    weights = {"pooled": (0.0, 1.0), "cot_decoding": (1.0, 0.0)}.get(setting, (1.0, 1.0))
    named = {"alpha": weights[0], "beta": weights[1], "classifier_head": "linear", "train_size": 100}
    named |= {name: given.pop(name) for name in list(given) if name in named}
    rest = {"study": "first", "model": "m", "status": "done", "error": None, "train_rows": named["train_size"]}
    rest |= {name: given.pop(name) for name in list(given) if name in rest}
    options = {"learning_rate": 2e-4, **given}
    return {
        **rest,
        **named,
        "cell": f"{data} {setting} {seed} {named} {options}",
        "data": data,
        "setting": setting,
        "seed": seed,
        "options": options,
        "eval_rows": of,
        "metric": "accuracy",
        "score": right / of,
        "labels": labels,
        "predictions": [label if place < right else 1 - label for place, label in enumerate(labels)],
        "groups": None,
        "train_seconds": 1800.0,
        "evaluate_seconds": 0.0,
        "versions": {"torch": "2.13.0"},
        "machine": "two cores",
    }


def failed(row):
    return {**row, "status": "failed", "error": "ValueError: no such option", "score": None, "labels": None}


# a: pooled 50% and 75%, dual head 75% and 100%. b, one seed: pooled 50%, dual head 40%.
MAIN = [
    cell("a", "pooled", 0, 2),
    cell("a", "pooled", 1, 3),
    cell("a", "dual_head", 0, 3),
    cell("a", "dual_head", 1, 4),
    cell("b", "pooled", 0, 5, 10),
    cell("b", "dual_head", 0, 4, 10),
]


def table(rows, name, **given):
    return next((it for it in build_report(rows, **given).tables if it.name == name), None)


def estimate(text):
    """The number before the interval, and the two in it."""
    numbers = [float(it) for it in re.findall(r"[-+](?:\d+\.\d+|inf)", text)]
    assert len(numbers) == 3 and "[" in text
    return numbers


def with_interval(gain):
    return f"{gain.gain:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]"


# Pooled against dual head


def test_main_table_by_hand():
    found = table(MAIN, "main")
    a, b, mean = found.rows
    # The deviation of 50 and 75 over two seeds is 25 / sqrt(2).
    assert a[:6] == ["a", "100 / 4", "2", "50.0", "62.5 ± 17.7", "87.5 ± 17.7"]
    assert estimate(a[6])[0] == 25 and estimate(a[7])[0] == 40
    assert b[:6] == ["b", "100 / 10", "1", "50.0", "50.0 ± –", "40.0 ± –"]
    assert estimate(b[6])[0] == -10 and estimate(b[7])[0] == -20
    assert [float(it) for it in mean[4:6]] == pytest.approx([56.25, 63.75], abs=0.051)
    assert mean[0] == "mean of 2" and estimate(mean[6])[0] == 7.5 and estimate(mean[7])[0] == 10
    # Means over the two sets: 56.25% and 63.75%.
    assert any(note.startswith("Relative gain of the macro averages: +13.3% [") for note in found.notes)
    assert "The interval of pooled reaches down to chance on a, b." in found.notes
    assert not any("lies below chance" in note for note in found.notes)
    assert "Where there is one seed (in b) the interval is over test items alone." in found.notes


def test_a_classifier_below_chance_is_not_said_to_reach_it():
    rows = [cell("a", "pooled", 0, 4, 40), cell("a", "dual_head", 0, 30, 40)]
    notes = table(rows, "main").notes
    assert "The interval of pooled lies below chance on a." in notes
    assert not any("reaches down to chance" in note for note in notes)


def test_gains_on_fewer_seeds_than_the_scores_are_told():
    said = "Gains are on the seeds that both sides have: where these differ, they are not those of the scores."
    one = [cell("a", setting, 0, 2) for setting in ("pooled", "dual_head", "label_only")]
    assert said not in table(one, "settings").notes
    assert said in table([*one, *(cell("a", it, 1, 2) for it in ("pooled", "dual_head"))], "settings").notes


def test_intervals_are_those_of_the_statistics():
    rights = {("pooled", 0): 20, ("pooled", 1): 30, ("dual_head", 0): 30, ("dual_head", 1): 40}
    rows = [cell("a", *setting_and_seed, right, 40) for setting_and_seed, right in rights.items()] + MAIN[4:]
    found = table(rows, "main")
    expected = {it.data: it for it in paired_gains(rows)}
    for row in found.rows[:2]:
        it = expected[row[0]]
        assert row[6] == with_interval(it)
        assert estimate(row[7])[1:] == pytest.approx([it.relative_low, it.relative_high], abs=0.051)
        point = next(point for point in found.plots[0].series[0].points if point.name.split()[0] == row[0])
        assert (point.value, point.low, point.high) == (it.relative, it.relative_low, it.relative_high)


def test_headline_says_the_mean_and_how_many_are_clear_of_zero():
    all_right = [cell("c", "pooled", 0, 0, 5), cell("c", "dual_head", 0, 5, 5)]
    one, other, pairs = build_report([*MAIN, *all_right[:1], cell("c", "dual_head", 0, 0, 5)]).headline
    assert one.startswith(
        "Mean relative gain of the dual head over pooled on 3 data sets (2 seeds on 1, 1 seed on 2): "
    )
    # An interval over items alone says nothing of runs.
    assert other.endswith("above zero on 0 of the 1 with several seeds, below zero on 0.")
    assert pairs == "Ahead in 2 of 4 pairs of runs with the same data, options and seed, level in 1, behind in 1."
    again = [cell("c", "pooled", 1, 0, 5), cell("c", "dual_head", 1, 5, 5)]
    report = build_report([*MAIN, *all_right, *again])
    assert report.headline[1].endswith("above zero on 1 of the 2 with several seeds, below zero on 0.")
    assert "on 3 data sets (2 seeds on 2, 1 seed on 1): " in report.headline[0]
    assert report.headline[0].endswith("interval over test items, and over seeds where there are several.")
    only, pairs = build_report(MAIN[:4]).headline
    assert pairs.startswith("Ahead in 2 of 2 pairs of runs") and len(build_report(MAIN[4:]).headline) == 1
    assert only.startswith("Relative gain of the dual head over pooled on a (2 seeds): +40.00% [")
    assert only.endswith("interval over seeds and test items.")
    assert "no gain to report" in build_report(MAIN[:2]).headline[0]


def test_a_data_set_that_is_not_in_the_mean_stands_below_it_and_in_every_other_table():
    # c has the rows of a, as one that people wrote other rationales for.
    rows = [{**it, "data": "c", "cell": f"c{it['cell']}"} for it in MAIN[:4]]
    rows += [cell("c", setting, 0, 1, train_size=1000) for setting in ("pooled", "dual_head")]
    report = build_report([*rows, *MAIN], not_in_mean=["c"])
    alone, found = build_report(MAIN), report.tables[0]
    assert report.headline == alone.headline
    assert found.rows[:3] == alone.tables[0].rows and found.rows[3][0] == "c"
    assert found.mean == alone.tables[0].mean == 2 and alone.tables[0].rows[2][0] == "mean of 2"
    assert [point.name for point in found.plots[0].series[0].points] == ["a", "b", "mean of 2", "c"]
    assert "Below the mean, and not in it: c." in found.notes and found.plots[0].title.endswith("not in the mean: c")
    tables = {it.name: it for it in report.tables}
    assert {row[0] for row in tables["train_size"].rows} == {"c"}
    assert [row[0] for row in tables["training"].rows] == ["c", "a", "b"]
    one = build_report([*rows, *MAIN[:4]], not_in_mean=["c"])
    assert [row[0] for row in one.tables[0].rows] == ["a", "c"] and one.tables[0].mean is None
    assert (
        "Beside a, of which the headline is: c." in one.tables[0].notes and "pooled on a (2 seeds)" in one.headline[0]
    )


def test_seeds_without_a_partner_are_left_out_and_counted():
    rows = [*MAIN, cell("a", "dual_head", 2, 0), cell("d", "pooled", 0, 1)]
    report = build_report(rows)
    assert report.tables[0].rows == table(MAIN, "main").rows
    assert report.counts == "8 cells done, 0 failed, 2 without one to be paired with."


def test_failed_and_repeated_cells():
    rows = [cell("a", "pooled", 0, 0), *MAIN, failed(cell("a", "pooled", 0, 0)), failed(cell("e", "pooled", 0, 0))]
    report = build_report(rows)
    # The later of two done rows counts, and a failed one does not undo it.
    assert report.tables[0].rows == table(MAIN, "main").rows
    expected = "6 cells done, 1 failed, 0 without one to be paired with; 1 stood twice, of which the later counts."
    assert report.counts == expected


def test_a_study_that_was_asked_for_keeps_its_cells_beside_a_later_one():
    later = [{**it, "study": "second", "score": 1.0, "predictions": it["labels"]} for it in MAIN[:1]]
    first = table([*MAIN, *later], "main", where={"study": "first"})
    assert first.rows == table(MAIN, "main").rows
    assert "stood twice" not in build_report([*MAIN, *later], where={"study": "first"}).counts


def test_pooled_cells_of_several_kinds_pair_with_the_one_that_has_most_seeds():
    odd = cell("c", "pooled", 0, 1, beta=0.5)
    rows = [odd] + [
        cell("c", setting, seed, right) for seed in (1, 2) for setting, right in (("pooled", 2), ("dual_head", 3))
    ]
    (found,) = [row for row in table(rows, "main").rows if row[0] == "c"]
    assert found[2] == "2" and estimate(found[6])[0] == 25


def test_sizes_are_compared_on_the_seeds_that_both_sides_have():
    rows = [cell("a", "dual_head", seed, 3, train_size=size) for seed in (0, 1) for size in (100, 1000)]
    rows += [cell("a", "pooled", 0, 1), cell("a", "pooled", 1, 2), cell("a", "pooled", 1, 2, train_size=1000)]
    found = table(rows, "train_size")
    assert [row[1:3] for row in found.rows] == [["100", "1"], ["1000", "1"]]
    assert "On the seeds that all values have; cells of other seeds left out: 2." in found.notes


def test_groups_are_counted_beside_rows():
    groups = {"groups": [place // 2 for place in range(40)]}
    rows = [{**cell("a", setting, 0, n, 40), **groups} for setting, n in (("pooled", 20), ("dual_head", 30))]
    assert table(rows, "main").rows[0][1] == "100 / 40"
    # Of 20 groups the dual head has 5 more right, whole: with 40 rows it would be narrower.
    own = ttest_1samp([100.0] * 5 + [0.0] * 15, 0).confidence_interval()
    assert estimate(table(rows, "main").rows[0][6]) == [25, round(own.low, 1), round(own.high, 1)]


def test_most_seeds_are_chosen_then_the_first_in_the_table():
    more = [cell("a", "dual_head", 0, 4, alpha=0.5)]
    assert table([*more, *MAIN], "main").rows[0][4:6] == ["62.5 ± 17.7", "87.5 ± 17.7"]
    more.append(cell("a", "dual_head", 1, 4, alpha=0.5))
    assert table([*MAIN, *more], "main").rows[0][5] == "87.5 ± 17.7"
    first = table([*more, *MAIN], "main")
    assert first.rows[0][5] == "100.0 ± 0.0"
    assert first.notes[:2] == ["a: alpha 0.5.", "b: alpha 1."]
    assert table([*more, *MAIN], "main", where={"alpha": "1.0"}).rows[0][5] == "87.5 ± 17.7"


def test_seeds_count_that_pooled_has_too():
    more = [cell("a", "dual_head", seed, 1, alpha=0.5) for seed in (1, 5, 6)]
    assert table([*more, *MAIN], "main").rows[0] == table(MAIN, "main").rows[0]


def test_where_leaves_the_option_that_a_table_is_about_alone():
    rows = [*MAIN, cell("a", "dual_head", 0, 4, alpha=0.5)]
    for where in ({"alpha": "1"}, {"alpha": "0.5"}):
        assert [row[1] for row in table(rows, "alpha", where=where).rows] == ["0.5", "1"]
    assert table(rows, "main", where={"alpha": "0.5"}).rows[0][:3] == ["a", "100 / 4", "1"]
    assert [row[0] for row in table(rows, "main", where={"data": "b"}).rows] == ["b"]
    assert [row[0] for row in table(rows, "main", where={"data!": "b"}).rows] == ["a"]
    assert [row[0] for row in table(rows, "main", where={"data": "b,a"}).rows] == ["a", "b", "mean of 2"]
    assert table(rows, "main", where={"alpha!": "1"}).rows[0][:3] == ["a", "100 / 4", "1"]
    assert table(rows, "main", where={"seed": "1"}).rows[0][4:6] == ["75.0 ± –", "100.0 ± –"]


# Ablations


def test_ablations_against_pooled_and_against_the_dual_head():
    rows = [
        *MAIN,
        cell("a", "shuffled_rationale", 0, 2),
        cell("a", "shuffled_rationale", 1, 1),
        cell("a", "label_only", 1, 4),
        cell("a", "cot_decoding", 0, 1, of=2),
    ]
    found = table(rows, "settings")
    assert [row[:4] for row in found.rows] == [
        ["a", "pooled", "2", "62.5 ± 17.7"],
        ["a", "dual head", "2", "87.5 ± 17.7"],
        ["a", "label only", "1", "100.0 ± –"],
        ["a", "shuffled rationale", "2", "37.5 ± 17.7"],
        ["a", "CoT decoding", "1", "50.0 ± –"],
    ]
    against_pooled = [row[4] for row in found.rows]
    against_dual = [row[5] for row in found.rows]
    # Label only has seed 1 alone, where pooled has 75% and the dual head all; of the two items that were decoded both
    # have both.
    assert [estimate(it)[0] for it in against_pooled[1:]] == [25, 25, -25, -50]
    assert [estimate(it)[0] for it in against_dual[2:]] == [0, -50, -50]
    assert against_pooled[0] == against_dual[0] == against_dual[1] == "–"
    assert "Tested on the first items alone, and compared on those: a, CoT decoding 2 of 4." in found.notes
    points = {point.name: point for point in found.plots[0].series[0].points}
    assert {name: point.value for name, point in points.items()} == {
        "dual head": 25,
        "label only": 25,
        "shuffled rationale": -25,
        "CoT decoding": -50,
    }
    assert points["CoT decoding"].kind == "cot_decoding"
    assert {name for name, point in points.items() if point.note == "(1 seed)"} == {"label only", "CoT decoding"}


def test_decoding_stands_beside_the_dual_head_that_was_trained_alike():
    rows = [*MAIN, cell("a", "dual_head", 0, 1, train_size=1000), cell("a", "cot_decoding", 0, 2, train_size=1000)]
    found = table(rows, "settings")
    assert [row[1:4] for row in found.rows] == [["dual head", "1", "25.0 ± –"], ["CoT decoding", "1", "50.0 ± –"]]


def test_what_was_decoded_is_told_where_the_cells_know_it():
    rows = [
        {**cell("a", "cot_decoding", seed, 1), "metrics": {"unreadable": seed / 4, "new_tokens": 40 + seed}}
        for seed in (0, 1)
    ]
    notes = table([*MAIN, *rows], "settings").notes
    assert "CoT decoding on a: 12.5% of the answers held no label; 40 tokens written a row." in notes
    notes = table([*MAIN, cell("a", "cot_decoding", 0, 1)], "settings").notes
    assert not any("CoT decoding" in note for note in notes)


def test_decoding_stands_beside_ablations_only_if_it_was_trained_as_they_were():
    rows = [*MAIN, cell("a", "label_only", 0, 2), cell("a", "cot_decoding", 0, 2, train_size=1000)]
    assert [row[1] for row in table(rows, "settings").rows] == ["pooled", "dual head", "label only"]
    rows[-1] = cell("a", "cot_decoding", 0, 2)
    assert [row[1] for row in table(rows, "settings").rows][-1] == "CoT decoding"


def test_ablations_stand_beside_the_dual_head_with_the_same_options():
    rows = [*MAIN, cell("a", "dual_head", 0, 1, alpha=0.5), cell("a", "label_only", 0, 2, alpha=0.5)]
    found = table(rows, "settings")
    assert [row[1:4] for row in found.rows[1:]] == [["dual head", "1", "25.0 ± –"], ["label only", "1", "50.0 ± –"]]
    assert estimate(found.rows[2][5])[0] == 25
    assert "Options: alpha 0.5." in found.notes


# Options


def test_alphas_share_their_pooled_cells():
    rows = [*MAIN, cell("a", "dual_head", 0, 4, alpha="auto"), cell("a", "dual_head", 0, 1, alpha=0.25)]
    found = table(rows, "alpha")
    assert [row[:5] for row in found.rows] == [
        ["a", "0.25", "1", "50.0 ± –", "25.0 ± –"],
        ["a", "1", "1", "50.0 ± –", "75.0 ± –"],  # its second seed was better by as much as any weight
        ["a", "auto", "1", "50.0 ± –", "100.0 ± –"],
    ]
    assert "On the seeds that all values have; cells of other seeds left out: 1." in found.notes
    apart = [it for it in rows if it["alpha"] != 1 or it["seed"]]  # no seed that all have: each on its own
    assert [row[2:5] for row in table(apart, "alpha").rows][1] == ["1", "75.0 ± –", "100.0 ± –"]
    assert [estimate(row[5])[0] for row in found.rows] == [-25, 25, 50]
    assert [point.x for point in found.plots[0].series[0].points] == [0.25, 1.0, None]
    assert {point.note for point in found.plots[0].series[0].points} == {"(1 seed)"}


def test_pooled_has_no_row_of_its_own_among_alphas_and_has_one_among_what_it_is_trained_with():
    rows = [*MAIN, cell("a", "dual_head", 0, 4, alpha=2.0), cell("a", "pooled", 0, 1, beta=0.5)]
    assert [row[1] for row in table(rows, "alpha").rows] == ["1", "2"]
    said = "Default is what dhrd train takes where the option is not given (dhrd train --help-all)."
    assert said not in table(rows, "alpha").notes
    sizes = table([*MAIN, cell("a", "pooled", 0, 1, train_size=None)], "train_size")
    assert [row[1] for row in sizes.rows] == ["100", "all"] and said not in sizes.notes
    found = table([*MAIN, cell("a", "dual_head", 0, 4, reasoning_span="rationale")], "options")
    assert [row[2] for row in found.rows] == ["default", "rationale"] and said in found.notes


def test_train_sizes_and_heads_each_have_their_own_pooled_cells():
    rows = [
        *MAIN,
        cell("a", "pooled", 0, 1, train_size=1000),
        cell("a", "dual_head", 0, 3, train_size=1000),
        cell("a", "pooled", 0, 4, train_size=50),
        cell("b", "pooled", 0, 9, 10, classifier_head="mlp"),
        cell("b", "dual_head", 0, 10, 10, classifier_head="mlp"),
    ]
    sizes = table(rows, "train_size")
    assert [row[1:5] for row in sizes.rows] == [
        ["50", "1", "100.0 ± –", "–"],
        ["100", "1", "50.0 ± –", "75.0 ± –"],
        ["1000", "1", "25.0 ± –", "75.0 ± –"],
    ]
    assert sizes.rows[0][5] == "–" and estimate(sizes.rows[2][5])[0] == 50
    curves = {it.kind: [(point.x, point.value) for point in it.points] for it in sizes.plots[0].series}
    assert curves == {"pooled": [(50, 100), (100, 50), (1000, 25)], "dual_head": [(100, 75), (1000, 75)]}
    heads = table(rows, "classifier_head")
    assert [row[1:5] for row in heads.rows] == [
        ["linear", "1", "50.0 ± –", "40.0 ± –"],
        ["mlp", "1", "90.0 ± –", "100.0 ± –"],
    ]


def test_options_of_the_reasoning_loss_do_not_unpair_and_others_do():
    rows = [
        *MAIN,
        cell("a", "dual_head", 0, 4, reasoning_span="rationale"),
        cell("a", "dual_head", 0, 0, learning_rate=1e-3),
    ]
    report = build_report(rows)
    found = next(it for it in report.tables if it.name == "options")
    values = {(row[1], row[2]): row[3:] for row in found.rows}
    assert values["reasoning span", "rationale"][1:3] == ["50.0 ± –", "100.0 ± –"]
    assert estimate(values["reasoning span", "rationale"][3])[0] == 50
    assert values["learning rate", "0.001"] == ["1", "–", "0.0 ± –", "–"]
    assert values["learning rate", "0.0002"][:3] == ["1", "50.0 ± –", "75.0 ± –"]
    assert "1 without one to be paired with" in report.counts
    assert [plot.title for plot in found.plots] == ["a: learning rate", "a: reasoning span"]


def test_every_kind_of_cell_stands_in_some_table():
    odd = cell("a", "dual_head", 0, 1, reasoning_span="rationale", alpha_schedule="linear", alpha=0.3)
    rows = [*MAIN, odd, cell("z", "pooled", 0, 3)]
    (paired,) = table(rows, "recipes").rows
    assert paired[:2] + paired[3:6] == ["a", "dual head", "1", "50.0 ± –", "25.0 ± –"]
    assert "alpha 0.3" in paired[2] and "reasoning_span rationale" in paired[2]
    assert estimate(paired[6])[0] == -25
    found = table(rows, "others")
    assert [row[:2] + row[3:5] for row in found.rows] == [["z", "pooled", "1", "75.0 ± –"]]
    assert found.folded and table(MAIN, "others") is None and table(MAIN, "recipes") is None
    assert not table(MAIN[:2], "others").folded  # all that there is


# Costs


def test_training_costs_by_hand():
    took = {
        ("pooled", 0): (100, 1000),
        ("dual_head", 0): (200, 3000),
        ("pooled", 1): (200, 1000),
        ("dual_head", 1): (300, 2000),
    }
    rows = [
        {
            **it,
            "train_seconds": took[it["setting"], it["seed"]][0],
            "peak_memory_mb": took[it["setting"], it["seed"]][1],
        }
        for it in MAIN[:4]
    ]
    found = table([*rows, *MAIN[4:]], "training")
    # Twice and 1.5 times as long; three times and twice the memory. Of b no memory was measured.
    assert found.rows == [
        ["a", "2", "150", "250", "1.75 (1.50 to 2.00)", "1,000", "2,500", "2.50 (2.00 to 3.00)"],
        ["b", "1", "1,800", "1,800", "1.00", "–", "–", "–"],
    ]
    assert table([{**it, "train_seconds": None} for it in MAIN], "training") is None


def test_of_three_ratios_of_times_the_middle_one_is_told():
    took = [("pooled", (100, 100, 100)), ("dual_head", (900, 100, 200))]
    rows = [
        {**cell("a", it, seed, 2), "train_seconds": seconds} for it, its in took for seed, seconds in enumerate(its)
    ]
    assert table(rows, "training").rows[0][2:5] == ["100", "400", "2.00 (1.00 to 9.00)"]


def test_the_times_of_resumed_cells_are_left_out():
    rows = [{**it, "resumed": True, "train_seconds": 1.0} if place == 2 else it for place, it in enumerate(MAIN)]
    report = build_report(rows)
    found = next(it for it in report.tables if it.name == "training")
    assert [row[:5] for row in found.rows] == [
        ["a", "1", "1,800", "1,800", "1.00"],
        ["b", "1", "1,800", "1,800", "1.00"],
    ]
    assert "Pairs left out because a run was resumed, of which the last part alone was timed: 1." in found.notes
    # Five cells of half an hour.
    said = "2.5 hours of training and evaluation, without the 1 resumed, of which the last part alone was timed."
    assert said in report.notes
    assert not any("resumed" in note for note in [*table(MAIN, "training").notes, *build_report(MAIN).notes])
    assert table([{**it, "resumed": True} for it in MAIN], "training") is None


def measured(engine, batch_size, speed, accuracy=0.5, rows=10, ordered=True):
    ratio = speed / (10.0 * batch_size)
    spread = {
        "low": 0.9 * speed,
        "high": 1.1 * speed,
        "ratio": ratio,
        "ratio_low": 0.8 * ratio,
        "ratio_high": 1.25 * ratio,
    }
    tokens = {"unreadable": 3, "new_tokens_per_row": 120.4} if engine == "cot" else {}
    tokens["tokenization"] = "included" if engine == "pipeline" else "apart"
    about = {"engine": engine, "batch_size": batch_size, "sorted": ordered, "accuracy": accuracy, "rows": rows}
    return {**about, "samples_per_second": speed, **spread, **tokens}


THROUGHPUT = {
    "model": "run",
    "data": "dev.jsonl",
    "rounds": 3,
    "repeats": 3,
    "complete": True,
    "machine": "two cores",
    "rows": [
        measured("torch", 1, 10.0),
        measured("torch", 8, 80.0),
        measured("torch", 8, 70.0, ordered=False),
        measured("cot", 1, 0.1, accuracy=0.4),
        measured("cot", 8, 0.5, accuracy=None),
    ],
}


def test_throughput_by_hand():
    found = table(MAIN, "throughput", throughput=THROUGHPUT)
    low, high = (100 * it for it in binomtest(5, 10).proportion_ci(method="wilson"))
    assert [row[:4] for row in found.rows] == [
        ["classification head", "1", "10 (9 to 11)", "–"],
        ["classification head", "8", "80 (72 to 88)", "–"],
        ["CoT decoding", "1", "0.1 (0.09 to 0.11)", "1/100 (1/125 to 1/80)"],
        ["CoT decoding", "8", "0.5 (0.45 to 0.55)", "1/160 (1/200 to 1/128)"],
    ]
    assert found.rows[0][4:] == [f"50.0 [{low:.1f}, {high:.1f}]", "10"] and found.rows[3][4] == "–"
    assert "CoT decoding wrote 120 tokens a row; 3 of 10 answers held no label." in found.notes
    assert not any("Tokenisation" in note for note in found.notes)
    assert not any("compare intervals" in note for note in found.notes)
    fewer = {**THROUGHPUT, "rows": [*THROUGHPUT["rows"], measured("cot", 4, 5.0, rows=4)]}
    notes = table(MAIN, "throughput", throughput=fewer).notes
    assert any(it.startswith("Accuracy is of the first 10 or 4 rows: compare intervals, not numbers.") for it in notes)
    on = {"device": "cpu", "threads": 2}
    rows = [{**it, **on, "dtype": "float32"} for it in THROUGHPUT["rows"]]
    notes = table(MAIN, "throughput", throughput={**THROUGHPUT, "rows": rows}).notes
    assert "All in float32 on cpu, 2 threads." in notes
    rows.append({**measured("onnx", 8, 90.0), **on, "dtype": "int8"})
    notes = table(MAIN, "throughput", throughput={**THROUGHPUT, "rows": rows}).notes
    said = (
        "classification head, CoT decoding: float32 on cpu, 2 threads; exported, ONNX Runtime: int8 on cpu, 2 threads."
    )
    assert said in notes
    whole = {**THROUGHPUT, "rows": [*THROUGHPUT["rows"], measured("pipeline", 1, 5.0)]}
    assert (
        "Tokenisation is part of exported, pipeline, and apart from the others."
        in table(MAIN, "throughput", throughput=whole).notes
    )
    # Each way with its fastest batch size; what has no accuracy has no place.
    assert [(it.name, it.points[0].x, it.points[0].value) for it in found.plots[0].series] == [
        ("classification head", 80, 50)
    ]


def test_the_fastest_batch_size_and_the_rows_in_the_order_of_the_first_are_shown():
    rows = [measured("torch", 1, 90.0), measured("torch", 8, 80.0), measured("cot", 1, 5.0, ordered=False)]
    found = table(MAIN, "throughput", throughput={**THROUGHPUT, "rows": rows})
    assert [row[:2] for row in found.rows] == [["classification head", "1"], ["classification head", "8"]]
    assert [it.points[0].x for it in found.plots[0].series] == [90]
    assert found.notes[0] == "run on dev.jsonl; medians of 3 rounds (slowest to fastest), rows sorted by length."


def test_an_interrupted_measurement_is_told():
    found = table(MAIN, "throughput", throughput={**THROUGHPUT, "complete": False, "rounds": 1})
    assert "It was interrupted: 3 rounds were asked for." in found.notes


# The text


def test_what_was_not_run_is_said():
    notes = " ".join(build_report(MAIN).notes)
    for name in (
        "label only",
        "shuffled rationale",
        "CoT decoding",
        "several alphas",
        "several train sizes",
        "throughput",
    ):
        assert name in notes.split("Not run: ")[1]
    rows = [*MAIN, cell("a", "label_only", 0, 1), cell("a", "dual_head", 0, 1, alpha=2.0)]
    notes = " ".join(build_report(rows, throughput=THROUGHPUT).notes)
    assert "label only" not in notes and "several alphas" not in notes and "throughput" not in notes


def test_cells_of_the_plan_that_have_not_run_are_counted():
    def planned(data, setting, seed):
        return Run(data=data, setting=setting, seed=seed, train_size=100, model="m", options={})

    plan = [
        planned(*it) for it in (("a", "pooled", 0), ("a", "label_only", 0), ("a", "label_only", 1), ("b", "pooled", 3))
    ]
    rows = [*MAIN, {**cell("a", "pooled", 0, 1), "cell": plan[0].id}]
    said = "Of the 4 cells of the plan 3 have not run yet: a (2 label only), b (1 pooled)."
    assert said in build_report(rows, planned=plan).notes
    assert not any("of the plan" in note for note in build_report(rows, planned=plan[:1]).notes)


def test_what_was_run_and_is_left_out_here_was_run():
    rows = [*MAIN, cell("c", "pooled", 0, 1), cell("c", "label_only", 0, 1)]
    rows += [cell("c", setting, 0, 1, train_size=size) for size in (50, 100) for setting in ("pooled", "dual_head")]
    report = build_report(rows, where={"data!": "c"})
    (missing,) = [note for note in report.notes if note.startswith("Not run: ")]
    assert "several train sizes" not in missing and "label only" not in missing and "several alphas" in missing
    assert "c" not in {row[0] for it in report.tables for row in it.rows}


def test_where_the_numbers_come_from():
    notes = " ".join(build_report(MAIN).notes)
    assert "Model m; all cells: beta 1, classifier_head linear, train_size 100, learning_rate 0.0002" in notes.replace(
        "alpha 1, ", ""
    )
    assert "3.0 hours of training" in notes and "Machine: two cores." in notes and "torch 2.13.0" in notes
    other = {**cell("q", "pooled", 0, 1), "study": "second", "versions": {"torch": "2.14.0"}}
    notes = " ".join(build_report([*MAIN, other]).notes)
    assert "Cells of 2 studies: first, second." in notes and "torch 2.13.0 and 2.14.0" in notes


def test_markdown_has_the_cells_of_every_table():
    rows = [*MAIN, cell("a", "label_only", 0, 1), cell("a", "dual_head", 0, 1, alpha=2.0)]
    report = build_report(rows, throughput=THROUGHPUT, commands=["dhrd study first.yaml"])
    markdown = report_markdown(report)
    for it in report.tables:
        for row in it.rows:
            assert f"| {' | '.join(row)} |" in markdown
    assert markdown.count("### ") == sum(not it.folded for it in report.tables)
    assert "```bash\ndhrd study first.yaml\n```" in markdown
    # Each line of a table has as many bars as its head.
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_markup_in_names_is_escaped():
    evil = "<b>|x`*[y](http://z)"
    rows = [cell(evil, "pooled", 0, 2), cell(evil, "dual_head", 0, 3)]
    markdown = report_markdown(build_report(rows))
    assert "| &lt;b&gt;\\|x\\`\\*[y]\\(http://z) |" in markdown
    assert "<b>" not in markdown and evil not in markdown


def test_results_replace_what_stands_between_the_markers():
    readme = f"# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n"
    once = with_results(readme, "new\n")
    assert once == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nrest\n"
    assert with_results(once, "new\n") == once
    for broken in ("# Title\n", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", readme + readme):
        with pytest.raises(ValueError, match="expected one line <!-- study:begin -->"):
            with_results(broken, "new")


# Bad input


@pytest.mark.parametrize(
    ("rows", "where", "message"),
    [
        ([], {}, "no rows"),
        ([failed(MAIN[0])], {}, "all 1 cells failed, the first with: ValueError: no such option"),
        ([*MAIN, {**MAIN[0], "model": "n"}], {}, "2 models .m, n.: say which with --where model=m"),
        (MAIN, {"alhpa": "1"}, "there is no 'alhpa'. There are study, model, data, seed, alpha, beta"),
        (MAIN, {"data!": "a,b"}, "--where data!=a,b: no cell has it. There are a, b$"),
        (MAIN, {"alpha": "3"}, "--where alpha=3: no cell has it. There are 1$"),
        (MAIN, {"data": "b", "seed": "1"}, "no cell has data=b and seed=1"),
    ],
)
def test_what_makes_no_report_is_one_clear_line(rows, where, message):
    with pytest.raises(ValueError, match=message) as raised:
        build_report(rows, where=where)
    assert "\n" not in str(raised.value)


def test_a_pair_that_can_not_be_compared_is_told_and_ends_nothing():
    odd = [cell("c", "pooled", 0, 2), {**cell("c", "dual_head", 0, 3), "labels": [1, 1, 1, 1], "score": 0.5}]
    report = build_report([*MAIN, *odd, cell("c", "dual_head", 0, 3, alpha=0.5)], where={"alpha": "1"})
    said = (
        f"Not compared: runs {odd[1]['cell']} and {odd[0]['cell']} of c were tested on other rows or by another metric"
    )
    assert any(note.startswith(said) for note in report.notes)
    assert report.tables[0].rows == table(MAIN, "main").rows
    assert not any("Not compared" in note for note in build_report(MAIN).notes)
    # Nor do seeds of a setting that were tested on other rows.
    other = {"labels": [1, 1, 1, 1], "score": 0.5}
    lone = [cell("d", "pooled", 0, 2), {**cell("d", "pooled", 1, 2), **other}]
    odd = [{**it, **other} if it["seed"] == 1 else it for it in MAIN[:4]]
    report = build_report(
        [*odd, *MAIN[4:], *lone, cell("a", "label_only", 1, 2), cell("a", "dual_head", 1, 2, alpha=2.0)]
    )
    assert [row[0] for row in report.tables[0].rows] == ["b"] and "Not compared: runs a dual_head 0" in " ".join(
        report.notes
    )
    (others,) = [it for it in report.tables if it.name == "others"]
    assert others.rows[0][-1] == "–" and others.notes[0].startswith("Not compared: runs d pooled 0")
    # A setting of which the seeds can't be averaged has no score, and not that of pooled.
    odd = [{**cell("a", "label_only", seed, 2, alpha=9.0), **(other if seed else {})} for seed in (0, 1)]
    (row,) = table([*MAIN, *odd, *(cell("a", "label_only", it, 1) for it in (0, 1, 2))], "others").rows
    assert row[:2] == ["a", "label only"] and row[-1] == "–"


def test_a_baseline_of_zero_and_a_single_test_item_end_nothing():
    zero = [cell("c", "pooled", 0, 0), cell("c", "dual_head", 0, 2)]
    found = table([*MAIN, *zero], "main")
    assert found.rows[2][6].startswith("+50.0 [") and found.rows[2][7] == "–"
    assert found.rows[3][6].startswith("+21.7 [") and found.rows[3][7] == "–"
    assert "Over a baseline of 0 (in c) there is no relative gain, nor a mean with it." in found.notes
    one = [cell("c", "pooled", 0, 0, of=1), cell("c", "dual_head", 0, 1, of=1)]
    report = build_report([*MAIN, *one])
    found, alone = report.tables[0], table(MAIN, "main")
    assert found.rows[:3] == alone.rows and found.rows[3][6] == "+100.0 [–, –]"
    assert "One test item (in c) has no interval." in found.notes
    assert "Below the mean, and not in it: c." in found.notes
    assert "–" in " ".join(build_report(one).headline) and report_markdown(build_report(one))
    both = [*one, *({**it, "data": "d"} for it in one)]
    assert [row[0] for row in table(both, "main").rows] == ["c", "d", "mean of 2"]


def test_plots_leave_out_what_has_no_interval():
    one = [cell("c", setting, 0, 1, of=1) for setting in ("pooled", "dual_head", "label_only")]
    one += [cell("c", "dual_head", 0, 1, of=1, alpha=2.0), cell("c", "pooled", 0, 0, of=1, train_size=9)]
    found = build_report([*one, *MAIN, cell("a", "dual_head", 0, 4, alpha=2.0)])
    assert {row[0] for row in next(it for it in found.tables if it.name == "alpha").rows} == {"a", "c"}
    of_c = [plot.title for it in found.tables for plot in it.plots if plot.title == "c"]
    assert not of_c and report_page(found).count("<figure>") == sum(len(it.plots) for it in found.tables) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["humna"], "--not-in-mean humna: there is no data set 'humna': did you mean 'human'.$"),
        (["a", "zzz"], "--not-in-mean zzz: there is no data set 'zzz'. There are a, b, human$"),
        (["a", "b", "human"], "--not-in-mean a,b,human leaves no data set for the mean: name fewer"),
    ],
)
def test_what_can_not_be_left_out_of_the_mean_is_one_clear_line(names, message):
    rows = [*MAIN, cell("human", "pooled", 0, 1), cell("human", "dual_head", 0, 2)]
    with pytest.raises(ValueError, match=message):
        build_report(rows, not_in_mean=names)


def test_one_model_of_two_can_be_asked_for():
    rows = [*MAIN, *({**row, "model": "n", "predictions": row["labels"], "score": 1.0} for row in MAIN)]
    assert table(rows, "main", where={"model": "m"}).rows == table(MAIN, "main").rows
    assert table(rows, "main", where={"model": "n"}).rows[0][4:6] == ["100.0 ± 0.0", "100.0 ± 0.0"]


def test_tables_are_read_in_their_order_and_a_torn_line_is_told(tmp_path):
    one, two, said = tmp_path / "one.jsonl", tmp_path / "two.jsonl", []
    one.write_text(json.dumps(MAIN[0]) + "\n" + json.dumps(MAIN[1])[:-40])
    two.write_text(json.dumps(MAIN[2]) + "\n" + json.dumps({**MAIN[3], "study": "second"}))
    assert [row["cell"] for row in read_results([one, two], said.append)] == [MAIN[it]["cell"] for it in (0, 2, 3)]
    assert said == [
        f"{one}: its last line is only half there and is left out.",
        f"{two} has cells of 2 studies (first, second): --where study=first takes one.",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows yet"),
        ("{\n" + json.dumps(MAIN[0]) + "\n", "line 1 is not a row of a study"),
        (json.dumps(MAIN[0]) + "\n{\n", "line 2 is not a row of a study"),
        ("[1]\n", "line 1 is not a row of a study: it lacks study, cell"),
        (json.dumps({**MAIN[0], "labels": None}).replace('"labels"', '"x"') + "\n", "line 1 .* it lacks labels"),
        *(
            (
                json.dumps({**MAIN[0], **wrong}) + "\n",
                rf"line 1 \(cell a pooled 0 .* {message}: it is not what dhrd study",
            )
            for wrong, message in (
                ({"labels": None}, "has labels that are not a list of whole numbers"),
                ({"predictions": [1]}, "has 1 predictions of 4 rows"),
                ({"groups": [0, 1]}, "has 2 groups of 4 rows"),
                ({"labels": [], "predictions": []}, "has no labels"),
                ({"metric": "f3"}, "has the metric 'f3', and not one of accuracy, .*"),
                ({"metric": "question_accuracy"}, "has no groups, which question_accuracy is of"),
                ({"status": "DONE"}, "has the status 'DONE', and not done or failed"),
                ({"score": None}, "has the score None, and its predictions have 0.500000"),
                ({"score": 0.9}, "has the score 0.9, and its predictions have 0.500000"),
                ({"score": 0.5 + 1e-6}, "has the score 0.500001, and its predictions have 0.500000"),
            )
        ),
    ],
)
def test_a_file_that_is_no_table_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_results([path])


def test_throughput_is_read_or_refused(tmp_path):
    path = tmp_path / "throughput.json"
    for text in ("{", "[]", '{"rows": []}', '{"rows": [{"engine": "torch"}]}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="name what dhrd bench --output wrote"):
            read_throughput(path)
    path.write_text(json.dumps(THROUGHPUT))
    assert read_throughput(path) == THROUGHPUT


def test_other_rows_under_one_name_are_told():
    other = [{**row, "rows_digest": "b", "cell": f"{row['cell']} b"} for row in MAIN[:2]]
    assert "Other rows under the same name, which are never averaged: a." in build_report([*MAIN, *other]).notes
    assert not any("Other rows" in note for note in build_report(MAIN).notes)


# Logits


def with_logits(row, folder, sets):
    """A row with the logits of its evaluation sets in a file beside the table, as the study keeps them."""
    names = [name for name, (labels, _) in sets.items() for _ in labels]
    frame = pd.DataFrame(
        {
            "set": names,
            "row": np.concatenate([np.arange(len(labels)) for labels, _ in sets.values()]).astype(np.int32),
            "label": np.concatenate([labels for labels, _ in sets.values()]).astype(np.int32),
            "logits": [it.tolist() for _, logits in sets.values() for it in logits.astype(np.float32)],
        }
    )
    name = f"logits/{row['data']}-{row['setting']}-{row['seed']}.parquet"
    (folder / "logits").mkdir(exist_ok=True)
    frame.sample(frac=1, random_state=0).to_parquet(folder / name)  # in whatever order
    others = {name: {"rows": len(labels), "metrics": {}} for name, (labels, _) in sets.items() if name != "eval"}
    return {**row, "logits": name, "eval_sets": others, "folder": str(folder)}


def runs_with_logits(folder, seeds=(0, 1, 2), others=True, items=60):
    """Dual-head logits have twice the signal; seeds and items differ."""
    rows = []
    for setting, seed in ((setting, seed) for setting in ("pooled", "dual_head") for seed in seeds):
        draw = np.random.default_rng(seed)
        sets = {}
        for name in ("eval", "other") if others else ("eval",):
            labels = np.arange(items) % 2
            signal = (1 if setting == "pooled" else 2) * np.eye(2)[labels]
            sets[name] = labels, signal + draw.normal(size=(items, 2))
        labels, logits = sets["eval"]
        row = cell("a", setting, seed, 0, items)
        row |= {"predictions": logits.argmax(1).tolist(), "score": float((logits.argmax(1) == labels).mean())}
        rows.append(with_logits(row, folder, sets))
    return rows


def test_all_scores_are_of_the_logits(tmp_path):
    rows = runs_with_logits(tmp_path)
    found = table(rows, "scores")
    assert [it.removesuffix(" [95%]") for it in found.columns[2:]] == [
        "accuracy",
        "macro F1",
        "less log loss",
        "less log loss, scaled",
        "less Brier score",
        "AUROC",
        "accuracy at 80% coverage",
    ]
    losses = []
    for row in rows:
        frame = pd.read_parquet(tmp_path / row["logits"]).query("set == 'eval'").sort_values("row")
        losses.append(log_loss(frame["label"], softmax(np.stack(frame["logits"]), axis=1)))
    less = np.mean(losses[:3]) - np.mean(losses[3:])
    assert estimate(found.rows[0][4])[0] == pytest.approx(less, abs=5e-4) and less > 0.05
    (gain,) = paired_gains(rows, metric="brier")
    assert gain.gain == pytest.approx(gain.baseline_score - gain.score) and gain.gain > 0.01
    (gain,) = paired_gains(rows, metric="auroc")
    assert gain.gain == pytest.approx(gain.score - gain.baseline_score) and gain.gain > 0
    assert found.rows[0][7] == f"{gain.gain:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    # Three pairs, all ahead: of the 8 draws of signs 2 are as far from 0.
    assert found.rows[1][0] == "p, signs of all pairs" and found.rows[1][4] == "0.250"
    assert [plot.title for plot in found.plots] == ["Less log loss, by data set", "Less log loss, scaled, by data set"]
    assert not any("kept no logits" in note or "without logits" in note for note in found.notes)


def test_runs_without_logits_are_told_and_have_the_rest(tmp_path):
    rows = runs_with_logits(tmp_path)
    assert "kept no logits" in " ".join(table(MAIN, "scores").notes)
    assert len(table(MAIN, "scores").columns) == 4 and not table(MAIN, "scores").plots
    found = table([*rows, *MAIN[4:]], "scores")
    assert found.rows[0][4] != "–" and [row[4] for row in found.rows[1:]] == ["–", "–", "–"]  # nor is there a mean
    assert "Runs without logits, which the other scores are of: b." in found.notes
    (tmp_path / rows[0]["logits"]).unlink()
    groups.kept_logits.cache_clear()
    found = table(rows, "scores")
    assert len(found.columns) == 4
    assert "1 of these 6 runs kept no logits, which the other scores (log loss, Brier, AUROC) are of." in found.notes
    (tmp_path / "c").mkdir()
    others = [{**row, "data": "c"} for row in runs_with_logits(tmp_path / "c")]
    found = table([*rows, *others], "scores")
    assert "Runs without logits, which the other scores are of: a (1 of 6)." in found.notes


def test_logits_of_other_rows_are_not_compared(tmp_path):
    rows = runs_with_logits(tmp_path)
    rows[0] |= {
        "logits": with_logits({**rows[0], "data": "z"}, tmp_path, {"eval": (np.zeros(60), np.eye(60)[:, :2])})[
            "logits"
        ]
    }
    with pytest.raises(
        ValueError, match=r"the logits of run a pooled 0 .* are not of its rows: logits/z-pooled-0.parquet"
    ):
        paired_gains(rows, metric="log_loss")
    found = table(rows, "scores")
    assert len(found.columns) == 4 and "Not read: the logits of run a pooled 0" in " ".join(found.notes)
    (tmp_path / "logits" / "z-pooled-0.parquet").write_text("no Parquet")
    groups.kept_logits.cache_clear()
    with pytest.raises(ValueError, match=r"z-pooled-0.parquet can't be read as a run's logits: "):
        paired_gains(rows, metric="log_loss")
    odd = np.full((60, 2), np.nan)
    rows[0] = with_logits(rows[0], tmp_path, {"eval": (np.arange(60) % 2, odd)})
    groups.kept_logits.cache_clear()
    with pytest.raises(ValueError, match="logits of eval are no numbers"):
        paired_gains(rows, metric="log_loss")


def test_a_label_that_a_model_lacks_leaves_the_loss_without_a_number(tmp_path):
    rows = runs_with_logits(tmp_path, seeds=(0,))
    logits = np.stack([np.full(60, -np.inf), np.zeros(60)], axis=1)
    rows[1] = with_logits(rows[1], tmp_path, {"eval": (np.arange(60) % 2, logits)})
    found = table(rows, "scores")
    assert [it.split(" [")[0] for it in found.columns[2:]] == [
        "accuracy",
        "macro F1",
        "less Brier score",
        "AUROC",
        "accuracy at 80% coverage",
    ]


def test_transfer_is_the_gain_on_further_evaluation_sets(tmp_path):
    rows = runs_with_logits(tmp_path)
    found = table([*rows, *MAIN[4:]], "transfer")
    scores = {"pooled": [], "dual_head": []}
    for row in rows:
        frame = pd.read_parquet(tmp_path / row["logits"]).query("set == 'other'")
        scores[row["setting"]].append((np.stack(frame["logits"]).argmax(1) == frame["label"]).mean())
    pooled, dual = (100 * np.mean(its) for its in scores.values())
    assert [row[:6] for row in found.rows] == [["a", "other", "3", "60", f"{pooled:.1f}", f"{dual:.1f}"]]
    assert estimate(found.rows[0][6])[0] == pytest.approx(dual - pooled, abs=0.051)
    assert estimate(found.rows[0][8])[0] > 0
    assert [point.name for point in found.plots[0].series[0].points] == ["a: other"]
    assert table(runs_with_logits(tmp_path, others=False), "transfer") is None and table(MAIN, "transfer") is None


def test_losses_that_runs_were_evaluated_with_are_compared_where_there_are_no_logits():
    loss = {("pooled", 0): 1.0, ("pooled", 1): 1.0, ("dual_head", 0): 0.8, ("dual_head", 1): 1.0}
    rows = [{**it, "metrics": {"classification_loss": loss[it["setting"], it["seed"]]}} for it in MAIN[:4]]
    said = "Their classification loss is lower with the dual head in 1 of 2 pairs, in the mean by 0.100 (p 1.000)"
    assert any(note.startswith(said) for note in table(rows, "scores").notes)
    assert not any("classification loss" in note for note in table([*rows, *MAIN[4:]], "scores").notes)


# Power


def test_the_power_of_the_study_is_told():
    rows = [cell("a", "pooled", seed, 200 + 8 * seed, 400) for seed in range(3)]
    rows += [cell("a", "dual_head", seed, 204 + 4 * seed, 400) for seed in range(3)]
    found = table(rows, "power")
    pair = Pair(*reversed(grouped(rows)))
    found_noise = noise([difference(*pair.sides())])
    assert found.rows == [["a", "3", f"{visible_gain(found_noise):.1f}", str(seeds_for(found_noise, 2))]]
    assert seeds_for(found_noise, 2) > seeds_for(found_noise, 4) >= 2
    assert found.notes[0].startswith("To see a gain of 2 points on a you need ")
    # One seed tells nothing of others, and one item nothing of others.
    assert table(MAIN[4:], "power") is None
    single = [cell("c", setting, seed, seed, of=1) for setting in ("pooled", "dual_head") for seed in (0, 1)]
    assert table(single, "power") is None and table(single, "main").rows[0][6] == "+0.0 [–, –]"
    both = table([*rows, *MAIN[4:]], "power")
    assert [row[0] for row in both.rows] == ["a", "mean of 2"] and "on the mean you need" in both.notes[0]


# Each setting at its own options


def own_best(data="a", seeds=(0, 1), **more):
    """Pooled trains 8 epochs and has half of its rows right, the dual head 4 and has three of four."""
    sides = (("pooled", 8, 2), ("dual_head", 4, 3))
    return [cell(data, it, seed, right, num_train_epochs=n, **more) for it, n, right in sides for seed in seeds]


def test_settings_that_each_have_their_own_options_are_compared_and_told():
    report = build_report([*own_best(), *own_best("b", train_size=200)])
    said = "Each setting has its own options: pooled num_train_epochs 8, dual_head 4."
    assert report.headline[0].startswith("Mean relative gain of the dual head over pooled on 2 data sets")
    assert report.headline[1] == said and "pairs of runs with the same data and seed" in " ".join(report.headline)
    main = report.tables[0]
    assert said in main.notes and not any(it.startswith("Options:") for it in main.notes)
    assert [row[6].split()[0] for row in main.rows] == ["+25.0", "+25.0", "+25.0"]
    assert report.counts == "8 cells done, 0 failed, 0 without one to be paired with."
    assert "options" not in {it.name for it in report.tables}  # 4 and 8 epochs are no two values of an axis


@pytest.mark.parametrize(
    "more",
    [
        [cell("a", "pooled", 2, 2, num_train_epochs=2)],
        [cell("a", "dual_head", 2, 2, num_train_epochs=2)],
        [cell("b", "pooled", 0, 2, num_train_epochs=2)],
        [failed(cell("a", "pooled", 0, 2, num_train_epochs=2))],
        [cell("a", "dual_head", 0, 2, num_train_epochs=4, alpha=0.5)],
    ],
    ids=["of pooled", "of the dual head", "on other data", "that failed", "of the loss"],
)
def test_where_a_setting_has_several_options_equal_ones_alone_are_compared(more):
    report = build_report([*own_best(), *more])
    assert report.headline == [
        "No pooled and dual-head cells share data, seed and options, so there is no gain to report."
    ]
    where = build_report([*own_best(), *more], where={"seed": "0,1", "data": "a"})  # a filter makes no pair
    assert where.headline == report.headline and "Each setting" not in report_markdown(report)
    assert paired_gains([*own_best(), *more]) == []
    equal = build_report(
        [*own_best(), *more, *(cell("a", "dual_head", seed, 4, num_train_epochs=8) for seed in (0, 1))]
    )
    assert equal.headline[0].startswith("Relative gain of the dual head over pooled on a (2 seeds): +100.00%")
    assert "Each setting" not in report_markdown(equal)


def test_training_rows_are_compared_where_sides_have_their_own_options_and_one_size_has_no_pooled_run():
    rows = [*own_best(), *(cell("a", "dual_head", seed, 2, num_train_epochs=4, train_size=1000) for seed in (0, 1))]
    assert [row[1:4] for row in table(rows, "train_size").rows] == [["100", "2", "50.0 ± 0.0"], ["1000", "2", "–"]]


def test_options_of_another_study_do_not_count_where_one_is_asked_for():
    rows = [*own_best(), cell("a", "pooled", 5, 2, num_train_epochs=2, study="tuning")]
    assert len(build_report(rows).headline) == 1
    assert "Each setting has its own options" in build_report(rows, where={"study": "first"}).headline[1]


@pytest.mark.parametrize(
    "other",
    [{"train_size": 50}, {"options": {"prompt": "{text}!"}}, {"data": "b"}, {"rows_digest": "z"}, {"seed": 2}],
    ids=lambda it: next(iter(it)),
)
def test_settings_with_their_own_options_are_of_the_same_rows_and_seeds(other):
    pooled, dual = own_best(seeds=(0,))
    assert len(paired_gains([pooled, dual])) == 1
    dual = {**dual, **other, "options": {**dual["options"], **other.get("options", {})}}
    assert paired_gains([pooled, dual]) == [] and len(build_report([pooled, dual]).headline) == 1
    assert "2 without one to be paired with" in build_report([pooled, dual]).counts
    assert paired_gains([pooled, {**dual, "model": "another"}]) == []


def test_an_option_that_is_asked_for_is_one_of_both_sides():
    report = build_report(own_best(), where={"num_train_epochs": "4"})
    assert report.headline[0].startswith("No pooled and dual-head cells")
    (rest,) = report.tables
    assert rest.title == "Several options at once" and "Each setting has its own options" in rest.notes[0]


def test_the_second_models_sides_are_compared_by_seed():
    results = Path(__file__).parents[2] / "examples" / "benchmarks" / "results"
    rows = [it for it in read_results([results / "second_model.jsonl"]) if it["setting"] in ("pooled", "dual_head")]
    by_seed = {seed: paired_gains(row for row in rows if row["seed"] == seed) for seed in (2, 3, 4, 5)}
    assert [round(it.gain, 1) for (it,) in by_seed.values()] == [-1.1, 4.7, 6.1, 2.2]
    (gain,) = paired_gains(row for row in rows if row["seed"] in by_seed)
    # The t interval over the four seeds is [-2.1, 8.0]; this one is over items, too, and the error of two sources.
    assert round(gain.gain, 1) == 3.0 and -2.5 < gain.low < -1.5 and 7.5 < gain.high < 8.5


# How it is said


def test_p_is_said_as_exactly_as_it_is_known():
    def said(seeds):
        rights = (("pooled", 2), ("dual_head", 3))
        return table([cell("a", it, seed, n) for it, n in rights for seed in range(seeds)], "scores").rows[-1][2]

    # Of 2^n draws of signs two are as far from 0 as all ahead.
    assert (said(8), said(12)) == (f"{2 / 2**8:.3f}", "< 0.001")


def test_rows_of_runs_that_differ_in_them_are_a_range_and_those_tested_the_fewest():
    rows = [cell("a", it, seed, 2, train_rows=90 + 5 * seed) for it in ("pooled", "dual_head") for seed in (0, 1, 2)]
    assert table(rows, "main").rows[0][1] == "90–100 / 4"
    assert table([cell("a", "pooled", 0, 2), cell("a", "dual_head", 0, 2, of=2)], "main").rows[0][1] == "100 / 2"


def test_where_seeds_of_some_sets_stand_in_for_those_of_others_is_told():
    said = "In the mean's interval the seeds of sets with one differ as those of the other sets do."
    one = [it for it in MAIN if it["seed"] == 0]
    assert said in table(MAIN, "main").notes and said not in table(one, "main").notes
    assert "One seed: the intervals are over test items alone." in table(one, "main").notes


def test_numbers_are_joined_to_a_curve_and_names_are_not():
    alphas = [*MAIN, cell("a", "dual_head", 0, 4, alpha="auto"), cell("a", "dual_head", 0, 1, alpha=0.25)]
    spans = [cell("a", "dual_head", 0, 4, reasoning_span=it) for it in ("rationale", "all")]
    assert table(alphas, "alpha").plots[0].joined and not table([*MAIN, *spans], "options").plots[0].joined


def test_the_pooled_score_beside_ablations_is_of_the_most_seeds():
    rows = [cell("a", "pooled", 0, 2), cell("a", "pooled", 1, 3), cell("a", "dual_head", 0, 3)]
    rows += [cell("a", "label_only", seed, 2) for seed in (0, 1)]
    assert table(rows, "settings").rows[0][1:4] == ["pooled", "2", "62.5 ± 17.7"]


def test_what_is_so_for_one_option_alone_is_told_of_it():
    rows = [*MAIN, cell("a", "dual_head", 0, 4, reasoning_span="rationale")]
    rows += [cell("a", it, 0, 4, learning_rate=1e-3) for it in ("pooled", "dual_head")]
    notes = table(rows, "options").notes
    default = "Default is what dhrd train takes where the option is not given (dhrd train --help-all)."
    assert notes[0] == f"For reasoning span: Options: learning_rate 0.0002. {default}"
    assert notes[1] == "The score is accuracy." and not any("For learning rate" in note for note in notes)
    notes = table([*rows, cell("a", "dual_head", 1, 4, reasoning_span="rationale")], "options").notes
    assert notes[0].startswith("For learning rate: On the seeds that all values have;") and "For reasoning" in notes[1]
    assert notes[2:] == ["The score is accuracy."]


def test_the_most_values_of_an_option_are_compared_and_not_the_most_seeds():
    rows = [cell("a", "dual_head", 0, 3, alpha=it) for it in (0.5, 1.0, 2.0)] + [cell("a", "pooled", 0, 2)]
    rows += [cell("a", it, seed, 3, train_size=9) for it in ("pooled", "dual_head") for seed in range(4)]
    assert [row[1] for row in table(rows, "alpha").rows] == ["0.5", "1", "2"]


def test_numbers_have_no_sign_that_they_round_away_and_whole_ones_all_their_digits():
    assert (signed(-0.04), signed(-0.06), signed(float("nan"))) == ("+0.0", "-0.1", "–")
    assert (shown(2000001), shown(1e-3), shown(True), shown(None)) == ("2000001", "0.001", "true", "default")
