"""Training of any block or level: a LightningModule around it, objectives and data by name.

Lightning is imported when :class:`Trainable` is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wgtorch.train.data import Data
from wgtorch.train.objective import Objective, Step
from wgtorch.train.recording import forward_outputs
from wgtorch.train.registries import register_data, register_objective, register_optimizer, register_reward, register_schedule

if TYPE_CHECKING:
    from wgtorch.train.trainable import Trainable as Trainable

__all__ = [
    "Data",
    "Objective",
    "Step",
    "Trainable",
    "register_data",
    "register_objective",
    "register_optimizer",
    "register_reward",
    "register_schedule",
    "forward_outputs",
]


def __getattr__(name: str) -> object:
    if name == "Trainable":
        from wgtorch.core.errors import require

        require("lightning", "train")
        from wgtorch.train.trainable import Trainable

        return Trainable
    raise AttributeError(f"module 'wgtorch.train' has no attribute {name!r}")
