"""IP-Adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from wgtorch.core.block import register_block
from wgtorch.core.checkpoint.refs import read_ref
from wgtorch.core.errors import CheckpointError, PortError, require
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.contribution import Contribution
from wgtorch.integrations.diffusers.blocks.controlnet import rows_for
from wgtorch.integrations.diffusers.blocks.foreign import config_of
from wgtorch.integrations.diffusers.blocks.image_encoders import CLIPImage
from wgtorch.ports import CONDITIONING_SCALE, PARTS, ROWS
from wgtorch.roles import Adapter


@register_block("adapter/ip")
class IPAdapter(Adapter):
    """IP-Adapter (Ye et al. 2023, "IP-Adapter: Text Compatible Image Prompt Adapter"): a picture as a prompt.

    A picture's CLIP embedding becomes a few tokens, and those become keys and values for each cross-attention of the UNet: once
    for a run, outside the loop. One call adds it to a built graph; the picture becomes the graph's input
    ``ip_adapter_image``::

        adapter = IPAdapter.from_file("ip-adapter_sd15.safetensors", CLIPImage(checkpoint_ref="image_encoder"))
        graph.add_node(adapter, "ip")

    Args:
        widths: of the UNet's cross-attentions, in the order of ``unet.attn_processors``.
        condition_width: D of the UNet's condition.
        tokens: that a picture becomes.
        resampler: settings of diffusers' ``IPAdapterPlusImageProjection``, which makes those of all that the image encoder sees (Plus),
            instead of the one embedding.
        encoder: config of the CLIP image encoder.
        encoder_ref: its folder.
        scale: of what it contributes, where the input ``scale`` is not fed.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "image": Port(
            dtype="image",
            raw=True,
            description="pictures [1 or P, 3, H, W] or [3, H, W] in [0, 1], or of Pillow, for each of P prompts or one for all",
        ),
        "condition": ROWS,
        "parts": PARTS,
        "scale": CONDITIONING_SCALE,
    }
    exposes: Mapping[str, str] = {"image": "ip_adapter_image", "scale": "ip_adapter_scale"}

    def __init__(
        self,
        *,
        widths: list[int],
        condition_width: int,
        tokens: int = 4,
        resampler: dict[str, Any] | None = None,
        encoder: dict[str, Any] | None = None,
        encoder_ref: str | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = CLIPImage(model=encoder, checkpoint_ref=encoder_ref)
        self.tokens = tokens
        self.scale = scale
        self.resampler: Any = None
        if resampler is not None:
            embeddings: Any = require("diffusers.models.embeddings", "diffusers")
            self.resampler = embeddings.IPAdapterPlusImageProjection(**resampler)
        else:
            self.project = nn.Linear(self.encoder.model.config.projection_dim, tokens * condition_width)
            self.norm = nn.LayerNorm(condition_width)
        self.keys = nn.ModuleList(nn.Linear(condition_width, width, bias=False) for width in widths)
        self.values = nn.ModuleList(nn.Linear(condition_width, width, bias=False) for width in widths)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str] | Mapping[str, Any], encoder: CLIPImage, *, scale: float = 1.0) -> Self:
        """An adapter from the file of its authors, or from what that holds.

        Args:
            file: safetensors with ``image_proj.*`` and ``ip_adapter.*``, or two mappings under these names.
            encoder: the image encoder that the adapter was trained with.
            scale: of what it contributes.

        Raises:
            CheckpointError: it is of another sort (full, FaceID) or does not fit the encoder.
        """
        state = _flat(file) if isinstance(file, Mapping) else read_ref(str(file))[0]
        projection = {name.removeprefix("image_proj."): value for name, value in state.items() if name.startswith("image_proj.")}
        where = "the given weights" if isinstance(file, Mapping) else str(file)
        is_plus = "latents" in projection
        if not is_plus and set(projection) != {"proj.weight", "proj.bias", "norm.weight", "norm.bias"}:
            raise CheckpointError(f"{where}: holds {sorted(projection)[:6]} as image_proj; supported are the plain IP-Adapter and Plus")
        numbers = sorted({int(name.split(".")[1]) for name in state if name.startswith("ip_adapter.")})
        keys = [state[f"ip_adapter.{number}.to_k_ip.weight"] for number in numbers]
        values = [state[f"ip_adapter.{number}.to_v_ip.weight"] for number in numbers]
        wanted = encoder.model.config.hidden_size if is_plus else encoder.model.config.projection_dim
        found = projection["proj_in.weight" if is_plus else "proj.weight"].shape[1]
        if found != wanted:
            raise CheckpointError(f"{where}: made for image embeddings of {found}, the encoder gives {wanted}")
        width = projection["norm_out.weight" if is_plus else "norm.weight"].shape[0]
        resampler = _resampler_of(projection) if is_plus else None
        own = {"encoder_ref": encoder.config["checkpoint_ref"]} if encoder.config.get("checkpoint_ref") else {}
        adapter = cls(
            widths=[int(key.shape[0]) for key in keys],
            condition_width=int(width),
            tokens=projection["latents"].shape[1] if is_plus else projection["proj.weight"].shape[0] // width,
            resampler=resampler,
            encoder=None if own else config_of(encoder.model),
            scale=scale,
            **own,
        )
        adapter.encoder = encoder
        with torch.no_grad():
            plain = (("project.weight", "proj.weight"), ("project.bias", "proj.bias"), ("norm.weight",) * 2, ("norm.bias",) * 2)
            for name, value in () if is_plus else plain:
                adapter.get_parameter(name).copy_(projection[value])
            if is_plus:
                adapter.resampler.load_state_dict(_resampler_weights(projection))
            for layers, weights in ((adapter.keys, keys), (adapter.values, values)):
                for layer, weight in zip(layers, weights, strict=True):
                    layer.weight.copy_(weight)  # type: ignore[operator, union-attr]
        return adapter

    def forward(
        self, image: Tensor, condition: Tensor | None = None, parts: int | None = None, scale: float | None = None
    ) -> dict[str, Any]:
        """``adapted``: keys and values of the picture for each cross-attention.

        Raises:
            PortError: the batch cannot be divided among the pictures.
        """
        embedding, nothing = self._seen(image)
        count = 1 if parts is None else int(parts)
        rows = len(embedding) * count if condition is None else condition.shape[0]
        if rows % count:
            raise PortError(f"{self.block_id}: a batch of {rows} in {count} parts; expected as many rows in each")
        seen = self._tokens(rows_for(embedding, rows // count, f"{self.block_id}.image"))
        unseen = [self._tokens(nothing).expand(rows // count, -1, -1)] * (count - 1)
        tokens = torch.cat([*unseen, seen])
        strength = self.scale if scale is None else float(scale)
        return {"adapted": Contribution(image=tuple((key(tokens), strength * value(tokens)) for key, value in self._layers()))}

    def _seen(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What the image encoder says of a picture, and what stands for none."""
        if self.resampler is None:
            embedding = self.encoder(image=image)["embedding"]
            return embedding, torch.zeros_like(embedding[:1])
        pixels = self.encoder.pixels(image)
        return self.encoder.hidden(pixels), self.encoder.hidden(torch.zeros_like(pixels[:1]))

    def _layers(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        return list(zip(self.keys, self.values, strict=True))

    def _tokens(self, embedding: Tensor) -> Tensor:
        """[B, N, D] of [B, P], or of [B, L, P] (Plus)."""
        if self.resampler is not None:
            return self.resampler(embedding)
        return self.norm(self.project(embedding).unflatten(1, (self.tokens, -1)))


def _resampler_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings of the resampler in a file of IP-Adapter Plus."""
    _, queries, hidden = weights["latents"].shape
    return {
        "embed_dims": weights["proj_in.weight"].shape[1],
        "output_dims": weights["proj_out.weight"].shape[0],
        "hidden_dims": hidden,
        "heads": weights["layers.0.0.to_q.weight"].shape[0] // 64,
        "num_queries": queries,
        "depth": 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers.")),
    }


def _resampler_weights(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights by diffusers' names, as its own converter has them."""
    loaders: Any = require("diffusers.loaders.unet", "diffusers")
    made = loaders.UNet2DConditionLoadersMixin()._convert_ip_adapter_image_proj_to_diffusers(dict(weights), low_cpu_mem_usage=False)
    return made.state_dict()


def _flat(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{outer}.{name}": value for outer, inner in state.items() for name, value in inner.items()}
