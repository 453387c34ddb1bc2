"""What nodes of ComfyUI do beside the models: empty latents, noise of its own generator, masks, pictures from files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import CheckpointError, ConfigError, PortError, suggest
from wgtorch.core.pictures import eight_bits, upright
from wgtorch.core.port import Port
from wgtorch.ports import HEIGHT, LATENT, NOISE, PROGRESS, WIDTH
from wgtorch.roles import Noise

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
CROPS = ("disabled", "center")
CHANNELS = ("red", "green", "blue", "alpha")
SIDES = {"left": "on the left", "top": "above", "right": "on the right", "bottom": "below"}


@register_block("comfy/empty_latent")
class EmptyLatent(Block):
    """A latent of zeros.

    Args:
        channels: of the latents.
        factor: pixels to a latent's side.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"width": WIDTH, "height": HEIGHT, "batch_size": Port(dtype="number", description="pictures in a batch")}
    outputs: Mapping[str, Any] = {"latent": Port(dtype="latent", description="zeros [B, C, height / factor, width / factor]")}

    def __init__(self, *, channels: int, factor: int) -> None:
        super().__init__()
        self.channels = channels
        self.factor = factor

    def forward(self, width: int, height: int, batch_size: int) -> dict[str, Any]:
        """``latent`` [batch_size, C, height / factor, width / factor]; sides in pixels are rounded down."""
        return {"latent": torch.zeros(int(batch_size), self.channels, int(height) // self.factor, int(width) // self.factor)}


@register_block("comfy/latent")
class PassedLatent(Block):
    """A latent that a sampler is given, at one place for all that look at it."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {"latent": LATENT}
    outputs: Mapping[str, Any] = {"latent": LATENT}

    def forward(self, latent: Tensor) -> Tensor:
        """``latent`` as it is, [B, C, h, w]."""
        return latent


@register_block("comfy/start")
class ComfyStart(Noise):
    """The latent that a KSampler starts from: noise of a CPU generator of the seed, and the latent that came.

    Args:
        adds_noise: False starts from the latent alone.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "condition": Port(dtype="embedding", description="conditions [B, ...]: the dtype and device of the latents"),
        "image_latent": Port(dtype="latent", description="latents [B, C, h, w], with the noise x0 + sigma eps that another sampler left"),
        "progress": PROGRESS,
        "seed": Port(dtype="number", description="seed of the generator"),
        "mask": Port(
            dtype="tensor", description="1 where it is painted [B, 1, h, w]; elsewhere the latent is noised as in every later step"
        ),
    }
    outputs: Mapping[str, Any] = {"noise": NOISE}

    def __init__(self, *, adds_noise: bool = True) -> None:
        super().__init__()
        self.adds_noise = adds_noise

    def forward(self, condition: Tensor, image_latent: Tensor, progress: Any, seed: int, mask: Tensor | None = None) -> dict[str, Any]:
        """``latent`` to start from and the ``noise`` in it, [B, C, h, w]."""
        latent = image_latent.to(condition)
        noise = torch.zeros_like(latent)
        if self.adds_noise:
            generator = torch.Generator().manual_seed(int(seed))
            noise = torch.randn(latent.shape, generator=generator).to(latent)
        alpha, sigma = progress.grid.levels[0]
        start = alpha * latent + progress.grid.start_scale * noise
        if mask is not None:
            start = mask * start + (1 - mask) * (alpha * latent + sigma * noise)
        return {"latent": start, "noise": noise}


@register_block("comfy/resize")
class Resize(Block):
    """Pictures or latents at another size, as ``common_upscale`` of ComfyUI makes it.

    Args:
        method: ``nearest-exact``, ``bilinear``, ``area``, ``bicubic``, or of pictures ``lanczos``.
        crop: ``center`` cuts to the wanted shape first.
        factor: pixels to a side of what is resized: 1 of pictures.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "value": Port(description="pictures or latents [B, C, h, w]"),
        "width": Port(dtype="number", description="width in pixels; 0 follows from the shape"),
        "height": Port(dtype="number", description="height in pixels; 0 follows from the shape"),
        "scale_by": Port(dtype="number", description="factor of both sides, in place of width and height"),
    }
    outputs: Mapping[str, Any] = {"value": Port(description="the same at the new size [B, C, h', w']")}

    def __init__(self, *, method: str, crop: str = "disabled", factor: int = 1) -> None:
        super().__init__()
        for name, given, known in (("method", method, METHODS), ("crop", crop, CROPS)):
            if given not in known:
                raise ConfigError(f"Resize.{name}: found {given!r}; {suggest(given, known)}")
        self.method = method
        self.crop = crop
        self.factor = factor

    def forward(self, value: Tensor, width: int = 0, height: int = 0, scale_by: float | None = None) -> dict[str, Any]:
        """``value`` [B, C, h, w] of one like it."""
        rows, columns = value.shape[2:]
        if scale_by is not None:
            sides = (round(rows * scale_by), round(columns * scale_by))
        elif not width and not height:
            return {"value": value}
        else:
            least = 1 if self.factor == 1 else 8 * self.factor
            high, wide = int(height), int(width)
            high, wide = (high or round(rows * wide / columns)), (wide or round(columns * high / rows))
            sides = (max(least, high) // self.factor, max(least, wide) // self.factor)
        if self.crop == "center":
            old, new = columns / rows, sides[1] / sides[0]
            x = round((columns - columns * (new / old)) / 2) if old > new else 0
            y = round((rows - rows * (old / new)) / 2) if old < new else 0
            value = value[:, :, y : rows - y, x : columns - x]
        if self.method == "lanczos":
            return {"value": _lanczos(value, sides)}
        return {"value": F.interpolate(value, size=sides, mode=self.method)}


def _lanczos(images: Tensor, sides: tuple[int, int]) -> Tensor:
    """By Pillow, in 8 bits."""
    import numpy as np
    from PIL import Image

    found = []
    for image in (images.movedim(1, -1) * 255).clamp(0, 255).byte().cpu().numpy():
        resized = Image.fromarray(image).resize((sides[1], sides[0]), Image.Resampling.LANCZOS)
        found.append(torch.from_numpy(np.asarray(resized).astype(np.float32) / 255).movedim(-1, 0))
    return torch.stack(found).to(images)


@register_block("comfy/load_image")
class LoadImage(Block):
    """A picture of a file, or one that is fed.

    Args:
        file: of a picture; where it is not there, one has to be fed.
        channel: that is the mask, as LoadImageMask takes it: ``red``, ``green``, ``blue`` or ``alpha``; transparency where left out.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="pictures [B, 3 or 4, H, W], or one [3 or 4, H, W], in [0, 1], in place of the file's"),
        "mask": Port(dtype="image", description="mask [B, 1, H, W], [1, H, W] or [H, W], in place of the alpha channel"),
    }
    outputs: Mapping[str, Any] = {
        "image": Port(dtype="image", shape=("B", 3, "H", "W"), description="the picture, in [0, 1]"),
        "mask": Port(dtype="tensor", shape=("B", "H", "W"), description="1 where the picture is transparent, or the channel"),
    }

    def __init__(self, *, file: str, channel: str | None = None) -> None:
        super().__init__()
        if channel is not None and channel not in CHANNELS:
            raise ConfigError(f"LoadImage.channel: found {channel!r}; {suggest(channel, CHANNELS)}")
        self.file = file
        self.channel = channel

    def forward(self, image: Tensor | None = None, mask: Tensor | None = None) -> dict[str, Any]:
        """``image`` [B, 3, H, W] in [0, 1], and the ``mask`` [B, H, W]: 1 where the picture is transparent, 0 without an alpha channel;
        or what the channel says.

        Raises:
            CheckpointError: there is no such file, and nothing is fed.
        """
        if image is None and mask is not None and self.channel is not None:  # the mask is all that is wanted of the file
            image = mask.reshape(-1, 1, *mask.shape[-2:]).expand(-1, 3, -1, -1)
        batch = self._read() if image is None else image if image.dim() == 4 else image.unsqueeze(0)
        if mask is None and self.channel in (None, "alpha"):
            nothing = (64, 64) if self.channel is None else batch.shape[2:]
            mask = 1 - batch[:, 3] if batch.shape[1] == 4 else batch.new_zeros(batch.shape[0], *nothing)
        elif mask is None:
            mask = batch[:, CHANNELS.index(str(self.channel))]
        return {"image": batch[:, :3], "mask": mask.reshape(-1, *mask.shape[-2:])}

    def _read(self) -> Tensor:
        import numpy as np
        from PIL import Image

        if not Path(self.file).is_file():
            raise CheckpointError(f"{self.block_id}: {self.file!r} is no file; give the folder of pictures (images=), or feed the image")
        with Image.open(self.file) as opened:
            turned = eight_bits(upright(opened))
            has_alpha = "A" in turned.getbands() or "transparency" in turned.info
            plain = turned.convert("RGBA" if has_alpha else "RGB")
        return torch.from_numpy(np.asarray(plain).astype(np.float32) / 255).movedim(-1, 0)[None]


@register_block("comfy/pad_for_outpaint")
class PadForOutpaint(Block):
    """A picture on a larger grey one, and the mask of what is to be painted around it, as ComfyUI's ImagePadForOutpaint makes them.

    The mask reaches into the picture by ``feathering`` pixels at sides that grow, where it is ((feathering - d) / feathering)^2 at d pixels
    from the side; nowhere in a picture that is not larger than twice that.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="pictures [B, 3, h, w] in [0, 1]"),
        **{side: Port(dtype="number", description=f"pixels that are added {where}") for side, where in SIDES.items()},
        "feathering": Port(dtype="number", description="pixels of the picture over which the mask fades out"),
    }
    outputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="pictures [B, 3, H, W] in [0, 1], grey where they were not"),
        "mask": Port(dtype="tensor", shape=(1, "H", "W"), description="1 where it is to be painted"),
    }

    def forward(self, image: Tensor, left: int, top: int, right: int, bottom: int, feathering: int) -> dict[str, Any]:
        """``image`` [B, 3, H, W] and ``mask`` [1, H, W] of pictures [B, 3, h, w].

        Raises:
            PortError: a number is below 0.
        """
        left, top, right, bottom, feathering = (int(value) for value in (left, top, right, bottom, feathering))
        if min(left, top, right, bottom, feathering) < 0:
            raise PortError(f"{self.block_id}: found {[left, top, right, bottom, feathering]}; expected pixels, at least 0")
        rows, columns = image.shape[2:]
        around = (left, right, top, bottom)
        inside = image.new_zeros(rows, columns)
        if 0 < 2 * feathering < min(rows, columns):
            y, x = torch.arange(rows, device=image.device)[:, None], torch.arange(columns, device=image.device)
            far = torch.full((1, 1), max(rows, columns), device=image.device)
            sides = ((top, y), (bottom, rows - y), (left, x), (right, columns - x))
            nearest = torch.stack([(value if grows else far).expand(rows, columns) for grows, value in sides]).amin(0)
            inside = ((feathering - nearest).clamp(min=0) / feathering).square().to(image)
        return {"image": F.pad(image, around, value=0.5), "mask": F.pad(inside[None], around, value=1.0)}


@register_block("comfy/fit")
class FitPixels(Block):
    """Pictures cut in the middle to multiples of a latent's side, and grey under a mask, as ComfyUI encodes them.

    Args:
        factor: pixels to a latent's side.
        grow_mask_by: of the mask that is given on, in pixels.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="pictures [B, 3, h, w] in [0, 1]"),
        "mask": Port(dtype="tensor", shape=("B", "h", "w"), description="1 where the picture is to be painted"),
    }
    outputs: Mapping[str, Any] = {
        "image": Port(dtype="image", description="pictures [B, 3, H, W] in [0, 1], grey under the mask"),
        "mask": Port(dtype="tensor", optional=True, description="the grown mask [B, 1, H, W]; only where one came in"),
    }

    def __init__(self, *, factor: int, grow_mask_by: int = 0) -> None:
        super().__init__()
        self.factor = factor
        self.grow_mask_by = grow_mask_by

    def forward(self, image: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
        """``image`` [B, 3, H, W], and of a mask the grown one [B, 1, H, W]."""
        sides = [side // self.factor * self.factor for side in image.shape[2:]]
        if min(sides) < self.factor:
            raise PortError(f"{self.block_id}.image: got {list(image.shape)}; expected at least {self.factor} pixels to a side")
        y, x = ((side - cut_side) % self.factor // 2 for side, cut_side in zip(image.shape[2:], sides, strict=True))
        cut = image[:, :, y : y + sides[0], x : x + sides[1]]
        if mask is None:
            return {"image": cut}
        whole = F.interpolate(mask[:, None], size=tuple(image.shape[2:]), mode="bilinear")[:, :, y : y + sides[0], x : x + sides[1]]
        grown = whole
        if self.grow_mask_by:
            kernel = torch.ones(1, 1, self.grow_mask_by, self.grow_mask_by).to(whole)
            grown = F.conv2d(whole.round(), kernel, padding=-(-(self.grow_mask_by - 1) // 2)).clamp(0, 1)
        unpainted = 1 - whole.round()
        return {"image": (cut - 0.5) * unpainted + 0.5, "mask": grown[:, :, : sides[0], : sides[1]].round()}


@register_block("comfy/latent_mask")
class ComfyLatentMask(Block):
    """A mask at the size of a latent."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "mask": Port(dtype="tensor", description="mask [B, H, W] or [B, 1, H, W]"),
        "latent": Port(dtype="latent", shape=("B", "C", "h", "w"), description="latents, which say the size"),
    }
    outputs: Mapping[str, Any] = {
        "latent_mask": Port(dtype="tensor", shape=("B", 1, "h", "w"), description="the mask at the latents' size")
    }

    def forward(self, mask: Tensor, latent: Tensor) -> dict[str, Any]:
        """``latent_mask`` [B, 1, h, w] of ``mask`` [B, H, W] or [B, 1, H, W] and a ``latent`` [B, C, h, w]."""
        rows = mask.reshape(-1, 1, *mask.shape[-2:])
        return {"latent_mask": F.interpolate(rows, size=tuple(latent.shape[2:]), mode="bilinear").to(latent)}
