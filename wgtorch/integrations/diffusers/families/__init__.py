"""Families of models, each described once."""

from wgtorch.integrations.diffusers.families.family import Family, Part
from wgtorch.integrations.diffusers.families.flux import FLUX, FLUX_FILL
from wgtorch.integrations.diffusers.families.stable_diffusion import STABLE_DIFFUSION
from wgtorch.integrations.diffusers.families.stable_diffusion_3 import STABLE_DIFFUSION_3
from wgtorch.integrations.diffusers.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from wgtorch.integrations.diffusers.families.wan import WAN
from wgtorch.lora.formats.names import AdapterNaming

FAMILIES = (STABLE_DIFFUSION, STABLE_DIFFUSION_XL, STABLE_DIFFUSION_3, FLUX, FLUX_FILL, WAN)

for _family in FAMILIES:
    for _model, _names in _family.adapters.items():
        AdapterNaming.register(_model, _names)

__all__ = ["FAMILIES", "Family", "Part"]
