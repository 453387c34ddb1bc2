"""What a run tells the schedule of a flow: how large the picture is, and where to start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from wgtorch.blocks.diffusion.schedules.shift import dynamic_mu
from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.ports import HEIGHT, MU, NUM_FRAMES, NUM_STEPS, NUM_TOKENS, RUN_SIGMAS, STRENGTH, WIDTH


@register_block("diffusers/strength")
class Strength(Block):
    """The share of the steps to make from an image, as of SD3 and Flux: a part of a step is made whole.

    (Stable Diffusion 1, 2 and XL leave it out; there the schedule takes the strength itself.)

    Args:
        strength: where the input is not fed.
        num_steps: likewise.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"strength": STRENGTH, "num_steps": NUM_STEPS, "sigmas": RUN_SIGMAS}
    outputs: Mapping[str, Any] = {
        "strength": Port(dtype="number", description="the strength of so many whole steps, for a schedule that rounds down")
    }

    def __init__(self, *, strength: float, num_steps: int) -> None:
        super().__init__()
        self.strength = strength
        self.num_steps = num_steps

    def forward(self, strength: float | None = None, num_steps: int | None = None, sigmas: Sequence[float] | None = None) -> dict[str, Any]:
        """``strength`` that gives so many whole steps of a schedule that rounds down.

        Raises:
            PortError: the strength is out of its range.
        """
        share = self.strength if strength is None else float(strength)
        steps = len(sigmas) if sigmas is not None else self.num_steps if num_steps is None else int(num_steps)
        if not 0 < share <= 1:
            raise PortError(f"{self.block_id}.strength: got {share:g}; expected a number above 0, at most 1")
        made = steps - int(max(steps - min(steps * share, steps), 0))
        # The half keeps a schedule that multiplies by its steps again from rounding below what is meant.
        return {"strength": min((made + 0.5) / steps, 1.0)}


@register_block("diffusers/patch_count")
class PatchCount(Block):
    """How many patches a transformer sees of a picture.

    Args:
        factor: pixels to a latent's side.
        patch: latents to a patch's side.
        height: of the picture in pixels, where nothing is fed.
        width: likewise.
        frames: of a video's that are one of its latent's, after the first; of a picture left out.
        num_frames: of the video, where the input is not fed.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "num_frames": NUM_FRAMES,
        "image": Port(dtype="image", description="pictures [B, 3, H, W] that say the size, whatever the rest"),
        "latents": Port(dtype="latent", description="latents [B, C, h, w], or patches [B, N, D]: the size where no side is fed"),
        "height": HEIGHT,
        "width": WIDTH,
    }
    outputs: Mapping[str, Any] = {"tokens": NUM_TOKENS}

    def __init__(self, *, factor: int, patch: int, height: int, width: int, frames: int | None = None, num_frames: int = 1) -> None:
        super().__init__()
        self.factor = factor
        self.patch = patch
        self.height = height
        self.width = width
        self.frames = frames
        self.num_frames = num_frames

    def forward(
        self,
        image: Tensor | None = None,
        latents: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
    ) -> dict[str, Any]:
        """``tokens`` of a picture or a video."""
        count = 1
        if self.frames is not None:
            wanted_frames = self.num_frames if num_frames is None else int(num_frames)
            count = (wanted_frames - 1) // self.frames + 1
            if latents is not None and latents.dim() == 5 and num_frames is None:
                count = latents.shape[2]
        if image is None and latents is not None and height is None and width is None:
            if latents.dim() == 3:
                return {"tokens": latents.shape[1]}
            sides = [side // self.patch for side in latents.shape[-2:]]
        elif image is not None:
            sides = [side // self.factor // self.patch for side in image.shape[-2:]]
        else:
            wanted = (self.height if height is None else int(height), self.width if width is None else int(width))
            sides = [side // self.factor // self.patch for side in wanted]
        return {"tokens": count * sides[0] * sides[1]}


@register_block("diffusers/flow_settings")
class FlowSettings(Block):
    """What a scheduler of diffusers is told for a run: even sigmas, or a shift by the size of the picture.

    Args:
        num_steps: where the input is not fed.
        dynamic_shift: settings of :func:`dynamic_mu`; no shift by the size where left out.
        even: sigmas 1, 1 - 1/N, ..., 1/N, instead of the scheduler's own.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"num_steps": NUM_STEPS, "tokens": NUM_TOKENS, "mu": MU}
    outputs: Mapping[str, Any] = {"settings": Port(dtype="dict", description="arguments of the scheduler's set_timesteps: sigmas, mu")}

    def __init__(self, *, num_steps: int, dynamic_shift: dict[str, Any] | None = None, even: bool = False) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.dynamic = None if dynamic_shift is None else dict(dynamic_shift)
        self.even = even

    def forward(self, num_steps: int | None = None, tokens: int | None = None, mu: float | None = None) -> dict[str, Any]:
        """``settings`` for ``schedule/diffusers``.

        Raises:
            PortError: the shift is by the size, and neither ``tokens`` nor ``mu`` is fed.
        """
        steps = self.num_steps if num_steps is None else int(num_steps)
        settings: dict[str, Any] = {"sigmas": [1 - step / steps for step in range(steps)]} if self.even else {}
        if self.dynamic is None:
            return {"settings": settings}
        if mu is None and tokens is None:
            raise PortError(f"{self.block_id}: the shift is by the size of the picture; feed tokens, or mu")
        found = float(mu) if mu is not None else dynamic_mu(int(tokens or 0), **self.dynamic)
        return {"settings": {**settings, "mu": found}}
