"""What evaluators look at: the episodes that a world has stored, and the world itself where it is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from wgtorch.evaluation.registry import NotMeasured
from wgtorch.storage.base import History
from wgtorch.storage.log_reader import LogReader
from wgtorch.world import World
from wgtorch.world_runtime.state import State


@dataclass(frozen=True, slots=True)
class Episode:
    """A complete state, and what the world was around it.

    Args:
        step: number of the pass it was stored in.
        state: all slots.
        before: the content before it was applied.
        after: the content after.
        action: what somebody did when it began; None where nobody did anything.
    """

    step: int
    state: State
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    action: Any = None


class Past:
    """A world's stored history.

    Args:
        history: the stored states.
        world: the world itself; None where only its storage is there, and nothing can be run again.
        initial: the content that the world began with; where left out, what the history's log says of it.
    """

    def __init__(self, history: History, *, world: World | None = None, initial: Mapping[str, Any] | None = None) -> None:
        self.history = history
        self.world = world
        if initial is None:
            initial = _beginning(history)
        self.knows_beginning = initial is not None
        self.initial = dict(initial or {})

    @classmethod
    def of(cls, world: World) -> Past:
        """The past of a world."""
        return cls(world.history, world=world, initial=world.own_config()["initial_content"])

    @cached_property
    def traces(self) -> list[dict[str, Any]]:
        """What every stage left, oldest first."""
        return self.history.traces

    @cached_property
    def episodes(self) -> list[Episode]:
        """All stored episodes, oldest first.

        Raises:
            NotMeasured: nothing is stored.
        """
        if not self.history.steps:
            raise NotMeasured("the world has stored no episode yet; run it for some passes")
        # An episode begins in the development of the pass before the one that stores it.
        actions = {entry["pass"] + 1: entry.get("action") for entry in self.traces if entry.get("begins")}
        found: list[Episode] = []
        before: Mapping[str, Any] = self.initial
        for step in self.history.steps:
            state, after = self.history.storage.read(step)
            found.append(Episode(step, state, before, after, actions.get(step)))
            before = after
        return found

    def require_world(self) -> World:
        """The world, for evaluators that run it again.

        Raises:
            NotMeasured: only the storage is there.
        """
        if self.world is None:
            raise NotMeasured("only the storage is there; give the world, or the folder that world.save() wrote")
        return self.world


def _beginning(history: History) -> Mapping[str, Any] | None:
    """The content before the first pass; None where no log holds that moment."""
    log = history.storage
    if not isinstance(log, LogReader):
        return None
    first = next(iter(log.commits()), None)
    if first is None or first.life is None or (first.passes, first.stage) != (0, 0):
        return None
    content: Mapping[str, Any] = log.life_at(first).content
    return content
