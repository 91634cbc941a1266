"""transformers' own tests of every model class, on the dual-head model, each in a process of its own.

They are in the source distribution of transformers: `DHRD_TRANSFORMERS_TESTS` names its folder `tests`, where one is at
hand; else pip downloads that of the installed version into a folder that is deleted at the end.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_SCRIPT = Path(__file__).with_name("transformers_common.py")
_NO_EXPERTS = (
    "The class takes an implementation of experts, for the mixtures among its backbones; a dense one has no experts."
)
_EXPERTS = "test_eager_matches_batched_and_grouped_inference"
# What fails, and why that is meant. A test that passes, or is not run any more, has to leave.
MEANT = {
    "test_generation_tester_mixin_inheritance": "The tests of generation, which it wants to be inherited, are not in the "
    "source distribution; tests/test_modeling.py compares `generate` with the family's own.",
    f"{_EXPERTS}_0_fp16": _NO_EXPERTS,
    f"{_EXPERTS}_1_fp32": _NO_EXPERTS,
    f"{_EXPERTS}_2_bf16": _NO_EXPERTS,
    "test_can_init_all_missing_weights": "GPT-2 scales c_proj in a module without weights of its own, which transformers "
    "passes over in classes that are not its own: so where no weights are loaded at all. A new model is drawn by GPT-2's.",
}
# Of each backbone; the mixture of experts is for the tests of experts.
BACKBONES = {
    "llama": MEANT.keys() - {"test_can_init_all_missing_weights"},
    "qwen3": MEANT.keys() - {"test_can_init_all_missing_weights"},
    "gpt2": MEANT.keys(),
    "qwen3_moe": {"test_generation_tester_mixin_inheritance"},
}


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    """The folder of their tests, and where the package is that these need."""
    if folder := os.environ.get("DHRD_TRANSFORMERS_TESTS"):
        return folder, None
    scratch = tmp_path_factory.mktemp("transformers")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wanted = f"transformers=={importlib.metadata.version('transformers')}"
    subprocess.run([*pip, "download", "--no-deps", "--no-binary", ":all:", "-d", scratch, wanted], check=True)
    subprocess.run([*pip, "install", "--target", scratch / "needed", "parameterized"], check=True)
    with tarfile.open(next(scratch.glob("*.tar.gz"))) as archive:
        archive.extractall(scratch, filter="data")
    return next(scratch.glob("*/tests")), scratch / "needed"


@pytest.mark.parametrize("model_type", BACKBONES)
def test_what_fails_of_transformers_own_tests_is_meant(common, model_type):
    folder, needed = common
    path = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *([str(needed)] if needed else [])]
    process = subprocess.run(
        [sys.executable, str(_SCRIPT), str(folder), model_type],
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
    )
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    assert result["run"] > 100
    unmeant = result["failed"].keys() - BACKBONES[model_type]
    assert not unmeant, "\n".join(result["failed"][name] for name in unmeant)
    assert result["failed"].keys() == BACKBONES[model_type]
