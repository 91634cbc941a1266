"""The example from a CSV to a classifier, with a real server."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import pipeline

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "openai")),
    reason='needs pip install "transformers[serving]"',
)
def test_from_a_csv_to_a_classifier_with_transformers_serve(tmp_path):
    from dhrd_hf.embedded import smollm2_path

    try:
        smollm2_path()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    command = [sys.executable, str(ROOT / "examples" / "rationales_from_a_csv.py"), "--rows", "6"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], capture_output=True, text=True, env=environment, timeout=540
    )
    assert done.returncode == 0, done.stderr[-2000:]
    manifest = json.loads((tmp_path / "rationales.manifest.json").read_text())
    counts = manifest["counts"]
    assert counts["accepted"] + counts["rejected"] + counts["pending"] == counts["rows"] == 6
    assert manifest["usage"]["completion_tokens"] > 0
    found = pipeline("text-classification", str(tmp_path / "classifier"))("The shop sells tickets.")
    assert found[0]["label"] in ("gate", "desk", "shop")
