"""LoRA at every place: one base in memory, and at each place where it is used an adapter of its own.

    report = wgtorch.lora.add(world, name="winter", rank=8, freeze_base=True)   # a light world: only adapters train
    world.set_adapter("creator/paint/t2i/backbone", "winter")                   # None, a name, weights, or one per sample
    wgtorch.lora.save(world, "adapters/winter", name="winter")                  # PEFT's own layout
    wgtorch.lora.wear(world, "summer")                                          # another variant, also while it runs
    wgtorch.lora.remove(world, "winter")                                        # the base is bit for bit as before

PEFT makes the layers and its files; it is loaded when the first of these is called. A block that is called outside of any
place wears nothing, unless ``with wgtorch.lora.wearing(block, "winter"):`` says so.
"""

from wgtorch.lora.adding import Adapted, Report, Skipped, add, adopt, detach, remove
from wgtorch.lora.context import keeping
from wgtorch.lora.files import load, save
from wgtorch.lora.merging import merge, unmerge
from wgtorch.lora.training import check_optimizer
from wgtorch.lora.wear import adapters, wear, wearing

__all__ = [
    "Adapted",
    "Report",
    "Skipped",
    "adapters",
    "add",
    "adopt",
    "check_optimizer",
    "detach",
    "keeping",
    "load",
    "merge",
    "remove",
    "save",
    "unmerge",
    "wear",
    "wearing",
]
