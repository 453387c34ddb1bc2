"""How many tokens a call will take, before it is made: bounds that are learnt from what providers counted."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from wgtorch.integrations.api.answers import Answer, Question

_RATIO = 0.25  # tokens for each byte of most texts, in most tokenizers; none makes more tokens than bytes
_MOST_BYTES = 16  # of a token, on average
_PER_SECOND = 100  # tokens of a recording, at most
_PART = 16  # tokens that a template puts around a further message
_AROUND = 64  # tokens around a text where the provider counts none
_LONG = 256  # bytes from which on a prompt's own tokens outweigh those of the chat template
_MARGIN = 1.25  # for a text that falls into more tokens than those before it
_FURTHER = 4  # times the longest answer so far, that the next may have where nothing limits it


@dataclass(frozen=True, slots=True)
class Bound:
    """Tokens of one call.

    Args:
        prompt, completion: what is to be reckoned with.
        is_sure: it takes no more than that.
    """

    prompt: int
    completion: int
    is_sure: bool


class TokenEstimates:
    """What was learnt of one model, of each form of request: tokens around a text, for a picture of each size, of the longest answer."""

    def __init__(self) -> None:
        self._ratio: float | None = None
        self._around: dict[Hashable, int | None] = {}  # None where the provider does not count
        self._pictures: dict[Hashable, int] = {}
        self._longest: dict[Hashable, int] = {}

    def most(self, question: Question) -> Bound:
        """An upper bound, sure as far as anything like it was counted before; where nothing was, it is not sure."""
        form, limit = _form(question), getattr(question.request, "max_tokens", None)
        pictures = _pictures(question)
        known = [self._pictures[picture] for picture in pictures if picture in self._pictures]
        around = self._around.get(form)
        prompt = _size(question) + _PART * _parts(question) + (_AROUND if around is None else around) + sum(known)
        completion = _FURTHER * self._longest.get(form, 0) if limit is None else int(limit)
        return Bound(prompt, completion, form in self._around and len(known) == len(pictures))

    def likely(self, question: Question) -> Bound:
        """What a call will take that is made alone, since its bound is not sure or leaves too much of a budget unused."""
        form, limit = _form(question), getattr(question.request, "max_tokens", None)
        ratio = _RATIO if self._ratio is None else min(1.0, self._ratio * _MARGIN)
        prompt = math.ceil(_size(question) * ratio) + (self._around.get(form) or 0)
        prompt += sum(self._pictures.get(picture, 0) for picture in _pictures(question))
        return Bound(prompt, self._longest.get(form, 0) if limit is None else int(limit), is_sure=False)

    def learn(self, question: Question, answer: Answer) -> None:
        """Takes in what was counted."""
        form, size, pictures = _form(question), _size(question), _pictures(question)
        self._longest[form] = max(self._longest.get(form, 0), answer.completion_tokens or 0)
        if answer.prompt_tokens is None:
            self._around.setdefault(form, None)
            return
        if pictures:
            self._around[form] = 0
            each = math.ceil(answer.prompt_tokens / len(pictures))
            for picture in pictures:
                self._pictures[picture] = max(self._pictures.get(picture, 0), each)
            return
        # A text has at least so many tokens, so no more than the rest stands around it. Each call bounds that, the lowest counts.
        around, known = max(0, answer.prompt_tokens - size // _MOST_BYTES), self._around.get(form)
        self._around[form] = around if known is None else min(around, known)
        if size >= _LONG:
            self._ratio = max(self._ratio or 0.0, answer.prompt_tokens / size)


def _form(question: Question) -> Hashable:
    """What requests have in common around which a provider puts the same, and whose answers are alike."""
    request = question.request
    names = ("schema", "options", "width", "height")
    return (question.kind, repr(question.options), bool(_pictures_of(request)), *(repr(getattr(request, name, None)) for name in names))


def _size(question: Question) -> int:
    """Bytes of everything that is written in a request, and as many as a recording in it may have tokens: none has more than these."""
    request = question.request
    size = sum(len(message.text.encode()) for message in getattr(request, "messages", ()))
    size += sum(len(text.encode()) for text in getattr(request, "texts", ()))
    if (audio := getattr(request, "audio", None)) is not None:
        size += math.ceil(_PER_SECOND * audio.shape[-1] / request.sampling_rate)
    return size + sum(len((getattr(request, name, None) or "").encode()) for name in ("prompt", "text"))


def _parts(question: Question) -> int:
    return len(getattr(question.request, "messages", ()) or getattr(question.request, "texts", ()))


def _pictures(question: Question) -> list[Hashable]:
    """Height and width of every picture in a request, of its form."""
    return [(_form(question), int(image.shape[-2]), int(image.shape[-1])) for image in _pictures_of(question.request)]


def _pictures_of(request: Any) -> list[Tensor]:
    shown = [image for message in getattr(request, "messages", ()) for image in message.images]
    return shown + [image for image in (getattr(request, "image", None),) if image is not None]
