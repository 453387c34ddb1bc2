"""The ledger: events, what they changed, and which earlier events made them happen."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from operator import is_
from typing import Any

from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.facts import WORLD, Content, Event, Path, applied, look
from wgtorch.blocks.simulation.lexicon import agreed

LONGEST_ACTION = 300
"""Characters of an action that the ledger keeps."""


class Draft:
    """The facts as they become while the events of one pass are tried one after another. The content given is not changed.

    A resolver reads facts from :attr:`content`, says which of them an event rests on (:meth:`rests_on`), changes facts
    (:meth:`change`) and closes the event (:meth:`close`), by which it gets its id, and its causes: the events that last changed what
    it rests on.

    Args:
        content: the world's content.
        rng: draws for what is left to chance.
    """

    def __init__(self, content: Content, rng: random.Random) -> None:
        self.content: Content = content
        self.rng = rng
        self.events: list[dict[str, Any]] = []
        self._effects: list[dict[str, Any]] = []
        self._reads: list[Path] = []
        self._last: dict[Path, int] | None = None
        self._first_id = len(content.get("events", ())) + 1

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def hero(self) -> str:
        """Name of the traveller."""
        return str(self.content["traveller"])

    @property
    def places(self) -> Mapping[str, Any]:
        """Places by name."""
        return self.content["places"]

    @property
    def characters(self) -> Mapping[str, Any]:
        """Characters by name."""
        return self.content["characters"]

    @property
    def objects(self) -> Mapping[str, Any]:
        """Objects by name."""
        return self.content["objects"]

    @property
    def threads(self) -> Mapping[str, Any]:
        """Threads by id."""
        return self.content["threads"]

    def place_of(self, name: str) -> str:
        """Where a character is."""
        return str(self.characters[name]["place"])

    def here(self, place: str, *, but: str | None = None) -> list[str]:
        """Characters at a place, in the order of the cast."""
        return [name for name, who in self.characters.items() if who["place"] == place and who["present"] and name != but]

    def lying(self, place: str) -> list[str]:
        """Objects that lie or stand at a place."""
        return [name for name, thing in self.objects.items() if thing["place"] == place]

    def feeling(self, who: str, other: str) -> int:
        """What one thinks of another, from -5 to 5."""
        return int(self.characters[who]["remembers"].get(other, {}).get("feeling", 0))

    # --- writing ------------------------------------------------------------------------------------------------------

    def rests_on(self, *path: str) -> Any:
        """Says that the event in the making happens because of a fact, and returns the fact."""
        self._reads.append(path)
        return look(self.content, path)

    def change(self, value: Any, *path: str) -> None:
        """Changes a fact as an effect of the event in the making; None at a path of two parts takes an entry away."""
        before = look(self.content, path)
        if before == value:
            return
        effect = {"path": list(path), "before": before, "after": value}
        self._effects.append(effect)
        self.content = applied(self.content, [effect])

    def move(self, thing: str, *, bearer: str | None = None, place: str | None = None) -> None:
        """Puts an object into somebody's hands or to a place."""
        holder = self.objects[thing]["bearer"]
        if holder is not None:
            self.change([name for name in self.characters[holder]["carries"] if name != thing], "characters", holder, "carries")
        self.change(place, "objects", thing, "place")
        self.change(bearer, "objects", thing, "bearer")
        if bearer is not None:
            self.change([*self.characters[bearer]["carries"], thing], "characters", bearer, "carries")

    def remove(self, thing: str) -> None:
        """Takes an object out of the world."""
        holder = self.objects[thing]["bearer"]
        if holder is not None:
            self.change([name for name in self.characters[holder]["carries"] if name != thing], "characters", holder, "carries")
        self.change(None, "objects", thing)

    def feel(self, who: str, other: str, by: int) -> None:
        """Changes what one thinks of another."""
        if who == other or who not in self.characters or other not in self.characters:
            return
        value = max(-5, min(5, self.feeling(who, other) + by))
        self.change({"feeling": value, "event": self.next_id}, "characters", who, "remembers", other)

    def mood(self, who: str, mood: str) -> None:
        """Changes how somebody feels."""
        self.change(mood, "characters", who, "mood")

    @property
    def next_id(self) -> int:
        """The id that the event in the making will have."""
        return self._first_id + len(self.events)

    def close(
        self,
        actor: str,
        action: Action,
        status: str,
        because: str = "",
        *,
        target: str | None = None,
        causes: Iterable[int] = (),
        **details: Any,
    ) -> dict[str, Any]:
        """Ends the event in the making and adds it to :attr:`events`.

        Args:
            actor: who acted, or :data:`~wgtorch.blocks.simulation.facts.WORLD`.
            action: what was tried.
            status: ``done``, ``partly``, ``refused`` or ``unclear``; the last two leave no effects.
            because: the reason, as a clause.
            target: name of the fact that was acted on.
            causes: ids of events that are causes beside those that the facts it rests on tell of.
            details: plain data for the telling.
        """
        if status in ("refused", "unclear"):
            assert not self._effects, f"{action.verb}: {status} with effects"
        last = self._last_changes()
        clock = self.content["clock"]
        found = {*self.causes(), *causes}
        where = details.pop("at", None) if actor == WORLD else self.place_of(actor)
        if where is not None:
            details["seen_by"] = [name for name in self.here(where) if name != actor]
        event: dict[str, Any] = {
            "id": self.next_id,
            "when": dict(clock),
            "where": where,
            "actor": actor,
            "action": shortened(action.words, LONGEST_ACTION),
            "verb": action.verb,
            "target": target if target is not None else action.target,
            "status": status,
            "because": agreed(_as_typed(because, action.words)),
            "effects": self._effects,
            "reads": [list(path) for path in dict.fromkeys(self._reads)],
            "caused_by": sorted(found - {self.next_id}),
            "details": {
                key: agreed(_as_typed(value, action.words)) if key == "answer" else value
                for key, value in details.items()
                if value is not None
            },
        }
        for effect in self._effects:
            last[tuple(effect["path"])] = event["id"]
        self._effects, self._reads = [], []
        self.events.append(event)
        return event

    def causes(self) -> list[int]:
        """Ids of the events that last changed what the event in the making rests on, or made it."""
        last = self._last_changes()
        found = {last[near] for path in self._reads for near in (path, path[:2]) if near in last}
        return sorted(found - {self.next_id})

    def drop(self) -> None:
        """Forgets what the event in the making rests on; nothing may have been changed yet."""
        assert not self._effects, "an event with effects is dropped"
        self._reads = []

    def _last_changes(self) -> dict[Path, int]:
        """By path of a fact, the id of the event that last changed it."""
        if self._last is None:
            self._last = last_changes(self.content.get("events", ()))
        return self._last


_known: list[tuple[tuple[Event, ...], dict[Path, int]]] = []
"""Pasts that were gone through, the newest first: the events, and what they changed last."""
_MOST_KNOWN = 8


def last_changes(events: Sequence[Event]) -> dict[Path, int]:
    """By path of a fact, the id of the event that last changed it. Of a past that goes on only what is new is gone through."""
    begun, last = 0, {}
    for known, found in tuple(_known):
        if len(known) <= len(events) and all(map(is_, known, events)):
            begun, last = len(known), dict(found)
            break
    last |= {tuple(effect["path"]): event["id"] for event in events[begun:] for effect in event["effects"]}
    others = [entry for entry in _known if not begun or entry[1] is not found]
    _known[:] = [(tuple(events), dict(last)), *others[: _MOST_KNOWN - 1]]
    return last


def _as_typed(said: str, typed: str) -> str:
    """A sentence with the capitals that names have in what was typed: ``there is nobody called Napoleon``."""
    for name in re.findall(r"(?<=[\w,] )[A-Z][\w'-]+", typed):
        said = re.sub(rf"\b{re.escape(name.lower())}\b", name, said)
    return said


def shortened(text: str, length: int) -> str:
    """At most so many characters, with dots where some are left out."""
    return text if len(text) <= length else text[: length - 1] + "…"
