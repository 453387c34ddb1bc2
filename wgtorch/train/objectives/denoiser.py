"""The parts of a denoising graph that training needs, found by role or by the names given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.schedules import GridSchedule, build_schedule
from wgtorch.blocks.diffusion.solvers.base import GridSolver
from wgtorch.core import adapter_hook
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.level import Level
from wgtorch.core.run.rng import Rng
from wgtorch.core.tree import walk
from wgtorch.graph import Graph


@dataclass(frozen=True, slots=True)
class Denoiser:
    """What is called on a noised latent.

    Args:
        call: the backbone and all that leads to its conditions, without the loop.
        latent: name of the input that takes the noised latent.
        timestep: name of the input that takes its time.
        graph: the graph it stands in; None for a bare backbone.
    """

    call: Block
    latent: str
    timestep: str
    graph: Graph | None


def denoising_graph(target: Block, at: str | None) -> Block:
    """The graph with a backbone, or the bare backbone, at a path or the only one there is.

    Raises:
        ConfigError: there is none, there are several, or a place on the way does not train.
    """
    if at is not None:
        check_way(target, at)
        return target.find(at) if isinstance(target, Level) else target
    if not isinstance(target, Level) or isinstance(target, Graph):
        return target
    found = {path: graph for path, graph in graphs_in(target) if _backbones(graph)}
    if len({id(graph) for graph in found.values()}) == 1:
        return next(iter(found.values()))
    if not found:
        raise ConfigError(f"denoising: {target.block_id} has no graph with a backbone; expected one with a block of role 'backbone'")
    raise ConfigError(f"denoising: {target.block_id} has several graphs with a backbone; choose one with at: {' or '.join(found)}")


def graphs_in(level: Level) -> Iterator[tuple[str, Graph]]:
    """Graphs at any depth, with their paths."""
    return ((path, child) for path, child, _ in walk(level) if isinstance(child, Graph))


@contextmanager
def adapters_on_the_way(target: Block, place: Block | None, at: str | None) -> Iterator[None]:
    """Inside, the adapters that places on the way to what is called select are active, as in a run of the whole target.

    Args:
        target: a level, or a block, which has no way.
        place: the graph that is called.
        at: its path, or that of a block; the first that leads to it where left out.
    """
    found = graphs_in(target) if isinstance(target, Level) else ()
    path = next((path for path, graph in found if graph is place), "") if at is None else at
    with ExitStack() as stack:
        level: Any = target
        for node_id in path.split("/") if path else ():
            child = level.nodes[node_id]
            context = adapter_hook.hook.context(level.node_specs[node_id].adapter, child, f"{level.block_id}/{node_id}")
            stack.enter_context(context or nullcontext())
            level = child
        yield


def denoiser_of(place: Block, backbone: str | None) -> Denoiser:
    """The part of a graph that predicts once: everything up to the backbone, with the loop cut away.

    Raises:
        ConfigError: there is no backbone, or there are several to choose from.
    """
    if not isinstance(place, Graph):
        if not {"latent", "timestep"} <= set(place.get_input_spec()) or "pred" not in place.get_output_spec():
            raise ConfigError(
                f"denoising: {place.block_id} takes {list(place.get_input_spec())}; expected a backbone, with inputs 'latent' and "
                "'timestep' and an output 'pred', or a graph with one"
            )
        return Denoiser(place, "latent", "timestep", None)
    node = _chosen_backbone(place, backbone)
    ports = (f"{node}.latent", f"{node}.timestep")
    outside = [entry.name for entry in place.exposed_inputs if f"{entry.node_id}.{entry.port_name}" not in ports]
    part = place.select(inputs=[*dict.fromkeys(outside), *ports], outputs=[f"{node}.pred"])
    names = {entry.port_name: entry.name for entry in part.exposed_inputs if entry.node_id == node}
    return Denoiser(part, names["latent"], names["timestep"], place)


def _chosen_backbone(graph: Graph, name: str | None) -> str:
    known = _backbones(graph)
    if name is not None:
        if name not in known:
            raise ConfigError(f"denoising: {graph.block_id} has no backbone at node {name!r}; {suggest(name, known)}")
        return name
    # What feeds only the unconditional side of guidance is the same model at another place.
    without = {edge.source_node for edge in graph.edges if edge.target_port == "pred_uncond"}
    choice = [node for node in known if node not in without] or known
    if len(choice) != 1:
        found = f"several backbones: {choice}; name one as backbone" if choice else "no block of role 'backbone'"
        raise ConfigError(f"denoising: {graph.block_id} has {found}")
    return choice[0]


def _backbones(graph: Graph) -> list[str]:
    return [node_id for node_id, child in graph.nodes.items() if child.role == "backbone"]


def prediction_in(graph: Graph | None) -> str | None:
    """What the graph's solver takes the backbone to predict."""
    found = {child.prediction for child in graph.nodes.values() if isinstance(child, GridSolver)} if graph is not None else set()
    return next(iter(found)) if len(found) == 1 else None


def schedule_in(graph: Graph | None) -> GridSchedule | None:
    """The schedule a graph samples with: of a schedule node, of its noise, else of its solver."""
    if graph is None:
        return None
    for child in graph.nodes.values():
        if isinstance(child, GridSchedule):
            return child
    for child in graph.nodes.values():
        if isinstance(own := getattr(child, "schedule", None), GridSchedule):
            return own
    for child in graph.nodes.values():
        if isinstance(child, GridSolver):
            return build_schedule({"kind": child.schedule_kind, **_own_settings(child)})
    return None


def _own_settings(solver: GridSolver) -> Mapping[str, Any]:
    settings = dict(solver.config.get("schedule") or {})
    if solver.schedule_kind == "flow":
        settings.setdefault("num_train_timesteps", 1)  # timesteps of a flow solver's own grid are sigmas
    return settings


def encoder_in(graph: Graph | None, name: str | None) -> Callable[[Tensor, torch.Generator], Tensor]:
    """What makes latents of pictures: the graph's encoder, its codec where that works both ways, or the codec's counterpart.

    Args:
        graph: to look in; pictures of a bare backbone are its latents, scaled to [-1, 1].
        name: the node to take.

    Raises:
        ConfigError: there is none.
    """
    block = None
    if graph is not None and name is not None:
        block = graph.find(name)
    elif graph is not None:
        ways = [child for child in graph.nodes.values() if child.role in ("encoder", "codec")]
        both = [child for child in ways if "image" in child.get_input_spec() and "latent" in child.get_output_spec()]
        block = both[0] if both else next((_counterpart(child) for child in ways if _counterpart(child) is not None), None)
        if block is None:
            raise ConfigError(
                f"denoising: {graph.block_id} has nothing that makes latents of pictures; add a block of role 'encoder', name one as "
                "encoder, or give batches with 'latent'"
            )
    if block is None:
        return lambda image, generator: image * 2 - 1

    def encode(image: Tensor, generator: torch.Generator) -> Tensor:
        drawn = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        more = {"rng": Rng(drawn, "encode")} if block.wants_rng else {}
        with torch.no_grad():
            return block(image=image, **more)["latent"]

    return encode


def _counterpart(codec: Block) -> Block | None:
    """``encoder/pixels`` for ``codec/pixels``."""
    name = f"encoder/{codec.block_type.removeprefix('codec/')}"
    return BlockRegistry.build({"block_type": name}) if codec.role == "codec" and name in BlockRegistry else None


def check_way(target: Block, path: str) -> None:
    """Refuses a path through a place that does not train."""
    level, way = target, ""
    for part in path.split("/"):
        if not isinstance(level, Level):
            raise ConfigError(f"{path!r}: {level.block_id} is a block and has nothing inside")
        way = f"{way}/{part}" if way else part
        if part not in level.node_specs:
            raise ConfigError(f"{path!r}: {level.block_id} has no node {part!r}; {suggest(part, level.node_specs)}")
        if not level.node_specs[part].trainable:
            raise ConfigError(f"{path!r}: {way} is set not to train; call set_trainable, or take it out of freeze")
        level = level.nodes[part]
