"""Weights laid out a second time as the processor reads them fastest, by oneDNN: the same numbers, about half the time a token."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.integrations.transformers.weight_sums import WeightSums

_NONE: Mapping[int, Tensor] = {}
_in_use: ContextVar[Mapping[int, Tensor]] = ContextVar("packed_weights", default=_NONE)


class PackedLinear(nn.Linear):
    """A linear layer that reads its packed weight where :meth:`PackedWeights.in_use` holds, and is ``nn.Linear`` everywhere else."""

    def forward(self, input: Tensor) -> Tensor:
        """x [..., in] to [..., out]."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        packed = _in_use.get().get(id(self))
        if packed is None or input.dtype != self.weight.dtype or input.device.type != "cpu":
            return super().forward(input)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(input, packed, self.bias, "none", [], "")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Packed:
    sums: Tensor
    weight: Tensor


class PackedWeights:
    """Packed copies of a model's linear layers, for a model on a CPU that is not training; may be used from several threads.

    A copy is used where the weight still holds what was packed, by its sums, so no edit is missed, in place through ``.data`` neither.
    What changed is packed anew. In ``train()`` there are no copies.

    Args:
        model: its layers of type ``nn.Linear`` become :class:`PackedLinear`: the same parameters, under the same names.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = PackedLinear
        self._packed: dict[int, _Packed] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedWeights:
        import copy

        return PackedWeights(copy.deepcopy(self.model, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedWeights, (self.model,)

    @contextlib.contextmanager
    def in_use(self, sums: WeightSums) -> Iterator[None]:
        """The model's linear layers read packed weights, in this thread.

        Args:
            sums: of the weights that are there now.
        """
        token = _in_use.set(self._current(sums))
        try:
            yield
        finally:
            _in_use.reset(token)

    def drop(self) -> None:
        """Frees the copies; the next use makes them anew."""
        self._packed = {}

    def _current(self, sums: WeightSums) -> Mapping[int, Tensor]:
        """By layer, the packed weights of what they hold now."""
        found: dict[int, _Packed] = {}
        with torch.no_grad(), self._lock:
            for module in () if self.model.training else self.model.modules():
                if type(module) is not PackedLinear or not _is_packable(module.weight) or (now := sums.of(module.weight)) is None:
                    continue
                known = self._packed.get(id(module))
                if known is None or not torch.equal(known.sums, now):
                    known = _Packed(now, torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), None))
                found[id(module)] = known
            self._packed = found
        return {key: entry.weight for key, entry in found.items()}


def _is_packable(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype in _dtypes()


@cache
def _dtypes() -> frozenset[torch.dtype]:
    """Those that this processor and build of PyTorch multiply packed."""
    ops = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(ops, "_reorder_linear_weight"):
        return frozenset()
    return frozenset((torch.float32, *((torch.bfloat16,) if ops._is_mkldnn_bf16_supported() else ())))
