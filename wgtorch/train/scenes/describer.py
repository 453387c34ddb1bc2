"""Objective of the teller: the next word of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.blocks.scenes.teller import PAD, WordModel
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.registries import register_objective


@register_objective("scene_telling")
class SceneTelling(Objective):
    """Cross-entropy of the next word, in the answer fully and in the prompt by a share; for an `llm/words` block.

    Logs `accuracy`, the share of the answers' words that are likeliest, and `whole`, the share of answers in which all are:
    then taking the likeliest word each time tells the answer to the letter.

    Args:
        prompt_share: how much a word of the prompt counts beside one of the answer.
    """

    block = WordModel
    needs = ("prompt", "answer")

    def __init__(self, *, prompt_share: float = 0.1) -> None:
        super().__init__()
        if not 0 <= prompt_share <= 1:
            raise ConfigError(f"scene_telling.prompt_share: found {prompt_share}, expected a share from 0 to 1")
        self.prompt_share = prompt_share

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        assert isinstance(target, WordModel)
        tokens, answered = target.rows(batch["prompt"], batch["answer"])
        logits, following = target.logits(tokens[:, :-1]).float(), tokens[:, 1:]
        wrong = F.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none").view_as(following)
        asked = answered[:, 1:]
        weight = torch.where(asked, 1.0, self.prompt_share) * (following != PAD)
        right = (logits.argmax(dim=-1) == following) | ~asked
        return {
            "loss": (weight * wrong).sum() / weight.sum(),
            "accuracy": right[asked].float().mean(),
            "whole": right.all(dim=1).float().mean(),
        }

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """What the model tells, beside what the grammar tells."""
        told = target(prompt=batch["prompt"])["text"]
        pairs = zip(batch["prompt"], told, batch["answer"], strict=True)
        return {
            "told": [f"{prompt}\n  {text}" + ("" if text == answer else f"\n  (the grammar: {answer})") for prompt, text, answer in pairs]
        }
