"""Speech written down, and text spoken."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import ConfigError, require
from wgtorch.core.run.active_call import drawing_from
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.models.backends import register_backend
from wgtorch.integrations.models.requests import Completion, SpeakRequest, Spoken, TranscribeRequest
from wgtorch.integrations.transformers.folder import dtype_of, model_folder, read_model, read_processor, read_tokenizer

_ONE_AT_A_TIME = threading.Lock()  # a processor sets padding on its tokenizer for the time of a call


@register_backend("speech_to_text/local")
class LocalTranscriber:
    """A speech model from a folder of transformers: Whisper and others that write text while they listen.

    Args:
        checkpoint_ref: the folder: ``config.json``, safetensors and processor.
        dtype: of the weights: ``float32``, ``bfloat16``, ...; PyTorch's default dtype where left out.
        device: where the weights go (``cuda:0``); a level's ``.to`` moves them as well.
        max_tokens: longest text of one recording, in tokens; the model's own limit where left out.
    """

    is_async = False

    def __init__(self, *, checkpoint_ref: str, dtype: str | None = None, device: str | None = None, max_tokens: int | None = None) -> None:
        folder = model_folder(checkpoint_ref, "speech_to_text")
        self.processor = read_processor(folder, "speech_to_text")
        self.max_tokens = max_tokens
        wanted = dtype_of(dtype, "speech_to_text")
        self.model: Any = read_model(folder, ("AutoModelForSpeechSeq2Seq",), dtype=wanted, device=device, where="speech_to_text")

    def transcribe(self, requests: Sequence[TranscribeRequest]) -> list[Completion]:
        """One text for each recording, in order; channels are mixed, other sampling rates resampled."""
        return [self._one(request) for request in requests]

    def _one(self, request: TranscribeRequest) -> Completion:
        wanted = int(self.processor.feature_extractor.sampling_rate)
        sound = resampled(request.audio.detach().float().mean(0).cpu(), request.sampling_rate, wanted)
        long = sound.shape[0] > getattr(self.processor.feature_extractor, "n_samples", float("inf"))
        more: dict[str, Any] = {"truncation": False, "padding": "longest", "return_attention_mask": True} if long else {}
        with _ONE_AT_A_TIME:
            inputs = self.processor(sound.numpy(), sampling_rate=wanted, return_tensors="pt", **more)
        inputs = {
            name: value.to(self.model.device, self.model.dtype) if value.is_floating_point() else value.to(self.model.device)
            for name, value in inputs.items()
        }
        if long:
            inputs["return_timestamps"] = True  # how Whisper goes on from one half minute to the next
        with torch.no_grad():
            ids = self.model.generate(**inputs, **self._options(request))
        text = self.processor.batch_decode(ids, skip_special_tokens=True)[0].strip()
        return Completion(text, "stop", {"completion_tokens": int(ids.shape[-1]), "seconds": sound.shape[0] / wanted})

    def _options(self, request: TranscribeRequest) -> dict[str, Any]:
        options: dict[str, Any] = {} if self.max_tokens is None else {"max_new_tokens": self.max_tokens}
        if request.language is not None:
            if not getattr(self.model.generation_config, "lang_to_id", None):
                raise ConfigError(f"speech_to_text.language: {request.language!r} is given, but this model cannot be told a language")
            options["language"] = request.language
        if request.prompt is not None:
            if not hasattr(self.processor, "get_prompt_ids"):
                raise ConfigError("speech_to_text.prompt is given, but this model takes none")
            options["prompt_ids"] = self.processor.get_prompt_ids(request.prompt, return_tensors="pt").to(self.model.device)
        return options


def resampled(sound: Tensor, rate: int, wanted: int) -> Tensor:
    """Sound [samples] at another sampling rate."""
    if rate == wanted:
        return sound
    signal: Any = require("scipy.signal", "transformers")
    return torch.from_numpy(signal.resample_poly(sound.numpy(), wanted, rate).astype("float32"))


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
