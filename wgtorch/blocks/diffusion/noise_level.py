"""Levels of noise: where on the way from noise to data a latent is."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch


class NoiseLevel(NamedTuple):
    """x = alpha x0 + sigma eps, with data x0 and standard normal noise eps.

    Diffusion models keep alpha^2 + sigma^2 = 1 (variance preserving), flows alpha + sigma = 1. Both are numbers, or tensors of the
    same shape, such as one number for each step of a grid [N].
    """

    alpha: Any
    sigma: Any

    @property
    def ratio(self) -> Any:
        """sigma / alpha, the sigma of Karras et al. 2022, in which x / alpha = x0 + ratio eps; inf where alpha is 0."""
        if isinstance(self.alpha, torch.Tensor):
            return self.sigma / self.alpha
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def log_snr(self) -> Any:
        """lambda = log(alpha / sigma) of Lu et al. 2022: inf at the data, -inf at pure noise."""
        if isinstance(self.alpha, torch.Tensor):
            return (self.alpha / self.sigma).log()
        if not self.sigma:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha else -math.inf


def variance_from(data_side: NoiseLevel, noise_side: NoiseLevel) -> Any:
    """Variance of what has to be added on the way from the first level to the second, seen there: with r = alpha_t / alpha_s,
    sigma_t^2 - r^2 sigma_s^2 (Kingma et al. 2021, https://arxiv.org/abs/2107.00630); 1 - r^2 where variance is preserved."""
    share = noise_side.alpha / data_side.alpha
    return noise_side.sigma**2 - (share * data_side.sigma) ** 2


DATA = NoiseLevel(1.0, 0.0)
"""Where every grid ends unless it is told otherwise."""


def vp_level(ratio: float) -> NoiseLevel:
    """The variance preserving level with sigma / alpha = ``ratio``."""
    alpha = 1 / math.sqrt(ratio * ratio + 1)
    return NoiseLevel(alpha, ratio * alpha)


def flow_level(sigma: float) -> NoiseLevel:
    """The level of a straight flow at ``sigma`` in [0, 1]: x = (1 - sigma) x0 + sigma eps."""
    return NoiseLevel(1 - sigma, sigma)
