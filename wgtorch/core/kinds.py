"""Kinds of values that flow through ports.

A kind says which Python values it accepts, how a value is normalised at the border of a run, and which other
kinds may feed it. ``any`` matches everything; ``tensor`` is the general form of every kind held in a tensor.
"""

from __future__ import annotations

import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Union

import torch
from torch import Tensor

from wgtorch.core.errors import PortTypeError, UnknownNameError, suggest
from wgtorch.core.pictures import rgb_of, unit_range, unit_sound, upright


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Args:
        name: what ports call it.
        accepts: true for values of this kind, before they are normalised.
        expects: the values in words, for messages.
        normalise: turns an accepted value into the one form blocks see; called once, at the border.
        is_tensor: values are tensors once normalised, so ``tensor`` ports may feed it and be fed by it.
    """

    name: str
    accepts: Callable[[Any], bool]
    expects: str
    normalise: Callable[[Any], Any] = lambda value: value
    is_tensor: bool = False


_KINDS: dict[str, Kind] = {}
_FEW, _LONGEST = 4, 300  # values of a mapping that a repr describes one by one, letters of one that it shows


def register_kind(kind: Kind) -> Kind:
    """Adds a kind. Registering the same name again with another meaning is an error."""
    known = _KINDS.get(kind.name)
    if known is not None and known != kind:
        raise PortTypeError(f"kind {kind.name!r} is already registered with another meaning; choose another name")
    _KINDS[kind.name] = kind
    return kind


def get_kind(name: str) -> Kind:
    """Looks a kind up by name.

    Raises:
        UnknownNameError: no such kind.
    """
    try:
        return _KINDS[name]
    except KeyError:
        raise UnknownNameError(f"unknown kind of value {name!r}; {suggest(name, _KINDS)}. Add one with register_kind.") from None


def kinds() -> tuple[str, ...]:
    """Names of all registered kinds."""
    return tuple(_KINDS)


def mismatch(source: str, target: str) -> str | None:
    """Why a value of kind ``source`` cannot feed a port of kind ``target``, or None when it can."""
    if source == target or "any" in (source, target):
        return None
    left, right = get_kind(source), get_kind(target)
    if left.is_tensor and right.is_tensor and "tensor" in (source, target):
        return None
    if target == "number" and left.is_tensor and source == "tensor":
        return None
    return f"{source!r} does not feed {target!r}"


def describe(value: Any) -> str:
    """A short description of a value for messages: never its contents when they are long."""
    if isinstance(value, Tensor):
        return f"Tensor{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {len(value)}" + (f" ({describe(value[0])}, ...)" if value else "")
    if isinstance(value, Mapping):
        return f"{type(value).__name__} with keys {sorted(map(str, value))[:6]}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def brief(record: Any) -> str:
    """The ``repr`` of a dataclass whose values may be large: fields that hold something, tensors and containers described."""
    held = ((entry.name, getattr(record, entry.name)) for entry in fields(record) if entry.repr)
    return f"{type(record).__name__}({', '.join(f'{name}={_brief(value)}' for name, value in held if value is not None and value != '')})"


def _brief(value: Any) -> str:
    if isinstance(value, Mapping) and len(value) <= _FEW:
        return f"{{{', '.join(f'{key}: {describe(item)}' for key, item in value.items())}}}"
    if isinstance(value, (Tensor, Mapping, list, tuple)):
        return describe(value)
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def kind_of_annotation(annotation: Any) -> str:
    """The kind a type annotation stands for, whether or not it admits None.

    Example:
        >>> kind_of_annotation(torch.Tensor | None)
        'tensor'
    """
    if isinstance(annotation, str):
        return annotation if annotation in _KINDS else "any"
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        found = {kind_of_annotation(member) for member in typing.get_args(annotation) if member is not type(None)}
        return found.pop() if len(found) == 1 else "text" if found == {"text", "list"} else "any"
    if origin is typing.Annotated:
        base, *notes = typing.get_args(annotation)
        named = [note for note in notes if isinstance(note, str) and note in _KINDS]
        return named[0] if named else kind_of_annotation(base)
    plain = origin or annotation
    if isinstance(plain, type):
        for base, name in (
            (Tensor, "tensor"),
            (str, "text"),
            (numbers.Number, "number"),
            (Mapping, "dict"),
            (list, "list"),
            (tuple, "list"),
        ):
            if issubclass(plain, base):
                return name
        if issubclass(plain, Sequence) and issubclass(list, plain):  # Sequence itself; bytes, ranges and deques are no lists
            return "list"
    return "any"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value))


def _is_image(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dim() in (3, 4)
    if isinstance(value, (str, os.PathLike)):
        return Path(value).is_file()
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_image(item) for item in value)
    return _is_pil(value)


def _is_pil(value: Any) -> bool:
    return any(base.__module__.startswith("PIL.") and base.__name__ == "Image" for base in type(value).__mro__)


def image_to_tensor(value: Any) -> Any:
    """Turns a path or a PIL image into a float tensor [3, H, W] in [0, 1]; tensors are brought to that range (:func:`unit_range`).

    Files are turned upright; what is transparent is laid on white. A list is normalised item by item and stays a list.
    """
    if isinstance(value, Tensor):
        return unit_range(value)
    if isinstance(value, (list, tuple)):
        return [image_to_tensor(item) for item in value]
    if isinstance(value, (str, os.PathLike)):
        from PIL import Image

        with Image.open(value) as opened:
            return image_to_tensor(upright(opened))
    rgb = rgb_of(value)[0]
    flat = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return flat.view(rgb.height, rgb.width, 3).permute(2, 0, 1).to(torch.float32) / 255


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


for _kind in (
    Kind("any", lambda value: True, "anything"),
    Kind("tensor", _is_tensor, "a torch.Tensor", is_tensor=True),
    Kind("text", _is_text, "a str or a list of str"),
    Kind(
        "tokens", lambda value: _is_tensor(value) and not value.is_floating_point(), "an integer Tensor of token ids [B, L]", is_tensor=True
    ),
    Kind("image", _is_image, "a float Tensor [3, H, W] or [B, 3, H, W] in [0, 1], a PIL image or a path to one", image_to_tensor, True),
    Kind("video", _is_tensor, "a float Tensor [B, T, 3, H, W] in [0, 1]", unit_range, True),
    Kind("audio", _is_tensor, "a float Tensor [B, C, samples] in [-1, 1]", unit_sound, True),
    Kind("latent", _is_tensor, "a Tensor of latents [B, C, ...]", is_tensor=True),
    Kind("embedding", _is_tensor, "a float Tensor of embeddings [B, ..., D]", is_tensor=True),
    Kind("number", lambda value: isinstance(value, (numbers.Number, Tensor)), "a number or a Tensor of numbers"),
    Kind("dict", lambda value: isinstance(value, Mapping), "a mapping"),
    Kind("list", lambda value: isinstance(value, (list, tuple)), "a list"),
):
    register_kind(_kind)
