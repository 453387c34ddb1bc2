"""Speech to text."""

from __future__ import annotations

import time
from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.integrations.models.model_block import ModelBlock, unlisted
from wgtorch.integrations.models.requests import TranscribeRequest
from wgtorch.ports import USAGE


@register_block("speech_to_text")
class SpeechToText(ModelBlock):
    """Writes down what is said in ``audio`` float [B, C, samples] (or [C, samples], or a list of them) in [-1, 1].

    One recording gives a text, several give a list.

    Args:
        sampling_rate: samples per second of the audio, where the input does not say.
        language: that is spoken, as ISO 639-1 (``en``, ``ru``); the model finds out where left out.
        prompt: words that may come up, for models that take them.

    Raises:
        ApiError: the API gave no answer; its subclasses say why.
    """

    kind = "speech_to_text"
    inputs = {
        "audio": Port(dtype="audio", description="recordings [B, C, samples], one [C, samples], or a list of them, in [-1, 1]"),
        "sampling_rate": Port(dtype="number", description="samples per second of the audio"),
    }
    outputs = {"text": Port(dtype="text", description="what is said: one text for a recording, a list for several"), "usage": USAGE}

    def __init__(
        self,
        *,
        backend: str | None = None,
        provider: str | None = None,
        model_id: str | None = None,
        endpoint_url: str | None = None,
        checkpoint_ref: str | None = None,
        sampling_rate: int = 16000,
        language: str | None = None,
        prompt: str | None = None,
        **source: Any,
    ) -> None:
        super().__init__()
        if sampling_rate < 1:
            raise ValueError(f"{type(self).__name__}.sampling_rate: found {sampling_rate}, expected at least 1")
        self.sampling_rate, self.language, self.prompt = sampling_rate, language, prompt
        self._take(backend, provider, model_id=model_id, endpoint_url=endpoint_url, checkpoint_ref=checkpoint_ref, **source)
        self.batched = not self.is_async

    def forward(self, audio: Tensor | list[Tensor], sampling_rate: int | None = None) -> dict[str, Any]:
        """One text for a recording, or a list of them for several."""
        recordings = _recordings_of(audio, self.block_id)
        listed = isinstance(audio, (list, tuple)) or len(recordings) != 1
        rate = int(sampling_rate or self.sampling_rate)
        started = time.perf_counter()
        answers = self.backend.transcribe([TranscribeRequest(entry, rate, self.language, self.prompt) for entry in recordings])
        elapsed = time.perf_counter() - started
        texts, usage = [answer.text for answer in answers], [{"latency": elapsed, **answer.usage} for answer in answers]
        return {"text": unlisted(texts, listed), "usage": unlisted(usage, listed)}

    def dry(self, **inputs: Any) -> dict[str, Any]:
        """Stand-ins for the outputs, for dry runs."""
        return {"text": "", "usage": {}}


def _recordings_of(audio: Any, where: str) -> list[Tensor]:
    if isinstance(audio, (list, tuple)):
        return [entry for item in audio for entry in _recordings_of(item, where)]
    if audio.dim() == 2:
        audio = audio.unsqueeze(0)
    if audio.dim() != 3 or not audio.is_floating_point():
        raise PortError(f"{where}.audio: found a {audio.dtype} tensor {list(audio.shape)}, expected float [B, C, samples] or [C, samples]")
    return list(audio)


@register_block("speech_to_text/api")
class ApiSpeechToText(SpeechToText):
    """Speech to text behind an API."""


@register_block("speech_to_text/local")
class LocalSpeechToText(SpeechToText):
    """Speech to text whose weights are here."""

    default_backend = "local"
