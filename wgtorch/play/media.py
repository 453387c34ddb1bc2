"""Loops and sounds of the episodes that hold a plan of their scene, as files for the page."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from wgtorch.play.episodes import images_of, scene_of
from wgtorch.storage.media import video_bytes, wav_bytes
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
    return video_bytes(video, form, fps=FRAMES_PER_SECOND)


def sound_of(state: State | None) -> bytes | None:
    """How the place of a state sounds, as a WAV; None where the state holds no plan."""
    from wgtorch.blocks.pixel_scenes.sound import RATE, PixelSceneSound

    scene = scene_of(state)
    if scene is None:
        return None
    return wav_bytes(PixelSceneSound()(scene=scene)["audio"][0], RATE)


def write_sound(audio: Tensor, path: str | os.PathLike[str], *, rate: int) -> Path:
    """Writes sound [C, samples] in [-1, 1] as a WAV file."""
    target = Path(path)
    target.write_bytes(wav_bytes(audio, rate))
    return target
