"""What weights hold, told by a sum over the bytes of each row: about as fast as reading them twice, and no edit in place is missed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

_AT_ONCE = 1 << 15  # numbers of 64 bits: what a processor's cache holds


class WeightSums:
    """Sums of weights for one call of a model, each computed once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, Tensor | None]] = {}

    def of(self, weight: Tensor) -> Tensor | None:
        """A weight's rows [N], each as one number that its bytes and their places make; None where it has no rows of 64 bits."""
        if id(weight) not in self._known:
            self._known[id(weight)] = weight, _sums(weight)
        return self._known[id(weight)][1]

    def digest(self, model: nn.Module) -> bytes:
        """One digest of all that a model holds but adapters. A weight without sums, as a quantised one, is told by object and version."""
        found = hashlib.blake2b(digest_size=20)
        for weight in _own_weights(model):
            sums = self.of(weight)
            found.update(repr((weight.dtype, tuple(weight.shape), (id(weight), weight._version) if sums is None else 0)).encode())
            if sums is not None:
                found.update(sums.cpu().numpy().data)
        return found.digest()


def _own_weights(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers of a model as it is without adapters: PEFT keeps what it adapts as one child, and adapters beside it."""
    adapted = module._modules.get("base_layer") or module._modules.get("original_module")
    if adapted is None:
        yield from (*module.parameters(recurse=False), *module.buffers(recurse=False))
    for child in module.children() if adapted is None else (adapted,):
        yield from _own_weights(child)


def _sums(weight: Tensor) -> Tensor | None:
    data = weight.detach()
    if type(data) is not Tensor or data.layout is not torch.strided or not data.is_contiguous() or data.dim() == 0 or data.numel() == 0:
        return None
    if data.shape[-1] * data.element_size() % 8 or data.data_ptr() % 8 or data.is_quantized:
        return None
    rows = data.view(-1, data.shape[-1]).view(torch.int64)
    factors = _factors(rows.shape[1]).to(rows.device)
    step = max(1, (_AT_ONCE if rows.is_cpu else 128 * _AT_ONCE) // rows.shape[1])
    # Places have factors of their own, so that values that change places are seen; a shifted copy, so that signs are: 2**63, twice, is 0.
    sums, room = rows.new_empty(len(rows)), rows.new_empty(min(step, len(rows)), rows.shape[1])
    for part, found in zip(rows.split(step), sums.split(step), strict=True):
        mixed = torch.bitwise_right_shift(part, 29, out=room[: len(part)]).bitwise_xor_(part).mul_(factors)
        torch.sum(mixed, 1, out=found)
    return sums


@lru_cache(maxsize=64)
def _factors(count: int) -> Tensor:
    """Odd numbers of 62 bits, always the same [count]."""
    return torch.randint(-(2**62), 2**62, (count,), generator=torch.Generator().manual_seed(0)) | 1
