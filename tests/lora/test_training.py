"""Adapters trained by Lightning: at the places that use them, of blocks alone, in light worlds, in two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("peft")
pytest.importorskip("lightning")

from tests.blocks_for_tests import as_pipeline
from tests.lora.models import Body, by_hand, fill, leaves, twice
from tests.train.toys import BACKBONE, QUIET, Linear, Numbers, chain
from wgtorch import Graph, World, lora
from wgtorch.core.block import BlockRegistry
from wgtorch.core.config.template import build_template
from wgtorch.core.errors import TrainingError
from wgtorch.lora.adapted_module import base_state
from wgtorch.train import Step, Trainable
from wgtorch.train.fitting import fit
from wgtorch.train.registries import DataRegistry, ObjectiveRegistry, build

ROOT = Path(__file__).parents[2]
PAINTING = {"type": "scene_painting", "drop_attribute": 0.0, "drop_condition": 0.0}


def step(index: int = 0) -> Step:
    return Step(index, torch.Generator().manual_seed(index), training=True)


def settings(**more: Any) -> dict[str, Any]:
    trainer = {**QUIET, "max_steps": 4, "limit_val_batches": 0, **more.pop("trainer", {})}
    optimizer = {"type": "sgd", "lr": 0.05}
    return {"data": "train_toys/numbers", "objective": "train_toys/mse", "optimizer": optimizer, "trainer": trainer, **more}


def grads(block: Any) -> set[str]:
    """Adapters that have a gradient other than zero."""
    return {
        name.split(".")[-2]
        for name, parameter in block.named_parameters()
        if "lora_" in name and parameter.grad is not None and float(parameter.grad.abs().sum())
    }


def test_one_block_at_two_places_trains_two_adapters_as_by_hand(tmp_path: Path) -> None:
    graph = twice(Body())
    graph.nodes["n0"].requires_grad_(False)
    graph.nodes["n2"].requires_grad_(False)
    for name, node in (("one", "n1"), ("two", "n3")):
        lora.add(graph, name, rank=2, nodes=[node], freeze_base=True)
    fill(graph)
    graph.set_adapter("n1", "one")
    graph.set_adapter("n3", "two")
    weights, (before, between) = leaves(graph.nodes["n1"]), (graph.nodes["n0"], graph.nodes["n2"])
    own = {name: value for name, value in weights.items() if "lora_" in name}
    optimizer = torch.optim.SGD(own.values(), lr=0.05)
    fresh = Numbers().loaders(seed=0)[0]
    for _, batch in zip(range(4), fresh, strict=False):
        y = by_hand(between(by_hand(before(batch["x"]), weights, {"one": 1.0})), weights, {"two": 1.0})
        optimizer.zero_grad()
        (y - batch["wanted"]).square().mean().backward()
        optimizer.step()
    base = {name: value.clone() for name, value in graph.state_dict().items() if "lora_" not in name}
    fit(graph, settings(), tmp_path)
    trained = leaves(graph.nodes["n1"])
    for name, value in own.items():
        torch.testing.assert_close(trained[name], value)
    assert all(torch.equal(graph.state_dict()[name], value) for name, value in base.items())


# --- blocks alone -----------------------------------------------------------------------------------------------------


def test_a_block_alone_trains_its_adapters() -> None:
    block = Linear()
    lora.add(block, "one", rank=2, freeze_base=True)
    trainable = Trainable(block, objective="train_toys/mse")
    batch = next(iter(Numbers().loaders(seed=0)[0]))
    trainable.loss(batch, step())["loss"].backward()
    assert grads(block) == {"one"} and block.layer.base_layer.weight.grad is None
    lora.add(block, "two", rank=2)
    fill(block)
    with lora.use_adapter(block, {"one": 1.0, "two": 1.0}):
        both = trainable.loss(batch, step())["loss"]
    torch.testing.assert_close(trainable.loss(batch, step())["loss"], both, rtol=0, atol=0)
    with lora.use_adapter(block, "two"):  # what the caller says goes before
        block.zero_grad()
        trainable.loss(batch, step())["loss"].backward()
    assert grads(block) == {"two"}
    with lora.use_adapter(block, None):
        assert not trainable.loss(batch, step())["loss"].requires_grad


def test_the_describer_alone_with_an_adapter_from_its_settings(tmp_path: Path) -> None:
    describer = BlockRegistry.build({"block_type": "vlm/scene", "config": {"width": 8}})
    own = settings(
        data={"type": "scenes", "count": 8, "validation": 4, "batch_size": 4},
        objective="scene_describing",
        lora={"name": "style", "rank": 2, "freeze_base": True},
        samples={"every": 2, "count": 2},
        trainer={"max_steps": 2},
    )
    before = {name: value.clone() for name, value in describer.state_dict().items()}
    fit(describer, own, tmp_path)
    base = base_state(describer)
    assert list(base) == list(before) and all(torch.equal(value, before[name]) for name, value in base.items())
    assert all(float(value.abs().sum()) > 0 for name, value in describer.state_dict().items() if "lora_B" in name)


# --- places -----------------------------------------------------------------------------------------------------------


def small_painter() -> Graph:
    graph = build_template("graph", "text_to_image", {"painter": None, "steps": 2})
    backbone = BlockRegistry.build({"block_type": "backbone/scene", "config": {**BACKBONE, "image_size": 64}})
    graph.replace_node("backbone", backbone)
    graph.replace_node("negative_backbone", backbone)
    return graph


@pytest.mark.parametrize("objective", ["scene_painting", "denoising"])
def test_the_painter_trains_the_adapter_that_its_place_selects_now(objective: str) -> None:
    """Also when the place is told something else after the objective has looked at the graph."""
    graph = small_painter()
    block = graph.nodes["backbone"]
    assert block is graph.nodes["negative_backbone"]
    for name in ("winter", "summer"):
        lora.add(graph, name, rank=2, nodes=["backbone", "negative_backbone"], freeze_base=True)
    fill(graph)
    with torch.no_grad():
        block.leave.weight.normal_(std=0.1)
    graph.set_adapter("negative_backbone", None)
    graph.train()
    batch = next(iter(build(DataRegistry, {"type": "scenes", "count": 4, "batch_size": 2}, "data").loaders(seed=0)[0]))
    words = PAINTING if objective == "scene_painting" else {"type": "denoising", "loss_on": "flow"}
    found = build(ObjectiveRegistry, words, "objective")
    for name in ("winter", "summer", None):
        graph.set_adapter("backbone", name)
        graph.zero_grad()
        loss = found(graph, batch, step(3))["loss"]
        if name is None:
            assert not loss.requires_grad
            continue
        loss.backward()
        assert grads(block) == {name}
    if objective == "scene_painting":  # at its place and alone, the loss of an active adapter is the same
        schedule = {"kind": "flow", "num_train_timesteps": 1}
        own = build(ObjectiveRegistry, {**PAINTING, "prediction": "x0", "schedule": schedule}, "objective")
        same = {**batch, "latent": 2 * batch["image"] - 1}  # so that nothing is drawn for an encoder
        graph.set_adapter("backbone", "summer")
        at_its_place = own(graph, same, step(3))["loss"]
        with lora.use_adapter(block, "summer"):
            torch.testing.assert_close(own(block, same, step(3))["loss"], at_its_place)


def test_what_a_level_around_the_painter_selects_is_trained() -> None:
    """The outermost place decides, as in a run; and a backbone that is named by its path uses what its own place says."""
    graph = small_painter()
    block = graph.nodes["backbone"]
    with torch.no_grad():
        block.leave.weight.normal_(std=0.1)
    pipeline = as_pipeline(graph, "paint")
    for name in ("winter", "summer"):
        lora.add(pipeline, name, rank=2, nodes=["paint/backbone"], freeze_base=True)
    fill(pipeline)
    pipeline.train()
    batch = next(iter(build(DataRegistry, {"type": "scenes", "count": 4, "batch_size": 2}, "data").loaders(seed=0)[0]))
    found = build(ObjectiveRegistry, PAINTING, "objective")
    named = {"type": "denoising", "at": "paint/backbone", "prediction": "x0", "schedule": {"kind": "flow", "num_train_timesteps": 1}}
    alone = build(ObjectiveRegistry, named, "objective")
    given = {**batch, "condition": torch.rand(2, 7, 8)}
    for outer, inner, wanted in ((None, "summer", "summer"), ("winter", "summer", "winter"), ("winter", None, "winter")):
        pipeline.set_adapter("paint/backbone", inner)
        pipeline.set_adapter("paint", outer)
        for objective in (found, alone):
            block.zero_grad()
            objective(pipeline, given, step(3))["loss"].backward()
            assert grads(block) == {wanted}


def test_a_place_without_its_adapter_trains_nothing_and_says_so(tmp_path: Path) -> None:
    graph = small_painter()
    lora.add(graph, "winter", rank=2, nodes=["backbone", "negative_backbone"], freeze_base=True, wear=False)
    own = settings(data={"type": "scenes", "count": 4, "validation": 2, "batch_size": 2}, objective=PAINTING)
    with pytest.raises(TrainingError, match="the loss depends on no weight that trains"):
        fit(graph, own, tmp_path)


# --- light worlds -----------------------------------------------------------------------------------------------------


def test_a_light_world_keeps_nothing_but_its_adapters(tmp_path: Path) -> None:
    world = World.from_template("default", painter="scenes")
    report = lora.add(world, "paper", rank=2, nodes=["creator"], freeze_base=True)
    base = {name: value.clone() for name, value in world.state_dict().items() if "lora_" not in name}
    own = settings(
        data={"type": "scenes", "count": 4, "validation": 2, "batch_size": 2},
        objective={"type": "scene_painting"},
        trainer={"max_steps": 1},
    )
    with pytest.warns(UserWarning, match="conditioner train, but the first loss did not depend on them"):
        fit(world, own, tmp_path)
    assert all(torch.equal(world.state_dict()[name], value) for name, value in base.items())
    last = tmp_path / "checkpoints/last"
    assert not (last / "blocks").exists()
    stored = json.loads((last / "manifest.json").read_text())["blocks"]
    assert sum(1 for entry in stored.values() if entry.get("adapters")) == len(report.adapted)
    assert sum(file.stat().st_size for file in last.rglob("*.safetensors")) < 8 * report.parameters + 50_000
    loaded = World.load(last)
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, world.state_dict()[name], rtol=0, atol=0)


# --- processes --------------------------------------------------------------------------------------------------------

PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import torch
from tests.lora.test_training import settings, shared_with_two_adapters
from wgtorch.train.fitting import fit

trainer = dict(max_steps=3, devices=2, strategy="ddp")
fit(shared_with_two_adapters(), settings(data=dict(type="train_toys/numbers", batch_size=2), trainer=trainer), Path({folder!r}))
"""


def shared_with_two_adapters() -> Graph:
    torch.manual_seed(0)
    shared = Linear()
    graph = chain(shared, Linear(), shared)
    for name, node in (("one", "a"), ("two", "c")):
        lora.add(graph, name, rank=2, nodes=[node], freeze_base=True)
    fill(graph)
    graph.set_adapter("a", "one")
    graph.set_adapter("c", "two")
    return graph


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_two_processes_train_two_adapters_of_a_shared_block_as_one_does_over_both_shares(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(root=str(ROOT), folder=str(tmp_path / "run")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    hand = shared_with_two_adapters().train()
    shares = [Numbers(batch_size=2).loaders(seed=0, rank=rank, world_size=2)[0] for rank in (0, 1)]
    optimizer = torch.optim.SGD(list(hand.trainable_parameters()), lr=0.05)
    for _, batches in zip(range(3), zip(*shares, strict=True), strict=False):
        optimizer.zero_grad()
        for batch in batches:
            ((hand(x=batch["x"])["y"] - batch["wanted"]).square().mean() / 2).backward()
        optimizer.step()
    trained = Graph.load(tmp_path / "run/checkpoints/last").state_dict()
    before = shared_with_two_adapters().state_dict()
    assert all(not torch.equal(value, before[name]) for name, value in trained.items() if "lora_" in name and "nodes.b" not in name)
    for name, value in hand.state_dict().items():
        torch.testing.assert_close(trained[name], value)
