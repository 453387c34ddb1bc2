"""What is read of a log: moments, stored steps, traces."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from wgtorch.core.errors import StorageError
from wgtorch.storage.base import Life
from wgtorch.storage.commit import Body, Commit, Stored
from wgtorch.storage.snapshot import TensorRef, apply, materialise
from wgtorch.world_runtime.state import State

_CURSORS = 48
"""Snapshots that are kept in memory, so that moments beside them are read without going back far. They share what is the same."""


class LogReader:
    """The reading half of :class:`~wgtorch.storage.log.CommitLog`.

    Args:
        max_snapshots: how many stored states are kept; None for all.
    """

    def __init__(self, max_snapshots: int | None = None) -> None:
        self.max_snapshots = max_snapshots
        self._commits: MutableMapping[str, Commit] = {}
        self._head: Commit | None = None
        self._lock = threading.RLock()
        self._cursors: OrderedDict[str, Any] = OrderedDict()
        self._steps: tuple[str | None, dict[int, Commit]] = (None, {})

    # --- what a kind gives --------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Takes in the commits that were written since: sets ``_commits`` and ``_head``."""

    def _look(self) -> None:
        """Takes in all that was written, and what this process is about to write."""
        self._load()

    def _body(self, commit: Commit) -> Body:
        """What a commit changed."""
        raise NotImplementedError

    def _tensor(self, ref: TensorRef) -> Tensor:
        """The tensor of a snapshot."""
        assert ref.tensor is not None
        return ref.tensor

    def _live(self, ref: TensorRef) -> Tensor:
        """The same, as it is in memory where it is."""
        return self._tensor(ref)

    # --- reading ------------------------------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """Numbers of the stored steps, oldest first."""
        with self._lock:
            return sorted(self._stored())

    def read(self, step: int) -> tuple[State, dict[str, Any]]:
        """A stored state and the content after it.

        Raises:
            StorageError: there is no such step, or what lies there is damaged.
        """
        return self.read_state(step), self.read_content(step)

    def read_state(self, step: int) -> State:
        """A stored state without its content, which may be large: see :meth:`read`."""
        commit, where = self._stored_at(step)
        with self._lock, _said(f"{self}: step {step}"):
            after = self._snapshot(commit)
            source = {"own": after.get("complete"), "after": after}.get(where.state)
            return self._state(self._snapshot(self._parent(commit)) if source is None else source)

    def read_content(self, step: int) -> dict[str, Any]:
        """The content after a stored state: see :meth:`read`."""
        commit, where = self._stored_at(step)
        with self._lock, _said(f"{self}: step {step}"):
            after = self._snapshot(commit)
            return materialise((after if where.content == "after" else after["complete"])["content"], self._tensor)  # type: ignore[no-any-return]

    def read_life(self) -> Life | None:
        """The life that was kept last; None when there is none."""
        with self._lock:
            self._look()
            return None if self._head is None or self._head.life is None else self.life_at(self._head)

    def life_at(self, commit: Commit, *, live: bool = False) -> Life:
        """The life as it was at a commit.

        Args:
            commit: which.
            live: take tensors that the process has in memory as they are, and not from a file again.

        Raises:
            StorageError: the commit is unknown, or what lies there is damaged.
        """
        with self._lock, _said(f"{self}: {commit}"):
            snapshot = self._snapshot(self._known(commit.id))
            get = self._live if live else self._tensor
            state = None if snapshot["schema"] is None else self._state(snapshot, get)
            content = materialise(snapshot["content"], get)
            life = Life(content, state, commit.passes, commit.stage, commit.seed)
            life.id = commit.life or life.id
            return life

    def action_of(self, commit: Commit) -> Any:
        """The user's action that the stage of a commit was given."""
        with self._lock, _said(f"{self}: {commit}"):
            return materialise(self._body(commit).action, self._tensor)

    def answers(self) -> list[dict[str, Any]]:
        """What models behind an API answered in a stage that did not end here, at the newest commit: see :meth:`CommitLog.keep_answers`."""
        found: list[dict[str, Any]] = []
        head = self.head()
        with self._lock:
            for commit in self._back_from(head):
                assert head is not None
                if (commit.life, commit.passes, commit.stage) != (head.life, head.passes, head.stage):
                    break
                if commit.kind in ("paid", "failed") and self.has_body(commit):
                    with _said(f"{self}: {commit}"):
                        found += materialise(self._body(commit).answers, self._tensor)
        return found

    def traces_of(self, commit: Commit) -> list[dict[str, Any]]:
        """What the stages left that a commit holds."""
        with self._lock, _said(f"{self}: {commit}"):
            return [dict(entry) for entry in self._body(commit).traces]

    def head(self) -> Commit | None:
        """The newest commit."""
        with self._lock:
            self._look()
            return self._head

    def commits(self) -> list[Commit]:
        """The chain from the first commit to the newest."""
        with self._lock:
            self._look()
            return [] if self._head is None else list(self._back_from(self._head))[::-1]

    def traces(self) -> list[dict[str, Any]]:
        """What stages left, in the order of the passes; of a stage that ran again, the last."""
        found: dict[tuple[int, int], dict[str, Any]] = {}
        with self._lock:
            first = 0 if self.max_snapshots is None else min(self._stored(), default=0) - 1  # the oldest that stays began before
            for commit in self.commits():
                if commit.passes >= first and self.has_body(commit):
                    with _said(f"{self}: {commit}"):
                        for entry in self._body(commit).traces:
                            if entry["pass"] >= first:
                                found[entry["pass"], entry["place"]] = dict(entry)
            return [found[key] for key in sorted(found)]

    # --- private steps ------------------------------------------------------------------------------------------------

    def has_body(self, commit: Commit) -> bool:
        """False where ``max_snapshots`` dropped what a commit held."""
        return True

    def _known(self, commit_id: str) -> Commit:
        try:
            return self._commits[commit_id]
        except KeyError:
            raise StorageError(f"{self}: commit {commit_id[:12]} is missing; a file of the log was taken away, or damaged") from None

    def _parent(self, commit: Commit) -> Commit | None:
        return None if commit.parent is None else self._known(commit.parent)

    def _back_from(self, commit: Commit | None) -> Iterator[Commit]:
        """A commit, its parent, and so on to the first."""
        while commit is not None:
            yield commit
            commit = self._parent(commit)

    def _stored_at(self, step: int) -> tuple[Commit, Stored]:
        with self._lock:
            stored = self._stored()
        if step not in stored:
            raise StorageError(f"{self}: no step {step}; there are {sorted(stored)}")
        commit = stored[step]
        assert commit.stored is not None
        return commit, commit.stored

    def _stored(self) -> dict[int, Commit]:
        """Commits of the stored steps on the chain, as many as are kept."""
        self._look()
        head, steps = self._steps
        newest = None if self._head is None else self._head.id
        if head != newest:
            found: dict[int, Commit] = {}
            for commit in self._back_from(self._head):
                if commit.id == head:
                    found = {**steps, **found}
                    break
                if commit.stored is not None:
                    found.setdefault(commit.stored.step, commit)
            steps = found
            self._steps = (newest, steps)
        if self.max_snapshots is None or len(steps) <= self.max_snapshots:
            return steps
        return {step: steps[step] for step in sorted(steps)[-self.max_snapshots :]}

    def _snapshot(self, commit: Commit | None) -> Any:
        """The snapshot at a commit."""
        if commit is None:
            return {"content": {}, "schema": None, "slots": None}
        if commit.id in self._cursors:
            return self._cursors[commit.id]
        path: list[tuple[Commit, Body | None]] = []
        for one in self._back_from(commit):
            if one.id in self._cursors:
                path.append((one, None))
                break
            body = self._body(one)
            path.append((one, body))
            if body.whole is not None:
                break
        snapshot: Any = None
        for index, (one, held) in enumerate(reversed(path)):
            if held is None:
                snapshot = self._cursors[one.id]
            else:
                snapshot = held.whole if held.whole is not None else apply(snapshot, held.changes)
            if index and index % max(len(path) // 16, 16) == 0:
                self._remember(one, snapshot)
        if not isinstance(snapshot, dict) or not {"content", "schema", "slots"} <= snapshot.keys():
            raise StorageError(f"{self}: {commit}: holds no snapshot of a world")
        self._remember(commit, snapshot)
        return snapshot

    def _remember(self, commit: Commit, snapshot: Any) -> None:
        self._cursors[commit.id] = snapshot
        self._cursors.move_to_end(commit.id)
        while len(self._cursors) > _CURSORS:
            self._cursors.popitem(last=False)

    def _state(self, snapshot: Mapping[str, Any], get: Callable[[TensorRef], Tensor] | None = None) -> State:
        """The State in a snapshot, or in what a commit holds of its own."""
        slots = materialise(snapshot["slots"], get or self._tensor)
        return State(schema=tuple(snapshot["schema"]), **slots)


@contextmanager
def _said(where: str) -> Iterator[None]:
    """Names the place of what is found to be damaged inside."""
    try:
        yield
    except StorageError as error:
        if where in str(error):
            raise
        raise StorageError(f"{where}: {error!s}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise StorageError(f"{where}: damaged, or not written by a storage: {type(error).__name__} {str(error)[:100]}") from error
