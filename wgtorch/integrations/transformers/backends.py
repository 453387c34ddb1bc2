"""Registers the local backends of models; imported when one of them is first asked for."""

from wgtorch.integrations.transformers.embedding import LocalEmbedder
from wgtorch.integrations.transformers.language import LocalLanguageModel
from wgtorch.integrations.transformers.speech import LocalTranscriber, LocalVoice
from wgtorch.integrations.transformers.static_embedding import StaticEmbedder
from wgtorch.integrations.transformers.vision import LocalVisionModel

__all__ = ["LocalEmbedder", "LocalLanguageModel", "LocalTranscriber", "LocalVisionModel", "LocalVoice", "StaticEmbedder"]
