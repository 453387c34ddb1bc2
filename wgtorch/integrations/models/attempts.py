"""Asking for answers that can be used: once, and once more where one is cut, empty or not in the form that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from wgtorch.integrations.models.answer_check import Verdict, asked_again, checked, failure, with_more_room
from wgtorch.integrations.models.backends import OnText
from wgtorch.integrations.models.errors import ApiAnswerError, ApiRequestError
from wgtorch.integrations.models.requests import Completion, TextRequest

Complete = Callable[[Sequence[TextRequest], OnText | None], list[Completion]]


class Attempts:
    """The answers to some requests, and second ones in place of those that cannot be used.

    ::

        answer --cut----> once more, with more room --does not follow the schema--> once more, told what is wrong
           \\---empty or not in form--> once more, told what is wrong

    Args:
        requests: the questions.
        complete: asks them.
        where: block and model, for messages.
        may_be_cut: a text that was cut is good enough.
        once: what was told of an answer cannot be taken back, so nothing is asked for again after it.
    """

    def __init__(self, requests: Sequence[TextRequest], complete: Complete, *, where: str, may_be_cut: bool, once: bool) -> None:
        self._requests = list(requests)  # the last that was made, for each place
        self._complete, self._where, self._may_be_cut, self._once = complete, where, may_be_cut, once
        self._answers: list[Completion] = []
        self._verdicts: list[Verdict] = []
        self._tried: set[int] = set()

    def answers(self, on_text: OnText | None = None) -> list[Completion]:
        """One answer for each request, in order, that can be used.

        Args:
            on_text: is told of the answers as they come; of None where a second one begins.

        Raises:
            ApiAnswerError: of the first that cannot be used after a second try.
        """
        self._answers = self._complete(tuple(self._requests), on_text)
        self._verdicts = [self._verdict(at) for at in range(len(self._answers))]
        cut = self._places(lambda at: self._verdicts[at].is_cut)
        if cut:
            try:
                self._once_more(cut, [with_more_room(self._requests[at], self._answers[at]) for at in cut], on_text)
            except ApiRequestError as error:  # the model has no more room than that
                raise self._failure(cut[0]) from error
        wrong = self._places(lambda at: at not in self._tried or (self._requests[at].schema is not None and self._has_text(at)))
        if wrong:
            self._once_more(wrong, [asked_again(self._requests[at], self._answers[at], self._verdicts[at]) for at in wrong], on_text)
        for at in self._places(lambda at: True):
            raise self._failure(at)
        return [replace(answer, data=verdict.data) for answer, verdict in zip(self._answers, self._verdicts, strict=True)]

    # --- private steps ------------------------------------------------------------------------------------------------

    def _places(self, condition: Callable[[int], bool]) -> list[int]:
        """Where an answer cannot be used, and the condition holds."""
        return [at for at, verdict in enumerate(self._verdicts) if verdict.findings and condition(at)]

    def _once_more(self, places: Sequence[int], requests: Sequence[TextRequest], on_text: OnText | None) -> None:
        for at in places:
            if self._verdicts[at].is_final or (self._once and self._answers[at].text):
                raise self._failure(at)
        told = {at for at in places if self._answers[at].text}
        answers = self._complete(requests, None if on_text is None else _in_place(on_text, places, told))
        for at, request, answer in zip(places, requests, answers, strict=True):
            self._tried.add(at)
            self._requests[at] = replace(self._requests[at], max_tokens=request.max_tokens)
            self._answers[at] = replace(answer, usage=both(self._answers[at].usage, answer.usage))
            self._verdicts[at] = self._verdict(at)

    def _verdict(self, at: int) -> Verdict:
        return checked(self._requests[at], self._answers[at], may_be_cut=self._may_be_cut)

    def _failure(self, at: int) -> ApiAnswerError:
        return failure(self._where, self._requests[at], self._answers[at], self._verdicts[at], tried_again=at in self._tried)

    def _has_text(self, at: int) -> bool:
        return bool(self._answers[at].text.strip())


def _in_place(on_text: OnText, places: Sequence[int], told: set[int]) -> OnText:
    """Tells of second answers in the places of the first, which are void if anything was told of them."""

    def again(index: int, piece: str | None) -> None:
        at = places[index]
        if at in told:
            told.discard(at)
            on_text(at, None)
        on_text(at, piece)

    return again


def both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The usage of two calls for one answer: counts and times added, the rest of the second."""
    usage = {**first, **second}
    for name in ("calls", "prompt_tokens", "completion_tokens", "cached_tokens", "latency", "cost"):
        if name in first and name in second:
            known = first[name] is not None and second[name] is not None
            usage[name] = first[name] + second[name] if known else None
    if "replayed" in usage:
        usage["replayed"] = bool(first.get("replayed")) and bool(second.get("replayed"))
    return usage
