"""Whether an answer is one: what is missing in it, and what is asked when something is."""

from __future__ import annotations

import string
from dataclasses import dataclass, replace
from typing import Any

from wgtorch.integrations.models.errors import AnswerFormatError, ApiAnswerError
from wgtorch.integrations.models.requests import Completion, Message, TextRequest
from wgtorch.integrations.models.structured import read_json, repairing

_UNSEEN = f"{string.whitespace}\u00a0\u200b\u200c\u200d\u2060\ufeff"
_WIDER = 4  # times the room that an answer was cut in
_ROOM, _ROOM_TO_THINK = 1024, 4096  # tokens, at least, of a second try


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer is worth.

    Args:
        data: the value in it, where a schema asks for one.
        findings: what is wrong with it; nothing, when it may be used.
        is_cut: it ended at the most tokens it may have, and that is what is wrong.
        is_final: asking again is of no use.
    """

    data: Any = None
    findings: tuple[str, ...] = ()
    is_cut: bool = False
    is_final: bool = False


def checked(request: TextRequest, answer: Completion, *, may_be_cut: bool) -> Verdict:
    """Reads an answer.

    Args:
        request: what was asked.
        answer: without the thoughts in it.
        may_be_cut: a text that ended at the most tokens it may have is good enough.
    """
    cut = answer.finish_reason == "length"
    if is_blank(answer.text):
        if answer.finish_reason == "tools":
            return Verdict(findings=("the model called tools and wrote no text; take them out of its options",), is_final=True)
        if cut:
            where = "in its thoughts, before any text" if answer.thoughts else "before any text"
            return Verdict(findings=(f"it was cut {where}",), is_cut=True)
        return Verdict(findings=("it has thoughts and no text" if answer.thoughts else "it is empty",))
    if request.schema is not None:
        value, findings = read_json(answer.text, request.schema)
        return Verdict(value, (*findings, "it was cut; be shorter") if findings and cut else tuple(findings), bool(findings) and cut)
    return Verdict(findings=("its text was cut",), is_cut=True) if cut and not may_be_cut else Verdict()


def is_blank(text: str) -> bool:
    """True for a text in which nothing can be read, not even a sign."""
    return not text.strip(_UNSEEN)


def with_more_room(request: TextRequest, answer: Completion) -> TextRequest:
    """The request to make once more, after an answer that was cut."""
    written = answer.usage.get("completion_tokens")
    least = _ROOM_TO_THINK if answer.thoughts or not answer.text.strip() else _ROOM
    return replace(request, max_tokens=max(_WIDER * int(request.max_tokens or written or 0), least))


def asked_again(request: TextRequest, answer: Completion, verdict: Verdict) -> TextRequest:
    """The request to make once more, after an answer that was empty or did not follow the schema."""
    if request.schema is not None:
        return repairing(request, answer, list(verdict.findings))
    said = Message("user", "There was no text in your answer. Answer now, in text.")
    return replace(request, messages=(*request.messages, Message("assistant", "(nothing)"), said))


def failure(where: str, request: TextRequest, answer: Completion, verdict: Verdict, *, tried_again: bool) -> ApiAnswerError:
    """The error for an answer that cannot be used.

    Args:
        where: block and model.
        request: the last that was made.
        answer: to it.
        verdict: on it.
        tried_again: the answer is that of a second try.
    """
    source: dict[str, Any] = {name: str(answer.usage.get(name) or "") for name in ("provider", "model")}
    wrong = "; ".join(verdict.findings)
    if verdict.is_cut and (request.schema is None or not answer.text.strip()):
        limit = "the most that the model allows itself" if request.max_tokens is None else f"max_tokens={request.max_tokens}"
        often = ", in a second try with more room" if tried_again else ""
        mend = "Raise max_tokens, ask for a shorter text, or turn its thinking down."
        return ApiAnswerError(f"{where}: the answer cannot be used: {wrong}, at {limit}{often}. {mend}", **source)
    if request.schema is not None and answer.text.strip():
        text = answer.text if len(answer.text) <= 200 else f"{answer.text[:200]}..."
        return AnswerFormatError(
            f"{where}: the answer {text!r} does not follow the schema, after one repair: {wrong}. "
            "Ask a stronger model, a simpler schema, or for more max_tokens.",
            **source,
        )
    often = ", also in a second try" if tried_again else ""
    return ApiAnswerError(f"{where}: the answer cannot be used: {wrong} (finish_reason {answer.finish_reason!r}){often}.", **source)
