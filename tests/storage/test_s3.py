"""A storage in an object store: moto's server stands for S3, s3fs speaks to it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator

import pytest

from tests.world_blocks import assert_same, record_of, tiny_world
from wgtorch.core.errors import StorageError
from wgtorch.storage import open_storage
from wgtorch.world import World

pytestmark = [pytest.mark.s3, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def address(server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    import fsspec

    for name, value in (("AWS_ACCESS_KEY_ID", "planted"), ("AWS_SECRET_ACCESS_KEY", "planted"), ("AWS_ENDPOINT_URL", server)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = request.node.name.replace("_", "-").replace("[", "-").replace("]", "")[:60].strip("-")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
    fsspec.filesystem("s3").clear_instance_cache()
    return f"s3://{bucket}/worlds/valley"


def world_at(address: str, **options: object) -> World:
    world = tiny_world()
    world.set_storage({"state_dir": address, **options})
    return world


def test_a_world_lives_in_a_bucket(address: str) -> None:
    whole = tiny_world()
    whole.run(num_steps=4, seed=7)
    world = world_at(address)
    world.run(num_steps=2, seed=7)
    again = world_at(address).resume()
    again.run(num_steps=2)
    assert_same(record_of(again), record_of(whole))
    assert_same(record_of(world_at(address).resume()), record_of(whole))
    assert again.history.storage.verify() > 0 and again.replay()
    again.rewind(2).run(num_steps=1)
    assert_same(record_of(again), record_of(whole))


def test_forks_between_a_bucket_and_a_folder(address: str, tmp_path) -> None:
    whole = tiny_world()
    whole.run(num_steps=4, seed=7)
    world = world_at(f"{address}/a")
    world.run(num_steps=4, seed=7)
    for state_dir in (None, tmp_path / "b", f"{address}/c"):
        fork = world.fork(step=1, state_dir=state_dir)
        fork.run(num_steps=2)
        assert_same(record_of(fork), record_of(whole))


def _lives_on(address: str, number: int, found: multiprocessing.Queue) -> None:
    try:
        world = world_at(address).resume()
        world.run(action=f"by {number}", num_steps=2)
        found.put("lived")
    except StorageError as error:
        found.put(str(error))


def test_of_two_writers_in_processes_one_is_refused(address: str) -> None:
    world_at(address).run(seed=1)
    context = multiprocessing.get_context("spawn")
    found: multiprocessing.Queue = context.Queue()
    running = [context.Process(target=_lives_on, args=(address, number, found)) for number in range(2)]
    for process in running:
        process.start()
    ends = sorted(found.get(timeout=120) for _ in running)
    for process in running:
        process.join()
    assert "lived" in ends
    assert ends[0] == "lived" or "another run writes to this storage" in ends[0] or "life" in ends[0]
    again = world_at(address).resume()
    assert again.life.passes in (3, 5) and again.history.storage.verify() > 0, "one chain, whole"


def test_old_steps_are_dropped_and_damage_is_named(address: str) -> None:
    import fsspec

    world = world_at(address, max_snapshots=2)
    world.run(num_steps=20, seed=1)
    again = world_at(address, max_snapshots=2).resume()
    assert again.history.steps == [18, 19]
    assert_same(record_of(again), record_of(world))
    files = fsspec.filesystem("s3")
    path = sorted(files.ls(f"{address.removeprefix('s3://')}/log", detail=False))[-3]
    raw = bytearray(files.cat_file(path))
    raw[-20] ^= 1
    files.pipe_file(path, bytes(raw))
    with pytest.raises(StorageError, match=r"\d{8}-\w+\.commits"):
        open_storage(address).verify()


def test_what_others_keep_there_is_refused(address: str) -> None:
    import fsspec

    fsspec.filesystem("s3").pipe_file(f"{address.removeprefix('s3://')}/mine.txt", b"mine")
    with pytest.raises(StorageError, match=r"holds \['mine.txt'\], which no world wrote"):
        world_at(address).run(seed=1)
