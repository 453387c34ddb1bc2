"""A storage in a folder: what lies there, what it refuses, who may write."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load

from tests.world_blocks import FULL, assert_same, default_world, record_of, tiny_world
from wgtorch.core.errors import StorageError
from wgtorch.core.kinds import image_to_tensor
from wgtorch.storage import DirectoryStorage, directory, open_storage
from wgtorch.storage.base import History, Life
from wgtorch.storage.life_files import read_life, write_life
from wgtorch.storage.segment import scan
from wgtorch.storage.segment_log import SegmentLog
from wgtorch.world_runtime.state import State

MARKER = "wgtorch-storage.json"


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- what lies there --------------------------------------------------------------------------------------------------


def log_of(folder: Path) -> Path:
    (path,) = (folder / "log").iterdir()
    return path


def test_a_stored_step_as_files(tmp_path):
    picture = torch.randint(256, (3, 5, 4), generator=torch.Generator().manual_seed(0)) / 255
    state = State(**{**FULL, "artifacts": [picture, {"mask": torch.eye(3)}], "intent": "Ein Sturm zieht auf – 嵐"})
    storage = DirectoryStorage(tmp_path)
    assert storage.store(3, state, {"story": "s", "vector": torch.arange(4)}) == "00003"

    marker = json.loads((tmp_path / MARKER).read_text())
    assert files_of(tmp_path) == [".lock", "00003/artifacts_0.png", "00003/state.json", f"log/00000001-{marker['id']}.commits", MARKER]
    raw = log_of(tmp_path).read_bytes()
    (record,) = scan(lambda start, length: raw[start : start + length], len(raw), 0, "log")
    assert record.meta["stored"]["step"] == 3 and record.meta["whole"] is True
    change, *tensors = [raw[blob.start : blob.start + blob.length] for blob in record.blobs]
    change = zlib.decompress(change)
    held = json.loads(change)["whole"]
    assert held["complete"]["schema"] == list(state.schema) and held["complete"]["content"]["story"] == "s"
    assert "嵐".encode() in change, "texts are JSON as people read it"
    found = [load(tensor)["tensor"] for tensor in tensors]  # each is a safetensors file
    assert any(torch.equal(tensor, picture) for tensor in found) and any(torch.equal(tensor, torch.arange(4)) for tensor in found)
    shown = json.loads((tmp_path / "00003" / "state.json").read_text(encoding="utf-8"))
    assert shown["step"] == 3 and shown["slots"]["intent"] == state.intent
    with Image.open(tmp_path / "00003" / "artifacts_0.png") as image:
        assert torch.equal(image_to_tensor(image), picture)

    read, content = storage.read(3)
    assert_same(read, state)
    assert_same(content, {"story": "s", "vector": torch.arange(4)})


def test_the_default_worlds_pictures_lie_there(tmp_path):
    world = default_world(pictures=2)
    world.set_storage({"state_dir": tmp_path})
    world.run(num_steps=3, seed=1)
    assert world.history.steps == [1, 2]
    for index, step in enumerate(world.history.steps):
        artifacts = world.history[index].artifacts
        assert len(artifacts) == 2
        for number, picture in enumerate(artifacts):
            with Image.open(tmp_path / f"{step:05d}" / f"artifacts_{number}.png") as image:
                assert image.size == (512, 512)
                assert torch.equal((picture[0] * 255).round(), (image_to_tensor(image) * 255).round())


def test_text_alone_needs_no_tensors(tmp_path):
    storage = DirectoryStorage(tmp_path)
    storage.store(0, State(**{**FULL, "artifacts": ["a poem"]}), {})
    assert files_of(tmp_path / "00000") == ["state.json"]
    assert storage.read(0)[0].artifacts == ["a poem"]


def test_one_tensor_in_two_places(tmp_path):
    storage, picture = DirectoryStorage(tmp_path), torch.rand(3, 4, 4)
    batch = torch.rand(4, 3, 4, 4)
    state = State(**{**FULL, "artifacts": [picture, picture, batch[0:3], batch[1:]]})
    storage.store(0, state, {"last": picture})
    read, content = storage.read(0)
    assert_same(read, state)
    assert_same(content, {"last": picture})


def test_pictures_whose_names_meet_are_all_written(tmp_path):
    one, two = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    DirectoryStorage(tmp_path).store(0, State(**{**FULL, "artifacts": {"a_b": one, "a": {"b": two}, "../../up": one}}), {})
    assert files_of(tmp_path / "00000") == ["artifacts_______up.png", "artifacts_a_b.png", "artifacts_a_b_.png", "state.json"]
    with Image.open(tmp_path / "00000" / "artifacts_a_b_.png") as image:
        assert image.getpixel((0, 0)) == (255, 255, 255)
    assert {path.name for path in tmp_path.iterdir()} == {"00000", MARKER, ".lock", "log"}, "nothing lies outside"


def test_odd_values_come_back(tmp_path):
    storage = DirectoryStorage(tmp_path)
    content = {"format_version": "the user's own", "cut": "half \ud83d", "endless": float("inf"), "$tensor": "no tensor", "pair": (1, [2])}
    storage.store(0, State(**FULL), content)
    assert_same(storage.read(0)[1], content)


# --- names and numbers ------------------------------------------------------------------------------------------------


def test_naming_template(tmp_path):
    storage = DirectoryStorage(tmp_path, naming_template="episode-{step:03d}")
    assert storage.store(7, State(**FULL), {}) == "episode-007"
    assert (tmp_path / "episode-007" / "artifacts_0.png").is_file()
    assert DirectoryStorage(tmp_path).steps() == [7], "steps are found under any name"


@pytest.mark.parametrize(
    "template",
    [
        "episode",
        "{number}",
        "{step}/{step}",
        "a/{step}",
        ".{step}",
        "{step}{step}",
        "{}",
        "{step[0]}",
        "{step.real}",
        "{step:q}",
        "{step",
        "log",
    ],
)
def test_templates_that_do_not_name_steps(tmp_path, template):
    with pytest.raises(StorageError, match=r"expected a folder's name with one \{step\}, as '\{step:05d\}'"):
        DirectoryStorage(tmp_path, naming_template=template)


def test_max_snapshots_keeps_the_newest(tmp_path):
    storage = DirectoryStorage(tmp_path, max_snapshots=2)
    for step in range(5):
        storage.store(step, State(**FULL), {"episodes": step})
        assert storage.steps() == list(range(max(0, step - 1), step + 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "00003", "00004", "log", MARKER]
    with pytest.raises(StorageError, match=r"no step 1; there are \[3, 4\]"):
        storage.read(1)


def test_what_is_dropped_takes_no_room(tmp_path, monkeypatch):
    """Old files of the log are written anew without it; what is kept refers to stays, and so do the commits' own words."""
    monkeypatch.setattr(directory, "SMALL_SEGMENT", 50_000)
    storage = DirectoryStorage(tmp_path, max_snapshots=3)
    kept_long = torch.rand(1000)
    first = torch.rand(3, 20, 20)
    sizes = []
    for step in range(60):
        state = State(**{**FULL, "artifacts": [first if step == 0 else torch.rand(3, 20, 20)]})
        with storage.hold():
            storage.store(step, state, {"once": kept_long, "n": step})
            storage.keep_life(Life({"once": kept_long, "n": step}, state, step, 1, 1))
        sizes.append(sum(path.stat().st_size for path in (tmp_path / "log").iterdir()))
        storage = DirectoryStorage(tmp_path, max_snapshots=3) if step % 7 == 0 else storage
    assert max(sizes) < 3 * 50_000 < 60 * 5_300, "three files at most are whole"
    again = DirectoryStorage(tmp_path, max_snapshots=3)
    assert again.steps() == [57, 58, 59] and len(again.commits()) == 60
    assert again.read(58)[1]["n"] == 58 and torch.equal(again.read(57)[1]["once"], kept_long)
    with pytest.raises(StorageError, match=r"commit .*: what it held was dropped, as max_snapshots says"):
        again.life_at(again.commits()[3])
    again.verify()
    with again.hold():  # one that was dropped comes again
        again.store(60, State(**{**FULL, "artifacts": [first]}), {})
        again.keep_life(Life({}, None, 60, 1, 1))
    assert torch.equal(DirectoryStorage(tmp_path).read(60)[0].artifacts[0], first)


@pytest.mark.parametrize("count", [0, -1])
def test_max_snapshots_of_none(tmp_path, count):
    with pytest.raises(StorageError, match=f"max_snapshots {count}: expected at least 1, or None to keep all"):
        DirectoryStorage(tmp_path, max_snapshots=count)


def test_a_step_is_stored_anew(tmp_path):
    storage = DirectoryStorage(tmp_path)
    storage.store(0, State(**FULL), {"episodes": 1})
    storage.store(0, State(**{**FULL, "artifacts": ["no picture now"]}), {"episodes": 2})
    assert storage.steps() == [0] and storage.read(0)[1] == {"episodes": 2}
    assert [name for name in files_of(tmp_path) if name.endswith(".png")] == []


def test_a_long_history_is_read_once(tmp_path, monkeypatch):
    """Looking at every state, forwards, backwards or at random, reads no commit again and again."""
    storage = DirectoryStorage(tmp_path)
    with storage.hold():
        for step in range(200):
            storage.store(step, State(**{**FULL, "artifacts": [f"a poem {step}"]}), {"n": step})
            storage.keep_life(Life({"n": step}, None, step, 1, 1))
    read: list[str] = []
    body = SegmentLog._body
    monkeypatch.setattr(SegmentLog, "_body", lambda log, commit: (read.append(commit.id), body(log, commit))[1])
    history = History(DirectoryStorage(tmp_path))
    assert [state.artifacts[0] for state in history] == [f"a poem {step}" for step in range(200)]
    assert len(read) < 3 * 200
    read.clear()
    assert [history[index].artifacts[0] for index in range(-1, -200, -1)] == [f"a poem {step}" for step in range(199, 0, -1)]
    assert len(read) < 20 * 200


# --- what it refuses --------------------------------------------------------------------------------------------------


def test_a_value_that_cannot_be_stored_leaves_no_trace(tmp_path):
    storage = DirectoryStorage(tmp_path)
    storage.store(0, State(**FULL), {})
    before = files_of(tmp_path)
    with pytest.raises(StorageError, match=r"recipe\.tools\.1: object <object object at .* cannot be stored"):
        storage.store(1, State(**{**FULL, "recipe": {"tools": ["brush", object()]}}), {})
    with pytest.raises(StorageError, match=r"content\.model: Linear .* cannot be stored"):
        storage.store(1, State(**FULL), {"model": torch.nn.Linear(1, 1)})
    assert storage.steps() == [0] and files_of(tmp_path) == before


def test_a_world_with_such_a_value_keeps_its_life(tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path})
    given = State(**{**FULL, "recipe": {"count": 1, "level": 0.1, "lock": object()}})
    with pytest.raises(StorageError, match=r"recipe\.lock: object"):
        world.run(given, seed=1)
    assert len(world.history) == 0 and world.content["episodes"] == 0


# --- the life in flight -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "life",
    [
        Life(),
        Life({"story": "s", "last": torch.rand(2)}, State(**FULL), 4, 2, 2**61 + 1),
        Life({}, State(schema=("a", "b"), a=(1, [torch.eye(2)])), 0, 1, None),
    ],
)
def test_a_life_comes_back(tmp_path, life):
    write_life(life, tmp_path)
    again = read_life(tmp_path)
    for name in ("content", "state", "passes", "stage", "seed"):
        assert_same(getattr(again, name), getattr(life, name))


def test_the_newest_life_is_read(tmp_path):
    storage = DirectoryStorage(tmp_path)
    assert storage.read_life() is None
    for passes in range(3):
        storage.keep_life(Life({"n": passes}, None, passes, 0, 1))
    life = storage.read_life()
    assert life is not None and (life.passes, life.content) == (2, {"n": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "log", MARKER]
    assert [commit.passes for commit in DirectoryStorage(tmp_path).commits()] == [0, 1, 2]


# --- one writer -------------------------------------------------------------------------------------------------------


def test_a_second_writer_of_this_process_is_refused(tmp_path):
    first, second = tiny_world(), tiny_world()
    for world in (first, second):
        world.set_storage({"state_dir": tmp_path})
    stream = first.stream(num_steps=2, seed=1)
    next(stream)
    with pytest.raises(StorageError, match="another run writes to this storage; wait for it, or choose another state_dir"):
        second.run(seed=1)
    assert second.life.is_new
    assert second.history.steps == [], "reading is allowed meanwhile"
    assert len(list(stream)) == 11
    second.resume().run()
    assert second.history.steps == [1, 2]


HOLDER = """
import sys
from wgtorch.storage import DirectoryStorage
with DirectoryStorage(sys.argv[1]).hold():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_dead_one_forgotten(tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path})
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=f"{tmp_path}: another run writes to this storage"):
            world.run(seed=1)
        holder.kill()
        holder.wait()
    world.run(seed=1)
    assert world.life.passes == 1


def test_another_lifes_history_is_not_written_over(tmp_path):
    first = tiny_world()
    first.set_storage({"state_dir": tmp_path})
    first.run(num_steps=2, seed=1)
    before = record_of(first)
    second = tiny_world()
    second.set_storage({"state_dir": tmp_path})
    with pytest.raises(StorageError, match=r"tiny: the storage holds the history of another life, up to pass 2. Call world\.resume\(\)"):
        second.run(seed=2)
    assert_same(record_of(first), before)


def test_nothing_but_the_history_and_the_life_is_left(tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path / "deep" / "down"})
    world.run(num_steps=3, seed=1)
    names = sorted(path.name for path in (tmp_path / "deep" / "down").iterdir())
    assert names == [".lock", "00001", "00002", "log", MARKER]


def test_a_folder_of_ones_home_is_that_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert DirectoryStorage("~/valley").folder == open_storage("~/valley").folder == tmp_path / "valley"


@pytest.mark.parametrize("what", ["log", "log/*"])
def test_nothing_is_written_through_a_link_out_of_the_folder(what: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "states", tmp_path / "outside"
    world = tiny_world()
    world.set_storage({"state_dir": str(folder)})
    world.run(seed=7)
    (path,) = folder.glob(what)
    path.rename(outside)
    path.symlink_to(outside)
    file = outside if outside.is_file() else next(outside.iterdir())
    before = file.read_bytes()
    for again in (world, tiny_world()):
        again.set_storage({"state_dir": str(folder)})
        with pytest.raises(StorageError, match="is a link that leaves the storage's folder"):
            again.resume().run()
    assert file.read_bytes() == before
    (tmp_path / "states_too").symlink_to(folder)
    path.unlink()
    outside.rename(path)
    again = tiny_world()
    again.set_storage({"state_dir": str(tmp_path / "states_too")})  # the folder itself may be a link
    again.resume().run()
    assert len(again.history) == 1


def test_a_name_with_a_nul_is_no_folder() -> None:
    with pytest.raises(StorageError, match="no name has a NUL"):
        tiny_world().set_storage({"state_dir": "a\0b"})
