"""What belongs to one run and to nothing else: seed, callbacks, limits, given and wanted values."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from types import TracebackType
from typing import Any

import torch

from wgtorch.core import adapter_hook
from wgtorch.core.errors import RunCancelled, RunTimeoutError
from wgtorch.core.run.result_cache import Kept
from wgtorch.core.run.rng import GLOBAL_RNG, Rng


@dataclass(slots=True)
class Event:
    """What a callback is told.

    Args:
        kind: ``start``, ``end``, ``skip``, ``loop`` or ``error``; ``chunk`` where a block tells of an output that is not whole yet.
        path: the node's path, from the outermost composite's id (``architect/plan/first/a``).
        level: ``world``, ``stage``, ``pipeline``, ``graph`` or ``block``.
        inputs: values the node was called with.
        outputs: values it gave.
        step: turn of the loop, or pass of the world, from 0.
        total: how many turns or passes there will be, where that is known.
        elapsed: seconds since the node started.
        reason: why a node was skipped.
        error: the exception a node ended with.
    """

    kind: str
    path: str
    level: str
    inputs: Mapping[str, Any] | None = None
    outputs: Mapping[str, Any] | None = None
    step: int | None = None
    total: int | None = None
    elapsed: float | None = None
    reason: str | None = None
    error: BaseException | None = None


Callback = Callable[[Event], None]
Path = tuple[str, ...]


@dataclass(slots=True)
class Run:
    """One run's own things, handed from level to level.

    Args:
        path: ids from the outermost composite to the one that runs.
        seed: root of all random draws; None draws from PyTorch's global generator.
        callbacks: called with every :class:`Event`.
        num_loop_steps: turns of every loop.
        cancelled: true when the run should stop.
        deadline: time of ``time.monotonic`` at which the run is too late.
        turns: turns of the loops and passes around the node that runs; part of every draw's key.
        sample: places in mapped lists around the node that runs; part of every draw's key.
        feeds: given outputs by (path below this composite, port).
        wanted: outputs asked for below this composite by (path, port); None asks for all that is exposed.
        exposed: with ``wanted``, the exposed outputs that are read.
        taken: where wanted values from below are collected, by (path from the root, port).
        state: the State a stage runs over; conditions of its nodes look at it.
        content: a world's content.
        dry: values are stand-ins; blocks are asked for ``dry`` where they have it.
        kept: what nodes that wait brought, here and in a try of the same pass before.
    """

    path: Path
    seed: int | None = None
    callbacks: tuple[Callback, ...] = ()
    num_loop_steps: int | None = None
    cancelled: Callable[[], bool] | None = None
    deadline: float | None = None
    turns: tuple[int, ...] = ()
    sample: tuple[int, ...] = ()
    feeds: Mapping[tuple[Path, str], Any] = field(default_factory=dict)
    wanted: frozenset[tuple[Path, str]] | None = None
    exposed: tuple[str, ...] = ()
    taken: dict[tuple[Path, str], Any] = field(default_factory=dict)
    state: Any = None
    content: Mapping[str, Any] | None = None
    dry: bool = False
    kept: Kept | None = None

    def child(self, node_id: str, *, item: int | None = None, exposed: tuple[str, ...] = ()) -> Run:
        """The run as a child at ``node_id`` sees it; ``item`` is its place in a mapped list."""
        run = _copy(self)
        run.path = (*self.path, node_id)
        run.sample = self.sample if item is None else (*self.sample, item)
        run.feeds = _below(self.feeds, node_id)
        run.wanted = None if self.wanted is None else frozenset((path[1:], port) for path, port in self.wanted if path[:1] == (node_id,))
        run.exposed = exposed
        return run

    def turn(self, index: int) -> Run:
        """The run in turn ``index`` of a loop."""
        run = _copy(self)
        run.turns = (*self.turns, index)
        return run

    def rng(self, node_id: str, *, item: int | None = None) -> Rng:
        """Random draws of the node at ``node_id``."""
        if self.seed is None:
            return GLOBAL_RNG
        sample = self.sample if item is None else (*self.sample, item)
        return Rng(self.seed, "/".join((*self.path, node_id)), self.turns, sample=sample)

    def emit(self, kind: str, node_id: str | None, level: str, **fields: Any) -> None:
        """Tells every callback; what a callback raises ends the run."""
        self._tell(Event(kind, "/".join(self.path if node_id is None else (*self.path, node_id)), level, **fields))

    def _tell(self, event: Event) -> None:
        for callback in self.callbacks:
            callback(event)

    def emitter(self, node_id: str) -> Callable[..., None] | None:
        """What a block at ``node_id`` tells callbacks with, of parts of its outputs; None where there are none."""
        if not self.callbacks:
            return None
        return lambda **outputs: self.emit("chunk", node_id, "block", outputs=outputs)

    def watch(self, node_id: str, level: str, inputs: Mapping[str, Any], call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Makes a call that gives outputs by name, and tells callbacks of its start and of its end or error."""
        if not self.callbacks:
            return call()
        path = "/".join((*self.path, node_id))
        self._tell(Event("start", path, level, inputs))
        started = time.perf_counter()
        try:
            outputs = call()
        except Exception as error:
            self._tell(Event("error", path, level, inputs, elapsed=time.perf_counter() - started, error=error))
            raise
        self._tell(Event("end", path, level, inputs, outputs, elapsed=time.perf_counter() - started))
        return outputs

    def check(self, node_id: str) -> None:
        """Stops the run here when it was cancelled or is late.

        Raises:
            RunCancelled: it was cancelled.
            RunTimeoutError: it is late.
        """
        if self.cancelled is not None and self.cancelled():
            raise RunCancelled(f"the run was cancelled before {'/'.join((*self.path, node_id))}")
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise RunTimeoutError(f"the run's time limit passed before {'/'.join((*self.path, node_id))}")


_fields = attrgetter(*Run.__dataclass_fields__)


def _copy(run: Run) -> Run:
    """A run that shares everything with another; dataclasses.replace takes three times as long, but can be compiled."""
    return replace(run) if torch.compiler.is_compiling() else Run(*_fields(run))


def new_run(
    root: str,
    seed: int | None,
    callbacks: Iterable[Callback],
    num_loop_steps: int | None,
    timeout: float | None,
    cancelled: Callable[[], bool] | None,
) -> Run:
    """A run that starts now at the level called ``root``; ``timeout`` in seconds."""
    return Run(
        path=(root,),
        seed=seed,
        callbacks=tuple(callbacks),
        num_loop_steps=num_loop_steps,
        cancelled=cancelled,
        deadline=None if timeout is None else time.monotonic() + timeout,
    )


def _below(feeds: Mapping[tuple[Path, str], Any], node_id: str) -> Mapping[tuple[Path, str], Any]:
    return {(path[1:], port): value for (path, port), value in feeds.items() if path[:1] == (node_id,)} if feeds else feeds


def in_this_context(function: Callable[[], Any]) -> Callable[[], Any]:
    """The function as it would run here, in whatever thread calls it: same context variables, adapters, grad mode and autocast."""
    context = contextvars.copy_context()
    function = adapter_hook.hook.preserve(function)
    grad = torch.is_grad_enabled()
    inference = torch.is_inference_mode_enabled()
    autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def call() -> Any:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad), torch.autocast("cpu", enabled=autocast[0], dtype=autocast[1]):
            return context.run(function)

    return call


def locate(error: BaseException, node_id: str, *, below: bool = False) -> None:
    """Writes the path of the failing node into the exception's notes, one level further out each time.

    Args:
        error: what was raised.
        node_id: the node it came out of.
        below: the node is a level, so the path of what failed inside it is there already.
    """
    inner = getattr(error, "node_path", None) if below else None
    path = f"{node_id}/{inner}" if inner else node_id
    try:
        error.node_path = path  # type: ignore[attr-defined]
    except AttributeError:  # an exception with __slots__
        return
    notes = [note for note in getattr(error, "__notes__", []) if not note.startswith("raised in node ")]
    error.__notes__ = [*notes, f"raised in node {path}"]


class located:
    """Puts the id of the level that a run started at in front of the path of a failing node."""

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = root

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if isinstance(error, Exception) and hasattr(error, "node_path"):
            locate(error, self.root, below=True)


def split_path(name: str) -> tuple[Path, str]:
    """The path and the port of what users write: ``first/a.y`` is (("first", "a"), "y")."""
    path, _, port = name.rpartition(".")
    return tuple(part for part in path.split("/") if part), port
