"""Next token: language models, and models that say what is in a picture."""

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


@register_objective("next_token")
class NextToken(Objective):
    """Cross-entropy of each token given those before it.

    The target takes tokens [B, L] and gives logits [B, L, V], those at place l for the token at l + 1.

    Args:
        tokens: key of the tokens [B, L] in the batch.
        logits: the output, or port by path, with the logits.
        inputs: input (or port by path) -> key of the batch, where they differ in name.
        padding: token that is not learned; None learns all.
        mask: key of a mask [B, L]: tokens where it is 0 are not learned (those of a prompt, say).
        smoothing: of the labels, in [0, 1).
    """

    def __init__(
        self,
        *,
        tokens: str = "tokens",
        logits: str = "logits",
        inputs: dict[str, str] | None = None,
        padding: int | None = None,
        mask: str | None = None,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise ConfigError(f"next_token.smoothing: found {smoothing}, expected a number in [0, 1)")
        self.tokens, self.logits, self.inputs = tokens, logits, dict(inputs or {})
        self.padding, self.mask, self.smoothing = padding, mask, smoothing

    def needed(self) -> tuple[str, ...]:
        return (self.tokens, *([self.mask] if self.mask else []))

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        """``loss`` in nats per token; ``accuracy``: the share of tokens that were the likeliest."""
        losses, learned, right = self.measured(target, batch)
        count = learned.sum()
        return {"loss": losses.sum() / count.clamp(min=1), "accuracy": right.sum() / count.clamp(min=1), "count": count}

    def per_sample(self, target: Block, batch: Batch, step: Step) -> Tensor:
        """Cross-entropy of each row [B], in nats per token that is learned."""
        losses, learned, _ = self.measured(target, batch)
        return losses.sum(1) / learned.sum(1).clamp(min=1)

    def measured(self, target: Block, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Of every token after the first, [B, L - 1]: its cross-entropy, whether it is learned, and whether it was the likeliest."""
        tokens = batch[self.tokens]
        logits = forward_outputs(target, inputs_of(target, batch, self.inputs, "next_token"), [self.logits])[self.logits]
        if logits.dim() != 3 or logits.shape[:2] != tokens.shape:
            raise ConfigError(f"next_token: logits {list(logits.shape)} for tokens {list(tokens.shape)}; expected [B, L, V] for [B, L]")
        wanted, said = tokens[:, 1:], logits[:, :-1].float()
        learned = torch.ones_like(wanted, dtype=torch.bool) if self.padding is None else wanted != self.padding
        if self.mask is not None:
            learned = learned & (batch[self.mask][:, 1:] != 0)
        wanted = wanted.masked_fill(~learned, -100)
        flat = F.cross_entropy(said.flatten(0, 1), wanted.flatten(), ignore_index=-100, label_smoothing=self.smoothing, reduction="none")
        return flat.view(learned.shape), learned, (said.argmax(-1) == wanted) & learned

    def reached(self, target: Block) -> Collection[str] | None:
        return places_needed(target, [self.logits])
