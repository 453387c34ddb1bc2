"""Backends: where a model runs. A block asks its backend and knows no more of it than its kind says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.registry import Registry

T = TypeVar("T", bound=type)
OnText = Callable[[int, str | None], None]
"""Told the number of a request and the next piece of its answer - None when the answer begins anew, and what came so far is
void. What it raises stops the answers."""
KINDS = ("llm", "vlm", "embedder", "image_generator", "speech_to_text", "text_to_speech")
"""What a block asks its backend, all it knows of it beside ``is_async``, true when asking is waiting, and ``model``, the weights where they
are here, else None. Requests and answers are those of :mod:`~wgtorch.integrations.models.requests`, as many answers as requests, in order.

- ``llm``, ``vlm``: ``complete(requests: Sequence[TextRequest], on_text: OnText | None = None) -> list[Completion]``; where the weights are
  here also ``score(requests, answers: Sequence[str])``: log-probability [B] in nats of an answer to each, and its tokens [B]; with
  gradients.
- ``embedder``: ``embed(request: EmbedRequest) -> Embedded``, one vector for each text.
- ``image_generator``: ``paint(requests: Sequence[ImageRequest]) -> list[Picture]``.
- ``speech_to_text``: ``transcribe(requests: Sequence[TranscribeRequest]) -> list[Completion]``.
- ``text_to_speech``: ``speak(requests: Sequence[SpeakRequest]) -> list[Spoken]``.
"""
Backends: Registry[type[Any]] = Registry("backend of models", group="wgtorch.backends")
"""Backend classes by ``kind/backend``: ``llm/api``, ``vlm/local``. A class is built with the block's source as keywords."""


def register_backend(*names: str) -> Callable[[T], T]:
    """Class decorator: makes a backend known under ``kind/backend``.

    Example:
        >>> @register_backend("llm/mine")
        ... class Mine:
        ...     is_async, model = False, None
        ...     def __init__(self, *, checkpoint_ref: str | None = None): ...
        ...     def complete(self, requests, on_text=None): ...
    """

    def decorate(backend_class: T) -> T:
        for name in names:
            Backends.register(name, backend_class)
        return backend_class

    return decorate


def build_backend(kind: str, backend: str, source: Mapping[str, Any]) -> Any:
    """The backend of a block.

    Args:
        kind: the block's kind, one of :data:`KINDS`.
        backend: ``api``, ``local`` or another registered one.
        source: what the block's config says beside the options of a call; what is None is left out.

    Raises:
        UnknownNameError: there is no such backend for this kind.
        ConfigError: the backend knows no such entry, or needs one that is missing.
    """
    backend_class = Backends.get(f"{kind}/{backend}")
    given = {name: value for name, value in source.items() if value is not None}
    parameters = [entry for entry in inspect.signature(backend_class).parameters.values() if entry.kind is entry.KEYWORD_ONLY]
    known = [entry.name for entry in parameters]
    if unknown := [name for name in given if name not in known]:
        rest = f" Known: {', '.join(known)}."
        raise ConfigError(f"{kind}: backend {backend!r} takes no {unknown[0]!r}; {suggest(unknown[0], known)}{rest}")
    if missing := [entry.name for entry in parameters if entry.default is entry.empty and entry.name not in given]:
        raise ConfigError(f"{kind}: backend {backend!r} needs {missing[0]!r} in the config")
    return backend_class(**given)
