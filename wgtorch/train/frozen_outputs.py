"""Outputs of frozen models, kept by the content they were made of: prompt embeddings and latents, computed once."""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.errors import ConfigError
from wgtorch.core.run.node_cache_folder import CacheFolder

_Tensors = dict[str, Tensor]


class FrozenOutputs:
    """Tensors by the content that they follow from: of a model's weights and settings, and of one sample.

    A file, a crop or a model that changes has another key, so nothing that is kept is ever out of date. A sample is computed
    alone, so that what it is given never depends on the others of its batch.

    Args:
        folder: where they are kept for other runs too, as a :class:`~wgtorch.NodeCache` keeps its own; None keeps them in memory.
        max_bytes: of memory; those that were used longest ago are left out first. Without a folder they are then computed again.
        latents: latents of pictures are kept; False where no picture comes twice the same.
        prompts: what frozen text encoders make of prompts is kept.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, max_bytes: int = 2 * 2**30, latents: bool = True, prompts: bool = True
    ) -> None:
        if max_bytes < 1:
            raise ConfigError(f"cache.max_bytes: found {max_bytes}; expected a number of bytes, or cache=null for none")
        self.folder = None if folder is None else CacheFolder(folder, None)
        self.max_bytes, self.latents, self.prompts = max_bytes, latents, prompts
        self.computed = 0
        """Samples that were computed."""
        self._kept: OrderedDict[str, _Tensors] = OrderedDict()
        self._bytes = 0
        self._weights: dict[tuple[int, ...], tuple[list[Tensor], list[tuple[int, int]], str]] = {}

    def get(self, key: str, compute: Callable[[], Mapping[str, Tensor]], device: torch.device) -> _Tensors:
        """The tensors of a key, on a device; computed, without gradients, where they are not known."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        else:
            stored = None if self.folder is None else self.folder.read(key)
            found = None if stored is None else stored[0]
            if found is None:
                with torch.no_grad():
                    found = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in compute().items()}
                self.computed += 1
                if self.folder is not None:
                    self.folder.write(key, found, False)
            self._remember(key, found)
        return {name: value.to(device, non_blocking=True) for name, value in found.items()}

    def weights_of(self, tensors: list[Tensor]) -> str:
        """A hash of models' weights (:func:`tensors_of`), told anew where one of them was changed in place, or has other memory."""
        which = tuple(id(tensor) for tensor in tensors)
        versions = [(tensor._version, tensor.data_ptr()) for tensor in tensors]  # data = other leaves the version
        known = self._weights.get(which)
        if known is None or known[1] != versions:
            known = self._weights[which] = (tensors, versions, content_hash(*tensors))  # the tensors, so that no other gets their id
        return known[2]

    def _remember(self, key: str, tensors: _Tensors) -> None:
        self._kept[key] = tensors
        self._bytes += _size(tensors)
        while self._bytes > self.max_bytes and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def tensors_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """All parameters and buffers. PyTorch's own walks cost a step's thousandth for each of a model's parts, in every step."""
    found: list[Tensor] = []
    parts = list(modules)
    for part in parts:
        found += [tensor for held in (part._parameters, part._buffers) for tensor in held.values() if tensor is not None]
        parts += [child for child in part._modules.values() if child is not None]
    return found


def content_hash(*values: Any) -> str:
    """A hash of tensors (their dtype, shape and bytes) and plain data, in their order."""
    digest = hashlib.blake2b(digest_size=20)
    for value in values:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype}{list(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, (list, tuple)):
            digest.update(f"[{len(value)}".encode())
            digest.update(content_hash(*value).encode())
        else:
            digest.update(json.dumps(value, sort_keys=True, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _size(tensors: _Tensors) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())
