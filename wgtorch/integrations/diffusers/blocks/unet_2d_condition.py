"""The UNet of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.contribution import Contribution, residuals
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel
from wgtorch.ports import ADAPTED, GUIDANCE, PICTURE_LATENT, TEXT_EMBEDS, TIME_IDS
from wgtorch.roles import Backbone


@register_block("backbone/unet_2d_condition")
class UNet2DCondition(ForeignModel, Backbone):
    """``UNet2DConditionModel`` of diffusers: Stable Diffusion 1, 2 and XL.

    In a loop the keys and values of the condition are made once, before it. For that the model's usual attention processors are
    replaced by ones that do the same, also in the pipeline whose model it is; others that somebody has set stay.

    Example:
        >>> UNet2DCondition(checkpoint_ref="stable-diffusion-v1-5/unet")
    """

    model_class = "UNet2DConditionModel"
    rows_are_samples = True
    invariant_ports = ("condition",)
    _known: tuple[Any, ...] = ()
    """A model, and its cross-attentions."""
    inputs: Mapping[str, Any] = {
        "latent": PICTURE_LATENT,
        "text_embeds": TEXT_EMBEDS,
        "time_ids": TIME_IDS,
        "adapted": ADAPTED,
        "perturbed": Port(dtype="list", description="names or parts of names (mid) of self-attentions that see each token alone"),
        "guidance": GUIDANCE,
    }

    def precompute_invariants(self, condition: Tensor | None = None, **inputs: Any) -> dict[str, Any]:
        """The condition's keys and values for every cross-attention: a loop's turns look at the same text.

        Left to each call where that is compiled, where the model does something of its own with its condition first, or where
        somebody has set other attention processors.
        """
        if condition is None or torch.compiler.is_compiling() or not (layers := self._layers()):
            return {}
        own = self.model.config
        plain = own.encoder_hid_dim_type is None and own.addition_embed_type in (None, "text_time")
        if not plain or hasattr(self.model, "_hf_hook"):
            return {}
        from wgtorch.integrations.diffusers.blocks.unet_attention import can_look, install_kv_processors, looked_ahead

        if not can_look(layers):
            return {}
        install_kv_processors(layers)
        return {"condition": looked_ahead(layers, self._own(condition))}

    def forward(
        self,
        latent: Tensor,
        timestep: float | Tensor,
        condition: Any = None,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
        adapted: Sequence[Contribution] | None = None,
        perturbed: Sequence[str] | None = None,
        guidance: float | Tensor | None = None,
    ) -> dict[str, Any]:
        """``pred`` [B, C, H, W].

        Raises:
            PortError: the latent has not as many channels as the model takes, or not as many rows as the condition; or no layer
                is named as in ``perturbed``.
        """
        channels, given = self.model.config.in_channels, latent.dtype
        latent, text_embeds, time_ids = self._own(latent), self._own(text_embeds), self._own(time_ids)
        condition = condition if isinstance(condition, tuple) else self._own(condition)
        if latent.dim() != 4 or latent.shape[1] != channels:
            raise PortError(f"{self.block_id}.latent: got shape {list(latent.shape)}; expected [B, {channels}, H, W], as the UNet takes it")
        text = condition[0] if isinstance(condition, tuple) else condition
        if text is not None and text.shape[0] != latent.shape[0]:
            raise PortError(
                f"{self.block_id}.condition: got {text.shape[0]} rows for {latent.shape[0]} latents; expected as many. "
                "Guidance in one batch repeats the latents (diffusers/repeat)"
            )
        more: dict[str, Any] = residuals(adapted) if adapted else {}
        if text_embeds is not None or time_ids is not None:
            added = {"text_embeds": text_embeds, "time_ids": time_ids}
            more["added_cond_kwargs"] = {name: value for name, value in added.items() if value is not None}
        if perturbed:
            more["cross_attention_kwargs"] = {"perturbed": self._perturbed(perturbed)}
        if guidance is not None and self.model.config.time_cond_proj_dim is not None:
            more["timestep_cond"] = self._scale_embedding(guidance, latent)
        seen = self._looked_at(condition, adapted) if adapted else condition
        return {"pred": self.model(latent, timestep, encoder_hidden_states=seen, return_dict=False, **more)[0].to(given)}

    def _own(self, value: Any) -> Any:
        """A tensor in the dtype of the weights, so that a model may be of another than its neighbours; autocast sees to that itself."""
        if value is None or not value.is_floating_point() or torch.is_autocast_enabled(value.device.type):
            return value
        wanted = self.weights_dtype
        return value if value.dtype is wanted else value.to(wanted)

    def _scale_embedding(self, guidance: float | Tensor, latent: Tensor) -> Tensor:
        """The scale as distilled models take it beside the timestep, [B, D]."""
        scale = torch.as_tensor(guidance, dtype=torch.float64, device=latent.device)
        return scale_embedding((scale - 1).float().expand(latent.shape[0]), self.model.config.time_cond_proj_dim).to(latent.dtype)

    def _perturbed(self, wanted: Sequence[str]) -> frozenset[str]:
        from wgtorch.integrations.diffusers.blocks.unet_attention import perturbed_layers

        return perturbed_layers(self.model, wanted, f"{self.block_id}.perturbed")

    def _looked_at(self, condition: Any, adapted: Sequence[Contribution]) -> Any:
        """The condition, with what pictures add to it."""
        images = [each.image for each in adapted if each.image is not None]
        if not images or condition is None:
            return condition
        from wgtorch.integrations.diffusers.blocks.unet_attention import install_kv_processors, looked

        layers: Any = self._layers() if not torch.compiler.is_compiling() else images[0]
        if any(len(image) != len(layers) for image in images):
            raise PortError(
                f"{self.block_id}.adapted: an IP-Adapter brings {[len(image) for image in images]} layers, and the UNet has "
                f"{len(layers)} cross-attentions; it was made for another model"
            )
        if not torch.compiler.is_compiling():
            install_kv_processors(layers)
        return looked(condition, images)

    def _layers(self) -> tuple[Any, ...]:
        """The model's cross-attentions."""
        model = self.model
        if not self._known or self._known[0] is not model:
            from wgtorch.integrations.diffusers.blocks.unet_attention import cross_attentions

            self._known = (model, cross_attentions(model))
        return self._known[1]


def scale_embedding(w: Tensor, width: int) -> Tensor:
    """Sines and cosines of 1000 w, [B, width] of w [B] (Luo et al. 2023, https://arxiv.org/abs/2310.04378, as in Kingma et al. 2021)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=w.dtype, device=w.device) * -(torch.log(torch.tensor(10000.0)).item() / (half - 1)))
    angles = (w * 1000.0)[:, None] * rates[None, :]
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))
