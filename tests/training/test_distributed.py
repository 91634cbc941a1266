"""Promise 4 over ranks: two processes, under DDP or FSDP2, give the logs, weights and metrics of one."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from strangers import run_as_ranks

SCRIPT = Path(__file__).with_name("ddp_run.py")


@pytest.fixture(scope="module")
def results(lm_dir_of, encoded, tmp_path_factory):
    """For each number of ranks, and each run of the script: its logs and metrics, and its weights."""
    folder = tmp_path_factory.mktemp("ddp")
    encoded.save_to_disk(folder / "rows")
    inputs = [str(lm_dir_of("llama")), str(lm_dir_of("llama-tied")), str(folder / "rows")]
    runpy.run_path(str(SCRIPT))["main"](*inputs, str(folder / "1"), 8, 1)
    for code, printed in run_as_ranks(SCRIPT, *inputs, folder / "2", 2, 2):
        assert code == 0, printed
    return {
        ranks: {
            run.name: (json.loads((run / "result.json").read_text()), torch.load(run / "weights.pt"))
            for run in (folder / str(ranks)).iterdir()
        }
        for ranks in (1, 2)
    }


@pytest.mark.parametrize(
    "run",
    [
        *("dual", "targets-on-one-rank", "baseline", "lora", "padding-free", "auto"),
        *("soft-targets", "soft-targets-cached"),
        *("fsdp-tied", "fsdp-baseline", "fsdp-lora", "fsdp-soft-targets"),
    ],
)
def test_two_ranks_are_one_process(results, run):
    (one, one_weights), (two, two_weights) = results[1][run], results[2][run]
    assert (one["ranks"], two["ranks"]) == (1, 2)
    assert (one["sharded"], two["sharded"]) == (False, run.startswith("fsdp"))

    steps = [[log for log in result["logs"] if "loss" in log] for result in (one, two)]
    assert len(steps[0]) == len(steps[1]) == 2
    terms = ["loss", "classification_loss"] + ["reasoning_loss"] * (not run.endswith("baseline"))
    terms += ["distillation_loss"] * ("soft-targets" in run)
    for expected, found in zip(*steps, strict=True):
        assert {name for name in found if "loss" in name} == set(terms)
        for name in terms:
            assert found[name] == pytest.approx(expected[name], rel=1e-5), name
        assert ("alpha" in found) == ("alpha" in expected) == run.endswith("auto")
        assert found.get("alpha", 1) == pytest.approx(expected.get("alpha", 1), rel=1e-5)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)

    if run.endswith("auto"):
        assert steps[1][0]["alpha"] == 1.0 != steps[1][1]["alpha"]

    assert two_weights.keys() == one_weights.keys()
    for name in one_weights:
        torch.testing.assert_close(two_weights[name], one_weights[name], rtol=1e-5, atol=1e-5, msg=name)

    for name in ("eval_loss", "eval_classification_loss", "eval_accuracy", "eval_macro_f1"):
        assert two["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-5), name


def test_sharding_in_bf16_divides_by_exact_counts(results):
    one, two = (results[ranks]["fsdp-bf16"][0] for ranks in (1, 2))
    assert two["sharded"]
    # One step of one batch, or of two micro-batches: each is told the counts of all.
    assert two["counts"] == [counts for counts in one["counts"] for _ in range(2)]
    assert any(float(torch.tensor(count).bfloat16()) != count for counts in one["counts"] for count in counts)
    for expected, found in zip(one["logs"], two["logs"], strict=True):
        for name in {"loss", "classification_loss", "reasoning_loss", "eval_loss"} & expected.keys():
            assert found[name] == pytest.approx(expected[name], rel=2e-2), name
