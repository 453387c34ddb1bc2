"""LoRA at every place: one base in memory, and at each place where it is used an adapter of its own.

    report = wgtorch.lora.add(world, name="winter", rank=8, freeze_base=True)   # a light world: only adapters train
    world.set_adapter("creator/paint/t2i/backbone", "winter")                   # None, a name, weights, or one per sample
    wgtorch.lora.save(world, "adapters/winter", name="winter")                  # PEFT's own layout
    wgtorch.lora.set_adapter(world, "summer")                                   # another variant, also while it runs
    wgtorch.lora.remove(world, "winter")                                        # the base is bit for bit as before

PEFT makes the layers and its files; it is loaded when the first of these is called. A block that is called outside of any
place uses no adapter, unless ``with wgtorch.lora.use_adapter(block, "winter"):`` says so.
"""

from wgtorch.lora.active_adapters import preserve_adapter_context
from wgtorch.lora.add_remove import add, from_peft, remove
from wgtorch.lora.files import load, save
from wgtorch.lora.merged_weights import fuse, merge, unmerge
from wgtorch.lora.report import Adapted, Report, Skipped
from wgtorch.lora.switching import adapters, set_adapter, use_adapter
from wgtorch.lora.training import check_optimizer

__all__ = [
    "Adapted",
    "Report",
    "Skipped",
    "adapters",
    "add",
    "check_optimizer",
    "from_peft",
    "fuse",
    "load",
    "merge",
    "preserve_adapter_context",
    "remove",
    "save",
    "set_adapter",
    "unmerge",
    "use_adapter",
]
