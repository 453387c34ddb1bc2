"""Failures of official SDKs in our terms: which class, whether trying again may help, and when."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from wgtorch.core.errors import (
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


def not_an_answer(words: str) -> BadAnswer:
    """An answer without what it must hold; another try may do better."""
    return BadAnswer(Failure(ApiAnswerError, words, again=True))


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
        return _of_status(error)
    if isinstance(error, (sdk.APIResponseValidationError, ValueError)):  # JSONDecodeError, UnicodeDecodeError
        return Failure(ApiAnswerError, f"the answer cannot be read: {error}", again=True)
    if isinstance(error, sdk.APIError):  # an error told inside a stream
        return _in_stream(error)
    if isinstance(error, (OSError, EOFError)) or type(error).__module__.split(".")[0] in _NETWORK:
        return Failure(ApiTransportError, f"the connection broke: {type(error).__name__}: {error}", again=True)
    return None


def _of_status(error: Any) -> Failure:
    status, words, codes = error.status_code, _words(error), _codes(error)
    after = _retry_after(error.response.headers)
    if any(code in _POLICY_CODES for code in codes):
        return Failure(ApiContentError, words, status)
    if status == 402 or any(code in _CREDIT_CODES for code in codes):
        return Failure(ApiQuotaError, words, status)
    if status in (401, 403):
        return Failure(ApiAuthenticationError, words, status)
    if status == 429:
        return Failure(ApiQuotaError, words, status, again=True, after=after)
    if status in (408, 409, 425) or status >= 500:
        return Failure(ApiTransportError, words, status, again=True, after=after)
    return Failure(ApiRequestError, words, status)


def _in_stream(error: Any) -> Failure:
    words, codes = _words(error), _codes(error)
    if any(code in _POLICY_CODES for code in codes):
        return Failure(ApiContentError, words)
    limited = any("rate_limit" in code for code in codes)
    return Failure(ApiQuotaError if limited else ApiTransportError, words, again=True)


def _words(error: Any) -> str:
    body = _body(error)
    said = body.get("message") or getattr(error, "message", None) or str(error)
    return str(said)[:500]


def _codes(error: Any) -> list[str]:
    """Every code and type in the body, in lower case."""
    body = _body(error)
    inner = body.get("innererror") or body.get("details") or {}
    found = [body.get("code"), body.get("type"), getattr(error, "code", None), getattr(error, "error_code", None)]
    found += [inner.get("code"), inner.get("error_code")] if isinstance(inner, Mapping) else []
    return [str(code).lower() for code in found if code]


def _body(error: Any) -> Mapping[str, Any]:
    body = getattr(error, "body", None)
    if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        body = body["error"]
    return body if isinstance(body, Mapping) else {}


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a provider asks to wait: a number, or a date."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if not value:
            continue
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            pass
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, OverflowError):  # said in a way that nobody can wait for
            continue
    return None
