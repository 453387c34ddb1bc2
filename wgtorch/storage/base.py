"""What a storage does, and which kinds there are."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, overload

from wgtorch.core.errors import StorageError, suggest
from wgtorch.core.kinds import brief
from wgtorch.core.registry import Registry
from wgtorch.world_runtime.state import State, Views


@dataclass(slots=True, repr=False)
class Life:
    """A world's life so far: everything that must survive for it to go on as if never stopped.

    Args:
        content: what the world is.
        state: the State in flight.
        passes: whole passes of the cycle behind it.
        stage: index of the stage in the cycle that runs next.
        seed: root of all random draws.
        id: tells this life from others.
        cause: what led here, for the commit that keeps it: ``kind`` (one of :data:`wgtorch.storage.commit.KINDS`), ``stage`` and
            ``action``.
    """

    content: Mapping[str, Any] = field(default_factory=dict)
    state: State | None = None
    passes: int = 0
    stage: int = 0
    seed: int | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    cause: Mapping[str, Any] = field(default_factory=dict, compare=False)

    __repr__ = brief

    @property
    def is_new(self) -> bool:
        """True before anything has happened."""
        return not (self.passes or self.stage or self.state)


class Storage(Protocol):
    """Keeps complete states, and the life in flight.

    A world calls ``hold`` around a run, and inside ``store``, ``keep_trace`` and then ``keep_life``, which may write all three at once.
    What can be forked, rewound and replayed is a :class:`~wgtorch.storage.log.CommitLog`.
    """

    def hold(self) -> AbstractContextManager[None]:
        """Keeps other writers away while a run lasts."""

    def store(self, step: int, state: State, content: Mapping[str, Any]) -> str:
        """Keeps a complete state and the content after it; returns the name it is kept under."""

    def steps(self) -> list[int]:
        """Numbers of the stored steps, oldest first."""

    def read(self, step: int) -> tuple[State, dict[str, Any]]:
        """A stored state and the content after it."""

    def keep_life(self, life: Life) -> None:
        """Keeps the life in flight."""

    def read_life(self) -> Life | None:
        """The life that was kept last."""

    def keep_trace(self, entry: Mapping[str, Any]) -> None:
        """Keeps what a stage left to be looked at: plain data with its ``pass`` and ``place`` in the cycle. May be missing."""

    def traces(self) -> list[dict[str, Any]]:
        """What was kept so, in the order of the passes; of a stage that ran again, the last. May be missing."""


class History(Sequence[State]):
    """The stored states of a world as they are now, oldest first, read when asked for.

    It stays as it is while the world lives on, here or in another process; ``world.history`` gives a new one.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        pin = getattr(storage, "pinned", None)  # a storage of somebody's own may have none
        self._view: Storage = storage if pin is None else pin()

    @property
    def steps(self) -> list[int]:
        """Numbers of the passes the states ended in."""
        return self._view.steps()

    def content(self, index: int) -> dict[str, Any]:
        """The world's content after a state was applied."""
        return self._read(self.steps[index], 1)

    @property
    def life(self) -> Life | None:
        """The life in flight; None where none was kept."""
        return self._view.read_life()

    @overload
    def __getitem__(self, index: int) -> State: ...

    @overload
    def __getitem__(self, index: slice) -> list[State]: ...

    def __getitem__(self, index: int | slice) -> State | list[State]:
        steps = self.steps[index]
        return [self._read(step, 0) for step in steps] if isinstance(steps, list) else self._read(steps, 0)

    @property
    def traces(self) -> list[dict[str, Any]]:
        """What every stage left, oldest first: whether it ran and why not, what it read and wrote, its calls and its time."""
        read = getattr(self._view, "traces", None)
        found: list[dict[str, Any]] = [] if read is None else read()
        return found

    def export(self, folder: str | os.PathLike[str], *, naming_template: str = "{step:05d}") -> list[Path]:
        """Writes every stored state into a folder of its own, for people and other programs: ``state.json``, and its pictures as PNG.

        Args:
            folder: where to; what lies there and was not exported before stays as it is.
            naming_template: name of a state's folder; ``{step}`` is its number.

        Returns:
            The states' folders, oldest first.

        Example:
            >>> world.history.export("pictures")
        """
        from wgtorch.storage.step_folders import StepFolders

        Path(folder).mkdir(parents=True, exist_ok=True)
        folders = StepFolders(Path(folder), ["exported"])
        pairs = zip(self.steps, self, strict=True)
        return [Path(folder) / folders.write(naming_template.format(step=step), step, state) for step, state in pairs]

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[State]:
        return (self._read(step, 0) for step in self.steps)

    def _read(self, step: int, part: int) -> Any:
        """A step's state, or its content: that alone, where the storage can, for either may be large.

        A class of somebody's own that has a ``read`` of its own, over one that has both, is asked by it.
        """
        name = ("read_state", "read_content")[part]
        newest = next((kind for kind in type(self._view).__mro__ if not {"read", name}.isdisjoint(vars(kind))), object)
        return getattr(self._view, name)(step) if name in vars(newest) else self._view.read(step)[part]

    def _repr_html_(self) -> str:
        return Views.get("history")(self)

    def __repr__(self) -> str:
        return f"History of {len(self)} states"


StorageRegistry: Registry[Callable[..., Storage]] = Registry("storage", group="wgtorch.storages")


def register_storage(name: str) -> Callable[[Callable[..., Storage]], Callable[..., Storage]]:
    """Decorator: names a kind of storage, for ``{"kind": name, ...}``."""
    return partial(StorageRegistry.register, name)


def make_storage(config: Mapping[str, Any]) -> Storage:
    """A storage from its config: ``{"state_dir": "runs/my_world"}``, or ``{"kind": ..., ...}`` for a registered one.

    Raises:
        StorageError: an option is unknown or missing.
    """
    options = dict(config)
    kind = options.pop("kind", "directory")
    make = StorageRegistry.get(kind)
    try:
        return make(**options)
    except TypeError as error:
        import inspect

        known = inspect.signature(make).parameters
        unknown = [name for name in options if name not in known]
        detail = f"unknown option {unknown[0]!r}; {suggest(unknown[0], known)}" if unknown else str(error)
        raise StorageError(f"storage {kind!r}: {detail}. Options: {list(known)}") from None
