"""Models, tokenizers and processors from folders that transformers wrote; nothing is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wgtorch.core.checkpoint.assign import check_whole
from wgtorch.core.checkpoint.named import local_ref
from wgtorch.core.errors import CheckpointError, ConfigError, require
from wgtorch.core.json_text import loads
from wgtorch.core.pool import now_building

_DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AS_DATA: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is fetched, and no code of a folder is run: where nothing is said of it, transformers asks whoever sits at the terminal."""


def dtype_of(name: str | None, where: str) -> torch.dtype:
    """The dtype of a name; PyTorch's default for None.

    Raises:
        ConfigError: it names none of those that weights can have.
    """
    if name is None:
        return torch.get_default_dtype()
    if name not in _DTYPES:
        raise ConfigError(f"{where}.dtype: found {name!r}, expected one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def model_folder(ref: str | None, where: str) -> Path:
    """The folder that a ``checkpoint_ref`` names.

    Raises:
        ConfigError: there is no ref.
        CheckpointError: it is no folder with a ``config.json``.
    """
    if not ref:
        raise ConfigError(f"{where}: a local model needs checkpoint_ref: a folder that save_pretrained wrote, a .gguf file, or smollm2")
    folder = Path(local_ref(ref)).expanduser()
    if not (folder / "config.json").is_file():
        hub = " A name on the Hugging Face hub is not fetched here: hf download <name> --local-dir <folder>, and name the folder."
        raise CheckpointError(
            f"{where}.checkpoint_ref: {ref!r} has no config.json; expected the folder of a model, as save_pretrained writes it."
            + (hub if not folder.exists() else "")
        )
    return folder


def read_model(folder: Path, auto_classes: Sequence[str], *, dtype: torch.dtype, device: str | None, where: str) -> nn.Module:
    """The model of a folder, in ``eval``, by the first of transformers' auto classes that knows its ``model_type``.

    Raises:
        CheckpointError: no class knows it, or its files cannot be read. Pickles and code in the folder are never loaded.
    """
    library: Any = require("transformers", "transformers")
    config = _config(library, folder, where)
    method = (getattr(config, "quantization_config", None) or {}).get("quant_method")
    if method is not None and method not in (known := library.quantizers.auto.AUTO_QUANTIZER_MAPPING):  # transformers reads on without it
        found = f"{where}.checkpoint_ref: {str(folder)!r} is quantised by {method!r}"
        raise CheckpointError(f"{found}; expected one of {', '.join(sorted(known))}")
    auto = next((found for name in auto_classes if type(config) in (found := getattr(library, name))._model_mapping), None)
    if auto is None:
        raise CheckpointError(
            f"{where}.checkpoint_ref: {str(folder)!r} holds a model of type {config.model_type!r}; "
            f"expected one that {' or '.join(auto_classes)} of transformers knows"
        )
    if now_building().empty:  # whoever builds gives the weights; what a ref names need not be read
        model = auto.from_config(config, dtype=dtype)
        if (folder / "generation_config.json").is_file():
            model.generation_config = library.GenerationConfig.from_pretrained(str(folder), local_files_only=True)
        return model.eval()
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(f"{where}.checkpoint_ref: {str(folder)!r} holds no safetensors; pickles (.bin) are never read, convert them")
    try:
        options = {**AS_DATA, "use_safetensors": True, "output_loading_info": True}
        model, told = auto.from_pretrained(str(folder), config=config, dtype=dtype, **options)
    except Exception as error:  # a quantisation whose library is not there, a field of another type: it fails in many ways
        raise CheckpointError(f"{where}.checkpoint_ref: {str(folder)!r} cannot be read: {error}") from error
    check_whole(model, told, f"{where}.checkpoint_ref: {str(folder)!r}")
    return (model if device is None else model.to(device)).eval()


def read_tokenizer(folder: Path, where: str) -> Any:
    """The tokenizer of a folder, which keeps no padding or truncation of its own, so that threads can share it."""
    library: Any = require("transformers", "transformers")
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(str(folder), **AS_DATA)
    except Exception as error:
        raise CheckpointError(f"{where}.checkpoint_ref: {str(folder)!r} holds no tokenizer that can be read: {error}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.no_truncation()
    return tokenizer


def read_processor(folder: Path, where: str) -> Any:
    """The processor of a folder: what makes a model's inputs of pictures or sound, and of text."""
    library: Any = require("transformers", "transformers")
    try:
        processor = library.AutoProcessor.from_pretrained(str(folder), **AS_DATA)
    except Exception as error:
        raise CheckpointError(f"{where}.checkpoint_ref: {str(folder)!r} holds no processor that can be read: {error}") from error
    if not hasattr(processor, "tokenizer"):  # transformers gives back a part of one where the rest is missing
        raise CheckpointError(f"{where}.checkpoint_ref: {str(folder)!r} holds a {type(processor).__name__} and no whole processor")
    return processor


def read_json(path: Path) -> Any:
    """What a JSON file of a model's folder holds; None where there is no such file.

    Raises:
        CheckpointError: it cannot be read.
    """
    if not path.is_file():
        return None
    try:
        return loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _config(library: Any, folder: Path, where: str) -> Any:
    try:
        return library.AutoConfig.from_pretrained(str(folder), **AS_DATA)
    except Exception as error:
        raise CheckpointError(f"{where}.checkpoint_ref: {str(folder)!r}: {error}") from error
