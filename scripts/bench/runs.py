#!/usr/bin/env python
"""What streams, batches, caches, pauses and a pool's budget of memory cost, each beside the same by hand over the same modules.

    python scripts/bench/runs.py                 # about a minute on one core
    python scripts/bench/runs.py --rounds 9

Wall-clock time, all ways in interleaved rounds of one process; a figure is the least of its rounds. Models are small matrices where the
engine is what is timed, and large ones where sharing a call is.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wgtorch import Block, BlockRegistry, Graph, NodeCache, Paused, Pool, Port, register_block
from wgtorch.blocks.diffusion import add_preview, steer
from wgtorch.roles import Backbone

ITEMS = 8
STEPS = 20


@register_block("bench/model")
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


class Captioned(Block):
    """A BERT and a UNet of 357 modules, in one block."""

    outputs = {"y": "tensor"}
    uses_global_rng = False

    def __init__(self) -> None:
        from diffusers import UNet2DConditionModel
        from transformers import BertConfig, BertModel

        super().__init__()
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 100}
        self.bert = BertModel(BertConfig(**sizes))
        down, up = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
        common = {"in_channels": 4, "out_channels": 4, "cross_attention_dim": 32, "attention_head_dim": 8, "norm_num_groups": 8}
        self.unet = UNet2DConditionModel(block_out_channels=(32, 64), down_block_types=down, up_block_types=up, **common)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        return self.unet(x, 5, self.bert(tokens).last_hidden_state).sample


class Route(Block):
    """Gives one of two outputs."""

    outputs = {"positive": "tensor", "negative": "tensor"}
    routes = ("positive", "negative")
    uses_global_rng = False

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"positive" if x[0, 0] > 0 else "negative": x}


class Join(Block):
    """Takes what came."""

    inputs = {"x": Port(dtype="tensor", aggregation="first")}
    outputs = {"y": "tensor"}
    uses_global_rng = False

    def forward(self, x: Tensor) -> Tensor:
        return x


def routed() -> Graph:
    """Two models, of which each call takes one, with a retry at one of the places."""
    graph = Graph("routed")
    graph.add_node(Route(), "route", auto_connect=False)
    graph.add_node(Model(8, 1), "first", auto_connect=False, retry=1)
    graph.add_node(Model(8, 1), "second", auto_connect=False)
    graph.add_node(Join(), "join", auto_connect=False)
    for source, target in (("route.positive", "first.x"), ("route.negative", "second.x"), ("first.y", "join.x"), ("second.y", "join.x")):
        graph.add_edge(source, target)
    graph.infer_exposed_ports()
    return graph


def routed_by_hand(graph: Graph, x: Tensor) -> Tensor:
    """The same in words of Python's."""
    model = graph.nodes["first" if x[0, 0] > 0 else "second"]
    for attempt in range(2):
        try:
            return model(x)
        except Exception:
            if attempt:
                raise
    raise AssertionError


@register_block("bench/backbone")
class Convolved(Backbone):
    """Predicts the noise."""

    uses_global_rng = False

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(4, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 4, 3, padding=1))

    def forward(self, latent: Tensor, timestep: Any, condition: Tensor | None = None) -> dict[str, Tensor]:
        return {"pred": self.layers(latent)}


def denoiser(how: str = "") -> Graph:
    """A loop over a scheduler of diffusers; with a preview of each step, or steered."""
    graph = Graph("denoiser")
    config = {"scheduler": "DDIMScheduler", "config": {"clip_sample": False}, "num_steps": STEPS}
    graph.add_node("schedule/diffusers", "schedule", config=config)
    graph.add_node("noise/gaussian", "noise", config={"shape": [4, 32, 32]})
    graph.add_node(Convolved(), "backbone")
    graph.add_node("solver/diffusers", "solver")
    graph.expose_input("noise", "condition")
    graph.expose_output("solver", "next_latent", "latent")
    if how == "preview":
        add_preview(graph)
    elif how == "steer":
        steer(graph, _loss, sees="latent")
    return graph


def _loss(image: Tensor) -> Tensor:
    return image.square().mean(dim=(1, 2, 3))


def denoised_by_hand(graph: Graph, scheduler: Any, how: str = "") -> Tensor:
    """The same in a loop of Python's."""
    model = graph.nodes["backbone"]
    model = model.backbone if how == "steer" else model
    scheduler.set_timesteps(STEPS)
    x = torch.randn(1, 4, 32, 32) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        kept = scheduler.alphas_cumprod[t.long()]
        with torch.set_grad_enabled(how == "steer"):
            x = x.detach().requires_grad_(how == "steer")
            pred = model(scheduler.scale_model_input(x, t), t)["pred"]
            if how:
                x0 = (x - (1 - kept).sqrt() * pred) / kept.sqrt()
            if how == "steer":
                (slope,) = torch.autograd.grad(_loss(x0).sum(), x)
        if how == "steer":
            x0 = x0.detach() - (1 - kept).sqrt() * slope / slope.square().mean().sqrt()
            pred = (x.detach() - kept.sqrt() * x0) / (1 - kept).sqrt()
        x = scheduler.step(pred.detach(), t, x.detach()).prev_sample
    return x


WIDTH, DEPTH, ROWS = 2048, 8, 64
SIZE = DEPTH * (WIDTH * WIDTH + WIDTH) * 4
BUDGET = SIZE + 2**20  # one of two models, and not both


def two_models(folder: str, pool: Pool | None) -> Graph:
    """Two models of a pool, of 134 MB each, one after the other."""
    graph = Graph("two")
    with pool or Pool():
        for name in ("first", "second"):
            if not (path := Path(folder, f"{name}.safetensors")).is_file():
                save_file(Model(WIDTH, DEPTH).state_dict(), path)
            entry = {"block_type": "bench/model", "config": {"width": WIDTH, "depth": DEPTH, "checkpoint_ref": str(path)}}
            graph.add_node(BlockRegistry.build(entry), name, auto_connect=False)
    graph.add_edge("first.y", "second.x")
    graph.infer_exposed_ports()
    return graph


def peak(folder: str, max_bytes: int) -> None:
    """Prints by how much this process's memory rises above what it was before it called two models twice."""
    pool = Pool(max_bytes=max_bytes, offload="disk") if max_bytes else None
    graph, x = two_models(folder, pool), torch.randn(ROWS, WIDTH)
    x @ x.T  # what a first product takes for itself
    before = _highest()
    for _ in range(2):
        graph.run({"x": x})
    print(_highest() - before)


def _highest() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


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
    captioned = Graph("captioned")
    captioned.add_node(Captioned(), "both", auto_connect=False)
    captioned.infer_exposed_ports()
    tokens = {"x": torch.randn(1, 4, 16, 16), "tokens": torch.arange(10)[None]}
    captioned.run(tokens, cache=cache)

    router = routed()
    from diffusers import DDIMScheduler, EulerDiscreteScheduler

    plain, previewed, steered, changed = (denoiser(how) for how in ("", "preview", "steer", ""))
    ddim, one = DDIMScheduler(clip_sample=False), {"condition": torch.zeros(1, 1)}

    resident, moved = two_models(folder, None), two_models(folder, Pool(max_bytes=BUDGET, offload="disk"))
    anew = [Model(WIDTH, DEPTH) for _ in range(2)]
    wide = torch.randn(ROWS, WIDTH)

    def mapped_anew() -> Tensor:
        y = wide
        for model, name in zip(anew, ("first", "second"), strict=True):
            model.load_state_dict(load_file(f"{folder}/{name}.safetensors"), assign=True)
            y = model(y)
            model.to("meta")
        return y

    def remembered() -> Tensor:
        key = (x.numpy().tobytes(), start.numpy().tobytes())
        if key not in known:
            known[key] = by_hand(small, x, start)
        return known[key]

    def set_and_run() -> Any:
        changed.set_solver("EulerDiscreteScheduler")
        return changed.run(one, seed=1)

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
        "  num_loop_steps=": Line(lambda: small.run(given, num_loop_steps={"step": STEPS}), "by hand"),
        "  debug=": Line(lambda: small.run(given, debug=True), "by hand"),
        "a route and a retry by hand": Line(lambda: routed_by_hand(router, x)),
        "  routes and retry=": Line(lambda: router.run({"x": x}), "a route and a retry by hand"),
        "diffusers' scheduler by hand": Line(lambda: denoised_by_hand(plain, ddim)),
        "  the same as a graph": Line(lambda: plain.run(one, seed=1), "diffusers' scheduler by hand"),
        "x0 of each step by hand": Line(lambda: denoised_by_hand(previewed, ddim, "preview")),
        "  add_preview": Line(lambda: previewed.run(one, seed=1), "x0 of each step by hand"),
        "a gradient by hand": Line(lambda: denoised_by_hand(steered, ddim, "steer")),
        "  steer": Line(lambda: steered.run(one, seed=1), "a gradient by hand"),
        "from_config by hand": Line(lambda: denoised_by_hand(changed, EulerDiscreteScheduler.from_config(ddim.config))),
        "  set_solver and run": Line(set_and_run, "from_config by hand"),
        "a dict by hand": Line(remembered),
        "  cache=, all of it kept": Line(lambda: small.run(given, cache=cache), None, 1.0),
        "  cache=, a block of BERT and UNet": Line(lambda: captioned.run(tokens, cache=cache), None, 1.0),
        "  cache=, from a folder": Line(restarted, None, 30.0),
        "items one by one": Line(lambda: [large.run(item) for item in items]),
        "  rows put together by hand": Line(lambda: by_hand(large, together["x"], together["start"]), "items one by one"),
        "  batch": Line(lambda: large.batch(items), "items one by one", 1.0),
        "two models, both in memory": Line(lambda: resident.run({"x": wide})),
        "  each mapped by hand when called": Line(mapped_anew, "two models, both in memory"),
        "  Pool with room for one": Line(lambda: moved.run({"x": wide}), "  each mapped by hand when called", 1.15),
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
    parser.add_argument("--peak", nargs=2, metavar=("FOLDER", "BYTES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        peak(given.peak[0], int(given.peak[1]))
        return
    rounds = given.rounds
    if rounds < 1:
        parser.error(f"--rounds {rounds}: expected at least 1")
    torch.set_num_threads(1)
    print(f"least of {rounds} rounds; Python {platform.python_version()}, torch {torch.__version__}, one thread\n")
    with tempfile.TemporaryDirectory() as folder:
        ways = lines(folder)
        costs = measured(ways, rounds)
        peaks = [
            int(subprocess.run([sys.executable, __file__, "--peak", folder, str(size)], capture_output=True, text=True, check=True).stdout)
            for size in (0, BUDGET)
        ]
    for name, line in ways.items():
        words = f"{name:<36}{costs[name]:9.3f} ms"
        ratio = costs[name] / costs[line.beside] if line.beside else costs[name]
        if line.beside:
            words += f"{ratio:9.2f}x of {line.beside.strip()}"
        if line.limit is not None:
            words += f"   [{'reached' if ratio <= line.limit else 'MISSED '}] at most {line.limit:g}{'x' if line.beside else ' ms'}"
        print(words)
    within = "reached" if peaks[1] <= BUDGET + 16 * 2**20 else "MISSED "
    print(
        f"peak of the process: {peaks[0] / 1e6:.0f} MB; with room for {BUDGET / 1e6:.0f} MB: {peaks[1] / 1e6:.0f} MB   [{within}] and 17 MB"
    )


if __name__ == "__main__":
    main()
