"""How good the default models are: prompt adherence as an independent judge sees it, and the describer's accuracy."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wgtorch.blocks.scenes.scene import ATTRIBUTES, Scene, caption, labels_of, parse
from wgtorch.graph import Graph
from wgtorch.train.scenes.drawings import DrawnScenes, gather, store

Reader = Callable[[Tensor], Mapping[str, Tensor]]
"""Gives, per attribute, logits [B, values] for pictures [B, 3, S, S] in [0, 1]."""

HELD_OUT = "held out"
"""Seed of prompts and drawings that no model is trained on."""

FREE_PROMPTS: tuple[tuple[str, str], ...] = (
    ("A lonely lighthouse above the waves while thunder rolls through the night.", "tower sea storm night"),
    ("Snow falls on a cottage deep in the woods.", "snow house forest"),
    ("The camp stood among the dunes; the sun was setting.", "tent desert dusk"),
    ("An ancient citadel on the left, high peaks behind it, morning.", "castle left mountains dawn"),
    ("Farmland, a golden windmill, bright afternoon sunshine", "windmill yellow day clear"),
    ("Drizzle over the valley, and a pilgrim walking", "rain hills yes"),
    ("Mist on the lake at first light, a boat with white sails", "fog sea dawn ship white"),
    ("cactus and sand under a starry sky", "desert night"),
    ("A hut in the pasture, clouds gathering, evening is near", "house meadow cloudy dusk"),
    ("A blue palace to the right by the shore at midday", "castle blue right sea day"),
    ("Not a soul on the steppe, only rain.", "no meadow rain"),
    ("The vessel rides out the tempest", "ship storm"),
)
"""Prompts in words of a person, not of the grammar, with the values that they ask for."""


@dataclass(frozen=True)
class Prompt:
    """A prompt and the attributes that it asks for, by name."""

    text: str
    asked: Mapping[str, str]


def held_out_prompts(count: int) -> list[Prompt]:
    """Captions of random scenes, each naming an attribute with probability 0.8; never an empty one."""
    rng = random.Random(HELD_OUT)
    found: list[Prompt] = []
    while len(found) < count:
        text = caption(Scene.sample(rng), rng)
        if text:
            found.append(Prompt(text, parse(text)))
    return found


def free_prompts() -> list[Prompt]:
    """:data:`FREE_PROMPTS`."""
    names = {value: name for name, values in ATTRIBUTES.items() for value in values}
    return [Prompt(text, {names[value]: value for value in asked.split()}) for text, asked in FREE_PROMPTS]


def held_out_drawings(count: int, root: Path) -> dict[str, Tensor]:
    """`image` [N, 3, 64, 64] in [0, 1] and `labels` [N, 7] of drawings with a seed of their own, kept beneath `root`."""
    drawings = store(DrawnScenes(count, seed=HELD_OUT), root)
    return gather([drawings[index] for index in range(count)])


@torch.no_grad()
def paint(graph: Graph, prompts: Sequence[Prompt], *, seed: int = 0, batch: int = 50, show: bool = True) -> Tensor:
    """Pictures [N, 3, S, S] in [0, 1] that a text-to-image graph (`prompt` to `image`) gives for prompts."""
    from rich.progress import track

    parts = [prompts[start : start + batch] for start in range(0, len(prompts), batch)]
    watched = track(parts, f"painting {len(prompts)} prompts", disable=not show)
    return torch.cat([graph.run({"prompt": [p.text for p in part]}, seed=seed + k)["image"] for k, part in enumerate(watched)])


@torch.no_grad()
def seconds_a_picture(graph: Graph, prompt: str = "A red castle on the left of a meadow, at dusk", repeats: int = 5) -> float:
    """Median seconds of one picture, after one to warm up."""
    times = []
    for seed in range(repeats + 1):
        started = time.perf_counter()
        graph.run({"prompt": prompt}, seed=seed)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


@torch.no_grad()
def right(reader: Reader, pictures: Tensor, labels: Tensor, *, batch: int = 250) -> dict[str, Tensor]:
    """Per attribute, whether the reader sees what was asked for: bool [pictures in which it was asked for].

    Args:
        reader: what judges.
        pictures: [N, 3, S, S] in [0, 1].
        labels: [N, 7], -1 where an attribute was not asked for.
        batch: pictures that are read at once.
    """
    parts = [reader(part) for part in pictures.split(batch)]
    seen = {name: torch.cat([part[name].argmax(dim=-1) for part in parts]) for name in ATTRIBUTES}
    return {name: (seen[name] == asked)[asked >= 0] for name, asked in zip(ATTRIBUTES, labels.T, strict=True)}


def shares(found: Mapping[str, Tensor]) -> dict[str, float]:
    """Share of right answers per attribute; NaN where it was never asked for."""
    return {name: values.float().mean().item() for name, values in found.items()}


def labels_for(prompts: Sequence[Prompt]) -> Tensor:
    """What prompts ask for, [N, 7]."""
    return torch.tensor([labels_of(prompt.asked) for prompt in prompts])


def table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Percentages by attribute (rows) and measurement (columns), as text."""
    width = max(map(len, ATTRIBUTES)) + 2
    rows = ["".ljust(width) + "  ".join(columns)]
    for name in ATTRIBUTES:
        cells = ("-" if math.isnan(values[name]) else f"{values[name]:.1%}" for values in columns.values())
        rows.append(name.ljust(width) + "  ".join(cell.rjust(len(title)) for title, cell in zip(columns, cells, strict=True)))
    return "\n".join(rows)
