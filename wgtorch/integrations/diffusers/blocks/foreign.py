"""What blocks around models of other libraries share."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self, TypedDict, cast

import torch
from torch import nn

from wgtorch.core.block import Block
from wgtorch.core.checkpoint.assign import check_whole
from wgtorch.core.checkpoint.manifest import map_header
from wgtorch.core.errors import CheckpointError, ConfigError, require
from wgtorch.core.json_text import loads
from wgtorch.core.pool import now_building

_given: ContextVar[nn.Module | None] = ContextVar("wgtorch_model_around", default=None)
_DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class ModelSource(TypedDict, total=False):
    """Arguments of :class:`ForeignModel`, which blocks around a model pass on to it."""

    model: dict[str, Any] | None
    checkpoint_ref: str | None
    dtype: str | None


class ForeignModel(Block):
    """A block around a model of diffusers or transformers, which is its submodule ``model``: ports are all it adds.

    Args:
        model: the model's own config; that of the folder where left out.
        checkpoint_ref: a folder with the model's ``config.json`` and safetensors, as ``save_pretrained`` writes it. Without
            one the weights are fresh.
        dtype: of the weights: ``float32``, ``bfloat16``, ...; PyTorch's default dtype where left out.
    """

    library = "diffusers"
    ref_module = "model"
    model_class = ""
    uses_global_rng = False
    model: Any

    def __init__(self, *, model: dict[str, Any] | None = None, checkpoint_ref: str | None = None, dtype: str | None = None) -> None:
        super().__init__()
        if dtype is not None and dtype not in _DTYPES:
            raise ConfigError(f"{type(self).__name__}.dtype: found {dtype!r}, expected one of {', '.join(_DTYPES)}")
        if (given := _given.get()) is not None:
            _given.set(None)
            self.model = given
            return
        wanted = torch.get_default_dtype() if dtype is None else _DTYPES[dtype]
        # A checkpoint that is being loaded gives the weights itself; what a ref names need not be there any more.
        if checkpoint_ref is None or (now_building().empty and model is not None):
            if model is None:
                raise ConfigError(f"{type(self).__name__}: neither model nor checkpoint_ref; give the model's config, or its folder")
            self.model = nn.Module.to(self._made(model), wanted)
        else:
            self.model = self._read(Path(checkpoint_ref).expanduser(), wanted)
        self.model.eval()

    @classmethod
    def around(cls, model: nn.Module, **config: Any) -> Self:
        """A block around a model that is there already: shared, not copied.

        Args:
            model: of the class that this block is for.
            config: the block's other arguments.

        Raises:
            ConfigError: it is of another class.
        """
        own = cls._class(**config)
        if not isinstance(model, own):
            raise ConfigError(f"{cls.__name__}: got a {type(model).__name__}, expected a {own.__name__} of {cls.library}")
        token = _given.set(model)
        try:
            return cls(model=config_of(model), **config)  # type: ignore[call-arg]
        finally:
            _given.reset(token)

    @property
    def weights_dtype(self) -> torch.dtype:
        """What the model's ``dtype`` says, told by its first weight: diffusers walks over all modules for it, in every step."""
        whole = getattr(self.model, "_keep_in_fp32_modules", None) or ()
        for path, module in self.model.named_modules():
            for name, weight in module._parameters.items():
                if weight is not None and weight.is_floating_point() and not any(part in f"{path}.{name}" for part in whole):
                    return self.model.dtype if hasattr(module, "_diffusers_hook") else weight.dtype
        return self.model.dtype

    @classmethod
    def _class(cls, **config: Any) -> Any:
        """The model's class, imported now; ``config`` is the block's, where that decides."""
        return getattr(require(cls.library, "diffusers"), cls.model_class)

    def _made(self, config: Mapping[str, Any]) -> nn.Module:
        own = self._class(**self._config)
        if self.library == "diffusers":
            return own.from_config(dict(config))
        return own(own.config_class(**config))

    def _read(self, folder: Path, dtype: torch.dtype) -> nn.Module:
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"{type(self).__name__}.checkpoint_ref: {str(folder)!r} has no config.json; expected the folder of one model, "
                "as save_pretrained writes it (<pipeline folder>/unet, not the pipeline's own)"
            )
        own = self._class(**self._config)
        named = loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name", own.__name__)
        if named != own.__name__:
            raise CheckpointError(f"{type(self).__name__}.checkpoint_ref: {str(folder)!r} holds a {named}, expected a {own.__name__}")
        options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        options["torch_dtype" if self.library == "diffusers" else "dtype"] = dtype
        usual = f"{'diffusion_pytorch_model' if self.library == 'diffusers' else 'model'}.safetensors"
        if not any((folder / name).is_file() for name in (usual, f"{usual}.index.json")):
            variants = sorted({path.name.split(".")[1].partition("-")[0] for path in folder.glob("*.*.safetensors")})
            if len(variants) != 1:
                raise CheckpointError(
                    f"{type(self).__name__}.checkpoint_ref: {str(folder)!r} holds no safetensors; "
                    "pickles (.bin) are never read, convert them"
                )
            options["variant"] = variants[0]
        try:
            model, told = own.from_pretrained(str(folder), **options)
        except Exception as error:  # what a damaged file raises has no class of its own
            found = damaged_file(folder) or error
            raise CheckpointError(f"{type(self).__name__}.checkpoint_ref: {str(folder)!r} cannot be read: {found}") from error
        check_whole(model, told, f"{type(self).__name__}.checkpoint_ref: {str(folder)!r}")
        return cast(nn.Module, model)


def damaged_file(folder: Path) -> CheckpointError | None:
    """What is wrong with the first safetensors file of a folder that cannot be read, by its name."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            map_header(file)
        except CheckpointError as error:
            return error
    return None


def config_of(model: Any) -> dict[str, Any]:
    """A foreign model's config as plain data, without what is the class's default anyway."""
    return diff_of(model.config) if hasattr(model.config, "to_diff_dict") else changed(type(model), dict(model.config))


def diff_of(config: Any) -> dict[str, Any]:
    """A config of transformers as plain data, without defaults."""
    unsaid = ("transformers_version", "architectures", "model_type", "dtype", "torch_dtype", "_name_or_path")
    return {name: value for name, value in config.to_diff_dict().items() if name not in unsaid}


def changed(model_class: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of diffusers as plain data, without defaults."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(model_class.__init__).parameters.items()}  # type: ignore[misc]
    own = {name: _plain(value) for name, value in config.items() if name in defaults}
    return {name: value for name, value in own.items() if value != _plain(defaults[name])}


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
