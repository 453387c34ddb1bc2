"""Exported embedders and describers: what PyTorch gives, to 1e-5."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from tests.integrations.transformers import tiny
from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import CheckpointError
from wgtorch.integrations.onnx.export import export_describer, export_embedder

TEXTS = ["The lamp", "A storm comes from the sea", "Смотритель", ""]
SCHEMA = {"type": "object", "properties": {"things": {}}, "required": ["time", "weather", "terrain"]}


def block_of(block_type: str, folder: Path, **config: Any) -> Any:
    return BlockRegistry.build({"block_type": block_type, "config": {"checkpoint_ref": str(folder), **config}})


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_are_those_of_the_model(tmp_path: Path, pooling: str) -> None:
    source = tiny.sentence_encoder(tmp_path / "model")
    folder = export_embedder(str(source), tmp_path / "onnx")
    local, onnx = (block_of("embedder", path, backend=name, pooling=pooling) for path, name in ((source, "local"), (folder, "onnx")))
    with torch.no_grad():
        for texts in (TEXTS, TEXTS[:1], ["The lamp of the harbour " * 40]):
            torch.testing.assert_close(onnx(text=texts)["embedding"], local(text=texts)["embedding"], atol=1e-5, rtol=1e-5)
    assert not list(onnx.parameters())
    again = pickle.loads(pickle.dumps(onnx.backend))
    assert all(torch.equal(onnx(text=TEXTS)["embedding"], other(text=TEXTS)["embedding"]) for other in (copy.deepcopy(onnx),))
    assert again._network.outputs == ("last_hidden_state",)


def test_descriptions_are_those_of_the_describer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    describer = PixelSceneDescriber(width=8)
    vlm = block_of("vlm", export_describer(describer, tmp_path / "onnx"), backend="onnx")
    assert describer.training
    pictures = torch.rand(3, 3, 96, 96)
    with torch.no_grad():
        for found, expected in zip(vlm.backend._reader.logits(pictures), describer.logits(pictures), strict=True):
            assert found.keys() == expected.keys()
            for name in found:
                torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)
        seen = describer(pictures)
    out = vlm(image=pictures, schema=SCHEMA)
    assert vlm(image=pictures)["text"] == seen["text"] and out["data"] == seen["attributes"]


def test_a_folder_without_a_network_says_how_to_have_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no model\.onnx; export one"):
        block_of("embedder", tmp_path, backend="onnx")
    (tmp_path / "model.onnx").write_bytes(b"none")
    with pytest.raises(CheckpointError, match="cannot be read by ONNX Runtime"):
        block_of("vlm", tmp_path, backend="onnx")


def test_the_shipped_describer(tmp_path: Path) -> None:
    describer = BlockRegistry.build({"block_type": "vlm/pixel_scene", "config": {"checkpoint_ref": "wgtorch:pixel_describer"}})
    vlm = block_of("vlm", export_describer(describer, tmp_path), backend="onnx")
    pictures = torch.rand(2, 3, 64, 64)
    assert vlm(image=pictures)["text"] == describer(pictures)["text"]
