"""A world's past put to use: moments to go back to, forks, differences, and lives lived again."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from wgtorch.core.errors import StateError, StorageError
from wgtorch.core.kinds import describe
from wgtorch.core.run.rng import check_seed
from wgtorch.core.run.run_scope import RunScope
from wgtorch.core.run.start_run import new_run
from wgtorch.storage.base import Life
from wgtorch.storage.commit import Commit
from wgtorch.storage.log import CommitLog
from wgtorch.world_runtime.changes import Change, changes, first_difference
from wgtorch.world_runtime.cycle import run_stage
from wgtorch.world_runtime.runner import WorldRunner
from wgtorch.world_runtime.state import State, copied, holds_something

W = TypeVar("W", bound=WorldRunner)


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of living a part of the past again. True where all of it came out the same, bit for bit.

    Args:
        stages: how many stages ran again.
        difference: the first place where something else came out, as ``pass 3, creator: artifacts.0: ...``; None where nothing did.
        state: the State after the last stage that ran again.
    """

    stages: int
    difference: str | None
    state: State | None

    def __bool__(self) -> bool:
        return self.difference is None

    def __str__(self) -> str:
        if self.difference is None:
            return f"{self.stages} stages came out the same, bit for bit"
        return f"{self.stages} stages ran again; the first difference is at {self.difference}"


def log_of(world: WorldRunner) -> CommitLog:
    """The log that a world's storage keeps.

    Raises:
        StorageError: it keeps none.
    """
    storage = world.history.storage
    if not isinstance(storage, CommitLog):
        raise StorageError(
            f"{world.block_id}: its storage, {type(storage).__name__}, keeps no log of commits, so there are no moments to go back to; "
            "use set_storage({'state_dir': ...}), memory, or a subclass of wgtorch.storage.log.CommitLog"
        )
    return storage


def moment(world: WorldRunner, step: int | None, commit: Commit | str | None) -> Commit:
    """The commit that is meant: that of a step's end, one by its id, or the newest.

    Raises:
        StorageError: there is no such moment.
        StateError: both are given, or a step is no number.
    """
    log = log_of(world)
    if step is not None and commit is not None:
        raise StateError(f"{world.block_id}: step {step} and a commit are given; one of them says where")
    if commit is not None:
        return _by_id(log, commit)
    chain = log.commits()
    if step is None:
        if not chain:
            raise StorageError(f"{world.block_id}: nothing has happened yet; run the world first")
        return chain[-1]
    if isinstance(step, bool) or not isinstance(step, int):
        raise StateError(f"{world.block_id}: step is {describe(step)}; expected the number of a pass, as world.history.steps has them")
    inside = [one for one in chain if step >= 0 and one.life is not None and (step, 0) < (one.passes, one.stage) <= (step + 1, 0)]
    done = [one for one in inside if one.kind == "pass"]
    if inside:
        return (done or inside)[-1]
    known = sorted({one.passes - (one.stage == 0) for one in chain if one.life is not None and (one.passes, one.stage) > (0, 0)})
    raise StorageError(f"{world.block_id}: no step {step} to go back to; there are {known}")


def _by_id(log: CommitLog, commit: Commit | str) -> Commit:
    wanted = commit.id if isinstance(commit, Commit) else str(commit)
    log.head()  # takes in what others wrote
    found = [one for one in log._commits if one.startswith(wanted)] if len(wanted) >= 4 else []
    if len(found) != 1:
        what = f"{len(found)} commits begin so" if found else "there is no such commit"
        raise StorageError(f"{log}: commit {wanted[:40]!r}: {what}; world.commits lists those of the world's past")
    return log._commits[found[0]]


def fork_of(world: W, step: int | None, commit: Commit | str | None, state_dir: str | os.PathLike[str] | None) -> W:
    """A world that shares the past up to a moment and the modules, and owns its future."""
    log = log_of(world)
    made = _sibling(world)
    if state_dir is not None:
        options = {
            name: value for name, value in (world.own_config()["storage"] or {}).items() if name in ("naming_template", "max_snapshots")
        }
        made.set_storage({**options, "state_dir": state_dir})
    is_now = step is None and commit is None
    if is_now and log.head() is None:
        made._life = replace(_own(world.life))
        return made
    found = moment(world, step, commit)
    life = _own(world.life if is_now else log.life_at(found, live=True))
    target = made.history.storage
    log.fork(found, target, life)
    life.cause = {}
    made._life = life
    return made


def _own(life: Life) -> Life:
    """The same moment as the beginning of another life; tensors are shared, as no stage changes them in place."""
    return Life(copied(dict(life.content)), life.state, life.passes, life.stage, life.seed)


def _sibling(world: W) -> W:
    """A world of the same stages, each the same module."""
    made = type(world)(world.block_id, metadata=copy.deepcopy(world.metadata))
    for stage_id, stage in world.nodes.items():
        made.nodes.put(stage_id, stage)
        made._node_specs[stage_id] = world.node_specs[stage_id]
    made._changed()
    made.training = world.training
    made._cycle, made._schema = world.cycle, world.state_schema
    made._initial = copied(world._initial)
    made._life = Life(copied(world._initial))
    return made


def rewind_to(world: WorldRunner, step: int | None, commit: Commit | str | None) -> None:
    """Takes a world back to a moment of its past."""
    log = log_of(world)
    if step is None and commit is None:
        raise StateError(f"{world.block_id}: rewind needs a step, as world.history.steps has them, or a commit of world.commits")
    found = moment(world, step, commit)
    life = log.life_at(found, live=True)
    head = log.head()
    life.id = world.life.id if head is None or head.life is None else head.life
    with hold(log):
        log.rewind(found, life)
    life.cause = {}
    world._life, world._failed = life, None


def hold(storage: Any) -> Any:
    """Holds a storage, unless a run of this process that is paused between two stages does so."""
    from contextlib import nullcontext

    return nullcontext() if getattr(storage, "is_held", False) else storage.hold()


def differences(world: WorldRunner, first: int | Commit | str, second: int | Commit | str) -> list[Change]:
    """What differs between two moments: slots of the State by name, and the content as ``content.<field>``."""
    return changes(_told(world, first), _told(world, second))


def _told(world: WorldRunner, place: int | Commit | str) -> dict[str, Any]:
    log = log_of(world)
    if isinstance(place, int) and not isinstance(place, bool) and place in log.steps():
        state, content = log.read(place)
    else:
        life = log.life_at(moment(world, place, None) if isinstance(place, int) else moment(world, None, place))
        state, content = life.state if life.state is not None else State(schema=world.state_schema), dict(life.content)
    return {**{slot: value for slot, value in state.items() if holds_something(value)}, "content": content}


def lived_again(world: WorldRunner, step: int | None) -> Replay:
    """Runs the stages of a step's pass, or of all the past, from what the log says was before them, and compares what comes out."""
    log = log_of(world)
    chain = log.commits()
    if step is not None:
        moment(world, step, None)  # says which there are
    count, state = 0, None
    for commit in chain:
        before = log._commits.get(commit.parent or "")
        if commit.kind != "stage" or before is None or (step is not None and before.passes != step) or not log.has_body(before):
            continue
        life, expected = log.life_at(before), log.life_at(commit)
        run = new_run(world.block_id, seed=None)
        run.key = check_seed(life.seed, world.block_id)
        stage_id = world.cycle[life.stage]
        given = life.state if life.state is not None else State(schema=world.state_schema)
        with RunScope(world, run, None):
            state, content, _ = run_stage(world, stage_id, given, log.action_of(commit), life.content, run.iteration(life.passes))
        count += 1
        found = first_difference(_slots(expected.state), _slots(state)) or first_difference(
            dict(expected.content), dict(content), "content"
        )
        if found is not None:
            return Replay(count, f"pass {life.passes}, {stage_id}: {found}", state)
    if not count:
        raise StorageError(f"{world.block_id}: nothing of {'its past' if step is None else f'step {step}'} is kept that could run again")
    return Replay(count, None, state)


def _slots(state: State | None) -> Mapping[str, Any]:
    return {} if state is None else {slot: value for slot, value in state.items() if holds_something(value)}
