"""Pixel art of scenes by a plan: the painter, its codec and its describer.

``drawing`` draws training pictures by rules; nothing imports it when a world paints.
"""

from wgtorch.blocks.pixel_scenes.backbone import PixelSceneBackbone
from wgtorch.blocks.pixel_scenes.codec import PixelArtCodec, PixelArtEncoder
from wgtorch.blocks.pixel_scenes.conditioner import ScenePlanEncoder
from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.blocks.pixel_scenes.motion import PixelSceneMotion
from wgtorch.blocks.pixel_scenes.sound import PixelSceneSound
from wgtorch.blocks.pixel_scenes.words import discrepancies

__all__ = [
    "PixelArtCodec",
    "PixelArtEncoder",
    "PixelSceneBackbone",
    "PixelSceneDescriber",
    "PixelSceneMotion",
    "PixelSceneSound",
    "ScenePlanEncoder",
    "discrepancies",
]
