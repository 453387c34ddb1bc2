"""PixArt-Sigma and PixArt-alpha."""

from __future__ import annotations

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.diffusers.assembly import Defaults, Parts
from wgtorch.integrations.diffusers.blocks.autoencoder_kl import AutoencoderKL
from wgtorch.integrations.diffusers.blocks.text_transformers import PixArtTransformer
from wgtorch.integrations.diffusers.families.family import Family, prompt_part, trained_side, transformer_adapters
from wgtorch.integrations.diffusers.resolution import expose_bins
from wgtorch.integrations.diffusers.text import asked

_LENGTHS = {"PixArtSigmaPipeline": 300, "PixArtAlphaPipeline": 120}


def _prepare(parts: Parts) -> None:
    """A transformer that is told the size of the picture is refused."""
    own = parts.backbone.model.config
    if own.use_additional_conditions:
        raise ConfigError(
            f"from_diffusers: {parts.source.name!r} has a transformer that is told the size and shape of the picture (PixArt-alpha for "
            "1024 pixels), which the graph does not tell it; expected PixArt-Sigma, or alpha for 256 or 512 pixels"
        )
    parts.patch = own.patch_size


PIXART = Family(
    "PixArt",
    dict.fromkeys(_LENGTHS, ("text_to_image",)),
    {"text_to_image": Defaults(4.5, steps=20)},
    PixArtTransformer,
    (AutoencoderKL,),
    lambda parts: asked(parts.source.pipeline_class, "clean_caption", length=_LENGTHS[parts.source.pipeline_class])(parts),
    prompt_part("T5EncoderModel"),
    condition={"masked": True},
    settings={"steps_eta": True},
    size=trained_side,
    prepare=_prepare,
    finish=lambda parts: expose_bins(parts, parts.source.pipeline_class),
    adapters=transformer_adapters(""),
)
