"""Gradients of several batches as those of one: whatever their losses are means over, and whatever stops in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.errors import TrainingError
from wgtorch.train.sharding import share_of, whole_tensor


class GradientGroup:
    """The batches whose gradients make one step of an optimizer: micro-batches, and those of other processes.

    Each loss l_i, a mean over n_i things, is weighted by n_i, and their sum is divided by sum n_i before the step. So the step is that
    of the one large batch, also where a group is cut short by the end of the data.
    """

    def __init__(self) -> None:
        self._counts: list[float] = []
        self._is_told = False
        self._saved: list[Mapping[str, Any]] | None = None

    @property
    def is_open(self) -> bool:
        """True in the middle of a group."""
        return bool(self._counts)

    def weight(self, count: Tensor | float | None) -> float:
        """The weight of a batch's loss, which is noted for the division: how many things it is a mean over; 1 where that is not told."""
        weight = 1.0 if count is None else float(count)
        if not weight >= 0:
            raise TrainingError(f"the loss is said to be a mean over {weight} things; expected a count")
        self._counts.append(weight)
        self._is_told = self._is_told or count is not None
        return weight

    def normalise(self, parameters: Sequence[nn.Parameter], trainer: Any) -> None:
        """Turns the gradients that were summed, and divided by the number of batches and processes, into those of the large batch."""
        total, parts = sum(self._counts) * trainer.world_size, trainer.accumulate_grad_batches * trainer.world_size
        if trainer.world_size > 1 and self._is_told:
            total /= trainer.world_size
            total = float(trainer.strategy.reduce(torch.tensor(total, device=trainer.strategy.root_device), reduce_op="sum"))
        self._counts.clear()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients and total > 0 and total != parts:
            torch._foreach_mul_(gradients, parts / total)

    def state(self, parameters: Mapping[str, nn.Parameter], parts: int) -> list[dict[str, Any]]:
        """What a checkpoint holds in the middle of a group of so many batches: the sums so far, of each process."""
        sums = {name: whole_tensor(value.grad).detach().cpu() for name, value in parameters.items() if value.grad is not None}
        own = {"counts": list(self._counts), "sums": sums, "parts": parts}
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return [own]
        every: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(every, own)
        return every

    def load(self, state: list[Mapping[str, Any]] | None) -> None:
        """Takes up what :meth:`state` gave; it is put back before the next batch."""
        self._saved = state

    def restore(self, parameters: Callable[[], Mapping[str, nn.Parameter]], rank: int, world_size: int, parts: int) -> None:
        """Puts sums that a checkpoint held back into the parameters, which are asked for in that case alone."""
        if self._saved is None:
            return
        if world_size != len(self._saved):
            raise TrainingError(
                f"the checkpoint was written by {len(self._saved)} processes in the middle of an accumulation, and there are {world_size}; "
                "go on with as many, or from another checkpoint"
            )
        own, self._saved, named = self._saved[rank], None, parameters()
        if own.get("parts", parts) != parts:
            raise TrainingError(
                f"the checkpoint was written in the middle of an accumulation of {own['parts']} batches, and "
                f"trainer.accumulate_grad_batches is {parts}; go on with as many, or from another checkpoint"
            )
        self._counts = list(own["counts"])
        for name, value in own["sums"].items():
            like = named[name]
            like.grad = share_of(value.to(like.device, like.dtype, copy=True), like)
