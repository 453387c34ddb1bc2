"""Blocks sharded over processes (FSDP2), by Lightning's ``ModelParallelStrategy``, with checkpoints that any number of processes reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from lightning.pytorch.strategies.strategy import Strategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from wgtorch.core.block import Block
from wgtorch.core.errors import TrainingError
from wgtorch.core.tree import is_level, walk


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy, whose checkpoints are the folders of :mod:`wgtorch.train.folders`: what is sharded is put together in them.

    ``trainer.strategy=fsdp2`` shards over all processes. One process writes; each reads the whole, and keeps its share.
    """

    def setup_environment(self) -> None:
        if self._tensor_parallel_size == "auto":
            self._tensor_parallel_size = 1
        if self._data_parallel_size == "auto":
            self._data_parallel_size = self.num_nodes * self.num_processes // self._tensor_parallel_size
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return Strategy.lightning_module_state_dict(self)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return cast("dict[str, Any]", Strategy.optimizer_state(self, optimizer))

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        trainable: Any = self.lightning_module
        weights = trainable.weights_beside(checkpoint["state_dict"])
        gathered = tree_map(whole_tensor, {**checkpoint, "state_dict": weights})
        with trainable.averaged(), whole(trainable):
            if self.is_global_zero:
                self.checkpoint_io.save_checkpoint(gathered, filepath)
        self.barrier()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        with whole(cast(nn.Module, self.lightning_module), write=True):
            return self.checkpoint_io.load_checkpoint(Path(self.broadcast(checkpoint_path)))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        module = cast(nn.Module, self.lightning_module)
        own = module.state_dict()
        module.load_state_dict({name: share_of(value, own[name]) for name, value in checkpoint["state_dict"].items()}, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            state = dict(saved["state"])
            for theirs, ours in zip(saved["param_groups"], optimizer.param_groups, strict=True):
                for key, parameter in zip(theirs["params"], ours["params"], strict=True):
                    state[key] = {name: share_of(value, parameter) for name, value in state.get(key, {}).items()}
            optimizer.load_state_dict({**saved, "state": state})


StrategyRegistry.register("fsdp2", ShardedStrategy, description="Blocks sharded over all processes (FSDP2)", override=True)


def with_folders(strategy: Any) -> Any:
    """Lightning's own ``ModelParallelStrategy`` as one that writes our checkpoints; any other strategy as it is."""
    if type(strategy) is ModelParallelStrategy:
        strategy.__class__ = ShardedStrategy
    return strategy


def shard(target: Block, mesh: Any) -> None:
    """Shards every block that trains over the processes of a mesh; frozen ones are whole in each.

    Raises:
        TrainingError: a block trains at one place and is frozen at another, which looks at its weights past the module's own call.
    """
    from torch.distributed.fsdp import fully_shard

    if mesh["tensor_parallel"].size() > 1:
        raise TrainingError(
            f"ModelParallelStrategy: tensor_parallel_size is {mesh['tensor_parallel'].size()}, and no layer is split over "
            "processes; expected ModelParallelStrategy(data_parallel_size=<processes>, tensor_parallel_size=1)"
        )
    for block in _trained_blocks(target):
        fully_shard(block, mesh=mesh["data_parallel"], reshard_after_forward=True)  # else validation leaves averages behind


def share_of(value: Any, like: Any) -> Any:
    """What this process holds of a whole tensor, where a tensor of the same shape is sharded; else the value as it is."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or isinstance(value, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
def whole(module: nn.Module, *, write: bool = False) -> Iterator[None]:
    """Inside, sharded parameters are whole ones, in every process; all processes enter together.

    Args:
        module: of which.
        write: what was written into them is taken over.
    """
    held: list[tuple[nn.Module, str, Any]] = [
        (part, name, value) for part in module.modules() for name, value in part._parameters.items() if isinstance(value, DTensor)
    ]
    made = {id(value): nn.Parameter(value.full_tensor().detach(), value.requires_grad) for _, _, value in held}
    for part, name, value in held:
        part._parameters[name] = made[id(value)]
    try:
        yield
    finally:
        for part, name, value in held:
            part._parameters[name] = value
        if write:
            with torch.no_grad():
                for _, _, value in held:
                    value.copy_(share_of(made[id(value)].detach(), value))


def whole_tensor(value: Any) -> Any:
    """A sharded tensor put together, in every process; anything else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _trained_blocks(target: Block) -> list[Block]:
    """Blocks with weights that train, each once."""
    found: dict[int, tuple[str, Block]] = {}
    frozen: dict[int, str] = {}
    closed: list[str] = []
    for path, child, level in walk(target):
        if level is not None and not level.node_specs[path.rpartition("/")[2]].trainable:
            closed.append(f"{path}/")
        if not is_level(child) and any(True for _ in child.parameters()):
            place = frozen if any(f"{path}/".startswith(each) for each in closed) else found
            place.setdefault(id(child), path if place is frozen else (path, child))  # type: ignore[arg-type]
    for key in found.keys() & frozen.keys():
        raise TrainingError(
            f"ModelParallelStrategy: {found[key][0]} trains and {frozen[key]}, the same block, is frozen; a sharded block is one or the "
            "other at all of its places. Make one of them a copy (clone_node), or train with strategy=ddp"
        )
    return [block for _, block in found.values()]
