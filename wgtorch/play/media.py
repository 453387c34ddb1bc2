"""Loops and sounds of the episodes that hold a plan of their scene, as files for the page."""

from __future__ import annotations

import io
import os
import wave
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgtorch.play.episodes import images_of, scene_of
from wgtorch.world_runtime.state import State

FORMS = ("gif", "webp")


def motion_of(state: State | None, index: int, form: str) -> bytes | None:
    """A picture of a state as a loop; None where there is no such picture, no plan, or nothing that moves."""
    from wgtorch.blocks.pixel_scenes.motion import FRAMES_PER_SECOND, PixelSceneMotion, motions_of

    scene, images = scene_of(state), images_of(state)
    if scene is None or not 0 <= index < len(images) or form not in FORMS:
        return None
    image = images[index]
    if image.shape[-1] % 64 or image.shape[-1] != image.shape[-2]:
        return None
    if not motions_of(scene):
        return None
    video = PixelSceneMotion()(image=image.unsqueeze(0), scene=scene)["video"][0]
    return encoded_video(video, form, fps=FRAMES_PER_SECOND)


def encoded_video(video: Tensor, form: str, *, fps: float) -> bytes:
    """Frames [T, 3, H, W] in [0, 1] as a GIF or WebP that goes round for ever. Frames of up to 256 colours keep them exactly."""
    from PIL import Image

    array = (video.float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
    colors, indices = torch.unique(_packed(array), return_inverse=True)
    held = io.BytesIO()
    options: dict[str, Any] = {"save_all": True, "duration": round(1000 / fps), "loop": 0}
    if form == "gif" and len(colors) <= 256:
        palette = torch.stack([colors >> 16, colors >> 8 & 255, colors & 255], dim=-1).flatten().tolist()
        frames = [Image.fromarray(frame) for frame in indices.to(torch.uint8).numpy()]
        for frame in frames:
            frame.putpalette(palette)
    else:
        frames = [Image.fromarray(frame) for frame in array.numpy()]
    quality = {"lossless": True, "quality": 0, "method": 0} if form == "webp" else {"optimize": False}
    frames[0].save(held, form.upper(), append_images=frames[1:], **options, **quality)
    return held.getvalue()


def _packed(array: Tensor) -> Tensor:
    """Colours [..., 3] as one number each."""
    wide = array.int()
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def sound_of(state: State | None) -> bytes | None:
    """How the place of a state sounds, as a WAV; None where the state holds no plan."""
    from wgtorch.blocks.pixel_scenes.sound import RATE, PixelSceneSound

    scene = scene_of(state)
    if scene is None:
        return None
    return encoded_sound(PixelSceneSound()(scene=scene)["audio"][0], rate=RATE)


def encoded_sound(audio: Tensor, *, rate: int) -> bytes:
    """Sound [C, samples] in [-1, 1] as a WAV of 16 bits."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(audio.shape[0])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((audio.float().clamp(-1, 1) * 32767).round().to(torch.int16).T.contiguous().cpu().numpy().tobytes())
    return held.getvalue()


def write_sound(audio: Tensor, path: str | os.PathLike[str], *, rate: int) -> Path:
    """Writes sound [C, samples] in [-1, 1] as a WAV file."""
    target = Path(path)
    target.write_bytes(encoded_sound(audio, rate=rate))
    return target
