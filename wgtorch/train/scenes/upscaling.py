"""Training of the default upscaler: drawn scenes, made small and imperfect, against themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.blocks.scenes.upscaler import FACTOR
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.registries import register_objective
from wgtorch.train.scenes.disturbing import softened


@register_objective("upscaling")
class Upscaling(Objective):
    """Mean absolute difference between a picture and what the target makes of it when it was made small.

    In training the small pictures are softened and given noise, each in a measure of its own, since what is to be enlarged is
    generated and not drawn.

    Args:
        blur: largest share of a 3x3 binomial blur, in [0, 1].
        noise: largest standard deviation of the noise, of a range of 1.
    """

    needs = ("image",)

    def __init__(self, *, blur: float = 0.6, noise: float = 0.02) -> None:
        super().__init__()
        if not 0 <= blur <= 1 or noise < 0:
            raise ConfigError(f"upscaling: blur {blur} and noise {noise}; expected a share in [0, 1] and a deviation from 0")
        self.blur, self.noise = blur, noise

    def check(self, target: Block) -> None:
        for name, spec in (("takes", target.get_input_spec()), ("gives", target.get_output_spec())):
            if "image" not in spec:
                raise ConfigError(
                    f"upscaling: {target.block_id} {name} no 'image' but {list(spec)}; expected a picture in and a larger one out"
                )

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        large = batch["image"]
        small = made_small(large)
        given = self._imperfect(small, step) if step.training else small
        found = self._enlarged(target, given)
        smooth = F.interpolate(small, scale_factor=FACTOR, mode="bicubic", align_corners=False).clamp(0, 1)
        return {"loss": F.l1_loss(found, large), "psnr": psnr(found, large), "bicubic_psnr": psnr(smooth, large)}

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        large = batch["image"][:4]
        small = made_small(large)
        smooth = F.interpolate(small, scale_factor=FACTOR, mode="bicubic", align_corners=False).clamp(0, 1)
        return {"pictures": torch.cat([smooth, self._enlarged(target, small), large])}

    def _enlarged(self, target: Block, small: Tensor) -> Tensor:
        found = target(image=small)
        return found["image"] if isinstance(found, Mapping) else found

    def _imperfect(self, small: Tensor, step: Step) -> Tensor:
        rows = (len(small), 1, 1, 1)
        share, deviation = self.blur * step.uniform(*rows), self.noise * step.uniform(*rows)
        return (torch.lerp(small, softened(small), share) + deviation * step.normal(small)).clamp(0, 1)


def made_small(large: Tensor) -> Tensor:
    """[B, 3, H, W] at half its sides, each pixel the mean of four."""
    return F.avg_pool2d(large, FACTOR)


def psnr(found: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, of pictures in [0, 1]."""
    return -10 * torch.log10(F.mse_loss(found, wanted).clamp(min=1e-10))
