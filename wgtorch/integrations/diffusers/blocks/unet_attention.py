"""Attention of UNets: cross-attention whose keys and values were made before, of the text (once for a run) or of pictures (IP-Adapter);
and self-attention that can be made worse on purpose, for guidance away from what comes of it (PAG)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch.core.errors import PortError

Pairs = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values [B, N, W] for each cross-attention, in the order of ``unet.attn_processors``."""

KEYS_AT_ONCE = 16  # PyTorch 2.13's attention on a CPU: the 77 tokens of CLIP take it up to twice as long as 80


class CachedKV(NamedTuple):
    """What a UNet's cross-attention looks at.

    Args:
        text: the condition, [B, T, D].
        pairs: keys and values of the text; each layer makes its own where left out.
        mask: what is added to the scores of ``pairs``, [1, 1, 1, N]: minus infinity for those that only fill up.
        images: the same of pictures, for each adapter, with values already multiplied with the adapter's scale.
    """

    text: Tensor
    pairs: Pairs | None = None
    mask: Tensor | None = None
    images: tuple[Pairs, ...] = ()


class CachedKVProcessor(AttnProcessor2_0):
    """The processor of diffusers, which it is where it is given a text alone, and attention to :class:`CachedKV` where it is not.

    (Ye et al. 2023, "IP-Adapter": the same queries attend to text and pictures apart, and the results are added.)

    Args:
        layer: the layer's number among the cross-attentions of its UNet.
    """

    def __init__(self, layer: int = -1) -> None:  # diffusers makes processors anew without arguments
        super().__init__()
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        perturbed: Any = (),  # for self-attentions
        **kwargs: Any,
    ) -> Tensor:
        if not isinstance(encoder_hidden_states, CachedKV):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb, **kwargs)
        query = _heads(attn, attn.to_q(hidden_states))
        text, pairs, mask, images = encoder_hidden_states
        key, value = keys_and_values(attn, text) if pairs is None else pairs[self.layer]
        found = F.scaled_dot_product_attention(query, _heads(attn, key), _heads(attn, value), attn_mask=mask)
        for adapter in images:
            key, value = adapter[self.layer]
            found = found + F.scaled_dot_product_attention(query, _heads(attn, key), _heads(attn, value))
        out = attn.to_out[1](attn.to_out[0](found.transpose(1, 2).flatten(2)))
        return (out + hidden_states if attn.residual_connection else out) / attn.rescale_output_factor


def keys_and_values(attn: Attention, text: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's keys and values [B, T, W] of a text [B, T, D]."""
    text = attn.norm_encoder_hidden_states(text) if attn.norm_cross else text
    return attn.to_k(text), attn.to_v(text)


def _heads(attn: Attention, x: Tensor) -> Tensor:
    """[B, N, heads W] to [B, heads, N, W]."""
    return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def cross_attentions(unet: nn.Module) -> tuple[Attention, ...]:
    """A UNet's cross-attentions, in the order that numbers them."""
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]  # type: ignore[operator, union-attr]
    return tuple(unet.get_submodule(name.removesuffix(".processor")) for name in names)  # type: ignore[misc]


def can_look(layers: Sequence[Attention]) -> bool:
    """True where cross-attentions do nothing but what :class:`CachedKVProcessor` does."""
    return all(type(layer.processor) in (AttnProcessor2_0, CachedKVProcessor) and layer.spatial_norm is None for layer in layers)


def install_kv_processors(layers: Sequence[Attention]) -> None:
    """Gives a UNet's cross-attentions processors that can look; what they compute of a text alone stays the same."""
    for number, layer in enumerate(layers):
        if not isinstance(layer.processor, CachedKVProcessor) or layer.processor.layer != number:
            layer.set_processor(CachedKVProcessor(number))  # type: ignore[arg-type]


def looked_ahead(layers: Sequence[Attention], text: Tensor) -> CachedKV:
    """A text [B, T, D] with its keys and values for all layers, on a CPU filled up to a number that is quick to attend to."""
    pairs = tuple(keys_and_values(layer, text) for layer in layers)
    tokens = text.shape[1]
    missing = -tokens % KEYS_AT_ONCE if text.device.type == "cpu" else 0
    if not missing:
        return CachedKV(text, pairs)
    filled = tuple((F.pad(key, (0, 0, 0, missing)), F.pad(value, (0, 0, 0, missing))) for key, value in pairs)
    mask = pairs[0][0].new_zeros(1, 1, 1, tokens + missing)
    mask[..., tokens:] = -torch.inf
    return CachedKV(text, filled, mask)


def looked(condition: Tensor | CachedKV, images: Sequence[Pairs]) -> CachedKV:
    """A condition with what pictures add to it."""
    known = condition if isinstance(condition, CachedKV) else CachedKV(condition)
    return known._replace(images=(*known.images, *images))


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
