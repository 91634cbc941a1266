"""What a training says while it runs: the terms of its loss in the Trainer's log, and lines and a bar for a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import TrainerCallback

# The terms of the loss, with their names for people.
TERMS = {"classification_loss": "classification", "reasoning_loss": "reasoning", "distillation_loss": "distillation"}
_NOT_MEASURED = ("runtime", "samples_per_second", "steps_per_second", "epoch", "model_preparation_time")


class TermLog(TrainerCallback):
    """What a training's log says beside `loss`: each term, averaged as it is, and alpha where it changes."""

    def __init__(self) -> None:
        self.on_train_begin()

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.alpha: float | None = None
        self.evaluations = 0
        self._sums: dict[str, Tensor] = {}
        self._steps: dict[str, set[int]] = {}  # of a term: not every step has a reasoning loss

    def add(self, loss: Tensor, outputs: Any, step: int) -> None:
        # In float32: under FSDP outputs come in the dtype that it computes in, in which a sum of many steps stands still.
        terms = {name: outputs[name].detach().float().sum() for name in TERMS if outputs.get(name) is not None}
        if not torch.isfinite(loss).all():
            values = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
            raise FloatingPointError(
                f"The loss is not finite after step {step}: {values}. Lower learning_rate, train in float32 or bf16 "
                "instead of fp16, or look for a broken row or class weight."
            )
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value
            self._steps.setdefault(name, set()).add(step)

    def take(self, over_ranks: Callable[[Tensor], float]) -> dict[str, float]:
        """The means over the steps since the last call that had a term."""
        found = {name: over_ranks(self._sums[name]) / len(self._steps[name]) for name in TERMS if name in self._sums}
        self._sums, self._steps = {}, {}
        return found if self.alpha is None or not found else {**found, "alpha": self.alpha}


def measured(metrics: dict[str, float]) -> str:
    named = {name.removeprefix("eval_"): value for name, value in metrics.items()}
    return ", ".join(f"{name} {value:.4g}" for name, value in named.items() if not name.endswith(_NOT_MEASURED))


class Progress(TrainerCallback):
    """One bar on a terminal, for training or for an evaluation, and a line for each log with the terms of the loss."""

    def __init__(self, shown: bool):
        self.shown = shown and sys.stderr.isatty()
        self.bar: tqdm | None = None
        self.training = False

    def _open(self, total: int | None, name: str, unit: str) -> None:
        if self.shown and self.bar is None:
            self.bar = tqdm(total=total, desc=name, unit=unit, dynamic_ncols=True, leave=False)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _say(self, line: str) -> None:
        if self.bar is None:
            print(line, flush=True)
        else:
            self.bar.write(line)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.training = state.is_world_process_zero
        self.started, self.first = time.perf_counter(), state.global_step
        if self.training:
            self._open(state.max_steps, "training", "step")
        if self.bar is not None:
            self.bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.set_description("training", refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Within training its bar says that it is evaluating; on its own an evaluation has one."""
        if not state.is_world_process_zero:
            return
        if self.training:
            if self.bar is not None:
                self.bar.set_description("evaluating")
            return
        self._open(len(eval_dataloader) if hasattr(eval_dataloader, "__len__") else None, "evaluating", "batch")
        if self.bar is not None:
            self.bar.update()

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if not self.training:
            self._close()

    on_predict = on_evaluate

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
        """Say where training is, what the loss is made of, and how long it will take."""
        if not state.is_world_process_zero or not logs or not self.training:
            return
        if "train_runtime" in logs:
            self._say(f"trained {state.global_step} steps in {_clock(logs['train_runtime'])}")
        elif "loss" in logs:
            terms = [f"{word} {logs[name]:.4g}" for name, word in TERMS.items() if name in logs]
            said = [f"step {state.global_step}/{state.max_steps}", f"epoch {logs.get('epoch', 0):.4g}"]
            said.append(f"loss {logs['loss']:.4g}" + (f" ({', '.join(terms)})" if terms else ""))
            said += [f"{name} {logs[name]:.3g}" for name in ("alpha", "learning_rate") if name in logs]
            done = state.global_step - self.first
            left = (time.perf_counter() - self.started) / max(done, 1) * (state.max_steps - state.global_step)
            self._say("  ".join([*said, f"{_clock(left)} left"]))
        elif any(name.startswith("eval_") for name in logs):
            self._say(f"evaluation at step {state.global_step}: {measured(logs)}")

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """The bar is done; what is logged from here on is said by the command."""
        self._close()
        self.training = False


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
