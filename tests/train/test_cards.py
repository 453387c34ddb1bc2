"""What a card says of the models that were learned from."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lightning")

from tests.train.toys import FLOW, PICTURES, QUIET, backbone
from wgtorch import lora
from wgtorch.core.errors import WgtorchError
from wgtorch.graph import Graph
from wgtorch.train.export import Export, _bases, _hub_id, _shown
from wgtorch.train.fitting import fit


def test_a_card_names_the_model_that_has_the_adapter_and_no_other() -> None:
    graph = Graph.from_template("text_to_image", steps=1)
    lora.add(graph, "ink", rank=2, nodes=["backbone"])
    export = Export.of({"format": "peft", "name": "ink"}, graph, {})
    assert export is not None and _bases(export, graph) == ["wgtorch:scene_painter"]


def test_a_training_in_the_folder_of_an_earlier_one_writes_its_adapter_there(tmp_path: Path) -> None:
    settings = {
        "data": PICTURES, "objective": FLOW, "lora": {"rank": 2}, "optimizer": {"type": "sgd", "lr": 0.1},
        "trainer": {**QUIET, "max_steps": 1}, "export": {"format": "peft"},
    }  # fmt: skip
    for count in (1, 2):
        fit(backbone(), {**settings, "trainer": {**QUIET, "max_steps": count}}, tmp_path)
        assert f"wgtorch in {count} steps" in (tmp_path / "lora/README.md").read_text()
    (tmp_path / "lora/samples.png").touch()  # of another training, where this one makes none
    fit(backbone(), {**settings, "trainer": {**QUIET, "max_steps": 3}}, tmp_path, resume=tmp_path)
    assert "wgtorch in 3 steps" in (tmp_path / "lora/README.md").read_text()
    assert {path.name for path in (tmp_path / "lora").iterdir()} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert not list(tmp_path.glob(".export*"))


def test_what_cannot_be_written_is_refused_before_the_first_step(tmp_path: Path) -> None:
    settings = {"data": PICTURES, "objective": FLOW, "lora": {"rank": 2}, "trainer": {**QUIET, "max_steps": 1}}
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/a.txt").write_text("dear")
    (tmp_path / "file").write_text("dear")
    for export, words in (
        ({"format": "peft", "folder": "letters"}, "holds 'a.txt', which is no adapter"),
        ({"format": "peft", "folder": "file"}, "export.folder: a file stands at"),
        ({"format": "diffusers"}, "files of other programs have no name for adapters of"),
    ):
        with pytest.raises(WgtorchError, match=words):
            fit(backbone(), {**settings, "export": export}, tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("ref", "hub", "shown"),
    [
        ("/home/me/.cache/huggingface/hub/models--some--model-1.5/snapshots/abc/unet", "some/model-1.5", "some/model-1.5"),
        ("some/model-1.5", "some/model-1.5", "some/model-1.5"),
        ("/home/me/models/tiny/unet", None, "tiny/unet"),
        ("wgtorch:scene_painter", None, "wgtorch:scene_painter"),
        ("tiny/unet", None, "tiny/unet"),
    ],
)
def test_a_hub_is_told_of_models_of_a_hub_alone(
    ref: str, hub: str | None, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny/unet").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert (_hub_id(ref), _shown(ref)) == (hub, shown)
