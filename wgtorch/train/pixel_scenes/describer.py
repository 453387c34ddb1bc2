"""Objective of the describer of pixel scenes: what stands in each slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.blocks.pixel_scenes.conditioner import FIELDS, decode_rows
from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.blocks.pixel_scenes.words import discrepancies, sentence
from wgtorch.blocks.simulation.scene_plan import BACK
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.registries import register_objective
from wgtorch.train.scenes.disturbing import disturb


@register_objective("pixel_scene_describing")
class PixelSceneDescribing(Objective):
    """Cross-entropy of all that a pixel scene shows, for a `vlm/pixel_scene` block: of the setting, and of what stands in each slot.

    An attribute of a slot counts only where it applies; kinds count for more where something stands. Two thirds of the pictures are
    disturbed in training, so that the describer also reads generated ones. Logs the share of attributes that are right, and of
    pictures in which all of them are.

    Args:
        smoothing: share of the probability that a target spreads over all values.
    """

    target_class = PixelSceneDescriber
    needs = ("image", "scene")

    def __init__(self, *, smoothing: float = 0.02) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ConfigError(f"pixel_scene_describing.smoothing: found {smoothing}, expected a share from 0 to below 1")
        self.smoothing = smoothing

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        assert isinstance(target, PixelSceneDescriber)
        image, rows = batch["image"], batch["scene"]
        if step.training:
            some = (step.uniform(len(image), 1, 1, 1) < 2 / 3).to(image.device)
            image = torch.where(some, disturb(image, step.generator), image)
        wrong = torch.zeros(len(rows), device=rows.device)
        right, count = torch.zeros((), device=rows.device), torch.zeros((), device=rows.device)
        pairs = _pairs(*target.logits(image), rows)
        for logits, wanted, counts in pairs:
            hit = (logits.argmax(-1) == wanted) | (counts == 0)
            right += ((hit & (counts > 0)).float()).sum()
            count += (counts > 0).float().sum()
            wrong += (~hit).float().reshape(len(rows), -1).sum(1)
        return {"loss": _unlikelihood(pairs, self.smoothing), "accuracy": right / count, "whole": (wrong == 0).float().mean()}

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """Pictures, disturbed, and what is read off them beside what they show."""
        assert isinstance(target, PixelSceneDescriber)
        image = disturb(batch["image"], step.generator)
        facts = [decode_rows(row) for row in target.read(image)[0].tolist()]
        shown = [decode_rows(row) for row in batch["scene"].tolist()]
        found = [discrepancies(truth, fact) for truth, fact in zip(shown, facts, strict=True)]
        return {"pictures": image, "read": [f"{sentence(fact)} {wrong or '(right)'}" for fact, wrong in zip(facts, found, strict=True)]}


def unlikelihood(describer: PixelSceneDescriber, image: Tensor, rows: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of what plans say by what a describer sees: the sum over attributes of the mean over slots that have one.

    Args:
        describer: what reads.
        image: pictures [B, 3, S, S] in [0, 1], through which gradients go.
        rows: of their plans, int64 [B, 9, 6].
        smoothing: share of the probability that a target spreads over all values.
    """
    return _unlikelihood(_pairs(*describer.logits(image), rows), smoothing)


def _unlikelihood(pairs: list[tuple[Tensor, Tensor, Tensor]], smoothing: float) -> Tensor:
    losses = []
    for logits, wanted, counts in pairs:
        error = F.cross_entropy(logits.float().flatten(0, -2), wanted.flatten(), reduction="none", label_smoothing=smoothing)
        weight = counts.flatten().float()
        losses.append((error * weight).sum() / weight.sum().clamp(min=1))
    return torch.stack(losses).sum()


def _pairs(
    setting: Mapping[str, Tensor], back: Mapping[str, Tensor], front: Mapping[str, Tensor], rows: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Logits [B, ..., values], what is wanted [B, ...] and how much it counts [B, ...], attribute by attribute."""
    pairs = [(logits, rows[:, 0, k], torch.ones_like(rows[:, 0, k])) for k, logits in enumerate(setting.values())]
    for start, stop, group in ((1, 1 + len(BACK), back), (1 + len(BACK), rows.shape[1], front)):
        slots = rows[:, start:stop]
        there = slots[..., 0] > 0
        for k, name in enumerate(FIELDS):
            if name not in group:
                continue
            wanted = slots[..., k]
            # color 0 is a value of things: they have none of their own
            counts = torch.where(there, 3, 1) if name == "kind" else (there if name in ("colour", "state") else wanted > 0)
            pairs.append((group[name], wanted, counts))
    return pairs
