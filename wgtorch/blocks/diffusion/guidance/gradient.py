"""Guidance by the gradient of any loss of the picture that is on its way, and that picture itself at each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.noise_level import NoiseLevel
from wgtorch.blocks.diffusion.predictions import from_x0, prediction_name, to_x0
from wgtorch.blocks.diffusion.schedules.block import build_schedule
from wgtorch.core.block import Block, BlockRegistry, register_block
from wgtorch.core.errors import ConfigError, PortError
from wgtorch.core.kinds import describe
from wgtorch.core.port import Port
from wgtorch.graph import Graph
from wgtorch.ports import LATENT, PRED, PROGRESS, TIMESTEP
from wgtorch.roles import Backbone


class _Levels:
    """Where a latent is, by the timestep that the backbone is called with."""

    def __init__(self, schedule: Mapping[str, Any] | None) -> None:
        self.schedule = None if schedule is None else build_schedule(schedule)

    def at(self, timestep: Any, progress: Any = None) -> NoiseLevel:
        if self.schedule is None:  # a scheduler of another library says it itself
            level: NoiseLevel | None = getattr(progress, "noise_level", None)
            if level is None:
                raise PortError("without schedule= the noise in a latent is what progress says; feed it from the node schedule")
            return level
        moment = float(torch.as_tensor(timestep).flatten()[0])
        grid = getattr(progress, "grid", None)
        if grid is not None and moment in grid.timesteps:
            return grid.levels[grid.timesteps.index(moment)]
        return NoiseLevel(*self.schedule.level_at(moment))


@register_block("preview/x0")
class Preview(Block):
    """The picture that a prediction says a latent comes from, at each step of a loop; :func:`add_preview` puts one before a solver.

    Args:
        prediction: what the backbone predicts; see :mod:`~wgtorch.blocks.diffusion.predictions`.
        schedule: that the model was trained with, as for :func:`~wgtorch.blocks.diffusion.schedules.block.build_schedule`; left out
            where ``progress`` is that of a scheduler of diffusers.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"latent": LATENT, "timestep": TIMESTEP, "pred": PRED, "progress": PROGRESS}
    outputs: Mapping[str, Any] = {
        "pred": PRED,
        "x0": Port(dtype="latent", description="the clean latents that the prediction stands for [B, C, ...]"),
    }

    def __init__(self, *, prediction: str, schedule: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.prediction = prediction_name(prediction, "Preview.prediction")
        self._levels = _Levels(schedule)

    def forward(self, latent: Tensor, timestep: float | Tensor, pred: Tensor, progress: Any = None) -> dict[str, Any]:
        """``x0`` [B, C, ...], and ``pred`` as it is."""
        return {"pred": pred, "x0": to_x0(self.prediction, latent, pred, self._levels.at(timestep, progress))}


@register_block("guidance/gradient")
class GradientGuidance(Backbone):
    """A backbone whose prediction goes down the gradient of a loss of x0, through the backbone itself.

    This is the likelihood's term of Diffusion Posterior Sampling (Chung et al. 2022, https://arxiv.org/abs/2209.14687) and of universal
    guidance (Bansal et al. 2023, https://arxiv.org/abs/2302.07121), put into the prediction, so that any solver walks with it:
    ``x0 - scale sigma g / rms(g)``, with g the gradient by the latent. Below classifier-free guidance its scale multiplies this too.
    :func:`steer` puts one in the place of a graph's backbone.

    Args:
        backbone: config of the block it is around.
        loss: config of a block from ``image`` [B, ...] to one number, or one for each row.
        codec: config of the block that makes the image that the loss sees of x0; x0 itself where left out.
        prediction: what the backbone predicts.
        schedule: as of :class:`Preview`.
        scale: how far, in deviations of the noise that is left.
    """

    uses_global_rng = False
    compiles = False  # it needs gradients of its own
    inputs: Mapping[str, Any] = {"progress": PROGRESS}
    outputs: Mapping[str, Any] = {
        "loss": Port(dtype="tensor", optional=True, description="the loss of each row before the step down [B], inside the loop")
    }

    def __init__(
        self,
        *,
        backbone: Mapping[str, Any] | Block,
        loss: Mapping[str, Any] | Block,
        prediction: str,
        schedule: Mapping[str, Any] | None = None,
        codec: Mapping[str, Any] | Block | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.backbone, self.loss = built(backbone), built(loss)
        self.codec = None if codec is None else built(codec)
        self.prediction = prediction_name(prediction, "GradientGuidance.prediction")
        self.scale = scale
        self._levels = _Levels(schedule)
        self.inputs = {**self.backbone.get_input_spec(), "progress": PROGRESS}  # type: ignore[misc]

    def to_config(self) -> dict[str, Any]:
        return config_with_blocks(self)

    def forward(self, latent: Tensor, timestep: float | Tensor, progress: Any = None, **inputs: Any) -> dict[str, Any]:
        """``pred`` [B, C, ...], and the ``loss`` [B] before it goes down.

        Args:
            inputs: the backbone's others.

        Raises:
            PortError: the loss does not depend on the picture, or is not one number for each.
        """
        level = self._levels.at(timestep, progress)
        alpha, sigma = level
        if not alpha or not sigma:  # nothing is known of the data, or nothing is left to change
            return {"pred": self._pred(latent, timestep, inputs)}
        with torch.enable_grad():
            x = latent.detach().requires_grad_()
            pred = self._pred(x, timestep, inputs)
            x0 = to_x0(self.prediction, x, pred, level)
            image = x0 if self.codec is None else _value(self.codec(latent=x0), "image")
            losses = _value(self.loss(image=image), "loss")
            if not isinstance(losses, Tensor) or losses.numel() not in (1, len(latent)):
                raise PortError(
                    f"{self.block_id}: the loss is {describe(losses)}; expected one number, or one for each of {len(latent)} rows"
                )
            if not losses.requires_grad:
                raise PortError(f"{self.block_id}: the loss has no gradient by the picture; expected a differentiable function of image")
            (slope,) = torch.autograd.grad(losses.sum(), x)
        rms = slope.flatten(1).pow(2).mean(dim=1).sqrt().clamp(min=1e-12).view(-1, *[1] * (slope.dim() - 1))
        moved = x0.detach() - self.scale * sigma * slope / rms
        return {"pred": from_x0(self.prediction, latent, moved, level), "loss": losses.detach().flatten().expand(latent.shape[0])}

    def _pred(self, latent: Tensor, timestep: Any, inputs: Mapping[str, Any]) -> Tensor:
        return _value(self.backbone(latent=latent, timestep=timestep, **inputs), "pred")


def built(part: Mapping[str, Any] | Block) -> Block:
    """A block that stands inside another, or that of its config."""
    return part if isinstance(part, Block) else BlockRegistry.build(part)


def config_with_blocks(block: Block) -> dict[str, Any]:
    """The config of a block whose arguments may be blocks."""
    own = {name: value.to_config() if isinstance(value, Block) else value for name, value in block.config.items()}
    return {"block_type": block.block_type, "config": own}


def _value(found: Any, name: str) -> Tensor:
    """One output of a block, which may give it alone, or under a name of its own."""
    if not isinstance(found, Mapping):
        return found
    return found[name] if name in found else next(iter(found.values()))


def steer(graph: Graph, loss: Block | Callable[..., Tensor], *, scale: float = 1.0, node: str = "backbone", sees: str = "image") -> None:
    """Steers a graph's loop by the gradient of a loss, with one call.

    Example:
        >>> steer(painter, lambda image: ((image - wanted) * mask).square().mean(dim=(1, 2, 3)), scale=0.5)

    Args:
        graph: with a backbone, a solver, and for ``sees="image"`` a node ``codec``.
        loss: of ``image`` [B, 3, H, W] in [0, 1]: one number, or one for each row. (A function of a test of yours cannot be saved with the
            graph; a registered block can.)
        scale: how far, in deviations of the noise that is left.
        node: the backbone's, which a :class:`GradientGuidance` takes the place of; without guidance by a scale, or for the prompt alone.
        sees: ``image``, or ``latent`` for a loss of x0 itself.

    Raises:
        ConfigError: the graph has no such node, or its solver or schedule does not say what is predicted.
    """
    if sees not in ("image", "latent"):
        raise ConfigError(f"steer: sees={sees!r}; expected image or latent")
    needed = [name for name in (node, *(("codec",) if sees == "image" else ())) if name not in graph.nodes]
    if needed:
        raise ConfigError(f"steer: {graph.block_id} has no node {', '.join(needed)}; it has {', '.join(graph.nodes)}")
    judged = loss if isinstance(loss, Block) else Block.wrap(loss, inputs={"image": "image"}, outputs={"loss": "tensor"})
    codec = graph.nodes["codec"] if sees == "image" else None
    around = GradientGuidance(backbone=graph.nodes[node], loss=judged, codec=codec, scale=scale, **_trained(graph))
    graph.replace_node(node, around)
    for source in _feeding(graph, "solver", "progress"):
        graph.add_edge(source, f"{node}.progress")


def add_preview(graph: Graph, node: str = "preview") -> None:
    """Puts a :class:`Preview` before the solver: its output ``x0`` in each turn is in the events of a run, the last one an output.

    Example:
        >>> add_preview(painter)
        >>> for event in painter.stream({"prompt": "a castle"}):
        ...     if event.path == "preview" and event.kind == "end":
        ...         show(event.outputs["x0"])

    Args:
        graph: with a solver.
        node: id of the new node.

    Raises:
        ConfigError: the graph has no solver or schedule that says what is predicted.
    """
    graph.add_node(Preview(**_trained(graph)), node, auto_connect=False)
    for port in ("latent", "timestep", "pred", "progress"):
        for source in _feeding(graph, "solver", port):
            graph.add_edge(source, f"{node}.{port}")
            if port == "pred":
                graph.remove_edge(source, "solver.pred")
    graph.add_edge(f"{node}.pred", "solver.pred")
    graph.expose_output(node, "x0", "x0" if "x0" not in graph.get_output_spec() else f"{node}_x0")


def _feeding(graph: Graph, node: str, port: str) -> list[str]:
    """Where an input comes from, its start and what returns to it."""
    edges = [edge for edge in graph.edges if (edge.target_node, edge.target_port) == (node, port)]
    return [f"{edge.source_node}.{edge.source_port}" for edge in edges]


def _trained(graph: Graph) -> dict[str, Any]:
    """What the model predicts, and the schedule that it was trained with, as the graph's solver and schedule say."""
    nodes: dict[str, Any] = dict(graph.nodes.items())
    solver: Any = nodes.get("solver")
    schedule: Any = nodes.get("schedule")
    if solver is not None and hasattr(type(schedule), "prediction"):  # a scheduler of another library; progress says the rest
        return {"prediction": schedule.prediction}
    if not hasattr(solver, "prediction"):
        found = "no node solver" if solver is None else f"{solver.block_type} without a node schedule that says what is predicted"
        raise ConfigError(f"{graph.block_id}: has {found}; expected one of wgtorch's own solvers (set_solver), or a schedule/diffusers")
    if schedule is None:
        own = dict(solver.own_schedule)
    else:
        own = {"kind": schedule.block_type.removeprefix("schedule/"), **schedule.config}
    return {"prediction": solver.prediction, "schedule": own}
