"""One model, one instance: by configs, by hand, from two threads, through saves and copies; freed when nobody uses it."""

from __future__ import annotations

import copy
import gc
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.blocks_for_tests import Affine, as_pipeline, as_stage
from wgtorch.core.block import Block, BlockRegistry, register_block
from wgtorch.core.checkpoint.refs import ref_of
from wgtorch.core.pool import Pool, now_building
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.world import World


@pytest.fixture
def ref(tmp_path: Path) -> str:
    save_file(Affine(seed=8).state_dict(), tmp_path / "affine.safetensors")
    return str(tmp_path / "affine.safetensors")


def config_of(ref: str, name: str = "g", *, second: Mapping[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    """A graph of two nodes that name the same model."""
    node = {"block_type": "test/affine", "config": {"checkpoint_ref": ref, **extra}}
    return {
        "kind": "graph",
        "graph_id": name,
        "nodes": [{"node_id": "a", **node}, {"node_id": "b", **node, **(second or {})}],
        "edges": [{"source_node": "a", "source_port": "y", "target_node": "b", "target_port": "x"}],
        "exposed_inputs": [{"node_id": "a", "port_name": "x", "name": "x"}],
        "exposed_outputs": [{"node_id": "b", "port_name": "y", "name": "y"}],
    }


def test_two_nodes_of_one_config_share(ref: str) -> None:
    graph = Graph.from_config(config_of(ref))
    assert graph.nodes["a"] is graph.nodes["b"]
    assert len(list(graph.parameters())) == 2
    assert now_building().pool is None, "nothing of a build is left behind"


def test_two_builds_share_only_through_a_pool(ref: str) -> None:
    assert Graph.from_config(config_of(ref)).nodes["a"] is not Graph.from_config(config_of(ref)).nodes["a"]
    pool = Pool()
    one, two = Graph.from_config(config_of(ref), pool=pool), Graph.from_config(config_of(ref, "other"), pool=pool)
    assert one.nodes["a"] is two.nodes["b"] and len(pool) == 1


def test_graphs_pipelines_stages_and_worlds_share(ref: str, tmp_path: Path) -> None:
    pool = Pool()
    world = World("w")
    for name in ("one", "two"):
        pipeline = Pipeline("p")
        for graph in ("first", "second"):
            pipeline.add_graph(Graph.from_config(config_of(ref, graph), pool=pool), graph)
        pipeline.add_edge("first.y", "second.x")
        pipeline.infer_exposed_ports()
        stage = as_stage(Graph.from_config(config_of(ref), pool=pool), name)
        stage.add_pipeline(pipeline, "more")
        world.add_stage(stage, name)
    world.set_cycle(["one", "two"])
    other = Graph.from_yaml(world.find("one/work/only").save_config(tmp_path / "g.yaml"), pool=pool)
    models = {id(module) for level in (world, other) for module in level.modules() if isinstance(module, Affine)}
    assert len(models) == 1 and len(list(world.parameters())) == 2


def test_by_hand_inside_a_pool(ref: str) -> None:
    pool = Pool()
    graph = Graph("g")
    with pool:
        graph.add_node("test/affine", "a", config={"checkpoint_ref": ref})
        graph.add_node("test/affine", "b", config={"checkpoint_ref": ref}, reuse=False)
    block = BlockRegistry.build({"block_type": "test/affine", "config": {"checkpoint_ref": ref}}, pool=pool)
    assert block is graph.nodes["a"] and block is not graph.nodes["b"]
    graph.add_node("test/affine", "c", config={"checkpoint_ref": ref})
    assert graph.nodes["c"] is not block, "outside it, each is built anew"


def test_templates_inside_a_pool_share() -> None:
    pool = Pool()
    with pool:
        one, two = World.from_template("default"), World.from_template("default", steps=3)
    assert one.find("creator/paint/t2i/backbone") is two.find("creator/paint/t2i/backbone")
    report = pool.report()
    named = [str(ref) for module in set(one.modules()) if isinstance(module, Block) and (ref := ref_of(module)) is not None]
    assert len(named) >= 2 and sorted(model.ref for model in report) == sorted(named)
    assert report.bytes == sum(p.numel() * 4 for p in one.parameters()) + sum(b.numel() * b.element_size() for b in one.buffers())


def test_identity_is_by_content(ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()

    def load(**config: Any) -> Block:
        return BlockRegistry.build({"block_type": "test/affine", "config": config}, pool=pool)

    first = load(checkpoint_ref=ref)
    assert load(checkpoint_ref=ref, width=4) is first, "defaults written out are the same config"
    assert load(seed=0, checkpoint_ref=ref) is first, "the order of keys says nothing"
    monkeypatch.chdir(tmp_path)
    assert load(checkpoint_ref="affine.safetensors") is first, "a relative path is resolved"
    (tmp_path / "link.safetensors").symlink_to(ref)
    assert load(checkpoint_ref="link.safetensors") is first
    monkeypatch.setenv("MODEL", ref)
    assert load(checkpoint_ref="${oc.env:MODEL}") is first
    assert load(checkpoint_ref=ref, seed=1) is not first
    time.sleep(0.01)
    save_file(Affine(seed=9).state_dict(), ref)
    changed = load(checkpoint_ref=ref)
    assert changed is not first, "the file was written anew"
    assert torch.equal(changed.linear.weight, Affine(seed=9).linear.weight)


def test_another_dtype_is_another_load(ref: str) -> None:
    pool = Pool()
    entry = {"block_type": "test/affine", "config": {"checkpoint_ref": ref}}
    first = BlockRegistry.build(entry, pool=pool)
    torch.set_default_dtype(torch.float64)
    try:
        double = BlockRegistry.build(entry, pool=pool)
    finally:
        torch.set_default_dtype(torch.float32)
    assert double is not first and double.linear.weight.dtype == torch.float64
    assert BlockRegistry.build(entry, pool=pool) is first
    first.half()
    fresh = BlockRegistry.build(entry, pool=pool)
    assert fresh is not first and fresh.linear.weight.dtype == torch.float32


def test_blocks_without_a_ref_are_nobody_elses() -> None:
    pool = Pool()
    entry = {"block_type": "test/affine", "config": {"seed": 1}}
    assert BlockRegistry.build(entry, pool=pool) is not BlockRegistry.build(entry, pool=pool)
    assert len(pool) == 0


def test_clients_of_an_api_are_known_by_their_model() -> None:
    @register_block("test/client")
    class Client(Block):
        outputs: ClassVar[Mapping[str, Any]] = {"text": "text"}

        def __init__(self, model_id: str, provider: str = "p", endpoint_url: str | None = None, api_key: str | None = None) -> None:
            super().__init__()

        def forward(self, text: str) -> str:
            return text

    pool = Pool()

    def client(**config: Any) -> Block:
        return BlockRegistry.build({"block_type": "test/client", "config": config}, pool=pool)

    assert client(model_id="m") is client(model_id="m", provider="p")
    assert client(model_id="m") is not client(model_id="m", endpoint_url="http://x")


@register_block("test/slow_affine")
class SlowAffine(Affine):
    """Takes its time to be built, and counts how often it was."""

    built: ClassVar[list[int]] = []

    def __init__(self, width: int = 4, seed: int = 0) -> None:
        super().__init__(width, seed)
        self.built.append(1)
        time.sleep(0.2)


def test_threads_that_ask_at_once_load_once(ref: str) -> None:
    pool = Pool()
    config = config_of(ref)
    for node in config["nodes"]:
        node["block_type"] = "test/slow_affine"
    found: list[Graph] = []
    SlowAffine.built.clear()
    threads = [threading.Thread(target=lambda: found.append(Graph.from_config(config, pool=pool))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len({id(graph.nodes[node]) for graph in found for node in "ab"}) == 1
    assert len(SlowAffine.built) == 1


def test_threads_inside_one_pool_by_hand(ref: str) -> None:
    """Each enters while the other is inside, and leaves in the order they came."""
    pool, meet = Pool(), threading.Barrier(2)
    found: list[Graph] = []
    wrong: list[BaseException] = []

    def build(first: bool) -> None:
        try:
            with pool:
                meet.wait(60)
                graph = Graph("g")
                graph.add_node("test/affine", "a", config={"checkpoint_ref": ref})
                found.append(graph)
                if not first:
                    meet.wait(60)
            if first:
                meet.wait(60)
            assert now_building().pool is None
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=build, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert found[0].nodes["a"] is found[1].nodes["a"]


def test_pools_inside_pools(ref: str) -> None:
    outer, inner = Pool(), Pool()
    with outer:
        with inner, inner:
            assert now_building().pool is inner
        assert now_building().pool is outer
    assert now_building().pool is None


def test_a_failed_load_is_tried_again(ref: str, tmp_path: Path) -> None:
    pool = Pool()
    missing = tmp_path / "later.safetensors"
    entry = {"block_type": "test/affine", "config": {"checkpoint_ref": str(missing)}}
    with pytest.raises(ValueError, match="is not there"):
        BlockRegistry.build(entry, pool=pool)
    save_file(Affine(seed=2).state_dict(), missing)
    assert torch.equal(BlockRegistry.build(entry, pool=pool).linear.weight, Affine(seed=2).linear.weight)


def rss() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


@register_block("test/large")
class Large(Block):
    """64 MiB of weights."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(16, 1 << 20))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight.sum()


def test_models_that_nobody_uses_are_freed_and_two_graphs_hold_one(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(16, 1 << 20)}, tmp_path / "large.safetensors")
    size, pool = 64 << 20, Pool()

    def build(name: str) -> Graph:
        graph = Graph(name)
        with pool:
            graph.add_node("test/large", "m", config={"checkpoint_ref": str(tmp_path / "large.safetensors")})
        float(graph.nodes["m"].weight.detach().sum())  # every page is looked at
        return graph

    float(torch.ones(1 << 20).sum())
    gc.collect()
    before = rss()
    one = build("one")
    after_one = rss()
    two = build("two")
    assert after_one - before > 0.9 * size
    assert rss() - after_one < 0.05 * size, "two tasks on one model take the memory of one"
    gone = weakref.ref(one.nodes["m"])
    del one
    assert gone() is not None and len(pool) == 1
    del two
    gc.collect()
    assert gone() is None and len(pool) == 0
    assert rss() - before < 0.2 * size


def test_the_report_says_what_where_and_how_large(ref: str) -> None:
    pool = Pool()
    graph = Graph.from_config(config_of(ref), pool=pool)
    with pool:
        pipeline = as_pipeline(graph, "only", "p")
    (model,) = pool.report()
    assert (model.block_type, model.ref, model.bytes, model.dtype, model.device) == ("test/affine", ref, 80, "float32", "cpu")
    assert model.places == ("p/only/a", "p/only/b")
    assert "test/affine" in str(pool.report()) and "1 models, 0.0 MB" in str(pool.report())
    del pipeline
    gc.collect()
    assert next(iter(pool.report())).places == ("g/a", "g/b")


def test_the_default_pool_is_one_and_used_only_when_handed_over(ref: str) -> None:
    assert Pool.default() is Pool.default()
    graph = Graph.from_config(config_of(ref))
    assert not Pool.default().holds(graph.nodes["a"])


# --- sharing that lasts -----------------------------------------------------------------------------------------------


def sharing(graph: Graph) -> tuple[int, ...]:
    """For each node, the first node that holds the same child."""
    children = list(graph.nodes.values())
    return tuple(next(index for index, other in enumerate(children) if other is child) for child in children)


def mixed(ref: str) -> Graph:
    """Nodes: shared by ref, apart with the same ref, a clone, shared without a ref, apart without a ref."""
    graph = Graph.from_config(config_of(ref, second={"reuse": False}))
    graph.add_node(graph.nodes["a"], "again")
    graph.add_node(graph.nodes["a"], "clone")
    graph.clone_node("clone")
    plain = Affine(seed=1)
    for name in ("plain", "plain_again"):
        graph.add_node(plain, name)
    graph.add_node(Affine(seed=1), "other")
    graph.add_node(graph.nodes["clone"], "clone_again")
    assert sharing(graph) == (0, 1, 0, 3, 4, 4, 6, 3)
    return graph


def test_sharing_survives_configs_saves_and_copies(ref: str, tmp_path: Path) -> None:
    graph = mixed(ref)
    expected = sharing(graph)
    assert sharing(Graph.from_config(graph.to_config())) == expected
    assert Graph.from_config(graph.to_config()).to_config() == graph.to_config()
    assert sharing(Graph.from_config(graph.to_config(), pool=Pool())) == expected
    assert sharing(copy.deepcopy(graph)) == expected
    for format in ("dir", "archive"):
        path = graph.save_checkpoint(tmp_path / format, format)
        assert sharing(Graph.load_from_checkpoint(path)) == expected
        assert sharing(Graph.load_from_checkpoint(path, pool=Pool())) == expected
    with torch.no_grad():
        graph.nodes["clone"].linear.weight.add_(1)
    loaded = Graph.load(graph.save(tmp_path / "trained"))
    assert sharing(loaded) == expected
    assert torch.equal(loaded.nodes["clone_again"].linear.weight, graph.nodes["clone"].linear.weight)
    assert not torch.equal(loaded.nodes["clone"].linear.weight, loaded.nodes["a"].linear.weight)


def test_two_instances_of_one_model_stay_two_without_being_told(ref: str) -> None:
    graph = Graph("g")
    for name in "ab":
        graph.add_node("test/affine", name, config={"checkpoint_ref": ref})
    assert sharing(graph) == (0, 1)
    assert sharing(Graph.from_config(graph.to_config())) == (0, 1)
    assert [node.get("reuse", True) for node in graph.to_config()["nodes"]] == [True, False]


def test_worlds_loaded_apart_share_through_a_pool(ref: str, tmp_path: Path) -> None:
    graph = mixed(ref)
    with torch.no_grad():
        graph.nodes["plain"].linear.bias.add_(1)
    path = graph.save(tmp_path / "g")
    pool = Pool()
    one, two = (Graph.load(path, pool=pool) for _ in range(2))
    assert one.nodes["a"] is two.nodes["a"], "by its ref"
    assert one.nodes["plain"] is two.nodes["plain_again"], "by the file it is stored in"
    assert one.nodes["other"] is not one.nodes["plain"], "equal weights do not make two blocks one"
    assert one.nodes["b"] is not two.nodes["b"], "reuse: false"
    assert Graph.from_config(config_of(ref), pool=pool).nodes["a"] is one.nodes["a"]
    assert Graph.load(path).nodes["a"] is not one.nodes["a"]


def test_diffusers_keeps_two_where_a_pool_keeps_one(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    kwargs = {
        "sample_size": 8, "block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4, "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
    }  # fmt: skip
    diffusers.UNet2DModel(**kwargs).save_pretrained(tmp_path / "unet")

    @register_block("test/unet")
    class UNet(Block):
        outputs: ClassVar[Mapping[str, Any]] = {"pred": "tensor"}

        def __init__(self) -> None:
            super().__init__()
            for name, child in diffusers.UNet2DModel(**kwargs).named_children():
                self.add_module(name, child)

        def forward(self, latent: Tensor) -> Tensor:
            return latent

    theirs = [diffusers.UNet2DModel.from_pretrained(tmp_path / "unet") for _ in range(2)]
    assert theirs[0] is not theirs[1]
    pool = Pool()
    ours = [
        BlockRegistry.build({"block_type": "test/unet", "config": {"checkpoint_ref": str(tmp_path / "unet")}}, pool=pool) for _ in range(2)
    ]
    assert ours[0] is ours[1]
    state = ours[0].state_dict()
    assert all(torch.equal(state[name], value) for name, value in theirs[0].state_dict().items())
