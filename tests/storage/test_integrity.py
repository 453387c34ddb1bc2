"""What lies in a storage is what was written, or an error that names it; who reads beside a writer sees whole commits."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch

from tests.world_blocks import FULL, assert_same, record_of, tiny_world
from wgtorch.core.errors import StorageError
from wgtorch.storage import DirectoryStorage
from wgtorch.storage.base import Life
from wgtorch.storage.segment import MAGIC
from wgtorch.world import World
from wgtorch.world_runtime.state import State

MARKER = "wgtorch-storage.json"


def lived(folder: Path, passes: int = 3) -> World:
    world = tiny_world()
    world.set_storage({"state_dir": folder})
    world.run(num_steps=passes, seed=7)
    return world


def read_all(folder: Path) -> object:
    storage = DirectoryStorage(folder)
    storage.verify()
    return [storage.read(step) for step in storage.steps()], storage.read_life(), storage.traces()


def test_a_flipped_bit_anywhere_is_found_and_named(tmp_path):
    lived(tmp_path)
    (path,) = (tmp_path / "log").iterdir()
    raw = path.read_bytes()
    choose = random.Random(0)
    heads = [begin + byte for begin in range(len(raw)) if raw.startswith(MAGIC, begin) for byte in range(8, 24)]  # lengths and counts
    flips = [(at, choose.randrange(8)) for at in [*range(64), *range(len(raw) - 8, len(raw)), *choose.sample(range(len(raw)), 300)]]
    for at, bit in [*flips, *((at, bit) for at in heads for bit in (0, 6, 7))]:
        damaged = bytearray(raw)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=rf"{path.name}.*(damaged|expected a commit)"):
            read_all(tmp_path)
    path.write_bytes(raw)
    read_all(tmp_path)


def test_the_step_whose_tensor_was_changed_is_named(tmp_path):
    lived(tmp_path)
    storage = DirectoryStorage(tmp_path)
    commit = storage._stored()[2]
    ref = storage._snapshot(storage._parent(commit))["slots"]["artifacts"][0]
    file, blob = storage._blobs[ref.digest]
    with Path(str(file)).open("r+b") as handle:
        handle.seek(blob.start + blob.length - 1)
        handle.write(b"\x7f")
    again = DirectoryStorage(tmp_path)
    assert again.read(1)[0].complete
    with pytest.raises(StorageError, match=r"step 2: .*\.commits: a tensor: blob .* is not what was written \(its hash differs\)"):
        again.read(2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (b"[" * 100_000, "nested too deep to be read"),
        (b"5", "the change is int '5'; expected dict"),
        (b'{"changes": 5}', "changes is int '5'; expected list"),
        (b'{"changes": [[1]]}', "damaged: not enough values"),
        (b'{"changes": [[["content", "x", "y"], "set", 1]]}', "a change .* does not fit what it is to change"),
        (b'{"changes": [[["content"], "explode", 1]]}', "no change of this kind is known: 'explode'"),
        (b'{"changes": [[["content"], "set", {"$mapping": 5}]]}', r"\{'\$mapping': '5'\} is damaged"),
        (b'{"changes": [[["content"], "set", {"$number": "1e999"}]]}', r"\{'\$number': '1e999'\} is damaged"),
        (b'{"changes": [[["content", "t"], "set", {"$tensor": "nowhere"}]]}', "the tensor nowhere is missing"),
        (b'{"changes": [[["slots"], "set", 5]]}', "damaged, or not written by a storage"),
        (b'{"whole": {}}', "holds no snapshot of a world"),
        (zlib.compress(b" " * (65 << 20)), "holds more than 67108864 bytes of JSON, or is cut off"),
        (zlib.compress(b"{}" + b" " * 99)[:-3], "or is cut off"),
        (b"x" + b"{}", "cannot be unpacked"),
        (b'{"traces": [5]}', "a trace is int '5'; expected dict"),
        (b'{"x": ' + b"[" * 150 + b"1," * 2_000_000 + b"1" + b"]" * 150 + b"}", "holds 2000152 values; expected at most"),
    ],
    ids=[f"change{index}" for index in range(16)],
)
def test_what_somebody_else_wrote_is_refused_by_name(tmp_path, change, words):
    """Records whose hashes are right, and which no storage would write."""
    import json

    from wgtorch.storage.segment import digest_of, pack

    storage = DirectoryStorage(tmp_path)
    storage.keep_life(Life({"a": 1}, State(**FULL), 1, 0, 1))
    head = storage.head()
    assert head is not None
    meta = {"parent": head.id, "kind": "stage", "passes": 2, "stage": 0, "life": "x", "blobs": [[digest_of(change), len(change)]]}
    (path,) = (tmp_path / "log").iterdir()
    with path.open("ab") as handle:
        handle.writelines(pack(json.dumps(meta).encode(), [[change]])[1])
    with pytest.raises(StorageError, match=words):
        read_all(tmp_path)
        DirectoryStorage(tmp_path).life_at(DirectoryStorage(tmp_path).head())


@pytest.mark.parametrize(
    "meta",
    [
        {"passes": "one"},
        {"passes": True},
        {"stage": 1.5},
        {"seed": "7"},
        {"stored": 3},
        {"stored": {"step": "x"}},
        {"stored": {"step": 1, "state": "elsewhere"}},
        {"blobs": "none"},
        {"blobs": [["x", -1]]},
        {"parent": 5},
    ],
    ids=str,
)
def test_a_commit_that_says_odd_things_is_refused(tmp_path, meta):
    import json

    from wgtorch.storage.segment import pack

    storage = DirectoryStorage(tmp_path)
    storage.keep_life(Life({"a": 1}, None, 1, 0, 1))
    (path,) = (tmp_path / "log").iterdir()
    with path.open("ab") as handle:
        handle.writelines(pack(json.dumps({"blobs": [["0" * 40, 2]], **meta}).encode(), [[b"{}"]])[1])
    with pytest.raises(StorageError, match=rf"{path.name}, byte \d+"):
        DirectoryStorage(tmp_path).head()


# --- who reads beside a writer ----------------------------------------------------------------------------------------


def test_a_history_stays_as_it_is_while_the_world_lives_on(tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path, "max_snapshots": 3})
    world.run(num_steps=4, seed=7)
    reader = tiny_world()
    reader.set_storage({"state_dir": tmp_path, "max_snapshots": 3})
    before, seen = reader.history, record_of(world)["stored"]
    world.run(num_steps=10)
    assert before.steps == [1, 2, 3]
    assert_same({step: (dict(before[index]), before.content(index)) for index, step in enumerate(before.steps)}, seen)
    assert before.life is not None and before.life.passes == 4
    assert reader.history.steps == [11, 12, 13]


WRITER = """
import sys
import zlib
from tests.world_blocks import tiny_world
from wgtorch.storage import directory
directory.SMALL_SEGMENT = 20_000
world = tiny_world()
world.set_storage({"state_dir": sys.argv[1], "max_snapshots": 3})
world.run(num_steps=1, seed=7)
print("there", flush=True)
world.run(num_steps=int(sys.argv[2]))
"""


def test_another_process_reads_whole_commits(tmp_path):
    whole = tiny_world()
    whole.run(num_steps=120, seed=7)
    expected = record_of(whole)["stored"]
    command = [sys.executable, "-c", WRITER, str(tmp_path), "119"]
    looks = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "there\n"
        while writer.poll() is None or looks == 0:
            reader = tiny_world()
            reader.set_storage({"state_dir": tmp_path, "max_snapshots": 3})
            for _ in range(3):
                history = reader.history
                found = {step: (dict(history[index]), history.content(index)) for index, step in enumerate(history.steps)}
                assert_same(found, {step: expected[step] for step in found})
                assert history.life is not None and history.life.passes >= max(found, default=0)
                looks += 1
        assert writer.returncode == 0
    assert DirectoryStorage(tmp_path, max_snapshots=3).steps() == [117, 118, 119]


# --- whose files they are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_have_the_permissions_that_the_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        world = lived(tmp_path / "s", 2)
        world.save(tmp_path / "w")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(files) > 5
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {oct(0o666 & ~umask)}


@pytest.mark.parametrize("stage", ["author", "environment", "creator"])
def test_a_folder_that_goes_away_during_a_run_is_an_error(tmp_path, stage):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path / "s"})
    world.run(num_steps=2, seed=7)

    def away(event):
        if event.kind == "end" and event.path == stage:
            shutil.rmtree(tmp_path / "s", ignore_errors=True)

    with pytest.raises(StorageError, match=f"{tmp_path / 's'}: the folder went away during the run"):
        world.run(num_steps=4, callbacks=[away])
    assert not (tmp_path / "s").exists()
    with pytest.raises(StorageError, match=f"{tmp_path / 's'}: the folder held this world's past, and is gone"):
        world.run()


def test_a_folder_that_is_another_storage_now_is_an_error(tmp_path):
    world = lived(tmp_path / "s")
    shutil.rmtree(tmp_path / "s")
    lived(tmp_path / "s")
    with pytest.raises(StorageError, match="is another storage now than it was"):
        world.run()


def test_what_did_not_change_is_not_written_again(tmp_path):
    storage = DirectoryStorage(tmp_path)
    large = torch.rand(250_000)
    story = "Once upon a time. " * 1000
    for step in range(50):
        story += f"Day {step}. "
        content = {"large": large, "again": large.clone(), "story": story, "list": list(range(step)), "fixed": ["x" * 100] * 20}
        with storage.hold():
            storage.store(step, State(**{**FULL, "artifacts": ["a poem"]}), content)
            storage.keep_life(Life(content, None, step, 0, 1))
    size = sum(path.stat().st_size for path in (tmp_path / "log").iterdir())
    assert size < 1_000_000 + 20_000 + 100 * 900
    assert_same(DirectoryStorage(tmp_path).read(30)[1]["story"], "Once upon a time. " * 1000 + "".join(f"Day {day}. " for day in range(31)))
    before = large.clone()
    large.add_(1)  # changed in place
    storage.keep_life(Life({**content, "list": [3]}, None, 50, 0, 1))
    life = DirectoryStorage(tmp_path).read_life()
    assert life is not None and torch.equal(life.content["large"], large) and life.content["list"] == [3]
    assert torch.equal(DirectoryStorage(tmp_path).read(49)[1]["large"], before)


def test_values_of_registered_classes_lie_in_contents(tmp_path):
    inner = State(**FULL)
    with DirectoryStorage(tmp_path).hold():
        pass
    storage = DirectoryStorage(tmp_path)
    for count in (1, 1, 2):
        storage.keep_life(Life({"episodes": [inner.replace(outcome=f"{count}")], "n": 5}, None, count, 0, 1, "one"))
    life = DirectoryStorage(tmp_path).read_life()
    assert life is not None
    assert_same(life.content, {"episodes": [inner.replace(outcome="2")], "n": 5})
    assert len(storage.commits()) == 2, "the same is the same"
