"""The fields of a request, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from wgtorch.core.errors import Finding, RequestError

_OF_PLACE = ("contract", "path", "draws", "iterations", "sample")
"""Fields that only a node elsewhere sends, which says for which place of its run it asks."""
_DEEPEST = 256  # path parts, iterations of loops in loops, places in lists of lists
_SEED = 2**63


class _Request(BaseModel):
    """Fields that every request may have; the rest says for which place of a caller's run it is made."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    contract: StrictStr | None = None
    """Digest of the contract that the caller was built against."""
    seed: StrictInt | None = Field(None, ge=-_SEED, lt=_SEED)
    timeout: float | None = Field(None, gt=0)
    """Seconds that the caller waits for."""
    path: list[StrictStr] = Field([], max_length=_DEEPEST)
    """Ids from below the level that the caller runs to the place that this is run for."""
    draws: list[StrictInt] = Field([], max_length=100_000)
    """What draws at the place are keyed by: one number, or one for each sample of the batch."""
    iterations: list[StrictInt] = Field([], max_length=_DEEPEST)
    sample: list[StrictInt] = Field([], max_length=_DEEPEST)
    num_loop_steps: StrictInt | None = Field(None, ge=1, le=1_000_000)


class TaskRequest(_Request):
    """For blocks, graphs and pipelines."""

    inputs: dict[str, Any] = {}
    outputs: list[StrictStr] | None = None


class StageRequest(_Request):
    """For stages."""

    state: dict[str, Any] = {}
    state_schema: list[StrictStr] | None = None
    action: Any = None
    content: dict[str, Any] | None = None


class WorldRequest(_Request):
    """For worlds."""

    state: dict[str, Any] | None = None
    action: Any = None
    num_steps: StrictInt = Field(1, ge=0, le=10_000)


R = TypeVar("R", bound=_Request)


def read_request(kind: type[R], message: Mapping[str, Any]) -> R:
    """A request of a kind.

    Raises:
        RequestError: lists every field that is unknown or wrong.
    """
    try:
        return kind.model_validate(dict(message))
    except ValidationError as error:
        findings = [
            Finding(
                "request" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in entry["loc"]),
                "unknown field" if entry["type"] == "extra_forbidden" else f"got {type(entry['input']).__name__}",
                f"one of {[name for name in kind.model_fields if name not in _OF_PLACE]}"
                if entry["type"] == "extra_forbidden"
                else entry["msg"].removeprefix("Input should be "),
                "A world is told an action, and may be given a State." if kind is WorldRequest and entry["loc"] == ("inputs",) else "",
            )
            for entry in error.errors(include_url=False)
        ]
        raise RequestError("the request is not valid", findings) from None
