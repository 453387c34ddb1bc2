"""A storage that lives and dies with the process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from wgtorch.storage.base import Life, register_storage
from wgtorch.world_runtime.state import State


@register_storage("memory")
class MemoryStorage:
    """Keeps states in memory: what a world uses until it is given a folder."""

    def __init__(self) -> None:
        self._states: dict[int, tuple[State, dict[str, Any]]] = {}
        self._traces: dict[tuple[int, int], dict[str, Any]] = {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Nobody else can write here."""
        yield

    def store(self, step: int, state: State, content: Mapping[str, Any]) -> str:
        """Keeps a state under its step."""
        self._states[step] = (state, dict(content))
        return str(step)

    def steps(self) -> list[int]:
        """Numbers of the stored steps, oldest first."""
        return sorted(self._states)

    def read(self, step: int) -> tuple[State, dict[str, Any]]:
        """A stored state and the content after it."""
        return self._states[step]

    def keep_life(self, life: Life) -> None:
        """The life is the world's own; nothing outlasts the process here."""

    def read_life(self) -> Life | None:
        """None."""
        return None

    def keep_trace(self, entry: Mapping[str, Any]) -> None:
        """Keeps what a stage left, in place of what it left in a try before."""
        self._traces[entry["pass"], entry["place"]] = dict(entry)

    def traces(self) -> list[dict[str, Any]]:
        """What was kept, in the order of the passes."""
        return [self._traces[key] for key in sorted(self._traces)]
