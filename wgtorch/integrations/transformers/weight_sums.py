"""What weights hold, told by a sum over the bytes of each row: about as fast as reading them twice, and no edit in place is missed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.lora.active_adapters import current

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
        """One digest of all that a model holds and of the adapters that act in this call; what others hold has no part in it.

        A weight whose bytes cannot be read, as a quantised one, is told by object and version.
        """
        found = hashlib.blake2b(repr(current.active).encode(), digest_size=20)
        for weight in _weights_of(model, found, is_adapted=bool(current.active)):
            sums, is_plain = self.of(weight), type(weight.detach()) is Tensor and weight.layout is torch.strided and not weight.is_quantized
            found.update(repr((weight.dtype, tuple(weight.shape), 0 if is_plain else (id(weight), weight._version))).encode())
            if sums is not None or is_plain:
                found.update((weight.detach() if sums is None else sums).cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return found.digest()


def _weights_of(module: nn.Module, found: Any, *, is_adapted: bool) -> Iterator[Tensor]:
    """Parameters and buffers that act in a call: PEFT keeps what it adapts as one child, and adapters beside it."""
    base = module._modules.get("base_layer") or module._modules.get("original_module")
    if base is not None and not is_adapted and getattr(module, "reads_context", False):
        yield from _weights_of(base, found, is_adapted=False)
        return
    if base is not None:  # of PEFT's own layers, which adapters act
        found.update(repr((getattr(module, "active_adapters", None), getattr(module, "disable_adapters", None))).encode())
    yield from (*module.parameters(recurse=False), *module.buffers(recurse=False))
    for child in module.children():
        yield from _weights_of(child, found, is_adapted=is_adapted)


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
