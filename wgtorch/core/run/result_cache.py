"""Outputs of I/O-bound nodes, kept so that a step, or a run, that failed does not call them again when it is made again.

first run    a: asked, kept    b: fails           what a brought goes to the level's UnfinishedResults
second run   a: given          b: asked again     nothing is left there once it succeeds
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from wgtorch.core.errors import PortTypeError, PythonAdvice, RunCancelled, RunTimeoutError, WgtorchError
from wgtorch.core.kinds import describe
from wgtorch.core.port import MISSING
from wgtorch.core.run.autocast import surroundings
from wgtorch.core.run.content_digest import ContentDigests, NoDigest, is_whole
from wgtorch.core.run.fingerprint import Fingerprints
from wgtorch.core.run.fork_safe_lock import fork_safe_lock

Key = tuple[Any, ...]
"""Place, iteration and sample of a call, and the key of its draws."""


@dataclass(eq=False, slots=True)
class _Result:
    """What one call brought.

    Args:
        key: of the call.
        child: that was called, held weakly; a digest of its config where another process made the call.
        values: that it was called with.
        result: of the call.
        size: bytes of the last two.
        surroundings: what held around the run, as autocast; empty where another process made the call.
        fingerprint: of the child when the run failed; None before that, and where nothing tells it.
    """

    key: Key
    child: weakref.ref[Any] | str
    values: dict[str, Any]
    result: Any
    size: int
    surroundings: bytes = b""
    fingerprint: bytes | None = None


class UnfinishedResults:
    """What nodes that wait, as on a model behind an API, brought in runs that failed: ``level.unfinished``.

    The next run of the level that makes the same call - the same node with the same config, inputs, iteration, item and, where it draws,
    seed - is given the result in place of a call. A result is given once, so nothing is left of a run that succeeded when made again,
    nor of one that was given answers and failed at them: where no call of a node that waits has failed, the next run asks anew.

    Example:
        >>> graph.run({"prompt": "the sea"}, seed=7)         # one of three models fails; the other two were paid for
        >>> graph.run({"prompt": "the sea"}, seed=7)         # one call
        >>> graph.unfinished.clear()                         # or: forget them

    Args:
        max_bytes: of all results and what they were asked with; the oldest go first. 0 keeps none, None any number.

    Attributes:
        bytes: what they take now.
    """

    def __init__(self, max_bytes: int | None = 2**28) -> None:
        self.bytes = 0
        self._results: list[_Result] = []
        self._lock = fork_safe_lock()
        self.max_bytes = max_bytes
        self._fingerprints = Fingerprints(ContentDigests(), persistent=False)

    @property
    def max_bytes(self) -> int | None:
        """Most bytes that are kept; may be set."""
        return self._max_bytes

    @max_bytes.setter
    def max_bytes(self, value: int | None) -> None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise PortTypeError(f"unfinished.max_bytes: found {describe(value)}; expected a number of bytes, or None for no limit")
        self._max_bytes = value
        with self._lock:
            self._trim()

    def clear(self) -> None:
        """Forgets all of them."""
        with self._lock:
            self._results.clear()
            self.bytes = 0

    def __len__(self) -> int:
        return len(self._results)

    def __bool__(self) -> bool:
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> UnfinishedResults:
        made = UnfinishedResults(self.max_bytes)
        for result in list(self._results):
            child = result.child if isinstance(result.child, str) else result.child()
            if isinstance(child, str):
                made.put([copy.deepcopy(result, memo)])
            elif child is not None:
                made.put([replace(result, child=weakref.ref(copy.deepcopy(child, memo)), fingerprint=None)])  # of the copied child
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return UnfinishedResults, (self.max_bytes,)

    def __repr__(self) -> str:
        return f"UnfinishedResults({len(self)} results, {self.bytes / 1e6:.1f} MB)"

    # --- what the engine asks ------------------------------------------------------------------------------------------

    def take(self, key: Key, child: Any, values: Mapping[str, Any], surroundings: bytes, seen: dict[int, bytes | None]) -> _Result | None:
        """A result of this call, which is no longer here then; None where there is none.

        Args:
            key, child, values, surroundings: of the call.
            seen: fingerprints by child as they were when the run came to it first, which a call may change.
        """
        with self._lock:
            if id(child) not in seen:  # before any call of it, also where nothing is kept of this one
                seen[id(child)] = self._fingerprint(child) if any(self._is_of(known, child) for known in self._results) else None
            for index, known in enumerate(self._results):
                if known.key != key or known.surroundings not in (b"", surroundings):
                    continue
                if is_same(known.values, dict(values)) and self._is_child(known, child, seen):
                    return self._drop(index)
        return None

    def put(self, results: Iterable[_Result]) -> None:
        """Takes what a run brought that is over."""
        with self._lock:
            for result in results:
                if not isinstance(result.child, str):
                    if (child := result.child()) is None:  # it was removed meanwhile
                        continue
                    result.fingerprint = result.fingerprint or self._fingerprint(child)
                self._results.append(result)
                self.bytes += result.size
            self._trim()

    def put_stored(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Takes what was told in another process. A result is given to a child of the same config."""
        self.put(_Result(tuple(entry["key"]), entry["child"], entry["values"], entry["result"], 0) for entry in entries)

    def _trim(self) -> None:
        while self.max_bytes is not None and self.bytes > self.max_bytes:
            self._drop(0)

    def _drop(self, index: int) -> _Result:
        result = self._results.pop(index)
        self.bytes -= result.size
        return result

    def _is_child(self, known: _Result, child: Any, seen: dict[int, bytes | None]) -> bool:
        if isinstance(known.child, str):
            return known.child == _described(child)
        return self._is_of(known, child) and known.fingerprint is not None and known.fingerprint == seen[id(child)]

    @staticmethod
    def _is_of(known: _Result, child: Any) -> bool:
        return not isinstance(known.child, str) and known.child() is child

    def _fingerprint(self, child: Any) -> bytes | None:
        """What a child computes with, in train and eval alike: these results are of runs without gradients."""
        try:
            return self._fingerprints.of(child)[1]
        except NoDigest:  # nothing tells whether it was changed, so it is asked again
            return None


class ResultCache:
    """Results of calls that one run brings, beside those of earlier runs that it is given.

    May be used from several threads.

    Attributes:
        has_given: a call was given the result of an earlier run.
        has_failed: a call of a node that waits has failed.

    Args:
        earlier: what earlier runs brought.
        on_keep: told of every result when it comes, as plain data and tensors for :meth:`UnfinishedResults.put_stored` in another process.
    """

    def __init__(self, earlier: UnfinishedResults, on_keep: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._earlier, self._on_keep = earlier, on_keep
        self.has_given = self.has_failed = False
        self._own: list[_Result] = []
        self._seen: dict[int, bytes | None] = {}
        self._surroundings = surroundings()
        self._bytes = 0
        self._lock = threading.Lock()

    def find(self, key: Key, child: object, values: Mapping[str, Any]) -> Any:
        """The result of this call in a run before, or MISSING."""
        known = self._earlier.take(key, child, values, self._surroundings, self._seen)
        if known is None:
            return MISSING
        self.has_given = True
        self._hold(known)
        return _snapshot(known.result)

    def keep(self, key: Key, child: object, values: Mapping[str, Any], result: Any) -> None:
        """Takes a result; not that of which no copy can be made."""
        try:
            own, answer = _snapshot(dict(values)), _snapshot(result)  # either may be changed in place by whoever has it
        except Exception:  # whatever a foreign class does when copied
            return
        self._hold(_Result(key, weakref.ref(child), own, answer, _size(own) + _size(answer), self._surroundings))
        if self._on_keep is not None and (described := _described(child)) is not None:
            self._on_keep({"key": key, "child": described, "values": own, "result": answer})

    def end(self) -> int:
        """Leaves all results for the next run; how many there are."""
        with self._lock:
            own, self._own, self._bytes = self._own, [], 0
        self._earlier.put(own)
        return len(own)

    def _hold(self, result: _Result) -> None:
        with self._lock:
            self._own.append(result)
            self._bytes += result.size
            limit = self._earlier.max_bytes
            while limit is not None and self._bytes > limit:
                self._bytes -= self._own.pop(0).size


_is_shared: ContextVar[bool] = ContextVar("the run is made for one of several who know nothing of each other", default=False)


@contextmanager
def keeping_nothing() -> Iterator[None]:
    """While it lasts, no run leaves anything for the next one, which may be of somebody else."""
    token = _is_shared.set(True)
    try:
        yield
    finally:
        _is_shared.reset(token)


class keeps_results:
    """While it lasts, what the nodes of a run bring that wait is kept for the next run, in case this one fails.

    Args:
        level: that runs.
        run: its context.
    """

    __slots__ = ("_results", "level", "run")

    def __init__(self, level: Any, run: Any) -> None:
        self.level, self.run = level, run

    def __enter__(self) -> None:
        options = self.run.options
        self._results = None
        is_wanted = not options.training and self.level.is_async and self.level.unfinished.max_bytes != 0
        if options.results is None and is_wanted and not _is_shared.get():
            options.results = self._results = ResultCache(self.level.unfinished)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._results is None:
            return
        self.run.options.results = None
        is_stopped = isinstance(error, (KeyboardInterrupt, RunCancelled, RunTimeoutError))
        if self._results.has_given and not self._results.has_failed and not is_stopped:
            return  # it fails at what the answers say, and is not to fail at the same ones for ever
        if isinstance(error, (Exception, KeyboardInterrupt)) and (count := self._results.end()):
            what, where = "1 answer that came is" if count == 1 else f"{count} answers that came are", self.level.block_id
            said = f"{what} kept: {where}, run again with the same inputs and seed, does not ask for it again (see unfinished)"
            error.add_note(PythonAdvice(said))  # a command's end is the end of what its process kept


def _described(child: object) -> str | None:
    """What tells a child's config from another; None where no config can name it, so that another process has none like it."""
    try:
        config = getattr(child, "to_config", lambda: repr(type(child)))()
    except WgtorchError:
        return None
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=repr).encode()).hexdigest()


def _snapshot(value: Any) -> Any:
    """A value that nobody else changes: its tensors, lists, mappings and objects are its own."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else copy.deepcopy(leaf), value, is_leaf=is_whole)


def _size(value: Any) -> int:
    """Bytes that a value takes, about."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(_size(key) + _size(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return sum(map(_size, value))
    return len(value) if isinstance(value, (str, bytes)) else int(getattr(value, "nbytes", 0)) or sys.getsizeof(value)


def is_same(first: Any, second: Any) -> bool:
    """True for equal values of equal types."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(is_same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(is_same, first, second))
    try:
        return bool(first == second)
    except Exception:  # whatever a foreign class does when compared, it is not known to be the same
        return False
