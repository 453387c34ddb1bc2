"""Worlds and levels on a Ray cluster: results of one process, and nothing committed is lost when a worker or a node is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.world_blocks import assert_same, tiny_world
from wgtorch import Graph, Pipeline, World
from wgtorch import ray as on_ray
from wgtorch.core.errors import PortTypeError, StructureError
from wgtorch.ray import WorldRun, run_worlds
from wgtorch.storage import open_storage

SCENES = {"template": "scenes", "params": {"steps": 1}}


def alone(world: World, seed: int, actions: list[Any]) -> World:
    fork = world.fork()
    fork.life.seed = seed
    for action in actions:
        fork.run(num_steps=1, action=action)
    return fork


def commits(run: WorldRun | str) -> list[str]:
    """Ids of the commits of a storage, oldest first."""
    storage: Any = open_storage(run if isinstance(run, str) else run.storage)
    return [commit.id for commit in storage.commits()]


def is_as(run: WorldRun, other: World) -> None:
    assert run.error is None and run.passes == other.life.passes
    life: Any = open_storage(run.storage).read_life()
    assert_same(life.state, other.state)
    assert_same(dict(life.content), dict(other.content))
    assert run.history.steps == other.history.steps


# --- what needs no Ray ------------------------------------------------------------------------------------------------


def test_a_worker_goes_on_where_the_storage_is(tmp_path: Path) -> None:
    worker = on_ray._Worker(tiny_world().to_config(), None, None)
    actions = ["go north", None, "sing"]
    job = (5, str(tmp_path / "5"), actions)
    (first,) = worker.live([(5, job[1], actions[:2])])
    assert first.passes == 2
    before = commits(first)
    another = on_ray._Worker(tiny_world().to_config(), None, None)  # as after a kill
    (run,) = another.live([job])
    is_as(run, alone(tiny_world(), 5, actions))
    assert commits(run)[: len(before)] == before
    assert another.live([job])[0].passes == 3, "what is lived to its end stays as it is"


def test_several_worlds_of_a_call_are_each_what_they_would_be_alone(tmp_path: Path) -> None:
    worker = on_ray._Worker(tiny_world().to_config(), None, None)
    runs = worker.live([(seed, str(tmp_path / str(seed)), [None, "wait"]) for seed in (1, 2, 3)])
    for run in runs:
        is_as(run, alone(tiny_world(), run.seed, [None, "wait"]))


def test_a_world_that_fails_is_told_and_keeps_its_log(tmp_path: Path) -> None:
    worker = on_ray._Worker(tiny_world().to_config(), None, None)
    worker.live([(1, str(tmp_path / "1"), [None])])
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "foreign").write_text("x", encoding="utf-8")
    lived, foreign = worker.live([(9, str(tmp_path / "1"), [None]), (2, str(tmp_path / "2"), [None])])
    assert "holds the life of seed 1; expected 9" in str(lived.error)
    assert foreign.error is not None and foreign.passes == 0
    with pytest.raises(StructureError, match="describes a graph; expected a world"):
        on_ray._Worker("caption", None, None).live([(1, str(tmp_path / "g"), [None])])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": 3}, "seeds is int 3; expected one for each world"),
        ({"seeds": [1, 1]}, "2 seeds, 1 different"),
        ({"seeds": ["a"]}, "seed is str"),
        ({"num_steps": -1}, "num_steps is -1"),
        ({"action": ["a"]}, "1 actions for 2 worlds"),
        ({"action": [["a"], None]}, "1 actions for 2 passes of seed 1"),
        ({"workers": 0}, "workers is 0"),
        ({"worlds_per_call": True}, "worlds_per_call is True"),
        ({"max_restarts": "x"}, "max_restarts is 'x'"),
    ],
)
def test_what_is_asked_wrongly_is_told_before_anything_starts(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(PortTypeError, match=words):
        run_worlds("default", **{"seeds": [1, 2], "num_steps": 2, "storage": tmp_path, **options})
    assert not list(tmp_path.iterdir())


def test_rooms_are_counted() -> None:
    cluster = {"CPU": 16.0, "GPU": 2.0, "disk": 3.0}
    assert on_ray._room(cluster, {"num_cpus": 1}) == 16
    assert on_ray._room(cluster, {"num_cpus": 1, "num_gpus": 0.25}) == 8
    assert on_ray._room(cluster, {"num_cpus": 1, "resources": {"disk": 1}}) == 3
    assert on_ray._room(cluster, {"num_cpus": 32}) == 1


# --- two nodes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray: Any = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    store = 80 * 2**20
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": store})
    made.add_node(num_cpus=2, object_store_memory=store, resources={"second": 2})
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def _until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, "it did not come so far"
        time.sleep(0.05)
    return found


def _workers(cluster: Any) -> list[int]:
    """Processes of this cluster that live worlds."""
    raylets = {info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes.get("raylet", [])}
    found = []
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if folder.name.isdigit() and parent in raylets and b"_Worker.live" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of Ray's own
@pytest.mark.parametrize("victim", ["worker", "node"])
def test_a_kill_loses_no_committed_pass(cluster: Any, victim: str, tmp_path: Path) -> None:
    seeds, steps, seen = [3, 4, 5, 6], 4, {}
    extra = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, resources={"extra": 1}) if victim == "node" else None
    cluster.wait_for_nodes()

    def kill() -> None:
        _until(
            lambda: any(len(list((tmp_path / str(seed)).glob("log/*"))) and len(commits(str(tmp_path / str(seed)))) > 8 for seed in seeds)
        )
        for seed in seeds:
            if (tmp_path / str(seed) / "log").is_dir():
                seen[seed] = commits(str(tmp_path / str(seed)))
        if extra is None:
            for process in _until(lambda: _workers(cluster)):
                os.kill(process, signal.SIGKILL)
        else:
            cluster.remove_node(extra, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    runs = run_worlds(SCENES, seeds=seeds, num_steps=steps, storage=tmp_path, placement={"num_cpus": 1, "scheduling_strategy": "SPREAD"})
    killer.join()
    assert seen
    world = World.from_template("scenes", steps=1)
    for run in runs:
        is_as(run, alone(world, run.seed, [None] * steps))
        assert commits(run)[: len(seen.get(run.seed, []))] == seen.get(run.seed, []), "what was committed before the kill is there"
    again = run_worlds(SCENES, seeds=seeds, num_steps=steps, storage=tmp_path, workers=1)
    assert [run.passes for run in again] == [steps] * 4


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_config_that_describes_no_world_is_an_error_of_the_call(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(StructureError, match="describes a graph"):
        run_worlds("caption", seeds=[1], num_steps=1, storage=tmp_path)
    placed = run_worlds(SCENES, seeds=[1, 2], num_steps=1, storage=tmp_path, worlds_per_call=2, placement={"resources": {"second": 1}})
    assert [run.passes for run in placed] == [1, 1]


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_a_deployed_level_is_a_node_elsewhere(cluster: Any) -> None:
    pytest.importorskip("ray.serve")
    captioner = Graph.from_template("caption")
    url = on_ray.deploy(captioner, name="captions", num_replicas=2, port=8123)
    image = torch.rand(1, 3, 64, 64)
    pipeline = Pipeline("p")
    pipeline.add_graph({"endpoint_url": url}, "far")
    pipeline.infer_exposed_ports()
    assert pipeline.run({"image": image})["text"] == captioner.run({"image": image})["text"]
    with pytest.raises(StructureError, match="2 replicas of a world"):
        on_ray.deploy(World.from_template("scenes"), num_replicas=2, port=8123)
    assert on_ray.deploy({"template": "caption", "level": "graph"}, name="other", port=8123).endswith("/other")
    from ray import serve

    serve.shutdown()
