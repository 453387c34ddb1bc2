"""wgtorch: diffusion models, language models and whole generated worlds, composed from one kind of part."""

from wgtorch.catalogue import install as _install
from wgtorch.conditions import register_condition
from wgtorch.contract import register_merge
from wgtorch.core.block import Block, BlockRegistry, register_block
from wgtorch.core.errors import WgtorchError
from wgtorch.core.kinds import Kind, register_kind
from wgtorch.core.pool import Pool
from wgtorch.core.port import Port
from wgtorch.core.rng import Rng
from wgtorch.core.run import Event
from wgtorch.core.template import register_template
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.state import State
from wgtorch.world import World

__version__ = "0.1.0"

__all__ = [
    "Block",
    "BlockRegistry",
    "Event",
    "Graph",
    "Kind",
    "Pipeline",
    "Pool",
    "Port",
    "Rng",
    "Stage",
    "State",
    "WgtorchError",
    "World",
    "register_block",
    "register_condition",
    "register_kind",
    "register_merge",
    "register_template",
]

_install()


def __getattr__(name: str) -> object:
    """``wgtorch.lora`` and ``wgtorch.train`` without importing them first; neither loads PEFT or Lightning by itself."""
    if name in ("lora", "train"):
        from importlib import import_module

        return import_module(f"wgtorch.{name}")
    raise AttributeError(f"module 'wgtorch' has no attribute {name!r}")
