"""Answers of models behind APIs that were paid for in a pass, so that a stage that runs again in it does not ask for them again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from wgtorch.core.errors import StorageError
from wgtorch.core.run.result_cache import ResultCache, UnfinishedResults
from wgtorch.storage.base import Life


class PaidAnswers:
    """Outputs of nodes that wait on a network, by life and pass; those of the pass before are kept too."""

    def __init__(self) -> None:
        self._by_pass: dict[tuple[str, int], UnfinishedResults] = {}
        self._begun = (0, 0)

    def begin(self, life: Life) -> None:
        """A run of the world begins where the life is now."""
        self._begun = (life.passes, life.stage)

    def of(self, life: Life, storage: Any) -> ResultCache:
        """For a stage of this pass, beside what came in tries before, of another process as well where the storage kept it."""
        passes, own = life.passes, (life.id, life.passes)
        self._by_pass = {key: known for key, known in self._by_pass.items() if key[0] == life.id and passes - 1 <= key[1] <= passes + 1}
        here = self._by_pass.setdefault(own, UnfinishedResults(max_bytes=None))
        if not len(here) and self._begun == (passes, life.stage) and (stored := getattr(storage, "answers", None)) is not None:
            here.put_stored(stored())
        keep = getattr(storage, "keep_answers", None)  # a storage of somebody's own may keep none
        return ResultCache(here, None if keep is None else partial(_keep, keep))


def _keep(keep: Callable[[list[dict[str, Any]]], None], answer: dict[str, Any]) -> None:
    """Has a storage keep an answer; where it cannot, the end of the pass will say so."""
    with suppress(OSError, StorageError):
        keep([answer])
