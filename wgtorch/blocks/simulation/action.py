"""An action: what somebody tries, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

UNKNOWN_VERB = "unknown"
IMPOSSIBLE_VERB = "fly"
"""What nobody can do, whichever it is: walk through walls, turn back time."""


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody tries.

    Args:
        verb: one of the resolver's verbs, or :data:`UNKNOWN_VERB`.
        target: what or whom, in the words of the one who acts, or a fact's name.
        place: where to or where: a name, a land, a direction.
        manner: how, with what, until when.
        negated: not to do it.
        polite: asked for rather than told.
        receiver: to or for whom.
        words: the action as it was said; of an action that nobody said, empty.
    """

    verb: str
    target: str | None = None
    place: str | None = None
    manner: str | None = None
    negated: bool = False
    polite: bool = False
    receiver: str | None = None
    words: str = ""

    def to_data(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)
