"""Objective: what training makes smaller, over any block or level."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, TrainingError, suggest
from wgtorch.core.signature import spell_out_inherited
from wgtorch.train.frozen_outputs import FrozenOutputs

Batch = Mapping[str, Any]
"""Values by key: tensors [B, ...], lists of B texts, or whatever else the data gives."""


@dataclass(frozen=True, slots=True)
class Step:
    """One training or validation step.

    Args:
        index: number of the batch, from 0; in validation no two looks at a batch have the same.
        generator: where the objective draws from, on the target's device. It is keyed by (seed, index, process), so that a
            step draws the same numbers whatever came before: in a resumed run, and in every validation.
        training: False in validation and for samples.
        cache: keeps what frozen parts compute of each sample; None computes it every time.
    """

    index: int
    generator: torch.Generator
    training: bool = True
    cache: FrozenOutputs | None = None

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers in the shape, dtype and device of ``like``."""
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype, device=like.device)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), float32, on the generator's device."""
        return torch.rand(shape, generator=self.generator, device=self.generator.device)


class Objective(nn.Module):
    """What training makes smaller.

    A module, so that it may have weights of its own (they train too) and buffers (a running baseline): both are part of
    checkpoints. Nothing of a step is kept in it.

    Example:
        >>> @register_objective("brightness")
        ... class Brightness(Objective):
        ...     needs = ("prompt",)
        ...     def forward(self, target, batch, step):
        ...         values = forward_outputs(target, {"prompt": batch["prompt"]}, ["backbone.pred", "image"])
        ...         return {"loss": (values["image"].mean() - 0.5) ** 2, "brightness": values["image"].mean()}
    """

    target_class: ClassVar[type[Block] | None] = None
    """The class of the targets that it is for; None for any block."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Keys that every batch must hold."""
    validation_draws: ClassVar[int] = 1
    """Of how many samples a validation is the mean at least, where the loss depends on what is drawn: where fewer are held out, each is
    looked at several times, with other draws."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        spell_out_inherited(cls)

    def needed(self) -> tuple[str, ...]:
        """Keys that every batch must hold; those of the class, unless the settings say otherwise."""
        return self.needs

    def check(self, target: Block) -> None:
        """Called once before training: says whether the objective fits the target.

        Raises:
            ConfigError: it does not.
        """
        if self.target_class is not None and not isinstance(target, self.target_class):
            wanted = self.target_class.block_type
            raise ConfigError(
                f"objective {type(self).__name__}: the target is a {type(target).__name__}; expected a block of type {wanted!r}, as "
                f"block: {{block_type: {wanted}}}"
            )

    def reached(self, target: Block) -> Collection[str] | None:
        """Paths of the places of the target that the loss depends on, each with all that is below it; None where any may be.

        What no gradient can reach is not given to the optimizer, and processes do not wait for it.
        """
        return None

    def forward(self, target: Block, batch: Batch, step: Step) -> Tensor | Mapping[str, Tensor]:
        """The loss of a batch: a scalar, or scalars by name with ``loss`` among them; the others are logged.

        A loss that is a mean says of how many things with ``count`` (samples, tokens): batches whose gradients are accumulated, and
        those of several processes, then count by it, so that together they are the one large batch. Without, each counts the same.

        The target is in the mode and grad mode that the step needs already.
        """
        raise NotImplementedError

    def per_sample(self, target: Block, batch: Batch, step: Step) -> Tensor:
        """The loss of each sample [B], before it is averaged: what preference and distillation objectives are made of.

        Raises:
            TrainingError: this objective has no loss of a single sample.
        """
        raise TrainingError(f"objective {type(self).__name__} has no loss for each sample")

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """What a person looks at while it trains: pictures [B, 3, H, W] in [0, 1], or lists of texts, by name.

        The target is in ``eval``, without gradients, with averaged weights where there are such.
        """
        return {}


def check_batch(batch: Any, needed: tuple[str, ...], what: str) -> None:
    """Says which keys a batch lacks.

    Raises:
        ConfigError: the batch is no mapping, or lacks a key.
    """
    if not isinstance(batch, Mapping):
        raise ConfigError(f"{what}: a batch is a {type(batch).__name__}; expected values by key, as {{{', '.join(needed)}}}")
    for key in needed:
        if key not in batch:
            raise ConfigError(f"{what} needs {key!r} in every batch; the data gives {sorted(batch)}; {suggest(key, batch)}")


def rows_in(batch: Batch) -> int:
    """How many samples a batch has: the length of its first list or tensor; 1 where there is none."""
    lengths = (len(value) for value in batch.values() if isinstance(value, (list, tuple)) or (isinstance(value, Tensor) and value.dim()))
    return next(lengths, 1)
