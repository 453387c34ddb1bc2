"""Errors of models: why there is no answer, or none that can be used."""

from __future__ import annotations

from wgtorch.core.errors import WgtorchError


class ApiError(WgtorchError):
    """A model behind an API gave no answer; what was paid for before is kept, and the run can be made again.

    Args:
        message: where, found, expected, mend; never a key.
        provider: its registered name.
        model: the model's id there.
        status: of HTTP, where there was an answer at all.
    """

    def __init__(self, message: str, *, provider: str = "", model: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.provider, self.model, self.status = provider, model, status


class ApiAuthenticationError(ApiError):
    """There is no key, or the provider does not accept it, or not for this model."""


class ApiQuotaError(ApiError):
    """The provider's limits or the account's credit are used up, and waiting as long as was allowed did not help."""


class ApiContentError(ApiError):
    """The provider's content policy refused the request, or cut the answer."""


class ApiRequestError(ApiError):
    """The provider does not take the request: an unknown model, a wrong option, a prompt that is too long."""


class ApiTransportError(ApiError, ConnectionError):
    """No whole answer came: no connection, a timeout, a server's error, a stream that broke off."""


class ApiAnswerError(ApiError):
    """An answer came that cannot be used: empty, cut, not in the protocol's form, or without what it must hold."""


class BudgetError(ApiError):
    """A budget of calls, tokens or money is spent; the call was not made."""


class ReplayError(ApiError):
    """A replay asks for an answer that the cassette does not hold, or the cassette cannot be read."""


class AnswerFormatError(ApiAnswerError, ValueError):
    """A model's answer does not follow the schema, after one attempt to repair it."""
