"""What a call asks of a world: passes to live, an action for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from wgtorch.core.errors import PortTypeError, StateError
from wgtorch.core.kinds import describe, get_kind
from wgtorch.world_runtime.state import State, holds_something


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A call that lets a world live on, kept when it fails: made again, it goes on where it stopped.

    Args:
        state: the State it started from.
        actions: one for each pass.
        begun: passes behind the world when it was first made.
    """

    state: State | None
    actions: list[Any]
    begun: int

    def is_same(self, other: RunRequest) -> bool:
        """True when the other asks for the same."""
        pairs = zip(self.actions, other.actions, strict=False)
        return (
            self.state is other.state
            and len(self.actions) == len(other.actions)
            and all(mine is yours or (isinstance(mine, str) and mine == yours) for mine, yours in pairs)
        )


def check_passes(num_steps: Any, where: str) -> None:
    """Refuses what is no number of passes.

    Raises:
        PortTypeError: it is no whole number.
        StateError: it is below 0.
    """
    if isinstance(num_steps, bool) or not isinstance(num_steps, int):
        raise PortTypeError(f"{where}: num_steps is {describe(num_steps)}; expected a whole number of passes, 0 or more")
    if num_steps < 0:
        raise StateError(f"{where}: num_steps is {num_steps}; expected 0 or more")


def one_for_each(action: Any, num_steps: int, where: str) -> list[Any]:
    """An action for each pass: of a list its own, anything else in every pass.

    Raises:
        StateError: there are more or fewer actions than passes.
    """
    if not isinstance(action, (list, tuple)):
        return [action] * num_steps
    if len(action) != num_steps:
        raise StateError(
            f"{where}: {len(action)} actions for {num_steps} passes; give one for each (None where there is none), or a single one"
        )
    return list(action)


def check_actions(actions: Iterable[Any], stages: Iterable[Any], where: str) -> None:
    """Refuses what a port that reads the action does not take.

    Raises:
        PortTypeError: an action is of another kind.
    """
    given = [action for action in actions if holds_something(action)]
    for port in [port for stage in stages for port in stage.ports_of("action")] if given else ():
        for action in given:
            if not get_kind(port.dtype).accepts(action):
                raise PortTypeError(f"{where}: action is {describe(action)}; expected {get_kind(port.dtype).expects}")
