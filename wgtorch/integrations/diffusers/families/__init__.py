"""Families of models, each described once."""

from wgtorch.integrations.diffusers.families.animatediff import ANIMATEDIFF
from wgtorch.integrations.diffusers.families.chroma import CHROMA
from wgtorch.integrations.diffusers.families.cogvideox import COGVIDEOX
from wgtorch.integrations.diffusers.families.family import Family, Part
from wgtorch.integrations.diffusers.families.flux import FLUX, FLUX_FILL
from wgtorch.integrations.diffusers.families.flux2 import FLUX2
from wgtorch.integrations.diffusers.families.flux_kontext import FLUX_KONTEXT
from wgtorch.integrations.diffusers.families.hunyuan_video import HUNYUAN_VIDEO
from wgtorch.integrations.diffusers.families.instruct_pix2pix import INSTRUCT_PIX2PIX
from wgtorch.integrations.diffusers.families.ltx import LTX
from wgtorch.integrations.diffusers.families.lumina2 import LUMINA2
from wgtorch.integrations.diffusers.families.pixart import PIXART
from wgtorch.integrations.diffusers.families.qwen_image import QWEN_IMAGE
from wgtorch.integrations.diffusers.families.sana import SANA
from wgtorch.integrations.diffusers.families.stable_diffusion import STABLE_DIFFUSION
from wgtorch.integrations.diffusers.families.stable_diffusion_3 import STABLE_DIFFUSION_3
from wgtorch.integrations.diffusers.families.stable_diffusion_xl import STABLE_DIFFUSION_XL
from wgtorch.integrations.diffusers.families.stable_video_diffusion import STABLE_VIDEO_DIFFUSION
from wgtorch.integrations.diffusers.families.transformer_controlnets import FLUX_CONTROLNET, SD3_CONTROLNET
from wgtorch.integrations.diffusers.families.wan import WAN
from wgtorch.integrations.diffusers.families.z_image import Z_IMAGE
from wgtorch.lora.formats.foreign_layer_names import AdapterNaming

FAMILIES = (
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_XL,
    STABLE_DIFFUSION_3,
    FLUX,
    FLUX_FILL,
    FLUX_KONTEXT,
    FLUX_CONTROLNET,
    WAN,
    QWEN_IMAGE,
    Z_IMAGE,
    SANA,
    PIXART,
    LTX,
    COGVIDEOX,
    FLUX2,
    CHROMA,
    HUNYUAN_VIDEO,
    INSTRUCT_PIX2PIX,
    ANIMATEDIFF,
    LUMINA2,
    SD3_CONTROLNET,
    STABLE_VIDEO_DIFFUSION,
)

for _family in FAMILIES:
    if _family.adapters is not None:
        AdapterNaming.register(_family.backbone.model_class, _family.adapters)

__all__ = ["FAMILIES", "Family", "Part"]
