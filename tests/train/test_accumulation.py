"""Accumulated batches are the large batch, whatever their losses are means over; numbers that are none, and interrupts, leave a state."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("lightning")
import lightning.pytorch as pl

from tests.train.toys import QUIET, Distance, LanguageModel, Linear, Numbers, chain, losses, run_settings
from wgtorch import Block, Graph
from wgtorch.core.errors import TrainingError
from wgtorch.train import Data, Trainable
from wgtorch.train.averaging import Averaging
from wgtorch.train.fitting import fit
from wgtorch.train.interrupts import begin_worker
from wgtorch.train.objective import Objective
from wgtorch.train.objectives.tokens import NextToken

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*no `val_dataloader`", "ignore:.*LeafSpec", "ignore:.*is smaller than the logging"
)
TOKENS = torch.tensor([[1, 2, 3, 4, 1, 2], [1, 2, 0, 0, 0, 0], [3, 1, 0, 0, 0, 0], [4, 3, 2, 0, 0, 0]])


def stepped(batches: list[dict[str, Tensor]], accumulate: int) -> Tensor:
    torch.manual_seed(0)
    model = LanguageModel()
    trainable = Trainable(model, objective=NextToken(padding=0), optimizer={"type": "sgd", "lr": 1.0})
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer = pl.Trainer(
        **QUIET, max_epochs=1, accumulate_grad_batches=accumulate, logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    trainer.fit(trainable, loader)
    return model.table.weight.detach().clone()


@pytest.mark.parametrize(
    ("groups", "accumulate"),
    [([2, 2], 2), ([1, 3], 2), ([1, 1, 2], 3), ([1, 1, 2], 4), ([3, 1], 8)],
    ids=["even", "uneven", "three", "cut short", "far too few"],
)
def test_groups_of_uneven_answers_are_the_large_batch(groups: list[int], accumulate: int) -> None:
    whole = stepped([{"tokens": TOKENS}], 1)
    parts = [{"tokens": part} for part in TOKENS.split(groups)]
    torch.testing.assert_close(stepped(parts, accumulate), whole, rtol=1e-6, atol=1e-6)


def test_losses_of_each_sample_average_to_the_loss() -> None:
    objective, model = NextToken(padding=0), LanguageModel()
    each = objective.per_sample(model, {"tokens": TOKENS}, None)  # type: ignore[arg-type]
    counts = (TOKENS[:, 1:] != 0).sum(1)
    torch.testing.assert_close((each * counts).sum() / counts.sum(), objective(model, {"tokens": TOKENS}, None)["loss"])  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="has no loss for each sample"):
        Distance().per_sample(model, {}, None)  # type: ignore[arg-type]


def target() -> Graph:
    torch.manual_seed(0)
    return chain(Linear(dropout=0.3), Linear())


def weights(graph: Graph) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in graph.state_dict().items()}


@pytest.mark.parametrize("stop", ["best", "crash"])
def test_a_checkpoint_in_the_middle_of_an_accumulation_goes_on_exactly(stop: str, tmp_path: Path) -> None:
    settings = run_settings(trainer={**QUIET, "max_steps": 4, "accumulate_grad_batches": 4, "val_check_interval": 5}, ema=None)
    settings["checkpoint"] = {"every": 1, "keep": 9}
    whole = fit(target(), settings, tmp_path / "whole").target
    if stop == "best":
        start = tmp_path / "whole/checkpoints/best-000001"
        state = torch.load(start / "training/state.ckpt", weights_only=True)
        assert state["gradients"], "it was found between two steps"
    else:
        settings["objective"] = {"type": "train_toys/mse", "fails_at": 9}
        with pytest.raises(RuntimeError, match="the power is gone"):
            fit(target(), settings, tmp_path / "part")
        start = tmp_path / "part"
    settings["objective"] = "train_toys/mse"
    again = fit(target(), settings, tmp_path / "again", resume=start).target
    for name, value in weights(whole).items():  # type: ignore[arg-type]
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("trainer", [{"max_steps": -1, "max_epochs": 3}, {"max_steps": 18}, {"max_steps": 40, "max_epochs": 3}], ids=str)
def test_epochs_are_counted_in_steps_so_a_resumed_run_ends_where_the_other_did(trainer: dict[str, int], tmp_path: Path) -> None:
    settings = run_settings(trainer={**QUIET, "val_check_interval": None, **trainer}, checkpoint={"every": 4})
    fit(target(), settings, tmp_path / "whole")
    settings["objective"] = {"type": "train_toys/mse", "fails_at": 9}
    with pytest.raises(RuntimeError, match="the power is gone"):
        fit(target(), settings, tmp_path / "part")
    settings["objective"] = "train_toys/mse"
    fit(target(), settings, tmp_path / "again", resume=tmp_path / "part")
    whole, again = losses(tmp_path / "whole"), losses(tmp_path / "again")
    assert list(whole) == list(range(18))
    assert again == {number: value for number, value in whole.items() if number >= 8}


class Stops(Distance):
    """Interrupts in the forward of a batch."""

    def __init__(self, at: int, how: str) -> None:
        super().__init__()
        self.at, self.how = at, how

    def forward(self, target: Any, batch: Any, step: Any) -> Tensor:
        loss = super().forward(target, batch, step)
        if step.training and step.index == self.at:
            if self.how == "raise":
                raise KeyboardInterrupt
            if self.how == "nan":
                return loss * float("nan")
            os.kill(os.getpid(), signal.SIGINT if self.how == "ctrl-c" else signal.SIGTERM)
        return loss


@pytest.mark.parametrize("how", ["raise", "ctrl-c", "sigterm"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_interrupt_leaves_a_checkpoint_from_which_it_goes_on_exactly(how: str, accumulate: int, tmp_path: Path) -> None:
    settings = run_settings(trainer={**QUIET, "max_steps": 6, "accumulate_grad_batches": accumulate, "val_check_interval": None})
    settings["checkpoint"] = {"every": 1000}
    whole = fit(target(), settings, tmp_path / "whole").target
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as stopped:
        fit(target(), {**settings, "objective": Stops(3, how)}, tmp_path / "part")
    if how == "sigterm":
        assert getattr(stopped.value, "code", None) == 143
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "part/checkpoints/last/manifest.json").is_file()
    again = fit(target(), settings, tmp_path / "again", resume=tmp_path / "part").target
    for name, value in weights(whole).items():  # type: ignore[arg-type]
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    together = {**losses(tmp_path / "part"), **losses(tmp_path / "again")}
    assert together == losses(tmp_path / "whole")


class StopsBeside(Distance):
    """Is sent a signal while it validates, or makes samples that take long, after some steps."""

    def __init__(self, where: str, number: int) -> None:
        super().__init__()
        self.where, self.number, self.seen, self.was_left = where, number, 0, True

    def forward(self, target: Any, batch: Any, step: Any) -> Tensor:
        self.seen += step.training
        if self.where == "validation" and self.seen == 3 and not step.training:
            os.kill(os.getpid(), self.number)
        return super().forward(target, batch, step)

    def samples(self, target: Any, batch: Any, step: Any) -> dict[str, Any]:
        if self.where == "samples" and self.seen == 3:
            os.kill(os.getpid(), self.number)
            self.was_left = False
        return {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["validation", "samples"])
def test_an_interrupt_of_what_is_done_beside_steps_leaves_a_checkpoint_too(where: str, number: int, tmp_path: Path) -> None:
    settings = run_settings(trainer={**QUIET, "max_steps": 6, "val_check_interval": 3}, checkpoint={"every": 1000})
    settings.update(ema={"decay": 0.5}, samples={"every": 3})
    whole = fit(target(), settings, tmp_path / "whole")
    objective = StopsBeside(where, number)
    with pytest.raises(SystemExit) as stopped:
        fit(target(), {**settings, "objective": objective}, tmp_path / "part")
    assert (stopped.value.code, objective.seen, objective.was_left) == (128 + number, 3, True)
    again = fit(target(), settings, tmp_path / "again", resume=tmp_path / "part")
    for one, other in ((whole, again), (whole.averaging, again.averaging)):
        for name, value in one.state_dict().items():  # type: ignore[union-attr]
            torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)  # type: ignore[union-attr]


def test_an_interrupt_before_the_first_step_ends_at_once_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Setting(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("went on")

    with pytest.raises(SystemExit) as stopped:
        fit(target(), {**run_settings(), "callbacks": [Setting()]}, tmp_path)
    assert stopped.value.code == 143
    assert "before the first step" in caplog.text


def test_a_worker_outlives_a_first_signal_to_all_processes_of_a_job() -> None:
    context = torch.multiprocessing.get_context("fork")
    is_ready, was_told = context.Event(), context.Event()
    worker = context.Process(target=_works, args=(is_ready, was_told))
    worker.start()
    assert is_ready.wait(60)
    os.kill(worker.pid, signal.SIGINT)  # type: ignore[arg-type]
    worker.terminate()
    assert was_told.wait(60) and worker.is_alive()
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == -signal.SIGTERM


def _works(is_ready: Any, was_told: Any) -> None:
    begin_worker(0, rank=0)
    is_ready.set()
    while True:
        time.sleep(0.05)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # the next one ends it
            was_told.set()


def test_a_loss_that_is_no_number_leaves_weights_and_checkpoints_as_they_were(tmp_path: Path) -> None:
    graph = target()
    settings = run_settings(trainer={**QUIET, "max_steps": 8, "val_check_interval": None}, checkpoint={"every": 3})
    with pytest.raises(TrainingError, match=r"batch 5, after 5 steps: loss is nan.*last checkpoint"):
        fit(graph, {**settings, "objective": Stops(5, "nan")}, tmp_path / "run")
    assert all(bool(value.isfinite().all()) for value in graph.state_dict().values())
    state = torch.load(tmp_path / "run/checkpoints/last/training/state.ckpt", weights_only=True)
    assert state["global_step"] == 3


def test_gradients_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    class Root(Distance):
        def forward(self, target: Any, batch: Any, step: Any) -> Tensor:
            return (target(x=batch["x"])["y"] * 0).abs().sqrt().mean()

    graph = target()
    before = weights(graph)
    with pytest.raises(TrainingError, match=r"gradients of step 0: gradient of a:layer.weight is nan"):
        fit(graph, run_settings(objective=Root(), trainer={**QUIET, "max_steps": 2}), tmp_path / "run")
    for name, value in before.items():
        torch.testing.assert_close(graph.state_dict()[name], value)


def test_the_best_of_several_is_led_to(tmp_path: Path) -> None:
    settings = run_settings(trainer={**QUIET, "max_steps": 12, "val_check_interval": 3}, checkpoint={"every": 100, "keep": 2})
    fit(target(), settings, tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir() if not path.is_symlink())
    assert len([name for name in kept if name.startswith("best-")]) == 2
    assert (tmp_path / "run/checkpoints/best").is_symlink()
    assert isinstance(Graph.load(tmp_path / "run/checkpoints/best"), Graph)
    fit(
        target(),
        {**settings, "trainer": {**settings["trainer"], "max_steps": 14}},
        tmp_path / "on",
        resume=tmp_path / "run/checkpoints/best",
    )


def test_averages_of_narrow_weights_are_kept_in_float32() -> None:
    wide, narrow = (torch.nn.Parameter(torch.ones(4, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16))
    averages = [Averaging(0.999, warmup=False) for _ in range(2)]
    for average, parameter in zip(averages, (wide, narrow), strict=True):
        average.follow([parameter])
        average.update()
        with torch.no_grad():
            parameter.fill_(2.0)
        for _ in range(400):
            average.update()
        with average.applied():
            assert parameter.dtype in (torch.float32, torch.bfloat16)
    found = [next(average._averages.module.parameters()) for average in averages]  # type: ignore[union-attr]
    assert found[1].dtype == torch.float32
    torch.testing.assert_close(found[1].data, found[0].data)
    assert Numbers().batch_size == 4


class Uneven(Data):
    """Held-out rows of which each holds another number of things."""

    def train(self) -> Any:
        return [{"x": torch.full((4,), 1.0), "count": 1}] * 4

    def validation(self) -> Any:
        return [{"x": torch.full((4,), float(number)), "count": number} for number in (1, 5, 2, 0)]


class MeanOverThings(Objective):
    """A mean over the things of a batch; of the row k there are k, each of which costs k."""

    needs = ("x", "count")

    def forward(self, target: Block, batch: Any, step: Any) -> Any:
        cost, count = batch["x"][:, 0], batch["count"]
        still = 0 * target(x=batch["x"])["y"].sum()
        return {"loss": still + (cost * count).sum() / count.sum().clamp(min=1), "count": count.sum()}


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_the_validations_mean_is_over_things_however_they_are_batched(batch_size: int, tmp_path: Path) -> None:
    settings = run_settings(trainer={"max_steps": 1, "val_check_interval": 1}, optimizer={"type": "sgd", "lr": 0.0}, ema=None)
    settings |= {"data": Uneven(batch_size=batch_size), "objective": MeanOverThings()}
    trained = fit(target(), settings, tmp_path)
    assert float(trained.trainer.callback_metrics["val/loss"]) == pytest.approx((1 + 25 + 4) / 8)
