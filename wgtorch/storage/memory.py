"""A storage that lives and dies with the process."""

from __future__ import annotations

import secrets
from collections import ChainMap
from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor

from wgtorch.storage.base import Life, register_storage
from wgtorch.storage.commit import Body, Commit, Moment
from wgtorch.storage.log import CommitLog
from wgtorch.storage.snapshot import TensorRef


@register_storage("memory")
class MemoryStorage(CommitLog):
    """Keeps the log in memory: what a world uses until it is given a folder.

    A fork into memory shares its parent's past without a copy, be that in memory or in a folder; of a folder it keeps the files
    open, so that they may be deleted meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bodies: dict[str, Body] = {}
        self._past: CommitLog | None = None

    def _write(self, parent: str | None, moments: list[Moment]) -> list[Commit]:
        commits = []
        weight, ids = sum(self._weigh(moment.body) for moment in moments), secrets.token_hex(20 * len(moments))
        for index, moment in enumerate(moments):
            commit = moment.written(ids[index * 40 : index * 40 + 40], parent, weight)
            self._bodies[commit.id] = moment.body
            commits.append(commit)
            parent, weight = commit.id, 0  # the first stands for all
        return commits

    def _body(self, commit: Commit) -> Body:
        body = self._bodies.get(commit.id)
        return body if body is not None or self._past is None else self._past._body(commit)  # type: ignore[return-value]

    def _tensor(self, ref: TensorRef) -> Tensor:
        if ref.tensor is None:
            assert self._past is not None
            return self._past._tensor(ref)
        return ref.tensor

    def _live(self, ref: TensorRef) -> Tensor:
        return ref.tensor if ref.tensor is not None or self._past is None else self._past._live(ref)  # type: ignore[return-value]

    def _share(self, source: CommitLog, commit: Commit, life: Life) -> bool:
        past: Mapping[str, Commit] = source._commits
        self._commits = ChainMap({}, past)  # type: ignore[arg-type]  # what the parent adds later lies on no chain of this one
        self._past, self._head = source, commit
        with self._writing():
            self._commit(life)
        return True

    def _take(self, tensor: Tensor, path: str) -> TensorRef:
        return TensorRef(tensor) if self._past is None else self._past._take(tensor, path)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        made = super().__deepcopy__(memo)
        made._bodies = dict(self._bodies)
        return made

    def __str__(self) -> str:
        return "the storage in memory"
