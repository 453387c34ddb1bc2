"""Writing networks as files of ONNX."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.blocks.pixel_scenes.layout import SIZE
from wgtorch.core.errors import require
from wgtorch.core.run.modes import training_mode
from wgtorch.integrations.onnx.backends import FILE
from wgtorch.integrations.transformers.folder import model_folder, read_model


def export_embedder(checkpoint_ref: str, folder: str | Path) -> Path:
    """Writes an encoder of transformers or sentence-transformers for the backend ``onnx``.

    Args:
        checkpoint_ref: as of the backend ``local``.
        folder: where ``model.onnx``, tokenizer and settings go.

    Example:
        >>> export_embedder("encoder", "encoder-onnx")
        >>> BlockRegistry.build({"block_type": "embedder", "config": {"backend": "onnx", "checkpoint_ref": "encoder-onnx"}})
    """
    source, target = model_folder(checkpoint_ref, "embedder"), Path(folder)
    model: Any = read_model(source, ("AutoModel",), dtype=torch.float32, device=None, where="embedder")
    ids = torch.ones(2, 5, dtype=torch.long)
    size = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    _export(_Hidden(model), {"input_ids": ids, "attention_mask": ids.clone()}, target, ["last_hidden_state"], size)
    for path in source.iterdir():
        if path.suffix in (".json", ".txt", ".jinja"):
            shutil.copy2(path, target / path.name)
    if (source / "1_Pooling").is_dir():
        shutil.copytree(source / "1_Pooling", target / "1_Pooling", dirs_exist_ok=True)
    return target


def export_describer(describer: PixelSceneDescriber, folder: str | Path) -> Path:
    """Writes a describer of pixel scenes for the backend ``onnx`` of ``vlm``.

    Args:
        describer: with its weights; not changed.
        folder: where ``model.onnx`` goes.
    """
    groups = {"setting": describer.setting, "back": describer.back, "front": describer.front}
    names = [f"{group}_{name}" for group, entries in groups.items() for name in entries.heads]
    _export(_Logits(describer), {"image": torch.rand(2, 3, SIZE, SIZE)}, Path(folder), names, {0: torch.export.Dim.DYNAMIC})
    return Path(folder)


def _export(module: nn.Module, inputs: dict[str, Tensor], folder: Path, outputs: list[str], size: dict[int, Any]) -> None:
    require("onnxscript", "onnx")
    folder.mkdir(parents=True, exist_ok=True)
    with training_mode(module, training=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own parts
        torch.onnx.export(
            module, (), folder / FILE, kwargs=inputs, input_names=list(inputs), output_names=outputs, dynamo=True,
            dynamic_shapes=dict.fromkeys(inputs, size), external_data=False, verbose=False,
        )  # fmt: skip


class _Hidden(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return found


class _Logits(nn.Module):
    def __init__(self, describer: PixelSceneDescriber) -> None:
        super().__init__()
        self.describer = describer

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(value for group in self.describer.logits(image) for value in group.values())
