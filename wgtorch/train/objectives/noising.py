"""How training noises data: where on the way from noise to data, and how much each place counts.

Levels, predictions and schedules are those of :mod:`wgtorch.blocks.diffusion`: x = alpha x0 + sigma eps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.predictions import prediction_name
from wgtorch.blocks.diffusion.schedules import DiffusionSchedule, FlowSchedule, GridSchedule
from wgtorch.core.errors import ConfigError, suggest

_TIMES: dict[str, dict[str, float]] = {
    "uniform": {"shift": 1.0, "smallest": 1e-3},
    "logit_normal": {"mean": 0.0, "std": 1.0, "shift": 1.0, "smallest": 1e-3},
}
_WEIGHTINGS: dict[str, dict[str, float]] = {"none": {}, "min_snr": {"gamma": 5.0}}


@dataclass(frozen=True, slots=True)
class Settings:
    """A choice by name with its numbers."""

    name: str
    numbers: Mapping[str, float]


def chosen(given: str | Mapping[str, Any], known: Mapping[str, Mapping[str, float]], where: str) -> Settings:
    """A name, or ``{"type": name, ...numbers}``, with defaults for numbers that are left out.

    Raises:
        ConfigError: the name or a number is unknown.
    """
    numbers = {} if isinstance(given, str) else dict(given)
    name = given if isinstance(given, str) else numbers.pop("type", "")
    if name not in known:
        raise ConfigError(f"{where}: found {name!r}, expected one of {', '.join(known)}; {suggest(name, known)}")
    for key, value in numbers.items():
        if key not in known[name] or not isinstance(value, (int, float)):
            raise ConfigError(
                f"{where} ({name}): found {key} = {value!r}, expected numbers for {list(known[name])}; {suggest(key, known[name])}"
            )
    return Settings(name, {**known[name], **numbers})


def times_from(given: str | Mapping[str, Any]) -> Settings:
    """Where on the way training happens: ``uniform``, or ``logit_normal`` (Esser et al. 2024, https://arxiv.org/abs/2403.03206,
    section 3.1): t = sigmoid(mean + std n). ``shift`` > 1 moves times towards the noise, as in sampling; flows never come
    nearer to the data than ``smallest``."""
    return chosen(given, _TIMES, "times")


def weighting_from(given: str | Mapping[str, Any]) -> Settings:
    """How much a level counts: ``none``, or ``min_snr`` with ``gamma`` (Hang et al. 2023, https://arxiv.org/abs/2303.09556)."""
    return chosen(given, _WEIGHTINGS, "weighting")


def draw_times(times: Settings, schedule: GridSchedule, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Timesteps as the backbone takes them, alpha and sigma there, each [count].

    Args:
        times: of :func:`times_from`.
        schedule: that the model is trained with: of T whole timesteps, or a flow's.
        count: how many.
        generator: to draw from.
    """
    device, numbers = generator.device, times.numbers
    if times.name == "uniform":
        share = torch.rand(count, generator=generator, device=device)
    else:
        share = torch.sigmoid(numbers["mean"] + numbers["std"] * torch.randn(count, generator=generator, device=device))
    shift = numbers["shift"]
    share = share if shift == 1 else shift * share / (1 + (shift - 1) * share)
    if isinstance(schedule, FlowSchedule):
        timestep = share.clamp(min=numbers["smallest"]) * schedule.scale
    elif isinstance(schedule, DiffusionSchedule):
        total = len(schedule.layout.alpha_bars)
        timestep = (share * total).long().clamp(max=total - 1)
    else:
        raise ConfigError(
            f"a schedule of type {schedule.block_type!r} does not say where training happens; expected schedule/diffusion or flow"
        )
    alpha, sigma = schedule.level_at(timestep)
    return timestep, alpha, sigma


def target_of(prediction: str, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a model of this prediction should say."""
    if prediction == "epsilon":
        return eps
    if prediction == "sample":
        return x0
    return alpha * eps - sigma * x0 if prediction == "v_prediction" else eps - x0


def error_scale(prediction: str, alpha: Tensor, sigma: Tensor) -> Tensor:
    """By how much a squared error in x0 grows when it is told in this prediction.

    With x known, eps = (x - alpha x0) / sigma, so an error d in x0 is one of -(alpha / sigma) d in eps, -((alpha^2 + sigma^2) /
    sigma) d in v and -((alpha + sigma) / sigma) d in the flow.
    """
    if prediction == "sample":
        return torch.ones_like(sigma)
    factor = {"epsilon": alpha, "v_prediction": alpha**2 + sigma**2, "flow": alpha + sigma}[prediction]
    return (factor / sigma) ** 2


def weights_of(weighting: Settings, prediction: str, loss_on: str, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Factor [B] for the squared error of the model's own prediction.

    Args:
        weighting: of :func:`weighting_from`.
        prediction: what the model predicts.
        loss_on: in which prediction the loss is told; where it is another than the model's, errors are rescaled.
        alpha: levels, [B].
        sigma: levels, [B].
    """
    own = error_scale(prediction, alpha, sigma)
    if weighting.name == "min_snr":  # min(SNR, gamma) times the error in x0, whatever the loss is told in
        return (alpha / sigma).square().clamp(max=weighting.numbers["gamma"]) / own
    if loss_on == prediction:
        return torch.ones_like(sigma)
    return error_scale(loss_on, alpha, sigma) / own


def checked_prediction(name: str, where: str) -> str:
    """The canonical name of a prediction.

    Raises:
        ConfigError: there is no such prediction.
    """
    try:
        return prediction_name("epsilon" if name == "noise" else name, where)
    except ValueError as error:
        raise ConfigError(str(error)) from error
