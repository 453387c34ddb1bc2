"""Where a pool's models compute and where they wait: the contract of a store, and the one of a device beside host memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from wgtorch.core.checkpoint.shared_tensors import place_in_memory


class Store(Protocol):
    """Where models compute and where they wait."""

    device: torch.device
    keeps_addresses: bool
    """True when a tensor lies at the same address in both, so that a graph of gradients does not mind."""

    @property
    def brings_ahead(self) -> bool:
        """True when it can bring something in beside what is computed."""

    def size_in(self, tensors: Iterable[Tensor]) -> int:
        """Bytes of tensors that are in."""

    def bring(self, tensors: Sequence[Tensor], *, ahead: bool = False) -> Any:
        """Brings tensors in; ``ahead`` begins to, and returns what :meth:`wait` waits for."""

    def wait(self, token: Any, tensors: Sequence[Tensor]) -> None:
        """Makes what is computed next wait until what was brought ahead is there."""

    def drop(self, tensors: Sequence[Tensor]) -> None:
        """Brings tensors out, with all that was changed in them."""


class DeviceStore:
    """Models compute on a device and wait in host memory, page-locked where the device has streams (CUDA, ROCm, XPU, others' backends).

    Whatever goes out is copied, also what seems unchanged: a write through ``.data`` shows nowhere.

    Args:
        device: where they compute.
    """

    keeps_addresses = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @cached_property
    def _stream(self) -> Any:
        """Beside which what is called next is brought in; None where the device has no streams, or is not there."""
        try:
            torch.empty(1, pin_memory=True)
            return torch.Stream(self.device)
        except (RuntimeError, NotImplementedError, ValueError, AssertionError):
            return None

    @cached_property
    def brings_ahead(self) -> bool:
        return self._stream is not None

    def is_in(self, tensor: Tensor) -> bool:
        """True for a tensor on the device."""
        return tensor.device.type == self.device.type and self.device.index in (None, tensor.device.index)

    def size_in(self, tensors: Iterable[Tensor]) -> int:
        return sum([tensor.nbytes for tensor in tensors if self.is_in(tensor)])

    def bring(self, tensors: Sequence[Tensor], *, ahead: bool = False) -> Any:
        if not ahead:
            self._swap(tensors, self._to_device)
            return None
        self._stream.wait_stream(torch.accelerator.current_stream(self.device))
        self._swap(tensors, self._beside)
        return self._stream.record_event()

    def wait(self, token: Any, tensors: Sequence[Tensor]) -> None:
        torch.accelerator.current_stream(self.device).wait_event(token)

    def drop(self, tensors: Sequence[Tensor]) -> None:
        if self._stream is not None:  # kernels that other streams have begun with them may still read what is given free here
            torch.accelerator.synchronize(self.device)
        self._swap([tensor for tensor in tensors if self.is_in(tensor)], self._to_host)

    def _swap(self, tensors: Sequence[Tensor], move: Callable[[Tensor], Tensor]) -> None:
        moved: dict[Any, Tensor] = {}  # views of one memory, as of weights that are tied by it, stay views of one
        for tensor in tensors:
            data = tensor.data
            key = place_in_memory(tensor)
            if key not in moved:
                moved[key] = move(data)
            _set_data(tensor, moved[key])

    def _to_device(self, data: Tensor) -> Tensor:
        return data.to(self.device, non_blocking=self._stream is not None and data.is_pinned())

    def _beside(self, data: Tensor) -> Tensor:
        made = torch.empty_like(data, device=self.device)  # of the stream that computes, which may so give it free
        computes = torch.accelerator.current_stream(self.device)
        torch.accelerator.set_stream(self._stream)
        try:
            return made.copy_(data, non_blocking=True)
        finally:
            torch.accelerator.set_stream(computes)

    def _to_host(self, data: Tensor) -> Tensor:
        return torch.empty_like(data, device="cpu", pin_memory=self._stream is not None).copy_(data)


def _set_data(tensor: Tensor, data: Tensor) -> None:
    """Gives a tensor other memory, on another device; it stays the object that it is."""
    if torch._has_compatible_shallow_copy_type(tensor, data):
        tensor.data = data
        return
    made = torch.nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else data.detach()
    made.__dict__.update(tensor.__dict__)  # which is swapped as well
    torch.utils.swap_tensors(tensor, made)
