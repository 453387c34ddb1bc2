"""What weights hold, told by sums over their bytes: about as fast as reading them once, and no edit in place is missed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

Sums = tuple[Tensor, Tensor]


class WeightSums:
    """Sums of weights for one call of a model, each computed once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, Sums | None]] = {}

    def of(self, weight: Tensor) -> Sums | None:
        """A weight's bytes as whole numbers of 64 bits, added up by row and by column; None where it has no such rows."""
        if id(weight) not in self._known:
            self._known[id(weight)] = weight, _sums(weight)
        return self._known[id(weight)][1]

    def digest(self, model: nn.Module) -> bytes:
        """One digest of all that a model holds but adapters. A weight without sums, as a quantised one, is told by object and version."""
        found = hashlib.blake2b(digest_size=20)
        for weight in _own_weights(model):
            sums = self.of(weight)
            found.update(repr((weight.dtype, tuple(weight.shape), (id(weight), weight._version) if sums is None else 0)).encode())
            for part in sums or ():
                found.update(part.cpu().numpy().data)
        return found.digest()


def _own_weights(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers of a model as it is without adapters: PEFT keeps what it adapts as one child, and adapters beside it."""
    adapted = module._modules.get("base_layer") or module._modules.get("original_module")
    if adapted is None:
        yield from (*module.parameters(recurse=False), *module.buffers(recurse=False))
    for child in module.children() if adapted is None else (adapted,):
        yield from _own_weights(child)


def _sums(weight: Tensor) -> Sums | None:
    data = weight.detach()
    if type(data) is not Tensor or data.layout is not torch.strided or not data.is_contiguous() or data.dim() == 0 or data.numel() == 0:
        return None
    if data.shape[-1] * data.element_size() % 8 or data.data_ptr() % 8 or data.is_quantized:
        return None
    rows = data.view(-1, data.shape[-1]).view(torch.int64)
    return rows.sum(0), rows.sum(1)
