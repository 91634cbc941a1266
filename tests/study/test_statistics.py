"""What a table says: against scipy, scikit-learn, the tasks' own metrics, and cases that can be worked out by hand."""

import itertools
import statistics

import numpy as np
import pytest
from scipy.stats import binom, bootstrap, norm, t
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score

from dhrd_hf.evaluation.superglue_metrics import COPA, CommitmentBank, MultiRC
from dhrd_hf.study import mean_relative_gain, paired_gains, resampling, summarise
from dhrd_hf.study.groups import grouped, latest, several_data, unpaired
from dhrd_hf.study.metrics import METRICS, chance, resampled_scores, score
from dhrd_hf.study.resampling import interval, seed_scores


def row(setting, right, seed=0, data="odd", alpha=1.0, metric="accuracy", **more):
    """A done cell whose predictions are right where `right` says so."""
    labels = [place % 2 for place in range(len(right))]
    predictions = [label if it else 1 - label for label, it in zip(labels, right, strict=True)]
    alpha = 0.0 if setting == "pooled" else alpha
    base = {"alpha": alpha, "beta": 1.0, "classifier_head": "linear", "train_size": 10, "options": {}, "model": "tiny"}
    done = {"status": "done", "labels": labels, "predictions": predictions, "groups": None, "metric": metric}
    it = {
        "cell": f"{data}-{setting}-{alpha}-{seed}",
        "data": data,
        "setting": setting,
        "seed": seed,
        **base,
        **done,
        **more,
    }
    return it | {"score": score(metric, it["labels"], it["predictions"], it["groups"])}


def share(count, of):
    return [place < count for place in range(of)]


# Scores


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "macro_f1+accuracy"])
def test_a_weight_is_so_many_rows(metric):
    draw = np.random.default_rng(0)
    labels, predictions = draw.integers(0, 3, 30), draw.integers(0, 3, 30)
    weights = draw.integers(0, 3, (20, 30)).astype(float)
    weights[0] = labels == 1  # a resample that lacks classes
    found = resampled_scores(metric, labels, predictions, None, weights)
    for weight, value in zip(weights, found, strict=True):
        gold, said = (np.repeat(values, weight.astype(int)) for values in (labels, predictions))
        parts = {"accuracy": accuracy_score(gold, said)}
        parts["macro_f1"] = f1_score(gold, said, average="macro", zero_division=0)
        assert value == pytest.approx(np.mean([parts[name] for name in METRICS[metric]]))


def test_questions_are_scored_as_the_tasks_are():
    draw = np.random.default_rng(0)
    gold, said = draw.integers(0, 2, 40), draw.integers(0, 2, 40)
    groups = np.sort(draw.integers(0, 12, 40))
    groups = np.unique(groups, return_inverse=True)[1]
    own = MultiRC().compute(predictions=said.tolist(), references=gold.tolist(), groups=groups.tolist())
    assert score("f1a+em", gold, said, groups) == pytest.approx((own["f1a"] + own["em"]) / 2)
    # COPA: Yes for the candidate that has the higher score.
    margins, groups = draw.normal(size=20), np.arange(20) // 2
    gold = np.array([place % 2 for place in range(20)])
    said = np.array([margins[place] > margins[place ^ 1] for place in range(20)]).astype(int)
    own = COPA().compute(predictions=margins.tolist(), references=gold.tolist(), groups=groups.tolist())
    assert score("question_accuracy", gold, said, groups) == pytest.approx(own["accuracy"])


def test_commitment_bank_is_scored_by_the_mean_of_its_two_metrics():
    gold, said = [0, 1, 2, 2, 1, 0, 0], [0, 1, 1, 2, 1, 0, 2]
    own = CommitmentBank().compute(predictions=said, references=gold)
    assert score("macro_f1+accuracy", gold, said) == pytest.approx((own["macro_f1"] + own["accuracy"]) / 2)


def test_an_answer_that_could_not_be_read_is_wrong_and_no_class():
    assert score("accuracy", [0, 1], [-1, 1]) == 0.5
    assert score("macro_f1", [0, 1, 1], [0, 1, -1]) == pytest.approx((1 + 2 / 3) / 2)


def test_chance_is_what_a_classifier_that_does_not_read_gets():
    gold = [0, 1, 2, 2, 1, 2, 0, 2]
    blind = [DummyClassifier(strategy="constant", constant=label).fit(gold, gold).predict(gold) for label in range(3)]
    assert chance("accuracy", gold) == max(accuracy_score(gold, said) for said in blind) == 0.5
    best = max(f1_score(gold, said, average="macro", zero_division=0) for said in blind)
    assert chance("macro_f1", gold) == pytest.approx(best)
    # Questions of two and of three candidates: a half and a third.
    assert chance("question_accuracy", [0, 1, 0, 0, 1], [0, 0, 1, 1, 1]) == pytest.approx(5 / 12)


# The bootstrap


def test_the_draws_are_those_of_an_exhaustive_list():
    """2 of 2 items, the same for both seeds: 4 draws, each as likely."""
    right = np.array([[1, 1], [0, 1]])
    rows = [row("pooled", list(right[seed]), seed) for seed in (0, 1)]
    found = [tuple(values) for values in seed_scores(rows, 2)]
    exact = [tuple(right[:, list(items)].mean(1)) for items in itertools.product((0, 1), repeat=2)]
    for values in set(exact):
        assert found.count(values) / len(found) == pytest.approx(exact.count(values) / 4, abs=0.035)
    assert set(found) == set(exact)


def test_with_seeds_and_items_that_add_up_the_variances_add_up():
    """Seed effect a_s and item effect b_i: the mean varies by s^2(a) / S + var(b) / N, the former from S - 1 degrees."""
    draw = np.random.default_rng(0)
    items, seeds = 200, 4
    # Each item is 20 rows, of which a_s + b_i are right.
    of_seed, of_item = np.array([0, 2, 4, 10]), draw.integers(0, 10, items)
    groups = np.repeat(np.arange(items), 20)
    rows = []
    for seed in range(seeds):
        right = (np.arange(20)[None] < of_seed[seed] + of_item[:, None]).ravel()
        rows.append(row("pooled", list(right), seed, groups=groups.tolist()))
    (found,) = summarise(rows)
    parts = of_seed.var(ddof=1) / seeds / 20**2, of_item.var() / items / 20**2
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (seeds - 1))
    expected = 2 * t.ppf(0.975, freedom) * np.sqrt(sum(parts))
    assert found.high - found.low == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "least"),
    [(3, 0.0, 0.93), (3, 0.02, 0.93), (2, 0.02, 0.93), (5, 0.04, 0.93), (3, 0.1, 0.90), (2, 0.1, 0.86)],
)
def test_intervals_cover_the_truth(seeds, of_seeds, least):
    """Gains that are an item's (sd 0.2), a seed's, and by far the most each seed's own on each item."""
    draw = np.random.default_rng(0)
    items, truth, trials = 300, 0.03, 300
    drawn = draw.multinomial(items, np.full(items, 1 / items), size=1000) / items  # [R, N]
    held, widths, means = 0, [], []
    for _ in range(trials):
        gains = truth + draw.normal(0, 0.2, items) + draw.normal(0, of_seeds, (seeds, 1))
        gains = gains + draw.normal(0, 0.4, (seeds, items))
        its, resampled = gains.mean(1), drawn @ gains.T
        low, high = interval(its.mean(), resampled.mean(1), [(its, resampled)])
        held += low <= truth <= high
        widths.append(high - low)
        means.append(its.mean())
    assert least <= held / trials <= 1.0
    if of_seeds == 0:  # not far wider than need be: of known variances it would be 2 x 1.96 of them
        assert np.median(widths) < 1.4 * 2 * norm.ppf(0.975) * np.std(means)


def test_two_seeds_that_differ_say_little_and_nothing_impossible():
    rows = [row("pooled", share(count, 40), seed) for seed, count in enumerate((8, 12))]
    rows += [row("dual_head", share(count, 40), seed) for seed, count in enumerate((4, 36))]
    (pooled, dual), (gain,) = summarise(rows), paired_gains(rows)
    assert (dual.low, dual.high) == (0, 1) and 0 <= pooled.low < pooled.high <= 1
    assert (gain.low, gain.high, gain.relative_low) == (-100, 100, -100) and gain.relative_high > 400


def test_one_seed_has_the_interval_of_scipy_and_of_the_binomial():
    right = np.random.default_rng(0).random(150) < 0.7
    (found,) = summarise([row("pooled", list(right))])
    assert (found.n_seeds, found.sd) == (1, None)
    own = bootstrap(
        (right.astype(float),), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((own.low, own.high), abs=1.01 / 150)
    exact = binom.ppf([0.025, 0.975], 150, right.mean()) / 150
    assert (found.low, found.high) == pytest.approx(exact, abs=1.01 / 150)


def test_a_paired_interval_is_scipys_of_the_differences():
    draw = np.random.default_rng(0)
    base = draw.random(200) < 0.6
    ours = np.where(draw.random(200) < 0.8, base, draw.random(200) < 0.9)
    (gain,) = paired_gains([row("pooled", list(base)), row("dual_head", list(ours))])
    differences = ours.astype(float) - base
    own = bootstrap((differences,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert gain.gain == pytest.approx(100 * differences.mean())
    assert (gain.low, gain.high) == pytest.approx((100 * own.low, 100 * own.high), abs=1.01)
    apart = bootstrap((ours.astype(float), base.astype(float)), lambda a, b, axis: a.mean(axis) - b.mean(axis), rng=0)
    assert gain.high - gain.low < 80 * np.ptp(apart.confidence_interval)  # what pairing is for


def test_the_same_table_gives_the_same_numbers():
    rows = [
        row(setting, share(count, 40), seed)
        for seed in (0, 1)
        for setting, count in (("pooled", 20), ("dual_head", 25))
    ]
    first = paired_gains(rows), summarise(rows)
    resampling._draws.cache_clear()
    assert (paired_gains(rows), summarise(rows)) == first


# Summaries


def test_mean_and_deviation_are_over_the_seeds():
    scores = [20, 25, 27]
    (found,) = summarise([row("pooled", share(count, 40), seed) for seed, count in enumerate(scores)])
    assert found.mean == pytest.approx(statistics.mean(scores) / 40)
    assert found.sd == pytest.approx(statistics.stdev(scores) / 40)
    assert (found.n_seeds, found.n_items, found.metric) == (3, 40, "accuracy")
    assert found.low < found.mean < found.high


def test_options_that_vary_make_groups_and_those_that_do_not_are_not_named():
    rows = [row("dual_head", share(20, 40), alpha=alpha, options={"lora": True}) for alpha in (0.5, 1.0)]
    rows += [row("pooled", share(20, 40), options={"lora": True})]
    assert [it.options for it in summarise(rows)] == [{"alpha": 0.5}, {"alpha": 1.0}, {}]
    assert summarise(rows)[0].config["lora"] is True


def test_failed_cells_are_passed_over_and_the_last_of_a_cell_counts():
    failed = row("pooled", share(1, 40)) | {"status": "failed", "score": None, "labels": None, "predictions": None}
    (found,) = summarise([failed, row("pooled", share(1, 40)), row("pooled", share(30, 40)), failed])
    assert found.mean == 0.75


# Gains


def test_the_relative_gain_is_a_share_of_the_baseline():
    """As in the paper's Table 1: of 70 to 77%, +7 points are +10%."""
    (gain,) = paired_gains([row("pooled", share(140, 200)), row("dual_head", share(154, 200))])
    assert (gain.relative, gain.gain) == (pytest.approx(10), pytest.approx(7))
    assert (gain.baseline_score, gain.score) == (0.7, 0.77)
    assert 0 < gain.low < gain.gain < gain.high and 0 < gain.relative_low < gain.relative < gain.relative_high


def test_settings_that_answer_alike_differ_by_nothing():
    rows = [row(setting, share(20 + seed, 40), seed) for seed in (0, 1, 2) for setting in ("pooled", "dual_head")]
    (gain,) = paired_gains(rows)
    assert (gain.gain, gain.low, gain.high, gain.relative, gain.relative_low, gain.relative_high) == (0,) * 6


def test_a_seed_that_one_side_lacks_is_left_out_and_counted():
    rows = [row("pooled", share(20, 40), seed) for seed in (0, 1)] + [
        row("dual_head", share(30, 40), seed) for seed in (1, 2, 3)
    ]
    (gain,) = paired_gains(rows)
    assert (gain.n_seeds, gain.unpaired, gain.gain) == (1, 3, 25.0)
    assert paired_gains([row("pooled", share(20, 40), 0), row("dual_head", share(20, 40), 1)]) == []


def test_pooled_is_the_baseline_of_every_alpha_and_span_but_of_its_own_size_and_head():
    rows = [row("pooled", share(20, 40)), row("pooled", share(24, 40), train_size=20, cell="large")]
    rows += [row("dual_head", share(22, 40), alpha=0.5, options={"reasoning_span": "rationale"})]
    rows += [row("label_only", share(26, 40), train_size=20), row("dual_head", share(26, 40), classifier_head="mlp")]
    found = paired_gains(rows)
    assert [(it.setting, it.gain) for it in found] == [
        ("dual_head", pytest.approx(5)),
        ("label_only", pytest.approx(5)),
    ]


def test_with_another_baseline_alpha_counts():
    rows = [row("dual_head", share(30, 40), alpha=alpha) for alpha in (0.5, 1.0)] + [row("label_only", share(20, 40))]
    (gain,) = paired_gains(rows, baseline="dual_head")
    assert (gain.setting, gain.baseline, gain.gain) == ("label_only", "dual_head", -25.0)


def test_decoding_is_compared_on_the_rows_that_it_answered():
    pooled, cot = row("pooled", share(10, 40)), row("cot_decoding", share(4, 8), beta=0.0)
    (gain,) = paired_gains([pooled, cot])
    # The pooled cell has its first 8 rows right.
    assert (gain.n_items, gain.baseline_score, gain.score, gain.gain) == (8, 1.0, 0.5, -50.0)


def test_questions_are_drawn_whole():
    groups = [place // 2 for place in range(40)]
    named = {"metric": "question_accuracy", "groups": groups}
    rows = [row("pooled", share(20, 40), **named), row("dual_head", share(30, 40), **named)]
    (gain,) = paired_gains(rows)
    assert (gain.n_items, gain.gain) == (20, 25.0)
    assert summarise(rows)[0].n_items == 20


def test_cells_tested_on_other_rows_are_not_compared():
    other = row("dual_head", share(30, 40))
    other["labels"] = other["labels"][::-1]
    with pytest.raises(ValueError, match="tested on other rows or by another metric"):
        paired_gains([row("pooled", share(20, 40)), other])
    with pytest.raises(ValueError, match="1 item: an interval needs two or more"):
        summarise([row("pooled", [True])])


def test_groups_that_an_older_table_lacks_are_those_of_the_cells_beside_it():
    groups = [place // 2 for place in range(40)]
    rows = [row("pooled", share(20, 40)), row("dual_head", share(30, 40), groups=groups)]
    rows += [row("dual_head", share(28, 40), 1), row("cot_decoding", share(4, 8), beta=0.0)]
    gain, cot = paired_gains(rows)
    assert (gain.n_items, gain.gain, cot.n_items) == (20, 25.0, 8)
    assert {it.setting: it.n_items for it in summarise(rows)} == {"pooled": 40, "dual_head": 20, "cot_decoding": 8}
    everywhere = [{**it, "groups": groups[: len(it["labels"])]} for it in rows]
    assert paired_gains(everywhere)[0] == gain


def test_cells_tested_in_other_groups_are_not_compared():
    rows = [
        row(it, share(20, 40), groups=[i // size for i in range(40)]) for it, size in (("pooled", 2), ("dual_head", 4))
    ]
    with pytest.raises(ValueError, match="were tested in other groups of rows: they can't be compared"):
        paired_gains(rows)


@pytest.mark.parametrize("more", [{"rows_digest": "b"}, {"eval_rows": 20}])
def test_cells_of_other_data_under_one_name_are_no_seeds_of_a_group(more):
    of_data = {"rows_digest": "a", "eval_rows": 40}
    rows = [row("dual_head", share(20, 40), seed, **of_data) for seed in (0, 1)]
    rows += [row("dual_head", share(30, 40), seed, **{**of_data, **more}) for seed in (1, 2)]
    kept, twice = latest(rows)
    assert (len(kept), twice) == (4, 0)
    found = summarise(rows)
    assert [(it.n_seeds, it.mean) for it in found] == [(2, 0.5), (2, 0.75)]
    assert [it.options for it in found] == [{name: of_data[name]} for name in more] + [more]
    assert several_data(grouped(kept)) == ["odd"] and several_data(grouped(kept[:2])) == []


def test_cells_of_other_data_are_not_paired():
    pooled, dual = row("pooled", share(20, 40), rows_digest="a"), row("dual_head", share(30, 40), rows_digest="b")
    old = row("label_only", share(30, 40))  # of a table that did not record it
    assert paired_gains([pooled, dual, old]) == [] and unpaired(grouped([pooled, dual, old])) == 3
    assert paired_gains([dual, old], "dual_head") == []
    both = [*(row(it, share(20, 40), rows_digest="b") for it in ("pooled", "label_only")), pooled, dual, old]
    assert [(it.setting, it.gain) for it in paired_gains(both)] == [("label_only", 0), ("dual_head", 25)]
    with pytest.raises(ValueError, match="2 kinds of dual_head cells, which differ in rows_digest: .* 'b'"):
        mean_relative_gain([*both, row("dual_head", share(20, 40), rows_digest="a")])


def test_decoding_of_fewer_rows_is_of_the_same_data():
    rows = [row("pooled", share(10, 40), eval_rows=40, rows_digest="a")]
    rows += [row("cot_decoding", share(4, 8), beta=0.0, eval_rows=8, rows_digest="a")]
    assert [it.n_items for it in paired_gains(rows)] == [8] and several_data(grouped(rows)) == []
    # Beside several evaluation sizes pooled cells of the same are the baseline.
    rows += [row(it, share(10, 20), eval_rows=20, rows_digest="a") for it in ("pooled", "dual_head")]
    assert [it.baseline_score for it in paired_gains(rows) if it.setting == "dual_head"] == [0.5]


def test_a_cell_that_failed_before_its_rows_were_known_is_one_with_that_which_ran():
    done = row("pooled", share(20, 40), eval_rows=40, rows_digest="a")
    failed = [{**done, "status": "failed", "eval_rows": None, "rows_digest": it} for it in (None, "a")]
    assert latest([*failed, done]) == latest([failed[0], done, failed[1]]) == ([done], 0)
    assert latest(failed) == ([failed[1]], 0)


def test_a_baseline_of_zero_has_no_bounded_relative_gain():
    (gain,) = paired_gains([row("pooled", share(0, 40)), row("dual_head", share(20, 40))])
    assert gain.relative == gain.relative_high == np.inf and gain.gain == 50


def test_a_baseline_without_a_right_answer_leaves_the_intervals_beside_it_whole():
    rows = [row(setting, share(0, 40), seed) for setting in ("pooled", "dual_head") for seed in (0, 1)]
    (gain,) = paired_gains(rows)
    assert (gain.relative, gain.relative_low, gain.relative_high) == (0, 0, 0)
    rows += [row("pooled", share(20 + seed, 40), seed, data="other") for seed in (0, 1)]
    rows += [row("dual_head", share(24 + seed, 40), seed, data="other") for seed in (0, 1)]
    mean = mean_relative_gain(rows)
    assert np.isfinite([mean.relative_low, mean.relative_high]).all() and mean.relative_low <= mean.relative


# The mean over data sets


def two_sets(seeds=(0, 1)):
    counts = {("small", "pooled"): 50, ("small", "dual_head"): 60, ("large", "pooled"): 80, ("large", "dual_head"): 88}
    return [row(setting, share(n, 100), seed, data) for seed in seeds for (data, setting), n in counts.items()]


def test_the_mean_over_data_sets_is_a_macro_average():
    """+20% and +10%: 15% on average; the averages, 65 to 74, gain 13.8%."""
    mean = mean_relative_gain(two_sets())
    assert mean.data == ["small", "large"] and mean.n_items == 200 and mean.n_seeds == 2
    assert mean.relative == pytest.approx(15) and mean.gain == pytest.approx(9)
    assert mean.relative_of_means == pytest.approx(100 * 9 / 65)
    assert mean.relative_low < 15 < mean.relative_high
    assert mean.relative_of_means_low < mean.relative_of_means < mean.relative_of_means_high


def test_the_interval_of_a_mean_is_narrower_than_its_parts():
    rows = two_sets()
    mean = mean_relative_gain(rows)
    parts = [it.high - it.low for it in paired_gains(rows)]
    # Of independent parts: half the root of the sum of squares.
    assert mean.high - mean.low == pytest.approx(np.hypot(*parts) / 2, rel=0.15)
    # Also of parts that are right and wrong on the same items.
    twins = [{**it, "data": name} for it in rows if it["data"] == "small" for name in ("a", "b")]
    (one, _), mean = paired_gains(twins), mean_relative_gain(twins)
    assert mean.high - mean.low == pytest.approx((one.high - one.low) / np.sqrt(2), rel=0.15)


def test_a_mean_over_cells_of_several_kinds_asks_which():
    rows = [*two_sets(), row("dual_head", share(70, 100), 0, "small", alpha=0.5)]
    with pytest.raises(ValueError, match="small has 2 kinds of dual_head cells, which differ in alpha"):
        mean_relative_gain(rows)
    assert mean_relative_gain(rows, options={"alpha": 1.0}).relative == pytest.approx(15)
    assert mean_relative_gain(rows, options={"alpha": 0.5}).data == ["small"]
    assert mean_relative_gain(rows, "label_only") is None
