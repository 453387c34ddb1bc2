"""OpenAI's protocol, which most servers speak."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any, ClassVar

from wgtorch.core.errors import require
from wgtorch.integrations.api.answers import Answer
from wgtorch.integrations.api.failures import broken_off, not_an_answer, refused
from wgtorch.integrations.api.media import data_url_of, is_picture, mask_png_of, png_of, wav_of
from wgtorch.integrations.api.providers.base import OnPiece, Provider, register_provider
from wgtorch.integrations.api.secrets import Secret
from wgtorch.integrations.models.requests import EmbedRequest, ImageRequest, Message, SpeakRequest, TextRequest, TranscribeRequest

_NO_KEY = "none"  # the SDK would look for OPENAI_API_KEY, and send it to whatever address it was given
_SEEDS = 2**31  # servers read a seed as 32 bits
_MAY_MISS = ("temperature", "top_p", "seed")  # options of sampling that some models refuse, as those that reason do
_UNSUPPORTED = ("unsupported_parameter", "unsupported_value")


@register_provider("openai")
class OpenAI(Provider):
    """OpenAI, and any server that speaks its protocol, at ``endpoint_url``."""

    endpoint = "https://api.openai.com/v1"
    key_variable: ClassVar[str | None] = "OPENAI_API_KEY"
    calls: ClassVar[tuple[str, ...]] = ("complete", "embed", "paint", "transcribe", "speak")

    def __init__(self, endpoint: str, key: Secret | None) -> None:
        super().__init__(endpoint, key)
        secret = _NO_KEY if key is None else key.reveal()
        self._client: Any = self.sdk.AsyncOpenAI(api_key=secret, base_url=endpoint, max_retries=0, timeout=None)
        types: Any = require("openai.types.chat", "api")
        self._whole, self._stream = types.ChatCompletion, self.sdk.AsyncStream[types.ChatCompletionChunk]
        self._unknown: set[str] = set()  # options of sampling that the model turned out not to have

    @property
    def sdk(self) -> ModuleType:
        return require("openai", "api")  # type: ignore[return-value]

    # --- text ---------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        await self._client.close()

    async def complete(self, model: str, request: TextRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        asked = {"model": model, "messages": [_message(message) for message in request.messages], **self._sampling(request), **options}
        while True:
            left_out = tuple(name for name in _MAY_MISS if name in self._unknown and name in asked)
            body = {name: value for name, value in asked.items() if name not in left_out}
            try:
                answer = await (self._at_once(body) if on_piece is None else self._streamed(body, on_piece))
                return replace(answer, left_out=left_out)
            except self.sdk.BadRequestError as error:
                if error.code not in _UNSUPPORTED or error.param not in _MAY_MISS or error.param not in body:
                    raise
                self._unknown.add(error.param)

    async def _at_once(self, asked: Mapping[str, Any]) -> Answer:
        # Not chat.completions.create, which compares every entry with its types, in a third of a call's time.
        answer = await self._client.post("/chat/completions", cast_to=self._whole, body=asked)
        choices = getattr(answer, "choices", None)
        if not choices or getattr(choices[0], "message", None) is None:
            raise not_an_answer("the answer holds no message")
        message, reason = choices[0].message, choices[0].finish_reason
        _check_allowed(message, reason)
        if not isinstance(message.content, str):
            raise not_an_answer("the answer's message holds no text")
        return Answer(message.content, reason or "stop", **_tokens(answer.usage))

    async def _streamed(self, asked: Mapping[str, Any], on_piece: OnPiece) -> Answer:
        pieces: list[str] = []
        reason, usage = None, None
        body = {**asked, "stream": True, "stream_options": {"include_usage": True}}
        stream = await self._client.post("/chat/completions", cast_to=self._whole, body=body, stream=True, stream_cls=self._stream)
        if not hasattr(stream, "__aiter__"):
            raise not_an_answer("the answer is no stream")
        async with stream:
            async for chunk in stream:
                usage = getattr(chunk, "usage", None) or usage
                choices = getattr(chunk, "choices", None)
                if not choices:
                    continue
                delta, reason = choices[0].delta, choices[0].finish_reason or reason
                _check_allowed(delta, reason)
                if delta is not None and delta.content:
                    pieces.append(delta.content)
                    on_piece(delta.content)
        if reason is None:
            raise broken_off()
        return Answer("".join(pieces), reason, tuple(pieces), **_tokens(usage))

    def _sampling(self, request: TextRequest) -> dict[str, Any]:
        longest = "max_completion_tokens" if self.is_home else "max_tokens"  # other servers know the older name alone
        chosen: dict[str, Any] = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            longest: request.max_tokens,
            "stop": list(request.stop) or None,
            "seed": None if request.seed is None else request.seed % _SEEDS,
        }
        if request.schema is not None:
            chosen["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(request.schema)}}
        return {name: value for name, value in chosen.items() if value is not None}

    # --- vectors, pictures, sound -------------------------------------------------------------------------------------

    async def embed(self, model: str, request: EmbedRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        shorter = {} if request.dimensions is None else {"dimensions": request.dimensions}
        answer = await self._client.embeddings.create(
            model=model, input=list(request.texts), encoding_format="float", **shorter, **_extra(options)
        )
        entries = getattr(answer, "data", None) or []
        rows = [entry.embedding for entry in sorted(entries, key=lambda entry: entry.index or 0)]
        if len(rows) != len(request.texts) or not all(isinstance(row, list) and row and len(row) == len(rows[0]) for row in rows):
            raise not_an_answer(f"the answer holds {len(rows)} vectors for {len(request.texts)} texts, or none of one length")
        flat = [float(value) for row in rows for value in row]
        return Answer(blob=struct.pack(f"<{len(flat)}f", *flat), shape=(len(rows), len(rows[0])), **_tokens(answer.usage))

    async def paint(self, model: str, request: ImageRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        asked: dict[str, Any] = {"model": model, "prompt": request.prompt, "n": 1}
        if request.width is not None and request.height is not None:
            asked["size"] = f"{request.width}x{request.height}"
        if not self.is_home or model.startswith("dall-e"):  # the others answer so anyway, and refuse the option
            asked["response_format"] = "b64_json"
        extra = _extra({**options, **request.options})
        if request.image is None:
            answer = await self._client.images.generate(**asked, **extra)
        else:
            asked["image"] = ("image.png", png_of(request.image), "image/png")
            if request.mask is not None:
                asked["mask"] = ("mask.png", mask_png_of(request.mask), "image/png")
            answer = await self._client.images.edit(**asked, **extra)
        encoded = next((entry.b64_json for entry in getattr(answer, "data", None) or [] if entry.b64_json), None)
        if encoded is None:
            raise not_an_answer("the answer holds no picture (an address of one is not followed)")
        content = base64.b64decode(encoded)
        if not is_picture(content):
            raise not_an_answer("the answer's picture is no PNG, JPEG or WebP")
        return Answer(blob=content, **_tokens(getattr(answer, "usage", None)))

    async def transcribe(self, model: str, request: TranscribeRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        hints = {name: value for name, value in (("language", request.language), ("prompt", request.prompt)) if value}
        recording = ("audio.wav", wav_of(request.audio, request.sampling_rate), "audio/wav")
        answer = await self._client.audio.transcriptions.create(model=model, file=recording, **hints, **_extra(options))
        text = getattr(answer, "text", None)
        if not isinstance(text, str):
            raise not_an_answer("the answer holds no text")
        return Answer(text, **_tokens(getattr(answer, "usage", None)))

    async def speak(self, model: str, request: SpeakRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        speed = {} if request.speed is None else {"speed": request.speed}
        answer = await self._client.audio.speech.create(
            model=model, voice=request.voice or "alloy", input=request.text, response_format="wav", **speed, **_extra(options)
        )
        if answer.content[:4] != b"RIFF":
            raise not_an_answer("the answer is no WAV file")
        return Answer(blob=answer.content)


def _message(message: Message) -> dict[str, Any]:
    if not message.images:
        return {"role": message.role, "content": message.text}
    shown: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url_of(image)}} for image in message.images]
    return {"role": message.role, "content": [*shown, {"type": "text", "text": message.text}]}


def _check_allowed(message: Any, reason: str | None) -> None:
    if getattr(message, "refusal", None):
        raise refused(f"the model refuses: {message.refusal}")
    if reason == "content_filter":
        raise refused("the answer was cut by the content filter")


def _tokens(usage: Any) -> dict[str, Any]:
    """Counts under either of the names that they have."""

    def count(*names: str) -> int | None:
        return next((value for name in names if isinstance(value := getattr(usage, name, None), int)), None)

    return {
        "prompt_tokens": count("prompt_tokens", "input_tokens"),
        "completion_tokens": count("completion_tokens", "output_tokens"),
    }


def _extra(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that the SDK may not know go into the body as they are."""
    return {"extra_body": dict(options)} if options else {}


@register_provider("qwen")
class Qwen(OpenAI):
    """Qwen's models at Alibaba's DashScope."""

    endpoint = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
    key_variable = "DASHSCOPE_API_KEY"
    calls = ("complete", "embed")


class _OnThisMachine(OpenAI):
    """A server that the user runs: it costs nothing, and needs no key unless it was told to."""

    key_variable = None
    needs_key = False
    is_free = True

    @property
    def is_home(self) -> bool:
        return False


@register_provider("ollama")
class Ollama(_OnThisMachine):
    """Ollama."""

    endpoint = "http://localhost:11434/v1"
    calls = ("complete", "embed")


@register_provider("vllm")
class VLLM(_OnThisMachine):
    """vLLM's server."""

    endpoint = "http://localhost:8000/v1"
    calls = ("complete", "embed", "transcribe")


@register_provider("llama_cpp")
class LlamaCpp(_OnThisMachine):
    """llama.cpp's server."""

    endpoint = "http://localhost:8080/v1"
    calls = ("complete", "embed")


@register_provider("transformers_serve")
class TransformersServe(_OnThisMachine):
    """``transformers serve``."""

    endpoint = "http://localhost:8000/v1"
    calls = ("complete", "transcribe")

    def _sampling(self, request: TextRequest) -> dict[str, Any]:
        chosen = super()._sampling(request)
        chosen.pop("response_format", None)  # it does not hold models to a schema; the prompt asks for it in words
        return chosen
