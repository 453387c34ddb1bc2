"""Trainable: a LightningModule around any block or level."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn

from wgtorch.core.block import Block
from wgtorch.core.errors import CheckpointError, TrainingError
from wgtorch.core.kinds import describe
from wgtorch.core.run.rng import key_to_seed
from wgtorch.core.tree import levels
from wgtorch.graph import Graph
from wgtorch.lora.adapted_module import adapted_module
from wgtorch.lora.switching import trained_adapters_active
from wgtorch.lora.training import check_optimizer
from wgtorch.train.accumulation import GradientGroup
from wgtorch.train.averaging import Averaging
from wgtorch.train.finite import check_finite, check_gradients_finite
from wgtorch.train.frozen_outputs import FrozenOutputs
from wgtorch.train.gradient_boundaries import check_gradients, unreachable_reason, what_trains
from wgtorch.train.learned import learned_parameters, say_what_is_left_out
from wgtorch.train.objective import Objective, Step, check_batch, rows_in
from wgtorch.train.optimization import Plan, take_settings, told_of
from wgtorch.train.patterns import blocks_at, patterns_of
from wgtorch.train.patterns import freeze as freeze_places
from wgtorch.train.patterns import train_only as train_only_places
from wgtorch.train.randomness import Generators
from wgtorch.train.registries import ObjectiveRegistry, build, built_from
from wgtorch.train.sharding import shard

_log = logging.getLogger(__name__)
_RECOMPUTES = ("_supports_gradient_checkpointing", "supports_gradient_checkpointing")
"""How models of diffusers and transformers say that their layers can be computed again."""
_SWITCHES = ("enable_gradient_checkpointing", "activation_checkpointing_enable", "gradient_checkpointing_enable")
"""What has them do so, in diffusers, and in transformers 5 and 4."""

_FEW = 50
"""Steps in which chance alone may leave all gradients zero, as rewards that are equal."""
_LIKE_THE_WEIGHT = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}
"""What PyTorch's optimizers keep of each weight, in its shape."""


class Trainable(pl.LightningModule):
    """A block, graph, pipeline, stage or world with an objective, as Lightning trains it.

    Which places train is said by the target (``set_trainable``, ``freeze``, adapters); ``freeze`` and ``train_only`` say it for
    it, and are part of its config from then on. Precision, devices, DDP and FSDP, accumulation, clipping and steps are the
    Trainer's.

    Example:
        >>> graph = Graph.from_template("text_to_image")
        >>> trainable = Trainable(graph, objective="denoising", optimizer={"type": "adamw", "lr": 1e-4}, train_only=["backbone"])
        >>> lightning.pytorch.Trainer(max_steps=100).fit(trainable, batches)

    Args:
        target: what is trained; it is changed in place.
        objective: an :class:`~wgtorch.train.objective.Objective`, a registered name, or ``{"type": name, ...}``.
        optimizer: a registered name, or ``{"type": name, "lr": ..., "schedule": {"type": ...}, "nodes": {pattern: {...}}}``; see
            :class:`~wgtorch.train.optimization.Plan`.
        freeze: patterns of places and parameters that do not train; see :mod:`wgtorch.train.patterns`.
        train_only: patterns of the only ones that do.
        ema: settings of :class:`~wgtorch.train.averaging.Averaging`; None for none.
        gradient_checkpointing: the iterations of every loop, and the layers of diffusers' and transformers' models, are computed
            again in the backward pass, so that memory does not grow with their number.
        cache: settings of :class:`~wgtorch.train.frozen_outputs.FrozenOutputs`, which keeps what frozen models make of each sample;
            None computes it in every step.
        seed: root of the objective's draws.

    Raises:
        UnknownNameError: an objective, optimizer or schedule of that name does not exist.
        ConfigError: a setting does not fit, or the objective does not fit the target.
        TrainingError: nothing trains.
    """

    strict_loading = False  # the target's weights are not in every checkpoint: see wgtorch.train.folders

    def __init__(
        self,
        target: Block,
        *,
        objective: Objective | Mapping[str, Any] | str,
        optimizer: Mapping[str, Any] | str = "adamw",
        freeze: Sequence[str] | str = (),
        train_only: Sequence[str] | str = (),
        ema: Mapping[str, Any] | None = None,
        gradient_checkpointing: bool = False,
        cache: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(target, Block):
            raise TrainingError(f"Trainable: got {describe(target)}; expected a Block, Graph, Pipeline, Stage or World")
        found = build(ObjectiveRegistry, objective, "objective")
        if not isinstance(found, Objective):
            raise TrainingError(f"Trainable: objective is {describe(found)}; expected an Objective, a name or a config")
        self.plan = Plan.of(optimizer)
        found.check(target)
        if train_only:
            train_only_places(target, patterns_of(train_only))
        if freeze:
            freeze_places(target, patterns_of(freeze))
        if gradient_checkpointing:
            _recompute(target)
        self.target = target
        self.objective = found
        self.seed = seed
        self.averaging = built_from(Averaging, ema, "ema") if ema is not None else None
        self.plan.groups(target, found)
        self.cache: FrozenOutputs | None = built_from(FrozenOutputs, cache, "cache") if cache is not None else None
        self.group = GradientGroup()
        self.is_stepping = False
        """True while gradients or weights are half of what they will be: nothing that is saved then could be gone on from."""
        self.is_sharded = False
        """True where blocks are shards of which each process holds one."""
        self._is_grouped = False
        self._norm: Tensor | None = None
        self._idle: int | None = 0
        self._told: list[dict[str, Any]] = []
        self._saved: Mapping[str, Any] | None = None
        self._checked = False

    # --- steps --------------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """Calls the target."""
        return self.target(*args, **inputs)

    def loss(self, batch: Any, step: Step) -> dict[str, Tensor]:
        """``loss`` and what else the objective tells of a batch.

        Raises:
            ConfigError: the batch lacks a key.
            TrainingError: the loss is no scalar.
        """
        what = f"objective {type(self.objective).__name__}"
        check_batch(batch, self.objective.needed(), what)
        with trained_adapters_active(self.target):
            found = self.objective(self.target, batch, step)
        named = dict(found) if isinstance(found, Mapping) else {"loss": found}
        if not isinstance(named.get("loss"), Tensor) or named["loss"].dim():
            raise TrainingError(f"{what}: the loss is {describe(named.get('loss'))}; expected a tensor without dimensions")
        return named

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        index = self.trainer.fit_loop.epoch_loop.total_batch_idx
        named = self.loss(batch, self.step_of(index, training=True))
        loss, count = named["loss"], named.pop("count", None)
        if not loss.requires_grad:
            raise TrainingError(f"{self.target.block_id}: the loss depends on no weight that trains{unreachable_reason(self.target)}")
        check_finite({"loss": loss.detach()}, f"batch {index}, after {self.trainer.global_step} steps", named)
        self.log_dict({f"train/{name}": value.detach() for name, value in named.items()}, prog_bar=True, batch_size=1)
        return loss * self.group.weight(count) if self._is_grouped else loss

    def validation_step(self, batch: Any, batch_index: int) -> None:
        rows, batches = rows_in(batch), sum(self.trainer.num_val_batches)  # of an unknown number one look is enough
        looks = max(1, math.ceil(self.objective.validation_draws / (rows * batches * self.trainer.world_size)))
        found = [self.loss(batch, self.step_of(batch_index * looks + look, training=False)) for look in range(looks)]
        counts = [int(each.pop("count", rows)) for each in found]  # how many things each look's means are over
        total = sum(counts)
        mean = {name: sum(each[name] * count for each, count in zip(found, counts, strict=True)) / max(total, 1) for name in found[0]}
        self.log_dict({f"val/{name}": value for name, value in mean.items()}, prog_bar=True, batch_size=total, sync_dist=True)

    def step_of(self, index: int, *, training: bool) -> Step:
        """What the objective draws from in the step of this number."""
        key = key_to_seed(self.seed, "train" if training else "validation", self.global_rank, index)
        return Step(index, torch.Generator(device=self.device).manual_seed(key), training, self.cache)

    # --- optimization -------------------------------------------------------------------------------------------------

    def learned(self) -> list[nn.Parameter]:
        """The target's parameters that learn; see :func:`~wgtorch.train.learned.learned_parameters`."""
        return learned_parameters(self.target, self.objective)

    def configure_optimizers(self) -> Any:
        total = self.trainer.estimated_stepping_batches if self._trainer is not None else float("inf")
        optimizer, scheduler = self.plan.build(self.plan.groups(self.target, self.objective), total)
        self._told = told_of(optimizer)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_callbacks(self) -> list[pl.Callback]:
        return [Generators(), *([self.averaging] if self.averaging is not None else [])]

    def configure_model(self) -> None:
        """Under Lightning's ``ModelParallelStrategy`` blocks are sharded over the processes (FSDP2).

        Those that stand at a place that does not train are whole in each: such a use looks at weights past the module's own call.
        """
        if (
            self._trainer is None
            or not isinstance(self.trainer.strategy, ModelParallelStrategy)
            or self.device_mesh is None
            or self.is_sharded
        ):
            return
        self.is_sharded = True
        shard(self.target, self.device_mesh)

    def setup(self, stage: str) -> None:
        names = self.trained_names()
        # DDP waits for the gradient of everything that could take one; a weight that no gradient reaches never gets one.
        self._ddp_params_and_buffers_to_ignore = [
            name for name, _ in self.named_parameters(remove_duplicate=False) if name.startswith("target.") and name not in names
        ]
        if isinstance(self.trainer.strategy, DDPStrategy):
            # What a batch does not use - a stage that is skipped, a condition that is left out - is not waited for either.
            self.trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)

    def on_fit_start(self) -> None:
        self.train()  # Lightning leaves modes as they are; a level puts its frozen children into eval
        learned = self.learned()
        check_optimizer(self.target, self.optimizers(use_pl_optimizer=False), learned)
        self._is_grouped = self.trainer.accumulate_grad_batches > 1 or self.trainer.world_size > 1
        if self.global_rank == 0:
            _log.info(what_trains(self.target, learned))
            say_what_is_left_out(self.target, learned)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.group.restore(self._gradients, self.global_rank, self.trainer.world_size, self.trainer.accumulate_grad_batches)

    def on_before_backward(self, loss: Tensor) -> None:
        self.is_stepping = self._is_grouped  # what is summed so far would be lost among half a batch's gradients

    def on_after_backward(self) -> None:
        self.is_stepping = False
        if not self._checked:
            self._checked = True
            check_gradients(self.target, {id(parameter) for parameter in self.target.trainable_parameters()})

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.is_stepping = True
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self._is_grouped:
            self.group.normalise(parameters, self.trainer)
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:  # a scaler skips the steps that overflow itself
            self._norm = check_gradients_finite(self.target, parameters, f"gradients of step {self.trainer.global_step}")
            self._check_reached(self._norm)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        norm, self._norm = self._norm, None
        if norm is None or self.is_sharded or not gradient_clip_val or gradient_clip_algorithm not in (None, "norm"):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:  # the norm is known already
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    def _check_reached(self, norm: Tensor | None) -> None:
        """Refuses to go on where nothing in the data moves what trains: every gradient of an epoch, or of the training, was zero."""
        if self._idle is None or norm is None or self.is_sharded or bool(norm):
            self._idle = None
            return
        self._idle += 1
        epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        is_last = self._idle > 1 and self.trainer.global_step + 1 == self.trainer.max_steps  # one step alone, as of a trial, tells nothing
        if self._idle >= max(epoch, _FEW) or is_last:
            raise TrainingError(
                f"{self.target.block_id}: nothing was learned: every gradient of {self._idle} steps was zero, since no item of the data "
                "reaches what trains. Look at the data (masks that are black, a second picture that is the first) and at "
                "objective.drop_condition, which leaves conditions out"
            )

    def on_train_batch_end(self, *args: Any) -> None:
        self.is_stepping = False

    def _gradients(self) -> dict[str, nn.Parameter]:
        """Parameters that collect gradients, by a name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["optimizer_settings"] = self._told
        if self.group.is_open:
            checkpoint["gradients"] = self.group.state(self._gradients(), self.trainer.accumulate_grad_batches)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = self.state_dict()
        for name, value in checkpoint["state_dict"].items():
            if name not in own or not isinstance(value, Tensor) or value.shape != own[name].shape:
                raise CheckpointError(f"the training's state: {name} is {describe(value)}, which this training does not have")
        if len(checkpoint["optimizer_states"]) != 1:
            raise CheckpointError(f"the training's state: it holds {len(checkpoint['optimizer_states'])} optimizers; expected one")
        self.group.load(checkpoint.get("gradients"))
        groups = [{"initial_lr": group["lr"], **group} for group in checkpoint["optimizer_states"][0]["param_groups"]]
        self._saved = {"settings": checkpoint.get("optimizer_settings", groups), "is_scheduled": bool(checkpoint["lr_schedulers"])}

    def on_train_start(self) -> None:
        """Looks at what a checkpoint put into the optimizer: PyTorch's fused steps take it without a look."""
        if self._saved is not None:
            saved, self._saved = self._saved, None
            take_settings(self.optimizers(use_pl_optimizer=False), self.lr_schedulers(), self._told, saved, self.trainer.global_step)
        for parameter, state in self.optimizers(use_pl_optimizer=False).state.items():  # type: ignore[union-attr]
            for name in _LIKE_THE_WEIGHT & set(state):
                value = state[name]
                if not isinstance(value, Tensor) or value.shape != parameter.shape or not bool(value.isfinite().all()):
                    raise CheckpointError(
                        f"the training's state: the optimizer's {name} of a weight {list(parameter.shape)} is {describe(value)}; expected "
                        "finite numbers of that shape"
                    )

    def trained_names(self) -> set[str]:
        """Names, in ``state_dict``, of what the optimizer changes."""
        trained = {id(parameter) for parameter in self.learned()}
        return {name for name, parameter in self.named_parameters(remove_duplicate=False) if id(parameter) in trained}

    def weights_beside(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What of ``state_dict`` a checkpoint holds beside the model: the objective's own, and weights whose averages the model is."""
        doubled = self.trained_names() if self.averaging is not None else set()
        return {name: value for name, value in state.items() if not name.startswith("target.") or name in doubled}

    def averaged(self) -> AbstractContextManager[None]:
        """The model with averages in place of its weights, where there are such."""
        return nullcontext() if self.averaging is None else self.averaging.applied()


def _recompute(target: Block) -> None:
    """Iterations of loops, and the layers of models that can do it themselves, are computed again in the backward pass."""
    for graph in levels(target):
        if isinstance(graph, Graph):
            graph.metadata["gradient_checkpointing"] = True
    for block in {id(block): block for _, block in blocks_at(target)}.values():
        model = adapted_module(block)
        switch = next((name for name in _SWITCHES if hasattr(model, name)), None)
        if switch is not None and any(getattr(model, name, False) for name in _RECOMPUTES):
            getattr(model, switch)()
