"""Classification: which of some classes, by one head or several."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError
from wgtorch.train.learned import places_needed
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.objectives.inputs import inputs_of
from wgtorch.train.recording import forward_outputs
from wgtorch.train.registries import register_objective


@register_objective("classification")
class Classification(Objective):
    """Cross-entropy of logits [B, K] with labels [B], summed over heads.

    Args:
        heads: output (or port by path) with logits -> key of the labels.
        inputs: input (or port by path) -> key of the batch, where they differ in name.
        ignore: label that is not learned.
        smoothing: of the labels, in [0, 1).
    """

    def __init__(
        self,
        *,
        heads: dict[str, str] | None = None,
        inputs: dict[str, str] | None = None,
        ignore: int = -1,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads = dict(heads or {"logits": "label"})
        self.inputs, self.ignore, self.smoothing = dict(inputs or {}), ignore, smoothing
        if not 0 <= smoothing < 1:
            raise ConfigError(f"classification.smoothing: found {smoothing}, expected a number in [0, 1)")

    def reached(self, target: Block) -> Collection[str] | None:
        return places_needed(target, list(self.heads))

    def needed(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.heads.values()))

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        """``loss``; ``accuracy``: the share of labels that were the likeliest, over all heads."""
        found = forward_outputs(target, inputs_of(target, batch, self.inputs, "classification"), list(self.heads))
        losses, right, learned = [], torch.tensor(0.0), torch.tensor(0.0)
        for port, key in self.heads.items():
            logits, labels = found[port], batch[key]
            if logits.dim() != 2 or logits.shape[:1] != labels.shape:
                raise ConfigError(
                    f"classification: {port} is {list(logits.shape)} for labels {list(labels.shape)}; expected [B, K] for [B]"
                )
            losses.append(F.cross_entropy(logits.float(), labels, ignore_index=self.ignore, label_smoothing=self.smoothing))
            here = labels != self.ignore
            right, learned = right.to(logits.device) + (logits.argmax(-1) == labels)[here].sum(), learned.to(logits.device) + here.sum()
        count = learned / len(self.heads)  # what is not labelled is so for all heads, mostly
        return {"loss": torch.stack(losses).sum(), "accuracy": right / learned.clamp(min=1), "count": count}
