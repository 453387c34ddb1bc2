"""Code that a training's composed config names, and nothing else may."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")

from tests.train.toys import losses
from wgtorch.cli.own_code import import_modules, with_own_code
from wgtorch.cli.sweep import Sweep
from wgtorch.cli.train import metric_of, run
from wgtorch.core.errors import ConfigError, TrainingError, UnknownNameError

ROOT = Path(__file__).parents[2]
MINE = """
import torch
from lightning.pytorch import Callback
from wgtorch import Block, register_block
from wgtorch.train import Data, Objective, register_data

@register_block("mine/layer")
class Layer(Block):
    inputs, outputs = {"x": "tensor"}, {"y": "tensor"}
    def __init__(self, size: int = 2):
        super().__init__()
        self.layer = torch.nn.Linear(size, size)
    def forward(self, x):
        return {"y": self.layer(x)}

@register_data("mine/ones")
class Ones(Data):
    def __init__(self, *, count: int = 8, batch_size: int = 2, workers: int = 0):
        super().__init__(batch_size=batch_size, workers=workers)
        self.count = count
    def train(self):
        return [{"x": torch.ones(2)} for _ in range(self.count)]
    def validation(self):
        return self.train()[:2]

class Small(Objective):
    def __init__(self, power: int = 2):
        super().__init__()
        self.power = power
    def forward(self, target, batch, step):
        return (target(x=batch["x"])["y"].abs() ** self.power).mean()

class Note(Callback):
    def __init__(self, path, words=()):
        self.path, self.words = path, words
    def on_train_end(self, trainer, module):
        with open(self.path, "w") as file:
            file.write(" ".join(self.words))
"""


def config(**more: Any) -> dict[str, Any]:
    return {
        "imports": ["my_training_code"],
        "block": {"block_type": "mine/layer"},
        "data": {"type": "mine/ones"},
        "objective": {"_target_": "my_training_code.Small", "power": 2},
        "optimizer": {"type": "torch.optim.RAdam", "lr": 0.01},
        "trainer": {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1},
        "checkpoint": {"every": 1},
        **more,
    }


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_training_code.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_training_code", None)


def test_modules_classes_and_callbacks_of_ones_own_train(tmp_path: Path) -> None:
    callbacks = [{"_target_": "my_training_code.Note", "path": str(tmp_path / "note"), "words": ["it", "was", "called"]}]
    schedule = {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1, "gamma": 0.5}
    optimizer = {"_target_": "torch.optim.RAdam", "lr": 0.01, "schedule": schedule}
    own = config(callbacks=callbacks, optimizer=optimizer, optimized_metric="val/loss")
    value = run(own, tmp_path / "run")
    assert (tmp_path / "note").read_text() == "it was called"
    assert len(losses(tmp_path / "run")) == 2
    assert isinstance(value, float)
    with pytest.raises(UnknownNameError, match=r"optimized_metric: 'val/los' was never logged; did you mean 'val/loss'"):
        metric_of({"val/loss": 1.0}, "val/los")


def test_a_logger_of_ones_own_is_used_and_an_option_nobody_reads_is_an_error(tmp_path: Path) -> None:
    logger = {"type": "tensorboard", "_target_": "lightning.pytorch.loggers.CSVLogger", "name": "mine"}
    run(config(logger=logger), tmp_path / "run")
    assert list((tmp_path / "run/mine").rglob("metrics.csv"))
    for bad in ({"type": "tensorboard", "projekt": "x"}, {"type": "csv", "projekt": "x"}):
        with pytest.raises(ConfigError, match="logger: unknown option 'projekt'"):
            run(config(logger=bad), tmp_path / "bad")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"imports": ["my_training_cod"]}, "there is no module 'my_training_cod'"),
        ({"imports": [3]}, "expected names of modules"),
        ({"callbacks": [{"_target_": "my_training_code.Nota"}]}, r"callbacks\[0\]: my_training_code has no 'Nota'; did you mean 'Note'"),
        ({"callbacks": [{"_target_": "my_training_code.Small"}]}, "expected Lightning's Callbacks"),
        ({"optimizer": {"type": "torch.optim.RAdan"}}, "torch.optim has no 'RAdan'; did you mean 'RAdam'"),
        ({"optimizer": {"type": "torch.optim.RAdam", "rate": 1}}, "optimizer: unknown 'rate'; known: 'lr'"),
        ({"objective": {"_target_": "my_training_code.Small", "powers": 2}}, "objective .my_training_code.Small.*powers"),
        ({"wrong": 1}, "training: unknown setting 'wrong'"),
        ({"trainer": {"max_steps": "foo"}}, "trainer.max_steps: found 'foo'; expected a whole number"),
        ({"trainer": {"max_steps": 1, "accelerator": "cpu", "strategy": "fsdp"}}, "trainer: .*FSDP"),
        (
            {"trainer": {"strategy": {"_target_": "lightning.pytorch.strategies.DDPStrategi"}}},
            "trainer.strategy: .*did you mean 'DDPStrategy'",
        ),
        ({"trainer": {"max_steps": 1, "max_stepz": 1}}, "trainer: unknown 'max_stepz'; did you mean 'max_steps'"),
        ({"samples": {"evry": 2}}, "samples: unknown 'evry'; did you mean 'every'"),
        ({"ema": {"decoy": 0.9}}, "ema: unknown 'decoy'; did you mean 'decay'"),
        ({"cache": {"foldr": "x"}}, "cache: unknown 'foldr'; did you mean 'folder'"),
        ({"checkpoint": {"evry": 2}}, "checkpoint: unknown 'evry'; did you mean 'every'"),
        ({"export": {"format": "peft"}}, "there is no adapter"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_does_not_fit_is_said_before_anything_trains(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, TrainingError, UnknownNameError), match=words):
        run(config(**change), tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_levels_config_never_names_code(tmp_path: Path) -> None:
    import_modules(["my_training_code"], [tmp_path])
    for block in ({"_target_": "my_training_code.Layer"}, {"block_type": "mine/layer", "config": {"_target_": "my_training_code.Layer"}}):
        with pytest.raises(ConfigError):
            run(config(block=block), tmp_path / "run")
    assert with_own_code({"data": {"type": "mine/ones"}, "objective": "x"}, tmp_path) == {"data": {"type": "mine/ones"}, "objective": "x"}


def test_jobs_that_fail_do_not_end_a_sweep_and_one_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    sweep, calls = Sweep(), []

    def job(number: int) -> float | None:
        def work(resume: Path | None) -> float:
            calls.append((number, resume))
            if number == 1 and len(calls) < 3:
                raise ConfigError("lr is no number")
            return float(number)

        return sweep.job(tmp_path / str(number), [f"lr={number}"], work)

    values = [job(0), job(1), job(0)]
    assert values[0] == values[2] == 0.0
    assert values[1] is not None and values[1] != values[1], "NaN, which sweepers take for a failure"
    assert calls == [(0, None), (1, None)]
    assert sweep.failed == [(tmp_path / "1", "lr is no number")]
    assert "1 of 3 jobs failed" in sweep.report()
    assert (tmp_path / "1/failed.txt").read_text() == "lr is no number"
    (tmp_path / "1/checkpoints/last").mkdir(parents=True)
    assert job(1) == 1.0
    assert calls[-1] == (1, tmp_path / "1/checkpoints/last"), "it goes on where it stood"
    sweep.job(tmp_path / "1", ["lr=7"], lambda resume: 0.0)
    assert "holds a job of other overrides" in sweep.failed[-1][1]


@pytest.mark.slow
def test_a_sweep_lists_what_failed_and_takes_up_what_is_unfinished(tmp_path: Path) -> None:
    words = ["experiment=tiny_denoising", "trainer.max_steps=2", "+trainer.enable_progress_bar=false", "+optimized_metric=val/loss"]
    words += ["trainer.val_check_interval=2", "hydra.sweep.dir=sweep", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def sweep(*more: str) -> subprocess.CompletedProcess[str]:
        start = [sys.executable, str(ROOT / "scripts/train.py"), *words, *more]
        return subprocess.run(start, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = sweep("optimizer.lr=1e-3,bad,1e-4")
    assert done.returncode != 0
    assert "1 of 3 jobs failed" in done.stderr and "sweep/1" in done.stderr
    assert f"Runs: {tmp_path / 'sweep'}, each in a folder" in done.stdout
    assert [(tmp_path / f"sweep/{number}/result.json").is_file() for number in range(3)] == [True, False, True]
    stamp = (tmp_path / "sweep/0/metrics.csv").stat().st_mtime_ns
    sweep("optimizer.lr=1e-3,bad,1e-4")
    assert (tmp_path / "sweep/0/metrics.csv").stat().st_mtime_ns == stamp
