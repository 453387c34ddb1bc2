"""Another solver for a graph: schedule and solver change together, and what the model was trained for is kept."""

from __future__ import annotations

from typing import Any

from wgtorch.blocks.diffusion.solvers.flow import FlowSolver
from wgtorch.core.block_registry import BlockRegistry
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.graph import Graph, SolverChanges
from wgtorch.integrations.diffusers.families import FAMILIES
from wgtorch.integrations.diffusers.schedulers import make_scheduler, scheduler_class, scheduler_names
from wgtorch.integrations.diffusers.translation import CLASSES, blocks_for, scheduler_for, told_eta

_IN_BETWEEN = ("settings",)
"""Nodes that tell a schedule more than its inputs, for one scheduler and not for another."""


def set_solver(graph: Graph, solver: str, **config: Any) -> None:
    """Puts another solver in a graph, with the schedule that it wants.

    What the model was trained for - its betas, what it predicts, spacing, offset, shift - is taken over, as
    ``Scheduler.from_config(pipeline.scheduler.config)`` of diffusers does it, so that the result equals the pipeline with that scheduler.

    Args:
        graph: with the nodes ``schedule`` and ``solver``, or ``solver`` alone where it is one of a flow with steps of its own.
        solver: one of ours (``solver/dpmpp_2m``), or a scheduler of diffusers (``DPMSolverMultistepScheduler``).
        config: settings of the scheduler that are to be others (``use_karras_sigmas=True``).

    Raises:
        ConfigError: there is no such solver for the graph's schedule, or the two do not fit.
    """
    if "schedule" not in graph.nodes and isinstance(walks := graph.nodes._modules.get("solver"), FlowSolver):
        _set_flow_solver(graph, walks, solver, config)
        return
    if missing := [name for name in ("schedule", "solver") if name not in graph.nodes]:
        raise ConfigError(f"set_solver: {graph.block_id} has no node {', '.join(missing)}; expected both, or a solver/flow_... alone")
    own, walks = graph.nodes["schedule"], graph.nodes["solver"]
    kind = type(getattr(graph.nodes["backbone"], "model", None)).__name__ if "backbone" in graph.nodes else ""
    is_even = any(family.is_even and kind in family.parts[family.model].classes for family in FAMILIES)
    now, settings = scheduler_for(own, walks, is_even=is_even, asked_by="set_solver")
    is_flow = own.block_type == "schedule/flow" or now.startswith("Flow") or bool(settings.get("use_flow_sigmas"))
    known = CLASSES["schedule/flow" if is_flow else "schedule/diffusion"]
    if solver in known:
        name, more = known[solver]
    elif solver in scheduler_names():
        name, more = solver, {}
    else:
        raise ConfigError(
            f"set_solver: {solver!r} walks no {'flow' if is_flow else 'diffusion'}; {suggest(solver, [*known, *scheduler_names()])}"
        )
    made: Any = scheduler_class(name)
    unsaid = graph.metadata.get("scheduler_defaults") or ()
    said = {key: value for key, value in settings.items() if key not in unsaid}
    taken = made.from_config(make_scheduler(now, said).config, **{**more, **config}).config
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in taken.items() if not key.startswith("_")}
    steps = own.config["num_steps"]
    patch = walks.config.get("patch", 1)
    schedule, walk = blocks_for(name, plain, steps, is_flow=is_flow, is_even=is_even, patch=patch, asked_by="set_solver")
    wrapped = [block.block_type == "schedule/diffusers" for block in (own, schedule)]
    if wrapped[0] != wrapped[1] and (is_even or plain.get("use_dynamic_shifting") or any(node in graph.nodes for node in _IN_BETWEEN)):
        raise ConfigError(
            f"set_solver: {name} is told its settings by another node than {now} is; make the graph of a pipeline with that scheduler: "
            f"pipeline.scheduler = diffusers.{name}.from_config(pipeline.scheduler.config)"
        )
    graph.metadata["scheduler_defaults"] = sorted(taken.get("_use_default_values", ()))
    graph.replace_node("schedule", schedule)
    takes_eta = "eta" in walk.get_input_spec() and "from_diffusers" in graph.metadata and not is_flow
    walk, given = told_eta(walk) if takes_eta else (walk, {})
    graph.replace_node("solver", walk)
    if takes_eta:
        graph.configure_node("solver", inputs=given)
        graph.expose_input("solver", "eta")


def _set_flow_solver(graph: Graph, now: FlowSolver, solver: str, config: dict[str, Any]) -> None:
    """Of a graph whose solver has its steps of itself: another solver of a flow over the same steps."""
    known = [name for name in BlockRegistry.names() if name.startswith("solver/flow_")]
    if solver not in known:
        raise ConfigError(
            f"set_solver: {graph.block_id} has no node schedule, so its solver has its steps of itself, as those of a flow do; "
            f"{suggest(solver, known)}"
        )
    graph.replace_node("solver", BlockRegistry.build({"block_type": solver, "config": {**now.config, **config}}))


SolverChanges.register("diffusers", set_solver)
