"""Light worlds: adapters on every block of a world, trained, saved and changed while it runs."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("peft")

from tests.blocks_for_tests import chain
from tests.lora.models import Body, by_hand, fill, leaves, snapshot
from wgtorch import World, lora
from wgtorch.core.errors import StructureError
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.world_runtime.state import State

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def picture(world: World) -> Tensor:
    """What the world's painter gives."""
    backbone = world.find("creator/paint/t2i/backbone")
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "latent": torch.randn(1, 3, 64, 64, generator=generator),
        "timestep": 0.5,
        "condition": torch.rand(1, 7, 8, generator=generator),
    }
    with torch.no_grad(), lora.use_adapter(backbone, world.find("creator/paint/t2i").node_specs["backbone"].adapter):
        return backbone(**inputs)["pred"]


def test_the_default_world_as_a_light_one(tmp_path: Path) -> None:
    world = World.from_template("default", painter="scenes")
    before = snapshot(world)
    plain = picture(world)
    report = lora.add(world, freeze_base=True, rank=2)
    assert {block.block_type for block in report.adapted} == {"backbone/scene", "conditioner/scene", "reader/trained", "vlm/scene"}
    trained = list(world.trainable_parameters())
    assert {id(parameter) for parameter in trained} == {id(p) for n, p in world.named_parameters() if "lora_" in n}
    assert len({id(parameter) for parameter in trained}) == len(trained) and sum(p.numel() for p in trained) == report.parameters
    fill(world)
    adapted = picture(world)
    assert not torch.equal(adapted, plain)

    path = world.save(tmp_path / "light")
    assert not (path / "blocks").exists(), "the base is the one that ships"
    stored = json.loads((path / "manifest.json").read_text())["blocks"]
    assert all(entry["ref"] and not entry["files"] for entry in stored.values() if entry.get("adapters"))
    loaded = World.load(path)
    assert torch.equal(picture(loaded), adapted)
    assert loaded.find("creator/paint/t2i").node_specs["backbone"].adapter == "style"

    state = world.run(num_steps=1, seed=4)
    assert loaded.run(num_steps=1, seed=4)["artifacts"][0].equal(state["artifacts"][0])
    lora.remove(world, "style")
    after = snapshot(world)
    assert after[0] == before[0] and after[2:] == before[2:]
    assert all(torch.equal(value, before[1][name]) for name, value in after[1].items())
    assert torch.equal(picture(world), plain)


def small_world(body: Body) -> World:
    """Two stages around one block, the first trained with an adapter, the second with another or none."""
    world = World("w")
    world.set_state_schema(["intent", "recipe", "artifacts"])
    for name, source, target in (("one", "intent", "recipe"), ("two", "recipe", "artifacts")):
        pipeline = Pipeline(f"{name}_pipeline")
        pipeline.add_graph(chain(body, name=f"{name}_graph"), "only")
        pipeline.infer_exposed_ports()
        stage = Stage(name)
        stage.add_pipeline(pipeline, "work")
        stage.set_state_contract([source], [target], {"work.x": source}, {target: "work.y"})
        world.add_stage(stage, name)
    world.set_cycle(["one", "two"])
    return world


def test_stages_use_adapters_of_their_own() -> None:
    body = Body()
    world = small_world(body)
    for name in ("a", "b"):
        lora.add(world, name, rank=2, wear=False)
    fill(world)
    world.set_adapter("one", "a")
    world.set_adapter("two/work/only/n0", "b")
    weights = leaves(body)
    state = world.run(state=State(intent=X, schema=("intent", "recipe", "artifacts")), num_steps=1)
    first = by_hand(X, weights, {"a": 1.0})
    torch.testing.assert_close(state["recipe"], first.detach())
    torch.testing.assert_close(state["artifacts"], by_hand(first, weights, {"b": 1.0}).detach())
    again = World.from_config(world.to_config())
    assert again.node_specs["one"].adapter == "a" and again.find("two/work/only").node_specs["n0"].adapter == "b"
    with pytest.raises(StructureError, match="one: no adapter 'a'"):
        again.run(state=State(intent=X, schema=("intent", "recipe", "artifacts")), num_steps=1)


def test_variants_change_while_the_world_runs() -> None:
    """Names, and the weights behind one name, are exchanged between calls: every output is wholly one variant's."""
    body = Body()
    graph = chain(body, name="g")
    for seed, name in enumerate(("winter", "summer")):
        lora.add(graph, name, rank=2)
        fill(graph, seed)
    weights = leaves(body)
    wanted = [by_hand(X, weights, {name: 1.0}).detach() for name in ("winter", "summer")]
    stop, found, errors = threading.Event(), [], []

    def work() -> None:
        try:
            while not stop.is_set():
                found.append(graph.run({"x": X})["y"])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        lora.set_adapter(graph, ("winter", "summer")[turn % 2])
        seen = len(found)
        while len(found) < seen + 4 and not errors:  # at least one call has begun since
            time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors and found
    kinds = [next(index for index, y in enumerate(wanted) if torch.allclose(y, each, atol=1e-6)) for each in found]
    assert set(kinds) == {0, 1}


def test_weights_behind_a_name_are_exchanged_between_calls(tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Body):
        def body(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.first(x))
            inside.set()
            assert go_on.wait(60)
            return self.second(hidden)

    graph = chain(Slow(), name="g")
    lora.add(graph, "season", rank=2)
    fill(graph, 3)
    other = chain(Body(), name="g")
    lora.add(other, "season", rank=2)
    fill(other, 4)
    lora.save(other.nodes["n0"], tmp_path / "summer", "season")
    before = by_hand(X, leaves(graph.nodes["n0"]), {"season": 1.0}).detach()
    found: list[Tensor] = []
    run = threading.Thread(target=lambda: found.append(graph.run({"x": X})["y"]))
    run.start()
    assert inside.wait(60)
    change = threading.Thread(target=lambda: lora.load(graph, tmp_path / "summer", "season", replace=True))
    change.start()
    change.join(0.2)
    assert change.is_alive(), "it waits for the call that runs"
    go_on.set()
    run.join()
    change.join()
    torch.testing.assert_close(found[0], before)
    torch.testing.assert_close(graph.run({"x": X}), {"y": other(x=X)["y"].detach()})


def test_removing_waits_for_calls_and_is_refused_from_inside_one() -> None:
    class Removing(Body):
        def body(self, x: Tensor) -> Tensor:
            lora.remove(graph, "season")
            return x

    graph = chain(Removing(), name="g")
    lora.add(graph, "season", rank=2)
    with pytest.raises(StructureError, match="cannot be changed from inside its own call"):
        graph(x=X)
    assert lora.adapters(graph) == {"season": ["n0"]}


def test_set_adapter_chooses_for_each_block_what_it_has() -> None:
    graph = Graph("g")
    graph.add_node(Body(seed=1), "a")
    graph.add_node(Body(seed=2), "b")
    lora.add(graph, "one", rank=2, nodes=["a"], wear=False)
    lora.add(graph, "two", rank=2, nodes=["b"], wear=False)
    assert lora.set_adapter(graph, {"one": 0.5, "two": 2.0}) == ["a", "b"]
    assert graph.node_specs["a"].adapter == {"one": 0.5} and graph.node_specs["b"].adapter == {"two": 2.0}
    assert lora.set_adapter(graph, "two") == ["b"] and graph.node_specs["a"].adapter == {"one": 0.5}
    lora.set_adapter(graph, None)
    assert graph.node_specs["a"].adapter is None and graph.node_specs["b"].adapter is None
    with pytest.raises(StructureError, match="g: no adapter 'three'"):
        lora.set_adapter(graph, "three")
    with pytest.raises(StructureError, match="is a block; which adapter it uses is said by its place"):
        lora.set_adapter(graph.nodes["a"], "one")
