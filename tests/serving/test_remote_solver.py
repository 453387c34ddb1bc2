"""Solvers at another endpoint: what a multistep solver remembers travels along the edges, and comes back as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from wgtorch.core.block import BlockRegistry
from wgtorch.graph import Graph
from wgtorch.serving.server import serving


def painter(solver: Any) -> Graph:
    graph = Graph("painter")
    graph.add_node("tokenizer/scene")
    graph.add_node("conditioner/scene", config={"checkpoint_ref": "wgtorch:scene_text"})
    graph.add_node("noise/gaussian", config={"shape": [3, 64, 64]})
    graph.add_node("backbone/scene", config={"checkpoint_ref": "wgtorch:scene_painter"})
    graph.add_node(solver, "solver")
    graph.add_node("codec/pixels")
    graph.infer_exposed_ports()
    return graph


@pytest.mark.parametrize("name", ["solver/flow_euler", "solver/flow_heun"])
def test_a_solver_at_an_endpoint_gives_the_same_picture_bit_for_bit(name: str) -> None:
    entry = {"block_type": name, "config": {"num_steps": 3, "prediction": "x0"}}
    expected = painter(BlockRegistry.build(entry)).run({"text": "a red castle"}, seed=1)["image"]
    with serving(BlockRegistry.build(entry)) as url:
        found = painter({"endpoint_url": url}).run({"text": "a red castle"}, seed=1)["image"]
    assert torch.equal(found, expected)
