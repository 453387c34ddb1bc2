"""Blocks of models that a provider may run, or this machine: the same ports, one line of config apart."""

from wgtorch.integrations.models import embedder, image_generator, llm, speech_to_text, text_to_speech, vlm

__all__ = ["embedder", "image_generator", "llm", "speech_to_text", "text_to_speech", "vlm"]
