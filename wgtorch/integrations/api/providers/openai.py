"""OpenAI's protocol, which most servers speak."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from wgtorch.blocks.prompt.sections import without_turns
from wgtorch.core.errors import require
from wgtorch.integrations.api.answers import Answer
from wgtorch.integrations.api.capabilities import Capabilities
from wgtorch.integrations.api.failures import broken_off, not_an_answer
from wgtorch.integrations.api.media import fetched, is_picture, mask_png_of
from wgtorch.integrations.api.providers.base import OnPiece, SdkProvider, cut_at, register_provider
from wgtorch.integrations.api.providers.chat_messages import (
    calls_tools,
    check_allowed,
    check_ended,
    check_prompt,
    choice_of,
    message_in,
    message_of,
    reason_of,
    said_in,
    tokens_of,
    value_in,
)
from wgtorch.integrations.api.providers.chat_stream import StreamedChat, StreamWatch
from wgtorch.integrations.api.secrets import Secret
from wgtorch.integrations.models.requests import EmbedRequest, ImageRequest, SpeakRequest, TextRequest, TranscribeRequest
from wgtorch.storage.media import png_bytes, wav_bytes

_SEEDS = 2**31  # servers read a seed as 32 bits


@register_provider("openai")
class OpenAI(SdkProvider):
    """OpenAI, and any server that speaks its protocol, at ``endpoint_url``."""

    endpoint = "https://api.openai.com/v1"
    key_variable: ClassVar[str | None] = "OPENAI_API_KEY"
    package, client_class = "openai", "AsyncOpenAI"
    calls: ClassVar[tuple[str, ...]] = ("complete", "embed", "paint", "transcribe", "speak")

    def __init__(self, endpoint: str, key: Secret | None) -> None:
        super().__init__(endpoint, key)
        types: Any = require("openai.types.chat", "api")
        self._whole, self._stream = types.ChatCompletion, self.sdk.AsyncStream[types.ChatCompletionChunk]

    # --- text ---------------------------------------------------------------------------------------------------------

    async def complete(self, model: str, request: TextRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        has_schema = request.schema is not None

        async def send(body: Mapping[str, Any]) -> Answer:
            if on_piece is not None and "stream" in body:
                return await self._streamed_chat(body, on_piece, has_schema=has_schema)
            # Not chat.completions.create, which compares every entry with its types, in a third of a call's time.
            answer = _answer_of(await self._client.post("/chat/completions", cast_to=self._whole, body=body), has_schema=has_schema)
            if on_piece is not None:
                on_piece(answer.text)
            return answer

        def body(known: Capabilities) -> dict[str, Any]:
            messages = [message_of(message) for message in request.messages]
            chosen = {"model": model, "messages": messages, **self._sampling(request), **self._form(request, known), **options}
            return chosen if on_piece is None else {**chosen, "stream": True, "stream_options": {"include_usage": True}}

        answer = await self.adapted("complete", model, body, send, has_schema=has_schema)
        return cut_at(answer, request.stop) if "stop" in answer.left_out else answer

    async def _streamed_chat(self, asked: Mapping[str, Any], on_piece: OnPiece, *, has_schema: bool) -> Answer:
        stream = await self._client.post("/chat/completions", cast_to=self._whole, body=asked, stream=True, stream_cls=self._stream)
        if not hasattr(stream, "__aiter__"):
            raise not_an_answer("the answer is no stream", stream)
        watch, heard = StreamWatch(stream, lambda: on_piece("")), StreamedChat()
        try:
            async with stream:
                async for chunk in stream:
                    watch.is_stream = True
                    if text := heard.add(chunk):
                        on_piece(text)
        except ValueError as error:  # an event that is no JSON
            if watch.has_ended and not watch.saw_done:
                raise broken_off() from None
            if str(getattr(error, "doc", "")).strip() != "[DONE]":  # which the SDK knows without spaces alone
                raise
        if not watch.is_stream and not watch.saw_done:  # a server that does not know ``stream``
            try:
                found = json.loads(watch.body)
            except ValueError:
                raise watch.broken_off() from None
            answer = _answer_of(self._whole.construct(**found), has_schema=has_schema)
            on_piece(answer.text)
            return answer
        return heard.answer(is_whole=watch.saw_done)

    def _sampling(self, request: TextRequest) -> dict[str, Any]:
        longest = "max_completion_tokens" if self.is_home else "max_tokens"  # other servers know the older name alone
        chosen: dict[str, Any] = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            longest: request.max_tokens,
            "stop": list(request.stop) or None,
            "seed": None if request.seed is None else request.seed % _SEEDS,
        }
        return {name: value for name, value in chosen.items() if value is not None}

    def _form(self, request: TextRequest, known: Capabilities) -> dict[str, Any]:
        """How a value that follows a schema is asked for, beside the words that ask for it in every case."""
        if request.schema is None or known.schema == "words":
            return {}
        if known.schema == "json_object":
            return {"response_format": {"type": "json_object"}}
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(request.schema)}}}

    # --- vectors, pictures, sound -------------------------------------------------------------------------------------

    async def embed(self, model: str, request: EmbedRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        asked: dict[str, Any] = {"model": model, "input": list(request.texts), "encoding_format": "float"}
        if request.dimensions is not None:
            asked["dimensions"] = request.dimensions

        async def send(body: Mapping[str, Any]) -> Answer:
            return self._vectors(await self._client.embeddings.create(**body, **_extra(options)), len(request.texts))

        return await self.adapted("embed", model, lambda known: asked, send)

    def _vectors(self, answer: Any, count: int) -> Answer:
        entries = getattr(answer, "data", None) or []
        rows = [_vector(entry.embedding) for entry in sorted(entries, key=lambda entry: entry.index or 0)]
        if len(rows) != count or not all(row.dim() == 1 and len(row) == len(rows[0]) > 0 for row in rows):
            raise not_an_answer(f"the answer holds {len(rows)} vectors for {count} texts, or none of one length", answer)
        if not (held := torch.stack(rows)).isfinite().all():
            raise not_an_answer("the answer's vectors hold numbers that are not finite")
        return Answer(blob=held.numpy().astype("<f4").tobytes(), shape=tuple(held.shape), **tokens_of(answer.usage))

    async def paint(self, model: str, request: ImageRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        asked: dict[str, Any] = {"model": model, "prompt": request.prompt, "n": 1}
        if request.width is not None and request.height is not None:
            asked["size"] = f"{request.width}x{request.height}"
        if not self.is_home or model.startswith("dall-e"):  # the others answer so anyway, and refuse the option
            asked["response_format"] = "b64_json"
        images, call = self._client.images, "generate" if request.image is None else "edit"
        if request.image is not None:
            asked["image"] = ("image.png", png_bytes(request.image), "image/png")
            if request.mask is not None:
                asked["mask"] = ("mask.png", mask_png_of(request.mask), "image/png")

        async def send(body: Mapping[str, Any]) -> Answer:
            return await self._picture(await getattr(images, call)(**body, **_extra({**options, **request.options})))

        return await self.adapted("paint", model, lambda known: asked, send)

    async def _picture(self, answer: Any) -> Answer:
        """The first picture of an answer: in it, or at an address that it gives."""
        content: bytes | None = None
        for entry in getattr(answer, "data", None) or []:
            if encoded := getattr(entry, "b64_json", None):
                content = base64.b64decode(encoded.partition(",")[2] if encoded.startswith("data:") else encoded)
            elif url := getattr(entry, "url", None):
                content = await fetched(url, self._client._client, near=self.address)
            if content is not None:
                break
        if content is None:
            raise not_an_answer("the answer holds no picture, nor the address of one", answer)
        if not is_picture(content):
            raise not_an_answer("the answer's picture is no PNG, JPEG or WebP")
        return Answer(blob=content, **tokens_of(getattr(answer, "usage", None)))

    async def transcribe(self, model: str, request: TranscribeRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        hints = {name: value for name, value in (("language", request.language), ("prompt", request.prompt)) if value}
        recording = ("audio.wav", wav_bytes(request.audio, request.sampling_rate), "audio/wav")
        answer = await self._client.audio.transcriptions.create(model=model, file=recording, **hints, **_extra(options))
        text = getattr(answer, "text", None)
        if not isinstance(text, str):
            raise not_an_answer("the answer holds no text", answer)
        return Answer(text, **tokens_of(getattr(answer, "usage", None)))

    async def speak(self, model: str, request: SpeakRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        speed = {} if request.speed is None else {"speed": request.speed}
        answer = await self._client.audio.speech.create(
            model=model, voice=request.voice or "alloy", input=request.text, response_format="wav", **speed, **_extra(options)
        )
        if answer.content[:4] != b"RIFF":
            raise not_an_answer("the answer is no WAV file")
        return Answer(blob=answer.content)


def _vector(given: Any) -> Tensor:
    """A vector as numbers, or as the base64 that some servers send whatever they are asked for."""
    if isinstance(given, str):
        return torch.frombuffer(bytearray(base64.b64decode(given, validate=True)), dtype=torch.float32)
    return torch.tensor(given, dtype=torch.float32)


def _answer_of(answer: Any, *, has_schema: bool = False) -> Answer:
    """What a chat completion says; where a value is asked for and a function is called with it, its arguments."""
    choice = choice_of(getattr(answer, "choices", None))
    if getattr(answer, "error", None):
        raise not_an_answer("the server failed before the answer was whole", {"error": answer.error})
    if choice is None:
        check_prompt(answer)
        raise not_an_answer("the answer holds no message", answer)
    reason = getattr(choice, "finish_reason", None)
    check_ended(choice, reason)
    message = message_in(choice)
    if message is None:
        raise not_an_answer("the answer holds no message", answer)
    check_allowed(message, reason)
    text, thoughts = said_in(message)
    if not text and has_schema and (value := value_in(message)):
        return Answer(value, thoughts=thoughts, **tokens_of(getattr(answer, "usage", None)))
    if not text:
        if not isinstance(getattr(message, "content", None), (str, list, type(None))):
            raise not_an_answer("the answer's message holds no text", answer)
        reason = "tools" if calls_tools(message) else reason
    return Answer(text, reason_of(reason), thoughts=thoughts, **tokens_of(getattr(answer, "usage", None)))


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
    """A server that the user runs: it costs nothing, and needs no key unless it was told to.

    It puts texts into the model's own template and reads special tokens in them as such, so what begins and ends turns is sent as words.
    """

    key_variable = None
    needs_key = False
    is_free = True

    async def complete(self, model: str, request: TextRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        messages = tuple(replace(message, text=without_turns(message.text)) for message in request.messages)
        return await super().complete(model, replace(request, messages=messages), options, on_piece)

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

    def _form(self, request: TextRequest, known: Capabilities) -> dict[str, Any]:
        return {}  # it does not hold models to a schema; the prompt asks for it in words
