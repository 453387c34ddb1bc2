"""SoftPrompt: learned vectors before a sequence of embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GLOBAL_RNG, Rng


@register_block("prompt/soft")
class SoftPrompt(Block):
    """Puts N learned vectors before embeddings [B, T, D] (prompt tuning: Lester et al. 2021, https://arxiv.org/abs/2104.08691).

    For a model that takes embeddings. A local one gives the vectors their gradient. Of one at the far end of a network there is
    none: then ``noise`` has the vectors drawn in training from a normal distribution around the learned ones, and ``log_prob`` [B]
    tells the objective ``reward`` how likely the draw was (score-function estimator with a Gaussian policy, Williams 1992).

    Args:
        length: N.
        width: D.
        noise: standard deviation of the draws; 0 draws nothing.
        scale: standard deviation of the vectors at the beginning.

    Raises:
        ValueError: a size is not positive, or a deviation negative.
    """

    inputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", shape=("B", "T", "D"), description="embedded tokens"),
        "attention_mask": Port(dtype="tensor", description="nonzero for a token [B, T]"),
    }
    outputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", shape=("B", None, "D"), description="the learned vectors, then the embedded tokens"),
        "attention_mask": Port(
            dtype="tensor", optional=True, description="ones for the learned vectors, then the mask that came in [B, N + T]"
        ),
        "log_prob": Port(
            dtype="tensor", optional=True, description="how likely the drawn vectors were, in nats [B]; only where there is noise"
        ),
    }
    uses_global_rng = False

    def __init__(self, *, length: int, width: int, noise: float = 0.0, scale: float = 0.02) -> None:
        super().__init__()
        if length < 1 or width < 1:
            raise ValueError(f"SoftPrompt: found length {length} and width {width}; expected at least 1 each")
        if noise < 0 or scale < 0:
            raise ValueError(f"SoftPrompt: found noise {noise} and scale {scale}; expected at least 0 each")
        self.noise = noise
        self.vectors = nn.Parameter(scale * torch.randn(length, width))

    def forward(self, embedding: Tensor, attention_mask: Tensor | None = None, rng: Rng | None = None) -> dict[str, Any]:
        """The sequence with the vectors before it."""
        length, width = self.vectors.shape
        if embedding.dim() != 3 or embedding.shape[-1] != width:
            raise PortError(f"{self.block_id}.embedding: got {list(embedding.shape)}; expected [B, T, {width}], as width says")
        batch = len(embedding)
        mean = self.vectors.expand(batch, length, width)
        vectors = self._drawn(mean, rng or GLOBAL_RNG) if self.noise and self.training else mean
        found = {"embedding": torch.cat([vectors.to(embedding), embedding], dim=1)}
        if attention_mask is not None:
            found["attention_mask"] = torch.cat([attention_mask.new_ones(batch, length), attention_mask], dim=1)
        if self.noise:
            found["log_prob"] = self._log_p(vectors.detach(), mean)
        return found

    def _drawn(self, mean: Tensor, rng: Rng) -> Tensor:
        # Without a gradient of its own: it would be counted twice where the model after it has one.
        return mean.detach() + self.noise * rng.normal(mean.shape, device=mean.device).to(mean)

    def _log_p(self, drawn: Tensor, mean: Tensor) -> Tensor:
        """log N(drawn; mean, noise^2) [B], of independent numbers."""
        each = -((drawn - mean).float() ** 2) / (2 * self.noise**2) - math.log(self.noise * math.sqrt(2 * math.pi))
        return each.flatten(1).sum(1)
