"""Models by name, and files of other formats: what a ``checkpoint_ref`` stands for besides a path of safetensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wgtorch.core.registry import Registry

NamedModels: Registry[Callable[[], Path]] = Registry("model", group="wgtorch.models")
"""Models that a package brings, by name: what gives the folder with their weights, made when it is first asked for."""
ConvertedFormats: Registry[Callable[[Path], Path]] = Registry("format of weights", group="wgtorch.converted_formats")
"""Formats by the ending of their files, without its dot: what gives a folder with a file's weights as safetensors."""


def local_ref(ref: str) -> str:
    """The path that a ref stands for: the folder of a named model, or of a converted file; else the ref as it is.

    A folder or file of the name goes before a model of the name.

    Example:
        >>> local_ref("smollm2")
        '/home/me/.cache/wgtorch/models/smollm2'

    Raises:
        CheckpointError: the package that brings the model is not installed, or the file cannot be converted.
    """
    path = Path(ref).expanduser()
    ending = path.suffix.removeprefix(".")
    if "/" not in ref and ref in NamedModels and not path.exists():
        return str(NamedModels.get(ref)())
    if ending and ending in ConvertedFormats and path.is_file():
        return str(ConvertedFormats.get(ending)(path))
    return ref
