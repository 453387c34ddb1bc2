"""What a provider is: a small class that speaks one protocol, and its name in configs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from wgtorch.core.errors import ConfigError, require
from wgtorch.core.registry import Registry
from wgtorch.integrations.api.answers import Answer
from wgtorch.integrations.api.capabilities import Capabilities, fitted, known_of, learnt, remember
from wgtorch.integrations.api.failures import is_about_the_request, refusal_of
from wgtorch.integrations.api.secrets import Secret, host_of
from wgtorch.integrations.models.requests import EmbedRequest, ImageRequest, SpeakRequest, TextRequest, TranscribeRequest

OnPiece = Callable[[str], None]
KIND_OF_CALL = {
    "complete": "llm and vlm",
    "embed": "embedder",
    "paint": "image_generator",
    "transcribe": "speech_to_text",
    "speak": "text_to_speech",
}
"""Calls, and the blocks that make them."""
NO_KEY = "none"  # without one an SDK would look for a variable of its own, and send that to whatever address it was given
_MOST_FORMS = 12
_ONLY_FORM = ("stream", "stream_options", "encoding_format", "response_format")  # that an answer is the same without


class Provider(ABC):
    """One protocol, at one address, with one key. Making one connects to nothing.

    Each call is one try: it raises what the SDK raises, or :class:`~wgtorch.integrations.api.failures.BadAnswer`; limits,
    retries, budgets and cassettes are the client's, for every provider alike.

    Args:
        endpoint: the address, without a slash at the end.
        key: None where the endpoint needs none.
    """

    name: ClassVar[str] = ""
    endpoint: ClassVar[str] = ""
    key_variable: ClassVar[str | None] = None
    """The variable of the environment that holds the key."""
    needs_key: ClassVar[bool] = True
    calls: ClassVar[tuple[str, ...]] = ("complete",)
    """Which of :data:`KIND_OF_CALL` there are."""
    is_free: ClassVar[bool] = False

    def __init__(self, endpoint: str, key: Secret | None) -> None:
        self.address = endpoint
        self.key = key

    @property
    def is_home(self) -> bool:
        """True at the provider's own address."""
        return host_of(self.address) == host_of(self.endpoint)

    @property
    @abstractmethod
    def sdk(self) -> ModuleType:
        """The SDK's module, whose exceptions calls raise."""

    @abstractmethod
    async def close(self) -> None:
        """Ends the connections."""

    def pass_gateway(self, headers: Mapping[str, Secret], query: Mapping[str, str]) -> None:
        """Adds headers and a query to every request.

        Raises:
            ConfigError: this provider cannot.
        """
        raise ConfigError(f"{self.name}: takes neither headers_env nor query")

    async def adapted(
        self,
        call: str,
        model: str,
        body: Callable[[Capabilities], Mapping[str, Any]],
        send: Callable[[Mapping[str, Any]], Awaitable[Answer]],
        *,
        has_schema: bool = False,
    ) -> Answer:
        """One answer to a request in the form that the server takes, learnt from what it refuses and remembered.

        Args:
            call: the kind of call.
            model: the model's name.
            body: makes the request in the form that capabilities ask for.
            send: sends it once.
            has_schema: a value that follows a schema is asked for.
        """
        known = trial = known_of(self.address, model, call)
        for _ in range(_MOST_FORMS):
            sent, left_out = fitted(trial, body(trial))
            try:
                answer = await send(sent)
            except self.sdk.APIStatusError as error:
                more = None
                if is_about_the_request(error):
                    more = learnt(trial, refusal_of(error), sent, has_schema=has_schema)
                if more is None:
                    raise
                trial = more
                continue
            if trial != known:
                remember(self.address, model, call, trial)
            return replace(answer, left_out=tuple(name for name in left_out if name not in _ONLY_FORM))
        raise AssertionError("each form is tried once")

    async def complete(self, model: str, request: TextRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        """A text; ``on_piece`` is told of it as it comes, and of an empty piece where something else came."""
        raise NotImplementedError

    async def embed(self, model: str, request: EmbedRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        """Vectors, as float32 in ``blob``."""
        raise NotImplementedError

    async def paint(self, model: str, request: ImageRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        """A picture's file in ``blob``."""
        raise NotImplementedError

    async def transcribe(self, model: str, request: TranscribeRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        """A text."""
        raise NotImplementedError

    async def speak(self, model: str, request: SpeakRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        """A WAV file in ``blob``."""
        raise NotImplementedError


class SdkProvider(Provider):
    """A provider whose protocol an official client speaks, without tries and limits of its own."""

    package: ClassVar[str]
    """The SDK's module."""
    client_class: ClassVar[str]

    def __init__(self, endpoint: str, key: Secret | None) -> None:
        super().__init__(endpoint, key)
        secret = NO_KEY if key is None else key.reveal()
        self._client: Any = getattr(self.sdk, self.client_class)(api_key=secret, base_url=endpoint, max_retries=0, timeout=None)

    @property
    def sdk(self) -> ModuleType:
        return require(self.package, "api")  # type: ignore[return-value]

    def pass_gateway(self, headers: Mapping[str, Secret], query: Mapping[str, str]) -> None:
        revealed = {name: value.reveal() for name, value in headers.items()}
        self._client = self._client.with_options(default_headers=revealed, default_query=dict(query))

    async def close(self) -> None:
        await self._client.close()


T = TypeVar("T", bound=type[Provider])
Providers: Registry[type[Provider]] = Registry("provider", group="wgtorch.providers")
"""Provider classes by the name that configs use."""


def register_provider(name: str) -> Callable[[T], T]:
    """Class decorator: makes a provider known to configs.

    Example:
        >>> @register_provider("groq")
        ... class Groq(OpenAI):
        ...     endpoint = "https://api.groq.com/openai/v1"
        ...     key_variable = "GROQ_API_KEY"
    """

    def decorate(provider_class: T) -> T:
        provider_class.name = name
        Providers.register(name, provider_class)
        return provider_class

    return decorate


def cut_at(answer: Answer, stop: Sequence[str]) -> Answer:
    """An answer as far as the first of the texts that end it, for servers that know of none."""
    ends = [at for text in stop if (at := answer.text.find(text)) >= 0]
    if not ends:
        return answer
    return replace(answer, text=answer.text[: min(ends)], finish_reason="stop", pieces=())
