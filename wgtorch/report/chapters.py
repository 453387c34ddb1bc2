"""A world's history as chapters: one for each episode, with what its stages left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wgtorch.storage.base import History, Life
from wgtorch.world_runtime.changes import Change, changes
from wgtorch.world_runtime.state import State


@dataclass(frozen=True, slots=True)
class Chapter:
    """One episode.

    Args:
        number: of the pass in which it began, from 1; 0 for one that was handed in.
        state: what is known of it.
        stored: number of the step it is stored under; None for the one in flight, and where the state was dropped since.
        action: what the user did in the pass in which it began.
        changes: what it changed of the world's content; None where the content before is not known.
        traces: of its stages, from the one that began it to the one that applied it, each as the storage keeps them.
    """

    number: int
    state: State
    stored: int | None = None
    action: Any = None
    changes: tuple[Change, ...] | None = None
    traces: tuple[Mapping[str, Any], ...] = ()

    @property
    def seconds(self) -> float:
        """Time that its stages took. One that ends an episode and begins the next counts for both."""
        return sum(float(entry.get("seconds") or 0.0) for entry in self.traces)


@dataclass(slots=True)
class _Told:
    """Traces of one episode, as they are found."""

    entries: list[Mapping[str, Any]] = field(default_factory=list)
    began: int | None = None
    stored: int | None = None

    @property
    def changes(self) -> tuple[Change, ...] | None:
        """What the update noted, where it left a trace."""
        noted = next((entry["changes"] for entry in self.entries if entry.get("changes") and int(entry["pass"]) == self.stored), None)
        return None if noted is None else tuple(Change(*map(str, change)) for change in noted)

    @property
    def action(self) -> Any:
        return self.entries[0].get("action") if self.entries and self.began is not None else None


def chapters_of(history: History, life: Life | None, *, initial: Mapping[str, Any] | None = None) -> list[Chapter]:
    """The episodes of a world, oldest first; the last may be in flight.

    Args:
        history: its stored states, with what the stages left.
        life: its life; None where there is none.
        initial: the content before everything, where it is known.
    """
    told = _told(history.traces)
    by_step = {entry.stored: entry for entry in told if entry.stored is not None}
    begins = any(entry.began is not None for entry in told)
    chapters, before = [], initial
    for index, step in enumerate(history.steps):
        own = by_step.get(step, _Told())
        content = history.content(index)
        if index == 0 and step > 1:
            before = None  # older states were dropped
        number = own.began + 1 if own.began is not None else step if begins or not told else step + 1
        found = own.changes if before is None else tuple(changes(before, content))
        chapters.append(Chapter(number, history[index], step, own.action, found, tuple(own.entries)))
        before = content
    chapters += _in_flight(told, life, chapters)
    return chapters


def _in_flight(told: Sequence[_Told], life: Life | None, chapters: Sequence[Chapter]) -> list[Chapter]:
    """The episode that the life is in the middle of."""
    if life is None or life.state is None or not life.state.filled or (chapters and chapters[-1].state == life.state):
        return []
    last = told[-1] if told and told[-1].stored is None else _Told()
    number = last.began + 1 if last.began is not None else (chapters[-1].number + 1 if chapters else 1)
    return [Chapter(number, life.state, None, last.action, (), tuple(last.entries))]


def _told(traces: Sequence[Mapping[str, Any]]) -> list[_Told]:
    """Traces by episode: one that begins an episode ends the one before, and stands in both."""
    found = [_Told()]
    for entry in traces:
        found[-1].entries.append(entry)
        if entry.get("stored") is not None:
            found[-1].stored = int(entry["pass"])
        if entry.get("begins"):
            found.append(_Told([entry], began=int(entry["pass"])))
        elif entry.get("stored") is not None and not entry.get("updated"):
            found.append(_Told())  # a world in which a pass is an episode
    return [one for one in found if one.entries]
