"""How good the models of painted scenes are: what was asked for, and what an independent judge and the describer see of it."""

from __future__ import annotations

import json
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from wgtorch.blocks.scenes.scene import ATTRIBUTES, Scene, caption, labels_of, parse
from wgtorch.core.checkpoint.tensors import write_tensors
from wgtorch.graph import Graph
from wgtorch.storage.encoding import write_png
from wgtorch.train.data.pictures import grid
from wgtorch.train.scenes.data import DrawnScenes, gather, store
from wgtorch.train.scenes.disturbing import disturb

SEED = "judge"
"""Of the judge's drawings: no other model is trained on them."""

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
def pictures_from(graph: Graph, port: str, values: Sequence[Any], *, output: str = "image", seed: int = 0, batch: int = 50) -> Tensor:
    """Pictures [N, 3, S, S] in [0, 1], the ``output`` of a graph, for values of one of its inputs."""
    from rich.progress import track

    parts = [list(values[start : start + batch]) for start in range(0, len(values), batch)]
    watched = track(parts, f"painting {len(values)} pictures", transient=True)
    return torch.cat([graph.run({port: part}, outputs=[output], seed=seed + k)[output] for k, part in enumerate(watched)])


@torch.no_grad()
def seconds_a_picture(graph: Graph, inputs: Mapping[str, Any], repeats: int = 5) -> float:
    """Median seconds of one picture, after one to warm up."""
    times = []
    for seed in range(repeats + 1):
        started = time.perf_counter()
        graph.run(dict(inputs), seed=seed)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def save_sheet(pictures: Tensor, path: Path, *, columns: int, scale: int = 2) -> Path:
    """Writes pictures [B, 3, S, S] in [0, 1] side by side, each pixel ``scale`` times as large, and the folders that this needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(grid(pictures.repeat_interleave(scale, -1).repeat_interleave(scale, -2), columns=columns), path)
    return path


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


def table(columns: Mapping[str, Mapping[str, float]], rows: Sequence[str] = tuple(ATTRIBUTES)) -> str:
    """Percentages by attribute (rows) and measurement (columns), as text; of what was never asked for there is none."""
    width = max(map(len, rows)) + 2
    lines = ["".ljust(width) + "  ".join(columns)]
    for name in rows:
        cells = ("-" if math.isnan(values.get(name, math.nan)) else f"{values[name]:.1%}" for values in columns.values())
        lines.append(name.ljust(width) + "  ".join(cell.rjust(len(title)) for title, cell in zip(columns, cells, strict=True)))
    return "\n".join(lines)


class SceneJudge(nn.Module):
    """Reads the attributes of a scene off a picture: patches, convolutions over patches, one attention query per attribute.

    Built otherwise than :class:`~wgtorch.blocks.scenes.describer.SceneDescriber` on purpose (batch norm, max pooling and
    attention instead of group norm, strides and one flat layer), so that the two have no blind spots in common by design.

    Args:
        width: channels at 32x32.
    """

    def __init__(self, *, width: int = 32) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            _conv(3, width), nn.MaxPool2d(2),
            _conv(width, width), _conv(width, 2 * width), nn.MaxPool2d(2),
            _conv(2 * width, 2 * width), _conv(2 * width, 3 * width), nn.MaxPool2d(2),
            _conv(3 * width, 4 * width),
        )  # fmt: skip
        self.position = nn.Parameter(0.02 * torch.randn(4 * width, 8, 8))
        self.scores = nn.Conv2d(4 * width, len(ATTRIBUTES), 1)
        self.heads = nn.ModuleDict({name: nn.Linear(8 * width, len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Per attribute, logits [B, values] for pictures [B, 3, 64, 64] in [0, 1]."""
        h = (self.convolutions(2 * image - 1) + self.position).flatten(2)  # [B, C, 64]
        attention = self.scores(h.unflatten(2, (8, 8))).flatten(2).softmax(dim=-1)  # [B, attributes, 64]
        seen = attention @ h.mT  # [B, attributes, C]
        overall = h.mean(dim=-1)
        return {name: head(torch.cat([seen[:, k], overall], dim=-1)) for k, (name, head) in enumerate(self.heads.items())}


def _conv(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True))


def train_judge(
    *, pictures: int = 40_000, epochs: float = 1.0, root: Path, batch: int = 64, rate: float = 4e-3, width: int = 32
) -> SceneJudge:
    """A judge trained on drawings of its own, disturbed by blur and noise; two thirds of them, the others stay clean.

    Args:
        pictures: drawings, each seen `epochs` times.
        epochs: passes over them.
        root: folder that keeps the drawings.
        batch: pictures of a step.
        rate: highest learning rate (one cycle, AdamW).
        width: of the judge.
    """
    from rich.progress import track

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(20)
        judge = SceneJudge(width=width)
        data = DataLoader(store(DrawnScenes(pictures, seed=SEED), root, workers=1), batch, shuffle=True, collate_fn=gather, drop_last=True)
        steps = round(epochs * len(data))
        optimizer = torch.optim.AdamW(judge.parameters(), lr=rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
        batches = iter(data)
        for _ in track(range(steps), "training the judge"):
            if (sample := next(batches, None)) is None:
                batches = iter(data)
                sample = next(batches)
            image = torch.where(torch.rand(batch, 1, 1, 1) < 2 / 3, disturb(sample["image"]), sample["image"]).to(
                memory_format=torch.channels_last
            )
            losses = [F.cross_entropy(z, y, ignore_index=-1) for z, y in zip(judge(image).values(), sample["labels"].T, strict=True)]
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return judge.eval()


def kept_judge(root: Path, **training: int | float) -> SceneJudge:
    """The judge under `root`, trained with :func:`train_judge` when there is none or it was trained otherwise."""
    from safetensors import safe_open

    path, made = root / "judge.safetensors", json.dumps({"seed": SEED, **training}, sort_keys=True)
    if path.exists():
        with safe_open(path, framework="pt") as file:
            if file.metadata().get("made") == made:
                judge = SceneJudge(width=int(training.get("width", 32)))
                judge.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
                return judge.eval()
    started = time.process_time()
    judge = train_judge(root=root, **training)  # type: ignore[arg-type]
    part = path.with_suffix(".part")
    write_tensors(part, judge.state_dict(), {"made": made, "cpu_seconds": f"{time.process_time() - started:.0f}"})
    part.replace(path)
    return judge
