"""Cross-attention of UNets that also looks at pictures (IP-Adapter)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F


class Looked(NamedTuple):
    """What a UNet's cross-attention looks at: the text, and keys and values of pictures for each of its layers.

    Args:
        text: the condition, [B, T, D].
        images: for each adapter, for each layer in the order of ``unet.attn_processors``: keys and values [B, N, W], those
            already multiplied with the adapter's scale.
    """

    text: Tensor
    images: tuple[tuple[tuple[Tensor, Tensor], ...], ...]


class LookingProcessor(AttnProcessor2_0):
    """The processor of diffusers, which it is where there are no pictures, and decoupled attention to pictures where there are.

    (Ye et al. 2023, "IP-Adapter": the same queries attend to text and pictures apart, and the results are added.)

    Args:
        layer: the layer's number among the cross-attentions of its UNet.
    """

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        if not isinstance(encoder_hidden_states, Looked):
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs)
        query = _heads(attn, attn.to_q(hidden_states))
        text = encoder_hidden_states.text
        text = attn.norm_encoder_hidden_states(text) if attn.norm_cross else text
        pairs = [(attn.to_k(text), attn.to_v(text)), *(adapter[self.layer] for adapter in encoder_hidden_states.images)]
        found = sum(F.scaled_dot_product_attention(query, _heads(attn, key), _heads(attn, value)) for key, value in pairs)
        assert isinstance(found, Tensor)
        out = attn.to_out[1](attn.to_out[0](found.transpose(1, 2).flatten(2)))
        return (out + hidden_states if attn.residual_connection else out) / attn.rescale_output_factor


def _heads(attn: Attention, x: Tensor) -> Tensor:
    """[B, N, heads W] to [B, heads, N, W]."""
    return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)


def cross_attentions(unet: nn.Module) -> list[str]:
    """Names of a UNet's cross-attention processors, in the order that numbers them."""
    return [name for name in unet.attn_processors if name.endswith("attn2.processor")]  # type: ignore[operator, union-attr]


def let_look(unet: nn.Module) -> None:
    """Gives a UNet's cross-attentions processors that can look at pictures; what it computes without any stays the same."""
    processors = dict(unet.attn_processors)  # type: ignore[arg-type]
    layers = cross_attentions(unet)
    if not all(isinstance(processors[name], LookingProcessor) for name in layers):
        unet.set_attn_processor({**processors, **{name: LookingProcessor(layer) for layer, name in enumerate(layers)}})  # type: ignore[operator]


def looked(text: Tensor, images: Sequence[tuple[tuple[Tensor, Tensor], ...]]) -> Any:
    """What to give a UNet as ``encoder_hidden_states``."""
    return Looked(text, tuple(images)) if images else text
