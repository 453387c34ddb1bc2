"""Two backbones for one way: one where there is much noise, one where there is little (Wan 2.2).

::

    repeat --latent--> stage --high--> backbone -----pred--> pred --> split
                             --low---> backbone_2 ---pred----^
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.ports import GUIDANCE_SCALE, LATENT, PRED, TIMESTEP, VIDEO_LATENT


@register_block("diffusers/noise_stage")
class NoiseStage(Block):
    """Which backbone a step is for, and how strongly it is guided.

    Args:
        boundary: timestep from which on the first is called; the second below it.
    """

    uses_global_rng = False
    routes = ("high", "low")
    inputs: Mapping[str, Any] = {
        "latent": LATENT,
        "timestep": TIMESTEP,
        "scale": GUIDANCE_SCALE,
        "guidance_scale_2": Port(dtype="number", description="guidance scale of the second backbone; the same where left out"),
    }
    outputs: Mapping[str, Any] = {
        "high": Port(dtype="latent", description="the latents, from the boundary up"),
        "low": Port(dtype="latent", description="the latents, below the boundary"),
        "scale": GUIDANCE_SCALE,
    }

    def __init__(self, *, boundary: float) -> None:
        super().__init__()
        self.boundary = boundary

    def forward(
        self, latent: Tensor, timestep: float | Tensor, scale: float | Tensor, guidance_scale_2: float | None = None
    ) -> dict[str, Any]:
        """``latent`` as ``high`` or as ``low``, and the ``scale`` of guidance."""
        if float(torch.as_tensor(timestep).flatten()[0]) >= self.boundary:
            return {"high": latent, "scale": scale}
        return {"low": latent, "scale": scale if guidance_scale_2 is None else guidance_scale_2}


@register_block("diffusers/either")
class Either(Block):
    """The prediction of the backbone that was called."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "pred": Port(dtype="latent", aggregation="first", description="predictions, of which one backbone gives one")
    }
    outputs: Mapping[str, Any] = {"pred": PRED}

    def forward(self, pred: Tensor) -> Tensor:
        """``pred`` as it is."""
        return pred


@register_block("diffusers/first_frame")
class FirstFrame(Block):
    """A video whose first frame is known: it stands in the latent without noise, at timestep 0 (Wan 2.2 of one transformer).

    Args:
        patch: latents to a side of what the backbone takes as one.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "latent": VIDEO_LATENT,
        "known": Port(dtype="latent", description="latent of the first frame [n, C, 1, h, w]; n divides B"),
        "timestep": TIMESTEP,
    }
    outputs: Mapping[str, Any] = {
        "latent": VIDEO_LATENT,
        "timestep": Port(dtype="number", optional=True, description="of each patch [1, T h w / patch^2]; 0 in the first frame"),
    }

    def __init__(self, *, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, latent: Tensor, known: Tensor, timestep: float | Tensor | None = None) -> dict[str, Any]:
        """``latent`` [B, C, T, h, w], and the ``timestep`` of each patch [1, T h w / patch^2]."""
        rows, _, frames, height, width = latent.shape
        first = known.repeat(rows // known.shape[0], 1, 1, 1, 1).to(latent)
        found: dict[str, Any] = {"latent": torch.cat([first, latent[:, :, 1:]], dim=2)}
        if timestep is not None:
            moment = torch.as_tensor(timestep, device=latent.device, dtype=latent.dtype).flatten()[:1]
            per_frame = moment.repeat(frames)
            per_frame[0] = 0
            found["timestep"] = per_frame.repeat_interleave((height // self.patch) * (width // self.patch))[None]
        return found
