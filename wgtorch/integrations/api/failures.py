"""Failures of official SDKs in our terms: which class, whether trying again may help, and when."""

from __future__ import annotations

import contextlib
import email.utils
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from wgtorch.integrations.api.capabilities import Refusal
from wgtorch.integrations.models.errors import (
    ApiAnswerError,
    ApiAuthenticationError,
    ApiContentError,
    ApiError,
    ApiQuotaError,
    ApiRequestError,
    ApiTransportError,
)

_POLICY_CODES = ("content_filter", "content_policy_violation", "moderation_blocked", "responsibleaipolicyviolation", "refusal")
_CREDIT_CODES = ("insufficient_quota", "billing_hard_limit_reached", "billing_error", "credit_balance_too_low")
_STATUS = re.compile(r"[45]\d\d")
_STATUS_OF = {
    "authentication_error": 401, "invalid_api_key": 401, "permission_error": 403, "not_found_error": 404, "rate_limit_error": 429,
    "rate_limit_exceeded": 429, "api_error": 500, "server_error": 500, "overloaded_error": 529,
}  # fmt: skip
_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "anyio", "h11", "h2", "ssl")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a try gave nothing.

    Args:
        kind: the class to raise when no more tries are made.
        words: the provider's, or what was seen.
        status: of HTTP.
        again: trying again may help.
        after: seconds that the provider asks to wait.
    """

    kind: type[ApiError]
    words: str
    status: int | None = None
    again: bool = False
    after: float | None = None


class BadAnswer(Exception):
    """An answer that cannot be used, as a provider's code finds it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.words)
        self.failure = failure


def not_an_answer(words: str, answer: Any = None) -> BadAnswer:
    """An answer without what it must hold; another try may do better.

    Args:
        words: what is missing.
        answer: the whole of it, as the SDK read it. Some servers tell an error with status 200, as OpenRouter does; its code then
            says what kind of failure it is.
    """
    body = answer.model_dump(warnings=False) if hasattr(answer, "model_dump") else answer
    said = _shortened(_said(body))
    codes = [str(code).lower() for code in _named_codes(body, 3)]
    status = _status_in(codes)
    if status is None and not any(code in (*_POLICY_CODES, *_CREDIT_CODES) for code in codes):
        return BadAnswer(Failure(ApiAnswerError, f"{words}, and says: {said}" if said else words, again=True))
    return BadAnswer(_classified(status, said or words, codes))


def broken_off(words: str = "the stream broke off before the answer ended") -> BadAnswer:
    """A stream that ended too early."""
    return BadAnswer(Failure(ApiTransportError, words, again=True))


def refused(words: str) -> BadAnswer:
    """An answer that the provider's content policy withholds."""
    return BadAnswer(Failure(ApiContentError, words))


def failure_of(error: BaseException, sdk: ModuleType) -> Failure | None:
    """What an exception means; None for one that is no failure of the API but of the code."""
    if isinstance(error, BadAnswer):
        return error.failure
    if isinstance(error, (TimeoutError, sdk.APITimeoutError)):
        return Failure(ApiTransportError, "no whole answer in time", again=True)
    if isinstance(error, sdk.APIConnectionError):
        return Failure(ApiTransportError, f"no connection: {error.__cause__ or error}", again=True)
    if isinstance(error, sdk.APIStatusError):
        return _of_status(error) if error.status_code >= 400 else _in_stream(error)
    if isinstance(error, (sdk.APIResponseValidationError, ValueError, RecursionError)):  # JSONDecodeError, UnicodeDecodeError
        said = _shortened(_said(getattr(error, "doc", "")))  # what is no JSON
        return Failure(ApiAnswerError, f"the answer cannot be read: {error}{said and f'; it says: {said}'}", again=True)
    if isinstance(error, sdk.APIError):  # an error told inside a stream
        return _in_stream(error)
    if isinstance(error, (OSError, EOFError)) or type(error).__module__.split(".")[0] in _NETWORK:
        late = "nothing came in time" if "Timeout" in type(error).__name__ else "the connection broke"
        return Failure(ApiTransportError, f"{late}: {type(error).__name__}: {error}", again=True)
    if isinstance(error, (AttributeError, TypeError, KeyError, IndexError)):  # an answer in a form that nobody expects
        return Failure(ApiAnswerError, f"the answer cannot be understood: {type(error).__name__}: {error}", again=True)
    return None


def _of_status(error: Any) -> Failure:
    return _classified(error.status_code, _words(error), _codes(error), _retry_after(error.response.headers))


def _classified(status: int | None, words: str, codes: list[str], after: float | None = None) -> Failure:
    if any(code in _POLICY_CODES for code in codes):
        return Failure(ApiContentError, words, status)
    if status == 402 or any(code in _CREDIT_CODES for code in codes):
        return Failure(ApiQuotaError, words, status)
    if status in (401, 403) or re.search(r"api.?key.{0,20}(invalid|not valid|incorrect|missing)", words.lower()):
        return Failure(ApiAuthenticationError, words, status)
    if status == 429:
        return Failure(ApiQuotaError, words, status, again=True, after=after)
    if status in (408, 409, 425) or (status or 0) >= 500:
        return Failure(ApiTransportError, words, status, again=True, after=after)
    return Failure(ApiRequestError, words, status)


def _in_stream(error: Any) -> Failure:
    words, codes = _words(error), _codes(error)
    if (status := _status_in(codes)) is not None or any(code in _POLICY_CODES for code in codes):
        return _classified(status, words, codes)
    return Failure(ApiTransportError, words, again=True)


def _status_in(codes: list[str]) -> int | None:
    """The status of HTTP that an error's codes stand for, where they tell one."""
    known = (int(code) if _STATUS.fullmatch(code) else _STATUS_OF.get(code) for code in codes)
    return next((status for status in known if status is not None), None)


_LONGEST = 500  # characters of a provider's words
_SAYING = (
    "message",
    "msg",
    "detail",
    "error",
    "error_description",
    "reason",
    "title",
    "errors",
    "raw",
    "description",
    "status_msg",
    "base_resp",
)


def is_about_the_request(error: Any) -> bool:
    """False where the key, the credit, a limit or the content is what a server refuses; true where it may be the form."""
    found = _of_status(error)
    return found.kind is ApiRequestError or (found.kind is ApiTransportError and error.status_code >= 500)


def refusal_of(error: Any) -> Refusal:
    """What a server says of a request that it does not take, and which entries of it it names."""
    named = [getattr(error, "param", None), *_places(_content(error))]
    return Refusal(error.status_code, _words(error).lower(), tuple(str(name) for name in named if name))


def _words(error: Any) -> str:
    """What the provider wrote, in whatever shape."""
    return _shortened(_said(_content(error)) or getattr(error, "message", None) or str(error))


def _shortened(words: str) -> str:
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."


def _said(value: Any) -> str:
    """The text in an error's body: of the entry that says most, with the places that it speaks of."""
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in ("{", "["):
            try:
                return _said(json.loads(text)) or text
            except ValueError:
                return text
        if text[:1] == "<":  # a page of a proxy
            return " ".join(re.sub(r"(?s)<(script|style).*?</\1>|<[^>]+>", " ", text).split())
        return text
    if isinstance(value, (list, tuple)):
        return "; ".join(filter(None, map(_said, value)))
    if not isinstance(value, Mapping):
        return ""
    said = next((text for name in _SAYING if (text := _said(value.get(name)) or _any_text(value.get(name)))), "")
    place = ".".join(str(part) for part in value.get("loc") or () if part != "body") if isinstance(value.get("loc"), (list, tuple)) else ""
    inner = _said((value.get("metadata") or {}).get("raw")) if isinstance(value.get("metadata"), Mapping) else ""
    said = f"{said} ({inner})" if inner and inner not in said else said
    return f"{place}: {said}" if place else said


def _any_text(value: Any) -> str:
    """The texts of an entry that ought to be one: by language, by field."""
    entries = [entry for entry in value.values() if isinstance(entry, (str, list))] if isinstance(value, Mapping) else []
    return "; ".join(filter(None, map(_said, entries)))


def _places(value: Any) -> Iterator[str]:
    """Entries of the request that an error's body names, as ``param`` or by their place."""
    if isinstance(value, Mapping):
        if isinstance(value.get("param"), str):
            yield value["param"]
        if isinstance(value.get("loc"), (list, tuple)):
            yield from (part for part in value["loc"] if isinstance(part, str) and part != "body")
        for entry in value.values():
            yield from _places(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _places(entry)


def _codes(error: Any) -> list[str]:
    """Every code and type in the body, in lower case."""
    found = [getattr(error, "code", None), getattr(error, "error_code", None), *_named_codes(_content(error), 3)]
    return [str(code).lower() for code in found if code]


def _named_codes(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, (list, tuple)) and depth:
        for entry in value:
            yield from _named_codes(entry, depth - 1)
    elif isinstance(value, Mapping):
        yield from (value[name] for name in ("code", "type", "error_code") if isinstance(value.get(name), (str, int)))
        for name in ("error", "innererror", "details", "errors") if depth else ():
            yield from _named_codes(value.get(name), depth - 1)


def _content(error: Any) -> Any:
    """The body of an error, as JSON where it is; what the SDK kept of it where it cannot be read again."""
    response = getattr(error, "response", None)
    try:
        text = "" if response is None else response.text
    except Exception:  # a stream's body that was not read
        text = ""
    if text.strip():
        try:
            return json.loads(text)
        except ValueError:
            return text
    return getattr(error, "body", None)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a provider asks to wait: a number, or a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if not value:
            continue
        with contextlib.suppress(ValueError):
            if math.isfinite(seconds := float(value) * unit):
                return max(0.0, seconds)
            continue
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, OverflowError):  # said in a way that nobody can wait for
            continue
    return None
