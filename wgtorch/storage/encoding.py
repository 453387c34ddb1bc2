"""Values as JSON with the tensors apart, and pictures for people to look at."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from wgtorch.core.errors import StorageError
from wgtorch.core.kinds import describe

_MARK = "$"  # starts the keys of our own entries; a user's mapping with such a key is written as "$mapping"


def encode(value: Any, path: str, tensors: dict[str, Tensor], *, keep: Callable[[Tensor, str], Tensor] | None = None) -> Any:
    """A value as JSON data; tensors are put into ``tensors`` under their path.

    Args:
        value: what is to be encoded.
        path: where it stands, for messages and for the names of tensors.
        tensors: where tensors go.
        keep: what becomes of each tensor, given its path; a copy on the CPU when left out.

    Raises:
        StorageError: the value cannot be stored; names its path.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return {"$number": repr(float(value))}  # JSON has no word for it
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        key = path
        while key in tensors:  # {"a.b": x, "a": {"b": y}} are two values at one path
            key += "'"
        tensors[key] = (keep or _own_copy)(value, path)
        return {"$tensor": key}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise StorageError(f"{path}: key {key!r} is {type(key).__name__}; expected str")
        encoded = {key: encode(item, f"{path}.{key}", tensors, keep=keep) for key, item in value.items()}
        return {"$mapping": encoded} if any(key.startswith(_MARK) for key in encoded) else encoded
    if isinstance(value, (list, tuple)):
        items = [encode(item, f"{path}.{index}", tensors, keep=keep) for index, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    raise StorageError(f"{path}: {describe(value)} cannot be stored; expected text, numbers, tensors, and lists or mappings of these")


def _own_copy(value: Tensor, path: str) -> Tensor:
    """The tensor on the CPU in memory of its own: safetensors refuses two tensors that share some."""
    if value.layout is not torch.strided or value.is_meta or not _has_format(value.dtype):
        what = f"{describe(value)}, {str(value.layout).removeprefix('torch.')} on {value.device.type},"
        raise StorageError(f"{path}: {what} cannot be stored; expected a dense tensor with data, of a dtype that safetensors has")
    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


@functools.cache
def _has_format(dtype: torch.dtype) -> bool:
    from safetensors.torch import save

    try:
        save({"": torch.empty(0, dtype=dtype)})
    except (KeyError, RuntimeError, ValueError, TypeError):
        return False
    return True


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What :func:`encode` was given.

    Raises:
        StorageError: a tensor is missing.
    """
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"$tensor"}:
        try:
            return tensors[value["$tensor"]]
        except KeyError:
            raise StorageError(f"the tensor {value['$tensor']!r} is missing") from None
    if set(value) == {"$number"}:
        return float(value["$number"])
    if set(value) == {"$tuple"}:
        return tuple(decode(item, tensors) for item in value["$tuple"])
    if set(value) == {"$mapping"}:
        value = value["$mapping"]
    return {key: decode(item, tensors) for key, item in value.items()}


def images_in(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Pictures [3, H, W] or [1, H, W] inside a value, in [0, 1] or of uint8, each with a file's name made from its path."""
    if isinstance(value, Tensor):
        is_picture = (value.is_floating_point() or value.dtype == torch.uint8) and value.dim() in (3, 4)
        if not is_picture or value.shape[-3] not in (1, 3) or min(value.shape[-2:]) < 2:
            return
        if value.dim() == 4:
            for index, image in enumerate(value):
                yield from images_in(image, f"{path}.{index}" if len(value) > 1 else path)
        else:
            yield re.sub(r"[^A-Za-z0-9-]", "_", path)[:100], value / 255 if value.dtype == torch.uint8 else value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from images_in(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from images_in(item, f"{path}.{index}")


def write_png(image: Tensor, path: Path | BinaryIO, *, scale: int = 1) -> None:
    """Writes a picture [3, H, W] or [1, H, W] in [0, 1] as PNG, to a file or an open one; ``scale`` enlarges it by whole pixels."""
    from PIL import Image

    levels = (image.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    rows = levels.expand(3, -1, -1).permute(1, 2, 0).contiguous()
    height, width = rows.shape[:2]
    picture = Image.frombytes("RGB", (width, height), bytes(rows.flatten().tolist()))
    if scale > 1:
        picture = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
    picture.save(path, format="PNG")
