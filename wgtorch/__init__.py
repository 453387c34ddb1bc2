"""wgtorch: diffusion models, language models and whole generated worlds, composed from one kind of part.

Names are loaded when they are first used (PEP 562), so that ``wgtorch --help`` needs no PyTorch; type checkers see where each is.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from wgtorch.catalogue import install as _install

if TYPE_CHECKING:
    from wgtorch import hub as hub
    from wgtorch import lora as lora
    from wgtorch import ray as ray
    from wgtorch import testing as testing
    from wgtorch import train as train
    from wgtorch.core.block import Block, BlockRegistry, register_block
    from wgtorch.core.config.template import register_template
    from wgtorch.core.errors import WgtorchError
    from wgtorch.core.kinds import Kind, register_kind
    from wgtorch.core.pool import Pool
    from wgtorch.core.port import Port
    from wgtorch.core.run.events import Event
    from wgtorch.core.run.node_cache import NodeCache
    from wgtorch.core.run.paused import Paused
    from wgtorch.core.run.rng import Rng
    from wgtorch.evaluation.evaluation import evaluate
    from wgtorch.graph import Graph
    from wgtorch.pipeline import Pipeline
    from wgtorch.report.show import show
    from wgtorch.stage import Stage
    from wgtorch.world import World
    from wgtorch.world_batch import WorldBatch
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
    "WorldBatch",
    "evaluate",
    "register_block",
    "register_condition",
    "register_kind",
    "register_merge",
    "register_template",
    "show",
]

# Where each name is; a test compares this with what type checkers are told above.
_HOMES = {
    "wgtorch.core.block": ("Block", "BlockRegistry", "register_block"),
    "wgtorch.core.config.template": ("register_template",),
    "wgtorch.core.errors": ("WgtorchError",),
    "wgtorch.core.kinds": ("Kind", "register_kind"),
    "wgtorch.core.pool": ("Pool",),
    "wgtorch.core.port": ("Port",),
    "wgtorch.core.run.events": ("Event",),
    "wgtorch.core.run.node_cache": ("NodeCache",),
    "wgtorch.core.run.paused": ("Paused",),
    "wgtorch.core.run.rng": ("Rng",),
    "wgtorch.evaluation.evaluation": ("evaluate",),
    "wgtorch.graph": ("Graph",),
    "wgtorch.pipeline": ("Pipeline",),
    "wgtorch.report.show": ("show",),
    "wgtorch.stage": ("Stage",),
    "wgtorch.world": ("World",),
    "wgtorch.world_batch": ("WorldBatch",),
    "wgtorch.world_runtime.conditions": ("register_condition",),
    "wgtorch.world_runtime.contract": ("register_merge",),
    "wgtorch.world_runtime.state": ("State",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_SUBMODULES = ("hub", "lora", "ray", "testing", "train")

_install()


if not TYPE_CHECKING:  # a checker is told every name above, and finds those that are none

    def __getattr__(name: str) -> object:
        if name in _HOME_OF:
            value = globals()[name] = getattr(_import_module(_HOME_OF[name]), name)
            return value
        if name in _SUBMODULES:
            return _import_module(f"wgtorch.{name}")
        raise AttributeError(f"module 'wgtorch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES, "__version__", "__doc__"})
