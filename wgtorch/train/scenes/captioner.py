"""Objectives of the models that read: attributes off a picture, attributes off a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.blocks.scenes.describer import SceneDescriber
from wgtorch.blocks.scenes.scene import ATTRIBUTES, sentence
from wgtorch.blocks.scenes.text import SceneTextEncoder, SceneTokenizer, condition_from_labels
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.registries import register_objective
from wgtorch.train.scenes.data import scene_of
from wgtorch.train.scenes.disturbing import disturb

_UNNAMED = -1


@register_objective("scene_describing")
class SceneDescribing(Objective):
    """Cross-entropy of every attribute that a picture shows, summed; for a `vlm/scene` block.

    Logs the accuracy over all attributes and that of the worst one. Pictures are disturbed in training, so that the
    describer also reads generated ones; in validation they are clean.

    Args:
        smoothing: share of the probability that a target spreads over all values.
    """

    target_class = SceneDescriber
    needs = ("image", "labels")

    def __init__(self, *, smoothing: float = 0.02) -> None:
        super().__init__()
        self.smoothing = _share(smoothing, "scene_describing.smoothing")

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        assert isinstance(target, SceneDescriber)
        image = disturb(batch["image"], step.generator) if step.training else batch["image"]
        return _losses(list(target.logits(image).values()), batch["labels"], self.smoothing)

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """Pictures, disturbed, and what is read off them beside what they show."""
        assert isinstance(target, SceneDescriber)
        image = disturb(batch["image"], step.generator)
        shown = [sentence(scene_of(labels).attributes()) for labels in batch["labels"].tolist()]
        read = target.describe(image)[0]
        return {
            "pictures": image,
            "read": [f"{text} (right)" if text == truth else f"{text} (it is: {truth})" for text, truth in zip(read, shown, strict=True)],
        }


@register_objective("scene_reading")
class SceneReading(Objective):
    """Cross-entropy of every attribute that a text names or leaves open, summed; for a `conditioner/scene` block.

    Args:
        max_length: words that are read.
    """

    target_class = SceneTextEncoder
    needs = ("text", "labels")

    def __init__(self, *, max_length: int = 48) -> None:
        super().__init__()
        self.tokenizer = SceneTokenizer(max_length=max_length)

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        assert isinstance(target, SceneTextEncoder)
        labels = batch["labels"]
        open_ones = torch.tensor([len(values) for values in ATTRIBUTES.values()], device=labels.device)  # the class after the last value
        return _losses(target.logits(self._tokens(batch, labels.device)), torch.where(labels == _UNNAMED, open_ones, labels))

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """Texts, and what is read off them."""
        assert isinstance(target, SceneTextEncoder)
        embedding = target(self._tokens(batch, batch["labels"].device))["embedding"]
        asked = condition_from_labels(batch["labels"]).argmax(dim=-1)
        lines = []
        for text, row, truth in zip(batch["text"], embedding.argmax(dim=-1), asked, strict=True):
            named = {name: values[k] for k, (name, values) in zip(row.tolist(), ATTRIBUTES.items(), strict=True) if k < len(values)}
            lines.append(f"{text!r}: {named}{'' if torch.equal(row, truth) else ' (wrong)'}")
        return {"read": lines}

    def _tokens(self, batch: Batch, device: torch.device) -> Tensor:
        tokens: Tensor = self.tokenizer(text=batch["text"])["tokens"]
        longest = max(4, int((tokens != 0).sum(dim=1).max()))
        return tokens[:, :longest].to(device)


def _losses(logits: Sequence[Tensor], labels: Tensor, smoothing: float = 0.0) -> dict[str, Tensor]:
    """The summed loss, and the accuracy over all attributes and of the worst, of logits [B, values] each and labels [B, 7]."""
    loss = torch.stack(
        [
            F.cross_entropy(z.float(), y, ignore_index=_UNNAMED, label_smoothing=smoothing, reduction="sum")
            / (y != _UNNAMED).sum().clamp(min=1)
            for z, y in zip(logits, labels.T, strict=True)
        ]
    ).sum()
    with torch.no_grad():
        right = torch.stack([z.argmax(dim=-1) == y for z, y in zip(logits, labels.T, strict=True)], dim=1)
        asked = labels != _UNNAMED
        each = (right & asked).sum(dim=0) / asked.sum(dim=0).clamp(min=1)
        each = torch.where(asked.any(dim=0), each, 1.0)
    return {"loss": loss, "accuracy": right[asked].float().mean(), "worst_accuracy": each.min()}


def _share(value: float, where: str) -> float:
    if not 0 <= value < 1:
        raise ConfigError(f"{where}: found {value}, expected a share in [0, 1)")
    return value
