"""Self-attention of UNets that can be made worse on purpose, for guidance away from what comes of it (PAG)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from wgtorch.core.errors import PortError
from wgtorch.integrations.diffusers.blocks.cross_attention import can_look, cross_attentions, install_kv_processors


class PerturbedProcessor(AttnProcessor2_0):
    """The processor of diffusers; where a call names its layer, each token looks at itself alone.

    (Ahn et al. 2024, https://arxiv.org/abs/2403.17377: the attention map is the identity.)

    Args:
        layer: the layer's name in its UNet.
    """

    def __init__(self, layer: str = "") -> None:  # diffusers makes processors anew without arguments
        super().__init__()
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        perturbed: Collection[str] = (),
        **kwargs: Any,
    ) -> Tensor:
        if self.layer not in perturbed:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb, **kwargs)
        out = attn.to_out[1](attn.to_out[0](attn.to_v(hidden_states)))
        return (out + hidden_states if attn.residual_connection else out) / attn.rescale_output_factor


def self_attentions(unet: nn.Module) -> dict[str, Attention]:
    """A UNet's self-attentions beside its cross-attentions, by name."""
    return {name: module for name, module in unet.named_modules() if isinstance(module, Attention) and name.endswith("attn1")}


def perturbed_layers(unet: nn.Module, wanted: Sequence[str], where: str) -> frozenset[str]:
    """Names of the self-attentions that ``wanted`` names, each able to be perturbed from now on.

    Args:
        unet: whose.
        wanted: regular expressions looked for in names, such as ``mid`` or ``down_blocks.1``, as ``pag_applied_layers`` of diffusers.
        where: for messages.

    Raises:
        PortError: no layer has such a name, or somebody has set other attention processors.
    """
    layers, crossing = self_attentions(unet), cross_attentions(unet)
    found = {pattern: {name for name in layers if re.search(pattern, name)} for pattern in wanted}
    for pattern, names in found.items():
        if not names:
            raise PortError(f"{where}: {pattern!r} is in the name of no self-attention; those are {', '.join(layers)}")
    others = [attn for name, attn in unet.named_modules() if isinstance(attn, Attention) and attn not in (*layers.values(), *crossing)]
    kinds = {type(attn.processor) for attn in (*layers.values(), *others)} - {AttnProcessor2_0, PerturbedProcessor}
    if kinds or not can_look(crossing):
        raise PortError(f"{where}: the UNet has attention processors of its own ({kinds or 'of its cross-attentions'}); expected the usual")
    install_kv_processors(crossing)
    for name, attn in unet.named_modules():
        if isinstance(attn, Attention) and attn not in crossing and getattr(attn.processor, "layer", None) != name:
            attn.set_processor(PerturbedProcessor(name))  # type: ignore[arg-type]
    return frozenset(name for names in found.values() for name in names)
