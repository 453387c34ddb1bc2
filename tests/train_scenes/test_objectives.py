"""Objectives of the default models: what they learn from, that they learn, what they show, what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from wgtorch.blocks.scenes.backbone import SceneBackbone
from wgtorch.blocks.scenes.describer import SceneDescriber
from wgtorch.blocks.scenes.text import SceneTextEncoder, condition_from_labels
from wgtorch.core.block import Block
from wgtorch.core.config.template import build_template
from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph
from wgtorch.train.objective import Objective, Step
from wgtorch.train.registries import DataRegistry, ObjectiveRegistry, build
from wgtorch.train.scenes.painter import ScenePainting

TINY = {"width": 16, "heads": 2, "depth": 1, "conv_width": 8, "map_width": 4, "condition_width": 8}
FLOW = {"kind": "flow", "num_train_timesteps": 1}


def step(index: int = 0, *, training: bool = True) -> Step:
    return Step(index, torch.Generator().manual_seed(index), training)


def batch_of(data: str, size: int = 16, **config: Any) -> dict[str, Any]:
    train, _ = build(DataRegistry, {"type": data, "count": size, "batch_size": size, **config}, "data").loaders(seed=0)
    return next(iter(train))


def objective_of(config: Any) -> Objective:
    return build(ObjectiveRegistry, config, "objective")


def losses(target: Block, objective: Objective, batch: Mapping[str, Any], steps: int, rate: float) -> list[float]:
    objective.check(target)
    optimizer = torch.optim.Adam(target.parameters(), lr=rate)
    found = []
    for index in range(steps):
        values = objective(target, batch, step(index))
        assert isinstance(values, Mapping)
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
        found.append(values["loss"].item())
    return found


def sure(labels: Tensor, sizes: list[int]) -> list[Tensor]:
    return [20 * torch.nn.functional.one_hot(column.clamp(min=0), size).float() for column, size in zip(labels.T, sizes, strict=True)]


# --- describing -------------------------------------------------------------------------------------------------------


def test_the_describer_learns_a_batch_by_heart() -> None:
    batch, target = batch_of("scenes", 8), SceneDescriber(width=16)
    found = losses(target, objective_of("scene_describing"), batch, 30, 5e-3)
    assert found[-1] < 0.5 * found[0], found
    clean = objective_of("scene_describing")(target, batch, step(training=False))
    assert clean["accuracy"] > 0.8 and clean["worst_accuracy"] <= clean["accuracy"]


def test_accuracy_counts_attributes_that_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    target, labels = SceneDescriber(width=8), torch.tensor([[0, 0, 0, 1, 2, 1, 0], [3, 5, 1, 0, -1, -1, 1]])
    said = labels.clone()
    said[0, 1] = 3  # one weather of two is read wrongly; what is said of no landmark's colour does not count
    names = list(target.heads)
    logits = dict(zip(names, sure(said, [4, 6, 6, 7, 4, 3, 2]), strict=True))
    monkeypatch.setattr(SceneDescriber, "logits", lambda self, image: logits)
    found = objective_of({"type": "scene_describing", "smoothing": 0.0})(
        target, {"image": torch.zeros(2, 3, 64, 64), "labels": labels}, step()
    )
    assert found["accuracy"] == pytest.approx(11 / 12) and found["worst_accuracy"] == 0.5
    assert found["loss"] == pytest.approx(20 / 2, abs=1e-3)  # one weather of two, 20 nats too sure
    bare = labels.clone()
    bare[0, 3:6] = torch.tensor([0, -1, -1])
    found = objective_of("scene_describing")(target, {"image": torch.zeros(2, 3, 64, 64), "labels": bare}, step())
    assert found["loss"].isfinite()


def test_pictures_are_disturbed_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, seen = batch_of("scenes", 4), []
    logits = SceneDescriber.logits
    monkeypatch.setattr(SceneDescriber, "logits", lambda self, image: (seen.append(image), logits(self, image))[1])
    target, objective = SceneDescriber(width=8), objective_of("scene_describing")
    for training in (True, True, False):
        objective(target, batch, step(3, training=training))
    assert not torch.equal(seen[0], batch["image"]) and torch.equal(seen[0], seen[1]) and torch.equal(seen[2], batch["image"])


def test_a_describers_samples_say_what_is_wrong() -> None:
    batch = batch_of("scenes", 4)
    found = objective_of("scene_describing").samples(SceneDescriber(width=8).eval(), batch, step())
    assert found["pictures"].shape == (4, 3, 64, 64)
    assert len(found["read"]) == 4 and all("(it is: " in line or line.endswith("(right)") for line in found["read"])


# --- reading ----------------------------------------------------------------------------------------------------------


def test_the_text_encoder_learns_a_batch_by_heart() -> None:
    batch, target = batch_of("scene_captions", 32), SceneTextEncoder(width=32)
    found = losses(target, objective_of("scene_reading"), batch, 60, 5e-3)
    assert found[-1] < 0.1 * found[0], found
    read = objective_of("scene_reading").samples(target.eval(), batch, step())["read"]
    assert len(read) == 32 and sum("(wrong)" in line for line in read) < 8


def test_what_a_text_leaves_open_is_learned_as_open(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = {"text": ["at night", ""], "labels": torch.tensor([[3, -1, -1, -1, -1, -1, -1], [-1] * 7])}
    open_ones = condition_from_labels(batch["labels"]).argmax(-1)
    sizes = [5, 7, 7, 8, 5, 4, 3]
    monkeypatch.setattr(SceneTextEncoder, "logits", lambda self, tokens: sure(open_ones, sizes))
    found = objective_of("scene_reading")(SceneTextEncoder(), batch, step())
    assert found["loss"] < 1e-3 and found["accuracy"] == 1


# --- painting ---------------------------------------------------------------------------------------------------------


def test_the_painter_learns_in_a_graph_and_alone() -> None:
    batch = batch_of("scenes", 8)
    config = {"type": "scene_painting", "times": {"type": "logit_normal", "mean": -0.3, "std": 1.2}}
    bare = SceneBackbone(**TINY)
    alone = objective_of({**config, "prediction": "x0", "schedule": FLOW})
    before = alone(bare, batch, step(99, training=False))["loss"].item()
    losses(bare, alone, batch, 60, 1e-2)
    assert alone(bare, batch, step(99, training=False))["loss"] < 0.85 * before
    graph = build_template("graph", "text_to_image", {"painter": None})
    objective_of(config)(graph, batch, step(5))["loss"].backward()
    reached = {id(parameter) for parameter in graph.parameters() if parameter.grad is not None}
    assert reached <= {id(parameter) for parameter in graph.find("backbone").parameters()}
    assert graph.find("backbone").leave.weight.grad.abs().sum() > 0


def test_the_loss_is_that_of_the_velocity() -> None:
    """At its start the backbone is the linear estimate, so the loss can be worked out by hand."""
    batch, target = batch_of("scenes", 6), SceneBackbone(**TINY)
    given = step(1)
    found = objective_of({"type": "scene_painting", "prediction": "x0", "schedule": FLOW})(target, batch, given)
    again, x0 = step(1), 2 * batch["image"] - 1
    t = again.uniform(6).clamp(min=1e-3).view(6, 1, 1, 1)
    noise = torch.randn(x0.shape, generator=again.generator)
    x_t = (1 - t) * x0 + t * noise
    pred = x_t * (1 - t) * 0.25 / (((1 - t) * 0.5) ** 2 + t**2)
    velocity = (x_t - pred) / t
    torch.testing.assert_close(found["loss"], (velocity - (noise - x0)).square().mean())


def test_labels_are_left_out_in_training_only() -> None:
    objective = objective_of(
        {"type": "scene_painting", "drop_attribute": 0.25, "drop_condition": 0.2, "prediction": "x0", "schedule": FLOW}
    )
    assert isinstance(objective, ScenePainting)
    labels = torch.zeros(4000, 7, dtype=torch.long)
    denoiser = objective.denoiser(SceneBackbone(**TINY))
    condition = objective.conditions(denoiser, {"labels": labels}, step())["condition"]
    left_out = condition.argmax(-1) != 0
    whole = left_out.all(dim=1)
    assert abs(whole.float().mean() - 0.2) < 0.02
    assert abs(left_out[~whole].float().mean() - 0.25) < 0.02
    clean = objective.conditions(denoiser, {"labels": labels}, step(training=False))["condition"]
    torch.testing.assert_close(clean, condition_from_labels(labels), rtol=0, atol=0)


def test_a_painters_samples_are_what_the_graph_paints_of_the_prompts() -> None:
    graph = build_template("graph", "text_to_image", {"steps": 2})
    assert isinstance(graph, Graph)
    batch = {
        "prompt": ["a castle at night", "the sea by day"],
        "labels": torch.zeros(2, 7, dtype=torch.long),
        "image": torch.zeros(2, 3, 64, 64),
    }
    with torch.no_grad():
        found = objective_of("scene_painting").samples(graph.eval(), batch, step())
    assert found["image"].shape == (2, 3, 64, 64)
    night, day = found["image"].mean(dim=(1, 2, 3)).tolist()
    assert night < day


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "target", "words_in_it"),
    [
        ("scene_describing", SceneTextEncoder, "the target is a SceneTextEncoder; expected a block of type 'vlm/scene'"),
        ("scene_reading", SceneDescriber, "expected a block of type 'conditioner/scene'"),
        ("scene_painting", SceneDescriber, "holds 0 painters; expected one block of type 'backbone/scene'"),
    ],
)
def test_an_objective_says_which_block_it_is_for(objective: str, target: type[Block], words_in_it: str) -> None:
    with pytest.raises(ConfigError, match=words_in_it):
        objective_of(objective).check(target())


@pytest.mark.parametrize(
    ("config", "words_in_it"),
    [
        ({"type": "scene_describing", "smoothing": 1.0}, r"smoothing: found 1.0, expected a share in \[0, 1\)"),
        ({"type": "scene_painting", "drop_attribute": 2}, "drop_attribute: found 2, expected a share from 0 to 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(config: dict[str, Any], words_in_it: str) -> None:
    with pytest.raises(ConfigError, match=words_in_it):
        objective_of(config)
