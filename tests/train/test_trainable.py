"""Trainable: what trains, with which settings, in which mode; and what it says when something does not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import wgtorch
from tests.train.toys import FLOW, QUIET, Distance, Far, Linear, Numbers, backbone, chain, run_settings, turning_world
from wgtorch import Block, Graph, Pipeline
from wgtorch.core.errors import ConfigError, TrainingError, UnknownNameError, WgtorchError
from wgtorch.train.patterns import matches

pytest.importorskip("lightning")

import lightning.pytorch as pl

from wgtorch.train import Step, Trainable
from wgtorch.train.fitting import _quiet


def fitted(trainable: Trainable, steps: int = 2, **trainer: Any) -> pl.Trainer:
    batches, held_out = Numbers().loaders(seed=0)
    with _quiet():
        own = pl.Trainer(
            **{"max_steps": steps, "logger": False, "enable_checkpointing": False, "enable_model_summary": False, **QUIET, **trainer}
        )
        own.fit(trainable, batches, held_out)
    return own


class Watcher(pl.Callback):
    """Notes modes, learning rates and which weights changed."""

    def __init__(self) -> None:
        self.modes: list[dict[str, bool]] = []
        self.rates: list[list[float]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, trainable: Any, *args: Any) -> None:
        self.modes.append({name: module.training for name, module in trainable.target.named_modules()})
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])


def test_importing_it_does_not_load_lightning_until_trainable_is_asked_for() -> None:
    code = (
        "import sys, wgtorch; wgtorch.train.Objective; a = 'lightning' in sys.modules; "
        "wgtorch.train.Trainable; print(a, 'lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "True"]
    assert wgtorch.train.Trainable is Trainable


def test_it_is_a_lightning_module_whose_weights_change() -> None:
    graph = chain(Linear(), Linear())
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    trainable = Trainable(graph, objective="train_toys/mse", optimizer={"type": "sgd", "lr": 0.1})
    assert isinstance(trainable, pl.LightningModule)
    fitted(trainable)
    assert all(not torch.equal(value, before[name]) for name, value in graph.state_dict().items())
    x = torch.ones(1, 4)
    assert torch.equal(trainable(x=x)["y"], graph(x=x)["y"])


@pytest.mark.parametrize("clip", [{}, {"gradient_clip_val": 0.05}, {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}])
@pytest.mark.parametrize("said", [{}, {"fused": False}], ids=["fused, as on a CPU without a word", "not fused"])
def test_one_step_is_that_of_the_hand_written_loop(said: dict[str, bool], clip: dict[str, Any]) -> None:
    torch.manual_seed(3)
    graph = chain(Linear(), Linear())
    hand = chain(Linear(), Linear())
    hand.load_state_dict(graph.state_dict())
    trainable = Trainable(graph, objective="train_toys/mse", optimizer={"type": "adamw", "lr": 0.1, **said})
    fitted(trainable, 5, **clip)

    batches, _ = Numbers().loaders(seed=0)
    optimizer = torch.optim.AdamW(hand.parameters(), lr=0.1, fused=not said)
    for _, batch in zip(range(5), batches, strict=False):
        optimizer.zero_grad()
        (hand(x=batch["x"])["y"] - batch["wanted"]).square().mean().backward()
        if "gradient_clip_algorithm" in clip:
            torch.nn.utils.clip_grad_value_(hand.parameters(), 0.01)
        elif clip:
            assert torch.nn.utils.clip_grad_norm_(hand.parameters(), 0.05) > 0.05
        optimizer.step()
    assert all(torch.equal(value, hand.state_dict()[name]) for name, value in graph.state_dict().items())


def test_frozen_children_stay_in_eval_while_the_rest_trains_also_after_validation() -> None:
    graph = chain(Linear(dropout=0.5), Linear(dropout=0.5), Linear())
    watcher = Watcher()
    trainable = Trainable(graph, objective="train_toys/mse", freeze=["b"])
    fitted(trainable, 8, callbacks=[watcher], val_check_interval=2)
    for modes in watcher.modes:
        assert modes["nodes.a.dropout"]
        assert not modes["nodes.b"]
        assert not modes["nodes.b.dropout"]
        assert modes["nodes.c"]


def test_freezing_is_part_of_the_targets_config_and_shared_weights_train_through_their_other_place() -> None:
    shared = Linear()
    graph = chain(shared, Linear(), shared)
    Trainable(graph, objective="train_toys/mse", freeze=["c"])
    assert Graph.from_config(graph.to_config()).node_specs["c"].trainable is False
    batch = {"x": torch.randn(3, 4), "wanted": torch.zeros(3, 4)}
    graph.train()
    Distance()(graph, batch, Step(0, torch.Generator())).backward()
    # by hand: the second use is of the same values that take no gradient
    first = torch.nn.functional.linear(batch["x"], shared.layer.weight, shared.layer.bias)
    middle = graph.nodes["b"].layer(first)
    last = torch.nn.functional.linear(middle, shared.layer.weight.detach(), shared.layer.bias.detach())
    expected = torch.autograd.grad(last.square().mean(), shared.layer.weight)[0]
    torch.testing.assert_close(shared.layer.weight.grad, expected)


def test_only_what_is_named_trains_down_to_parameters() -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(chain(Linear(), Linear(), name="first"), "first")
    pipeline.add_graph(chain(Linear(), name="second"), "second")
    pipeline.add_edge("first.y", "second.x")
    pipeline.infer_exposed_ports()
    Trainable(pipeline, objective="train_toys/mse", train_only=["first/b", "second/a:layer.bias"])
    trained = {id(parameter) for parameter in pipeline.trainable_parameters()}
    wanted = [*pipeline.find("first/b").parameters(), pipeline.find("second/a").layer.bias]
    assert trained == {id(parameter) for parameter in wanted}
    block = backbone()
    Trainable(block, objective=FLOW, freeze=[":blocks.*"])
    assert {name.split(".")[0] for name, parameter in block.named_parameters() if not parameter.requires_grad} == {"blocks"}


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a/b", "a/b", True),
        ("a", "a/b/c", True),
        ("a/*", "a/b/c:weight", True),
        ("*/c", "a/b/c", True),
        ("b", "a/b", False),
        ("a:w*", "a/b:weight", True),
        ("a:w*", "a/b:bias", False),
        (":w*", ":weight", True),
        ("a:w*", "a", False),
    ],
)
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


def test_every_place_has_its_own_learning_rate_and_schedule() -> None:
    graph = chain(Linear(), Linear(), Linear())
    watcher = Watcher()
    optimizer = {
        "type": "adamw", "lr": 0.1, "schedule": {"type": "linear"},
        "nodes": {"a": {"lr": 0.01}, "b:layer.bias": {"lr": 0.5, "schedule": {"type": "constant", "warmup": 3}}},
    }  # fmt: skip
    trainable = Trainable(graph, objective="train_toys/mse", optimizer=optimizer)
    trainer = fitted(trainable, 4, callbacks=[watcher])
    groups = {group["name"]: group["params"] for group in trainer.optimizers[0].param_groups}
    assert {name: len(parameters) for name, parameters in groups.items()} == {"a": 2, "rest": 3, "b:layer.bias": 1}
    by_group = dict(zip(groups, zip(*watcher.rates, strict=True), strict=True))
    assert by_group["a"] == pytest.approx((0.01, 0.0075, 0.005, 0.0025))
    assert by_group["rest"] == pytest.approx((0.1, 0.075, 0.05, 0.025))
    assert by_group["b:layer.bias"] == pytest.approx((0.125, 0.25, 0.375, 0.5))


def test_decay_may_leave_biases_alone() -> None:
    graph = chain(Linear())
    plan = Trainable(graph, objective="train_toys/mse", optimizer={"type": "adamw", "weight_decay": 0.5, "decay_matrices_only": True}).plan
    optimizer, _ = plan.build(plan.groups(graph, Distance()), 1)
    assert [(group["weight_decay"], group["params"][0].dim()) for group in optimizer.param_groups] == [(0.5, 2), (0.0, 1)]


def test_the_optimizer_has_each_shared_weight_once_at_every_level() -> None:
    shared = Linear()
    world = turning_world(shared)
    trainable = Trainable(world, objective={"type": "world_state", "slots": {"last": "wanted"}, "start": {"last": "x"}})
    optimizer, _ = trainable.plan.build(trainable.plan.groups(world, trainable.objective), 1)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted({id(parameter) for parameter in shared.parameters()})
    twice = chain(shared, Linear(), shared)
    parameters = [p for group in Trainable(twice, objective="train_toys/mse").plan.groups(twice, Distance()) for p in group["params"]]
    assert len(parameters) == len({id(parameter) for parameter in parameters}) == 4


def test_a_shared_weight_has_one_learning_rate_and_a_clone_its_own() -> None:
    shared = Linear()
    graph = chain(shared, shared)
    optimizer = {"type": "sgd", "lr": 0.1, "nodes": {"a": {"lr": 0.2}, "b": {"lr": 0.3}}}
    with pytest.raises(TrainingError, match=r"one weight is meant by patterns with different settings: a:layer.weight by 'a', .* by 'b'"):
        Trainable(graph, objective="train_toys/mse", optimizer=optimizer)
    clone = graph.clone_node("b")
    trainable = Trainable(graph, objective="train_toys/mse", optimizer=optimizer)
    groups = {group["name"]: group for group in trainable.plan.groups(graph, trainable.objective)}
    assert {id(p) for p in groups["b"]["params"]} == {id(p) for p in clone.parameters()}
    fitted(trainable, 3)
    assert not torch.equal(clone.layer.weight, shared.layer.weight), "the two train apart"


def test_averages_are_those_of_torch_swa_utils() -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    torch.manual_seed(0)
    graph = chain(Linear())
    theirs = AveragedModel(graph.nodes["a"].layer, multi_avg_fn=get_ema_multi_avg_fn(0.7))

    class Follow(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            theirs.update_parameters(graph.nodes["a"].layer)

    trainable = Trainable(graph, objective="train_toys/mse", ema={"decay": 0.7, "warmup": False})
    fitted(trainable, 5, callbacks=[Follow()])
    live = graph.nodes["a"].layer.weight.detach().clone()
    assert trainable.averaging is not None
    with trainable.averaging.applied():
        torch.testing.assert_close(graph.nodes["a"].layer.weight, theirs.module.weight)
    assert torch.equal(graph.nodes["a"].layer.weight, live)


def test_validation_sees_the_averages_and_draws_the_same_each_time() -> None:
    seen: list[torch.Tensor] = []

    class Note(Distance):
        def forward(self, target: Block, batch: Any, step: Any) -> torch.Tensor:
            if not step.training:
                seen.append(target.nodes["a"].layer.weight.detach().clone())
                seen.append(step.uniform(3))
            return super().forward(target, batch, step)

    trainable = Trainable(chain(Linear()), objective=Note(), ema={"decay": 0.9})
    fitted(trainable, 6, val_check_interval=3, num_sanity_val_steps=0)
    assert len(seen) == 4
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[2], trainable.target.nodes["a"].layer.weight)


def test_loops_are_computed_again_where_that_is_asked_for() -> None:
    graph = Graph.from_template("text_to_image")
    Trainable(graph, objective="denoising", gradient_checkpointing=True)
    assert graph.metadata["gradient_checkpointing"] is True
    assert Graph.from_config(graph.to_config()).metadata["gradient_checkpointing"] is True
    Trainable(graph, objective="denoising", gradient_checkpointing=False)


def test_precision_is_float32_unless_something_else_is_asked_for() -> None:
    dtypes: list[torch.dtype] = []

    class Note(Distance):
        def forward(self, target: Block, batch: Any, step: Any) -> torch.Tensor:
            dtypes.append(target(x=batch["x"])["y"].dtype)
            return super().forward(target, batch, step)

    fitted(Trainable(chain(Linear()), objective=Note()), 1, num_sanity_val_steps=0)
    fitted(Trainable(chain(Linear()), objective=Note()), 1, num_sanity_val_steps=0, precision="bf16-mixed")
    assert dtypes[0] is torch.float32
    assert dtypes[-1] is torch.bfloat16


# --- errors -----------------------------------------------------------------------------------------------------------


def test_names_that_do_not_exist() -> None:
    graph = chain(Linear())
    with pytest.raises(UnknownNameError, match="unknown objective 'denoisin'; did you mean 'denoising'"):
        Trainable(graph, objective="denoisin")
    with pytest.raises(UnknownNameError, match="unknown optimizer 'adamv'; did you mean 'adam' or 'adamw'"):
        Trainable(graph, objective="train_toys/mse", optimizer="adamv")
    with pytest.raises(UnknownNameError, match="unknown schedule of the learning rate 'cosin'; did you mean 'cosine'"):
        Trainable(graph, objective="train_toys/mse", optimizer={"type": "sgd", "schedule": "cosin"})
    with pytest.raises(ConfigError, match="weightning"):
        Trainable(graph, objective={"type": "denoising", "weightning": "none"})
    with pytest.raises(TrainingError, match="freeze: 'd' means nothing in chain; known: 'a'"):
        Trainable(graph, objective="train_toys/mse", freeze=["d"])
    with pytest.raises(TrainingError, match=r"optimizer.nodes: 'aa' means nothing in chain"):
        Trainable(graph, objective="train_toys/mse", optimizer={"type": "sgd", "nodes": {"aa": {"lr": 1}}})
    with pytest.raises(ConfigError, match="optimizer: unknown 'momentm'; did you mean 'momentum'"):
        Trainable(graph, objective="train_toys/mse", optimizer={"type": "sgd", "momentm": 1})


def test_a_target_that_is_none_and_an_objective_that_does_not_fit() -> None:
    with pytest.raises(TrainingError, match="expected a Block, Graph, Pipeline, Stage or World"):
        Trainable(torch.nn.Linear(2, 2), objective="train_toys/mse")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected a backbone, with inputs 'latent'"):
        Trainable(Linear(), objective="denoising")
    with pytest.raises(ConfigError, match="is a graph; expected a world or a stage"):
        Trainable(chain(Linear()), objective={"type": "world_state", "slots": {"recipe": "x"}})


def test_nothing_to_train() -> None:
    with pytest.raises(TrainingError, match="nothing to train: all 2 parameters are frozen"):
        Trainable(chain(Linear()), objective="train_toys/mse", freeze=["a"])
    with pytest.raises(TrainingError, match="nothing to train: a wait on a network and have no weights here"):
        Trainable(chain(Far()), objective="train_toys/mse")


class Unmoved(Distance):
    """A loss that some steps leave as it is whatever the weights are, as pictures with black masks do."""

    def __init__(self, moves_at: int | None = None) -> None:
        super().__init__()
        self.moves_at = moves_at

    def forward(self, target: Any, batch: Any, step: Any) -> Any:
        return super().forward(target, batch, step) * float(step.index == self.moves_at)


def test_a_training_that_no_item_moves_is_no_success() -> None:
    for steps, met in ((3, 3), (1000, 50)):
        with pytest.raises(TrainingError, match=f"nothing was learned: every gradient of {met} steps was zero"):
            fitted(Trainable(chain(Linear()), objective=Unmoved()), steps)
    fitted(Trainable(chain(Linear()), objective=Unmoved(moves_at=1)), 3)
    fitted(Trainable(chain(Linear()), objective=Unmoved(moves_at=0)), 60)


def test_a_batch_that_lacks_a_key() -> None:
    trainable = Trainable(chain(Linear()), objective="train_toys/mse")
    batches: Any = DataLoader([{"x": torch.ones(4), "want": torch.ones(4)}])
    trainer = pl.Trainer(max_steps=1, logger=False, enable_checkpointing=False, enable_model_summary=False, **QUIET)
    with (
        _quiet(),
        pytest.raises(ConfigError, match=r"Distance needs 'wanted' in every batch; the data gives \['want', 'x'\]; did you mean 'want'"),
    ):
        trainer.fit(trainable, batches)


def test_gradients_stop_at_a_block_behind_a_network() -> None:
    with pytest.raises(TrainingError, match="the loss depends on no weight that trains: gradients stop at b, which answers over a network"):
        fitted(Trainable(chain(Linear(), Far()), objective="train_toys/mse"))
    with pytest.raises(TrainingError, match="a: no gradient arrives, since b answers over a network and gradients stop there"):
        fitted(Trainable(chain(Linear(), Far(), Linear()), objective="train_toys/mse"))
    fitted(Trainable(chain(Linear(), Far(), Linear()), objective="train_toys/mse", freeze=["a"]))
    fitted(Trainable(chain(Far(), Linear()), objective="train_toys/mse"))


def test_the_border_is_found_in_levels_below() -> None:
    inside = chain(Far(), name="inside")
    pipeline = Pipeline("p")
    pipeline.add_graph(chain(Linear(), name="before"), "before")
    pipeline.add_graph(inside, "far")
    pipeline.add_graph(chain(Linear(), name="after"), "after")
    pipeline.add_edge("before.y", "far.x")
    pipeline.add_edge("far.y", "after.x")
    pipeline.infer_exposed_ports()
    with pytest.raises(TrainingError, match="before/a: no gradient arrives, since far/a answers over a network"):
        fitted(Trainable(pipeline, objective="train_toys/mse"))


def test_adapters_that_are_missing_from_the_optimizer() -> None:
    pytest.importorskip("peft")
    graph = chain(Linear(), Linear())
    wgtorch.lora.add(graph, name="style", rank=2, freeze_base=True)

    class Forgetful(Trainable):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.target.nodes["a"].parameters(), lr=0.1)

    with pytest.raises(TrainingError, match="adapter parameters are in no optimizer: b"):
        fitted(Forgetful(graph, objective="train_toys/mse"))
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    fitted(Trainable(graph, objective="train_toys/mse"))
    changed = {name for name, value in graph.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, r"seed: found -1; expected a whole number from 0"),
        ({"seed": "x"}, r"training.seed: got str 'x'"),
        ({"gradient_checkpointing": "no"}, r"training.gradient_checkpointing: got str 'no'; expected boolean"),
        ({"ema": True}, r"ema: found True; expected settings by name"),
        ({"ema": {"decay": "x"}}, r"ema.decay: got str 'x'; expected number"),
        ({"cache": {"max_bytes": "x"}}, r"cache.max_bytes: got str 'x'"),
        ({"samples": {"every": "x"}}, r"samples.every: got str 'x'"),
        ({"checkpoint": {"every": "x"}}, r"checkpoint.every: got str 'x'"),
        ({"checkpoint": {"mode": "x"}}, r"checkpoint.mode: .*one of \['min', 'max'\]"),
        ({"checkpoint": {"monitor": "val/los"}, "trainer": {"val_check_interval": 1}}, r"'val/los' is never logged; did you mean 'val/lo"),
        ({"checkpoint": {"monitor": "train/x", "every": 1}}, r"checkpoint.monitor: 'train/x' is never logged"),
        ({"trainer": {"accumulate_grad_batches": 0}}, r"accumulate_grad_batches: found 0; expected at least 1"),
        ({"trainer": {"callbacks": []}}, r"trainer.callbacks: .*write callbacks="),
        ({"optimizer": {"type": "adamw", "lr": "fast"}}, r"optimizer.lr: found 'fast'; expected a number"),
        ({"optimizer": {"type": "adamw", "lr": float("nan")}}, r"optimizer.lr: found nan; expected a number, and not an infinite one"),
        ({"optimizer": {"type": "adamw", "lr": -1}}, r"optimizer.lr: found -1; expected at least 0"),
        ({"optimizer": {"type": "sgd", "momentum": -0.5}}, r"optimizer.momentum: found -0.5; expected at least 0"),
        ({"optimizer": {"type": "adamw", "betas": [0.9, 1.5]}}, r"optimizer.betas: found \[0.9, 1.5\]; expected a list of numbers from 0"),
        ({"optimizer": {"type": "adamw", "betas": [0.9, float("inf")]}}, r"optimizer.betas.1: found inf"),
        ({"optimizer": {"type": "adamw", "nodes": {"a": {"lr": -1.0}}}}, r"optimizer.nodes\['a'\].lr: found -1.0; expected at least 0"),
        ({"optimizer": {"type": "adamw", "schedule": {"type": "linear", "warmup": -5}}}, r"schedule.warmup: -5 is less than the minimum"),
        ({"trainer": {"gradient_clip_val": -1.0}}, r"trainer.gradient_clip_val: found -1.0; expected at least 0"),
        ({"optimizer": {"type": "adamw", "weight_decay": "x"}}, r"optimizer.weight_decay: got str 'x'"),
        ({"optimizer": {"type": "adamw", "schedule": {"type": "cosine", "warmup": "x"}}}, r"schedule.warmup: got str 'x'"),
    ],
)  # fmt: skip
def test_a_setting_of_another_type_is_named(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    from wgtorch.train.fitting import fit

    given = run_settings(**{**settings, "trainer": {"max_steps": 2, **settings.get("trainer", {})}})
    with pytest.raises(WgtorchError, match=message):
        fit(chain(Linear()), given, tmp_path)


def test_numbers_of_a_plan_alone() -> None:
    from omegaconf import OmegaConf

    from wgtorch.train.optimization import Plan

    with pytest.raises(ConfigError, match=r"optimizer.betas: found \[0.9, 0.98\], a ListConfig; expected a list of numbers"):
        Plan.of(OmegaConf.create({"type": "adamw", "betas": [0.9, 0.98]}))
    with pytest.raises(ConfigError, match="optimizer.lr: found nan"):
        Plan.of({"type": "adamw", "lr": torch.tensor(float("nan"))})
    with pytest.raises(ConfigError, match="optimizer.eps: found -1e-08; expected at least 0"):
        Plan.of({"type": "adamw", "eps": -1e-8})
    assert Plan.of({"type": "adafactor", "beta2_decay": -0.8}).settings == {"beta2_decay": -0.8}


def test_one_pattern_needs_no_list() -> None:
    graph = chain(Linear(), Linear())
    Trainable(graph, objective="train_toys/mse", freeze="a")
    assert [node for node, spec in graph.node_specs.items() if spec.trainable] == ["b"]


def test_eight_bits_want_their_library() -> None:
    from importlib.util import find_spec

    from wgtorch.core.errors import MissingExtraError
    from wgtorch.train.optimization import adamw_8bit

    if find_spec("bitsandbytes") is not None:
        pytest.skip("it is installed")
    with pytest.raises(MissingExtraError, match=r"pip install 'wgtorch\[bitsandbytes\]'"):
        adamw_8bit([])
