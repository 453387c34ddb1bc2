"""Solvers: plain functions of tensors, and blocks around them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.roles import Solver


def flow_euler_step(latent: Tensor, pred: Tensor, sigma: float, next_sigma: float, prediction: str = "flow") -> Tensor:
    """One Euler step of the ODE dx/dsigma = v of a straight flow x = (1 - sigma) x0 + sigma noise.

    (Liu et al. 2022, https://arxiv.org/abs/2209.03003; Lipman et al. 2023, https://arxiv.org/abs/2210.02747.)

    Args:
        latent: x at ``sigma``, [B, C, ...].
        pred: of the same shape: v = noise - x0 (``flow``), or x0 (``x0``), from which v = (x - x0) / sigma.
        sigma: where ``latent`` is, in (0, 1].
        next_sigma: where to go, in [0, sigma).
        prediction: what ``pred`` is.
    """
    velocity = pred if prediction == "flow" else (latent - pred) / sigma
    return latent + (next_sigma - sigma) * velocity


def shifted_sigmas(num_steps: int, shift: float = 1.0) -> tuple[float, ...]:
    """Sigmas from 1 to 0, ``num_steps + 1`` of them; ``shift`` > 1 spends more steps near the noise.

    sigma' = shift sigma / (1 + (shift - 1) sigma) (Esser et al. 2024, https://arxiv.org/abs/2403.03206, eq. 23).
    """
    even = [1 - step / num_steps for step in range(num_steps + 1)]
    return tuple(shift * sigma / (1 + (shift - 1) * sigma) for sigma in even)


@register_block("solver/flow_euler")
class FlowEuler(Solver):
    """Euler's method for flow models.

    Args:
        num_steps: steps from noise to data.
        shift: of the schedule, > 0; see :func:`shifted_sigmas`.
        prediction: what the backbone predicts: ``flow`` (noise - x0) or ``x0``.
    """

    draws = False

    def __init__(self, *, num_steps: int = 20, shift: float = 1.0, prediction: str = "flow") -> None:
        super().__init__()
        if num_steps < 1:
            raise ValueError(f"FlowEuler.num_steps: found {num_steps}, expected at least 1")
        if shift <= 0:
            raise ValueError(f"FlowEuler.shift: found {shift}, expected a number above 0")
        if prediction not in ("flow", "x0"):
            raise ValueError(f"FlowEuler.prediction: found {prediction!r}, expected 'flow' or 'x0'")
        self.prediction = prediction
        self.sigmas = shifted_sigmas(num_steps, shift)

    @property
    def num_loop_steps(self) -> int:
        """Turns that a sampling loop needs."""
        return len(self.sigmas) - 1

    def forward(self, latent: Tensor, timestep: float | Tensor, pred: Tensor) -> dict[str, Any]:
        """``next_latent`` [B, C, ...] and ``next_timestep``, the next sigma of the schedule below ``timestep``."""
        sigma = float(timestep)
        following = next((other for other in self.sigmas if other < sigma - 1e-6), 0.0)
        return {"next_latent": flow_euler_step(latent, pred, sigma, following, self.prediction), "next_timestep": following}
