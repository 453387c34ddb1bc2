"""One entry of a world's log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from wgtorch.core.errors import StorageError
from wgtorch.core.json_text import expect
from wgtorch.storage.snapshot import Change

KINDS = ("life", "start", "stage", "skip", "paid", "failed", "edit", "pass", "stored", "rewind", "fork")


@dataclass(frozen=True, slots=True)
class Stored:
    """A complete state that a commit stores.

    Args:
        step: number of the pass that it ended in.
        name: of its folder.
        state: where the state is: ``before`` the commit, ``after`` it, or the commit's ``own``.
        content: likewise for the content after the update: ``after``, or ``own``.
    """

    step: int
    name: str
    state: str = "own"
    content: str = "own"


class Commit(NamedTuple):
    """A moment of a world's life that can be gone back to. It never changes.

    Args:
        id: its name; on disk the hash of all it says and holds.
        parent: id of the moment before; None for the first.
        kind: what led here: a ``stage`` that ran or was skipped, one skipped by hand (``skip``), one that ``failed``, what a model
            behind an API answered and was ``paid`` for, an ``edit``, the ``start`` of a call, the end of a ``pass``, ``rewind``,
            ``fork``, or ``stored`` and ``life`` where a storage was written to by itself.
        passes: whole passes behind the world.
        stage: index of the stage in the cycle that runs next.
        ran: id of the stage that led here.
        seed: root of all random draws.
        life: whose life it is; None where only states were stored.
        at: when, in UTC.
        stored: the complete state that was stored.
        weight: how large the change is.
        is_whole: holds all the world is, not only what changed.
    """

    id: str
    parent: str | None
    kind: str = "life"
    passes: int = 0
    stage: int = 0
    ran: str | None = None
    seed: int | None = None
    life: str | None = None
    at: str = ""
    stored: Stored | None = None
    weight: int = 0
    is_whole: bool = False

    def __str__(self) -> str:
        ran = f", {self.ran}" if self.ran else ""
        return f"commit {self.id[:12]} (pass {self.passes}, stage {self.stage}, {self.kind}{ran})"


@dataclass(slots=True)
class Body:
    """What a commit changed.

    Args:
        changes: since its parent, as :func:`wgtorch.storage.snapshot.apply` takes them.
        whole: the whole snapshot instead; None where there are changes.
        action: the user's action that the stage was given, as a snapshot.
        traces: what stages left to be looked at.
        answers: what models behind an API answered, and were paid for, as snapshots.
    """

    changes: list[Change] = field(default_factory=list)
    whole: dict[str, Any] | None = None
    action: Any = None
    traces: list[Mapping[str, Any]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)

    @property
    def held(self) -> list[Any]:
        """All in which tensors may be."""
        return [self.changes, self.whole, self.action, self.answers]


@dataclass(slots=True)
class Moment:
    """A commit that is not written yet.

    Args:
        commit: without its name, its parent and its weight.
        body: what it changed.
        after: the snapshot at it.
    """

    commit: Commit
    body: Body
    after: Any

    def hold_whole(self) -> None:
        """Holds the whole snapshot in place of what changed."""
        self.body.changes, self.body.whole = [], self.after

    def written(self, commit_id: str, parent: str | None, weight: int) -> Commit:
        """The commit that it has become."""
        return Commit(commit_id, parent, *self.commit[2:-2], weight, self.body.whole is not None)


_TEXT, _NUMBER = (str, type(None)), (int, type(None))


def commit_from(meta: Mapping[str, Any], commit_id: str, weight: int, where: str) -> Commit:
    """A commit from what a file says of it.

    Raises:
        StorageError: something in it is not what belongs there.
    """

    def get(name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        return expect(meta.get(name, default), kind, name, where, StorageError)

    stored = get("stored", (dict, type(None)))
    if stored is not None:
        step = expect(stored.get("step"), int, "stored.step", where, StorageError)
        texts = [expect(stored.get(name, "own"), str, f"stored.{name}", where, StorageError) for name in ("name", "state", "content")]
        if texts[1] not in ("before", "after", "own") or texts[2] not in ("after", "own"):
            raise StorageError(f"{where}: stored.state and stored.content are {texts[1:]}; not written by a storage")
        stored = Stored(step, *texts)
    return Commit(
        commit_id,
        get("parent", _TEXT),
        get("kind", str, "life"),
        get("passes", int, 0),
        get("stage", int, 0),
        get("ran", _TEXT),
        get("seed", _NUMBER),
        get("life", _TEXT),
        get("at", str, ""),
        stored,
        weight,
        get("whole", bool, False),
    )


def meta_of(moment: Moment) -> dict[str, Any]:
    """What a file says of a commit; what is as usual is left out."""
    commit, is_whole = moment.commit, moment.body.whole is not None
    meta: dict[str, Any] = {"kind": commit.kind, "passes": commit.passes, "stage": commit.stage}
    meta |= {"ran": commit.ran, "seed": commit.seed, "life": commit.life, "at": commit.at, "whole": is_whole}
    if commit.stored is not None:
        own = {"state": commit.stored.state, "content": commit.stored.content}
        meta["stored"] = {"step": commit.stored.step, "name": commit.stored.name, **own}
    return {name: value for name, value in meta.items() if value is not None and value is not False}
