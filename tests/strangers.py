"""Run a script as a process that never heard of dhrd_hf, without the seconds that importing transformers takes.

Each script runs in a fork of a server that has imported the libraries and nothing of ours.
"""

import multiprocessing
import os
import sys
import tempfile
import traceback
from pathlib import Path

_PRELOADED = ["strangers", "torch", "peft", "transformers.pipelines", "transformers.models.auto.modeling_auto"]


def run_as_a_stranger(code, *arguments):
    """What a script printed: `run_as_a_stranger(code, *arguments)`; they are its `sys.argv[1:]`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        process = context.Process(target=_run, args=(code, [str(argument) for argument in arguments], str(output)))
        process.start()
        process.join(300)
        assert process.exitcode == 0, output.read_text() if output.exists() else f"exit code {process.exitcode}"
        return output.read_text()


def _run(code, arguments, output):
    assert not any(name.split(".")[0] == "dhrd_hf" for name in sys.modules)
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["-c", *arguments]
    try:
        exec(compile(code, "<stranger>", "exec"), {"__name__": "__main__"})
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    else:
        status = 0
    sys.stdout.flush()
    os._exit(status if isinstance(status, int) else 1)
