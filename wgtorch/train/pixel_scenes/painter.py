"""Objective of the painter of pixel scenes: what a describer is to read of its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.solvers.base import GridSolver
from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.blocks.pixel_scenes.palette import snap
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.templates.pixel_scenes import DESCRIBER_REF
from wgtorch.train.objective import Batch, Step
from wgtorch.train.objectives.denoising import Denoising
from wgtorch.train.pixel_scenes.describer import unlikelihood
from wgtorch.train.registries import register_objective
from wgtorch.train.scenes.disturbing import disturb


class PaintingSettings(TypedDict, total=False):
    """Arguments of :class:`~wgtorch.train.objectives.denoising.Denoising` that a painter of plans leaves open."""

    at: str | None
    loss_on: str | None
    times: str | dict[str, Any]
    weighting: str | dict[str, Any]


@register_objective("plan_reading")
class PlanReading(Denoising):
    """Denoising of pixel scenes, and beside it that a describer reads of the painter's pictures what their plans say.

    Pictures are begun by the graph, without gradients and for a number of its steps that is drawn; what the painter then predicts is
    read, and the cross-entropy of the plan goes back through the describer, which is frozen, into that one prediction (reward feedback
    learning, Xu et al. 2023, https://arxiv.org/abs/2304.05977). Half of what is read is in the palette's colours, a quarter disturbed,
    so that a painter cannot learn to please the describer by what nobody sees. Logs the cross-entropy as ``unread``.

    The target is a graph ``scene_to_image``, or one with its nodes ``noise``, ``backbone`` and ``solver``; the backbone predicts x0.

    Args:
        describer: checkpoint_ref of a block of type ``vlm/pixel_scene``.
        read_weight: what the cross-entropy counts beside the error of denoising.
        at, loss_on, times, weighting: as of :class:`~wgtorch.train.objectives.denoising.Denoising`.
    """

    needs = ("scene",)

    def __init__(self, *, describer: str = DESCRIBER_REF, read_weight: float = 0.02, **settings: Unpack[PaintingSettings]) -> None:
        super().__init__(**settings)
        if not 0 < read_weight < float("inf"):
            raise ConfigError(
                f"plan_reading.read_weight: found {read_weight}, expected a finite number above 0; objective=plan_painting reads nothing"
            )
        self.read_weight = read_weight
        reader = BlockRegistry.build({"block_type": "vlm/pixel_scene", "config": {"checkpoint_ref": describer}})
        self._reader = [reader.eval().requires_grad_(False)]  # in a list: it neither trains nor is stored with the training

    def check(self, target: Block) -> None:
        super().check(target)
        denoiser = self.denoiser(target)
        nodes = {} if denoiser.graph is None else dict(denoiser.graph.nodes)
        is_known = {"noise", "backbone", "solver"} <= set(nodes) and isinstance(nodes["solver"], GridSolver)
        if not is_known or "scene" not in denoiser.call.get_input_spec() or self.prediction_of(denoiser) != "sample":
            raise ConfigError(
                f"plan_reading: {target.block_id} is no graph scene_to_image; expected an input 'scene', nodes 'noise', 'backbone' "
                "and 'solver', and a backbone that predicts x0"
            )

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        """``loss``; ``error`` of denoising; ``unread``: the cross-entropy of the plans."""
        found = dict(super().forward(target, batch, step))
        rows = batch["scene"]
        unread = unlikelihood(self._describer(rows), self._seen(self._predicted(target, batch, step), step), rows.long())
        return {**found, "loss": found["loss"] + self.read_weight * unread, "unread": unread.detach()}

    def _predicted(self, target: Block, batch: Batch, step: Step) -> Tensor:
        """x0 [B, 3, S, S] that the painter predicts somewhere on its way to pictures of the plans."""
        denoiser = self.denoiser_for(target, batch)
        graph = denoiser.graph
        assert isinstance(graph, Graph)
        steps = int(step.uniform(1) * graph.nodes["solver"].num_steps)
        seed = int(torch.randint(2**31, (), generator=step.generator, device=step.generator.device))
        begun = graph.run_until({"scene": batch["scene"]}, before="backbone", iteration=steps, seed=seed)
        latent, timestep = begun.values["backbone.latent"], begun.values["backbone.timestep"]
        times = torch.as_tensor(timestep, dtype=torch.float32, device=latent.device).expand(len(latent))
        values = {**self.conditions(denoiser, batch, step), denoiser.latent: latent.float(), denoiser.timestep: times}
        return denoiser.predict(values, step.cache).float()

    def _seen(self, x0: Tensor, step: Step) -> Tensor:
        """Pictures [B, 3, S, S] in [0, 1] of x0, as the describer gets them; what is cut or snapped lets gradients through."""
        image = x0 / 2 + 0.5
        way = step.uniform(len(image), 1, 1, 1).to(image.device)
        fixed = torch.where(way < 0.5, snap(image.detach()), image.detach().clamp(0, 1))
        return torch.where(way < 0.75, image + (fixed - image).detach(), disturb(image.clamp(0, 1), step.generator))

    def _describer(self, like: Tensor) -> PixelSceneDescriber:
        reader = self._reader[0]
        assert isinstance(reader, PixelSceneDescriber)
        return reader.to(like.device)
