"""WorldBatch: many worlds that live at once through the same modules."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from wgtorch.core.errors import PortTypeError, StateError, StructureError
from wgtorch.core.kinds import describe
from wgtorch.core.run.events import Callback
from wgtorch.world import World
from wgtorch.world_runtime.state import State
from wgtorch.world_runtime.together import run_together


class WorldBatch(Sequence[World]):
    """B worlds that begin where one stands and live apart from there, through the modules of that one.

    Local models that take several samples in one call see batches, calls over a network overlap, and conditions, skipped stages,
    content and failures are each world's own. World k is what it would be alone with its seed: draws are bit-equal, texts and facts
    are the same, and tensors differ by what batched arithmetic rounds otherwise.

    Args:
        world: where all of them begin; it is not changed.
        seeds: one for each world, which says how many there are.
        exact: every world makes its own calls, so that tensors are bit-equal too.
        state_dir: a folder that gets a folder for each world (``0000``, ``0001``, ...); left out, histories are kept in memory.

    Raises:
        StateError: there is no seed, or one comes twice: two worlds would be the same.

    Example:
        >>> worlds = WorldBatch(World.from_template("default"), seeds=range(64))
        >>> states = worlds.run(num_steps=10, action=["go north", *[None] * 63])
        >>> worlds[3].content["story"]
    """

    def __init__(self, world: World, seeds: Iterable[int], *, exact: bool = False, state_dir: str | os.PathLike[str] | None = None) -> None:
        if not isinstance(world, World):
            raise StructureError(f"WorldBatch: got {describe(world)}; expected a World that all of them begin as")
        if isinstance(seeds, (int, str)) or not isinstance(seeds, Iterable):
            raise PortTypeError(f"WorldBatch: seeds is {describe(seeds)}; expected one for each world, as range(64)")
        self.seeds = tuple(seeds)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            found = f"{len(self.seeds)} seeds, {len(set(self.seeds))} different"
            raise StateError(f"WorldBatch: {found}; expected a different one for each world")
        for seed in self.seeds:
            world.check_options({"seed": seed}, "run")
        self.exact = exact
        self.errors: dict[int, Exception] = {}
        self._worlds = [self._begun(world, index, seed, state_dir) for index, seed in enumerate(self.seeds)]

    @staticmethod
    def _begun(world: World, index: int, seed: int, state_dir: str | os.PathLike[str] | None) -> World:
        folder = None if state_dir is None else Path(state_dir) / f"{index:04d}"
        begun = world.fork(state_dir=folder)
        begun.life.seed = seed
        return begun

    def run(
        self,
        *,
        num_steps: int = 1,
        action: Any = None,
        callbacks: Callback | Iterable[Callback] | None = None,
        timeout: float | None = None,
        cancelled: Callable[[], bool] | None = None,
        training: bool | None = None,
    ) -> list[State | Exception | None]:
        """Lets all worlds live for some passes.

        A world that fails stops where it stands, and the others go on; :attr:`errors` holds the failures of the last call by the
        world's number. The next call has every world do its passes, also one that failed before, from where it stopped.

        Args:
            num_steps: passes of the cycle.
            action: one for all worlds, or a list with one for each, of which each may be a list with one for each pass.
            callbacks: told of every world's events; ``event.item`` is its number.
            timeout, cancelled, training: as of :meth:`World.run`, for each world.

        Returns:
            For each world the State in flight; its exception where it failed.

        Raises:
            PortTypeError: there are more or fewer actions than worlds.
        """
        options: dict[str, Any] = {"num_steps": num_steps, "timeout": timeout, "cancelled": cancelled, "training": training}
        states = [None] * len(self)
        found = run_together(self._worlds, states, action, "WorldBatch", callbacks=callbacks, apart=self.exact, **options)
        self.errors = {index: result for index, result in enumerate(found) if isinstance(result, Exception)}
        return found

    @overload
    def __getitem__(self, index: int) -> World: ...

    @overload
    def __getitem__(self, index: slice) -> list[World]: ...

    def __getitem__(self, index: int | slice) -> World | list[World]:
        return self._worlds[index]

    def __len__(self) -> int:
        return len(self._worlds)

    def __iter__(self) -> Iterator[World]:
        return iter(self._worlds)

    def __repr__(self) -> str:
        failed = f", {len(self.errors)} failed" if self.errors else ""
        return f"WorldBatch({len(self)} worlds of {self._worlds[0].world_id!r}{failed})"
