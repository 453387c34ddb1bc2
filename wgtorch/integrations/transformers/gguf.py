"""GGUF, the format of llama.cpp: read by transformers once, and kept as safetensors in the user's cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from wgtorch.core.cache_folder import cache_folder
from wgtorch.core.checkpoint.atomic import write_folder
from wgtorch.core.checkpoint.named import ConvertedFormats
from wgtorch.core.errors import CheckpointError, require
from wgtorch.integrations.transformers.folder import AS_DATA

SOURCE = "source.json"
"""Says of a converted folder which file it was made of."""


def converted(path: Path, folder: Path | None = None) -> Path:
    """A folder as transformers writes it, with the weights of a GGUF file in float32 and its tokenizer.

    The numbers are those that the file's quantised blocks stand for. It is made when it is first asked for, and anew where the
    file has changed since.

    Args:
        path: the file.
        folder: where to keep it; a place in the user's cache, named after the file, where left out.

    Raises:
        CheckpointError: transformers cannot read it.
        MissingExtraError: transformers or gguf is not installed.
    """
    path = path.expanduser().resolve()
    stat = path.stat()
    source = {"file": path.name, "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    if folder is None:
        folder = cache_folder() / "models" / f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if _source_of(folder) == source:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)

    def fill(fresh: Path) -> None:
        _convert(path, fresh)
        (fresh / SOURCE).write_text(json.dumps(source))

    return write_folder(folder, fill)


ConvertedFormats.register("gguf", converted)


def _convert(path: Path, folder: Path) -> None:
    library: Any = require("transformers", "smollm")
    require("gguf", "smollm")
    named: dict[str, Any] = {"gguf_file": path.name, **AS_DATA}
    from transformers.utils import logging

    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = library.AutoModelForCausalLM.from_pretrained(str(path.parent), dtype=torch.float32, **named)
        tokenizer = library.AutoTokenizer.from_pretrained(str(path.parent), **named)
    except Exception as error:  # what a damaged file raises has no class of its own
        raise CheckpointError(f"{path} cannot be read as GGUF: {error}") from error
    finally:
        if shows_bars:
            logging.enable_progress_bar()
    # The weights are plain numbers now; what is left of the quantiser would only keep them from being saved.
    model.hf_quantizer = None
    for name in ("quantization_config", "_name_or_path"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _source_of(folder: Path) -> Any:
    try:
        return json.loads((folder / SOURCE).read_text())
    except (OSError, ValueError):
        return None
