"""A world of four tiny stages, for tests: a scribe, a painter, a looker, and an archivist who writes the content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block
from wgtorch.core.port import Port
from wgtorch.graph import Graph
from wgtorch.stage import Stage
from wgtorch.templates.world import around
from wgtorch.world import World

SLOTS = ("intent", "artifacts", "outcome")


def begin(content: dict, action: Any = None) -> dict:
    return {"intent": f"after {content['count']}: {action or 'rest'}"}


def paint(intent: str) -> dict:
    return {"image": torch.full((1, 3, 4, 4), (len(intent) % 10) / 10)}


def look(image: Tensor) -> dict:
    return {"outcome": f"grey {image.mean():.1f}"}


def archive(content: dict, outcome: str) -> dict:
    return {"content": {**content, "count": content["count"] + 1, "last": outcome}}


def stage(name: str, function: Callable, inputs: dict, outputs: dict, contract: dict) -> Stage:
    graph = Graph(name)
    graph.add_node(Block.wrap(function, inputs=inputs, outputs=outputs), "do")
    for port in inputs:
        graph.expose_input("do", port)
    for port in outputs:
        graph.expose_output("do", port)
    made = Stage(name, role=name)
    made.add_pipeline(around(graph, "do"), "do")
    made.set_state_contract(**contract)
    return made


def toy_world(*, remembers: bool = True, begins: bool = True) -> World:
    """looker -> archivist -> scribe -> painter; ``remembers`` with the archivist, ``begins`` with a new State for each episode."""
    looker = stage(
        "looker",
        look,
        {"image": "tensor"},
        {"outcome": "text"},
        {
            "inputs": ["artifacts"],
            "outputs": ["outcome"],
            "mapping_input": {"do.image": "artifacts"},
            "mapping_output": {"outcome": "do.outcome"},
        },
    )
    looker.set_execution_condition(["artifacts"])
    archivist = stage(
        "archivist",
        archive,
        {"content": "dict", "outcome": "text"},
        {"content": "dict"},
        {
            "inputs": [],
            "outputs": [],
            "mapping_input": {"do.content": "content", "do.outcome": "outcome"},
            "mapping_output": {"content": "do.content"},
        },
    )
    archivist.set_execution_condition("complete")
    scribe = stage(
        "scribe",
        begin,
        {"content": "dict", "action": Port(dtype="any", optional=True)},
        {"intent": "text"},
        {
            "inputs": [],
            "outputs": ["intent"],
            "mapping_input": {"do.content": "content", "do.action": "action"},
            "mapping_output": {"intent": "do.intent"},
            "new_state": begins,
        },
    )
    painter = stage(
        "painter",
        paint,
        {"intent": "text"},
        {"image": "tensor"},
        {
            "inputs": ["intent"],
            "outputs": ["artifacts"],
            "mapping_input": {"do.intent": "intent"},
            "mapping_output": {"artifacts": "do.image"},
        },
    )
    world = World("toy")
    for made in (looker, archivist, scribe, painter) if remembers else (scribe, painter, looker):
        world.add_stage(made)
    world.set_state_schema(SLOTS)
    world.set_cycle(list(world.nodes))
    world.set_initial_content({"count": 0})
    return world
