"""How many iterations the loops of a run take, as its caller says: one number for all, or one for each loop by a node of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from wgtorch.core.errors import PortError, PortTypeError
from wgtorch.core.kinds import describe
from wgtorch.core.plan import Loop, calls_of
from wgtorch.core.tree import is_level, walk

LoopSteps = int | Mapping[tuple[str, ...], int]
"""For every loop, or by the path of a node."""


def check_loop_steps(given: Any, where: str) -> LoopSteps | None:
    """What a caller says of iterations, paths as tuples.

    Raises:
        PortTypeError: it is no whole number from 1, nor a mapping of such numbers by path.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        for path, steps in given.items():
            if not isinstance(path, str) or not _is_count(steps):
                raise PortTypeError(
                    f"{where}: num_loop_steps holds {path!r}: {steps!r}; expected a whole number from 1 by the path of a node in a loop, "
                    "as {'solver': 20, 'refine/solver': 8}"
                )
        return {tuple(path.split("/")): steps for path, steps in given.items()}
    if not _is_count(given):
        raise PortTypeError(
            f"{where}: num_loop_steps is {describe(given)}; expected a whole number from 1, or one for each loop by a node of it, "
            "as {'solver': 20}"
        )
    return given


def loops_below(level: Any) -> dict[tuple[str, ...], Loop] | None:
    """The loops of a level and of all below, by the path of each of their nodes; None where some of it is at another endpoint."""
    found = {(): level, **{tuple(path.split("/")): child for path, child, _ in walk(level) if is_level(child)}}
    if any(each.remote for each in found.values()):
        return None
    loops = {path: [step for step in each.plan().steps if isinstance(step, Loop)] for path, each in found.items()}
    return {(*path, node): loop for path, through in loops.items() for loop in through for node in loop.nodes}


def check_loops_are_there(level: Any, given: LoopSteps, loops: Mapping[tuple[str, ...], Loop] | None) -> None:
    """Refuses numbers of iterations that no loop would take.

    Args:
        level: what runs.
        given: what the caller says.
        loops: what :func:`loops_below` gave.

    Raises:
        PortError: there is no loop, a path names no node of one, or two numbers are for one loop; names the loops there are.
    """
    if loops is None or (loops and isinstance(given, int)):
        return
    known = f"loops go through {', '.join(sorted({'/'.join(path) for path in loops}))}" if loops else "there is no loop in it"
    if isinstance(given, int):
        raise PortError(f"{level.block_id}: num_loop_steps is {given}, and {known}; leave it out")
    told: dict[Any, int] = {}
    for path, steps in given.items():
        if path not in loops:
            raise PortError(f"{level.block_id}: num_loop_steps for {'/'.join(path)!r}, which is in no loop; {known}")
        if told.setdefault((path[:-1], loops[path].nodes), steps) != steps:
            raise PortError(f"{level.block_id}: num_loop_steps has two numbers for the loop through {', '.join(loops[path].nodes)}")


def below(given: LoopSteps | None, node_id: str) -> LoopSteps | None:
    """What is said of the loops inside a child."""
    if type(given) is not dict:
        return given
    return {path[1:]: steps for path, steps in given.items() if path[0] == node_id and len(path) > 1} or None


def steps_here(given: LoopSteps | None, nodes: tuple[str, ...]) -> int | None:
    """What is said of the loop through these nodes."""
    if type(given) is not dict:
        return given  # type: ignore[return-value]
    return next((steps for path, steps in given.items() if len(path) == 1 and path[0] in nodes), None)


def as_plain(given: LoopSteps | None) -> Any:
    """As users write it."""
    return {"/".join(path): steps for path, steps in given.items()} if isinstance(given, Mapping) else given


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def loop_steps(composite: Any, step: Loop, run: Any) -> int | None:
    """How many iterations a loop takes: the call's word, else the metadata's, else its nodes'; None until ``done``."""
    stated = _stated(composite, step, run)
    if stated is not None:
        if not isinstance(stated, int) or stated < 1:
            raise PortError(f"the loop through {', '.join(step.nodes)}: num_loop_steps is {stated!r}; expected a whole number from 1")
        return stated
    children = composite.nodes._modules
    own = {call.node: told for call, _ in calls_of(step.body) if (told := children[call.key].num_loop_steps) is not None}
    if len(set(own.values())) == 1:
        return next(iter(own.values()))
    if not own and step.done:
        return None
    found = f"its nodes disagree: {own}" if own else "neither the call, the metadata nor a node of the loop says how many"
    raise PortError(
        f"the loop through {', '.join(step.nodes)} has no number of iterations: {found}. "
        "Pass num_loop_steps=, or set metadata['num_loop_steps']."
    )


def _stated(composite: Any, step: Loop, run: Any) -> Any:
    """What the call says of a loop, else the metadata."""
    told = None if run is None else steps_here(run.num_loop_steps, step.nodes)
    return composite.metadata.get("num_loop_steps") if told is None else told


def check_end(composite: Any, step: Loop, run: Any, made: int, is_done: bool) -> None:
    """Warns where a loop took another number of iterations than the schedule that it walks has: cut short, or over before the number.

    Nothing is said of a number that only its nodes have, as of a solver that begins in the middle of its schedule.

    Args:
        composite: whose loop it is.
        step: the loop, which can end by ``done``.
        run: the run; None where there is none.
        made: iterations that were made.
        is_done: the last one was the schedule's last.
    """
    if (total := _stated(composite, step, run)) is None:
        return
    children = composite.nodes._modules
    ending = [children[call.key] for call, _ in calls_of(step.body) if any(slot in step.done for _, slot in call.store)]
    if (is_done and made == total) or torch.compiler.is_compiling() or not any(child.walks_schedule for child in ending):
        return
    inputs = [repr(entry.name) for entry in composite.exposed_inputs if entry.port_name == "num_steps"]
    mend = f"give the input {' or '.join(inputs)}" if inputs else "set num_steps of the schedule or the solver"
    cut = "was cut before its schedule's end, so what it gives is half done"
    found = f"ended after {made}, where its schedule does" if is_done else cut
    warnings.warn(
        f"{composite.block_id}: num_loop_steps is {total}, and the loop through {', '.join(step.nodes)} {found}. It counts iterations, and "
        f"makes no schedule of that many steps: for that {mend}, and leave num_loop_steps out",
        stacklevel=2,
    )
