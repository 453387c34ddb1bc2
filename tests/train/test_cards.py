"""What a card says of the models that were learned from."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lightning")

from wgtorch import lora
from wgtorch.graph import Graph
from wgtorch.train.export import Export, _bases, _hub_id, _shown


def test_a_card_names_the_model_that_has_the_adapter_and_no_other() -> None:
    graph = Graph.from_template("text_to_image", steps=1)
    lora.add(graph, "ink", rank=2, nodes=["backbone"])
    export = Export.of({"format": "peft", "name": "ink"}, graph, {})
    assert export is not None and _bases(export, graph) == ["wgtorch:scene_painter"]


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
