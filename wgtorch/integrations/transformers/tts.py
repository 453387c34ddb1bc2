"""Text spoken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.core.run.active_call import drawing_from
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.models.backends import register_backend
from wgtorch.integrations.models.requests import SpeakRequest, Spoken
from wgtorch.integrations.transformers.folder import dtype_of, model_folder, read_model, read_tokenizer


@register_backend("text_to_speech/local")
class LocalVoice:
    """A voice from a folder of transformers: VITS and others that make a waveform of tokens in one call.

    Args:
        checkpoint_ref: the folder: ``config.json``, safetensors and tokenizer.
        dtype: of the weights: ``float32``, ``bfloat16``, ...; PyTorch's default dtype where left out.
        device: where the weights go (``cuda:0``); a level's ``.to`` moves them as well.
    """

    is_async = False

    def __init__(self, *, checkpoint_ref: str, dtype: str | None = None, device: str | None = None) -> None:
        folder = model_folder(checkpoint_ref, "text_to_speech")
        self.tokenizer = read_tokenizer(folder, "text_to_speech")
        wanted = dtype_of(dtype, "text_to_speech")
        self.model: Any = read_model(folder, ("AutoModelForTextToWaveform",), dtype=wanted, device=device, where="text_to_speech")

    def speak(self, requests: Sequence[SpeakRequest]) -> list[Spoken]:
        """One recording for each text, in order, each from draws of its own."""
        return [self._one(request) for request in requests]

    def _one(self, request: SpeakRequest) -> Spoken:
        if request.speed not in (None, 1):
            raise ConfigError("text_to_speech.speed: a local voice speaks at its own speed; leave it out")
        ids = self.tokenizer(request.text, return_tensors="pt").input_ids.to(self.model.device)
        if ids.shape[-1] == 0:
            raise ConfigError(f"text_to_speech: the voice knows no letter of {request.text[:60]!r}; expected text in its language")
        rng = Rng() if request.seed is None else Rng(request.seed)
        with drawing_from(rng):  # these models take no generator
            waveform = self.model(input_ids=ids, **self._speaker(request)).waveform
        rate = int(self.model.config.sampling_rate)
        return Spoken(waveform.float().reshape(1, -1).clamp(-1, 1), rate, {"prompt_tokens": ids.shape[-1]})

    def _speaker(self, request: SpeakRequest) -> dict[str, Any]:
        """A voice is the number of a speaker, where the model knows several."""
        if request.voice is None:
            return {}
        count = int(getattr(self.model.config, "num_speakers", 1))
        if count < 2 or not request.voice.isdigit() or int(request.voice) >= count:
            expected = f"a number from 0 to {count - 1}" if count > 1 else "none, since it has one"
            raise ConfigError(f"text_to_speech.voice: found {request.voice!r}; this model expects {expected}")
        return {"speaker_id": int(request.voice)}
