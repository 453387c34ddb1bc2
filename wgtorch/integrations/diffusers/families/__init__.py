"""Families of models, each described once, in a file of its own."""

from importlib import import_module
from pkgutil import iter_modules

from wgtorch.integrations.diffusers.families.family import Family, Part
from wgtorch.lora.formats.foreign_layer_names import AdapterNaming

_files = [import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__)]
_described = {id(value): value for file in _files for value in vars(file).values() if isinstance(value, Family)}
FAMILIES = tuple(sorted(_described.values(), key=lambda family: bool(family.marks)))
"""Of those with one backbone the plain one is first; the others have marks."""

for _family in FAMILIES:
    if _family.adapters is not None:
        AdapterNaming.register(_family.backbone.model_class, _family.adapters)

__all__ = ["FAMILIES", "Family", "Part"]
