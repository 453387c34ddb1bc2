"""The log of a world: an append-only chain of commits, whatever it is written to.

    start <- stage <- stage <- ... <- pass <- stage <- ...      each commit names its parent; the newest is the head
                        \\- fork, in a storage of its own         a rewind is a commit whose parent is an older one

A commit holds where the world is (pass, stage, seed), what changed since its parent (:mod:`wgtorch.storage.snapshot`), and what
the stage left to be looked at. Now and then one holds all of it, when more than that has been written since: so a pass costs
what is new in it, and any moment is read without going back to the beginning.

**When it is written.** The commits of a pass are written together at its end, in one durable write; earlier where a pass stops or
fails, where somebody reads them, and where stages took longer than writing costs (:attr:`CommitLog.worth`), so that a kill takes no
more work than that. What a model behind an API answered and was paid for is written, and synced, at once.

**For who builds on it.** A world writes with :meth:`~CommitLog.hold` around, then ``store`` (a complete state), ``keep_trace`` and
``keep_life``, which makes one commit of all three. It is read by ``commits()`` (oldest first), ``life_at(commit)``, ``read(step)``,
``action_of(commit)``, ``traces()``; ``pinned()`` gives a view that stays as it is while a writer goes on. ``rewind(commit)`` and
``fork(commit, target)`` branch. A kind of storage gives five methods: ``_exclusive``, ``_load``, ``_write``, ``_body``, ``_take`` (and
``_tensor``), and keeps what it is given. All may be called from several threads; only one run may hold a storage.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar, Self

from torch import Tensor

from wgtorch.core.errors import StorageError
from wgtorch.storage.base import Life, Storage
from wgtorch.storage.commit import KINDS, Body, Commit, Moment, Stored
from wgtorch.storage.log_reader import LogReader
from wgtorch.storage.snapshot import LEAVES, Evolution, KnownLists, TensorRef, apply, count_leaves
from wgtorch.world_runtime.state import State

WHOLE_AFTER = 8
"""A commit holds the whole snapshot when the changes since the last such one take this many times its size."""
_UNSYNCED = 0.5  # seconds of work that a power cut may take inside a pass


@lru_cache(maxsize=4)
def _second(since: int) -> str:
    """A second since 1970 as ISO 8601 without its zone: a pass asks for one many times."""
    return datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _stay() -> None:
    """What a pinned view does in place of taking in what was written since."""


@dataclass(slots=True)
class _Pending:
    """What was handed in since the last commit."""

    stored: tuple[int, str, State, Mapping[str, Any]] | None = None
    traces: list[Mapping[str, Any]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)


class CommitLog(LogReader):
    """What all kinds of storage have in common. See the module for what it offers and what a kind gives.

    Args:
        max_snapshots: how many stored states are kept; the oldest are dropped. None keeps all.
    """

    worth: ClassVar[float] = 0.02
    """Seconds of work after which a stage is written before its pass ends: a kill may take as much."""

    def __init__(self, max_snapshots: int | None = None) -> None:
        if max_snapshots is not None and (isinstance(max_snapshots, bool) or not isinstance(max_snapshots, int) or max_snapshots < 1):
            raise StorageError(f"max_snapshots {max_snapshots!r}: expected at least 1, or None to keep all")
        super().__init__(max_snapshots)
        self._pending = _Pending()
        self._is_held = False
        self._since_whole: tuple[str | None, int, int] = (None, 0, 0)  # head, weight of the changes since, weight of the whole
        self._unwritten: list[Moment] = []
        self._follows: str | None = None  # the commit that the first of them follows
        self._written = self._synced = time.monotonic()
        self._unsynced = False
        self._compared: tuple[Any, list[Any], Any, Any, list[Any]] = (None, [], None, None, [])
        self._seen: State | None = None  # of the newest commit
        self._lists: KnownLists = {}  # of the contents of this run
        self._kept: Life | None = None  # the newest of this run

    # --- what a kind gives --------------------------------------------------------------------------------------------

    def _exclusive(self) -> AbstractContextManager[None]:
        """Keeps other writers away, and makes ready to write."""
        return nullcontext()

    def _write(self, parent: str | None, moments: list[Moment]) -> list[Commit]:
        """Writes commits that follow each other, all or none; ``parent`` is the id of the one before."""
        raise NotImplementedError

    def _is_due(self) -> bool:
        """True where something large waits to be written."""
        return False

    def _take(self, tensor: Tensor, path: str) -> TensorRef:
        """How a tensor is named in snapshots."""
        return TensorRef(tensor)

    def _sync(self) -> None:
        """Has on disk what was written."""

    def _weigh(self, body: Body) -> int:
        """How large a body will be."""
        return sum(count_leaves(change[2]) for change in body.changes) if body.whole is None else count_leaves(body.whole)

    def _starts_anew(self) -> bool:
        """True where the next commit is to hold all, so that those before it can be dropped."""
        return False

    def _show(self, step: int, state: State) -> str:
        """Writes a state for people to look at; returns the name of its folder."""
        return str(step)

    def _drop_old(self) -> None:
        """Takes away what ``max_snapshots`` no longer keeps."""

    # --- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps other writers away while a run lasts.

        Raises:
            StorageError: another run writes here.
        """
        with self._exclusive():
            self._load()
            self._is_held, self._pending, self._written = True, _Pending(), time.monotonic()
            if self._unwritten and self._follows != (None if self._head is None else self._head.id):
                self._unwritten = []  # they could not be written, and somebody else has lived on since
            try:
                yield
                self._end()
            except BaseException:
                with suppress(StorageError, OSError):  # the error that ended the run is the one to tell of
                    self._end()
                raise
            finally:
                self._is_held, self._lists, self._kept = False, {}, None

    def store(self, step: int, state: State, content: Mapping[str, Any]) -> str:
        """Keeps a complete state and the content after it, with the next :meth:`keep_life`; at once where no run holds the storage.

        Returns:
            The name of its folder.

        Raises:
            StorageError: something in it cannot be stored; names its path.
        """
        with self._writing():
            known = self._newest()
            if state is not self._seen:
                Evolution(self._take).evolve(known.get("slots"), state.as_dict(), ("slots",))
            self._content(known["content"], content)
            name = self._show(step, state)
            self._pending.stored = (step, name, state, content)
            return name

    def keep_trace(self, entry: Mapping[str, Any]) -> None:
        """Keeps what a stage left to be looked at, with the next :meth:`keep_life`."""
        with self._lock if self._is_held else self._writing():
            self._pending.traces.append(entry)

    def keep_answers(self, answers: Iterable[Mapping[str, Any]]) -> None:
        """Keeps what models behind an API answered in the stage that runs, at once; what cannot be stored is asked for again."""
        with self._writing():
            held, self._pending = self._pending, _Pending()
            for answer in answers:
                with suppress(StorageError):
                    self._pending.answers.append(Evolution(self._take).fresh(dict(answer), ("answers",)))
            try:
                if self._pending.answers:
                    self._commit(None, "paid")
                    self._write_waiting(is_synced=True)
            finally:
                self._pending = held

    def keep_life(self, life: Life) -> None:
        """Makes a commit of a life as it is now, if anything is new.

        It is written with those of its pass, see the module. ``life.cause`` may say ``is_last``: the end of the pass follows at once.
        """
        with self._lock if self._is_held else self._writing():
            self._commit(life)
            self._kept = life
            if not self._unwritten:
                return
            now = time.monotonic()
            if life.cause.get("kind") == "pass":
                self._write_waiting(is_synced=True)
            elif self._is_due() or (now - self._written > self.worth and not life.cause.get("is_last")):
                self._write_waiting(is_synced=now - self._synced > _UNSYNCED)

    def rewind(self, commit: Commit, life: Life) -> None:
        """Goes back to a commit: what comes next follows it. What lay after it stays in the log, and off the chain."""
        with self._writing():
            self._flush()
            self._head = self._known(commit.id)
            self._commit(replace(life, cause={"kind": "rewind"}))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock:
            if self._is_held:
                yield
                return
            with self.hold():
                yield

    def _end(self) -> None:
        """The end of a run: what was told by its items alone is compared once more, for one may have been changed in place."""
        with self._lock:
            if self._kept is not None and self._lists:
                self._lists, self._compared = {}, (None, [], None, None, [])
                self._commit(self._kept, "edit")
        self._flush()

    def _flush(self) -> None:
        """Commits what was handed in and no life followed, and has all on disk."""
        with self._lock:
            if self._pending.stored is not None or self._pending.traces:
                self._commit(None)
            self._write_waiting(is_synced=True)

    def _look(self) -> None:
        if self._is_held:
            self._write_waiting(is_synced=False)
        else:
            self._load()

    def _write_waiting(self, *, is_synced: bool) -> None:
        """Writes the commits that wait for it, and has them on disk where that is asked for."""
        moments = self._unwritten
        if moments:
            self._or_whole(moments[0])
            commits = self._write(self._follows, moments)
            for commit in commits:
                self._advance(commit)
            self._remember(commits[-1], moments[-1].after)
            self._unwritten, self._unsynced, self._written = [], True, time.monotonic()
        if is_synced and self._unsynced:
            self._sync()
            self._unsynced, self._synced = False, time.monotonic()
        if moments and any(moment.commit.stored for moment in moments):
            self._drop_old()

    def _newest(self) -> Any:
        """The snapshot at the newest commit, written or not."""
        return self._unwritten[-1].after if self._unwritten else self._snapshot(self._head)

    def _commit(self, life: Life | None, kind: str | None = None) -> None:
        """Makes a commit, which :meth:`_write_waiting` writes."""
        pending, before = self._pending, self._newest()
        last = self._unwritten[-1].commit if self._unwritten else self._head
        evolution = Evolution(self._take)
        cause: Mapping[str, Any] = {} if life is None else life.cause
        kind = kind or cause.get("kind", "life" if life is not None else "stored" if pending.stored else "failed")
        assert kind in KINDS, f"no kind of commit: {kind!r}"
        stored, after = None, before
        own: dict[str, Any] = {}
        content, schema, slots = before["content"], before["schema"], before["slots"]
        if life is not None:
            state = life.state
            slots = None if state is None else state.as_dict()
            if state is None or schema != list(state.schema):
                schema = None if state is None else list(state.schema)
        if pending.stored is not None:
            stored, own = self._placed(before, {"slots": slots}, life, evolution)
        if life is not None:  # what did not change is not compared again
            content, changed = self._content(content, life.content)
            evolution.changes += changed
        if own or schema is not before["schema"] or slots is None or "complete" in before:
            fields = {"content": content, "schema": schema, "slots": slots, **({"complete": own} if own else {})}
            after = evolution.evolve({**before, "content": content}, fields)
        elif kind != "pass" or life is None or life.state is not self._seen or content is not before["content"]:
            held = before["slots"]
            other = {
                name: new
                for name, value in slots.items()
                if not (value is held[name] and type(value) in LEAVES)
                and (new := evolution.evolve(held[name], value, ("slots", name))) is not held[name]
            }
            if other or content is not before["content"]:
                after = {**before, "content": content, "slots": {**held, **other} if other else held}
        if life is not None:
            self._seen = life.state
        position: Any = life if life is not None else last
        passes, stage, seed = (0, 0, None) if position is None else (position.passes, position.stage, position.seed)
        lived = None if position is None else position.id if life is not None else position.life
        is_new = evolution.changes or stored or pending.traces or pending.answers or kind in ("rewind", "fork")
        if not is_new and last is not None and (passes, stage, seed, lived) == (last.passes, last.stage, last.seed, last.life):
            return
        action = None if (given := cause.get("action")) is None else evolution.fresh(given, ("action",))
        second, fraction = divmod(time.time(), 1)
        now = f"{_second(int(second))}.{int(fraction * 1000):03d}+00:00"
        body = Body(evolution.changes, None, action, pending.traces, pending.answers)
        if not self._unwritten:
            self._follows = None if self._head is None else self._head.id
        commit = Commit("", None, kind, passes, stage, cause.get("stage"), seed, lived, now, stored)
        self._unwritten.append(Moment(commit, body, after))
        self._pending = _Pending()

    def _content(self, before: Any, content: Mapping[str, Any]) -> tuple[Any, list[Any]]:
        """The content's snapshot and what changed of it. It is compared once for every content that stages hand on.

        A content is taken for the one of before when it is the same mapping of the same values; what is changed inside of them in
        place is seen when a stage writes the content next, and in old items of long lists at the end of the run.
        """
        seen, fields, start, after, changed = self._compared
        if seen is content and fields == [(key, id(value)) for key, value in content.items()]:
            if before is after:
                return after, []
            if before is start:
                return after, changed
        evolution = Evolution(self._take, self._lists)
        after = evolution.evolve(before, content, ("content",))
        self._compared = (content, [(key, id(value)) for key, value in content.items()], before, after, evolution.changes)
        return after, evolution.changes

    def _placed(
        self, before: Mapping[str, Any], after: Mapping[str, Any], life: Life | None, evolution: Evolution
    ) -> tuple[Stored, dict[str, Any]]:
        """Where the complete state that was handed in is to be found, and what of it this commit has to hold itself."""
        assert self._pending.stored is not None
        step, name, state, content = self._pending.stored
        own: dict[str, Any] = {}
        where = "own"
        if before["schema"] == list(state.schema) and evolution.is_same(before["slots"], state.as_dict()):
            where = "before"
        elif life is not None and life.state is state:
            where = "after"
        else:
            own |= {"schema": list(state.schema), "slots": state.as_dict()}
        is_after = life is not None and (content is life.content or evolution.is_same(evolution.fresh(content, ("content",)), life.content))
        if not is_after:
            own["content"] = content
        return Stored(step, name, where, "after" if is_after else "own"), own

    def _or_whole(self, first: Moment) -> None:
        """Has the first of the commits that are written hold the whole snapshot when that has become worth it."""
        head, since, size = self._since_whole
        if self._head is None:
            first.hold_whole()
            return
        if head != self._head.id:
            since, size = self._weights(self._head)
        if self._starts_anew() or since >= WHOLE_AFTER * max(size, 1):
            size = self._weigh(replace(first.body, changes=[], whole=first.after))
            if self._starts_anew() or since >= WHOLE_AFTER * size:
                first.hold_whole()
                return
            size = max(size, since * 3 // (2 * WHOLE_AFTER))  # not weighed again before half as much again was written
        self._since_whole = (self._head.id, since, size)

    def _weights(self, commit: Commit) -> tuple[int, int]:
        """(weight of the changes since the last whole snapshot, its own weight)."""
        since = 0
        for one in self._back_from(commit):
            if one.is_whole:
                return since, one.weight
            since += one.weight
        return since, 1

    def _advance(self, commit: Commit) -> None:
        """Makes a commit that was written the head."""
        _, since, size = self._since_whole
        self._since_whole = (commit.id, 0, commit.weight) if commit.is_whole else (commit.id, since + commit.weight, size)
        head, steps = self._steps
        if commit.parent == head and commit.stored is not None:
            steps[commit.stored.step] = commit
        if commit.parent == head:
            self._steps = (commit.id, steps)
        if self._head is not None and self._head.id in self._cursors:
            self._cursors.move_to_end(self._head.id, last=False)  # forgotten first
        self._commits[commit.id] = commit
        self._head = commit

    @property
    def is_held(self) -> bool:
        """True while a run of this process holds the storage."""
        return self._is_held

    def pinned(self) -> Self:
        """A view of the log as it is now, for readers: it stays so while a writer goes on."""
        with self._lock:
            self._look()
            view = object.__new__(type(self))
            view.__dict__.update(self.__dict__, _pending=_Pending(), _unwritten=[], _is_held=False, _load=_stay)
            view._steps = (self._steps[0], dict(self._steps[1]))
            return view

    # --- branching ----------------------------------------------------------------------------------------------------

    def fork(self, commit: Commit, target: Storage, life: Life) -> None:
        """Has another, empty storage share the past up to a commit, and own what follows.

        Raises:
            StorageError: the target holds something already, or cannot share.
        """
        if not isinstance(target, CommitLog):
            raise StorageError(f"{target!r}: keeps no log, so it cannot hold a fork; expected a folder, an address or memory")
        with self._lock:
            view = self.pinned()
            commit = view._known(commit.id)
            if target.head() is not None:
                raise StorageError(f"{target}: holds a world's past already; a fork needs a new or empty state_dir")
            life = replace(life, cause={"kind": "fork"})
            if not target._share(view, commit, life):
                with target._writing():
                    for one in list(view._back_from(commit))[::-1]:
                        if view.has_body(one):
                            target._copy(view, one)
                    target._commit(life)

    def _share(self, source: CommitLog, commit: Commit, life: Life) -> bool:
        """Shares the past of another storage without a copy and writes the fork's first commit; False where it cannot."""
        return False

    def _copy(self, source: CommitLog, commit: Commit) -> None:
        """Writes another storage's commit as the next of this one."""
        body = source._body(commit)

        def own(value: Any) -> Any:
            if isinstance(value, TensorRef):
                return self._take(source._tensor(value), "")
            if isinstance(value, dict):
                return {key: own(item) for key, item in value.items()}
            return type(value)(map(own, value)) if isinstance(value, (list, tuple)) else value

        is_whole = commit.is_whole or self._head is None
        whole = own(source._snapshot(commit)) if is_whole else None
        changes = [] if is_whole else [[at, word, own(value)] for at, word, value in body.changes]
        after = whole if is_whole else apply(self._snapshot(self._head), changes)
        copied = Body(changes, whole, own(body.action), body.traces, own(body.answers))
        self._follows = None if self._head is None else self._head.id
        self._unwritten = [Moment(commit, copied, after)]
        self._write_waiting(is_synced=False)

    # --- copies -------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_lock"]
        if state.pop("_load", None) is not None:  # a pinned view finds its files again, and stays where it was
            state["_pinned_at"] = None if self._head is None else self._head.id
        fresh = {"_cursors": OrderedDict(), "_pending": _Pending(), "_unwritten": [], "_seen": None, "_is_held": False}
        return {**state, **fresh, "_compared": (None, [], None, None, []), "_lists": {}, "_kept": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        is_pinned, head = "_pinned_at" in state, state.pop("_pinned_at", None)
        self.__dict__.update(state)
        self._lock = threading.RLock()
        if is_pinned:
            self._load()
            self.__dict__.update(_load=_stay, _head=None if head is None else self._known(head))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = copy.copy(self)  # commits never change, so they are shared
        made.__dict__.update(_commits=dict(self._commits), _steps=(self._steps[0], dict(self._steps[1])))
        return made
