"""FSDP2 on a CPU, for tests: accelerate shards on accelerators only, and on a CPU falls back to DDP without a word."""

from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import Trainer

_create_accelerator = Trainer.create_accelerator_and_postprocess


def _create_sharding_accelerator(self):
    _create_accelerator(self)
    if self.args.fsdp_plugin_args is None or self.args.world_size == 1:
        return
    # The state that accelerate's AcceleratorState has on an accelerator.
    state = self.accelerator.state
    state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
    if state.mixed_precision != "no":
        state.fsdp_plugin.set_mixed_precision(state.mixed_precision)
    self.is_fsdp_enabled = True


def shard_on_cpu():
    """Make the Trainer shard where `fsdp` is set and there are several ranks."""
    Trainer.create_accelerator_and_postprocess = _create_sharding_accelerator
