"""Preferences: of two pictures for a prompt, one is liked better (DPO)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, TrainingError
from wgtorch.lora.switching import adapters, use_adapter
from wgtorch.train.objective import Batch, Step
from wgtorch.train.objectives.denoiser import Denoiser
from wgtorch.train.objectives.denoising import Denoising, EncodedSettings
from wgtorch.train.objectives.noising import Noised, noised
from wgtorch.train.registries import register_objective


def base_alone(target: Block, what: str) -> AbstractContextManager[Any]:
    """Inside, no adapter is active: the model is the one that training began with.

    Raises:
        TrainingError: the target has no adapters, so what it was is not there any more.
    """
    if not adapters(target):
        raise TrainingError(
            f"{what}: {target.block_id} has no adapters, so the model it began with is gone after one step; add some with lora"
        )
    return use_adapter(target, None)


@register_objective("dpo")
class DirectPreference(Denoising):
    """Direct preference optimization of a diffusion model (Wallace et al. 2023, https://arxiv.org/abs/2311.12908, equation 14).

    loss = -log sigmoid(-beta / 2 ((e_w - e_w_ref) - (e_l - e_l_ref))), with e the squared error of a prediction for the liked (w) and
    the other picture (l) at the same noise and time, and ref the model without its adapters.

    A batch holds ``image`` (or ``latent``), the one that is liked, ``rejected_image`` (or ``rejected_latent``), and the prompt.

    Args:
        beta: how far the model may go from what it was; the paper takes 2000 to 5000.
        settings: as for :class:`~.denoising.Denoising`.
    """

    def __init__(self, *, beta: float = 2000.0, times: str | dict[str, Any] = "uniform", **settings: Unpack[EncodedSettings]) -> None:
        super().__init__(times=times, **settings)
        if beta <= 0:
            raise ConfigError(f"dpo.beta: found {beta}; expected a number above 0")
        self.beta = beta

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """``loss``; ``preferred``: the share of pairs in which the liked picture has become the likelier one."""
        margins = self.margins(target, batch, step)
        loss = -F.logsigmoid(self.beta * margins).mean()
        return {"loss": loss, "preferred": (margins > 0).float().mean(), "margin": margins.detach().mean(), "count": len(margins)}

    def per_sample(self, target: Block, batch: Batch, step: Step) -> Tensor:
        return -F.logsigmoid(self.beta * self.margins(target, batch, step))

    def margins(self, target: Block, batch: Batch, step: Step) -> Tensor:
        """By how much the liked picture of each pair [B] has become likelier than the other one."""
        denoiser = self.denoiser(target)
        liked = self.noised(denoiser, self.latent_of(denoiser, batch, step), step)
        others = {key.removeprefix("rejected_"): value for key, value in batch.items() if key.startswith("rejected_")}
        if not others:
            raise ConfigError(
                f"dpo needs 'rejected_image' or 'rejected_latent' in every batch; the data gives {sorted(batch)}; image_folder reads "
                "the pictures that are liked less from data.rejected=my_others"
            )
        x0 = self.latent_of(denoiser, others, step)
        if x0.shape != liked.x0.shape:
            raise ConfigError(f"dpo: pictures of a pair are {list(liked.x0.shape)} and {list(x0.shape)}; expected the same shape")
        rejected = noised(x0, liked.eps, liked.timestep, liked.alpha, liked.sigma)
        conditions = self.conditions(denoiser, batch, step)

        def errors(of: Noised) -> Tensor:
            return self._error(denoiser, self.predict(target, denoiser, of, conditions, step), of)

        own = errors(liked) - errors(rejected)
        with torch.no_grad(), base_alone(target, "dpo"):
            reference = errors(liked) - errors(rejected)
        return -0.5 * (own - reference)

    def _error(self, denoiser: Denoiser, pred: Tensor, of: Noised) -> Tensor:
        return (pred.float() - of.target(self.prediction_of(denoiser)).float()).square().flatten(1).mean(1)
