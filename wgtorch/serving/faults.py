"""Errors as JSON, and back: what a server answers when it refuses or fails, and what a node raises then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from wgtorch.core.errors import (
    ConfigError,
    EndpointError,
    MissingInputError,
    PortError,
    PortTypeError,
    RequestError,
    RunCancelled,
    RunTimeoutError,
    StateError,
    StorageError,
    StructureError,
    UnknownNameError,
    WgtorchError,
)
from wgtorch.core.kinds import describe
from wgtorch.integrations.models.errors import ApiContentError, ApiError, ApiRequestError

GONE = 499
"""The caller hung up before the answer; nobody sees this status."""
_OUTSIDE = 424
"""A level that was served called an endpoint or a model that failed. Not 502, which callers would try again, each for all it calls."""
_LONGEST = 4000  # letters of a message
_SAME: dict[str, type[WgtorchError]] = {
    kind.__name__: kind
    for kind in (
        ConfigError,
        MissingInputError,
        PortError,
        PortTypeError,
        StateError,
        StorageError,
        StructureError,
        UnknownNameError,
    )
}
"""Mistakes of a caller, which are of the same class on both sides."""


def status_of(error: BaseException) -> int:
    """The HTTP status that tells of an error."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, RunTimeoutError):
        return 504
    if isinstance(error, RunCancelled):
        return GONE
    if isinstance(error, (EndpointError, ApiError)) and not isinstance(error, (ApiContentError, ApiRequestError)):
        return _OUTSIDE
    return 400 if isinstance(error, WgtorchError) else 500


def fault_of(error: BaseException) -> dict[str, Any]:
    """An error as JSON data: its type, message, findings, and the node it was raised in; no traceback."""
    findings = [asdict(found) for found in getattr(error, "findings", ())]
    return {
        "error": {
            "type": type(error).__name__,
            "message": str(error)[:_LONGEST],
            "findings": findings,
            "node": getattr(error, "node_path", None),
        }
    }


def raise_fault(answer: Any, status: int, where: str, url: str) -> None:
    """Raises what an endpoint told of.

    Mistakes of the caller keep their class; what failed over there is an :class:`EndpointError` that names its type.

    Args:
        answer: the JSON that came with the status.
        status: HTTP status.
        where: path of the node here.
        url: the endpoint.
    """
    fault = answer.get("error") if isinstance(answer, Mapping) else None
    if not isinstance(fault, Mapping):
        raise EndpointError(f"{where}: {url} answered with status {status} and {describe(answer)}; is a wgtorch server there?")
    kind, text = str(fault.get("type")), str(fault.get("message"))[:_LONGEST]
    node = f", raised in node {fault['node']}" if fault.get("node") else ""
    if status == 401:
        raise EndpointError(f"{where}: {url} refuses the call: {text}. Name the environment variable that holds its key in api_key_env.")
    if status == 400 and kind in _SAME:
        raise _SAME[kind](f"{text} (at {url}{node})")
    if kind in ("RequestError", "RunTimeoutError"):
        raise EndpointError(f"{where}: {url} refuses the call: {text}{node}")
    raise EndpointError(f"{where}: {url} failed with {kind}: {text}{node}")
