"""How many tokens a call will take, before it is made: bounds that are learnt from what providers counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wgtorch.integrations.api.answers import Answer, Question

_BYTES_PER_TOKEN = 4  # of most texts, in most tokenizers; none makes more tokens than bytes
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
    """What was learnt of one model: tokens for each byte, around a text, for a picture of each size, and of the longest answer."""

    def __init__(self) -> None:
        self._ratio: float | None = None
        self._around: int | None = None
        self._pictures: dict[tuple[int, int], int] = {}
        self._longest: int | None = None

    def most(self, question: Question) -> Bound:
        """An upper bound, sure as far as anything like it was counted before; where nothing was, it is not sure."""
        size, pictures = _size(question), _pictures(question)
        sure = all(picture in self._pictures for picture in pictures)
        ratio = 1.0 if self._ratio is None else min(1.0, self._ratio * _MARGIN)
        prompt = math.ceil(size * ratio) + (64 if self._around is None else self._around)
        prompt += sum(self._pictures.get(picture, 0) for picture in pictures)
        limit = getattr(question.request, "max_tokens", None)
        if limit is not None:
            return Bound(prompt, int(limit), sure)
        if question.kind != "complete":
            return Bound(prompt, 0, sure and self._around is not None)
        return Bound(prompt, _FURTHER * (self._longest or 0), sure and self._longest is not None)

    def likely(self, question: Question) -> Bound:
        """What a call will take that is made alone, since its bound is not sure or leaves too much of a budget unused."""
        size, pictures = _size(question), _pictures(question)
        known = [self._pictures[picture] for picture in pictures if picture in self._pictures]
        most = self.most(question)
        if self._ratio is not None or (self._around is not None and size < _LONG):
            prompt = most.prompt
        else:
            prompt = size // _BYTES_PER_TOKEN + 1 + sum(known)
        limit = getattr(question.request, "max_tokens", None)
        return Bound(prompt, (self._longest or 0) if limit is None else int(limit), most.is_sure)

    def learn(self, question: Question, answer: Answer) -> None:
        """Takes in what was counted."""
        if answer.completion_tokens is not None:
            self._longest = max(self._longest or 0, answer.completion_tokens)
        if answer.prompt_tokens is None:
            return
        size, pictures = _size(question), _pictures(question)
        if pictures:
            each = math.ceil(answer.prompt_tokens / len(pictures))
            for picture in pictures:
                self._pictures[picture] = max(self._pictures.get(picture, 0), each)
            return
        self._around = max(self._around or 0, answer.prompt_tokens - size)
        if size >= _LONG:
            self._ratio = max(self._ratio or 0.0, answer.prompt_tokens / size)


def _size(question: Question) -> int:
    """Bytes of everything that is written in a request."""
    request = question.request
    size = sum(len(message.text.encode()) for message in getattr(request, "messages", ()))
    size += sum(len(text.encode()) for text in getattr(request, "texts", ()))
    return size + sum(len((getattr(request, name, None) or "").encode()) for name in ("prompt", "text"))


def _pictures(question: Question) -> list[tuple[int, int]]:
    """Height and width of every picture in a request."""
    request = question.request
    shown = [image for message in getattr(request, "messages", ()) for image in message.images]
    shown += [image for image in (getattr(request, "image", None),) if image is not None]
    return [(int(image.shape[-2]), int(image.shape[-1])) for image in shown]
