"""What learns is one set: computed from places, adapters and what the objective needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("peft")

from tests.train.toys import QUIET, Distance, Linear, chain, run_settings
from wgtorch import Graph, Pipeline, lora
from wgtorch.core.errors import TrainingError
from wgtorch.train import Trainable
from wgtorch.train.fitting import fit
from wgtorch.train.learned import learned_parameters, places_needed


def two_adapters() -> tuple[Graph, Linear]:
    """One block in two places, each with an adapter of its own."""
    block = Linear()
    graph = chain(block, Linear(), block)
    lora.add(graph, "A", rank=2, nodes=["a"], wear=False)
    lora.add(graph, "B", rank=2, nodes=["a"], wear=False)
    graph.set_adapter("a", "A")
    graph.set_adapter("c", "B")
    return graph, block


def names(graph: Graph, parameters: Any) -> set[str]:
    held = {id(parameter) for parameter in parameters}
    return {name for name, parameter in graph.named_parameters() if id(parameter) in held}


@pytest.mark.parametrize("way", ["set_trainable", "set_adapter", "train_only"])
def test_an_adapter_that_no_gradient_reaches_is_left_out_everywhere(way: str) -> None:
    graph, _ = two_adapters()
    if way == "set_trainable":
        graph.set_trainable("a", False)
    elif way == "set_adapter":
        graph.set_adapter("a", None)
    trainable = Trainable(graph, objective=Distance(), train_only=["c"] if way == "train_only" else ())
    learned = names(graph, graph.trainable_parameters())
    assert any(".B." in name for name in learned)
    assert not any(".A." in name for name in learned)
    held = [parameter for group in trainable.plan.groups(graph, trainable.objective) for parameter in group["params"]]
    assert names(graph, held) == learned == {name.removeprefix("target.") for name in trainable.trained_names() if ".nodes.c." not in name}


def test_a_level_around_selects_what_learns_below_it() -> None:
    graph, _ = two_adapters()
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "g")
    pipeline.infer_exposed_ports()
    pipeline.set_adapter("g", "A")
    learned = {name for name, parameter in pipeline.named_parameters() if id(parameter) in {id(p) for p in pipeline.trainable_parameters()}}
    assert any(".A." in name for name in learned)
    assert not any(".B." in name for name in learned), "the outermost place decides"


def test_learning_is_what_backward_reaches() -> None:
    graph, _ = two_adapters()
    graph.set_trainable("b", False)
    graph.set_adapter("a", {"A": 0.5, "B": 0.5})
    graph.train()
    graph(x=torch.ones(2, 4))["y"].sum().backward()
    reached = {name for name, parameter in graph.named_parameters() if parameter.grad is not None}
    assert names(graph, graph.trainable_parameters()) == reached


def test_only_what_an_objective_needs_learns() -> None:
    graph = chain(Linear(), Linear(), Linear())

    class Middle(Distance):
        def reached(self, target: Any) -> Any:
            return places_needed(target, ["b.y"])

    assert places_needed(graph, ["b.y"]) == {"a", "b"}
    assert len(learned_parameters(graph, Middle())) == 4
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "g")
    pipeline.infer_exposed_ports()
    assert places_needed(pipeline, ["g/a.y"]) == {"g/a"}
    assert len(learned_parameters(pipeline, type("First", (Distance,), {"reached": lambda self, target: ["g/a"]})())) == 2


def test_an_adapter_worn_nowhere_or_only_where_nothing_trains_is_an_error_before_the_first_step(tmp_path: Path) -> None:
    graph = chain(Linear(), Linear())
    lora.add(graph, "A", rank=2, wear=False)
    with pytest.raises(TrainingError, match="no adapter learns: adapter 'A' of a; adapter 'A' of b"):
        Trainable(graph, objective=Distance())
    graph.set_adapter("a", "A")
    graph.set_trainable("a", False)
    with pytest.raises(TrainingError, match="no adapter learns"):
        fit(graph, run_settings(trainer={**QUIET, "max_steps": 1}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_shipped_settings_adapt_what_the_objective_reaches(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.integrations.diffusers import tiny

    tiny.stable_diffusion_xl(tmp_path / "words").save_pretrained(tmp_path / "xl")
    graph = Graph.from_diffusers(tmp_path / "xl")
    settings = {
        "data": {"type": "synthetic", "count": 4, "held_out": 0, "batch_size": 2, "values": {
            "image": {"kind": "uniform", "shape": [3, 16, 16]}, "prompt": {"kind": "choice", "values": ["a", "the"]}}},
        "objective": "denoising",
        "lora": {"name": "style", "rank": 2, "freeze_base": True},
        "trainer": {**QUIET, "max_steps": 1},
    }  # fmt: skip
    trained = fit(graph, settings, tmp_path / "run")
    adapted = {path for paths in lora.adapters(graph).values() for path in paths}
    assert adapted == {"text_encoder", "negative_text_encoder", "text_encoder_2", "negative_text_encoder_2", "backbone"}
    missed = [name for name, parameter in graph.named_parameters() if "lora_B" in name and parameter.grad is None]
    layers = {name.rsplit(".layers.", 1)[-1] for name in missed}
    assert all(name.startswith("2.") for name in layers), f"the last layer of an encoder is not looked at (penultimate): {missed}"
    assert trained.trained_names()
    backbone = Graph.from_diffusers(tmp_path / "xl")
    fit(backbone, {**settings, "lora": {**settings["lora"], "nodes": "*backbone"}}, tmp_path / "run2")
    assert lora.adapters(backbone) == {"style": ["backbone"]}
