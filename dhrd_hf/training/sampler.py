"""The order of rows that are grouped by length."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochLengthGroupedSampler(LengthGroupedSampler):
    """transformers' groups of rows of like length, in an order that the seed and the epoch say, and nothing else.

    The stock sampler draws from torch's global generator, as dropout does. Two runs with dropout then see the rows of a
    seed in different orders, and the ranks of one run each in its own, so that rows are seen twice and others never.

    Example:

    ```python
    >>> from dhrd_hf.training.sampler import EpochLengthGroupedSampler
    >>> sampler = EpochLengthGroupedSampler([5, 9, 3, 7], batch_size=2, seed=0)
    >>> first = list(sampler)
    >>> sampler.set_epoch(1)
    >>> sorted(first) == sorted(sampler), first == list(EpochLengthGroupedSampler([5, 9, 3, 7], 2, seed=0))
    (True, True)

    ```

    Args:
        lengths (`list[int]`): Of the rows, in tokens.
        batch_size (`int`): Rows of an optimiser step, within which lengths are alike.
        seed (`int`): Of the order.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int):
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; accelerate's data loaders do.

        Args:
            epoch (`int`): From 0.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return super().__iter__()
