"""Sequences of sigmas between a largest and a smallest one, and the timestep that a sigma stands for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def karras_sigmas(smallest: float, largest: float, count: int, *, rho: float = 7.0) -> Floats:
    """Even in sigma^(1/rho): most steps at little noise (Karras et al. 2022, https://arxiv.org/abs/2206.00364, eq. 5), [count]."""
    ramp = np.linspace(0, 1, count)
    low, high = smallest ** (1 / rho), largest ** (1 / rho)
    return (high + ramp * (low - high)) ** rho


def exponential_sigmas(smallest: float, largest: float, count: int) -> Floats:
    """Even in log sigma, [count]."""
    return np.exp(np.linspace(math.log(largest), math.log(smallest), count))


def beta_sigmas(smallest: float, largest: float, count: int, *, alpha: float = 0.6, beta: float = 0.6) -> Floats:
    """Quantiles of a beta distribution: most steps at both ends (Lee et al. 2024, https://arxiv.org/abs/2407.12173), [count]."""
    quantiles = np.array([beta_quantile(share, alpha, beta) for share in 1 - np.linspace(0, 1, count)])
    return smallest + quantiles * (largest - smallest)


SIGMAS: dict[str, Callable[[float, float, int], Floats]] = {
    "karras": karras_sigmas,
    "exponential": exponential_sigmas,
    "beta": beta_sigmas,
}


def sigma_to_timestep(sigma: float, log_sigmas: NDArray[np.floating]) -> float:
    """The timestep at which training had this sigma, between two timesteps where it falls there.

    Args:
        sigma: what to look for.
        log_sigmas: log sigma by training timestep, rising, [T].
    """
    log_sigma = np.log(np.maximum(sigma, 1e-10))
    low = np.cumsum(log_sigma - log_sigmas >= 0).argmax().clip(max=len(log_sigmas) - 2)
    below, above = log_sigmas[low], log_sigmas[low + 1]
    weight = np.clip((below - log_sigma) / (below - above), 0, 1)
    return float((1 - weight) * low + weight * (low + 1))


def beta_quantile(share: float, alpha: float, beta: float) -> float:
    """The x in [0, 1] below which a beta distribution has this share of its mass, to about 1e-15."""
    if share <= 0 or share >= 1:
        return float(share >= 1)
    if share > 0.5:  # the tail that is nearer to 0 keeps its digits
        return 1 - beta_quantile(1 - share, beta, alpha)
    low, high = 0.0, 1.0
    x = 0.5
    density_scale = math.exp(-_log_beta(alpha, beta))
    for _ in range(200):
        error = _beta_share(x, alpha, beta) - share
        low, high = (x, high) if error < 0 else (low, x)
        slope = density_scale * x ** (alpha - 1) * (1 - x) ** (beta - 1)
        step = x - error / slope
        following = step if low < step < high else (low + high) / 2
        if abs(following - x) <= 1e-16 * x:
            break
        x = following
    return x


def _beta_share(x: float, alpha: float, beta: float) -> float:
    """The regularised incomplete beta function, by Lentz's continued fraction (Numerical Recipes, 6.4)."""
    if x > (alpha + 1) / (alpha + beta + 2):
        return 1 - _beta_share(1 - x, beta, alpha)
    front = math.exp(alpha * math.log(x) + beta * math.log1p(-x) - _log_beta(alpha, beta)) / alpha
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (alpha + beta) * x / (alpha + 1) or tiny)
    fraction = d
    for m in range(1, 300):
        even = m * (beta - m) * x / ((alpha + 2 * m - 1) * (alpha + 2 * m))
        odd = -(alpha + m) * (alpha + beta + m) * x / ((alpha + 2 * m) * (alpha + 2 * m + 1))
        before = fraction
        for term in (even, odd):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            fraction *= c * d
        if abs(fraction - before) <= 1e-16 * abs(fraction):
            break
    return front * fraction


def _log_beta(alpha: float, beta: float) -> float:
    return math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta)
