"""Run a script as a process that never heard of dhrd_hf, alone or as ranks, without the seconds that imports take.

Each script runs in a fork of a server that has imported the libraries and nothing of ours.
"""

import importlib
import multiprocessing
import os
import sys
import tempfile
import traceback
from multiprocessing.connection import wait
from pathlib import Path

import huggingface_hub
import torch

_LIBRARIES = ["torch", "datasets", "peft", "transformers.pipelines", "transformers.trainer"]
_PRELOADED = ["strangers", *_LIBRARIES, "transformers.models.auto.modeling_auto"]
_SECONDS = 300


def run_as_a_stranger(code, *arguments, **environment):
    """What a script printed: `run_as_a_stranger(code, *arguments, HF_HOME="home")`; they are its `sys.argv[1:]`."""
    ((status, printed),) = _run_together([(environment, code, ["-c", *arguments])])
    assert status == 0, printed or f"exit code {status}"
    return printed


def run_as_ranks(script, *arguments, ranks=2):
    """Exit code and output of each rank of a script, which finds what torchrun tells its processes; as there, one that fails ends all."""
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    common = {"MASTER_ADDR": "localhost", "MASTER_PORT": store.port, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
    code = f"import sys; sys.path.insert(0, {str(script.parent)!r})\n{script.read_text()}"
    jobs = [({**common, "RANK": rank, "LOCAL_RANK": rank}, code, [script, *arguments]) for rank in range(ranks)]
    return _run_together(jobs)


def _run_together(jobs):
    """Exit code and output of each of some processes, given as environment, code and `sys.argv`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, f"output-{number}") for number in range(len(jobs))]
        processes = []
        for (environment, code, words), output in zip(jobs, outputs, strict=True):
            environment = {name: str(value) for name, value in environment.items()}
            words = [str(word) for word in words]
            processes.append(context.Process(target=_run, args=(os.getcwd(), environment, code, words, str(output))))
            processes[-1].start()
        running = {process.sentinel: process for process in processes}
        while running:
            ended = [running.pop(sentinel) for sentinel in wait(running, _SECONDS)]
            for process in ended:
                process.join()
            if not ended or any(process.exitcode for process in ended):
                for process in running.values():
                    process.terminate()
        return [
            (process.exitcode, output.read_text() if output.exists() else "")
            for process, output in zip(processes, outputs, strict=True)
        ]


def _run(folder, environment, code, words, output):
    assert not any(name.split(".")[0] == "dhrd_hf" for name in sys.modules)
    with open(output, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ.update(environment)
    # Where the Hub is was read from the server's environment.
    importlib.reload(huggingface_hub.constants)
    huggingface_hub.hf_api.api.endpoint = huggingface_hub.constants.ENDPOINT
    sys.argv = words
    try:
        exec(compile(code, "<stranger>", "exec"), {"__name__": "__main__", "__file__": words[0]})
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    else:
        status = 0
    sys.stdout.flush()
    os._exit(status if isinstance(status, int) else 1)
