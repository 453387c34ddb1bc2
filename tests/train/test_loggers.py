"""Numbers, settings and pictures in every logger, as each is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from tests.train.toys import QUIET, Linear, chain, run_settings
from wgtorch.core.errors import ConfigError
from wgtorch.train.fitting import fit
from wgtorch.train.loggers import keep_metrics, log_pictures, log_settings, loggers_of


class Notes(Logger):
    """A logger of somebody's own, without an experiment."""

    name, version = "notes", "0"

    def __init__(self) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {}
        self.metrics: list[dict[str, float]] = []

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.settings.update(params)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append(metrics)


def test_settings_and_numbers_reach_every_logger(tmp_path: Path) -> None:
    notes = Notes()
    fit(chain(Linear()), run_settings(logger=[{"type": "tensorboard"}, notes], trainer={**QUIET, "max_steps": 2}), tmp_path / "run")
    assert notes.settings["optimizer/lr"] == 0.05
    assert notes.settings["trainer/max_steps"] == 2
    assert any("train/loss" in metrics for metrics in notes.metrics)
    assert "optimizer/lr: 0.05" in (tmp_path / "run/hparams.yaml").read_text()
    log_pictures(notes, "samples/x", torch.zeros(3, 4, 4), tmp_path / "x.png", 0)  # what shows no pictures is left alone


def test_tensorboard_shows_settings_and_takes_its_own_options_only(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = loggers_of({"type": "tensorboard", "default_hp_metric": True}, tmp_path)
    log_settings(loggers, {"optimizer": {"lr": 0.1}, "freeze": ["a"]})
    (board,) = [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]
    board.save()
    board.experiment.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert any("hparams" in name for name in read.summary_metadata)
    for settings, words in [
        ({"type": "tensorbord"}, "logger: unknown 'tensorbord'; did you mean 'tensorboard'"),
        ({"type": "csv", "flush": 1}, "logger: unknown option 'flush'; it takes no options"),
        ({"type": "tensorboard", "nam": "x"}, "logger: unknown option 'nam'; did you mean 'name'"),
    ]:
        with pytest.raises(ConfigError, match=words):
            loggers_of(settings, tmp_path)


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = {"type": "wandb", "offline": True, "project": "wgtorch"}
    fit(chain(Linear()), run_settings(logger=logger, trainer={**QUIET, "max_steps": 2}), tmp_path / "run")
    assert list((tmp_path / "run/wandb").glob("offline-run-*/*.wandb"))
    with pytest.raises(ConfigError, match="logger: unknown option 'projekt'; did you mean 'project'"):
        loggers_of({"type": "wandb", "projekt": "x"}, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's own, of its database
def test_mlflow_in_the_runs_folder(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    fit(chain(Linear()), run_settings(logger={"type": "mlflow"}, trainer={**QUIET, "max_steps": 2}), tmp_path / "run")
    client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / 'run/mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("lightning_logs").experiment_id])
    assert "train/loss" in run.data.metrics
    assert run.data.params["optimizer/lr"] == "0.05"


@pytest.mark.parametrize("rank", [0, 1])
def test_rows_from_before_a_resumed_step_are_kept_by_the_first_process_alone(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    (logger,) = loggers_of(None, tmp_path)
    keep_metrics(logger, [{"step": "0", "train/loss": "1"}, {"step": "5", "train/loss": "2"}], 3)
    if rank == 0:
        assert logger.experiment.metrics == [{"step": "0", "train/loss": "1"}]
