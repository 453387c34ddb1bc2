"""OpenAI's protocol, which most servers speak."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from wgtorch.core.errors import require
from wgtorch.integrations.api.answers import Answer
from wgtorch.integrations.api.capabilities import Capabilities
from wgtorch.integrations.api.failures import broken_off, not_an_answer, refused
from wgtorch.integrations.api.media import fetched, is_picture, mask_png_of
from wgtorch.integrations.api.providers.base import OnPiece, Provider, cut_at, register_provider
from wgtorch.integrations.api.providers.chat_messages import StreamWatch, check_allowed, message_of, reason_of, said_in, tokens_of
from wgtorch.integrations.api.secrets import Secret
from wgtorch.integrations.models.requests import EmbedRequest, ImageRequest, SpeakRequest, TextRequest, TranscribeRequest
from wgtorch.storage.media import png_bytes, wav_bytes

_NO_KEY = "none"  # the SDK would look for OPENAI_API_KEY, and send it to whatever address it was given
_SEEDS = 2**31  # servers read a seed as 32 bits


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

    @property
    def sdk(self) -> ModuleType:
        return require("openai", "api")  # type: ignore[return-value]

    def pass_gateway(self, headers: Mapping[str, Secret], query: Mapping[str, str]) -> None:
        revealed = {name: value.reveal() for name, value in headers.items()}
        self._client = self._client.with_options(default_headers=revealed, default_query=dict(query))

    async def close(self) -> None:
        await self._client.close()

    # --- text ---------------------------------------------------------------------------------------------------------

    async def complete(self, model: str, request: TextRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        has_schema = request.schema is not None

        async def send(body: Mapping[str, Any]) -> Answer:
            if on_piece is not None and "stream" in body:
                return await self._streamed(body, on_piece)
            # Not chat.completions.create, which compares every entry with its types, in a third of a call's time.
            answer = _answer_of(await self._client.post("/chat/completions", cast_to=self._whole, body=body))
            if on_piece is not None:
                on_piece(answer.text)
            return answer

        def body(known: Capabilities) -> dict[str, Any]:
            messages = [message_of(message) for message in request.messages]
            chosen = {"model": model, "messages": messages, **self._sampling(request), **self._form(request, known), **options}
            return chosen if on_piece is None else {**chosen, "stream": True, "stream_options": {"include_usage": True}}

        answer = await self.adapted("complete", model, body, send, has_schema=has_schema)
        return cut_at(answer, request.stop) if "stop" in answer.left_out else answer

    async def _streamed(self, asked: Mapping[str, Any], on_piece: OnPiece) -> Answer:
        pieces: list[str] = []
        thoughts: list[str] = []
        refusals: list[str] = []
        reason, usage, told = None, None, ""
        stream = await self._client.post("/chat/completions", cast_to=self._whole, body=asked, stream=True, stream_cls=self._stream)
        if not hasattr(stream, "__aiter__"):
            raise not_an_answer("the answer is no stream", stream)
        if stream.response.headers.get("content-type", "").startswith("application/json"):  # a server that does not know ``stream``
            answer = _answer_of(self._whole.construct(**json.loads(await stream.response.aread())))
            on_piece(answer.text)
            return answer
        watch = StreamWatch(stream, lambda: on_piece(""))
        async with stream:
            async for chunk in stream:
                usage = getattr(chunk, "usage", None) or usage
                choices = getattr(chunk, "choices", None)
                if not choices:
                    told = next((said for name in ("message", "detail") if isinstance(said := getattr(chunk, name, None), str)), told)
                    continue
                delta, reason = choices[0].delta, choices[0].finish_reason or reason
                refusals.append(getattr(delta, "refusal", None) or "")
                check_allowed(None, reason)
                text, thought = said_in(delta)
                if thought:
                    thoughts.append(thought)
                if text:
                    pieces.append(text)
                    on_piece(text)
        if any(refusals):
            raise refused(f"the model refuses: {''.join(refusals)}")
        if reason is None and not watch.saw_done:
            raise broken_off(told) if told else broken_off()
        return Answer("".join(pieces), reason_of(reason), tuple(pieces), thoughts="".join(thoughts), **tokens_of(usage))

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
        rows = [entry.embedding for entry in sorted(entries, key=lambda entry: entry.index or 0)]
        if len(rows) != count or not all(isinstance(row, list) and row and len(row) == len(rows[0]) for row in rows):
            raise not_an_answer(f"the answer holds {len(rows)} vectors for {count} texts, or none of one length", answer)
        flat = [float(value) for row in rows for value in row]
        return Answer(blob=struct.pack(f"<{len(flat)}f", *flat), shape=(len(rows), len(rows[0])), **tokens_of(answer.usage))

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


def _answer_of(answer: Any) -> Answer:
    """What a chat completion says."""
    choices = getattr(answer, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise not_an_answer("the answer holds no message", answer)
    message, reason = choices[0].message, choices[0].finish_reason
    if not isinstance(getattr(message, "content", 0), (str, list, type(None))):
        raise not_an_answer("the answer's message holds no text")
    check_allowed(message, reason)
    text, thoughts = said_in(message)
    return Answer(text, reason_of(reason), thoughts=thoughts, **tokens_of(answer.usage))


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

    def _form(self, request: TextRequest, known: Capabilities) -> dict[str, Any]:
        return {}  # it does not hold models to a schema; the prompt asks for it in words
