"""Models of files with the names of their first codes, by diffusers' converters, and nothing of them lost on the way."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from wgtorch.core.checkpoint.assign import misfit_error, misfits
from wgtorch.core.errors import CheckpointError, require

_PREFIX = "model.diffusion_model."
"""How names of a backbone begin in a file of all models."""


def is_convertible(kind: Any) -> bool:
    """Diffusers has a converter for models of that class."""
    return isinstance(kind, type) and _loaders()._get_single_file_loadable_mapping_class(kind) is not None


def read_tensors(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Tensors of a ``.safetensors`` or ``.gguf`` file, as diffusers reads them."""
    tensors: dict[str, Any] = _names().load_single_file_checkpoint(str(file), local_files_only=True)
    return tensors


def read_model(kind: Any, tensors: Mapping[str, Any], config: str | None, part: str = "", **options: Any) -> Any:
    """A model of the tensors of a file, which may be of other models too.

    ``from_single_file`` of diffusers leaves weights that the file lacks without values, and forgets tensors that the model has no place
    for: layers of a larger model, scales of weights in 8 bits. Here both are errors.

    Args:
        kind: class of diffusers.
        tensors: of the file.
        config: folder, or repository in the hub's cache, with the model's config; None is the one that diffusers takes for such tensors.
        part: folder below that.
        options: of ``from_single_file``.

    Raises:
        CheckpointError: a weight is missing or of another shape, or a tensor has no place; names them.
    """
    if config is None:
        known = _names().fetch_diffusers_config(tensors)
        config, part = known["pretrained_model_name_or_path"], _rules(kind).get("default_subfolder") or known.get("subfolder") or ""
    settings = kind.load_config(config, subfolder=part or None, local_files_only=options.get("local_files_only"))
    with torch.device("meta"):
        empty = kind.from_config(settings)
    own, found = empty.state_dict(), dict(tensors)
    if not (found.keys() <= own.keys() or found.keys() >= own.keys()):
        found = _converted(kind, found, settings)
    for pattern in kind._keys_to_ignore_on_load_unexpected or ():
        found = {name: value for name, value in found.items() if name in own or not re.search(pattern, name)}
    is_quantised = options.get("quantization_config") is not None  # weights then have shapes of their own
    _check(empty, {name: own.get(name, value) for name, value in found.items()} if is_quantised else found)
    return kind.from_single_file(found, config=config, subfolder=part or None, **options).eval()


def check_filled(model: nn.Module) -> None:
    """Raises a CheckpointError if weights of a model have no values, their own or those that they are tied to; names them."""
    tie = getattr(model, "tie_weights", None)
    if tie is not None:  # files of other programs have T5's embeddings once
        tie()
    _check(model, {name: value for name, value in model.state_dict().items() if not value.is_meta})


def _check(model: nn.Module, tensors: Mapping[str, Any]) -> None:
    name = type(model).__name__
    if found := misfits(model, tensors, name):
        raise misfit_error(f"what the file has for {name}", found)


def _converted(kind: Any, tensors: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors by diffusers' names, and those of the same model that its converter does not know by their own."""
    own = {name.removeprefix(_PREFIX) for name in tensors if name.startswith(_PREFIX)} or set(tensors)
    rest = dict(tensors)
    try:
        found = _rules(kind)["checkpoint_mapping_fn"](config=settings, checkpoint=rest)
    except KeyError as error:
        raise CheckpointError(f"the file lacks {error.args[0]!r}") from error
    left = own & rest.keys()
    return {**found, **({name: rest[name] for name in left} if left != own else {})}  # what takes nothing out leaves all


def _rules(kind: Any) -> dict[str, Any]:
    """How diffusers reads models of that class."""
    rules: dict[str, Any] = _loaders().SINGLE_FILE_LOADABLE_CLASSES[_loaders()._get_single_file_loadable_mapping_class(kind)]
    return rules


def _loaders() -> Any:
    return require("diffusers.loaders.single_file_model", "diffusers")


def _names() -> Any:
    return require("diffusers.loaders.single_file_utils", "diffusers")
