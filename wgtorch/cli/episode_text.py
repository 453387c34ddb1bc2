"""A world's life as a sequence of episodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from wgtorch.core.run.events import Callback
from wgtorch.world import World
from wgtorch.world_runtime.cycle import WorldStep
from wgtorch.world_runtime.state import State


@dataclass(frozen=True, slots=True)
class Episode:
    """What one State tells.

    Args:
        number: of the pass in which it began, from 1.
        state: all that is known of it.
        action: what the user did in that pass.
        seconds: time that its stages took in this run.
    """

    number: int
    state: State
    action: Any = None
    seconds: float = 0.0


def episodes(
    world: World, steps: int, *, actions: Sequence[Any] = (), seed: int | None = None, callbacks: Iterable[Callback] = ()
) -> Iterator[Episode]:
    """Lives on for some passes, and gives each episode when it is told.

    An episode begins in the stage whose contract starts a new State, and is told in the pass after. So that the last
    one is told as well, the stages before that one run once more at the end; the next run goes on after them, and the
    world is the same as if it had never stopped. In a world without such a stage each pass is an episode.

    Args:
        world: the world.
        steps: passes of the cycle.
        actions: one for each pass; nothing is done in those that are left.
        seed: root of all random draws.
        callbacks: told of every event.
    """
    callbacks = tuple(callbacks)
    given = [*actions, *[None] * (steps - len(actions))]
    first = beginning(world)
    current = _in_flight(world, first)
    passes, told = 0, False
    with closing(world.stream(num_steps=steps, action=given, seed=seed, callbacks=callbacks)) as life:
        for step in chain(life, _the_last(world, first, callbacks)):
            if step.kind == "pass":
                if first is None and step.state is not None:
                    yield Episode(step.index + 1, step.state, given[passes])
                passes += 1
            elif first is not None and step.state is not None:
                if step.stage == world.cycle[first] and step.skipped is None:
                    if current is not None and not told:
                        yield current
                    current, told = Episode(step.index + 1, step.state, given[passes], step.elapsed), False
                elif current is not None:
                    current = replace(current, state=step.state, seconds=current.seconds + step.elapsed)
                if current is not None and not told and current.state.complete:
                    yield current
                    told = True
    if current is not None and not told:
        yield current


def beginning(world: World) -> int | None:
    """Place in the cycle of the stage that starts a new State; None where there is none."""
    return next((index for index, stage_id in enumerate(world.cycle) if world.nodes[stage_id].state_contract.new_state), None)


def _in_flight(world: World, first: int | None) -> Episode | None:
    """The episode that a life which goes on is in the middle of."""
    life = world.life
    if life.state is None or first is None:
        return None
    return Episode(life.passes + 1 if life.stage > first else life.passes, life.state)


def _the_last(world: World, first: int | None, callbacks: Sequence[Callback]) -> Iterator[WorldStep]:
    """The stages of the next pass that belong to the episode that the last pass ended in."""
    state = world.state
    if first and state is not None and not state.complete and world.life.stage < first:
        with closing(world.stream(num_steps=1, callbacks=callbacks)) as life:
            yield from islice(life, first - world.life.stage)
