"""How a world's cycle goes round: one stage at a time, over a State and the world's content."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from wgtorch.core import adapter_hook
from wgtorch.core.kinds import brief
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.detached_twin import call_detached
from wgtorch.core.run.dry_run import DryRun, dry_run_of
from wgtorch.core.run.error_paths import locate
from wgtorch.core.structure import Node
from wgtorch.storage.base import Life
from wgtorch.world_runtime.state import State


@dataclass(slots=True, repr=False)
class WorldStep:
    """What a world's stream tells.

    Args:
        kind: ``stage`` or ``pass``.
        index: number of the pass, from 0 at the world's beginning.
        stage: id of the stage; None for a pass.
        state: the State after it.
        content: the world's content after it.
        skipped: why the stage did not run; None when it did.
        stored: the name under which a complete state was stored in this stage.
        applied: the complete state that was applied to the content in this stage.
        elapsed: seconds.
    """

    kind: str
    index: int
    stage: str | None
    state: State | None
    content: Mapping[str, Any]
    skipped: str | None = None
    stored: str | None = None
    applied: State | None = None
    elapsed: float = 0.0

    __repr__ = brief


class CycleHost(Protocol):
    """What the cycle needs of a world."""

    @property
    def nodes(self) -> Any:
        """Stages by id."""

    @property
    def node_specs(self) -> Mapping[str, Node]:
        """What is true of each stage's place, by id."""

    @property
    def cycle(self) -> tuple[str, ...]:
        """Stage ids in the order they run."""

    @property
    def state_schema(self) -> tuple[str, ...]:
        """Names of the State's slots."""

    def store(self, state: State, content: Mapping[str, Any]) -> str:
        """Keeps a complete state."""


def advance(world: CycleHost, life: Life, action: Any, run: RunContext) -> WorldStep:
    """Runs the stage that is next and moves the life past it; on an error the life is as it was."""
    stage_id = world.cycle[life.stage]
    state = life.state if life.state is not None else State(schema=world.state_schema)
    started = time.perf_counter()
    after, content, skipped = run_stage(world, stage_id, state, action, life.content, run.iteration(life.passes))
    applied = content is not life.content and state.complete
    stored = world.store(state, content) if applied else None
    if not applied and _ends_unstored(world, life, after):
        stored = world.store(after, content)
    life.state, life.content, life.stage = after, content, life.stage + 1
    return WorldStep(
        "stage", life.passes, stage_id, after, content, skipped, stored, state if applied else None, time.perf_counter() - started
    )


def one_pass(world: CycleHost, state: State, action: Any, content: Mapping[str, Any], run: RunContext) -> tuple[State, Mapping[str, Any]]:
    """All stages once, with nothing stored: the State and the content after."""
    for stage_id in world.cycle:
        state, content, _ = run_stage(world, stage_id, state, action, content, run)
    return state, content


def run_stage(
    world: CycleHost, stage_id: str, state: State, action: Any, content: Mapping[str, Any], run: RunContext
) -> tuple[State, Mapping[str, Any], str | None]:
    """One stage: the State after, the content after, and why it was skipped."""
    stage = world.nodes[stage_id]
    run.check(stage_id)
    skipped = stage.why_skipped(state)
    if skipped is not None:
        run.emit("skip", stage_id, stage.level, reason=skipped)
        return state, content, skipped
    inner = run.child(stage_id)
    given = {"state": state, "action": action, "content": content}
    started = time.perf_counter() if run.options.callbacks else 0.0
    try:
        if run.options.callbacks:
            run.emit("start", stage_id, stage.level, inputs=given)
        outputs = _outputs(world, stage_id, stage, inner, given)
        if run.options.callbacks:
            run.emit("end", stage_id, stage.level, inputs=given, outputs=outputs, elapsed=time.perf_counter() - started)
    except Exception as error:
        if run.options.callbacks:
            run.emit("error", stage_id, stage.level, inputs=given, error=error, elapsed=time.perf_counter() - started)
        locate(error, stage_id, below=True)
        raise
    return outputs["state"], outputs["content"], None


def _outputs(world: CycleHost, stage_id: str, stage: Any, inner: RunContext, given: Mapping[str, Any]) -> dict[str, Any]:
    values = {"action": given["action"], "content": given["content"], "run_context": inner}
    place = world.node_specs[stage_id]
    with adapter_hook.hook.context(place.adapter, stage, stage_id) or nullcontext():
        if place.trainable or not torch.is_grad_enabled():
            state = stage(given["state"], **values)
        else:
            state = call_detached(stage, (given["state"],), values)
    return {"state": state, "content": inner.content}


def _ends_unstored(world: CycleHost, life: Life, after: State) -> bool:
    """True at the end of a pass with a complete state, in a world where no stage updates the content."""
    is_last = life.stage == len(world.cycle) - 1
    return is_last and after.complete and not any(stage.state_contract.writes_content for stage in world.nodes.values())


def stages_that_tell(world: CycleHost) -> int:
    """How many stages at the beginning of a cycle neither read the action nor begin an episode nor change what the world is."""
    for index, stage_id in enumerate(world.cycle):
        contract = world.nodes[stage_id].state_contract
        if contract.new_state or contract.writes_content or any(source.split(".")[0] == "action" for source in contract.reads.values()):
            return index
    return 0  # nothing is asked for that could wait for the telling


def dry_run_of_cycle(world: Any, run: RunContext) -> DryRun:
    """What a pass would do with all stages in it: their dry runs, one after the other."""
    reports = []
    for stage_id in world.cycle:
        stage = world.nodes[stage_id]
        reports.append(dry_run_of(stage, dict.fromkeys(stage.get_input_spec()), run.child(stage_id), fake=False))
    return DryRun(
        order=tuple(path for report in reports for path in report.order),
        findings=tuple(found for report in reports for found in report.findings),
        api_calls=sum(report.api_calls for report in reports),
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*world.parameters(), *world.buffers())),
    )
