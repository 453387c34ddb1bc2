"""The parts of a denoising graph that training needs, found by role or by the names given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.diffusion.schedules import DiffusionSchedule, FlowSchedule, GridSchedule, build_schedule
from wgtorch.blocks.diffusion.solvers.base import GridSolver
from wgtorch.core import adapter_hook
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.level import Level
from wgtorch.core.run.rng import Rng
from wgtorch.core.tree import walk
from wgtorch.graph import Graph
from wgtorch.train.frozen_outputs import FrozenOutputs, content_hash, tensors_of
from wgtorch.train.objectives.frozen_head import FrozenHead, frozen_head


@dataclass(frozen=True, slots=True)
class Denoiser:
    """What is called on a noised latent.

    Args:
        call: the backbone and all that leads to its conditions, without the loop.
        latent: name of the input that takes the noised latent.
        timestep: name of the input that takes its time.
        graph: the graph it stands in; None for a bare backbone.
        head: what of it is frozen and the same for a sample in every step, with the rest of it; None where there is nothing of the kind.
    """

    call: Block
    latent: str
    timestep: str
    graph: Graph | None
    head: FrozenHead | None = None

    def predict(self, values: Mapping[str, Any], cache: FrozenOutputs | None = None) -> Tensor:
        """What the backbone predicts: ``call`` of its inputs by name, with what is frozen taken from a cache."""
        if cache is not None and cache.prompts and self.head is not None:
            values_of_head = self.head.outputs(values, len(values[self.latent]), cache)
            if values_of_head is not None:
                return self.head.rest(**{name: value for name, value in values.items() if name in self.head.of_rest}, **values_of_head)[
                    "pred"
                ]
        return self.call(**values)["pred"]


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


def path_of(target: Block, place: Block | None) -> str:
    """The first path that leads from a target to a graph in it."""
    return next((path for path, graph in graphs_in(target) if graph is place), "") if isinstance(target, Level) else ""


@contextmanager
def adapters_on_the_way(target: Block, place: Block | None, at: str | None) -> Iterator[None]:
    """Inside, the adapters that places on the way to what is called select are active, as in a run of the whole target.

    Args:
        target: a level, or a block, which has no way.
        place: the graph that is called.
        at: its path, or that of a block; the first that leads to it where left out.
    """
    path = path_of(target, place) if at is None else at
    with ExitStack() as stack:
        level: Any = target
        for node_id in path.split("/") if path else ():
            child = level.nodes[node_id]
            context = adapter_hook.hook.context(level.node_specs[node_id].adapter, child, f"{level.block_id}/{node_id}")
            stack.enter_context(context or nullcontext())
            level = child
        yield


def denoiser_of(place: Block, backbone: str | None, *, learned: Collection[int] = (), guided: bool = False) -> Denoiser:
    """The part of a graph that predicts once: everything up to the backbone, with the loop cut away.

    Args:
        place: the graph, or a bare backbone.
        backbone: its node.
        learned: ``id`` of the parameters that learn: what has one of them is computed in every step.
        guided: what only guidance needs, as the empty prompt's condition, is computed too.

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
    part = _without_loop(part, names["latent"], names["timestep"], guided)
    return Denoiser(part, names["latent"], names["timestep"], place, frozen_head(part, set(learned), set(names.values())))


EMBEDDINGS = {"prompt_embeds": "embedding", "pooled_prompt_embeds": "pooled"}
"""Keys of a batch, as diffusers' pipelines call them, and the ports that take them in place of what text encoders make."""


def with_embeddings(denoiser: Denoiser, given: Collection[str]) -> Denoiser:
    """The denoiser with embeddings of prompts as inputs, under those keys of :data:`EMBEDDINGS`, and without text encoders for them.

    Raises:
        ConfigError: the graph has no place for one.
    """
    if not isinstance(denoiser.call, Graph):
        raise ConfigError(
            f"denoising: {denoiser.call.block_id} is a bare backbone and takes no {', '.join(sorted(given))}; give its 'condition'"
        )
    part = denoiser.call.select(outputs=["pred"])
    nodes = [node for node, block in part.nodes.items() if getattr(block, "only_guided", ())]
    for key in given:
        taken = [edge for edge in part.edges if edge.target_node in nodes and edge.target_port == EMBEDDINGS[key]]
        if not taken:
            raise ConfigError(f"denoising: {denoiser.call.block_id} has no place for {key!r}; leave it out of the data")
        for edge in taken:
            part.remove_edge(edge.source_node, edge.source_port, edge.target_node, edge.target_port)
            part.expose_input(edge.target_node, edge.target_port, key)
    return replace(denoiser, call=part.select(outputs=["pred"]), head=None)


def guidance_offset(call: Block) -> float:
    """What the graph adds to a guidance scale before 1 means none: 1 where a pipeline counts it from 0."""
    nodes = call.nodes.values() if isinstance(call, Graph) else ()
    return next((block.offset for block in nodes if hasattr(block, "only_guided") and hasattr(block, "offset")), 0.0)


_LOOP = ("noise", "solver", "schedule", "guidance")
_LATENTS, _TIMES = ("latent", "next_latent"), ("timestep", "next_timestep")


def _without_loop(part: Graph, latent: str, timestep: str, guided: bool) -> Graph:
    """The part with what else the loop would feed fed by the noised latent and its time, and without what only guidance needs.

    How far a loop has come (``progress``), which a ControlNet asks for, is not said: one prediction is none of its iterations.
    """
    for edge in part.edges:
        source, target = part.nodes[edge.source_node], part.nodes[edge.target_node]
        loops = source.role in _LOOP or getattr(source, "block_type", "") == "diffusers/repeat"
        given = latent if edge.source_port in _LATENTS else timestep if edge.source_port in _TIMES else None
        if loops and given is not None:
            part.remove_edge(edge.source_node, edge.source_port, edge.target_node, edge.target_port)
            part.expose_input(edge.target_node, edge.target_port, given)
        elif (loops and edge.target_port == "progress") or (not guided and edge.target_port in getattr(target, "only_guided", ())):
            part.remove_edge(edge.source_node, edge.source_port, edge.target_node, edge.target_port)
    return part.select(outputs=["pred"])


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
    """What the graph's solver, or a foreign scheduler, takes the backbone to predict."""
    blocks: list[Any] = [] if graph is None else list(graph.nodes.values())
    found = {child.prediction for child in blocks if isinstance(child, GridSolver) or hasattr(type(child), "trained_schedule")}
    return next(iter(found)) if len(found) == 1 else None


def schedule_in(graph: Graph | None) -> GridSchedule | None:
    """The schedule a graph samples with: of a schedule node, of its noise, else of its solver."""
    if graph is None:
        return None
    for child in graph.nodes.values():
        if isinstance(child, GridSchedule):
            return child
    for child in graph.nodes.values():
        if isinstance(own := getattr(child, "schedule", getattr(child, "trained_schedule", None)), GridSchedule):
            return own
    for child in graph.nodes.values():
        if isinstance(child, GridSolver):
            return build_schedule({"kind": child.schedule_kind, **_own_settings(child)})
    return None


def check_as_sampled(graph: Graph | None, prediction: str | None, schedule: GridSchedule | None) -> None:
    """Refuses to teach a model what its graph does not sample it as.

    Args:
        graph: it stands in.
        prediction: that the settings say; None where they leave it to the graph.
        schedule: the same.

    Raises:
        ConfigError: the graph's solver or schedule says another prediction, levels of noise or timesteps; names both.
    """
    found = []
    try:
        own = None if prediction is None else prediction_in(graph)
    except ConfigError:  # a foreign scheduler that does not say
        own = None
    if own is not None and own != prediction:
        found.append(f"prediction {prediction!r}, where its solver takes {own!r}")
    sampled = None if schedule is None else schedule_in(graph)
    if schedule is not None and sampled is not None and not _is_noised_alike(schedule, sampled):
        found.append(f"a schedule of {_in_words(schedule)}, where it is sampled with {_in_words(sampled)}")
    if found and graph is not None:
        raise ConfigError(
            f"denoising: {graph.block_id} would be taught {' and '.join(found)}, so its pictures would not be what it learned. Take "
            "objective=denoising, which reads both from the graph (objective.prediction=null objective.schedule=null); a model that is to "
            "predict something else than before needs a graph, or a scheduler_config.json in its folder, that says so"
        )


def _is_noised_alike(schedule: GridSchedule, other: GridSchedule) -> bool:
    """Both noise data by the same levels, and tell a model the same timesteps."""
    if isinstance(schedule, DiffusionSchedule) and isinstance(other, DiffusionSchedule):
        levels, others = schedule.layout.alpha_bars, other.layout.alpha_bars
        return len(levels) == len(others) and bool(abs(levels - others).max() < 1e-4)
    if isinstance(schedule, FlowSchedule) and isinstance(other, FlowSchedule):
        return schedule.scale == other.scale
    return type(schedule) is type(other)


def _in_words(schedule: GridSchedule) -> str:
    if isinstance(schedule, DiffusionSchedule):
        return f"noise in {schedule.train_timesteps} timesteps ({schedule.config['beta_schedule']})"
    return f"a flow with timesteps to {schedule.scale}" if isinstance(schedule, FlowSchedule) else repr(schedule.block_type)


def _own_settings(solver: GridSolver) -> Mapping[str, Any]:
    settings = dict(solver.config.get("schedule") or {})
    if solver.schedule_kind == "flow":
        settings.setdefault("num_train_timesteps", 1)  # timesteps of a flow solver's own grid are sigmas
    return settings


def encoder_in(graph: Graph | None, name: str | None) -> Callable[..., Tensor]:
    """What makes latents of pictures: the graph's encoder, its codec where that works both ways, or the codec's counterpart.

    It is called with pictures, a generator, and a cache or None. Of an encoder that draws from a posterior the mean and deviation
    are kept, and drawn from anew.

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
        return lambda image, generator, cache=None: image * 2 - 1

    def encode(image: Tensor, generator: torch.Generator, cache: FrozenOutputs | None = None) -> Tensor:
        keeps = cache is not None and cache.latents and any(True for _ in block.parameters())
        if posterior := getattr(block, "posterior", None):
            with torch.no_grad():
                found = _kept(block, image, cache, posterior) if keeps else posterior(image)
            noise = torch.randn(found["mean"].shape, generator=generator, dtype=found["mean"].dtype, device=found["mean"].device)
            return found["mean"] + found["deviation"] * noise
        if keeps and not block.wants_rng and not block.uses_global_rng:
            return _kept(block, image, cache, lambda one: {"latent": block(image=one)["latent"]})["latent"]
        drawn = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        more = {"rng": Rng(drawn, "encode")} if block.wants_rng else {}
        with torch.no_grad():
            return block(image=image, **more)["latent"]

    return encode


def _kept(block: Block, image: Tensor, cache: Any, compute: Callable[[Tensor], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of each picture, from the cache: what a picture shows is its key, so a file, crop or flip that changes has another."""
    weights, rows = cache.weights_of(tensors_of([block])), []
    for one in image.split(1):
        key = content_hash("latent", block.block_type, block.config, weights, one)
        rows.append(cache.get(key, lambda one=one: compute(one), image.device))
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


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
