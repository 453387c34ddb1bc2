"""From a run to the file that ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("lightning")

from scripts.ship_default import ship
from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.template import build_template
from wgtorch.core.errors import CheckpointError
from wgtorch.train.fitting import fit

TRAINER = {"max_steps": 3, "accelerator": "cpu", "enable_progress_bar": False}


def trained(folder: Path, name: str, target: Any, **settings: Any) -> Any:
    """A run of three steps, and what it trained."""
    config = {"seed": 5, "trainer": TRAINER, "optimizer": {"type": "adamw", "lr": 1e-2}, "checkpoint": {"every": 2}, **settings}
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": name, **config}))
    return fit(target, config, folder).target


def metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_the_weights_of_a_block_ship_in_half_precision_with_what_made_them(tmp_path: Path) -> None:
    data = {"type": "scene_captions", "count": 64, "validation": 8, "batch_size": 8}
    block = BlockRegistry.build({"block_type": "conditioner/scene", "config": {"width": 16, "depth": 1}})
    start = {key: value.clone() for key, value in block.state_dict().items()}
    block = trained(tmp_path / "run", "default_text", block, data=data, objective="scene_reading")
    path = ship(tmp_path / "run", tmp_path)
    assert path == tmp_path / "scene_text.safetensors"
    read = BlockRegistry.build({"block_type": "conditioner/scene", "config": {**block.config, "checkpoint_ref": str(path)}})
    for key, value in block.state_dict().items():
        torch.testing.assert_close(read.state_dict()[key], value.half().float(), rtol=0, atol=0)
    assert not torch.equal(read.state_dict()["words.weight"], start["words.weight"])
    metadata = metadata_of(path)
    assert metadata["block_type"] == "conditioner/scene" and json.loads(metadata["config"]) == block.config
    assert metadata["trained_by"] == "scripts/train.py experiment=default_text"
    assert metadata["trained_on"] == "data scene_captions in batches of 8; 3 steps; seed 5"


def test_the_painter_ships_out_of_its_graph_with_averaged_weights(tmp_path: Path) -> None:
    data = {"type": "scenes", "count": 16, "validation": 2, "batch_size": 2}
    graph = trained(
        tmp_path / "run",
        "default_painter",
        build_template("graph", "text_to_image", {"painter": None}),
        data=data,
        objective="scene_painting",
        train_only=["backbone", "negative_backbone"],
        ema={"decay": 0.9, "warmup": False},
    )
    path = ship(tmp_path / "run", tmp_path)
    backbone = build_template("graph", "text_to_image", {"painter": str(path)}).find("backbone")
    shipped, last = backbone.state_dict()["position"], graph.find("backbone").state_dict()["position"]
    assert shipped.isfinite().all() and not torch.equal(shipped, last), "the weights that train were shipped instead of the averages"
    assert "checkpoint_ref" not in json.loads(metadata_of(path)["config"])


def test_what_is_no_run_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config.yaml, so this is no run"):
        ship(tmp_path, tmp_path)
    (tmp_path / "config.yaml").write_text("name: default_paintr\n")
    with pytest.raises(CheckpointError, match="default_painter"):
        ship(tmp_path, tmp_path)


def test_an_adapter_ships_as_a_folder_that_peft_reads(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from tests.integrations.transformers import tiny

    block = BlockRegistry.build({"block_type": "llm/local", "config": {"checkpoint_ref": str(tiny.language_model(tmp_path / "model"))}})
    adapter = {"name": "narrator", "rank": 2, "target_modules": ["q_proj"], "freeze_base": True}
    data = {"type": "narrations", "count": 8, "validation": 2, "batch_size": 2}
    block = trained(tmp_path / "run", "default_narrator", block, data=data, objective="answering", lora=adapter, samples=None)
    folder = ship(tmp_path / "run", tmp_path)
    assert folder == tmp_path / "narrator_smollm2" and sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert metadata_of(folder / "adapter_model.safetensors")["trained_by"] == "scripts/train.py experiment=default_narrator"
    config = peft.LoraConfig.from_pretrained(str(folder))
    assert config.r == 2 and set(config.target_modules) == {"q_proj"}
