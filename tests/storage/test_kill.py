"""A process killed while it runs a world leaves a history that can be read, and a life that goes on to the same end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.world_blocks import FULL
from wgtorch.storage import DirectoryStorage
from wgtorch.storage.base import Life
from wgtorch.world_runtime.state import State

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")]


def kill_worlds(folder: Path, **options: Any) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.storage.killing", str(folder), json.dumps(options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{options}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("max_snapshots", [None, 2])
def test_killed_before_operations_on_files(tmp_path, max_snapshots):
    found = kill_worlds(tmp_path, how="operations", trials=3, kills=3, max_snapshots=max_snapshots, seed=1)
    assert found["trials"] == 3 and found["kills"] >= 5


def test_killed_at_random_moments(tmp_path):
    found = kill_worlds(tmp_path, how="moments", trials=3, kills=2)
    assert found["trials"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("max_snapshots", [None, 1, 2])
def test_killed_before_every_operation_on_files(tmp_path, max_snapshots):
    found = kill_worlds(tmp_path, how="operations", trials=None, kills=2, max_snapshots=max_snapshots)
    assert found["trials"] == found["operations"] and found["kills"] >= found["operations"]


@pytest.mark.slow
def test_killed_at_many_random_moments(tmp_path):
    found = kill_worlds(tmp_path, how="moments", trials=100, kills=4, max_snapshots=2)
    assert found["trials"] == 100 and found["kills"] > 50


def test_everything_is_on_disk_before_it_is_named(tmp_path, monkeypatch):
    """What a loss of power needs: files and their folder are synced before the rename that shows them."""
    synced: set[int] = set()
    fsync, replace, rename = os.fsync, os.replace, Path.rename
    named: list[str] = []

    def check(source: Path, target: Path) -> None:
        named.append(Path(target).name)
        paths = [source, *source.rglob("*")] if source.is_dir() else [source]
        late = [path.name for path in paths if path.stat().st_ino not in synced]
        assert not late, f"{late} were not on disk when {target} was named"

    monkeypatch.setattr(os, "fsync", lambda handle: (synced.add(os.fstat(handle).st_ino), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda source, target: (check(Path(source), Path(target)), replace(source, target))[1])
    monkeypatch.setattr(Path, "rename", lambda source, target: (check(source, target), rename(source, target))[1])
    storage = DirectoryStorage(tmp_path)
    storage.store(0, State(**FULL), {"story": "s"})
    storage.keep_life(Life({"story": "s"}, State(**FULL), 1, 0, 1))
    assert named == ["00000", "life-1", "CURRENT"]
    assert tmp_path.stat().st_ino in synced
