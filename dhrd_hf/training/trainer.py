"""`DualHeadTrainer`: a stock Trainer that counts what both loss terms are divided by, and logs each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.utils import logging

from ..adapters import check_no_prompt, is_quantised, state_for_adapter
from ..data import DualHeadCollator
from ..data.collator import SOFT_TARGETS, input_only_batch
from ..data.inputs import pool_by_pad_token, saving_inputs
from ..files import write_whole
from ..losses import reasoning_count
from ..modeling_dhrd import find_dual_head
from .alpha import ReasoningWeightMixin
from .evaluation_on_input import EvaluationOnInputMixin
from .logs import TermLog
from .resuming import ResumingMixin, identity, run_readme
from .rows import EpochLengthGroupedSampler, check_inputs, check_labels, check_padding_free
from .soft_targets import Teacher, checked_teacher

logger = logging.get_logger(__name__)


class DualHeadTrainer(ReasoningWeightMixin, EvaluationOnInputMixin, ResumingMixin, Trainer):
    r"""Train a dual-head model; everything but the loss and its log is the stock `Trainer`.

    - Both terms are normalised over the whole accumulated batch and over the ranks: the gradient does not depend on how
      a batch is split (METHOD eqs. 2-4).
    - `classification_loss` and `reasoning_loss` are logged beside `loss`, averaged as it is.
    - Evaluation and prediction see x alone, as deployed, and compute no vocabulary logits: `eval_loss` is
      beta times `eval_classification_loss`, exact over the evaluation rows. There is no reasoning loss on x alone.
    - With alpha = 0 training sees x alone as well: the pooled baseline, at the pooled baseline's cost. So does each step at
      which a schedule's weight is 0, or that `reasoning_share` leaves without a reasoning loss.
    - `label_smoothing_factor` smooths the classification term, and only it.
    - The weight of the reasoning loss follows `alpha_schedule`; where it changes it is logged as `alpha`. It is one number for all micro-batches and ranks of an optimiser step.
    - With a `teacher` and `distillation_weight` above 0 the student learns from its token distributions as well, where
      it has a reasoning target; the term is normalised as the others are and logged as `distillation_loss`.
    - `classifier_learning_rate` is the learning rate of the classification head, where it is to have its own.
    - The trials of `hyperparameter_search` are pruned by comparing them after as many evaluations, whatever their batch.

    Example:

    ```python
    >>> from dhrd_hf import DualHeadCollator, DualHeadTrainer, DualHeadTrainingArguments
    >>> trainer = DualHeadTrainer(
    ...     model=model,
    ...     args=DualHeadTrainingArguments(output_dir="out"),
    ...     train_dataset=train,
    ...     eval_dataset=dev,
    ...     data_collator=DualHeadCollator(tokenizer),
    ...     processing_class=tokenizer,
    ... )
    >>> trainer.train()

    ```

    Args:
        model ([`DHRDForDualHeadClassification`], or a `PeftModel` around one): The model.
        teacher ([`Teacher`], or a causal LM, *optional*): Whose token distributions to learn from.
        args, data_collator, train_dataset, eval_dataset, processing_class, kwargs: What `transformers.Trainer` takes.
            `processing_class` is the tokenizer, whose [`DualHeadEncoder`]'s settings the model's config gets;
            `data_collator` defaults to [`DualHeadCollator`] of it.

    Raises:
        TypeError: if the model has not two heads.
        ValueError: if the classification head is frozen, labels are out of range, all training rows have one label, one is
            longer than the model,
            the collator is padding-free and the model's attention would mix its rows, alpha = 0 is asked to follow a schedule
            that goes up, or the teacher is missing or has other tokens.
        FloatingPointError: in training, if the loss is not finite.

    Source: Zhou et al. 2025, arXiv 2509.21487, eqs. 2-4; transformers `trainer.py`.
    """

    teacher: Teacher | None = None
    _is_set_up = False

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: TrainingArguments | None = None,
        data_collator: Callable[[list], dict] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        teacher: Teacher | PreTrainedModel | None = None,
        **kwargs: Any,
    ):
        if model is not None:
            find_dual_head(model)
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("compute_loss_func would replace the two losses: leave it out, or use the stock Trainer.")
        if (kwargs.get("optimizers") or (None,))[0] is not None and getattr(args, "classifier_learning_rate", None):
            raise ValueError(
                "classifier_learning_rate is for the Trainer's own optimizer: give yours a group for "
                "find_dual_head(model).score, or leave optimizers out."
            )
        if data_collator is None:
            if processing_class is None:
                raise ValueError(
                    "Rows are padded by a tokenizer: give processing_class=tokenizer, or a data_collator."
                )
            data_collator = DualHeadCollator(processing_class)
        super().__init__(
            model, args, data_collator, train_dataset, eval_dataset, processing_class=processing_class, **kwargs
        )
        self._terms = TermLog()
        self.add_callback(self._terms)
        self._resting: list[nn.Parameter] = []

        dual_head = find_dual_head(self.model)
        flat = getattr(self.data_collator, "padding_free", False)
        with self.accelerator.autocast():  # as training will run
            self.teacher = checked_teacher(teacher, self.args, dual_head, self.processing_class, flat)
        self._taught_by = None if self.teacher is None else identity(self.teacher.model)
        if self.teacher is not None and self.teacher.cache_dir is not None:
            with self.args.main_process_first(desc="soft targets"):
                self.train_dataset = self.teacher.cached(self.train_dataset, self.processing_class)
            self.teacher = self.teacher.without_model()  # it has said all it has to say
        self._set_up_model()
        if flat:
            if self.args.n_gpu > 1:
                raise ValueError(
                    "A padding-free batch is one row, which DataParallel can't share out. Start one process a GPU: "
                    f"torchrun --nproc-per-node {self.args.n_gpu} ..."
                )
            with self.accelerator.autocast():
                check_padding_free(dual_head)
        check_labels(self.train_dataset, dual_head.config, training=True)
        self._is_set_up = True

    def _set_up_model(self) -> None:
        """Fit the model to what the arguments and the tokenizer say; again for the new model of a search's trial."""
        dual_head = find_dual_head(self.model)
        config = dual_head.config
        for adapter in getattr(self.model, "peft_config", {}).values():
            check_no_prompt(adapter, "The model's adapter")
        if config.beta > 0 and not any(p.requires_grad for p in dual_head.score.parameters()):
            raise ValueError(
                "The classification head `score` is frozen, and would stay random. With PEFT, put it into "
                "modules_to_save=['score'] with task_type='SEQ_CLS', as add_lora does."
            )
        if self.args.label_smoothing_factor != 0:
            if not 0 <= self.args.label_smoothing_factor < 1:
                raise ValueError(f"label_smoothing_factor={self.args.label_smoothing_factor} must be in [0, 1).")
            # The stock smoother takes the labels away from the model, and the reasoning term with them.
            config.label_smoothing = self.args.label_smoothing_factor
            self.label_smoother = None
        elif config.label_smoothing != 0:
            logger.warning_once(
                f"The model's config has label_smoothing={config.label_smoothing:g}, which training and evaluation go by: "
                "set model.config.label_smoothing = 0 to be without."
            )
        tokenizer = self._tokenizer
        if tokenizer is not None:
            pool_by_pad_token(config, tokenizer)
        check_inputs(self.train_dataset, config, tokenizer)
        best = (self.args.metric_for_best_model or "loss").removeprefix("eval_")
        if config.beta == 0 and self.args.load_best_model_at_end and best == "loss":
            raise ValueError(
                "With beta=0 there is no evaluation loss, and every checkpoint would be as good: name another "
                "metric_for_best_model, or leave load_best_model_at_end out."
            )
        self._check_weight()

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase | None:
        found = self.processing_class or getattr(self.data_collator, "tokenizer", None)
        return found if isinstance(found, PreTrainedTokenizerBase) else None

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """A new model from `model_init`, set up as the first was: for each trial of `hyperparameter_search`."""
        model = super().call_model_init(trial)
        if self._is_set_up:  # else `__init__` is at work, and will do it
            self.model = model
            if trial is None:  # else its arguments are not known yet
                self._set_up_model()
            self._rest_idle_head()
        return model

    def _hp_search_setup(self, trial: Any) -> None:
        super()._hp_search_setup(trial)
        if trial is not None and self._is_set_up:
            self._set_up_model()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; the model is left as it was but for its weights, also where training is interrupted."""
        if self.model_init is None:  # else `call_model_init` does it: after a search's trial there is no model
            self._check_weight()
            self._rest_idle_head()
        try:
            return super().train(*args, **kwargs)
        finally:
            if self.model is not None:  # nor where the next one could not be made
                find_dual_head(self.model).on_shared_gradient = None
            for parameter in self._resting:
                parameter.requires_grad_(True)
            self._resting = []

    def _rest_idle_head(self) -> None:
        """Freeze a head that gets no gradient, for the time of the training: DDP would wait for one."""
        dual_head = find_dual_head(self.model)
        parameters = list(dual_head.score.parameters()) if dual_head.config.beta == 0 else []
        parameters += self._reasoning_parameters() if self._reads_x_alone() else []
        self._resting += [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in parameters:
            parameter.requires_grad_(False)

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            self._signature_columns += SOFT_TARGETS if self.teacher is not None else ()

    # The optimiser

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The stock optimiser; the classification head in groups of its own where it has its own learning rate."""
        given = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        rate = getattr(self.args, "classifier_learning_rate", None)
        if rate is not None and not given:
            head = {
                id(parameter)
                for parameter in find_dual_head(self.model if model is None else model).score.parameters()
            }
            for group in list(optimizer.param_groups):
                ours = [parameter for parameter in group["params"] if id(parameter) in head]
                if ours:
                    group["params"] = [parameter for parameter in group["params"] if id(parameter) not in head]
                    optimizer.add_param_group({**group, "params": ours, "lr": rate})
        return optimizer

    # The loss

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | list[float] | None]:
        """The micro-batches of one optimiser step, and the two numbers that their losses are divided by."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches or not self.model_accepts_loss_kwargs:
            return batches, None
        dual_head = find_dual_head(self.model)
        if dual_head.config.beta > 0 and any("labels" not in batch for batch in batches):
            raise ValueError(
                f"A batch has {', '.join(batches[0])}, and no labels: the classification head would stay random. Name the "
                "column of class ids labels, as DualHeadEncoder does, or set config.beta to 0."
            )
        if not self._reads_x_alone() and any("reasoning_targets" not in batch for batch in batches):
            raise ValueError(
                f"A batch has {', '.join(batches[0])}, and no reasoning_targets: the reasoning loss would vanish. Encode the "
                "rows with DualHeadEncoder and keep its columns, or set config.alpha to 0."
            )
        if any({"labels", "reasoning_targets"} <= batch.keys() and "input_length" not in batch for batch in batches):
            raise ValueError(
                "A batch has reasoning_targets and no input_length: the pooled token would be the suffix's, which holds the "
                "answer. Encode the rows with DualHeadEncoder and keep its columns."
            )
        count_of = {"labels": dual_head.classification_count, "reasoning_targets": reasoning_count}
        if not self._step_has_reasoning():
            batches = [input_only_batch(batch, dual_head.config.pad_token_id) for batch in batches]
        counts = torch.zeros(len(count_of), device=device)
        for place, (name, count) in enumerate(count_of.items()):
            counts[place] = sum(count(batch[name]).to(device) for batch in batches if name in batch)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            counts = self.accelerator.reduce(counts, reduction="sum")
        if self.is_fsdp_enabled:  # it rounds tensors to the dtype that it computes in: in bf16, 383 to 384
            return batches, counts.tolist()
        if self.args.n_gpu > 1:  # DataParallel scatters along the first dimension
            counts = counts.unsqueeze(0).expand(self.args.n_gpu, -1)
        return batches, counts

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The dual-head loss of one micro-batch, as the model computes it; its terms are kept for the log."""
        if not model.training:
            num_items_in_batch = None  # each row counts once; see `evaluation_loop`
        else:
            if self.teacher is not None:
                with self.accelerator.autocast():
                    inputs = self.teacher.taught(inputs, self.args.distillation_weight, self.args.temperature)
            if (alpha := self._alpha()) is not None:
                inputs = {**inputs, "alpha": alpha}
                self._terms.alpha = alpha
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if model.training:
            self._terms.add(loss, outputs, self.state.global_step)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the two terms of the training loss beside `loss`, and the last step's alpha where it changes."""
        if "loss" in logs:
            logs |= self._terms.take(self._over_ranks)
        super().log(logs, *args, **kwargs)

    def _over_ranks(self, total: Tensor) -> float:
        if self.args.world_size > 1:
            reduction = "sum" if self.args.average_tokens_across_devices else "mean"
            total = self.accelerator.reduce(total, reduction=reduction)
        return total.item()

    # The training rows

    def get_train_dataloader(self) -> DataLoader:
        """Batches of x and suffix; of x alone where no loss is over the suffix, which would be computed for nothing."""
        with self._collating_input_only() if self._reads_x_alone() else nullcontext():
            return super().get_train_dataloader()

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            return EpochLengthGroupedSampler(sampler.lengths, sampler.batch_size, seed)
        return sampler

    # Search

    def _report_to_hp_search(self, trial: Any, step: int, metrics: dict[str, float]) -> None:
        # By the step, trials with another batch would be compared at another epoch, or not at all.
        self._terms.evaluations += 1
        super()._report_to_hp_search(trial, self._terms.evaluations, metrics)

    # Checkpoints

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        model = self.accelerator.unwrap_model(self.model)
        if state_dict is None and hasattr(model, "peft_config") and is_quantised(model):
            state_dict = state_for_adapter(model)
        dual_head = find_dual_head(model)
        with saving_inputs(self._tokenizer, dual_head.config) if self._tokenizer is not None else nullcontext():
            super()._save(output_dir, state_dict)
        write_whole(Path(output_dir or self.args.output_dir) / "README.md", run_readme(model))
        if hasattr(model, "peft_config"):
            # An adapter's folder does not say what the two heads are; with the config it reloads as a dual-head model.
            dual_head.save_config(output_dir or self.args.output_dir)
