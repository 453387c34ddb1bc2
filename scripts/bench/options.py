#!/usr/bin/env python
"""What each option of a run costs: CPU microseconds a node and a call, beside a loop by hand over the same modules.

    python scripts/bench/options.py                # about a minute on one core
    python scripts/bench/options.py --rounds 30

Nodes do nothing, so what is timed is the walk. All ways are timed in one process, in interleaved rounds, by process CPU time (of
all threads); a figure is the least of its rounds. A target is a ratio: to the plain walk for what changes nothing about the calls,
to the same work by hand for draws and callbacks.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wgtorch import Block, Graph, Pipeline, Port, Stage, State, World

NODES = 50
SAMPLE_NS = 3_000_000


class Identity(Block):
    """Gives what it gets."""

    outputs = {"y": "tensor"}

    def forward(self, x: Tensor, b: float = 0.0) -> Tensor:
        return x


class Maybe(Block):
    """One output of two."""

    outputs = {"y": "tensor", "z": Port(dtype="tensor", optional=True)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": x}


class Draws(Block):
    """Draws a few numbers."""

    outputs = {"y": "tensor"}

    def forward(self, x: Tensor, rng: Any = None) -> Tensor:
        return rng.normal((1, 4))


class Waits(Identity):
    """As if it asked a network."""

    is_async = True


class Words(Block):
    """One word of another."""

    outputs = {"y": "text"}

    def forward(self, x: str) -> str:
        return x


def chain(length: int, make: Callable[[int], Any], name: str = "chain", **place: Any) -> Graph:
    """Nodes one after the other."""
    graph = Graph(name)
    for index in range(length):
        graph.add_node(make(index), f"n{index}", auto_connect=False, **place)
        if index:
            graph.add_edge(f"n{index - 1}.y", f"n{index}.x")
    graph.expose_input("n0", "x")
    graph.expose_output(f"n{length - 1}", "y")
    return graph


def stage_of(role: str, source: str, target: str, **contract: Any) -> Stage:
    """A stage that copies one slot to another through a pipeline of a graph of a block."""
    pipeline = Pipeline("p")
    pipeline.add_graph(chain(1, lambda index: Words(), "g"), "g")
    pipeline.infer_exposed_ports()
    stage = Stage(role, role=role)
    stage.add_pipeline(pipeline, "p")
    stage.set_state_contract([source], [target], {"p.x": source}, {target: "p.y"}, **contract)
    return stage


def five_stages() -> World:
    """A world of five stages that copy words around."""
    world = World("copies")
    slots = ("intent", "recipe", "artifacts", "description", "outcome")
    for source, target in zip(slots, (*slots[1:], slots[0]), strict=True):
        world.add_stage(stage_of(f"to_{target}", source, target))
    world.set_cycle(list(world.nodes))
    return world


@dataclass(frozen=True)
class Line:
    """One way to run, timed.

    Args:
        call: what is timed.
        nodes: how many nodes one call goes through.
        beside: the line it is compared with; None compares with nothing.
        limit: of the ratio, or, where it stands beside nothing, of microseconds; None is only shown.
        without: a line and another that is taken from it: what is left is no part of this line's cost.
    """

    call: Callable[[], Any]
    nodes: int = NODES
    beside: str | None = None
    limit: float | None = None
    without: tuple[str, str] | None = None


def lines() -> dict[str, Line]:
    """All ways."""
    x = torch.ones(4)
    modules = [Identity() for _ in range(NODES)]
    plain, given = chain(NODES, lambda index: Identity()), {"x": x}

    def by_hand() -> Tensor:
        value = x
        for module in modules:
            value = module(value)
        return value

    def draws_by_hand() -> Tensor:
        value = x
        for index in range(NODES):
            value = torch.randn((1, 4), generator=torch.Generator().manual_seed(index))
        return value

    filled = chain(NODES, lambda index: Identity(), inputs={"b": 1.0})
    frozen = chain(NODES, lambda index: Identity(), trainable=False)
    maybe, drawing = chain(NODES, lambda index: Maybe()), chain(NODES, lambda index: Draws())
    nested = chain(NODES, lambda index: chain(1, lambda _: Identity()))
    waiting = chain(NODES, lambda index: Waits())
    alone_waits = chain(1, lambda index: Waits())
    one_waits = chain(NODES, lambda index: Waits() if index == NODES // 2 else Identity())
    single = chain(1, lambda index: Identity())
    ring = Graph("ring", metadata={"num_loop_steps": NODES})
    ring.add_node(Identity(), "n", auto_connect=False)
    ring.add_edge("n.y", "n.x")
    ring.expose_input("n", "x")
    ring.expose_output("n", "y")
    pipeline = Pipeline("p")
    pipeline.add_graph(single, "g")
    pipeline.infer_exposed_ports()
    stage, state = stage_of("s", "intent", "recipe"), State(intent="a")
    world = five_stages()
    whole = State(intent="a", recipe="b", artifacts="c", description="d", outcome="e")
    return {
        "a loop by hand": Line(by_hand),
        "graph(x=x)": Line(lambda: plain(x=x), beside="a loop by hand"),
        "graph.run": Line(lambda: plain.run(given), beside="graph(x=x)", limit=1.5),
        "a loop of 50 iterations": Line(lambda: ring.run(given), beside="a loop by hand"),
        "  num_loop_steps=": Line(lambda: ring.run(given, num_loop_steps=NODES), beside="a loop of 50 iterations", limit=1.5),
        "  num_loop_steps= by a node": Line(
            lambda: ring.run(given, num_loop_steps={"n": NODES}), beside="a loop of 50 iterations", limit=1.5
        ),
        "  timeout=": Line(lambda: plain.run(given, timeout=60), beside="graph(x=x)", limit=1.5),
        "  cancelled=": Line(lambda: plain.run(given, cancelled=lambda: False), beside="graph(x=x)", limit=1.5),
        "  outputs=": Line(lambda: plain.run(given, outputs=["y"]), beside="graph(x=x)", limit=1.5),
        "  seed= over blocks that draw nothing": Line(lambda: plain.run(given, seed=1), beside="graph(x=x)", limit=1.5),
        "  filled inputs": Line(lambda: filled.run(given), beside="graph(x=x)", limit=1.5),
        "  optional output": Line(lambda: maybe.run(given), beside="graph(x=x)", limit=1.5),
        "  frozen places": Line(lambda: frozen.run(given), beside="graph(x=x)", limit=1.5),
        "  frozen places with gradients": Line(lambda: frozen.run(given, training=True), beside="graph(x=x)", limit=1.5),
        "  debug=": Line(lambda: plain.run(given, debug=True), beside="a loop by hand"),
        "draws by hand": Line(draws_by_hand),
        "  seed= over blocks that draw": Line(lambda: drawing.run(given, seed=1), beside="draws by hand", limit=2.0),
        "  one callback": Line(lambda: plain.run(given, callbacks=[lambda event: None]), beside="a loop by hand", limit=4.0),
        "  one callback and seed=": Line(
            lambda: plain.run(given, seed=1, callbacks=[lambda event: None]), beside="a loop by hand", limit=4.0
        ),
        "a chain of subgraphs": Line(lambda: nested(x=x), beside="a loop by hand", limit=3.0),
        "  graph.run": Line(lambda: nested.run(given), beside="a loop by hand", limit=3.0),
        "a call of one async node": Line(lambda: alone_waits.run(given), 1),
        "the others beside one async node of 50": Line(
            lambda: one_waits.run(given), beside="graph.run", limit=1.2, without=("a call of one async node", "a call of graph.run")
        ),
        "all nodes async": Line(lambda: waiting.run(given), limit=60.0),
        "a call of graph(x=x)": Line(lambda: single(x=x), 1),
        "a call of graph.run": Line(lambda: single.run(given), 1),
        "a call of pipeline.run": Line(lambda: pipeline.run(given), 1),
        "a call of stage(state)": Line(lambda: stage(state), 1, limit=25.0),
        "a call of stage.run": Line(lambda: stage.run(state), 1),
        "a pass of world(state), five stages": Line(lambda: world(whole), 1, limit=80.0),
        "a pass of world.run in memory": Line(lambda: world.run(whole, seed=1), 1, limit=250.0),
    }


def measured(ways: Mapping[str, Line], rounds: int) -> dict[str, float]:
    """CPU microseconds a node by line: the least over interleaved rounds."""
    best = dict.fromkeys(ways, float("inf"))
    repeats = {}
    with torch.no_grad():
        for name, line in ways.items():
            line.call()
            started = time.process_time_ns()
            line.call()
            repeats[name] = max(1, SAMPLE_NS // max(1, time.process_time_ns() - started))
        for _ in range(rounds):
            for name, line in ways.items():
                started = time.process_time_ns()
                for _ in range(repeats[name]):
                    line.call()
                best[name] = min(best[name], (time.process_time_ns() - started) / repeats[name] / line.nodes / 1000)
    for name, line in ways.items():
        if line.without is not None:
            first, second = line.without
            best[name] -= (best[first] - best[second]) / line.nodes
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds of timing")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error(f"--rounds {rounds}: expected at least 1")
    torch.set_num_threads(1)
    print(f"CPU time, least of {rounds} rounds; Python {platform.python_version()}, torch {torch.__version__}, one thread\n")
    ways = lines()
    costs = measured(ways, rounds)
    for name, line in ways.items():
        words = f"{name:<40}{costs[name]:9.2f} us"
        ratio = costs[name] / costs[line.beside] if line.beside else costs[name]
        if line.beside:
            words += f"{ratio:9.2f}x of {line.beside}"
        if line.limit is not None:
            unit = "x" if line.beside else " us"
            if line.without is not None and ratio < 0.5:  # threads of others got between
                print(f"{words}   [not told ] the machine is too busy for a difference of two lines")
                continue
            words += f"   [{'reached' if ratio <= line.limit else 'MISSED '}] at most {line.limit:g}{unit}"
        print(words)


if __name__ == "__main__":
    main()
