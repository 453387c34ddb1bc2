"""How training noises data: where on the way from noise to data, and how much each place counts.

Levels, predictions and schedules are those of :mod:`wgtorch.blocks.diffusion`: x = alpha x0 + sigma eps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.predictions import prediction_name
from wgtorch.blocks.diffusion.schedules import DiffusionSchedule, FlowSchedule, GridSchedule
from wgtorch.core.errors import ConfigError, suggest

_TIMES: dict[str, dict[str, float | None]] = {
    "uniform": {"shift": None, "smallest": 1e-3},
    "logit_normal": {"mean": 0.0, "std": 1.0, "shift": None, "smallest": 1e-3},
    "mode": {"scale": 1.29, "shift": None, "smallest": 1e-3},
}
_NOT_NEGATIVE = ("std", "shift", "smallest", "gamma")
_GOLDEN = (math.sqrt(5) - 1) / 2
_WEIGHTINGS: dict[str, dict[str, float | None]] = {"none": {}, "min_snr": {"gamma": 5.0}, "sigma_sqrt": {}, "cosmap": {}}


@dataclass(frozen=True, slots=True)
class Settings:
    """A choice by name with its numbers."""

    name: str
    numbers: Mapping[str, Any]


def chosen(given: str | Mapping[str, Any], known: Mapping[str, Mapping[str, float | None]], where: str) -> Settings:
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
        if key in _NOT_NEGATIVE and value < 0:
            raise ConfigError(f"{where}.{key}: found {value}; expected at least 0")
    return Settings(name, {**known[name], **numbers})


def times_from(given: str | Mapping[str, Any]) -> Settings:
    """Where on the way training happens: ``uniform``, ``logit_normal``, t = sigmoid(mean + std n), or ``mode`` with ``scale``, the last
    two of Esser et al. 2024 (https://arxiv.org/abs/2403.03206, section 3.1). ``shift`` > 1 moves times towards the noise, as in
    sampling; where it is left out it is that of the model's own schedule. Flows never come nearer to the data than ``smallest``."""
    return chosen(given, _TIMES, "times")


def weighting_from(given: str | Mapping[str, Any]) -> Settings:
    """How much a level counts: ``none``; ``min_snr`` with ``gamma`` (Hang et al. 2023, https://arxiv.org/abs/2303.09556); or, for flows,
    ``sigma_sqrt``, 1 / sigma^2, and ``cosmap`` (Esser et al. 2024, https://arxiv.org/abs/2403.03206, section 3.1)."""
    return chosen(given, _WEIGHTINGS, "weighting")


def draw_times(
    times: Settings, schedule: GridSchedule, count: int, generator: torch.Generator, *, first: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Timesteps as the backbone takes them, alpha and sigma there, each [count].

    Args:
        times: of :func:`times_from`.
        schedule: that the model is trained with: of T whole timesteps, or a flow's.
        count: how many.
        generator: to draw from.
        first: the number of the first of them in an even sequence of the same distribution, of which any so many cover all levels (that
            of the golden ratio, as validation takes them); None draws.
    """
    device, numbers = generator.device, times.numbers
    even = None if first is None else (torch.arange(first + 1, first + 1 + count, dtype=torch.float64, device=device) * _GOLDEN % 1).float()
    if times.name == "logit_normal":
        normal = torch.randn(count, generator=generator, device=device) if even is None else torch.special.ndtri(even)
        share = torch.sigmoid(numbers["mean"] + numbers["std"] * normal)
    else:
        share = torch.rand(count, generator=generator, device=device) if even is None else even
    if times.name == "mode":
        share = 1 - share - numbers["scale"] * (torch.cos(math.pi * share / 2) ** 2 - 1 + share)
    shift = numbers["shift"]
    if shift is None:
        shift = schedule.shift if isinstance(schedule, FlowSchedule) and not schedule.is_dynamic else 1.0
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
    rescaled = torch.ones_like(sigma) if loss_on == prediction else error_scale(loss_on, alpha, sigma) / own
    if weighting.name == "sigma_sqrt":
        return rescaled * sigma**-2
    if weighting.name == "cosmap":
        return rescaled * 2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2))
    return rescaled


@dataclass(frozen=True, slots=True)
class Noised:
    """Latents with noise in them: ``latent`` = alpha ``x0`` + sigma ``eps``.

    Args:
        latent: [B, C, ...].
        x0: without noise.
        eps: the noise.
        timestep: [B], as the backbone takes it.
        alpha: [B].
        sigma: [B].
    """

    latent: Tensor
    x0: Tensor
    eps: Tensor
    timestep: Tensor
    alpha: Tensor
    sigma: Tensor

    def target(self, prediction: str) -> Tensor:
        """What a model of this prediction should say."""
        return target_of(prediction, self.x0, self.eps, wide(self.alpha, self.x0), wide(self.sigma, self.x0))


def noised(x0: Tensor, eps: Tensor, timestep: Tensor, alpha: Tensor, sigma: Tensor) -> Noised:
    """Latents at levels of noise, one for each sample."""
    return Noised(wide(alpha, x0) * x0 + wide(sigma, x0) * eps, x0, eps, timestep, alpha, sigma)


def wide(value: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, ...], in the dtype and on the device of ``like`` [B, ...]."""
    return value.to(like).view(-1, *[1] * (like.dim() - 1))


def draw_noise(like: Tensor, generator: torch.Generator, offset: float = 0.0) -> Tensor:
    """Standard normal noise in the shape of ``like`` [B, C, ...]; ``offset`` times one more number is added to each channel as a whole
    (Guttenberg 2023, https://www.crosslabs.org/blog/diffusion-with-offset-noise)."""
    noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    if not offset:
        return noise
    shape = (*like.shape[:2], *[1] * (like.dim() - 2))
    return noise + offset * torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


def masked_mean(square: Tensor, mask: Tensor) -> Tensor:
    """Mean [B] of squared errors [B, C, h, w] by what each pixel counts, masks [B, 1, H, W]; all of a sample whose mask is empty counts."""
    small = torch.nn.functional.adaptive_avg_pool2d(mask.to(square), (square.shape[-2], square.shape[-1]))
    whole = small.flatten(1).sum(1) == 0
    small = torch.where(whole.view(-1, 1, 1, 1), torch.ones_like(small), small)
    return (square * small).flatten(1).sum(1) / (small.flatten(1).sum(1) * square.shape[1])


def checked_prediction(name: str, where: str) -> str:
    """The canonical name of a prediction.

    Raises:
        ConfigError: there is no such prediction.
    """
    try:
        return prediction_name("epsilon" if name == "noise" else name, where)
    except ValueError as error:
        raise ConfigError(str(error)) from error
