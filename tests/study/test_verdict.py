"""What `dhrd pilot` decides of runs whose truth is known, since they are drawn: how often it errs, and how often it sees."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from dhrd_hf.study import pilot
from dhrd_hf.study.intervals import noise, seeds_for
from dhrd_hf.study.pilot import Plan, cost_of, gains_table, judge, rows_saved, said, verdict_of

SIDES = ("rationales", "pooled", "equal_seconds", "shuffled")
BETWEEN, ALIKE = (
    0.1,
    1.0,
)  # how far seeds differ, and how hard rows are for all runs, beside a run's own noise on a row


def runs(draw, accuracies, seeds, rows):
    """Of each side with an accuracy what is right, and its log loss `[seeds, rows]`."""
    scale = np.sqrt(1 + BETWEEN**2 + ALIKE**2)
    hard = ALIKE * draw.normal(size=rows)
    margins = [
        norm.ppf(accuracy) * scale + BETWEEN * draw.normal(size=(seeds, 1)) + hard + draw.normal(size=(seeds, rows))
        for accuracy in accuracies
    ]
    return [(margin > 0).astype(float) for margin in margins], [np.logaddexp(0, -2 * margin) for margin in margins]


def parts_of(right, losses):
    found = {}
    for place, control in enumerate(SIDES[1:], 1):
        less = losses[place] - losses[0]
        found[control] = {"accuracy": 100 * (right[0] - right[place]), "log_loss": less, "scaled_log_loss": less}
    return found


def share_of(word, accuracies, trials=120, seeds=5, rows=400, worth=1.0, seed=0):
    """How many verdicts of pilots with these true accuracies are the word, and of estimates what their true error makes likely."""
    draw = np.random.default_rng(seed)
    drawn = [parts_of(*runs(draw, accuracies, seeds, rows)) for _ in range(trials)]
    return np.mean([judge(parts, worth=worth).verdict == word for parts in drawn]), drawn


@pytest.fixture(autouse=True)
def _quick(monkeypatch, request):
    """Most of a verdict's time goes into what could have been seen, which decides nothing."""
    if "share_of" in request.function.__code__.co_names:
        monkeypatch.setattr(pilot, "visible_gain", lambda *_: 3.0)
        monkeypatch.setattr(pilot, "seeds_for", lambda *_: 9)


def oracle(drawn, sides=SIDES[1:]):
    """How often accuracy or log loss is clear of 0 for someone who knows the true error of each gain, by their spread over pilots."""
    found = []
    for measure in ("accuracy", "log_loss"):
        means = np.array([[parts[side][measure].mean() for side in sides] for parts in drawn])
        found.append((means > norm.ppf(1 - 0.025 / 2) * means.std(0)).all(1))
    return np.mean(found[0] | found[1])


@pytest.mark.parametrize(
    ("truth", "accuracies"),
    [
        ("no gain", (0.75, 0.75, 0.75, 0.75)),
        ("as much by shuffled ones", (0.85, 0.7, 0.7, 0.85)),
        ("by training time alone", (0.85, 0.7, 0.85, 0.7)),
        ("by an undertrained control at equal seconds", (0.85, 0.85, 0.7, 0.7)),
        ("a loss", (0.7, 0.75, 0.75, 0.75)),
    ],
)
def test_where_nothing_is_gained_at_most_five_of_a_hundred_say_buy(truth, accuracies):
    share, drawn = share_of("buy", accuracies)
    assert share <= 0.05
    assert abs(share - oracle(drawn)) <= 0.03


def test_an_error_rate_of_almost_none_would_be_caution_that_nobody_asked_for():
    # One control alone decides: of either measure 1.25 of 100 are above the interval, and they mostly go together.
    share, _ = share_of("buy", (0.85, 0.6, 0.6, 0.85), trials=600, rows=150)
    assert 0.004 <= share <= 0.04


def test_a_gain_is_seen_as_often_as_its_error_lets_it():
    share, drawn = share_of("buy", (0.79, 0.75, 0.75, 0.75), trials=200, seeds=15, rows=200)
    assert 0.5 < oracle(drawn) < 0.95  # neither always nor never
    assert oracle(drawn) - 0.15 <= share <= oracle(drawn) + 0.02
    # Five seeds know their own error badly, and see less; more of a gain they see.
    assert 0.1 < share_of("buy", (0.8, 0.75, 0.75, 0.75), trials=100)[0] < 0.6
    assert share_of("buy", (0.9, 0.75, 0.75, 0.75), trials=50)[0] > 0.95


def below_worth(drawn, worth=1.0):
    """How often a gain is clearly below what is worth having, for who knows the true error."""
    means = np.array([[parts[side]["accuracy"].mean() for side in SIDES[1:]] for parts in drawn])
    return (means < worth - norm.ppf(1 - 0.025 / 2) * means.std(0)).any(1).mean()


def test_do_not_buy_is_said_of_a_gain_worth_having_at_most_five_times_of_a_hundred():
    share, drawn = share_of("do not buy", (0.76, 0.75, 0.75, 0.75), trials=400)
    assert 0.004 <= share <= 0.05 and abs(share - below_worth(drawn)) <= 0.02


def test_a_loss_is_seen_as_often_as_its_error_lets_it():
    share, drawn = share_of("do not buy", (0.73, 0.75, 0.75, 0.75), trials=200, seeds=15)
    assert 0.4 < below_worth(drawn) < 0.95
    assert below_worth(drawn) - 0.15 <= share <= below_worth(drawn) + 0.02


# One pilot


@pytest.fixture
def gain():
    """Parts with known gains: of each control its points of accuracy, and how much less log loss."""

    def make(points=(8, 8, 8), nats=(0.2, 0.2, 0.2), scaled=None, seeds=4, rows=900):
        draw = np.random.default_rng(0)

        def part(mean, deviation):
            of = draw.normal(0, deviation, (seeds, rows))
            return mean + of - of.mean()

        return {
            control: {
                "accuracy": part(points[at], 40),
                "log_loss": part(nats[at], 0.5),
                "scaled_log_loss": part((scaled or nats)[at], 0.5),
            }
            for at, control in enumerate(SIDES[1:])
        }

    return make


@pytest.mark.parametrize(
    ("points", "nats", "scaled", "expected"),
    [
        ((8, 8, 8), (0, 0, 0), None, "buy"),
        ((8, 8, 8), (0, -0.3, 0), None, "cannot tell"),  # worse in the other, over one control
        ((1, 1, 1), (0.2, 0.2, 0.2), None, "buy"),
        ((1, 1, 1), (0.2, 0.2, 0.2), (0.2, 0.2, 0), "cannot tell"),  # what a temperature would do
        ((1, 1, 1), (0.2, 0, 0.2), None, "cannot tell"),
        ((8, 1, 8), (0, 0, 0), None, "cannot tell"),
        ((8, 8, 1), (0, 0, 0), None, "cannot tell"),
        ((8, 8, -8), (0.2, 0.2, 0.2), None, "do not buy"),
        ((8, -8, 8), (0.2, 0.2, 0.2), None, "do not buy"),  # accuracy goes first
    ],
)
def test_each_clause_of_the_rule(gain, points, nats, scaled, expected):
    assert judge(gain(points, nats, scaled)).verdict == expected


def test_controls_that_had_less_than_their_due_make_no_buy(gain):
    assert judge(gain()).verdict == "buy"
    found = judge(gain(), doubts=["pooled was still learning"])
    assert found.verdict == "cannot tell" and "still learning" in found.why
    assert judge(gain((-8, -8, -8)), doubts=["pooled was still learning"]).verdict == "do not buy"


def test_the_smallest_gain_worth_having_is_the_users(gain):
    assert judge(gain((8, 8, 8)), worth=20).verdict == "do not buy"
    assert judge(gain((8, 8, 8)), worth=9).verdict == "buy"
    assert judge(gain((-1, -1, -1), (0, 0, 0)), worth=0).verdict == "cannot tell"


@pytest.mark.parametrize(("seeds", "rows"), [(1, 900), (3, 1)])
def test_one_seed_or_one_row_tells_nothing(gain, seeds, rows):
    found = judge(gain((50, 50, 50), seeds=seeds, rows=rows))
    assert found.verdict == "cannot tell" and said(found)


def test_runs_that_answer_alike_on_few_rows_are_no_proof():
    same = {it: np.zeros((3, 45)) for it in pilot.MEASURES}
    found = judge(dict.fromkeys(SIDES[1:], same))
    assert found.verdict == "cannot tell"
    # Of none in 45 the exact bound is 1 - 0.0125 ** (1 / 45), 9 points.
    assert 5 < found.gains["shuffled"]["accuracy"][2] < 11


def test_what_could_have_been_seen_and_what_would_tell_more(gain):
    draw = np.random.default_rng(1)
    found = judge(parts_of(*runs(draw, (0.77, 0.76, 0.76, 0.76), 3, 4000)))
    assert found.verdict == "cannot tell" and found.to_tell == 1.0
    # Were this gain true, 80 of 100 would see it: its error is about a third of it.
    half = max(its["accuracy"][2] - its["accuracy"][1] for its in found.gains.values()) / 2
    assert half < found.visible_points < 2 * half
    assert found.seeds_needed > 3 or found.test_rows_needed > 4000
    # Of the control that hides a gain the most.
    parts = gain((1, 1, 1), (0, 0, 0), seeds=6)
    noisy = parts["shuffled"]["accuracy"] = parts["shuffled"]["accuracy"] + 5 * draw.normal(size=(6, 1))
    found, rest = judge(parts), judge(dict.fromkeys(parts, parts["pooled"]))
    padded = np.pad(noisy, ((0, 0), (1, 1)), constant_values=((0, 0), (100, -100)))
    assert found.seeds_needed == seeds_for(noise([padded]), found.to_tell, 0.975) > 10 * rest.seeds_needed
    assert found.visible_points > 2 * rest.visible_points
    few = judge(parts_of(*runs(draw, (0.77, 0.76, 0.76, 0.76), 3, 100)))
    assert few.seeds_needed is None and few.test_rows_needed > 2000  # 1 point of 100 rows is a row
    assert f"takes about {few.test_rows_needed} test rows" in said(few)[2]


def test_a_point_costs_what_the_better_pooled_leaves(gain):
    found = judge(gain((10, 8, 2)))
    cost = cost_of(found, 100, 0.02)
    assert cost["total"] == pytest.approx(2) and cost["a_point"] == pytest.approx(0.25)
    low, high = (min(found.gains[it]["accuracy"][at] for it in SIDES[1:3]) for at in (1, 2))
    assert (cost["low"], cost["high"]) == (pytest.approx(2 / high), pytest.approx(2 / low))
    assert any("a point costs 0.25 [" in line for line in said(replace(found, cost=cost)))
    none = cost_of(judge(gain((-8, 4, 2))), 100, 0.02)
    assert (none["a_point"], none["low"], none["high"]) == (None, None, None)
    assert any("no point was gained" in line for line in said(replace(found, cost=none)))
    unsure = cost_of(judge(gain((1, 1, 1))), 100, 0.02)
    assert unsure["high"] is None and any("no end]" in line for line in said(replace(found, cost=unsure)))
    assert cost_of(found, 100, None) is None


def test_the_table_shows_each_gain_with_its_interval(gain):
    found = judge(gain((8, 4, 2)))
    table = gains_table(found)
    assert [row[0] for row in table.rows] == list(pilot.CONTROLS.values())
    low, high = found.gains["equal_seconds"]["accuracy"][1:]
    assert table.rows[1][1] == f"+4.0 [{low:+.1f}, {high:+.1f}]"


# Rows saved


def curve(draw, shares, seeds=4, rows=1500):
    """Accuracies of ours, of pooled at some rows and at twice as many, the first so far on the way from these."""
    base, more = 0.65, 0.8
    return runs(draw, (base + shares * (more - base), base, more), seeds, rows)[0]


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_rows_saved_are_where_pooled_has_the_same_score(share):
    draw, held, trials = np.random.default_rng(0), 0, 60
    for _ in range(trials):
        found = rows_saved(*curve(draw, share), 100, 200)
        true = 100 * 2**share - 100
        held += found["low"] - 1 <= true <= (found["high"] or 1e9) + 1
    assert 0.87 <= held / trials <= 1
    assert abs(found["saved"] - true) < 30


@pytest.mark.parametrize(
    ("share", "low", "saved", "high", "said"),
    [(-1, 0, 0, 0, "0 [0, 0]"), (2, 100, 100, None, "at least 100 [100, at least 100]")],
)
def test_rows_saved_beyond_the_curve_are_none_or_at_least_its_end(share, low, saved, high, said):
    found = rows_saved(*curve(np.random.default_rng(0), share), 100, 200)
    assert (found["low"], found["saved"], found["high"]) == (low, saved, high) and said in found["said"]


def test_rows_saved_cannot_be_told_where_more_rows_gain_nothing():
    ours, base, _ = curve(np.random.default_rng(0), 0.5)
    found = rows_saved(ours, base, base[::-1], 100, 200)
    assert found["saved"] is None and "can't be told" in found["said"]
    assert rows_saved(ours[:1], base[:1], base[:1], 100, 200)["saved"] is None


# A table of runs


def table_of(plan, seeds=(0, 1, 2), equal_share=1.0, losses=(0.6, 0.5, 0.499), **accuracies):
    """The rows that a plan's runs would leave; each side's accuracy."""
    rows = []
    for side, its in plan.sides.items():
        for seed in seeds:
            options = {"num_train_epochs": its["num_train_epochs"]}
            rows.append({**its, "seed": seed, "status": "done", "options": options, "accuracy": accuracies[side]})
            seconds = {"rationales": 100.0, "equal_seconds": 100.0 * equal_share}.get(side, 50.0)
            told = [{"classification_loss": it} for it in losses]
            rows[-1] |= {"train_seconds": seconds, "epoch_metrics": told}
    return rows


@pytest.fixture
def plan(tmp_path):
    columns = {"label_column": "label", "rationale_column": "rationale"}
    return Plan(tmp_path, "tiny", {}, columns, rows=100, more_rows=200, epochs=10, equal_epochs=15)


@pytest.fixture
def known_scores(monkeypatch):
    """What a run is right about, of its accuracy, in place of what its files say."""

    def scores(rows, measure):
        draw = np.random.default_rng(0)
        found = np.stack([draw.random(3000) < row["accuracy"] for row in rows]).astype(float)
        return found if measure == "accuracy" else 1 - found

    monkeypatch.setattr(pilot, "scored", scores)


BETTER = {"rationales": 0.8, "pooled": 0.7, "equal_seconds": 0.7, "shuffled": 0.7, "more": 0.9}


def test_each_side_of_a_table_is_compared_on_the_seeds_that_all_have(plan, known_scores):
    rows = table_of(plan, **BETTER)
    found = verdict_of(plan, rows, 1.0, None)
    assert (found.verdict, found.seeds, found.cost) == ("buy", 3, None)
    assert 30 < found.saved["accuracy"]["saved"] < 52  # half of the way on a log scale: 41
    assert 30 < found.saved["log_loss"]["saved"] < 52
    for side in SIDES:
        worse = table_of(plan, **(BETTER | {"rationales": 0.7} if side == "rationales" else BETTER | {side: 0.8}))
        assert verdict_of(plan, worse, 1.0, None).verdict != "buy"
    lacking = [row for row in rows if (row["setting"], row["seed"]) != ("shuffled_rationale", 1)]
    assert verdict_of(plan, lacking, 1.0, None).seeds == 2
    failed = [{**row, "status": "failed"} if row["seed"] == 1 else row for row in rows]
    assert verdict_of(plan, failed, 1.0, None).seeds == 2
    assert verdict_of(plan, [row for row in rows if row["setting"] == "pooled"], 1.0, None) is None


def test_of_half_of_the_rows_pooled_on_all_is_the_end_of_the_curve(plan, known_scores):
    plan = replace(plan, more_rows=None)
    half = {"half_rationales": 0.75, "half": 0.7, "pooled": 0.8, "equal_seconds": 0.8, "shuffled": 0.8}
    found = verdict_of(plan, table_of(plan, **{**half, "rationales": 0.85}), 1.0, None).saved["accuracy"]
    assert (found["rows"], found["more_rows"]) == (50, 100) and 14 < found["saved"] < 27  # 21


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"equal_share": 0.8}, "80% of their seconds"),
        ({"losses": (0.6, 0.5, 0.45)}, "--num-train-epochs 20"),
        ({"losses": (0.6,)}, "--num-train-epochs 20"),
    ],
)
def test_an_undertrained_control_makes_no_buy(plan, known_scores, change, said):
    assert verdict_of(plan, table_of(plan, **BETTER), 1.0, None).verdict == "buy"
    found = verdict_of(plan, table_of(plan, **BETTER, **change), 1.0, None)
    assert found.verdict == "cannot tell" and said in found.why
    assert verdict_of(plan, table_of(plan, **BETTER, losses=(0.4, 0.5, 0.45)), 1.0, None).verdict == "buy"


def test_equal_seconds_are_told_by_the_epochs_that_fit(plan):
    fast, slow = {"train_samples_per_second": 30.0}, {"train_samples_per_second": 20.0}
    assert plan.with_equal_epochs(slow, fast).equal_epochs == 15
    assert plan.with_equal_epochs({"train_samples_per_second": 19.0}, fast).equal_epochs == 16  # no less than as long
    assert plan.with_equal_epochs(fast, slow).equal_epochs == 10  # nor fewer than the best epoch is chosen of
    fast |= {"seconds": 30.0, "train_seconds": 20.0}
    slow |= {"seconds": 45.0, "train_seconds": 30.0}
    assert plan.seconds(slow, fast) == {
        "rationales": 15 + 10 * 100 / 20,
        "pooled": 10 + 10 * 100 / 30,
        "shuffled": 15 + 10 * 100 / 20,
        "equal_seconds": 10 + 15 * 100 / 30,
        "more": 10 + 10 * 200 / 30,
    }
    half = replace(plan, more_rows=None).seconds(slow, fast)
    assert half["half"] == 10 + 10 * 50 / 30 and half["half_rationales"] == 15 + 10 * 50 / 20
