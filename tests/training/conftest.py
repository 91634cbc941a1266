"""What the tests of the trainer's parts share."""

import pytest

from dhrd_hf import DualHeadCollator, DualHeadTrainer, DualHeadTrainingArguments


@pytest.fixture
def make_trainer(encoded, tokenizer, make_args):
    """A trainer over the first of the encoded rows: `make_trainer(model, batch, accumulation, **arguments)`."""

    def make(
        model, batch=4, accumulation=1, rows=8, dataset=encoded, padding_free=False, teacher=None, callbacks=(), **changes
    ):  # fmt: skip
        args = make_args(
            DualHeadTrainingArguments,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            **changes,
        )
        return DualHeadTrainer(
            model=model,
            args=args,
            train_dataset=dataset.select(range(rows)),
            data_collator=DualHeadCollator(tokenizer, padding_free=padding_free),
            processing_class=tokenizer,
            teacher=teacher,
            callbacks=list(callbacks),
        )

    return make
