"""Tensors as the bytes that a log holds of them.

A tensor is a safetensors file of one. What holds 8 bits a value is kept as these: bytes, and float32 whose every value is k / 255
to the last bit, as pictures are that were drawn from a palette or read from a file:

[8 bytes: "wglevels"][head of a safetensors file: one uint8 tensor, metadata ``of`` its own dtype][the levels k, through zlib]

So a picture takes a quarter of its bytes or less, and is bit for bit what it was. Other tensors are never touched.
"""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.checkpoint.tensors import bytes_of, make_header, map_tensors, read_header
from wgtorch.core.encoding import aligned
from wgtorch.core.errors import CheckpointError, StorageError

_NAME = "tensor"
_LEVELS = b"wglevels"  # as the length of a safetensors head, it would be that of a far larger file than is read
_FEWEST, _MOST = 4096, 32 << 20  # values of a tensor that is kept as levels
_SAMPLE = 16 << 10  # bytes that say whether the rest is worth packing


def blob_of(tensor: Tensor) -> list[bytes | memoryview]:
    """A tensor's bytes, in parts."""
    levels = _levels_of(tensor)
    if levels is None:
        header, order, _ = make_header({_NAME: tensor})
        return [header, *bytes_of(order)]
    header, order, _ = make_header({_NAME: levels}, {"of": "F32" if tensor.is_floating_point() else "U8"})
    (raw,) = bytes_of(order)
    is_smooth = len(zlib.compress(raw[:_SAMPLE], 1)) < min(len(raw), _SAMPLE) // 2  # photographs take their time and stay as large
    return [_LEVELS, header, zlib.compress(raw, 3 if is_smooth else 0)]


def _levels_of(tensor: Tensor) -> Tensor | None:
    """uint8 of what holds no more than that; None for other tensors."""
    if tensor.dtype not in (torch.float32, torch.uint8) or not _FEWEST <= tensor.numel() <= _MOST:
        return None
    tensor = tensor.detach().to("cpu").contiguous()
    if tensor.dtype is torch.uint8:
        return tensor
    flat = tensor.view(-1)
    return _exact_levels(flat, tensor.shape) if _exact_levels(flat[:: len(flat) // 64], (-1,)) is not None else None


def _exact_levels(flat: Tensor, shape: Any) -> Tensor | None:
    levels = flat.mul(255).round_().to(torch.uint8)
    is_exact = torch.equal((levels / 255).view(torch.int32), flat.contiguous().view(torch.int32))  # by bits: -0.0 is not 0.0
    return levels.view(shape) if is_exact else None


def tensor_of(raw: bytes, where: str) -> Tensor:
    """The tensor of a blob.

    Raises:
        StorageError: it holds something else.
    """
    try:
        buffer = bytearray(_unpacked(raw) if raw.startswith(_LEVELS) else raw)
        header = read_header(buffer, 0, len(buffer), where)
        (tensor,) = map_tensors(buffer, 0, header).values()  # type: ignore[arg-type]  # any writable buffer will do
        if header.metadata.get("of") == "F32":
            if tensor.dtype is not torch.uint8:
                raise ValueError(f"levels of {tensor.dtype}; expected uint8")
            return tensor / 255
    except (CheckpointError, ValueError, zlib.error) as error:
        raise StorageError(f"{where}: no tensor: {error}") from error
    return aligned(tensor)


def _unpacked(raw: bytes) -> bytes:
    start = len(_LEVELS)
    end = start + 8 + int.from_bytes(raw[start : start + 8], "little")
    unpacking = zlib.decompressobj()
    levels = unpacking.decompress(raw[end:], _MOST)
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError(f"more than {_MOST} levels, or something behind them, or they are cut off")
    return raw[start:end] + levels
