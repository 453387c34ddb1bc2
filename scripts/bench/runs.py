#!/usr/bin/env python
"""What streams, batches, caches and pauses of runs cost, each beside the same by hand over the same modules.

    python scripts/bench/runs.py                 # about a minute on one core
    python scripts/bench/runs.py --rounds 9

Wall-clock time, all ways in interleaved rounds of one process; a figure is the least of its rounds. Models are small matrices where the
engine is what is timed, and large ones where sharing a call is.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch import Block, Graph, NodeCache, Paused

ITEMS = 8
STEPS = 20


class Model(Block):
    """Layers of one width."""

    outputs = {"y": "tensor"}
    rows_are_samples = True
    uses_global_rng = False

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Step(Block):
    """Half of what was, and what is encoded."""

    outputs = {"y": "tensor"}
    rows_are_samples = True
    uses_global_rng = False

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return x / 2 + c


def sampler(width: int, depth: int) -> Graph:
    """An encoder, a loop of a step and a model, and a decoder."""
    graph = Graph("sampler", metadata={"num_loop_steps": STEPS})
    blocks = {"encode": Model(width, depth), "step": Step(), "model": Model(width, depth), "decode": Model(width, depth)}
    for name, block in blocks.items():
        graph.add_node(block, name, auto_connect=False)
    for source, target in (("encode.y", "step.c"), ("step.y", "model.x"), ("model.y", "step.x"), ("model.y", "decode.x")):
        graph.add_edge(source, target)
    graph.expose_input("encode", "x")
    graph.expose_input("step", "x", "start")
    graph.expose_output("decode", "y")
    return graph


def by_hand(graph: Graph, x: Tensor, start: Tensor) -> Tensor:
    """The same in a loop of Python's."""
    encode, step, model, decode = (graph.nodes[name] for name in ("encode", "step", "model", "decode"))
    c = encode(x)
    for _ in range(STEPS):
        start = model(step(start, c))
    return decode(start)


@dataclass(frozen=True)
class Line:
    """One way, timed.

    Args:
        call: what is timed.
        beside: the line it is compared with; None compares with nothing.
        limit: of the ratio, or, where it stands beside nothing, of milliseconds; None is only shown.
    """

    call: Callable[[], Any]
    beside: str | None = None
    limit: float | None = None


def lines(folder: str) -> dict[str, Line]:
    """All ways."""
    small, large = sampler(8, 1), sampler(512, 4)
    x, start = torch.randn(1, 8), torch.randn(1, 8)
    given = {"x": x, "start": start}
    items = [{"x": torch.randn(4, 512), "start": torch.randn(4, 512)} for _ in range(ITEMS)]
    together = {name: torch.cat([item[name] for item in items]) for name in items[0]}
    cache, kept = NodeCache(), NodeCache(directory=f"{folder}/cache")
    small.run(given, cache=cache)
    small.run(given, cache=kept)
    known: dict[Any, Tensor] = {}

    def remembered() -> Tensor:
        key = (x.numpy().tobytes(), start.numpy().tobytes())
        if key not in known:
            known[key] = by_hand(small, x, start)
        return known[key]

    def restarted() -> Any:
        return small.run(given, cache=NodeCache(directory=f"{folder}/cache"))

    def stopped() -> Any:
        return small.resume(small.run_until(given, before="step", iteration=STEPS // 2))

    def saved() -> Any:
        paused = small.run_until(given, before="step", iteration=STEPS // 2)
        return small.resume(Paused.load(paused.save(f"{folder}/paused")))

    return {
        "by hand": Line(lambda: by_hand(small, x, start)),
        "graph.run": Line(lambda: small.run(given), "by hand"),
        "  callbacks=": Line(lambda: small.run(given, callbacks=[lambda event: None]), "by hand"),
        "  stream": Line(lambda: list(small.stream(given)), "by hand"),
        "  run_until and resume": Line(stopped, "  callbacks=", 3.0),
        "  the same through a file": Line(saved, None, 30.0),
        "a dict by hand": Line(remembered),
        "  cache=, all of it kept": Line(lambda: small.run(given, cache=cache), None, 1.0),
        "  cache=, from a folder": Line(restarted, None, 30.0),
        "items one by one": Line(lambda: [large.run(item) for item in items]),
        "  rows put together by hand": Line(lambda: by_hand(large, together["x"], together["start"]), "items one by one"),
        "  batch": Line(lambda: large.batch(items), "items one by one", 1.0),
    }


def measured(ways: dict[str, Line], rounds: int) -> dict[str, float]:
    """Milliseconds a call by line: the least over interleaved rounds."""
    best = dict.fromkeys(ways, float("inf"))
    with torch.no_grad():
        for line in ways.values():
            line.call()
        for _ in range(rounds):
            for name, line in ways.items():
                started = time.perf_counter_ns()
                for _ in range(3):
                    line.call()
                best[name] = min(best[name], (time.perf_counter_ns() - started) / 3e6)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds of timing")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error(f"--rounds {rounds}: expected at least 1")
    torch.set_num_threads(1)
    print(f"least of {rounds} rounds; Python {platform.python_version()}, torch {torch.__version__}, one thread\n")
    with tempfile.TemporaryDirectory() as folder:
        ways = lines(folder)
        costs = measured(ways, rounds)
    for name, line in ways.items():
        words = f"{name:<32}{costs[name]:9.3f} ms"
        ratio = costs[name] / costs[line.beside] if line.beside else costs[name]
        if line.beside:
            words += f"{ratio:9.2f}x of {line.beside.strip()}"
        if line.limit is not None:
            words += f"   [{'reached' if ratio <= line.limit else 'MISSED '}] at most {line.limit:g}{'x' if line.beside else ' ms'}"
        print(words)


if __name__ == "__main__":
    main()
