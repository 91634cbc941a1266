"""Sharded over two processes (`tp_plan="auto"`), a model gives what it gives whole."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dhrd_hf import export_classifier

SCRIPT = Path(__file__).with_name("tensor_parallel_run.py")
MODELS = ("new", "tied", "untied", "mlp", "stock")


@pytest.fixture(scope="module")
def results(lm_dir_of, dual_of, tokenizer, encoded, tmp_path_factory):
    """For one process and for two: the logits, losses and gradients of each model."""
    folder = tmp_path_factory.mktemp("tensor-parallel")
    encoded.save_to_disk(folder / "rows")
    models = {"new": lm_dir_of("llama-tied")}
    for name, family, head in (
        ("tied", "llama-tied", "linear"),
        ("untied", "llama", "linear"),
        ("mlp", "llama-tied", "mlp"),
    ):
        models[name] = folder / name
        dual_of(family, classifier_head=head).save_pretrained(models[name])
        tokenizer.save_pretrained(models[name])
    export_classifier(dual_of("llama-tied"), tokenizer, folder / "stock")
    models["stock"] = folder / "stock"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT)]
    found = {}
    for ranks in (2, 1):
        (folder / str(ranks)).mkdir()
        inputs = [str(folder / str(ranks)), str(folder / "rows"), *(f"{name}={path}" for name, path in models.items())]
        if ranks == 1:
            runpy.run_path(str(SCRIPT))["main"](*inputs)
        else:
            process = subprocess.run([*torchrun, *inputs], capture_output=True, text=True, timeout=300)
            assert process.returncode == 0, process.stderr
        found[ranks] = torch.load(folder / str(ranks) / "found.pt")
        models["new"] = folder / "2" / "drawn"  # with the head that the ranks drew
    return found


@pytest.mark.parametrize("name", MODELS)
def test_two_ranks_give_what_one_process_gives(results, name):
    whole, sharded = results[1][name], results[2][name]
    assert whole.keys() == sharded.keys()
    for key, expected in whole.items():
        torch.testing.assert_close(
            sharded[key], expected, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
        )
