#!/usr/bin/env python
"""What denoising costs: a diffusers pipeline, a hand-written loop, a graph, and the last two compiled, over the same weights.

    python scripts/bench/denoise.py                                      # everything; compiling takes minutes on a CPU
    python scripts/bench/denoise.py --sizes stub tiny --steps 20         # some of it
    python scripts/bench/denoise.py --columns diffusers floor graph      # nothing compiled
    python scripts/bench/denoise.py --sizes middle --neighbours --rounds 1     # steps in turns, for slow models and busy machines
    python scripts/bench/denoise.py --sizes middle --neighbours --channels-last

Text is encoded beforehand and no picture is decoded, so a run is conditions and latents in, latents out, with classifier-free
guidance in one batch. ``floor`` is a loop in plain Python over the graph's own blocks, which does what the graph does: the conditions
joined, the schedule looked up, the keys and values of the condition made once before the loop, the same calls in every turn. What it
leaves out is the graph's: inputs checked, modules put into eval, values handed on by a plan. ``bare`` is a loop over the UNet alone,
with everything else written out, and without the keys and values made before. ``compiled, channels-last`` has a UNet of its own,
whose weights lie as compiled convolutions read them.

All columns are timed in one process, in interleaved rounds, by the wall clock, and each must first arrive at the diffusers pipeline's
latent. The time shown is the least of the rounds; a ratio is the median over runs of the same round, as a machine's other work comes
and goes, with its standard error. With ``--neighbours`` the columns take turns after every step, and a ratio is the median over
neighbouring steps: where a step takes half a second, few rounds fit into any time. It costs a little for each step, since every
column finds another one's data in the caches.

| size   | UNet                                                          | shows                    |
| stub   | one multiplication                                            | the framework's share    |
| tiny   | 2 to 5 million parameters, latents of 8x8                     | many small operations    |
| middle | 30 to 60 million parameters, latents of 32x32                 | the model                |

Attention of the tiny size is over heads of 24 channels, as wide models have them rather than the 6 that its width would give with
eight heads. With ``--side 16`` its convolutions and matrix products are most of the time, in which nobody differs: the compiled graph
takes 0.69 of diffusers there (channels-last 0.64), and 0.54 (0.50) at its own size. Compiled loops check before each turn that the
model is as it was compiled, 0.5 to 1 ms; whoever knows that it is may leave the checks out (``guard_filter_fn`` of ``torch.compile``).
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import logging
import platform
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction

SCALE = 7.5
TOKENS = 77
M_ARENA_MAX = -8  # of glibc's malloc.h
COLUMNS = ("diffusers", "bare", "floor", "graph", "compiled graph", "compiled, channels-last", "diffusers, compiled UNet")
SIZES: dict[str, dict[str, Any]] = {
    "stub": {"sample_size": 16, "block_out_channels": (8, 8), "norm_num_groups": 4, "cross_attention_dim": 32},
    "tiny": {
        "sample_size": 8,
        "block_out_channels": (48, 96),
        "norm_num_groups": 16,
        "cross_attention_dim": 768,
        "attention_head_dim": (2, 4),
    },
    "middle": {"sample_size": 32, "block_out_channels": (128, 256, 320), "norm_num_groups": 32, "cross_attention_dim": 768},
}
# At most so many times the other column: (size, column, other column, limit).
TARGETS = (
    ("stub", "graph", "diffusers", 0.65),
    ("stub", "graph", "floor", 1.1),
    ("tiny", "graph", "diffusers", 0.95),
    ("middle", "graph", "floor", 1.02),
    ("middle", "graph", "diffusers", 1.0),
    ("tiny", "compiled graph", "diffusers", 0.6),
    ("tiny", "compiled, channels-last", "diffusers", 0.6),
    ("tiny", "compiled graph", "diffusers, compiled UNet", 1.0),
    ("middle", "compiled graph", "diffusers, compiled UNet", 1.0),
    ("stub", "compiled graph", "diffusers, compiled UNet", 1.0),
)


def make_unet(size: str) -> Any:
    """A UNet with random weights; the stub is one in name, and multiplies."""
    from diffusers import UNet2DConditionModel

    class Stub(UNet2DConditionModel):
        def forward(self, sample: Tensor, timestep: Any, encoder_hidden_states: Any = None, **more: Any) -> tuple[Tensor]:  # type: ignore[override]
            return (sample * 0.1,)

    Stub.__name__ = UNet2DConditionModel.__name__  # by which a pipeline's family is told
    levels = len(SIZES[size]["block_out_channels"])
    torch.manual_seed(0)
    # `attention_head_dim` is how many heads there are (https://github.com/huggingface/diffusers/issues/2011)
    common = {"in_channels": 4, "out_channels": 4, "layers_per_block": 1 if size != "middle" else 2, "attention_head_dim": 8, **SIZES[size]}
    if size == "stub":
        kinds: dict[str, Any] = {"down_block_types": ("DownBlock2D",) * levels, "up_block_types": ("UpBlock2D",) * levels}
        stub = Stub(**common, **kinds, mid_block_type=None).eval()
        for name in ("time_proj", "time_embedding", "down_blocks", "up_blocks", "conv_norm_out", "conv_act", "conv_out"):
            delattr(stub, name)  # nobody calls them; one layer stays, to tell dtype and device by
        return stub
    return UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        **common,
    ).eval()


class Case:
    """One size and batch: every column as a function of the number of steps."""

    def __init__(self, size: str, batch: int, columns: Sequence[str], channels_last: bool, side: int | None = None) -> None:
        from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline

        from wgtorch import Graph

        side = side or SIZES[size]["sample_size"]
        self.unet = make_unet(size)
        if channels_last:
            self.unet.to(memory_format=torch.channels_last)
        words, encoder = text(size)
        vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)

        def pipeline(unet: Any) -> Any:
            scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
            made = StableDiffusionPipeline(vae, encoder, words, unet, scheduler, None, None, requires_safety_checker=False)
            made.set_progress_bar_config(disable=True)
            return made

        generator = torch.Generator().manual_seed(1)
        width = SIZES[size]["cross_attention_dim"]
        self.prompt, self.negative = (torch.randn(batch, TOKENS, width, generator=generator) for _ in range(2))
        self.latents = torch.randn(batch, 4, side, side, generator=generator)
        self.pipelines = {"diffusers": pipeline(self.unet)}
        if "diffusers, compiled UNet" in columns:
            self.pipelines["diffusers, compiled UNet"] = pipeline(torch.compile(self.unet))
        self.graph = denoising(Graph.from_diffusers(pipeline(self.unet)))
        self.compiled = {}
        for column in ("compiled graph", "compiled, channels-last"):
            if column in columns:
                own = copy.deepcopy(self.unet).to(memory_format=torch.channels_last) if "channels-last" in column else self.unet
                self.compiled[column] = denoising(Graph.from_diffusers(pipeline(own)))
                self.compiled[column].compile(fullgraph=True)
        self.schedule, self.solver = self.graph.nodes["schedule"], self.graph.nodes["solver"]
        self.parameters = sum(p.numel() for p in self.unet.parameters())

    def run(self, column: str, steps: int, turn: Callable[[], None] | None = None) -> Tensor:
        """The last latent. ``turn`` is called once in every step."""
        if column in self.pipelines:
            told: dict[str, Any] = {}
            if turn is not None:
                told = {"callback_on_step_end": lambda pipeline, step, timestep, kept: (turn(), kept)[1]}
                told["callback_on_step_end_tensor_inputs"] = []
            return self.pipelines[column](
                prompt_embeds=self.prompt,
                negative_prompt_embeds=self.negative,
                latents=self.latents,
                num_inference_steps=steps,
                guidance_scale=SCALE,
                output_type="latent",
                return_dict=False,
                **told,
            )[0]
        if column == "bare":
            return self.bare(steps, turn)
        if column == "floor":
            return self.by_hand(steps, turn)
        graph = self.compiled.get(column, self.graph)
        inputs = {"embedding": self.prompt, "negative_embedding": self.negative, "latents": self.latents}
        callbacks = [] if turn is None else [lambda event: turn() if event.kind == "loop" else None]
        return graph.run({**inputs, "num_inference_steps": steps, "guidance_scale": SCALE}, callbacks=callbacks)["next_latent"]

    @torch.no_grad()
    def by_hand(self, steps: int, told: Callable[[], None] | None) -> Tensor:
        """The graph's own blocks, called one after the other by a loop in plain Python."""
        at = self.graph.nodes
        conditions, schedule, noise, repeat = at["conditions"], at["schedule"], at["noise"], at["repeat"]
        backbone, split, guidance, solver = at["backbone"], at["split"], at["guidance"], at["solver"]
        given = conditions(embedding=self.prompt, negative_embedding=self.negative, guidance_scale=SCALE)
        start = schedule(num_steps=steps)
        progress, timestep, condition, parts, scale = (
            start["progress"], start["timestep"], given["condition"], given["parts"], given["scale"],
        )  # fmt: skip
        latent = noise(given["prompt_embeds"], progress, latents=self.latents)["latent"]
        condition = backbone.precompute_invariants(condition=condition).get("condition", condition)
        done = False
        while not done:
            pred = backbone(repeat(latent, parts), timestep, condition)["pred"]
            two = split(pred, parts)
            guided = guidance(two["pred_cond"], two["pred_uncond"], scale, timestep)["pred_guided"]
            turn = solver(latent, timestep, guided, progress)
            latent, timestep, progress, done = turn["next_latent"], turn["next_timestep"], turn["progress"], turn["done"]
            if told is not None:
                told()
        return latent

    @torch.no_grad()
    def bare(self, steps: int, told: Callable[[], None] | None) -> Tensor:
        """The loop as somebody writes it who wants this one and no other: no blocks, the solver as two numbers."""
        condition, latent, unet = torch.cat([self.negative, self.prompt]), self.latents, self.unet
        for timestep, w, share in turns_of(self.solver, self.schedule.grid(steps)):
            pred = unet(torch.cat([latent, latent]), timestep, encoder_hidden_states=condition, return_dict=False)[0]
            uncond, cond = pred.chunk(2)
            guided = uncond + SCALE * (cond - uncond)
            latent = torch.add(latent * w, guided, alpha=share)
            if told is not None:
                told()
        return latent


@cache
def turns_of(solver: Any, grid: Any) -> list[tuple[float, float, float]]:
    """The solver as two numbers a turn: what its step, which is linear in them, makes of the latent and of the prediction."""
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    def weight(at: Any, x: Tensor, pred: Tensor) -> float:
        return float(solver.step(x, ModelPrediction(solver.prediction, x, pred, at.level), (), None, at.numbers)[0])

    iterations = solver.coefficients_over(grid, one).iterations
    return [(t, weight(at, one, none), weight(at, none, one)) for t, at in zip(grid.timesteps, iterations, strict=True)]


def text(size: str) -> tuple[Any, Any]:
    """A tokenizer and a text encoder that are there but not called."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    width = SIZES[size]["cross_attention_dim"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3, "aa</w>": 4}')
        merges.write_text("#version: 0.2\na a</w>\n")
        words = CLIPTokenizer(vocab=str(vocabulary), merges=str(merges), model_max_length=TOKENS)
    config = CLIPTextConfig(vocab_size=8, hidden_size=width, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    return words, CLIPTextModel(config)


def denoising(graph: Any) -> Any:
    """The part of a text-to-image graph between text and picture."""
    ports = ["conditions.embedding", "conditions.negative_embedding", "latents", "num_inference_steps", "guidance_scale"]
    return graph.select(inputs=ports, outputs=["solver.next_latent"])


@dataclass
class Figure:
    """Seconds of the first run, of the quickest later one, and of what took turns with the other columns: runs, or steps."""

    first: float = 0.0
    least: float = float("inf")
    laps: list[float] = field(default_factory=list)

    def over(self, other: Figure) -> tuple[float, float]:
        """How many times the other one's time, as the median over neighbours, and the median's standard error.

        The error is that of a normal distribution with the same quartiles.
        """
        ratios = [mine / theirs for mine, theirs in zip(self.laps, other.laps, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        return middle, 0.93 * (high - low) / len(ratios) ** 0.5


class Turns:
    """Runs that go on one step each, one after the other: each in a thread of its own, of which one at a time is awake.

    Args:
        runs: by name; each is given what it has to call in every step.
        threads: of PyTorch, for each.
    """

    def __init__(self, runs: Mapping[str, Callable[[Callable[[], None]], Tensor]], threads: int) -> None:
        self.runs, self.threads = runs, threads
        self.ring = list(runs)
        self.gates = {name: threading.Semaphore(0) for name in runs}
        self.laps: dict[str, list[float]] = {name: [] for name in runs}

    def __call__(self) -> dict[str, Tensor]:
        """What they return. Seconds of their steps are in ``laps`` then, with what comes after the last one as one more."""
        with ThreadPoolExecutor(len(self.runs), initializer=torch.set_num_threads, initargs=(self.threads,)) as pool:
            ends = {name: pool.submit(self._run, name) for name in self.runs}
            self.gates[self.ring[0]].release()
            return {name: end.result() for name, end in ends.items()}

    def _run(self, name: str) -> Tensor:
        begun = 0.0

        def awake() -> None:
            nonlocal begun
            self.gates[name].acquire()
            begun = time.perf_counter()

        def turn() -> None:
            self.laps[name].append(time.perf_counter() - begun)
            self.gates[self._after(name)].release()
            awake()

        awake()
        try:
            found = self.runs[name](turn)
            self.laps[name].append(time.perf_counter() - begun)
            return found
        finally:
            after = self._after(name)
            self.ring.remove(name)
            self.gates[after].release()

    def _after(self, name: str) -> str:
        return self.ring[(self.ring.index(name) + 1) % len(self.ring)]


Say = Callable[[str], None]


def check(case: Case, steps: int, columns: Sequence[str], say: Say) -> dict[str, Figure]:
    """Lets each column run once, and asserts that their ends are equal."""
    figures = {column: Figure() for column in columns}
    expected = case.run("diffusers", steps)
    for column in columns:
        say(f"{column}: first run")
        begun = time.perf_counter()
        found = case.run(column, steps)
        figures[column].first = time.perf_counter() - begun
        assert_near(column, found, expected)
    return figures


def assert_near(column: str, found: Tensor, expected: Tensor) -> None:
    far = float((found - expected).abs().max() / expected.abs().max())
    assert far < 1e-3, f"{column} arrives {far:.1e} of the largest value away from the diffusers pipeline"


def measure(case: Case, steps: int, columns: Sequence[str], rounds: int, seconds: float, say: Say) -> dict[str, Figure]:
    """Times the columns' runs in turns, once their ends are equal."""
    figures = check(case, steps, columns, say)
    begun = time.perf_counter()
    for count in range(rounds):
        if count >= 2 and time.perf_counter() - begun > seconds:
            break
        for column in columns:
            say(f"round {count + 1} of {rounds}: {column}")
            since = time.perf_counter()
            case.run(column, steps)
            figures[column].laps.append(time.perf_counter() - since)
            figures[column].least = min(figures[column].laps)
    return figures


def measure_steps(case: Case, steps: int, columns: Sequence[str], given: argparse.Namespace, say: Say) -> dict[str, Figure]:
    """Times the columns' steps in turns. That their ends are equal is checked before, after 20 steps at most, and at the end."""
    figures = check(case, min(steps, 20), columns, say)
    begun = time.perf_counter()
    for count in range(given.rounds):
        if count and time.perf_counter() - begun > given.seconds:
            break
        say(f"round {count + 1} of at most {given.rounds}")
        turns = Turns({column: partial(case.run, column, steps) for column in columns}, given.threads)
        ends = turns()
        for column in columns:
            assert_near(column, ends[column], ends["diffusers"])
            figures[column].laps += turns.laps[column]
            figures[column].least = min(figures[column].least, sum(turns.laps[column]))
    return figures


def show(name: str, size: str, figures: dict[str, Figure]) -> None:
    base = figures["diffusers"]
    print(f"\n{name}")
    for column, figure in figures.items():
        first = f"   first run {figure.first:.1f} s" if "compiled" in column else ""
        print(f"  {column:28}{figure.least * 1e3:12.2f} ms{figure.over(base)[0]:8.2f}{first}")
    for where, column, other, limit in TARGETS:
        if where == size and column in figures and other in figures:
            ratio, error = figures[column].over(figures[other])
            print(f"    [{'reached' if ratio <= limit else 'MISSED '}] {column} / {other}: {ratio:.3f} (±{error:.3f}), at most {limit}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=tuple(SIZES))
    parser.add_argument("--steps", nargs="+", type=int, default=[20, 120])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=COLUMNS)
    parser.add_argument("--rounds", type=int, default=200, help="at most")
    parser.add_argument("--seconds", type=float, default=30.0, help="of timing for one line; no round begins after that but the first two")
    parser.add_argument("--neighbours", action="store_true", help="columns take turns after every step; from one round on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--channels-last", action="store_true", help="the UNet's weights, in all columns")
    parser.add_argument("--side", type=int, help="of the latents, in place of the sizes' own")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    if given.neighbours and sys.platform == "linux":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)  # one heap for all threads, as runs of one thread have
    columns = tuple(dict.fromkeys(("diffusers", *given.columns)))

    def say(words: str) -> None:
        if not given.quiet:
            print(f"\r\033[K{words}", end="", flush=True)

    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, torch {torch.__version__}; guidance in one batch, DDIM")
    for size in given.sizes:
        for batch in given.batch:
            case = Case(size, batch, columns, given.channels_last, given.side)
            for steps in given.steps:
                if given.neighbours:
                    figures = measure_steps(case, steps, columns, given, say)
                else:
                    figures = measure(case, steps, columns, given.rounds, given.seconds, say)
                say("")
                show(f"{size} ({case.parameters / 1e6:.1f} M), batch {batch}, {steps} steps", size, figures)


if __name__ == "__main__":
    main()
