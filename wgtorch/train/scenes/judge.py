"""An independent reader of pictures: judges painters and describers, is trained for that alone and never ships."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from wgtorch.blocks.scenes.scene import ATTRIBUTES
from wgtorch.core.checkpoint.tensors import write_tensors
from wgtorch.train.scenes.disturbing import disturb
from wgtorch.train.scenes.drawings import DrawnScenes, gather, store

SEED = "judge"  # of its drawings: no other model is trained on them


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
