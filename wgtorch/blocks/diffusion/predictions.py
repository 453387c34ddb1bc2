"""What a model predicts, and how one prediction follows from another.

| name | meaning | from |
| --- | --- | --- |
| ``epsilon`` | the noise eps | Ho et al. 2020, https://arxiv.org/abs/2006.11239 |
| ``sample`` (``x0``) | the data x0 | |
| ``v_prediction`` | v = alpha eps - sigma x0 | Salimans & Ho 2022, https://arxiv.org/abs/2202.00512 |
| ``flow`` | u = eps - x0 | Lipman et al. 2023, https://arxiv.org/abs/2210.02747 |

All of x = alpha x0 + sigma eps, so two of (x, x0, eps, v, u) give the others. Functions take tensors [B, C, ...] or numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.core.errors import suggest

PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow")
_ALIASES = {"x0": "sample", "flow_prediction": "flow"}


def prediction_name(name: str, where: str) -> str:
    """The canonical name of a prediction.

    Raises:
        ValueError: there is no such prediction.
    """
    known = _ALIASES.get(name, name)
    if known not in PREDICTIONS:
        raise ValueError(f"{where}: found {name!r}, expected one of {', '.join(PREDICTIONS)}; {suggest(name, PREDICTIONS)}")
    return known


def to_x0(prediction: str, x: Any, pred: Any, level: NoiseLevel) -> Any:
    """The data x0 that ``pred`` says ``x`` at ``level`` comes from.

    Raises:
        ValueError: ``epsilon`` at a level without any data (alpha = 0), where it says nothing about x0.
    """
    alpha, sigma = level
    if prediction == "epsilon":
        _needs(alpha, "alpha", prediction, "x0 = (x - sigma eps) / alpha", "a v_prediction model, or a schedule without zero terminal SNR")
        return _less_noise(x, sigma, pred) / alpha
    if prediction == "sample":
        return pred
    if prediction == "v_prediction":
        return (alpha * x - sigma * pred) / (alpha * alpha + sigma * sigma)
    return (x - sigma * pred) / (alpha + sigma)


def to_epsilon(prediction: str, x: Any, pred: Any, level: NoiseLevel) -> Any:
    """The noise eps that ``pred`` says is in ``x`` at ``level``.

    Raises:
        ValueError: ``sample`` at the data (sigma = 0), where it says nothing about eps.
    """
    alpha, sigma = level
    if prediction == "epsilon":
        return pred
    if prediction == "sample":
        return epsilon_of(x, pred, level)
    if prediction == "v_prediction":
        return (alpha * pred + sigma * x) / (alpha * alpha + sigma * sigma)
    return (x + alpha * pred) / (alpha + sigma)


def epsilon_of(x: Any, x0: Any, level: NoiseLevel) -> Any:
    """eps = (x - alpha x0) / sigma."""
    alpha, sigma = level
    _needs(sigma, "sigma", "sample", "eps = (x - alpha x0) / sigma", "a grid whose last step starts above the data")
    return (x - alpha * x0) / sigma


def from_x0(prediction: str, x: Any, x0: Any, level: NoiseLevel) -> Any:
    """The prediction that says that ``x`` at ``level`` comes from ``x0``; undoes :func:`to_x0`."""
    alpha, sigma = level
    if prediction == "sample":
        return x0
    eps = epsilon_of(x, x0, level)
    if prediction == "epsilon":
        return eps
    return alpha * eps - sigma * x0 if prediction == "v_prediction" else eps - x0


def _less_noise(x: Any, sigma: Any, eps: Any) -> Any:
    """x - sigma eps; one operation where sigma is a tensor []."""
    return torch.addcmul(x, eps, sigma, value=-1) if isinstance(sigma, Tensor) and not sigma.dim() else x - sigma * eps


def _needs(value: Any, name: str, prediction: str, formula: str, instead: str) -> None:
    if not isinstance(value, Tensor) and not value:
        raise ValueError(f"prediction {prediction!r} at {name} = 0: {formula} has no value there; use {instead}")
