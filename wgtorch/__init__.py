"""wgtorch: diffusion models, language models and whole generated worlds, composed from one kind of part."""

from wgtorch.catalogue import install as _install
from wgtorch.core.block import Block, BlockRegistry, register_block
from wgtorch.core.config.template import register_template
from wgtorch.core.errors import WgtorchError
from wgtorch.core.kinds import Kind, register_kind
from wgtorch.core.pool import Pool
from wgtorch.core.port import Port
from wgtorch.core.run.context import Event
from wgtorch.core.run.node_cache import NodeCache
from wgtorch.core.run.paused import Paused
from wgtorch.core.run.rng import Rng
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.world import World
from wgtorch.world_runtime.conditions import register_condition
from wgtorch.world_runtime.contract import register_merge
from wgtorch.world_runtime.state import State

__version__ = "0.1.0"

__all__ = [
    "Block",
    "BlockRegistry",
    "Event",
    "Graph",
    "Kind",
    "NodeCache",
    "Paused",
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
    if name == "evaluate":
        from wgtorch.evaluation import evaluate

        return evaluate
    raise AttributeError(f"module 'wgtorch' has no attribute {name!r}")
