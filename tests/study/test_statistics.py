"""What a table says: against scipy, scikit-learn, the tasks' own metrics, and cases that can be worked out by hand."""

import statistics

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import t, ttest_1samp
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from dhrd_hf.evaluation.superglue_metrics import COPA, CommitmentBank, MultiRC
from dhrd_hf.study import mean_relative_gain, paired_gains, summarise
from dhrd_hf.study.groups import grouped, latest
from dhrd_hf.study.metrics import METRICS, chance, measured, score
from dhrd_hf.study.report import several_data, unpaired


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


def of_rows(metric, labels, said, logits, weights=None):
    """scikit-learn's scores, of rows with weights."""
    probabilities = softmax(logits, axis=1)
    if metric == "auroc":
        sides = [roc_auc_score(labels == it, probabilities[:, it], sample_weight=weights) for it in np.unique(labels)]
        return np.mean(sides)
    if metric == "log_loss":
        return log_loss(labels, probabilities, sample_weight=weights, labels=range(logits.shape[1]))
    if metric == "brier":
        its = {"labels": range(logits.shape[1]), "scale_by_half": False}
        return brier_score_loss(labels, probabilities, sample_weight=weights, **its)
    parts = {
        "accuracy": accuracy_score(labels, said, sample_weight=weights),
        "macro_f1": f1_score(labels, said, average="macro", zero_division=0, sample_weight=weights),
    }
    return np.mean([parts[name] for name in METRICS[metric]])


def drawn(rows=40, classes=3, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, rows)
    logits = np.round(4 * draw.normal(size=(rows, classes)) + 4 * np.eye(classes)[labels]) / 4  # some alike
    return labels, logits.argmax(1), logits


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "macro_f1+accuracy", "log_loss", "brier", "auroc"])
@pytest.mark.parametrize("classes", [2, 3])
def test_scores_and_what_items_stand_for_are_scikit_learns(metric, classes):
    """An item's influence is how the score changes with its weight."""
    labels, said, logits = drawn(classes=classes)
    value, items = measured(metric, labels, logits if metric in ("log_loss", "brier", "auroc") else said)
    assert value == pytest.approx(of_rows(metric, labels, said, logits))
    assert items.mean() == pytest.approx(value)
    for place in range(0, len(labels), 7):
        sides = []
        for step in (-1e-4, 1e-4):
            weights = np.ones(len(labels))
            weights[place] += step
            sides.append(of_rows(metric, labels, said, logits, weights))
        slope = (sides[1] - sides[0]) / 2e-4
        assert items[place] - value == pytest.approx(len(labels) * slope, abs=1e-5)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "auroc", "brier"])
def test_items_are_groups_where_rows_belong_together(metric):
    labels, said, logits = drawn()
    groups = np.random.default_rng(1).integers(0, 9, len(labels)).tolist()
    of = logits if metric in ("auroc", "brier") else said
    value, rows = measured(metric, labels, of)
    same, items = measured(metric, labels, of, groups)
    assert same == pytest.approx(value) and items.shape == (9,) and items.mean() == pytest.approx(value)
    own = sum((rows - value)[np.array(groups) == 4]) / len(labels)
    assert items[4] - value == pytest.approx(9 * own)


def test_accuracy_at_80_percent_coverage_and_its_noise():
    """Against sorting by confidence, and against the bootstrap of whole rows."""
    labels, said, logits = drawn(rows=2000, seed=3)
    logits = logits + 1e-3 * np.random.default_rng(1).normal(size=logits.shape)  # none alike
    said = logits.argmax(1)

    def naive(rows):
        confident = rows[np.argsort(-softmax(logits[rows], axis=1).max(1))][: round(0.8 * len(rows))]
        return np.mean(said[confident] == labels[confident])

    value, items = measured("accuracy_at_80", labels, logits)
    assert value == naive(np.arange(2000)) and items.mean() == pytest.approx(value)
    draw = np.random.default_rng(2)
    noise = np.std([naive(draw.integers(0, 2000, 2000)) for _ in range(600)])
    assert items.std() / np.sqrt(2000) == pytest.approx(noise, rel=0.1)
    # Where all are right there is no noise, whoever is over the threshold.
    assert measured("accuracy_at_80", said, logits)[1] == pytest.approx(np.ones(2000))


def test_a_question_is_right_where_all_its_rows_are():
    groups = [0, 0, 0, 1, 2, 2]
    value, items = measured("question_accuracy", [0, 1, 0, 1, 0, 1], [0, 1, 0, 0, 0, 1], groups)
    assert value == pytest.approx(2 / 3) and items == pytest.approx([1, 0, 1])


def test_a_class_that_is_not_there_has_no_auroc_and_one_class_has_none():
    labels, said, logits = drawn()
    two = labels < 2
    assert measured("auroc", labels[two], logits[two])[0] == pytest.approx(
        of_rows("auroc", labels[two], said[two], logits[two])
    )
    assert np.isnan(measured("auroc", [1, 1], logits[:2])[0])


def test_the_temperature_is_that_of_the_other_half():
    """Both halves are 8 times too sure: the loss at the temperature is that of the logits as they were drawn."""
    draw = np.random.default_rng(0)
    logits = 1.5 * draw.normal(size=(4000, 3))
    labels = (logits + draw.gumbel(size=logits.shape)).argmax(1)
    honest = measured("log_loss", labels, logits)[0]
    assert measured("log_loss", labels, 8 * logits)[0] > 3 * honest
    assert measured("scaled_log_loss", labels, 8 * logits)[0] == pytest.approx(honest, rel=2e-3)
    # Not of its own half: where the halves want different ones, both lose by it. Of two items each is a half.
    apart, wrong = np.array([[3.0, 0.0], [3.0, 0.0]]), [0, 1]
    found = measured("scaled_log_loss", wrong, apart)[1]
    # The wrong item wants to be as little sure as can be (T of 20), at which the right one is read, and that surer.
    low, high = sorted(found)
    assert low == pytest.approx(np.log1p(np.exp(-3 / 20)), rel=1e-3) and high > 30


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


# Intervals


def test_one_seed_has_the_interval_of_scipys_t_test():
    draw = np.random.default_rng(0)
    base = draw.random(200) < 0.6
    ours = np.where(draw.random(200) < 0.8, base, draw.random(200) < 0.9)
    rows = [row("pooled", list(base)), row("dual_head", list(ours))]
    (gain,) = paired_gains(rows)
    own = ttest_1samp(100 * (ours.astype(float) - base), 0).confidence_interval()
    assert (gain.low, gain.high) == (pytest.approx(own.low), pytest.approx(own.high))
    own = ttest_1samp(base.astype(float), 0).confidence_interval()
    assert (summarise(rows)[0].low, summarise(rows)[0].high) == (pytest.approx(own.low), pytest.approx(own.high))
    assert summarise(rows)[0].sd is None


def test_seeds_that_differ_on_all_items_alike_have_the_interval_of_their_t_test():
    """Of 40 questions each seed has so many right in each: the gain varies from seed to seed alone."""
    groups = np.repeat(np.arange(40), 20).tolist()
    rights = {"pooled": (8, 10, 9), "dual_head": (12, 11, 16)}
    rows = [
        row(setting, (np.arange(800) % 20 < right).tolist(), seed, groups=groups)
        for setting, its in rights.items()
        for seed, right in enumerate(its)
    ]
    own = ttest_1samp(5.0 * np.subtract(rights["dual_head"], rights["pooled"]), 0).confidence_interval()
    (gain,) = paired_gains(rows)
    assert (gain.low, gain.high) == (pytest.approx(own.low), pytest.approx(own.high))


def test_the_relative_gain_is_the_ratio_to_first_order():
    """The delta method, written out for one seed: the gain of (a - r b) / mean(b)."""
    draw = np.random.default_rng(0)
    base, ours = draw.random(150) < 0.6, draw.random(150) < 0.7
    (gain,) = paired_gains([row("pooled", list(base)), row("dual_head", list(ours))])
    whole = ours.mean() / base.mean()
    error = np.std((ours - whole * base) / base.mean(), ddof=1) / np.sqrt(150)
    half = 100 * t.ppf(0.975, 149) * error
    assert (gain.relative_low, gain.relative_high) == pytest.approx((gain.relative - half, gain.relative + half))


def test_two_seeds_that_differ_say_little_and_nothing_impossible():
    rows = [row("pooled", share(count, 40), seed) for seed, count in enumerate((8, 12))]
    rows += [row("dual_head", share(count, 40), seed) for seed, count in enumerate((4, 36))]
    (pooled, dual), (gain,) = summarise(rows), paired_gains(rows)
    assert (dual.low, dual.high) == (0, 1) and 0 <= pooled.low < pooled.high <= 1
    assert (gain.low, gain.high, gain.relative_low) == (-100, 100, -100) and gain.relative_high > 400


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


def test_a_run_that_stands_twice_counts_as_it_was_last_and_stands_where_it_was_first():
    first, other, again = row("pooled", share(1, 40)), row("dual_head", share(2, 40)), row("pooled", share(3, 40))
    assert latest([first, other, again]) == ([again, other], 1)


def test_the_baseline_is_the_one_of_several_that_has_the_most_seeds():
    rows = [row("pooled", share(10, 40), 1, beta=0.5), *(row("pooled", share(20, 40), seed) for seed in (1, 2))]
    (gain,) = paired_gains([*rows, *(row("dual_head", share(22, 40), seed) for seed in (1, 2))])
    assert (gain.n_seeds, gain.baseline_score) == (2, 0.5)


def test_an_option_of_no_value_is_one_that_is_not_there():
    rows = [row("pooled", share(20, 40), options={"suffix": None, "lora": True})]
    rows += [
        row("pooled", share(20, 40), options={"lora": False}),
        row("dual_head", share(22, 40), options={"lora": True}),
    ]
    assert [it.gain for it in paired_gains(rows)] == [pytest.approx(5)]


def test_with_another_baseline_alpha_counts():
    rows = [row("dual_head", share(count, 40), alpha=alpha) for alpha, count in ((0.5, 40), (1.0, 30))]
    rows += [row("label_only", share(20, 40))]
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


def test_one_test_item_has_a_score_and_no_interval():
    rows = [row("pooled", [False]), row("dual_head", [True])]
    (gain,), (pooled, _) = paired_gains(rows), summarise(rows)
    assert gain.gain == 100 and np.isnan([gain.low, gain.high, pooled.low, pooled.high]).all()


def test_groups_that_an_older_table_lacks_are_those_of_the_cells_beside_it():
    groups = [place // 2 for place in range(40)]
    rows = [row("pooled", share(20, 40)), row("dual_head", share(30, 40), groups=groups)]
    rows += [row("dual_head", share(28, 40), 1), row("cot_decoding", share(4, 8), beta=0.0)]
    gain, cot = paired_gains(rows)
    assert (gain.n_items, gain.gain, cot.n_items) == (20, 25.0, 8)
    assert {it.setting: it.n_items for it in summarise(rows)} == {"pooled": 40, "dual_head": 20, "cot_decoding": 8}
    other_way = paired_gains([row("dual_head", share(30, 40)), row("pooled", share(20, 40), groups=groups)])
    assert (other_way[0].n_items, other_way[0].gain) == (20, 25.0)
    everywhere = [{**it, "groups": groups[: len(it["labels"])]} for it in rows]
    assert paired_gains(everywhere)[0] == gain


def test_sides_with_their_own_options_are_paired_where_each_data_set_has_its_own_prompt():
    rates = {"pooled": 1e-4, "dual_head": 2e-4}
    rows = [
        row(it, share(right, 40), data=data, options={"prompt": f"{data} {{text}}", "learning_rate": rates[it]})
        for data, rights in (("a", (20, 30)), ("b", (10, 12)))
        for it, right in zip(rates, rights, strict=True)
    ]
    assert [(it.data, it.gain) for it in paired_gains(rows)] == [("a", 25.0), ("b", 5.0)]
    # Of another rate the pooled side has no one set of options of its own.
    rows.append(row("pooled", share(20, 40), options={"learning_rate": 3e-4}))
    assert paired_gains(rows) == []


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
    with pytest.raises(ValueError, match="2 kinds of dual_head runs, which differ in rows_digest: .* 'b'"):
        mean_relative_gain([*both, row("dual_head", share(20, 40), rows_digest="a")])


def test_decoding_of_fewer_rows_is_of_the_same_data():
    rows = [row("pooled", share(10, 40), eval_rows=40, rows_digest="a")]
    rows += [row("cot_decoding", share(4, 8), beta=0.0, eval_rows=8, rows_digest="a")]
    assert [it.n_items for it in paired_gains(rows)] == [8] and several_data(grouped(rows)) == []
    # Also where those of fewer rows are the baseline.
    assert [it.n_items for it in paired_gains(rows, baseline="cot_decoding")] == [8]
    # Beside several evaluation sizes pooled cells of the same are the baseline.
    rows += [row(it, share(4, 20), eval_rows=20, rows_digest="a") for it in ("pooled", "dual_head")]
    assert [it.baseline_score for it in paired_gains(rows) if it.setting == "dual_head"] == [0.2]


def test_a_cell_that_failed_before_its_rows_were_known_is_one_with_that_which_ran():
    done = row("pooled", share(20, 40), eval_rows=40, rows_digest="a")
    failed = [{**done, "status": "failed", "eval_rows": None, "rows_digest": it} for it in (None, "a")]
    assert latest([*failed, done]) == latest([failed[0], done, failed[1]]) == ([done], 0)
    assert latest(failed) == ([failed[1]], 0)


@pytest.mark.parametrize("right", [0, 20])
def test_a_baseline_of_zero_has_no_relative_gain(right):
    rows = [row("pooled", share(0, 40)), row("dual_head", share(right, 40))]
    (gain,) = paired_gains(rows)
    assert np.isnan([gain.relative, gain.relative_low, gain.relative_high]).all() and gain.gain == 100 * right / 40
    rows += [row("pooled", share(20, 40), data="other"), row("dual_head", share(24, 40), data="other")]
    mean = mean_relative_gain(rows)
    assert np.isnan(mean.relative) and mean.low < mean.gain < mean.high and mean.relative_of_means > 0


# The mean over data sets


def two_sets(seeds=(0, 1)):
    counts = {("small", "pooled"): 50, ("small", "dual_head"): 60, ("large", "pooled"): 80, ("large", "dual_head"): 88}
    return [row(setting, share(n, 100), seed, data) for seed in seeds for (data, setting), n in counts.items()]


def test_the_mean_over_data_sets_is_a_macro_average():
    """+20% and +10%: 15% on average; the averages, 65 to 74, gain 13.8%."""
    mean = mean_relative_gain(two_sets())
    assert mean.data == ["small", "large"] and mean.n_items == 200 and mean.n_seeds == 2
    fewer = mean_relative_gain(two_sets()[:-1])
    assert (fewer.n_seeds, fewer.unpaired, mean.unpaired) == (1, 1, 0)  # the fewest of a data set
    assert mean.relative == pytest.approx(15) and mean.gain == pytest.approx(9)
    assert mean.relative_of_means == pytest.approx(100 * 9 / 65)
    assert mean.relative_low < 15 < mean.relative_high
    assert mean.relative_of_means_low < mean.relative_of_means < mean.relative_of_means_high


def test_the_interval_of_a_mean_is_narrower_than_its_parts():
    rows = two_sets()
    mean = mean_relative_gain(rows)
    parts = [it.high - it.low for it in paired_gains(rows)]
    # Of independent parts: half the root of the sum of squares.
    assert mean.high - mean.low == pytest.approx(np.hypot(*parts) / 2, rel=0.01)


def test_a_mean_over_cells_of_several_kinds_asks_which():
    rows = [*two_sets(), row("dual_head", share(70, 100), 0, "small", alpha=0.5)]
    with pytest.raises(ValueError, match="small has 2 kinds of dual_head runs, which differ in alpha"):
        mean_relative_gain(rows)
    assert mean_relative_gain(rows, options={"alpha": 1.0}).relative == pytest.approx(15)
    assert mean_relative_gain(rows, options={"alpha": 0.5}).data == ["small"]
    assert mean_relative_gain(rows, "label_only") is None
