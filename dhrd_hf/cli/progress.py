"""What `dhrd train` says while it runs: one bar, and a line for each step that is logged."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_TERMS = {"classification_loss": "classification", "reasoning_loss": "reasoning", "distillation_loss": "distillation"}
_NOT_MEASURED = ("runtime", "samples_per_second", "steps_per_second", "epoch", "model_preparation_time")


def measured(metrics: dict[str, float]) -> str:
    """The metrics of an evaluation, without how long it took."""
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

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self.training = state.is_world_process_zero
        self.started, self.first = time.perf_counter(), state.global_step
        if self.training:
            self._open(state.max_steps, "training", "step")
        if self.bar is not None:
            self.bar.update(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """One step further."""
        if self.bar is not None:
            self.bar.set_description("training", refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
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

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The evaluation is over."""
        if not self.training:
            self._close()

    on_predict = on_evaluate

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict | None = None,
        **kwargs: Any,
    ) -> None:
        """Say where training is, what the loss is made of, and how long it will take."""
        if not state.is_world_process_zero or not logs or not self.training:
            return
        if "train_runtime" in logs:
            self._say(f"trained {state.global_step} steps in {_clock(logs['train_runtime'])}")
        elif "loss" in logs:
            terms = [f"{word} {logs[name]:.4g}" for name, word in _TERMS.items() if name in logs]
            said = [f"step {state.global_step}/{state.max_steps}", f"epoch {logs.get('epoch', 0):.4g}"]
            said.append(f"loss {logs['loss']:.4g}" + (f" ({', '.join(terms)})" if terms else ""))
            said += [f"{name} {logs[name]:.3g}" for name in ("alpha", "learning_rate") if name in logs]
            done = state.global_step - self.first
            left = (time.perf_counter() - self.started) / max(done, 1) * (state.max_steps - state.global_step)
            self._say("  ".join([*said, f"{_clock(left)} left"]))
        elif any(name.startswith("eval_") for name in logs):
            self._say(f"evaluation at step {state.global_step}: {measured(logs)}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The bar is done; what is logged from here on is said by the command."""
        self._close()
        self.training = False


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
