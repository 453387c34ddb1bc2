"""What generated pictures have and drawings lack: softness, noise, other light. For models that shall read both."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def disturb(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Blurs, re-lights, stains and adds noise to pictures [B, 3, S, S] in [0, 1], each in a measure of its own.

    About a third of the pictures stay sharp and half of them free of noise. S is a multiple of 4.

    Args:
        image: the pictures; they stay as they are.
        generator: on the CPU, or on the pictures' device; the global one by default.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(image), 1, 1, 1, generator=generator, device=image.device)

    soft = image
    with torch.autocast(image.device.type, enabled=False):
        for _ in range(int(torch.randint(1, 4, (), generator=generator, device=image.device))):
            soft = softened(soft)
    image = torch.lerp(image, soft, uniform(-0.6, 1).clamp(min=0))
    image = image * uniform(0.9, 1.1) + uniform(-0.04, 0.04)
    coarse = torch.randn(len(image), 3, image.shape[-2] // 4, image.shape[-1] // 4, generator=generator, device=image.device)
    stains = F.interpolate(coarse, scale_factor=4, mode="bilinear")
    image = image + uniform(-0.06, 0.06).clamp(min=0) * stains
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    return (image + uniform(-0.1, 0.12).clamp(min=0) * noise).clamp(0, 1)


def softened(image: Tensor) -> Tensor:
    """Pictures [B, 3, H, W] under a 3x3 binomial blur."""
    taps = torch.tensor([1.0, 2.0, 1.0], device=image.device) / 4
    return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), (taps[:, None] * taps).expand(3, 1, 3, 3), groups=3)
