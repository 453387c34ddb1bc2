"""Noise schedules that diffusion models are trained with: how much of the data is left at each training timestep."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
MAX_BETA = 0.999


def make_betas(schedule: str, num_train_timesteps: int, beta_start: float, beta_end: float) -> Tensor:
    """The share of noise that each training timestep adds, float32 [T].

    Args:
        schedule: ``linear`` (Ho et al. 2020, https://arxiv.org/abs/2006.11239), ``scaled_linear`` - linear in the square
            root (Rombach et al. 2022, https://arxiv.org/abs/2112.10752) - or ``squaredcos_cap_v2``, the cosine of Nichol &
            Dhariwal 2021 (https://arxiv.org/abs/2102.09672), which knows no start and end.
        num_train_timesteps: T.
        beta_start: at timestep 0.
        beta_end: at timestep T - 1.
    """
    if schedule == "linear":
        return torch.linspace(beta_start, beta_end, num_train_timesteps, dtype=torch.float32, device="cpu")
    if schedule == "scaled_linear":
        return torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float32, device="cpu") ** 2
    if schedule != "squaredcos_cap_v2":
        raise ValueError(f"beta_schedule: found {schedule!r}, expected one of {', '.join(BETA_SCHEDULES)}")
    edges = [math.cos((step / num_train_timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(num_train_timesteps + 1)]
    betas = [min(1 - edges[step + 1] / edges[step], MAX_BETA) for step in range(num_train_timesteps)]
    return torch.tensor(betas, dtype=torch.float32, device="cpu")


def rescale_to_zero_snr(betas: Tensor) -> Tensor:
    """Betas [T] whose last timestep is pure noise (Lin et al. 2023, https://arxiv.org/abs/2305.08891, algorithm 1)."""
    root = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    root = (root - last) * (first / (first - last))
    alpha_bars = root**2
    return 1 - torch.cat([alpha_bars[:1], alpha_bars[1:] / alpha_bars[:-1]])


def alpha_bars_of(betas: Tensor | Sequence[float]) -> Tensor:
    """alpha_bar_t, the product of 1 - beta up to t: x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps, float32 [T]."""
    return torch.cumprod(1.0 - torch.as_tensor(betas, dtype=torch.float32, device="cpu"), dim=0)
