"""What a provider is: a small class that speaks one protocol, and its name in configs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar, TypeVar

from wgtorch.core.registry import Registry
from wgtorch.integrations.api.answers import Answer
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

    async def complete(self, model: str, request: TextRequest, options: Mapping[str, Any], on_piece: OnPiece | None) -> Answer:
        """A text; ``on_piece`` is told of it as it comes."""
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
