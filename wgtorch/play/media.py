"""Loops and sounds of the episodes that hold a plan of their scene, as files for the page."""

from __future__ import annotations

from wgtorch.play.episodes import images_of, scene_of
from wgtorch.storage.media import sounds_in, video_bytes, wav_bytes, writes_mp4
from wgtorch.world_runtime.state import State

FORMS = {"gif": "image/gif", "webp": "image/webp", "mp4": "video/mp4"}
"""Forms of a loop, and their media types; ``mp4`` where its encoder is installed."""


def motion_of(state: State | None, index: int, form: str) -> bytes | None:
    """A picture of a state as a loop; None where there is no such picture, no plan, or nothing that moves."""
    from wgtorch.blocks.pixel_scenes.motion import FRAMES_PER_SECOND, PixelSceneMotion, motions_of

    scene, images = scene_of(state), images_of(state)
    if scene is None or not 0 <= index < len(images) or form not in FORMS or (form == "mp4" and not writes_mp4()):
        return None
    image = images[index]
    if image.shape[-1] % 64 or image.shape[-1] != image.shape[-2] or not motions_of(scene):
        return None
    video = PixelSceneMotion()(image=image.unsqueeze(0), scene=scene)["video"][0]
    return video_bytes(video, form, fps=FRAMES_PER_SECOND)


def sound_of(state: State | None) -> bytes | None:
    """How a state sounds, as a WAV: its own sound, or that of the plan of its scene; None where it holds neither."""
    from wgtorch.blocks.pixel_scenes.sound import RATE, PixelSceneSound

    if state is None:
        return None
    for slot in state.schema:
        for audio, rate in sounds_in(state[slot]):
            return wav_bytes(audio, rate)
    scene = scene_of(state)
    return None if scene is None else wav_bytes(PixelSceneSound()(scene=scene)["audio"][0], RATE)
