"""What a person does when a stage failed, or displeases: edit, skip, retry, another action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from wgtorch.core.errors import PythonAdvice, StateError
from wgtorch.core.kinds import describe
from wgtorch.core.run.result_cache import is_same
from wgtorch.storage.log import CommitLog
from wgtorch.world_runtime.past import hold, log_of, rewind_to
from wgtorch.world_runtime.runner import WorldRunner
from wgtorch.world_runtime.state import State


def edit(world: WorldRunner, content: Mapping[str, Any] | None, slots: Mapping[str, Any]) -> None:
    """Changes slots of the State in flight and fields of the content; goes back to the first stage that made something of them."""
    world.check_chosen_place()
    world.check_own_storage()
    if content is not None and not isinstance(content, Mapping):
        raise StateError(f"{world.block_id}: content is {describe(content)}; expected a mapping of the fields to change")
    life = world.life
    state = life.state if life.state is not None else State(schema=world.state_schema)
    state = state.replace(**slots)
    for stage in world.nodes.values():
        state = stage.normalised(state)
    passes, place = (life.passes, life.stage) if life.stage or not life.passes else (life.passes - 1, len(world.cycle))
    again = _to_run_again(world, set(slots), place)
    if again is not None:
        written = {slot for stage_id in world.cycle[again:place] for slot in _roots(world.nodes[stage_id].state_contract.writes)}
        state = state.replace(**dict.fromkeys((written & set(state.schema)) - set(slots)))
        life.passes, life.stage = passes, again
    life.state = state
    if content is not None:
        life.content = {**life.content, **content}
    _keep(world, "edit")


def _to_run_again(world: WorldRunner, edited: set[str], place: int) -> int | None:
    """The first stage of the episode, before a place in the cycle, that read what was edited and wrote something else."""
    contracts = [world.nodes[stage_id].state_contract for stage_id in world.cycle[:place]]
    begins = max((index + 1 for index, contract in enumerate(contracts) if contract.new_state), default=0)
    for index in range(begins, place):
        reads, writes = _roots(contracts[index].reads.values()), _roots(contracts[index].writes)
        if reads & edited and writes - edited:
            return index
    return None


def skip(world: WorldRunner) -> None:
    """Moves a world past the stage that is next, which does not run in this pass."""
    world._require_cycle()
    world.check_chosen_place()
    world.check_own_storage()
    life = world.life
    if life.stage >= len(world.cycle):
        raise StateError(f"{world.block_id}: all stages of pass {life.passes} are through; run() begins the next")
    stage_id = world.cycle[life.stage]
    life.stage += 1
    _keep(world, "skip", stage=stage_id)


def retry(world: WorldRunner, seed: int | None, options: Mapping[str, Any]) -> Any:
    """Runs the call that failed again, from the stage that failed; or, where none did, the last stage that ran, with other draws."""
    request = world._failed
    if request is not None:
        return world.run(request.state, action=list(request.actions), num_steps=len(request.actions), seed=seed, **options)
    log = log_of(world)
    chain = log.commits()
    ran = next((one for one in reversed(chain) if one.kind == "stage" and not _was_skipped(log, one)), None)
    if ran is None or ran.parent is None:
        raise StateError(f"{world.block_id}: no stage has run that could run again; run the world first")
    action = log.action_of(ran)
    rewind_to(world, None, ran.parent)
    return world.run(action=action, seed=int(torch.randint(2**62, ()).item()) if seed is None else seed, **options)


def _was_skipped(log: CommitLog, commit: Any) -> bool:
    return any(trace.get("skipped") is not None for trace in log.traces_of(commit))


def back_for_action(world: WorldRunner, action: Any) -> bool:
    """Takes a world that stopped inside a pass back to the stage that reads the action, where it ran with another one.

    Returns:
        True when it went back.
    """
    life, storage = world.life, world.history.storage
    if action is None or not life.stage or not isinstance(storage, CommitLog):
        return False
    for commit in reversed(storage.commits()):
        if (commit.passes, commit.stage) <= (life.passes, 0) or commit.parent is None:
            return False
        if commit.kind != "stage" or commit.ran is None or commit.ran not in world.nodes:
            continue
        if reads_action(world.nodes[commit.ran]) and not _was_skipped(storage, commit):
            if is_same(storage.action_of(commit), action):
                return False
            rewind_to(world, None, commit.parent)
            return True
    return False


def advice(world: WorldRunner, stage_id: str) -> tuple[str, str]:
    """Where a world stopped, and what helps it; for the notes of its error."""
    life = world.life
    reads = _roots(world.nodes[stage_id].state_contract.reads.values())
    slots = [slot for slot in world.state_schema if slot in reads]
    ways = ["world.retry(), or the same call, to run it again"]
    if slots:
        ways.append(f"world.edit({', '.join(f'{slot}=...' for slot in slots)}) to change what it reads")
    ways.append("world.skip() to go on without it")
    if any(reads_action(world.nodes[one]) for one in world.cycle[: life.stage + 1]):
        ways.append("world.run(action=...) for another action in this pass")
    ways += ["world.run(seed=...) for other draws", "world.run(State(...)) for another episode"]
    assurance = "all before it is kept, and no answer that was paid for is asked for again unless its request changed"
    where = f"{world.block_id} stopped at pass {life.passes}, stage {stage_id!r}; {assurance}."
    return where, PythonAdvice(f"To go on: {'; '.join(ways)}.")


def reads_action(stage: Any) -> bool:
    """True for a stage that is told what the user does."""
    return "action" in _roots(stage.state_contract.reads.values())


def _roots(names: Any) -> set[str]:
    return {str(name).split(".")[0] for name in names}


def _keep(world: WorldRunner, kind: str, **cause: Any) -> None:
    with hold(world.history.storage):
        world._keep_life(kind, **cause)
