"""Levels of noise: where on the way from noise to data a latent is."""

from __future__ import annotations

import math
from typing import NamedTuple


class Level(NamedTuple):
    """x = alpha x0 + sigma eps, with data x0 and standard normal noise eps.

    Diffusion models keep alpha^2 + sigma^2 = 1 (variance preserving), flows alpha + sigma = 1.
    """

    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """sigma / alpha, the sigma of Karras et al. 2022, in which x / alpha = x0 + ratio eps; inf where alpha is 0."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def log_snr(self) -> float:
        """lambda = log(alpha / sigma) of Lu et al. 2022: inf at the data, -inf at pure noise."""
        if not self.sigma:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha else -math.inf


def variance_from(data_side: Level, noise_side: Level) -> float:
    """Variance of what has to be added on the way from the first level to the second, seen there: with r = alpha_t / alpha_s,
    sigma_t^2 - r^2 sigma_s^2 (Kingma et al. 2021, https://arxiv.org/abs/2107.00630); 1 - r^2 where variance is preserved."""
    share = noise_side.alpha / data_side.alpha
    return noise_side.sigma**2 - (share * data_side.sigma) ** 2


DATA = Level(1.0, 0.0)
"""Where every grid ends unless it is told otherwise."""


def vp_level(ratio: float) -> Level:
    """The variance preserving level with sigma / alpha = ``ratio``."""
    alpha = 1 / math.sqrt(ratio * ratio + 1)
    return Level(alpha, ratio * alpha)


def flow_level(sigma: float) -> Level:
    """The level of a straight flow at ``sigma`` in [0, 1]: x = (1 - sigma) x0 + sigma eps."""
    return Level(1 - sigma, sigma)
