"""Small models of one small world: painted scenes, their captions, and their descriptions.

``scene`` is the vocabulary, ``drawing`` draws training pictures (needs Pillow and numpy; never imported from here).
"""

from wgtorch.blocks.scenes.backbone import SceneBackbone
from wgtorch.blocks.scenes.describer import SceneDescriber
from wgtorch.blocks.scenes.rest import SceneRest
from wgtorch.blocks.scenes.teller import WordModel
from wgtorch.blocks.scenes.text import SceneCompletion, SceneTextEncoder, SceneTokenizer
from wgtorch.blocks.scenes.upscaler import SceneUpscaler

__all__ = [
    "SceneBackbone",
    "SceneCompletion",
    "SceneDescriber",
    "SceneRest",
    "SceneTextEncoder",
    "SceneTokenizer",
    "SceneUpscaler",
    "WordModel",
]
