"""Shifts of a flow's sigmas in [0, 1] towards the noise, for larger pictures."""

from __future__ import annotations

import math
from typing import Any


def shift_sigma(sigma: Any, shift: float) -> Any:
    """sigma' = shift sigma / (1 + (shift - 1) sigma) (Esser et al. 2024, https://arxiv.org/abs/2403.03206, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def shift_sigma_by_mu(sigma: Any, mu: float) -> Any:
    """sigma' = e^mu / (e^mu + 1 / sigma - 1): :func:`shift_sigma` with shift = e^mu (FLUX.1)."""
    return math.exp(mu) / (math.exp(mu) + (1 / sigma - 1))


def dynamic_mu(tokens: int, *, base_tokens: int = 256, max_tokens: int = 4096, base_shift: float = 0.5, max_shift: float = 1.15) -> float:
    """mu for a picture of so many tokens: linear from ``base_shift`` at ``base_tokens`` to ``max_shift`` at ``max_tokens`` (FLUX.1)."""
    slope = (max_shift - base_shift) / (max_tokens - base_tokens)
    return tokens * slope + (base_shift - slope * base_tokens)


def stretch_to_terminal(sigmas: Any, terminal: float) -> Any:
    """Stretches sigmas [N], falling, so that the last of them is ``terminal`` (LTX-Video)."""
    rest = 1 - sigmas
    return 1 - rest / (rest[-1] / (1 - terminal))
