"""An interrupted save never harms the previous one: killed at random moments, out of disk, or failing on its own."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import threading
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.blocks_for_tests import Affine, chain
from tests.checkpoints.blocks import assert_same, rich_graph
from wgtorch.core.checkpoint import atomic
from wgtorch.core.checkpoint import io as files
from wgtorch.core.errors import CheckpointError
from wgtorch.graph import Graph

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]

FORK = multiprocessing.get_context("fork")


def saves_in_turn(path: Path, format: str, told: Any, limit: int) -> None:
    """Saves two graphs in turn, without end or until it fails; no file may be longer than the limit, where one is given."""
    graphs = the_two()
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    else:
        graphs[0].save_checkpoint(path, format)
    told.send("ready")
    for turn in count(1):
        try:
            graphs[turn % 2].save_checkpoint(path, format)
        except OSError as error:
            told.send(str(error))
            sys.exit(1)


def saver(path: Path, format: str, limit: int = 0) -> tuple[Any, Any]:
    """The process, and what it tells."""
    told, tells = FORK.Pipe(duplex=False)
    process = FORK.Process(target=saves_in_turn, args=(path, format, tells, limit))
    process.start()
    assert told.poll(300) and told.recv() == "ready"
    return process, told


def the_two() -> list[Graph]:
    return [chain(*[Affine(width=96, seed=seed + 10 * turn) for seed in range(6)]) for turn in range(2)]


def is_one_of_two(path: Path) -> None:
    """The checkpoint is whole, and one of the two that were being written in turn."""
    loaded = Graph.load_from_checkpoint(path, verify=True)
    same = [all(torch.equal(a, b) for a, b in zip(loaded.parameters(), graph.parameters(), strict=True)) for graph in the_two()]
    assert sum(same) == 1


@pytest.mark.parametrize("format", ["dir", "archive"])
def test_killed_at_random_moments_one_of_the_two_is_whole(format: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    draw = random.Random(5)
    for _ in range(2):  # scripts/soak kills a thousand
        process, _ = saver(path, format)
        time.sleep(draw.uniform(0.0, 0.25))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        is_one_of_two(path)


@pytest.mark.parametrize("format", ["dir", "archive"])
def test_leftovers_of_the_killed_are_taken_away(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_FRESH", -1.0)
    graph = chain(Affine())
    graph.save_checkpoint(tmp_path / "it", format)
    left = tmp_path / ".it.0123456789ab.new"
    left.mkdir() if format == "dir" else left.write_text("half")
    (tmp_path / ".other.0123456789ab.new").mkdir()
    graph.save_checkpoint(tmp_path / "it", format)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".other.0123456789ab.new", "it"]


def test_what_a_living_writer_holds_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_FRESH", -1.0)
    seen = []

    def fill(folder: Path) -> None:
        chain(Affine()).save(tmp_path / "it")
        seen.append(folder.is_dir())

    atomic.write_folder(tmp_path / "it", fill)
    assert seen == [True]


@pytest.mark.parametrize("format", ["dir", "archive"])
def test_out_of_space_the_previous_one_stays_whole(format: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    before = the_two()[0]
    before.save_checkpoint(path, format)
    process, told = saver(path, format, limit=20_000)
    assert told.poll(300) and "File too large" in told.recv()
    process.join()
    assert process.exitcode == 1
    assert_same(Graph.load_from_checkpoint(path, verify=True), before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["it"], "nothing half written is left"


@pytest.mark.parametrize("format", ["dir", "archive"])
@pytest.mark.parametrize("moment", range(0, 40, 3))
def test_failing_at_any_write_the_previous_one_stays_whole(
    format: str, moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it"
    before = rich_graph()
    before.save_checkpoint(path, format)
    writes, true = iter(range(10**6)), files._write_all

    def failing(handle: object, part: memoryview) -> None:
        if next(writes) == moment:
            raise OSError(28, "No space left on device")
        true(handle, part)

    monkeypatch.setattr(files, "_write_all", failing)
    other = rich_graph()
    with torch.no_grad():
        other.nodes["n1"].linear.bias.zero_()
    try:
        other.save_checkpoint(path, format)
        expected = other
    except OSError:
        expected = before
    monkeypatch.undo()
    assert_same(Graph.load_from_checkpoint(path, verify=True), expected)
    assert [entry.name for entry in tmp_path.iterdir()] == ["it"]


def test_without_an_exchange_the_old_one_is_found_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where folders cannot change places in one step: the process dies between the two renames."""
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    path = tmp_path / "it"
    one, two = the_two()
    one.save(path)
    true = Path.rename
    pid = os.fork()
    if pid == 0:

        def rename(self: Path, target: Path) -> Path:
            if str(self).endswith(".new"):
                os._exit(9)
            return true(self, target)

        Path.rename = rename  # type: ignore[method-assign, assignment]
        two.save(path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert not path.exists()
    assert_same(Graph.load(path), one)
    two.save(path)
    assert_same(Graph.load(path), two)
    assert not (tmp_path / ".it.wgtorch-old").exists() or json.loads((path / "manifest.json").read_text())


def test_a_failing_rename_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    path = tmp_path / "it"
    one, two = the_two()
    one.save(path)
    true = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if str(self).endswith(".new"):
            raise OSError(5, "Input/output error")
        return true(self, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(Path, "rename", rename)
        two.save(path)
    assert_same(Graph.load(path), one)


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "true").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "true")
    graph = chain(Affine())
    for _ in range(2):
        graph.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "true" / "manifest.json").is_file()
    assert_same(Graph.load(tmp_path / "link"), graph)


def test_a_read_only_place_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((OSError, CheckpointError)):
        chain(Affine()).save(tmp_path / "file" / "it")


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "a" + "é" * 126, "b" * 221])
@pytest.mark.parametrize("format", ["dir", "archive"])
def test_a_name_may_be_as_long_as_the_system_takes(name: str, format: str, tmp_path: Path) -> None:
    atomic._tag(tmp_path / name).encode()  # whole letters, as systems want that store names as text
    for seed in (1, 2):
        chain(Affine(2, seed=seed)).save_checkpoint(tmp_path / name, format)
    assert_same(Graph.load_from_checkpoint(tmp_path / name), chain(Affine(2, seed=2)))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_full_disk_is_named_with_what_was_to_be_written(tmp_path: Path) -> None:
    def fill(fresh: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for write in (atomic.write_folder, atomic.write_file):
        with pytest.raises(OSError, match=r"No space left on device: '.*mine'") as caught:
            write(tmp_path / "mine", fill)
        assert caught.value.filename == str(tmp_path / "mine") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["dir", "archive"])
def test_weights_that_change_while_they_are_saved_are_saved_as_they_were_at_one_moment(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = chain(Affine(seed=1), Affine(seed=2))
    written = threading.Event()
    write, real = files._write_all, hashlib.sha256

    def then_tell(handle: Any, part: memoryview) -> None:
        write(handle, part)
        written.set()

    class Trained:
        """Hashes what was written before, once another thread has changed every weight."""

        def __init__(self, *begun: bytes) -> None:
            self.inner = real(*begun)

        def update(self, part: Any) -> None:
            assert written.wait(60)
            written.clear()
            with torch.no_grad():
                for parameter in graph.parameters():
                    parameter.add_(1.0)
            self.inner.update(part)

        def hexdigest(self) -> str:
            return self.inner.hexdigest()

    monkeypatch.setattr(files, "_write_all", then_tell)
    monkeypatch.setattr(files, "hashlib", SimpleNamespace(sha256=Trained))
    path = graph.save_checkpoint(tmp_path / "it", format)
    monkeypatch.undo()
    Graph.load_from_checkpoint(path, verify=True)


def test_files_that_systems_leave_are_passed_by_and_go_with_what_is_replaced(tmp_path: Path) -> None:
    graph = chain(Affine(seed=1), Affine(seed=2))
    path = graph.save(tmp_path / "it")
    for name in (".DS_Store", "blocks/.DS_Store", "blocks/._n0.safetensors", "Thumbs.db", "blocks/desktop.ini"):
        (path / name).write_bytes(b"\0")
    assert_same(Graph.load(path), graph)
    graph.save(path)
    assert {entry.name for entry in path.rglob("*") if entry.is_file()} == {
        "manifest.json", "config.yaml", *(f"{name}.safetensors" for name in graph.nodes)
    }  # fmt: skip
    (path / "blocks/mine.bin").write_bytes(b"\0")
    with pytest.raises(CheckpointError, match=r"mine.bin: is not in the manifest"):
        Graph.load(path)
