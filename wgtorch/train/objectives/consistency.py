"""Consistency distillation: a model of few steps from one of many (LCM)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.blocks.diffusion.schedules import DiffusionSchedule, FlowSchedule
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError
from wgtorch.train.objective import Batch, Step
from wgtorch.train.objectives.denoiser import Denoiser
from wgtorch.train.objectives.denoising import Denoising, EncodedSettings
from wgtorch.train.objectives.noising import Noised, draw_noise, noised, wide
from wgtorch.train.objectives.preference import base_alone
from wgtorch.train.registries import register_objective

_DATA = 0.5  # deviation of the data that the boundary condition supposes, as the paper does


@register_objective("lcm")
class ConsistencyDistillation(Denoising):
    """Latent consistency distillation into adapters (Luo et al. 2023, https://arxiv.org/abs/2310.04378 and 2311.05556).

    From a noised latent the model without adapters, the teacher, makes one guided DDIM step; what the model with adapters says of the
    data before that step should be what it says after it. Sample with ``schedule/lcm``, a guidance scale of 1 and 1 to 8 steps.

    Args:
        steps: of the teacher's DDIM.
        guidance: the teacher's scale is drawn from between these two, counted as w of cond + w (cond - uncond).
        huber: c of the loss sqrt(d^2 + c^2) - c.
        timestep_scaling: of the boundary condition.
        settings: as for :class:`~.denoising.Denoising`.
    """

    def __init__(
        self,
        *,
        steps: int = 50,
        guidance: list[float] | None = None,
        huber: float = 1e-3,
        timestep_scaling: float = 10.0,
        **settings: Unpack[EncodedSettings],
    ) -> None:
        super().__init__(**settings)
        self.guidance = [float(each) for each in guidance] if guidance is not None else [5.0, 15.0]
        if steps < 1 or len(self.guidance) != 2 or huber <= 0:
            raise ConfigError(f"lcm: found steps {steps}, guidance {guidance}, huber {huber}; expected at least 1, two numbers, above 0")
        self.steps, self.huber, self.timestep_scaling = steps, huber, timestep_scaling

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """``loss``."""
        losses = self.per_sample(target, batch, step)
        return {"loss": losses.mean(), "count": len(losses)}

    def per_sample(self, target: Block, batch: Batch, step: Step) -> Tensor:
        """The distance [B] between what is said before and after the teacher's step."""
        denoiser = self.denoiser(target)
        schedule = self.schedule_of(denoiser)
        x0 = self.latent_of(denoiser, batch, step)
        place = (step.uniform(len(x0)) * self.steps).long().clamp(max=self.steps - 1)
        start, end = self._times(schedule, place)
        first = noised(x0, draw_noise(x0, step.generator, self.offset_noise), start, *schedule.level_at(start))
        scale = self.guidance[0] + (self.guidance[1] - self.guidance[0]) * step.uniform(len(x0))
        conditions = self.conditions(denoiser, batch, step)
        said = self._said(target, denoiser, first, conditions, step)
        with torch.no_grad():
            with base_alone(target, "lcm"):
                stepped = self._teacher(target, denoiser, first, conditions, wide(scale, x0), schedule.level_at(end), step)
            after = Noised(stepped, x0, first.eps, end, *schedule.level_at(end))
            wanted = self._said(target, denoiser, after, conditions, step)
        distance = ((said.float() - wanted.float()).square() + self.huber**2).sqrt() - self.huber
        return distance.flatten(1).mean(1)

    def _times(self, schedule: Any, place: Tensor) -> tuple[Tensor, Tensor]:
        """Where the steps of these numbers start and end, [B] each, as timesteps."""
        if isinstance(schedule, FlowSchedule):
            shift = 1.0 if schedule.is_dynamic else schedule.shift
            start, end = ((place + more) / self.steps for more in (1, 0))
            return tuple(schedule.scale * shift * share / (1 + (shift - 1) * share) for share in (start, end))  # type: ignore[return-value]
        if not isinstance(schedule, DiffusionSchedule):
            raise ConfigError(f"lcm: the model's schedule is {schedule.block_type}; expected schedule/diffusion or flow")
        stride = len(schedule.layout.alpha_bars) // self.steps
        start = (place + 1) * stride - 1
        return start, (start - stride).clamp(min=0)

    def _said(self, target: Block, denoiser: Denoiser, at: Noised, conditions: Mapping[str, Any], step: Step) -> Tensor:
        """The consistency function: the data that the model says, bound to be the latent itself at the data."""
        schedule = self.schedule_of(denoiser)
        whole = schedule.scale if isinstance(schedule, FlowSchedule) else 1000
        scaled = self.timestep_scaling * at.timestep.double() * (1000 / whole)
        skip, out = _DATA**2 / (scaled**2 + _DATA**2), scaled / (scaled**2 + _DATA**2).sqrt()
        found = self._prediction(denoiser, self.predict(target, denoiser, at, conditions, step), at)
        return wide(skip, at.latent) * at.latent + wide(out, at.latent) * found.x0

    def _teacher(
        self,
        target: Block,
        denoiser: Denoiser,
        at: Noised,
        conditions: Mapping[str, Any],
        scale: Tensor,
        level: tuple[Tensor, Tensor],
        step: Step,
    ) -> Tensor:
        """One guided step of DDIM, to a level."""
        found = self._prediction(denoiser, self.predict(target, denoiser, at, conditions, step), at)
        nothing = self.without(conditions)
        other = self._prediction(denoiser, self.predict(target, denoiser, at, nothing, step), at)
        x0 = found.x0 + scale * (found.x0 - other.x0)
        eps = found.eps + scale * (found.eps - other.eps)
        return wide(level[0], x0) * x0 + wide(level[1], x0) * eps

    def _prediction(self, denoiser: Denoiser, pred: Tensor, at: Noised) -> ModelPrediction:
        level = NoiseLevel(wide(at.alpha, pred), wide(at.sigma, pred))
        return ModelPrediction(self.prediction_of(denoiser), at.latent, pred, level)
