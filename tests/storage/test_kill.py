"""A process killed while it runs a world leaves a history that can be read, and a life that goes on to the same end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.world_blocks import assert_same, record_of, tiny_world

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


def test_what_a_power_cut_leaves_is_whole(tmp_path, monkeypatch):
    """Of every write only what was synced is sure to be there: cut off there, and at any byte after, the log is a whole earlier one."""
    sizes: dict[int, int] = {}
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (sizes.__setitem__(os.fstat(handle).st_ino, os.fstat(handle).st_size), fsync(handle))[1]
    )
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path / "s"})
    acknowledged = []
    for step in world.stream(num_steps=3, seed=7):
        if step.kind == "pass":
            (path,) = (tmp_path / "s" / "log").iterdir()
            assert sizes[path.stat().st_ino] == path.stat().st_size, "a pass, and what it stored, is on disk when it is told of"
            acknowledged.append(path.stat().st_size)
    assert tmp_path.joinpath("s").stat().st_ino in sizes and tmp_path.joinpath("s", "log").stat().st_ino in sizes
    whole = record_of(world)
    for size in {acknowledged[0], acknowledged[0] + 1, acknowledged[1] - 1, acknowledged[1] + 30}:
        cut = tmp_path / f"cut{size}"
        shutil.copytree(tmp_path / "s", cut)
        os.truncate(next((cut / "log").iterdir()), size)
        again = tiny_world()
        again.set_storage({"state_dir": cut})
        again.resume()
        again.run(num_steps=3 - again.life.passes)
        assert_same(record_of(again), whole)
    raw = next((tmp_path / "s" / "log").iterdir()).read_bytes()
    for came in (0, 10, 60, 200):  # the file had grown, the last of its bytes had not come
        zeros = tmp_path / f"zeros{came}"
        shutil.copytree(tmp_path / "s", zeros)
        keep = acknowledged[1] + came
        next((zeros / "log").iterdir()).write_bytes(raw[:keep] + bytes(len(raw) - keep))
        again = tiny_world()
        again.set_storage({"state_dir": zeros})
        again.resume().run(num_steps=3 - again.life.passes)
        assert_same(record_of(again), whole)
