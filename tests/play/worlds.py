"""Small worlds for tests of play: an intent, a picture, and facts; one that is told; and one told by a scripted language model."""

from __future__ import annotations

import threading
from typing import Any

import torch

from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.world import World

FACTS: dict[str, Any] = {
    "title": "A small world",
    "traveller": "Ada",
    "places": {
        "Fen": {"terrain": "marsh", "neighbours": {"north": "Tor"}, "landmark": "well", "state": "burnt", "known": True, "at": [0, 0]},
        "Tor": {
            "terrain": "hills",
            "neighbours": {"south": "Fen", "north": "Far"},
            "landmark": None,
            "state": "whole",
            "known": False,
            "at": [0, 1],
        },
        "Far": {"terrain": "sea", "neighbours": {"south": "Tor"}, "landmark": None, "state": "whole", "known": False, "at": [0, 2]},
    },
    "characters": {
        "Ada": {
            "role": "traveller",
            "place": "Fen",
            "mood": "calm",
            "goal": "see the sea",
            "carries": ["a key"],
            "look": {"coat": "red"},
            "present": True,
        },
        "Bo": {"role": "smith", "place": "Fen", "mood": "glad", "goal": "gold", "carries": [], "look": {"coat": "blue"}, "present": True},
        "Cy": {"role": "baker", "place": "Far", "mood": "sad", "carries": [], "look": {}, "present": True, "remembers": {}},
    },
    "objects": {"a key": {"kind": "key", "bearer": "Ada", "state": "broken"}, "a cup": {"kind": "cup", "place": "Fen", "state": "whole"}},
    "clock": {"day": 3, "hour": 19},
    "weather": "rain",
}
GATE = threading.Event()
"""The development waits for it where an action is ``hold``."""


@register_block("test_play/dream")
class Dream(Block):
    """An intent that repeats the action."""

    inputs = {"action": Port(dtype="any", optional=True)}
    outputs = {"intent": "text"}

    def forward(self, action: Any = None) -> dict:
        if action == "fail":
            raise RuntimeError("the dreamer is out of <b>dreams</b>")
        if action == "hold":
            GATE.wait(60)
        return {"intent": f"It comes to pass: {action}"}


@register_block("test_play/paint")
class Paint(Block):
    """A picture of four pixels."""

    inputs = {"intent": "text"}
    outputs = {"image": "image"}

    def forward(self, intent: str) -> dict:
        return {"image": torch.full((1, 3, 2, 2), len(intent) % 7 / 7)}


@register_block("test_play/told")
class Told(Block):
    """An outcome that repeats the intent."""

    inputs = {"intent": "text"}
    outputs = {"outcome": "text"}

    def forward(self, intent: str) -> dict:
        return {"outcome": f"So it was. {intent}"}


@register_block("test_play/keep")
class Keep(Block):
    """A content that keeps the last outcome."""

    inputs = {"content": "dict", "outcome": Port(dtype="text", optional=True)}
    outputs = {"content": "dict"}

    def forward(self, content: dict, outcome: str | None = None) -> dict:
        return {"content": {**content, "story": outcome}}


def _stage(name: str, block: str, reads: dict[str, str], writes: dict[str, str], *, new_state: bool = False) -> Stage:
    graph = Graph(name)
    graph.add_node(block, name)
    for port in graph.nodes[name].get_input_spec():
        graph.expose_input(name, port)
    for port in graph.nodes[name].get_output_spec():
        graph.expose_output(name, port)
    pipeline = Pipeline(name)
    pipeline.add_graph(graph, name)
    for port in graph.get_input_spec():
        pipeline.expose_input(name, port)
    for port in graph.get_output_spec():
        pipeline.expose_output(name, port)
    stage = Stage(name)
    stage.add_pipeline(pipeline, name)
    slots = [slot for slot in reads.values() if slot not in ("action", "content")]
    stage.set_state_contract(
        slots,
        list(writes),
        {f"{name}.{port}": slot for port, slot in reads.items()},
        {slot: f"{name}.{port}" for slot, port in writes.items()},
        new_state=new_state,
    )
    return stage


def small_world() -> World:
    """Two stages and two slots; every pass is an episode."""
    world = World("small")
    world.add_stage(_stage("dream", "test_play/dream", {"action": "action"}, {"intent": "intent"}))
    world.add_stage(_stage("paint", "test_play/paint", {"intent": "intent"}, {"artifacts": "image"}))
    world.set_state_schema(["intent", "artifacts"])
    world.set_cycle(["dream", "paint"])
    world.set_initial_content(FACTS)
    return world


def told_world() -> World:
    """Four stages: what came of an episode is told at the beginning of the next pass, as in the canonical cycle."""
    world = World("told")
    tell = _stage("tell", "test_play/told", {"intent": "intent"}, {"outcome": "outcome"})
    tell.set_execution_condition(["intent", "!outcome"])
    keep = _stage("keep", "test_play/keep", {"content": "content", "outcome": "outcome"}, {"content": "content"})
    keep.set_execution_condition("complete")
    world.add_stage(tell)
    world.add_stage(keep)
    world.add_stage(_stage("dream", "test_play/dream", {"action": "action"}, {"intent": "intent"}, new_state=True))
    world.add_stage(_stage("paint", "test_play/paint", {"intent": "intent"}, {"artifacts": "image"}))
    world.set_state_schema(["intent", "artifacts", "outcome"])
    world.set_cycle(["tell", "keep", "dream", "paint"])
    world.set_initial_content({"title": "A told world"})
    return world


def storytelling_world() -> World:
    """The storytelling template, painted by the model that ships and told by a server with one answer for each role."""
    from wgtorch.testing import Reply, ScriptedServer

    answers = {
        "art director": '{"prompts": ["A red castle at night."]}',
        "keep the records": '{"glossary": [{"name": "Mara", "description": "a keeper"}], "summary": "A lamp was lit."}',
        "mind of a world": "Mara climbs the stairs.",
        "chronicler": "Mara lit the lamp.",
        "look at pictures": "A red castle at night.",
    }
    server = ScriptedServer(
        respond=lambda seen: next((answer for role, answer in answers.items() if role in seen.system), "") if seen.system else Reply()
    )
    server.__enter__()  # until the process ends
    model = {"provider": "openai", "model_id": "m", "endpoint_url": server.url, "retries": 0}
    painter = {"template": "text_to_image", "params": {"steps": 1}}
    return World.from_template("storytelling", llm=model, creator=painter, story="Mara keeps a lighthouse.")
