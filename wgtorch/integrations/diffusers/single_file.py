"""Models of files with the names of their first codes, by diffusers' converters, and nothing of them lost on the way."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from wgtorch.core.checkpoint.assign import misfit_error, misfits
from wgtorch.core.errors import CheckpointError, require

_PREFIX = "model.diffusion_model."
"""How names of a backbone begin in a file of all models."""
_OF_TRAINING = re.compile(
    r"model_ema\.|first_stage_model\.(loss|model_ema)\.|(betas|logvar|lvlb_weights|scale_factor|denoiser\.sigmas|global_step)$"
    r"|(alphas_cumprod|sqrt_|log_one_minus_|posterior_)\w*$|.*(\.position_ids|\blogit_scale)$"
)
"""What files of all models hold for training: averages of weights, a loss's own network, tables of a schedule, and CLIP's buffers."""
_MARKS = {"v_pred": ("prediction_type", "v_prediction"), "ztsnr": ("rescale_betas_zero_snr", True)}
"""Empty tensors by whose names a file says how its model was trained, and the scheduler's setting that says so."""


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


def check_places(tensors: Mapping[str, Any], components: Mapping[str, Any]) -> None:
    """Refuses a file of all models with tensors that none of a pipeline's models has a place for.

    Those of models that :func:`read_model` reads are checked there; here it is the text encoders, and what is of no model.

    Raises:
        CheckpointError: names them.
    """
    marks = {name: setting for name, setting in _MARKS.items() if name in tensors}
    scheduler = components["scheduler"].config
    for name, (setting, value) in marks.items():
        if scheduler.get(setting) != value:
            raise CheckpointError(f"the file says {name!r}, so its scheduler needs {setting}={value!r}, and has {scheduler.get(setting)!r}")
    read = (_PREFIX, *_names().LDM_VAE_KEYS)
    ignored = {*marks, *_names().SD_2_TEXT_ENCODER_KEYS_TO_IGNORE}
    rest = [name for name in tensors if not (name.startswith(read) or name in ignored or _OF_TRAINING.match(name))]
    for model in components.values():
        if hasattr(model, "state_dict") and not is_convertible(type(model)):
            placed = _placed_in_encoder(model, tensors)
            rest = [name for name in rest if name not in placed]
    if rest:
        shown = ", ".join(sorted(rest)[:20]) + (f" and {len(rest) - 20} more" if len(rest) > 20 else "")
        raise CheckpointError(f"{len(rest)} of its tensors have no place in any of {', '.join(sorted(components))}: {shown}")


def _placed_in_encoder(model: nn.Module, tensors: Mapping[str, Any]) -> set[str]:
    """Names of the tensors of a file that a text encoder was made of."""
    names, own = _names(), {key.removeprefix("text_model.") for key in model.state_dict()}
    given = {name: _Named.like(name, value) for name, value in tensors.items()}
    starts = {name[: found.end()] for name in tensors if (found := re.match(r".*?\.(transformer|model)\.", name))}
    placed: set[str] = set()
    for start in starts:
        part = {name: value for name, value in given.items() if name.startswith(start)}
        for made in (names.convert_ldm_clip_checkpoint(part, start), names.convert_open_clip_checkpoint(model, part, start)):
            known = {key.removeprefix("text_model."): value for key, value in made.items()}
            if own - known.keys() <= {"embeddings.position_ids", "text_projection.weight", "encoder.embed_tokens.weight"}:
                placed |= {name for key, value in known.items() if key in own for name in value.names}
    return placed


def _converted(kind: Any, tensors: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors by diffusers' names, and those of the same model that its converter does not know by their own."""
    convert = _rules(kind)["checkpoint_mapping_fn"]
    try:
        found = convert(config=settings, checkpoint=dict(tensors))
    except KeyError as error:
        raise CheckpointError(f"the file lacks {error.args[0]!r}") from error
    starts = tuple(_names().LDM_VAE_KEYS) if kind.__name__ == "AutoencoderKL" else (_PREFIX,)
    own = {name for name in tensors if name.startswith(starts)} or set(tensors)
    rest = {name: _Named.like(name, value) for name, value in tensors.items()}
    made = convert(config=settings, checkpoint=rest)  # what a converter takes out of it is its own business
    left = {name for value in rest.values() for name in value.names} - {name for value in made.values() for name in value.names}
    return {**found, **{name: tensors[name] for name in own & left if not _OF_TRAINING.match(name)}}


class _Named(Tensor):
    """A tensor without values that knows the names of the tensors of a file that it was made of."""

    names: frozenset[str] = frozenset()

    @classmethod
    def like(cls, name: str, value: Any) -> _Named:
        made = torch.empty(value.shape, dtype=value.dtype, device="meta").as_subclass(cls)
        made.names = frozenset([name])
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = super().__torch_function__(func, types, args, kwargs or {})
        names: frozenset[str] = frozenset().union(*(leaf.names for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, _Named)))
        for leaf in tree_leaves(made):
            if isinstance(leaf, _Named):
                leaf.names = names
        return made


def _rules(kind: Any) -> dict[str, Any]:
    """How diffusers reads models of that class."""
    rules: dict[str, Any] = _loaders().SINGLE_FILE_LOADABLE_CLASSES[_loaders()._get_single_file_loadable_mapping_class(kind)]
    return rules


def _loaders() -> Any:
    return require("diffusers.loaders.single_file_model", "diffusers")


def _names() -> Any:
    return require("diffusers.loaders.single_file_utils", "diffusers")
