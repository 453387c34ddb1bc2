"""Versions of many dictionaries at once."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from wgtorch.core.run import dict_versions
from wgtorch.core.run.dict_versions import WatchedDicts, dict_version


@pytest.mark.parametrize("one_by_one", [False, True])
def test_whatever_changes_in_one_of_them_is_told_of_that_one(one_by_one: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if one_by_one:
        monkeypatch.setattr(dict_versions, "_is_readable", lambda: False)
    watched, rng = WatchedDicts(), random.Random(0)
    held: list[dict[Any, Any]] = [{index: "x"} for index in range(300)] + [vars(type("Kind", (), {"a": index})()) for index in range(50)]
    for entries in held:
        watched.append(entries)
    assert watched.versions() == watched.versions()
    assert list(WatchedDicts.each(watched.versions())) == list(map(dict_version, held))
    changes: tuple[Callable[[dict[Any, Any]], object], ...] = (
        lambda entries: entries.update(a=2),
        dict.clear,
        lambda entries: entries.setdefault("b", 1),
        dict.popitem,
        lambda entries: entries.update(c=entries),
    )
    for change in changes:
        at = rng.randrange(len(held))
        held[at]["first"] = 0
        before = watched.versions()
        change(held[at])
        after = watched.versions()
        assert after != before
        differing = [index for index, pair in enumerate(zip(*map(WatchedDicts.each, (before, after)), strict=True)) if pair[0] != pair[1]]
        assert differing == [at]
