#!/usr/bin/env python
"""Many worlds at once against the same worlds one after the other, beside what batching the painter alone gains.

    python scripts/bench/worlds.py                     # 16 worlds of 3 passes; about 3 minutes on one core
    python scripts/bench/worlds.py --worlds 64 --passes 10 --template scenes

CPU seconds of the process, but for the line of stages that wait, which is wall time. The targets are ratios: within 10% of the
painter's own gain for whole worlds, 6x with the painter left out, 20x where stages wait on a network.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from wgtorch import Block, Graph, Pipeline, Stage, World
from wgtorch.world_batch import WorldBatch

WAIT = 0.05  # seconds that a call over a network takes


class Waits(Block):
    """Gives what it gets, after a while."""

    outputs = {"y": "text"}
    is_async = True

    def forward(self, x: str) -> str:
        time.sleep(WAIT)
        return x


class Blank(Block):
    """A grey picture in place of a painted one."""

    outputs = {"image": "image", "small": "image"}

    def forward(
        self, prompt: Any = "", scene: Any = None, negative_prompt: str = "", guidance_scale: float = 1.0
    ) -> dict[str, torch.Tensor]:
        return dict.fromkeys(self.outputs, torch.full((1, 3, 64, 64), 0.5))


class Same(Block):
    """A picture as it is, in place of an upscaler."""

    outputs = {"image": "image"}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


def graph_of(block: Block) -> Graph:
    """A graph of one block, all its ports shown."""
    graph = Graph("stand_in")
    graph.add_node(block, "block")
    for port in block.get_input_spec():
        graph.expose_input("block", port)
    graph.infer_exposed_ports()
    return graph


def waiting_world() -> World:
    """A world of one stage that waits."""
    graph = Graph("g")
    graph.add_node(Waits(), "waits")
    graph.infer_exposed_ports()
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "g")
    pipeline.infer_exposed_ports()
    stage = Stage("waits", role="environment")
    stage.add_pipeline(pipeline, "p")
    stage.set_state_contract([], ["intent"], {"p.x": "action"}, {"intent": "p.y"})
    world = World("waiting")
    world.set_state_schema(["intent"])
    world.add_stage(stage, "waits")
    world.set_cycle(["waits"])
    return world


def without_painter(world: World) -> World:
    """The world with a grey picture where the painter and the upscaler stand."""
    paint = world.find("creator/paint")
    for node_id, child in list(paint.nodes.items()):
        paint.replace_node(node_id, graph_of(Blank() if "prompt" in child.get_input_spec() else Same()))
    return world


def asked_of(world: World, painter: str) -> dict[str, Any]:
    """What a world asks its painter for in its first pass."""
    asked: list[dict[str, Any]] = []

    def note(event: Any) -> None:
        if event.kind == "start" and event.path == painter:
            asked.append(dict(event.inputs))

    world.fork().run(seed=0, callbacks=[note])
    return asked[0]


def seconds(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    """What a piece of work takes, from a heap without garbage: a full collection in the middle costs what ten passes of a mind do."""
    gc.collect()
    begun = clock()
    work()
    return clock() - begun


def both(world: World, count: int, passes: int, action: Any, clock: Callable[[], float]) -> tuple[float, float]:
    """(one after the other, at once)."""
    world.fork().run(num_steps=1, seed=0, action=action)  # plans, and whatever is made once
    alone = [world.fork() for _ in range(count)]
    together = WorldBatch(world, seeds=range(count))

    def singly() -> None:
        for seed, one in enumerate(alone):
            one.run(num_steps=passes, seed=seed, action=action)

    first = seconds(singly, clock)
    second = seconds(lambda: together.run(num_steps=passes, action=action), clock)
    if together.errors:
        raise next(iter(together.errors.values()))
    return first, second


def row(name: str, alone: float, at_once: float, least: float | None = None) -> None:
    """A line of the table."""
    ratio = alone / at_once
    told = "" if least is None else f"   [{'reached' if ratio >= least else 'MISSED '}] at least {least:.2f}x"
    print(f"{name:44s} {alone:9.2f} s {at_once:9.2f} s {ratio:7.2f}x{told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=16)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--template", default="default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    count, passes = args.worlds, args.passes
    print(f"{count} worlds of {args.template!r}, {passes} passes; one thread of torch\n{'':44s} {'alone':>11s} {'at once':>11s}")
    world = World.from_template(args.template)
    place = f"creator/paint/{next(iter(world.find('creator/paint').nodes))}"
    painter, asked = world.find(place), [asked_of(world, place)] * count
    painter.run(asked[0], seed=0)
    alone = seconds(lambda: [painter.run(inputs, seed=index) for index, inputs in enumerate(asked)], time.process_time)
    batched = seconds(lambda: painter.batch(asked, seed=list(range(count))), time.process_time)
    row("the painter's graph by itself", alone, batched)
    row("worlds", *both(world, count, passes, None, time.process_time), 0.9 * alone / batched)
    unpainted = without_painter(World.from_template(args.template))
    row("worlds without their painter", *both(unpainted, count, passes, None, time.process_time), 6.0)
    waiting = both(waiting_world(), count, passes, "x", time.perf_counter)
    row(f"worlds whose stage waits {WAIT * 1000:.0f} ms (wall)", *waiting, min(20.0, count / 1.2))


if __name__ == "__main__":
    main()
