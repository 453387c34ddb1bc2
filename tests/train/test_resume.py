"""A run that is stopped and taken up again goes on as if it had never stopped, to the last bit."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

from lightning.pytorch import Callback

from tests.train.toys import FLOW, PICTURES, Distance, Linear, backbone, chain, losses, run_settings
from wgtorch import Block, Graph
from wgtorch.core.errors import CheckpointError, ConfigError, TrainingError
from wgtorch.train.fitting import fit
from wgtorch.train.folders import read_training, save_state
from wgtorch.train.trainable import Trainable

ROOT = Path(__file__).parents[2]


def target() -> Graph:
    torch.manual_seed(0)
    shared = Linear(4, dropout=0.5)
    return chain(shared, Linear(4, dropout=0.1), shared)


def weights(trainable: Trainable) -> dict[str, torch.Tensor]:
    assert trainable.averaging is not None
    averages = {f"average.{name}": value for name, value in trainable.averaging.state_dict().items()}
    return {**{name: value.clone() for name, value in trainable.target.state_dict().items()}, **averages}


def test_stopped_at_a_crash_and_taken_up_again(tmp_path: Path) -> None:
    whole = fit(target(), run_settings(), tmp_path / "whole")
    broken = run_settings(objective={"type": "train_toys/mse", "fails_at": 13})
    with pytest.raises(RuntimeError, match="the power is gone"):
        fit(target(), broken, tmp_path / "first")
    fresh = target()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.fill_(9.0)  # all there is comes from the checkpoint
    torch.rand(1000)
    resumed = fit(fresh, run_settings(), tmp_path / "second", resume=tmp_path / "first")

    straight, before, after = losses(tmp_path / "whole"), losses(tmp_path / "first"), losses(tmp_path / "second")
    assert list(straight) == list(range(20))
    assert {step: straight[step] for step in range(10)}.items() <= before.items()
    assert after == {step: straight[step] for step in range(10, 20)}
    mine, theirs = weights(whole), weights(resumed)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adamw_8bit"])
def test_more_steps_than_first_meant_go_on_in_the_middle_of_the_epoch(optimizer: str, tmp_path: Path) -> None:
    small = {"min_8bit_size": 1} if optimizer == "adamw_8bit" else {}  # else matrices of a test are kept in 32
    if small:
        pytest.importorskip("bitsandbytes")
    plain = {"optimizer": {"type": optimizer, "lr": 0.05, **small}}  # a cosine would depend on the number of steps
    fit(target(), run_settings(**plain), tmp_path / "whole")
    fit(target(), run_settings(**plain, trainer={"max_steps": 8}), tmp_path / "first")
    fit(target(), run_settings(**plain), tmp_path / "second", resume=tmp_path / "first" / "checkpoints" / "last")
    straight = losses(tmp_path / "whole")
    assert losses(tmp_path / "second") == {step: straight[step] for step in range(8, 20)}


def test_accumulated_gradients_and_workers_change_nothing_about_it(tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "data": {"type": "train_toys/numbers", "workers": 1},
        "trainer": {"max_steps": 6, "accumulate_grad_batches": 2},
        "checkpoint": {"every": 2},
    }
    fit(target(), run_settings(**more), tmp_path / "whole")
    with pytest.raises(RuntimeError):
        fit(target(), run_settings(**{**more, "objective": {"type": "train_toys/mse", "fails_at": 7}}), tmp_path / "first")
    fit(target(), run_settings(**more), tmp_path / "second", resume=tmp_path / "first")
    straight, after = losses(tmp_path / "whole"), losses(tmp_path / "second")
    assert after
    assert after.items() <= straight.items()


def test_the_checkpoints_are_models_with_each_weight_once(tmp_path: Path) -> None:
    trainable = fit(target(), run_settings(ema=None), tmp_path)
    state = torch.load(tmp_path / "checkpoints/last/training/state.ckpt", weights_only=True)
    assert state["state_dict"] == {}, "the model's weights lie in the checkpoint around it"
    loaded = Graph.load(tmp_path / "checkpoints/last")
    for name, value in trainable.target.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert loaded.nodes["a"] is loaded.nodes["c"]
    assert Graph.load(tmp_path / "checkpoints/best").to_config() == loaded.to_config()
    loaded.save(tmp_path / "checkpoints/last")  # may be saved over, as any checkpoint


def test_with_averages_the_model_is_the_average_and_training_goes_on_from_the_rest(tmp_path: Path) -> None:
    settings = run_settings(data=PICTURES, objective=FLOW, trainer={"max_steps": 4})
    trainable = fit(backbone(), settings, tmp_path)
    loaded = Block.load(tmp_path / "checkpoints/last")
    kept = torch.load(tmp_path / "checkpoints/last/training/state.ckpt", weights_only=True)["state_dict"]
    assert trainable.averaging is not None
    with trainable.averaging.applied():
        averages = {name: value.clone() for name, value in trainable.target.state_dict().items()}
    assert not torch.equal(averages["enter.weight"], trainable.target.enter.weight)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, averages[name])
    for name, parameter in trainable.target.named_parameters():
        assert torch.equal(kept[f"target.{name}"], parameter)


def test_what_is_no_training_cannot_be_taken_up(tmp_path: Path) -> None:
    target().save(tmp_path / "model")
    for path in (tmp_path / "model", tmp_path / "nothing"):
        with pytest.raises(CheckpointError, match=r"neither a training's checkpoint nor the folder of a run"):
            fit(target(), run_settings(), tmp_path / "run", resume=path)


class Calls:
    """A pickle that calls what it likes when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.said = function, arguments

    def __reduce__(self) -> Any:
        return self.said


def test_hostile_states_are_refused_by_name_and_run_nothing(tmp_path: Path) -> None:
    optimizer = {"type": "adamw", "lr": 0.1}
    fit(target(), run_settings(optimizer=optimizer, trainer={"max_steps": 2}), tmp_path / "run")
    path = tmp_path / "run/checkpoints/last/training/state.ckpt"
    good = torch.load(path, weights_only=True)

    def averages(value: Any) -> dict[str, Any]:
        found = copy.deepcopy(good)
        found["optimizer_states"][0]["state"][0]["exp_avg"] = value
        return found

    mark = tmp_path / "was run"
    for state, words in [
        (Calls(os.system, f"touch '{mark}'"), r"state.ckpt: cannot be read as tensors and plain data: .*posix.system"),
        ({**good, "callbacks": Calls(eval, f"open({str(mark)!r}, 'w')")}, r"state.ckpt: cannot be read .*eval"),
        (torch.nn.Linear(2, 2), r"state.ckpt: cannot be read .*torch.nn.modules.linear.Linear"),
        ([1, 2], r"state.ckpt: pytorch-lightning_version is list of 2"),
        ({key: value for key, value in good.items() if key != "loops"}, r"state.ckpt: loops is NoneType None; expected"),
        ({**good, "loops": {}}, r"state.ckpt: loops is dict with keys \[\]; expected"),
        ({**good, "optimizer_states": []}, r"it holds 0 optimizers; expected one"),
        ({**good, "state_dict": {"target.a.strange": torch.zeros(1)}}, r"target.a.strange is Tensor\[1\] float32, which this training"),
        (averages(torch.zeros(3)), r"exp_avg of a weight \[.*\] is Tensor\[3\] float32; expected finite numbers of that shape"),
        (averages(torch.zeros(1).expand(10**12)), r"exp_avg of a weight \[.*\] is Tensor\[1000000000000\]"),
        (averages(good["optimizer_states"][0]["state"][0]["exp_avg"] * float("nan")), r"expected finite numbers"),
    ]:
        torch.save(state, path)
        with pytest.raises(CheckpointError, match=words):
            fit(target(), run_settings(optimizer=optimizer, trainer={"max_steps": 4}), tmp_path / "again", resume=tmp_path / "run")
        assert not mark.exists()


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_killed_and_taken_up_again_from_the_command_line(tmp_path: Path) -> None:
    """SIGKILL in the middle of the program; the second half equals the whole."""
    words = ["experiment=tiny_denoising", "trainer.enable_progress_bar=false", "+trainer.log_every_n_steps=1", "checkpoint.every=10"]
    words = [word.replace("+trainer.log_every", "trainer.log_every") for word in words]
    words[1] = "+" + words[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(name: str, *more: str) -> list[str]:
        return [sys.executable, str(ROOT / "scripts/train.py"), *words, f"hydra.run.dir={tmp_path / name}", *more]

    subprocess.run(command("whole", "trainer.max_steps=120"), env=environment, check=True, capture_output=True)
    process = subprocess.Popen(
        command("first", "trainer.max_steps=120"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (tmp_path / "first/checkpoints/last/training").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    subprocess.run(
        command("second", "trainer.max_steps=120", f"resume={tmp_path / 'first'}"), env=environment, check=True, capture_output=True
    )
    straight, after = losses(tmp_path / "whole"), losses(tmp_path / "second")
    assert 0 < len(after) < 120
    assert after == {step: straight[step] for step in after}
    assert max(after) == 119


@pytest.mark.parametrize(
    ("before", "now", "rate"),
    [
        ({}, {"lr": 0.01}, 0.01),
        ({}, {"weight_decay": 0.5, "betas": (0.5, 0.9)}, 0.05),
        ({"schedule": {"type": "constant", "warmup": 2}}, {"lr": 0.01, "schedule": {"type": "constant", "warmup": 2}}, 0.01),
        ({"schedule": "cosine"}, {}, 0.05),
        ({}, {"schedule": "linear"}, 0.05 * 2 / 8),
        ({"schedule": {"type": torch.optim.lr_scheduler.StepLR, "step_size": 100}}, {"weight_decay": 0.5}, 0.05),
    ],
)
def test_settings_of_the_optimizer_are_those_of_the_resumed_run(before: Any, now: Any, rate: float, tmp_path: Path) -> None:
    plain = {"type": "adamw", "lr": 0.05}
    fit(target(), run_settings(optimizer={**plain, **before}, trainer={"max_steps": 4}), tmp_path / "first")
    trainer = {"max_steps": 8, "limit_train_batches": 6}
    seen: list[dict[str, Any]] = []

    class Sees(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            seen.append(dict(trainer.optimizers[0].param_groups[0]))

    settings = run_settings(optimizer={**plain, **now}, trainer=trainer, callbacks=[Sees()])
    resumed = fit(target(), settings, tmp_path / "second", resume=tmp_path / "first")
    assert len(seen) == 4
    assert seen[1]["lr"] == pytest.approx(rate, abs=1e-9)
    for key in ("weight_decay", "betas"):
        assert seen[0][key] == now.get(key, resumed.optimizers().defaults[key])  # type: ignore[union-attr]
    moments = torch.load(tmp_path / "second/checkpoints/last/training/state.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    assert int(moments[0]["step"]) == 8, "what the optimizer had learned goes on"


def test_an_optimizer_of_another_sort_is_refused(tmp_path: Path) -> None:
    fit(target(), run_settings(optimizer={"type": "sgd", "lr": 0.05}, trainer={"max_steps": 2}), tmp_path / "first")
    with pytest.raises(ConfigError, match=r"AdamW needs betas, eps, which the checkpoint to go on with was written without"):
        fit(target(), run_settings(optimizer="adamw"), tmp_path / "second", resume=tmp_path / "first")
    scheduled = {"type": "sgd", "lr": 0.05, "schedule": {"type": torch.optim.lr_scheduler.StepLR, "step_size": 2}}
    fit(target(), run_settings(optimizer=scheduled, trainer={"max_steps": 2}), tmp_path / "third")
    with pytest.raises(ConfigError, match=r"lr: found 0.1, and the checkpoint to go on with began with 0.05, from which StepLR goes on"):
        fit(target(), run_settings(optimizer={**scheduled, "lr": 0.1}), tmp_path / "fourth", resume=tmp_path / "third")


def test_a_place_in_other_data_is_refused_but_between_epochs(tmp_path: Path) -> None:
    def run(steps: dict[str, int], batch_size: int, where: str, resume: str | None = None, seed: int = 0) -> Trainable:
        data = {"type": "train_toys/numbers", "batch_size": batch_size}
        settings = run_settings(data=data, optimizer={"type": "sgd", "lr": 0.05}, trainer={"max_steps": -1, **steps}, seed=seed)
        return fit(target(), settings, tmp_path / where, resume=tmp_path / resume if resume else None)

    run({"max_steps": 2}, 2, "middle")
    with pytest.raises(ConfigError, match=r"after 2 batches of an epoch, .*in a batch of all processes: 2, now 4; batches: 12"):
        run({"max_steps": 4}, 4, "other", "middle")
    with pytest.raises(ConfigError, match=r"seed: 0, now 3"):
        run({"max_steps": 4}, 2, "other", "middle", seed=3)
    run({"max_epochs": 1}, 2, "end")
    assert run({"max_epochs": 2}, 4, "longer", "end").trainer.global_step == 12 + 6


def test_another_number_of_accumulated_batches_is_refused_in_their_midst(tmp_path: Path) -> None:
    plain = {"optimizer": {"type": "sgd", "lr": 0.05}, "checkpoint": {"every": 1, "keep": 9}}
    fit(target(), run_settings(**plain, trainer={"max_steps": 2, "accumulate_grad_batches": 2}), tmp_path / "first")
    middle = tmp_path / "first/checkpoints/best-000001"
    assert read_training(middle)["gradients"]
    with pytest.raises(TrainingError, match=r"in the middle of an accumulation of 2 batches, and trainer.accumulate_grad_batches is 3"):
        fit(target(), run_settings(**plain, trainer={"max_steps": 4, "accumulate_grad_batches": 3}), tmp_path / "second", resume=middle)


class Judged(Distance):
    """A distance whose validation is told: by step, else 9."""

    def __init__(self, told: dict[int, float], trainer: list[Any]) -> None:
        super().__init__()
        self.told, self.trainer = told, trainer

    def forward(self, target: Block, batch: Any, step: Any) -> Any:
        loss = super().forward(target, batch, step)
        return loss if step.training else loss * 0 + self.told.get(self.trainer[0].global_step, 9.0)


class Sees(Callback):
    def __init__(self, into: list[Any]) -> None:
        self.into = into

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.into[:] = [trainer]


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("same_folder", [False, True])
def test_the_best_is_that_of_the_whole_training_and_a_number(keep: int, same_folder: bool, tmp_path: Path) -> None:
    def run(steps: int, where: str, resume: Path | None = None) -> Path:
        seen: list[Any] = []
        told = {2: float("nan"), 4: 1.0, 8: 2.0}
        trainer = {"max_steps": steps, "val_check_interval": 2, "num_sanity_val_steps": 0}
        settings = run_settings(trainer=trainer, checkpoint={"every": 2, "keep": keep}, ema=None, callbacks=[Sees(seen)])
        settings["objective"], settings["optimizer"] = Judged(told, seen), {"type": "sgd", "lr": 0.05}
        fit(target(), settings, tmp_path / where, resume=resume)
        return tmp_path / where

    first = run(2, "first")
    assert not (first / "checkpoints/best").exists(), "what is no number is no best"
    assert read_training(run(4, "first") / "checkpoints/best")["global_step"] == 4
    second = run(8, "first" if same_folder else "second", first)
    assert read_training(second / "checkpoints/best")["global_step"] == 4
    assert read_training(first / "checkpoints/best")["global_step"] == 4, "it stays where it was"
    assert list(losses(second)) == list(range(0 if same_folder else 4, 8))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "state.ckpt").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot be written \([\d,]+ MiB are free on its disk\).*last/training/state.ckpt"):
        save_state({"a": torch.zeros(100_000)}, tmp_path / "state.ckpt", Path("run/checkpoints/last"))
