"""Where a sampling loop starts."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.rng import GLOBAL_RNG, Rng
from wgtorch.roles import Noise


@register_block("noise/gaussian")
class GaussianNoise(Noise):
    """Standard normal noise, one row for each condition, and the timestep that the loop starts at.

    Args:
        shape: of one latent, [C, H, W].
        timestep: the sigma that the noise stands for; 1 in a flow that runs from noise (1) to data (0).
    """

    inputs = {"condition": "embedding"}
    outputs = {"timestep": "number"}
    draws = False

    def __init__(self, *, shape: list[int], timestep: float = 1.0) -> None:
        super().__init__()
        if not shape or min(shape) < 1:
            raise ValueError(f"GaussianNoise.shape: found {shape}, expected positive sizes [C, H, W]")
        self.shape = tuple(shape)
        self.timestep = timestep

    def forward(self, condition: Tensor, rng: Rng | None = None) -> dict[str, Any]:
        """``latent`` [B, *shape] for ``condition`` [B, ...]; each row is drawn from its own sample's generator."""
        draws = rng or GLOBAL_RNG
        dtype = condition.dtype if condition.is_floating_point() else None
        return {"latent": draws.normal((condition.shape[0], *self.shape), dtype=dtype, device=condition.device), "timestep": self.timestep}
