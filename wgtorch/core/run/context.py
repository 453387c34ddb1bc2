"""What belongs to one run and to nothing else: its options, its path, its draws' key, given and wanted values."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wgtorch.core.errors import RunCancelled, RunTimeoutError
from wgtorch.core.run.cached_call import CachedRun
from wgtorch.core.run.events import Callback, Event
from wgtorch.core.run.loop_steps import LoopSteps, below
from wgtorch.core.run.pause import PauseRequest
from wgtorch.core.run.result_cache import ResultCache
from wgtorch.core.run.rng import GLOBAL_RNG, Key, Rng, key_of_iteration, mix, name_key, path_keys

Path = tuple[str, ...]


@dataclass(slots=True)
class RunOptions:
    """What holds for a whole run, at every level of it.

    Args:
        root: id of the level that runs.
        callbacks: called with every :class:`Event`.
        cancelled: true when the run should stop.
        deadline: time of ``time.monotonic`` at which the run is too late.
        training: nodes run as in ``train``, with gradients.
        debug: look for values changed in place and for wrong kinds on inner edges.
        is_dry: values are stand-ins; blocks are asked for ``dry`` where they have it.
        results: outputs of I/O-bound nodes, here and in a try of the same pass before.
        taken: where wanted values from below are collected, by (path, port).
        batch: where the items of a batch of runs meet, and which of them this is.
        cache: results of nodes that are looked for and kept.
        pause: where the run is to stop, or goes on.
        rng: what nodes draw from where the run has no seed; PyTorch's global generator where left out.
    """

    root: str
    callbacks: tuple[Callback, ...] = ()
    cancelled: Callable[[], bool] | None = None
    deadline: float | None = None
    training: bool = False
    debug: bool = False
    is_dry: bool = False
    results: ResultCache | None = None
    taken: dict[tuple[Path, str], Any] | None = None
    batch: Any = None
    cache: CachedRun | None = None
    pause: PauseRequest | None = None
    rng: Rng | None = None

    @property
    def is_watched(self) -> bool:
        """True when every call of a node has to be told of or looked at."""
        return bool(self.callbacks) or self.is_surrounded

    @property
    def is_surrounded(self) -> bool:
        """True when every call of a node has more around it than callbacks."""
        if self.debug or self.is_dry:
            return True
        return self.batch is not None or self.cache is not None or self.pause is not None


@dataclass(slots=True)
class RunContext:
    """One run as one level of it sees it, handed from level to level.

    Args:
        options: what holds for the whole run.
        path: ids from below the level that runs to this one.
        key: what draws here are keyed by; None draws from PyTorch's global generator.
        num_loop_steps: iterations of every loop, or of some by the path of a node below this level.
        iterations: iterations of the loops, and passes, around the node that runs.
        sample: places in mapped lists around the node that runs; part of every draw's key.
        feeds: given outputs by (path below this level, port).
        wanted: outputs asked for below this level by (path, port); None asks for all that is exposed.
        exposed: with ``wanted``, the exposed outputs that are read.
        state: the State a stage runs over; conditions of its nodes look at it.
        content: a world's content after the stage that ran here.
    """

    options: RunOptions
    path: Path = ()
    key: Key | None = None
    num_loop_steps: LoopSteps | None = None
    iterations: tuple[int, ...] = ()
    sample: tuple[int, ...] = ()
    feeds: Mapping[tuple[Path, str], Any] | None = None
    wanted: frozenset[tuple[Path, str]] | None = None
    exposed: tuple[str, ...] = ()
    state: Any = None
    content: Mapping[str, Any] | None = None

    def child(self, node_id: str, *, item: int | None = None, exposed: tuple[str, ...] = ()) -> RunContext:
        """The run as a child at ``node_id``, or at a path below, sees it; ``item`` is its place in a mapped list."""
        if "/" in node_id:
            above, _, node_id = node_id.rpartition("/")
            return self.child(above).child(node_id, item=item, exposed=exposed)
        feeds, wanted = self.feeds, self.wanted
        return RunContext(
            self.options,
            (*self.path, node_id),
            None if self.key is None else mix(self.key, name_key(node_id)),
            self.num_loop_steps if type(self.num_loop_steps) is not dict else below(self.num_loop_steps, node_id),
            self.iterations,
            self.sample if item is None else (*self.sample, item),
            feeds and {(path[1:], port): value for (path, port), value in feeds.items() if path[:1] == (node_id,)},
            None if wanted is None else frozenset([(path[1:], port) for path, port in wanted if path[:1] == (node_id,)]),
            exposed,
        )

    def iteration(self, index: int) -> RunContext:
        """The run in iteration ``index`` of a loop."""
        return RunContext(
            self.options,
            self.path,
            None if self.key is None else key_of_iteration(self.key, index),
            self.num_loop_steps,
            (*self.iterations, index),
            self.sample,
            self.feeds,
            self.wanted,
            self.exposed,
            self.state,
        )

    def rng(self, node_id: str, *, item: int | None = None) -> Rng:
        """Random draws of the node at ``node_id``, or at a path below."""
        key = self.key
        if key is None:
            return self.options.rng or GLOBAL_RNG
        return Rng.of(mix(key, *path_keys(node_id)), self.sample if item is None else (*self.sample, item))

    def where(self, node_id: str) -> str:
        """A node's path."""
        return "/".join((*self.path, node_id))

    def emit(self, kind: str, node_id: str | None, level: str, **fields: Any) -> None:
        """Tells every callback; what a callback raises ends the run."""
        if not self.options.callbacks:
            return
        path = "/".join(self.path) if node_id is None else self.where(node_id)
        self.tell(Event(kind, path, level, root=self.options.root, **fields))

    def tell(self, event: Event) -> None:
        """Tells every callback."""
        for callback in self.options.callbacks:
            callback(event)

    def emitter(self, node_id: str) -> Callable[..., None] | None:
        """What a block at ``node_id`` tells callbacks with, of parts of its outputs; None where there are none."""
        if not self.options.callbacks:
            return None
        return lambda **outputs: self.emit("chunk", node_id, "block", outputs=outputs)

    def check(self, node_id: str) -> None:
        """Stops the run before a node when it was cancelled or is late.

        Raises:
            RunCancelled, RunTimeoutError: say where.
        """
        cancelled, deadline = self.options.cancelled, self.options.deadline
        if (deadline is not None and time.monotonic() > deadline) or (cancelled is not None and cancelled()):
            raise self.ended(node_id)

    def check_end(self) -> None:
        """Refuses outputs that came when the run's time was over, as of one block that took longer than all of it.

        Raises:
            RunTimeoutError: they did.
        """
        deadline = self.options.deadline
        if deadline is not None and (late := time.monotonic() - deadline) > 0:
            raise RunTimeoutError(f"the run's time limit passed {late:.3g} s before the end of {self.options.root}")

    def ended(self, node_id: str) -> Exception:
        """What a run that is late or was cancelled ends in before a node."""
        deadline, where = self.options.deadline, f"before {self.where(node_id)} of {self.options.root}"
        if deadline is not None and time.monotonic() > deadline:
            return RunTimeoutError(f"the run's time limit passed {where}")
        return RunCancelled(f"the run was cancelled {where}")
