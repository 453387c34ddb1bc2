"""Text to speech."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.models.errors import ApiAnswerError
from wgtorch.integrations.models.model_block import ModelBlock, rows_of, seed_of
from wgtorch.integrations.models.requests import SpeakRequest
from wgtorch.ports import TEXT, USAGE


@register_block("text_to_speech")
class TextToSpeech(ModelBlock):
    """Speaks texts: ``audio`` float [B, 1, samples] in [-1, 1] at ``sampling_rate`` samples per second.

    Recordings of one call are padded with zeros at the end; ``lengths`` [B] says how many samples each has.

    Args:
        voice: one that the model has.
        speed: 1 is the voice's own.

    Raises:
        ApiError: the API gave no answer; its subclasses say why.
    """

    kind = "text_to_speech"
    inputs = {"text": TEXT}
    outputs = {
        "audio": Port(dtype="audio", shape=("B", 1, "samples"), description="recordings in [-1, 1], padded with zeros at the end"),
        "sampling_rate": Port(dtype="number", description="samples per second of the audio"),
        "lengths": Port(dtype="tensor", optional=True, shape=("B",), description="samples of each recording without the padding"),
        "usage": USAGE,
    }

    def __init__(
        self,
        *,
        backend: str | None = None,
        provider: str | None = None,
        model_id: str | None = None,
        endpoint_url: str | None = None,
        checkpoint_ref: str | None = None,
        voice: str | None = None,
        speed: float | None = None,
        **source: Any,
    ) -> None:
        super().__init__()
        if speed is not None and speed <= 0:
            raise ValueError(f"{type(self).__name__}.speed: found {speed}, expected more than 0")
        self.voice, self.speed = voice, speed
        self._take(backend, provider, model_id=model_id, endpoint_url=endpoint_url, checkpoint_ref=checkpoint_ref, **source)

    def forward(self, text: str | list[str], rng: Rng | None = None) -> dict[str, Any]:
        """One recording for each text."""
        texts, listed = rows_of(text)
        requests = [SpeakRequest(entry, self.voice, self.speed, seed_of(rng, index)) for index, entry in enumerate(texts)]
        spoken = self.backend.speak(requests)
        rates = {entry.sampling_rate for entry in spoken}
        if len(rates) > 1:
            raise ApiAnswerError(f"{self.block_id}: the recordings have different sampling rates {sorted(rates)}; speak them one by one")
        lengths = torch.tensor([entry.audio.shape[-1] for entry in spoken])
        longest = int(lengths.max()) if spoken else 0
        audio = [F.pad(entry.audio, (0, longest - entry.audio.shape[-1])) for entry in spoken]
        usage = [dict(entry.usage) for entry in spoken]
        return {
            "audio": torch.stack(audio) if audio else torch.empty(0, 1, 0),
            "sampling_rate": rates.pop() if rates else 0,
            "lengths": lengths,
            "usage": usage if listed else usage[0],
        }

    def dry(self, **inputs: Any) -> dict[str, Any]:
        """Stand-ins for the outputs, for dry runs."""
        count = len(rows_of(inputs.get("text", ""))[0])
        return {"audio": torch.zeros(count, 1, 1), "sampling_rate": 16000, "lengths": torch.ones(count, dtype=torch.long), "usage": {}}


@register_block("text_to_speech/api")
class ApiTextToSpeech(TextToSpeech):
    """Text to speech behind an API."""


@register_block("text_to_speech/local")
class LocalTextToSpeech(TextToSpeech):
    """Text to speech whose weights are here."""

    default_backend = "local"
