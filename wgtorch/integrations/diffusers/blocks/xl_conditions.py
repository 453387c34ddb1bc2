"""What Stable Diffusion XL is told beside the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.ports import GUIDANCE_SCALE, TEXT


@register_block("diffusers/second_prompt")
class SecondPrompt(Block):
    """The text for the second encoder: one of its own, else that of the first."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"text": TEXT, "second": Port(dtype="text", description="the text for the second encoder; empty for none")}
    outputs: Mapping[str, Any] = {"text": Port(dtype="text", description="the second text where there is one, else the first")}

    def forward(self, text: str | list[str], second: str | list[str] | None = None) -> dict[str, Any]:
        """``text``: ``second`` where it is given and not empty."""
        return {"text": second or text}


TOLD_SIZES = ("original_size", "crops_coords_top_left", "target_size")
"""What the model is told of a picture, two numbers each."""


@register_block("diffusers/picture_sizes")
class PictureSizes(Block):
    """The sizes that the model is told (Podell et al. 2023, https://arxiv.org/abs/2307.01952, section 2.2), for a whole batch.

    Args:
        factor: pixels to a latent's side.
        batched: one batch for the condition with and without the prompt, as of :class:`GuidedCondition`.
        on_pictures: as in the pipelines that start from pictures. There each negative size that is left out is the other, and
            the negative crop is the other one, whatever is said, but for a refiner; in text to image the negative sizes count
            where both are given.
        apart: what is not wanted is told sizes of its own, each the latent's where it says none, as in ComfyUI.
        scored: in place of ``target_size`` stands how pleasing the picture is to be, as the refiner was trained.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "latent": Port(dtype="latent", description="the first latents [B, C, h, w]: the size where none is given"),
        "scale": GUIDANCE_SCALE,
        "original_size": Port(description="(height, width) in pixels before the picture was scaled, for all, or [B, 2]"),
        "crops_coords_top_left": Port(description="(top, left) of the crop, for all, or [B, 2]; (0, 0) where left out"),
        "target_size": Port(description="(height, width) wanted, for all, or [B, 2]"),
        "negative_original_size": Port(description="original_size of the negative prompts"),
        "negative_crops_coords_top_left": Port(description="crops_coords_top_left of the negative prompts"),
        "negative_target_size": Port(description="target_size of the negative prompts"),
        "aesthetic_score": Port(dtype="number", description="how pleasing the picture is to be, about 1 to 10, for a refiner"),
        "negative_aesthetic_score": Port(dtype="number", description="aesthetic_score of the negative prompts"),
    }
    outputs: Mapping[str, Any] = {
        "time_ids": Port(dtype="tensor", description="sizes and crops, or score [B or 2 B, 6 or 5], negative ones first"),
        "negative_time_ids": Port(dtype="tensor", optional=True, description="the negative ones, where kept apart [B, 6 or 5]"),
    }

    def __init__(self, *, factor: int, batched: bool = True, on_pictures: bool = False, scored: bool = False, apart: bool = False) -> None:
        super().__init__()
        self.factor = factor
        self.batched = batched
        self.on_pictures = on_pictures
        self.scored = scored
        self.apart = apart

    def forward(
        self,
        latent: Tensor,
        scale: float | Tensor,
        original_size: Sequence[int] | None = None,
        crops_coords_top_left: Sequence[int] | None = None,
        target_size: Sequence[int] | None = None,
        negative_original_size: Sequence[int] | None = None,
        negative_crops_coords_top_left: Sequence[int] | None = None,
        negative_target_size: Sequence[int] | None = None,
        aesthetic_score: float = 6.0,
        negative_aesthetic_score: float = 2.5,
    ) -> dict[str, Any]:
        """``time_ids`` [2 B, 6], the negative first, or [B, 6] without guidance; of a refiner [2 B, 5] or [B, 5]."""
        size = (latent.shape[2] * self.factor, latent.shape[3] * self.factor)
        wanted: tuple[Any, ...] = (_given(original_size, size), _given(crops_coords_top_left, (0, 0)), _given(target_size, size))
        crops = _given(negative_crops_coords_top_left, (0, 0))
        other = wanted
        if self.on_pictures:
            corner = crops if self.scored else wanted[1]
            other = (_given(negative_original_size, wanted[0]), corner, _given(negative_target_size, wanted[2]))
        elif self.apart:
            other = (_given(negative_original_size, size), crops, _given(negative_target_size, size))
        elif negative_original_size is not None and negative_target_size is not None:
            other = (negative_original_size, crops, negative_target_size)
        if self.scored:
            wanted, other = (*wanted[:2], (aesthetic_score,)), (*other[:2], (negative_aesthetic_score,))
        guided = float(scale.max() if isinstance(scale, Tensor) else scale) > 1
        ids = self._rows(wanted, latent)
        negative = self._rows(other, latent) if guided else ids
        if not self.batched:
            return {"time_ids": ids, "negative_time_ids": negative}
        return {"time_ids": torch.cat([negative, ids]) if guided else ids}

    def _rows(self, sizes: Sequence[Any], latent: Tensor) -> Tensor:
        """[B, 2 or 1 of each]: of one size for all, or of one for each picture."""
        rows = []
        for pair in sizes:
            row = torch.as_tensor(pair, dtype=latent.dtype, device=latent.device)
            row = row.reshape(1, -1) if row.dim() < 2 else row
            if row.shape[0] not in (1, latent.shape[0]):
                raise PortError(
                    f"{self.block_id}: got {row.shape[0]} sizes for {latent.shape[0]} pictures; expected (height, width), or one for each"
                )
            rows.append(row.expand(latent.shape[0], -1))
        return torch.cat(rows, dim=1)


def _given(value: Any, otherwise: Any) -> Any:
    return value if value is not None and len(value) else otherwise
