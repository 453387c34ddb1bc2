"""Averages of the weights (EMA) beside those that train: PyTorch's ``AveragedModel`` over the trained parameters alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from wgtorch.core.errors import ConfigError
from wgtorch.train.sharding import share_of


class Averaging(pl.Callback):
    """An exponential moving average of the weights that train.

    Validation and samples see the averages, and checkpoints hold them as the model; what trains goes on from its own weights.
    Frozen weights are not copied, and averages are kept in float32 whatever the weights are in. Buffers are not averaged.

    Args:
        decay: share of the average that stays in each step, in [0, 1).
        warmup: the decay begins at (1 + n) / (10 + n), so that early steps are soon forgotten.
        every: steps between two updates.
    """

    def __init__(self, decay: float = 0.999, *, warmup: bool = True, every: int = 1) -> None:
        if not 0 <= decay < 1 or every < 1:
            raise ConfigError(f"ema: found decay {decay} and every {every}; expected a decay in [0, 1) and at least 1")
        self.decay, self.warmup, self.every = decay, warmup, every
        self._averages: AveragedModel | None = None
        self._weights = nn.ParameterList()
        self._saved: Mapping[str, Any] | None = None
        self._last_step = 0
        self._inside = 0

    def follow(self, parameters: Sequence[nn.Parameter]) -> None:
        """Begins to average these, from what they are now or from what a checkpoint holds."""
        self._weights = nn.ParameterList(parameters)
        self._averages = AveragedModel(self._in_float32(), multi_avg_fn=self._average)
        self._take_up()

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        number = int(count)
        decay = min(self.decay, (1 + number) / (10 + number)) if self.warmup else self.decay
        torch._foreach_lerp_(list(averages), list(weights), 1 - decay)

    def update(self) -> None:
        """Takes the weights of now into the average."""
        assert self._averages is not None
        self._averages.update_parameters(self._in_float32())

    def _in_float32(self) -> nn.ParameterList:
        """The weights in a dtype that an average can move in: in bfloat16 a thousandth of a difference is rounded away."""
        if all(weight.dtype in (torch.float32, torch.float64) for weight in self._weights):
            return self._weights
        return nn.ParameterList([nn.Parameter(weight.detach().float(), requires_grad=False) for weight in self._weights])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model with the averages in place of its weights, which are put back bit for bit."""
        if self._averages is None or self._inside:
            yield
            return
        with torch.no_grad():
            backup = [parameter.detach().clone() for parameter in self._weights]
            for parameter, average in zip(self._weights, self._averages.module.parameters(), strict=True):
                parameter.copy_(average)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            with torch.no_grad():
                for parameter, weight in zip(self._weights, backup, strict=True):
                    parameter.copy_(weight)

    # --- Lightning's hooks --------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.follow([parameter for group in trainer.optimizers[0].param_groups for parameter in group["params"]])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step != self._last_step and trainer.global_step % self.every == 0:
            self.update()
        self._last_step = trainer.global_step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validating = self.applied()
        self._validating.__enter__()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validating.__exit__(None, None, None)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._inside:
            self._validating.__exit__(None, None, None)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._averages is None else dict(self._averages.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict or None
        self._take_up()

    def _take_up(self) -> None:
        """Takes what a checkpoint holds, which comes before the weights are known, or after where these are sharded."""
        if self._saved is not None and self._averages is not None:
            own = self._averages.state_dict()
            self._averages.load_state_dict({name: share_of(value, own.get(name)) for name, value in self._saved.items()})
            self._saved = None
