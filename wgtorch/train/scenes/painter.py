"""Objective of the painter: denoising from labels, with each attribute left out now and then."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from wgtorch.blocks.scenes.backbone import SceneBackbone
from wgtorch.blocks.scenes.text import condition_from_labels
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.train.objective import Batch, Step
from wgtorch.train.objectives.denoiser import Denoiser
from wgtorch.train.objectives.denoising import Denoising
from wgtorch.train.registries import register_objective


class PainterSettings(TypedDict, total=False):
    """Arguments of :class:`~wgtorch.train.objectives.denoising.Denoising` that a painter of labels leaves open."""

    prediction: str | None
    schedule: dict[str, Any] | None
    times: str | dict[str, Any]
    weighting: str | dict[str, Any]
    sample_inputs: dict[str, Any] | None


@register_objective("scene_painting")
class ScenePainting(Denoising):
    """Denoising of drawn scenes, conditioned on their labels instead of words; for a `backbone/scene` or a graph with one.

    The text encoder gives distributions over attributes, and labels are such distributions too: so the painter learns
    without words, and prompts are used for the pictures that are shown only. For classifier-free guidance
    `drop_condition` leaves out everything, as in :class:`~wgtorch.train.objectives.denoising.Denoising`, and
    `drop_attribute` each attribute by itself, so that guidance and prompts that name little both work.

    Args:
        drop_attribute: share of the attributes that are left out, each for itself.
        drop_condition: share of the pictures that are trained with nothing said at all.
        loss_on: where the error is measured: that of the velocity, by default.
        prediction, schedule, times, weighting, sample_inputs: as of Denoising; a bare painter needs a schedule, as
            ``{"kind": "flow", "num_train_timesteps": 1}``.
    """

    needs = ("image", "labels")

    def __init__(
        self, *, drop_attribute: float = 0.1, drop_condition: float = 0.1, loss_on: str | None = "flow", **settings: Unpack[PainterSettings]
    ) -> None:
        super().__init__(drop_condition=drop_condition, loss_on=loss_on, **settings)
        if not 0 <= drop_attribute <= 1:
            raise ConfigError(f"scene_painting.drop_attribute: found {drop_attribute}, expected a share from 0 to 1")
        self.drop_attribute = drop_attribute
        self._bare: tuple[Denoiser, Denoiser] | None = None

    def denoiser(self, target: Block) -> Denoiser:
        """The backbone at its place, with the adapter that is active there, and nothing before it: words do not come into it."""
        found = {id(block): block for block in target.modules() if isinstance(block, SceneBackbone)}
        if len(found) != 1:
            raise ConfigError(f"scene_painting: {target.block_id} holds {len(found)} painters; expected one block of type 'backbone/scene'")
        whole = super().denoiser(target)
        if not isinstance(whole.call, Graph):
            return whole
        if self._bare is None or self._bare[0] is not whole:
            node = next(node_id for node_id, child in whole.call.nodes.items() if isinstance(child, SceneBackbone))
            call = whole.call.select([f"{node}.{port}" for port in ("latent", "timestep", "condition")], ["pred"])
            self._bare = whole, replace(whole, call=call, latent="latent", timestep="timestep", head=None)
        return self._bare[1]

    def conditions(self, denoiser: Denoiser, batch: Batch, step: Step) -> dict[str, Any]:
        """`condition` [B, 7, 8] of the labels; in training with some of it unspecified."""
        labels: Tensor = batch["labels"]
        if step.training:
            left_out = step.uniform(*labels.shape) < self.drop_attribute
            left_out |= step.uniform(len(labels), 1) < self.drop_condition
            labels = torch.where(left_out, -1, labels)
        return {"condition": condition_from_labels(labels)}
