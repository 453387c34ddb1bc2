"""What belongs to one run and to nothing else: its options, its path, its draws' key, given and wanted values."""

from __future__ import annotations

import contextvars
import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, TypedDict

import torch
from torch import Tensor

from wgtorch.core.errors import PortError, PortTypeError, RunCancelled, RunTimeoutError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.run.cached_call import CachedRun, note_draw
from wgtorch.core.run.events import Callback as Callback
from wgtorch.core.run.events import Event as Event
from wgtorch.core.run.events import callbacks_of as callbacks_of
from wgtorch.core.run.events import told_of_item as told_of_item
from wgtorch.core.run.foreign_draws import serve_from, serving
from wgtorch.core.run.joined_runs import meeting
from wgtorch.core.run.loop_steps import LoopSteps, below, check_loop_steps
from wgtorch.core.run.node_cache import NodeCache
from wgtorch.core.run.pause import PauseRequest, claim_request
from wgtorch.core.run.profile import check_profile
from wgtorch.core.run.result_cache import ResultCache
from wgtorch.core.run.rng import GLOBAL_RNG, Key, Rng, check_seed, key_of_draw, key_of_iteration, mix, name_key, path_keys

Path = tuple[str, ...]


class RunKeywords(TypedDict, total=False):
    """Options that ``run`` of graphs, pipelines and stages takes; :meth:`wgtorch.core.composite.Composite.run` says what they mean."""

    num_loop_steps: int | Mapping[str, int] | None
    training: bool | None
    seed: int | Sequence[int] | None
    callbacks: Callback | Iterable[Callback] | None
    timeout: float | None
    cancelled: Callable[[], bool] | None
    debug: bool
    cache: NodeCache | None
    profile: Any
    """True, a path, or a :class:`~wgtorch.core.run.profile.Profile`."""


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
        if self.debug or self.is_dry or self.results is not None:
            return True
        return self.batch is not None or self.cache is not None or self.pause is not None

    @property
    def is_limited(self) -> bool:
        """True when the run may be stopped before a node."""
        return self.cancelled is not None or self.deadline is not None


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
        """Stops the run here when it was cancelled or is late.

        Raises:
            RunCancelled: it was cancelled.
            RunTimeoutError: it is late.
        """
        options = self.options
        if options.cancelled is not None and options.cancelled():
            raise RunCancelled(f"the run was cancelled before {self.where(node_id)} of {options.root}")
        if options.deadline is not None and time.monotonic() > options.deadline:
            raise RunTimeoutError(f"the run's time limit passed before {self.where(node_id)} of {options.root}")


# --- the call that a thread is in -------------------------------------------------------------------------------------


class ActiveCall:
    """The call of a node that goes on: what a run inside it takes after, and whose draws are served.

    Args:
        run: of the level whose node is called.
        step: of the plan, whose node is called; the walk moves it on from node to node. None where the run is that of one block.
        item: its place in a mapped list.
    """

    __slots__ = ("draws", "item", "run", "step")

    def __init__(self, run: RunContext, step: Any = None, item: int | None = None) -> None:
        self.run, self.step, self.item = run, step, item
        self.draws = 0

    def child(self) -> RunContext:
        """The run as a level that is called inside the node sees it: all of it is wanted, nothing is given."""
        inner = replace(self.run) if self.step is None else self.run.child(self.step.node, item=self.item)
        inner.feeds, inner.wanted, inner.num_loop_steps = None, None, None
        return inner

    def next_draw(self) -> Rng | None:
        """Draws of the next operator that draws in this call; None where the run has no seed."""
        note_draw()
        if self.run.key is None:
            return None
        if self.step is None:
            rng = Rng.of(self.run.key, self.run.sample)
        else:
            rng = self.run.rng(self.step.node, item=self.item)
        rng.key = key_of_draw(rng.key, self.draws)  # type: ignore[arg-type]
        self.draws += 1
        return rng

    def where(self) -> str:
        """The node's path."""
        return "/".join(self.run.path) if self.step is None else self.run.where(self.step.node)


class drawing_from:
    """While it lasts, operators of this thread that draw without naming a generator draw from ``rng``; felt by no other thread.

    Example:
        >>> with drawing_from(Rng(7)):
        ...     torch.randn(3)
    """

    __slots__ = ("_serving", "_token", "rng")

    def __init__(self, rng: Rng) -> None:
        self.rng = rng

    def __enter__(self) -> None:
        self._token = enter_call(ActiveCall(RunContext(RunOptions(""), key=self.rng.key, sample=self.rng.sample)))
        self._serving = serving(self.rng.keyed)
        self._serving.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._serving.__exit__(kind, error, traceback)
        leave_call(self._token)


_active: contextvars.ContextVar[ActiveCall | None] = contextvars.ContextVar("active call", default=None)
active_call = _active.get
"""The call of a node that goes on here, if one does."""
enter_call, leave_call = _active.set, _active.reset
serve_from(active_call)


# --- beginning a run --------------------------------------------------------------------------------------------------


def check_options(
    root: str,
    *,
    seed: Any = None,
    callbacks: Any = None,
    num_loop_steps: Any = None,
    timeout: Any = None,
    cancelled: Any = None,
    training: Any = None,
    debug: Any = False,
    cache: Any = None,
    dry_run: Any = False,
    profile: Any = False,
    device: Any = None,
) -> tuple[Key | None, LoopSteps | None, tuple[Callback, ...] | None]:
    """Options of a run that every level checks alike: the seed as a key, iterations by path, and callbacks as a tuple.

    Raises:
        PortTypeError: an option is of another kind than it has to be.
    """
    key, steps = check_seed(seed, root), check_loop_steps(num_loop_steps, root)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout != timeout):
        raise PortTypeError(f"{root}: timeout is {describe(timeout)} ({timeout!r}); expected seconds as a number, or None")
    for name, value in (("training", training), ("debug", debug)):
        if not (value is None or isinstance(value, bool)):
            raise PortTypeError(f"{root}: {name} is {describe(value)} ({value!r}); expected True or False")
    if cancelled is not None and not callable(cancelled):
        raise PortTypeError(f"{root}: cancelled is {describe(cancelled)}; expected a function without arguments that tells whether to stop")
    if cache is not None and not isinstance(cache, NodeCache):
        raise PortTypeError(f"{root}: cache is {describe(cache)}; expected a NodeCache, as cache=NodeCache(max_bytes=2**30)")
    if not isinstance(dry_run, bool) and dry_run != "fake":
        raise PortTypeError(f"{root}: dry_run is {describe(dry_run)} ({dry_run!r}); expected True, False or 'fake'")
    if profile is not False:
        check_profile(profile, root)
    if device is not None:
        try:
            torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise PortTypeError(f"{root}: device is {describe(device)} ({device!r}); expected one of PyTorch's, as 'cuda:0'") from error
    return key, steps, None if callbacks is None else callbacks_of(callbacks, root)


COMMON_OPTIONS = tuple(check_options.__kwdefaults__ or ())
"""Names of options that :func:`check_options` looks at."""


def new_run(
    root: str,
    *,
    seed: Any = None,
    callbacks: Callback | Iterable[Callback] | None = None,
    num_loop_steps: int | Mapping[str, int] | None = None,
    timeout: float | None = None,
    cancelled: Callable[[], bool] | None = None,
    training: bool | None = None,
    debug: bool = False,
    cache: NodeCache | None = None,
    dry_run: bool | str = False,
) -> RunContext:
    """A run that starts now at the level called ``root``.

    Inside the call of a node of another run it goes on with that one's path, draws, callbacks, limits and mode, as far as it is
    not told otherwise.

    Raises:
        PortTypeError: an option is of another kind than it has to be.
    """
    key, steps, told = check_options(
        root,
        seed=seed,
        callbacks=callbacks,
        num_loop_steps=num_loop_steps,
        timeout=timeout,
        cancelled=cancelled,
        training=training,
        debug=debug,
        cache=cache,
        dry_run=dry_run,
    )
    cached, pause = None if cache is None else CachedRun(cache), claim_request()
    deadline = None if timeout is None else time.monotonic() + timeout
    if (outer := active_call()) is None:
        options = RunOptions(root, told or (), cancelled, deadline, bool(training), bool(debug), batch=meeting.get(), cache=cached)
        options.pause, options.is_dry = pause, bool(dry_run)
        run = RunContext(options, key=key, num_loop_steps=steps)
        return run if pause is None else pause.begin(run)
    inner = outer.child()
    around = inner.options
    stops = around.cancelled if cancelled is None else cancelled if around.cancelled is None else _either(cancelled, around.cancelled)
    inner.options = replace(
        around,
        callbacks=around.callbacks if told is None else told,
        cancelled=stops,
        deadline=min([limit for limit in (deadline, around.deadline) if limit is not None], default=None),
        training=around.training if training is None else training,
        debug=bool(debug or around.debug),
        is_dry=bool(dry_run),
        taken=None,
        cache=cached or around.cache,
        pause=pause,
    )
    inner.num_loop_steps = steps
    if key is not None:
        inner.key = key
    return inner if pause is None else pause.begin(inner)


def refuse_unknown(run: Callable[..., Any], options: Iterable[str], where: str) -> None:
    """Refuses options that a level's ``run`` does not have.

    Raises:
        TypeError: names the option, and the nearest.
    """
    known = [name for name, option in inspect.signature(run).parameters.items() if option.kind is not option.VAR_KEYWORD]
    for name in options:
        if name not in known:
            raise TypeError(f"{where} has no option {name!r}; {suggest(name, known)}")


def _either(first: Callable[[], bool], second: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: bool(first() or second())


def check_seeds_fit(key: Key | None, values: Mapping[str, Any], where: str) -> None:
    """Refuses seeds of another number than there are samples, as far as the inputs tell.

    Raises:
        PortError: names both numbers.
    """
    if type(key) is not tuple:
        return
    sizes = {
        name: len(value)
        for name, value in values.items()
        if isinstance(value, (list, tuple)) or (isinstance(value, Tensor) and value.dim())
    }
    if sizes and len(key) not in sizes.values():
        raise PortError(f"{where}: {len(key)} seeds, and the inputs hold {sizes} samples; give one seed for each sample, or a single one")


def split_path(name: str) -> tuple[Path, str]:
    """The path and the port of what users write: ``first/a.y`` is (("first", "a"), "y")."""
    path, _, port = name.rpartition(".")
    return tuple(part for part in path.split("/") if part), port


def requested(outputs: str | Sequence[str], where: str) -> list[str]:
    """Names of outputs as a list; one name alone is meant as one.

    Raises:
        PortTypeError: it is something else.
    """
    if isinstance(outputs, str):
        return [outputs]
    names = list(outputs) if isinstance(outputs, Iterable) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise PortTypeError(
            f"{where}: outputs is {describe(outputs)}; expected names, as outputs=['image'], or ports inside, as 'node.port'"
        )
    return names
