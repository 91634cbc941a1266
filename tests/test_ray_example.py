"""`examples/predict_with_ray.py` by a real Ray: the rows and labels of `dhrd predict`, also where a worker is killed midway."""

import importlib.util
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from dhrd_hf import export_classifier
from dhrd_hf.cli import main

EXAMPLE = Path(__file__).parents[1] / "examples" / "predict_with_ray.py"
LABELS = {0: "entailed", 1: "refuted", 2: "unknown"}
ROWS = 1200
WAIT = 900  # seconds; half a minute where the machine has nothing else to do

pytestmark = pytest.mark.slow


@pytest.fixture
def started():
    """`started(module or file, *options)` starts it in an environment with Ray; what is still there ends with the test."""
    found = os.environ.get("RAY_PYTHON") or (sys.executable if importlib.util.find_spec("ray") else None)
    if not found:
        pytest.skip(
            "no ray: python -m venv R; R/bin/pip install 'ray[data]' transformers torch; RAY_PYTHON=R/bin/python"
        )
    processes = []

    def run(*words, **options):
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RAY_"))}
        environ = {**own, "RAY_USAGE_STATS_ENABLED": "0", **options.pop("env", {})}
        processes.append(subprocess.Popen([found, *words], env=environ, text=True, **options))
        return processes[-1]

    yield run
    for process in processes:
        process.terminate()
        process.wait(60)


@pytest.fixture
def made(dual_of, bos_tokenizer, rows, tmp_path):
    """An export and a folder of Parquet files, three of whose rows have no text, with what `dhrd predict` says of them."""
    model = dual_of("llama", max_input_length=60, prompt_template="Q: {text}", id2label=LABELS)
    with torch.no_grad():
        model.score.weight.mul_(4)
    export_classifier(model, bos_tokenizer, tmp_path / "classifier")
    texts = [f"{number}: {rows[number % len(rows)]['text']}" for number in range(ROWS)]
    texts[7], texts[300], texts[301] = None, "", "  "
    table = pd.DataFrame({"number": np.arange(ROWS), "text": texts})
    table.to_parquet(tmp_path / "texts.parquet")
    (tmp_path / "texts").mkdir()
    for start in range(0, ROWS, 500):
        table[start : start + 500].to_parquet(tmp_path / "texts" / f"{start:04}.parquet")
    said = tmp_path / "said.parquet"
    command = ["predict", "--model", str(tmp_path / "classifier"), "--data", str(tmp_path / "texts.parquet")]
    assert main([*command, "--output", str(said)]) == 0
    return pd.read_parquet(said)


def label(started, folder, *options, env=None):
    """The example at work on the folder's files; what it prints goes to `log`."""
    words = [EXAMPLE, "--model", folder / "classifier", "--data", folder / "texts", "--output", folder / "out"]
    with (folder / "log").open("a") as log:
        return started(*words, *options, stdout=log, stderr=subprocess.STDOUT, env=env or {})


def written(folder):
    return sorted((folder / "out").glob("*.parquet"))


def same(folder, said):
    found = pd.concat([pd.read_parquet(path) for path in written(folder)], ignore_index=True)
    assert list(found["number"]) == list(range(ROWS))
    assert found["predicted_label"].isna().sum() == 3 and found["predicted_label"].nunique() > 1
    pd.testing.assert_series_equal(
        found["predicted_label"].astype(object).fillna(""), said["predicted_label"].astype(object).fillna("")
    )
    probabilities = [f"probability_{name}" for name in LABELS.values()]
    np.testing.assert_allclose(found[probabilities], said[probabilities], atol=1e-5)


def test_a_ray_cluster_by_its_address_gives_the_rows_and_labels_of_dhrd_predict(started, made, tmp_path):
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # of this test's cluster alone
    options = ["--node-ip-address", "127.0.0.2", "--port", "0", "--num-cpus", "3", "--include-dashboard", "false"]
    head = ["-m", "ray.scripts.scripts", "start", "--head", *options, "--block"]
    cluster = started(*head, stdout=subprocess.PIPE, env=token)
    address = next(line.split("'")[1] for line in cluster.stdout if "--address='" in line)
    run = label(started, tmp_path, "--address", address, env=token)
    assert run.wait(WAIT) == 0, (tmp_path / "log").read_text()[-4000:]
    assert f"Connecting to existing Ray cluster at address: {address}" in (tmp_path / "log").read_text()
    same(tmp_path, made)
    assert len(written(tmp_path)) == 1


def test_ray_adds_nothing_to_a_folder_that_is_there(started, made, tmp_path):
    (tmp_path / "out").mkdir()
    made.to_parquet(tmp_path / "out" / "other.parquet")
    run = label(started, tmp_path)
    assert run.wait(WAIT) != 0 and "already exists" in (tmp_path / "log").read_text()
    assert [path.name for path in written(tmp_path)] == ["other.parquet"]


def test_a_ray_worker_killed_midway_loses_no_row_and_doubles_none(started, made, tmp_path):
    run = label(started, tmp_path, "--rows-per-batch", "16", "--rows-per-file", "16")
    before = 0
    while run.poll() is None and not before:
        time.sleep(0.02)
        if len(written(tmp_path)) > 1:
            below = psutil.Process(run.pid).children(recursive=True)
            next(it for it in below if "MapWorker" in " ".join(it.cmdline())).kill()
            before = len(written(tmp_path))
    assert run.wait(WAIT) == 0, (tmp_path / "log").read_text()[-4000:]
    assert 0 < before < len(written(tmp_path)) == ROWS // 16
    same(tmp_path, made)
