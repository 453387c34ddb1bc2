"""What blocks ask of a backend and what they are given, as plain data that knows no provider and no library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Args:
        role: ``system``, ``user`` or ``assistant``.
        text: what was said.
        images: pictures shown before the text, each float [3, H, W] in [0, 1].
    """

    role: str
    text: str
    images: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A question to a language or vision model; what is None is left to the model.

    Args:
        messages: the conversation so far; the last turn is the user's.
        temperature: of sampling, from 0 (the likeliest word) up.
        top_p: share of probability that sampling looks at, in (0, 1].
        max_tokens: longest answer, in tokens of the model.
        stop: the answer ends before the first of these.
        schema: JSON Schema that the answer must follow.
        seed: of this answer, in [0, 2**63); None draws freely.
    """

    messages: tuple[Message, ...]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer.

    Args:
        text: what it says.
        finish_reason: ``stop``, ``length`` (cut at the most tokens it may have), ``tools`` (it called tools in place of
            answering), or what the provider calls it.
        usage: ``prompt_tokens`` and ``completion_tokens``, ``cached_tokens`` (of the prompt, that were not computed again);
            from an API also ``provider``, ``model``, ``calls``, ``cost`` (in the price table's money, None where unknown),
            ``latency`` in seconds, ``replayed``, and an ``id`` of its own.
        thoughts: what the model thought before it answered, where it tells.
        data: the value in the answer to a request with a schema.
    """

    text: str
    finish_reason: str = "stop"
    usage: Mapping[str, Any] = field(default_factory=dict)
    thoughts: str = ""
    data: Any = None


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts to be embedded; ``dimensions`` asks for shorter vectors where the model can."""

    texts: tuple[str, ...]
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """``embedding`` float32 [B, D]."""

    embedding: Tensor
    usage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A picture to be made, or to be made of another.

    Args:
        prompt: what it shows.
        image: picture to edit, float [3, H, W] in [0, 1].
        mask: where to edit: 1 is painted anew, 0 kept; float [1, H, W] or [3, H, W].
        width, height: in pixels; the model's own where left out.
        seed: of this picture.
        options: what else the backend takes.
    """

    prompt: str
    image: Tensor | None = None
    mask: Tensor | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Picture:
    """``image`` float [3, H, W] in [0, 1]."""

    image: Tensor
    usage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TranscribeRequest:
    """Speech to be written down: ``audio`` float [C, samples] in [-1, 1] at ``sampling_rate`` per second."""

    audio: Tensor
    sampling_rate: int
    language: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class SpeakRequest:
    """Text to be spoken; ``speed`` 1 is the voice's own."""

    text: str
    voice: str | None = None
    speed: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Spoken:
    """``audio`` float [1, samples] in [-1, 1] at ``sampling_rate`` per second."""

    audio: Tensor
    sampling_rate: int
    usage: Mapping[str, Any] = field(default_factory=dict)
