"""A storage in a folder: what lies there, what it refuses, who may write."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.world_blocks import FULL, assert_same, default_world, record_of, tiny_world
from wgtorch.core.errors import StorageError
from wgtorch.core.kinds import image_to_tensor
from wgtorch.storage import DirectoryStorage
from wgtorch.storage.base import History, Life
from wgtorch.storage.directory import read_life, write_life
from wgtorch.world_runtime.state import State

MARKER = "wgtorch-storage.json"


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- what lies there --------------------------------------------------------------------------------------------------


def test_a_stored_step_as_files(tmp_path):
    picture = torch.randint(256, (3, 5, 4), generator=torch.Generator().manual_seed(0)) / 255
    state = State(**{**FULL, "artifacts": [picture, {"mask": torch.eye(3)}], "intent": "Ein Sturm zieht auf – 嵐"})
    storage = DirectoryStorage(tmp_path)
    assert storage.store(3, state, {"story": "s", "vector": torch.arange(4)}) == "00003"

    folder = tmp_path / "00003"
    assert files_of(folder) == ["artifacts_0.png", "content.json", "state.json", "tensors.safetensors"]
    entry = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    assert entry["step"] == 3 and entry["schema"] == list(state.schema)
    assert entry["slots"]["intent"] == state.intent and "嵐" in (folder / "state.json").read_text(encoding="utf-8")
    assert json.loads((folder / "content.json").read_text())["story"] == "s"
    tensors = load_file(folder / "tensors.safetensors")
    assert torch.equal(tensors["artifacts.0"], picture) and torch.equal(tensors["content.vector"], torch.arange(4))
    with Image.open(folder / "artifacts_0.png") as image:
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
                assert image.size == (128, 128)
                assert torch.equal((picture[0] * 255).round(), (image_to_tensor(image) * 255).round())


def test_text_alone_needs_no_tensors(tmp_path):
    storage = DirectoryStorage(tmp_path)
    storage.store(0, State(**{**FULL, "artifacts": ["a poem"]}), {})
    assert files_of(tmp_path / "00000") == ["content.json", "state.json"]
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
    pictures = [name for name in files_of(tmp_path / "00000") if name.endswith(".png")]
    assert pictures == ["artifacts_______up.png", "artifacts_a_b.png", "artifacts_a_b_.png"]
    with Image.open(tmp_path / "00000" / "artifacts_a_b_.png") as image:
        assert image.getpixel((0, 0)) == (255, 255, 255)
    assert files_of(tmp_path) == files_of(tmp_path), "nothing lies outside"
    assert {path.name for path in tmp_path.iterdir()} == {"00000", MARKER}


def test_odd_values_come_back(tmp_path):
    storage = DirectoryStorage(tmp_path)
    content = {"format_version": "the user's own", "cut": "half \ud83d", "endless": float("inf"), "$tensor": "no tensor", "pair": (1, [2])}
    storage.store(0, State(**FULL), content)
    assert_same(storage.read(0)[1], content)


# --- names and numbers ------------------------------------------------------------------------------------------------


def test_naming_template(tmp_path):
    storage = DirectoryStorage(tmp_path, naming_template="episode-{step:03d}")
    assert storage.store(7, State(**FULL), {}) == "episode-007"
    assert (tmp_path / "episode-007" / "state.json").is_file()
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
        "life-{step}",
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00003", "00004", MARKER]
    with pytest.raises(StorageError, match=r"no step 1; there are \[3, 4\]"):
        storage.read(1)


def test_a_step_is_dropped_at_once(tmp_path, monkeypatch):
    """Cut off in the middle of deleting it, nothing half deleted is seen; the next run takes the rest away."""

    def cut_off(folder, **options):
        if Path(folder).exists():
            (Path(folder) / "tensors.safetensors").unlink()
            raise SystemExit

    storage = DirectoryStorage(tmp_path, max_snapshots=1)
    storage.store(0, State(**FULL), {})
    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", cut_off)
        with pytest.raises(SystemExit):
            storage.store(1, State(**FULL), {})
    assert [storage.read(step)[0].complete for step in storage.steps()] == [True]
    with storage.hold():
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "00001", MARKER]


@pytest.mark.parametrize("count", [0, -1])
def test_max_snapshots_of_none(tmp_path, count):
    with pytest.raises(StorageError, match=f"max_snapshots {count}: expected at least 1, or None to keep all"):
        DirectoryStorage(tmp_path, max_snapshots=count)


def test_a_step_is_stored_anew(tmp_path):
    storage = DirectoryStorage(tmp_path)
    storage.store(0, State(**FULL), {"episodes": 1})
    storage.store(0, State(**{**FULL, "artifacts": ["no picture now"]}), {"episodes": 2})
    assert storage.steps() == [0] and storage.read(0)[1] == {"episodes": 2}
    assert files_of(tmp_path) == ["00000/content.json", "00000/state.json", MARKER]


def test_a_long_history_is_read_once(tmp_path, monkeypatch):
    """Looking at every state reads each file a few times, however many there are."""
    for step in range(20):
        DirectoryStorage(tmp_path).store(step, State(**{**FULL, "artifacts": ["a poem"]}), {})
    read: list[Path] = []
    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **options: (read.append(path), read_text(path, **options))[1])
    history = History(DirectoryStorage(tmp_path))
    assert len(history) == 20 and len([state.intent for state in history]) == 20 and history[-1].complete
    assert len(read) <= 20 * 3 + 3  # the marker is read once


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000", MARKER]


def test_a_world_with_such_a_value_keeps_its_life(tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path})
    given = State(**{**FULL, "recipe": {"count": 1, "level": 0.1, "lock": object()}})
    with pytest.raises(StorageError, match=r"recipe\.lock: object"):
        world.run(given, seed=1)
    assert len(world.history) == 0 and world.content["episodes"] == 0


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("state.json", '{"format_version": "1.0", "step": 0, ', r"00000/state\.json: cannot be read"),
        ("state.json", '{"format_version": "9.0", "step": 0}', r"00000/state\.json: format_version '9\.0'; this version reads '1\.0'"),
        ("state.json", '{"format_version": "1.0", "step": 0}', r"00000: damaged, or not written by a storage: 'slots'"),
        ("state.json", "[1, 2]", "00000: damaged, or not written by a storage"),
        ("content.json", "", r"00000/content\.json: cannot be read"),
        ("tensors.safetensors", "not safetensors", r"00000/tensors\.safetensors: cannot be read"),
        ("tensors.safetensors", None, r"00000: damaged, .*the tensor 'artifacts\.0' is missing"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, content, words):
    storage = DirectoryStorage(tmp_path)
    storage.store(0, State(**FULL), {"story": "s"})
    if content is None:
        (tmp_path / "00000" / file).unlink()
    else:
        (tmp_path / "00000" / file).write_text(content)
    with pytest.raises(StorageError, match=words):
        storage.read(0)


def test_a_pointer_to_somewhere_else(tmp_path):
    (tmp_path / "CURRENT").write_text("../outside")
    with pytest.raises(StorageError, match=r"CURRENT: holds '\.\./outside'; expected 'life-<number>'"):
        DirectoryStorage(tmp_path).read_life()


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


def test_the_newest_life_is_read_and_the_older_are_gone(tmp_path):
    storage = DirectoryStorage(tmp_path)
    assert storage.read_life() is None
    for passes in range(3):
        storage.keep_life(Life({"n": passes}, None, passes, 0, 1))
    life = storage.read_life()
    assert life is not None and life.passes == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CURRENT", "life-3", MARKER]


def test_a_life_beside_the_pointer_is_not_seen(tmp_path):
    """As after a kill between writing a life and naming it."""
    storage = DirectoryStorage(tmp_path)
    storage.keep_life(Life({"n": 1}, None, 1, 0, 1))
    (tmp_path / "life-2").mkdir()
    (tmp_path / "life-2" / "life.json").write_text("{")
    life = storage.read_life()
    assert life is not None and life.passes == 1
    storage.keep_life(Life({"n": 2}, None, 2, 0, 1))
    life = storage.read_life()
    assert life is not None and life.passes == 2


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
    assert names[:2] == [".lock", "00001"] and names[2:4] == ["00002", "CURRENT"]
    assert len(names) == 7 and names[4].startswith("life-") and names[5:] == ["traces", MARKER]
    assert os.access(tmp_path / "deep" / "down" / "00001" / "state.json", os.R_OK)
