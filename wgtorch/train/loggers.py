"""Where the numbers, settings and pictures of a training go: CSV always, and TensorBoard, Weights & Biases or MLflow beside it."""

from __future__ import annotations

import csv
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from wgtorch.core.errors import ConfigError, require, suggest

LOGGERS = ("csv", "tensorboard", "wandb", "mlflow")


def loggers_of(settings: Any, folder: Path) -> list[Logger]:
    """The loggers of a run; CSV is always among them, since a run's folder is to be read without any program.

    Args:
        settings: ``{"type": name, ...options}``, a Logger, a list of these, or None.
        folder: of the run.

    Raises:
        ConfigError: an unknown name or option.
        MissingExtraError: the logger's package is not installed.
    """
    wanted = [] if settings is None else list(settings) if isinstance(settings, (list, tuple)) else [settings]
    found: list[Logger] = [CSVLogger(folder, name="", version="")]
    for each in wanted:
        logger = each if isinstance(each, Logger) else _made(each, folder)
        if logger is not None:
            found.append(logger)
    return found


def metrics_in(folder: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv`` in a run's folder, which its next logger begins anew."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name and value} for row in csv.DictReader(file)]


@rank_zero_only
def keep_metrics(logger: Any, rows: Sequence[Mapping[str, str]], step: int) -> None:
    """Has the CSV logger of a run that goes on in its own folder write again what it logged before a step."""
    logger.experiment.metrics += [dict(row) for row in rows if row.get("step", "").isdecimal() and int(row["step"]) < step]


def log_settings(loggers: Sequence[Logger], settings: Mapping[str, Any]) -> None:
    """Shows a training's settings in every logger, as its hyperparameters."""
    flat = dict(_flat(settings, ""))
    for logger in loggers:
        logger.log_hyperparams(flat)


def log_pictures(logger: Logger, name: str, picture: Tensor, path: Path, step: int) -> None:
    """Shows a picture [3, H, W] in [0, 1], which lies in a file too, in a logger that shows pictures."""
    experiment: Any = getattr(logger, "experiment", None)
    if isinstance(logger, TensorBoardLogger):
        experiment.add_image(name, picture, step)
    elif hasattr(logger, "log_image"):  # of Weights & Biases
        logger.log_image(key=name, images=[str(path)], step=step)
    elif hasattr(experiment, "log_artifact"):  # of MLflow
        experiment.log_artifact(logger.run_id, str(path), artifact_path="samples")  # type: ignore[attr-defined]


def log_texts(logger: Logger, name: str, lines: Sequence[str], path: Path, step: int) -> None:
    """Shows texts, which lie in a file too, in a logger that shows texts."""
    experiment: Any = getattr(logger, "experiment", None)
    if isinstance(logger, TensorBoardLogger):
        experiment.add_text(name, "\n".join(lines), step)
    elif hasattr(logger, "log_text"):
        logger.log_text(key=name, columns=["text"], data=[[line] for line in lines], step=step)
    elif hasattr(experiment, "log_artifact"):
        experiment.log_artifact(logger.run_id, str(path), artifact_path="samples")  # type: ignore[attr-defined]


def _made(settings: Any, folder: Path) -> Logger | None:
    if not isinstance(settings, (str, Mapping)):
        raise ConfigError(f"logger: found {settings!r}; expected a name, {{'type': name, ...}} or a Logger")
    options: dict[str, Any] = {"type": settings} if isinstance(settings, str) else dict(settings)
    kind = options.pop("type", None)
    if kind not in LOGGERS:
        raise ConfigError(f"logger: unknown {kind!r}; {suggest(kind, LOGGERS)}")
    if kind == "csv":
        _check(options, ())
        return None
    if kind == "tensorboard":
        require("tensorboard", "train")
        _check(options, _names(TensorBoardLogger.__init__) - {"save_dir", "kwargs"})
        return TensorBoardLogger(folder, **{"name": "", "version": "", **options})
    if kind == "wandb":
        wandb: Any = require("wandb", "wandb")
        from lightning.pytorch.loggers import WandbLogger

        _check(options, (_names(WandbLogger.__init__) | _names(wandb.init)) - {"save_dir", "dir", "kwargs"})
        return WandbLogger(save_dir=str(folder), **options)
    require("mlflow", "mlflow")
    from lightning.pytorch.loggers import MLFlowLogger

    _check(options, _names(MLFlowLogger.__init__) - {"save_dir"})
    uri = options.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    where = {"artifact_location": (folder / "mlartifacts").resolve().as_uri()} if uri.startswith("sqlite:") else {}
    return MLFlowLogger(**{**where, **options, "tracking_uri": uri})


def _names(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self"}


def _check(options: Mapping[str, Any], known: Sequence[str] | set[str]) -> None:
    for name in options:
        if name not in known:
            expected = suggest(name, sorted(known)) if known else "it takes no options"
            raise ConfigError(f"logger: unknown option {name!r}; {expected}")


def _flat(settings: Any, prefix: str) -> list[tuple[str, Any]]:
    if isinstance(settings, Mapping):
        return [entry for key, value in settings.items() for entry in _flat(value, f"{prefix}/{key}" if prefix else str(key))]
    return [(prefix, settings if isinstance(settings, (int, float, str, bool)) else str(settings))]
