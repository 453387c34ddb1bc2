"""Checkpoints of format 1.0 load forever; newer ones are refused by name; older ones are carried forward."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.checkpoints.blocks import rich_graph
from tests.checkpoints.mutations import read_tree, seal, write_tree
from wgtorch.core.checkpoint import manifest as manifests
from wgtorch.core.errors import CheckpointError
from wgtorch.graph import Graph
from wgtorch.world import World

DATA = Path(__file__).parents[1] / "data" / "checkpoint_1_0"
EXPECTED = json.loads((DATA / "expected.json").read_text())


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("stored", ["sharded", "world", "world.wgt"])
def test_a_checkpoint_of_1_0_loads(stored: str) -> None:
    if stored == "sharded":
        graph = Graph.load(DATA / stored)
    else:
        world = World.load_from_checkpoint(DATA / stored, verify=True)
        assert world.cycle == ("one", "two") and world.content == {"story": "x"}
        assert world.find("one/work/only") is world.find("two/work/only")
        graph = world.find("one/work/only")
    assert {name: digest(value) for name, value in graph.state_dict().items()} == EXPECTED["digest"]
    found = graph.eval().run({"x": torch.tensor(EXPECTED["x"])})["y"]
    torch.testing.assert_close(found, torch.tensor(EXPECTED["y"]))


def test_a_newer_one_is_refused_by_name(tmp_path: Path) -> None:
    tree = read_tree(rich_graph().save(tmp_path / "g"))
    content = {**json.loads(tree["manifest.json"]), "format_version": "2.0"}
    path = write_tree(seal({**tree, "manifest.json": json.dumps(content).encode()}), tmp_path / "newer")
    words = r"format_version '2\.0'; this version of wgtorch reads '1\.0', '1\.1', '1\.2'\. Update wgtorch"
    with pytest.raises(CheckpointError, match=words):
        Graph.load(path)


def test_an_older_one_is_carried_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format in which blocks were called modules."""

    def forward(content: dict[str, Any]) -> dict[str, Any]:
        blocks = content.pop("modules")
        return {**content, "blocks": blocks, "format_version": "1.0"}

    monkeypatch.setitem(manifests.MIGRATIONS, "0.9", forward)
    graph = rich_graph()
    tree = read_tree(graph.save(tmp_path / "g"))
    content = json.loads(tree["manifest.json"])
    content["modules"] = content.pop("blocks")
    content["format_version"] = "0.9"
    loaded = Graph.load(write_tree(seal({**tree, "manifest.json": json.dumps(content).encode()}), tmp_path / "older"))
    assert torch.equal(loaded.nodes["n1"].linear.weight, graph.nodes["n1"].linear.weight)
