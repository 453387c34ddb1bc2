"""JSON that comes from a file: sizes are known before anything is made of it, and whatever is wrong is one named error."""

from __future__ import annotations

import json
from typing import Any

from wgtorch.core.config.resolve import count_values
from wgtorch.core.limits import check_limit

MAX_BYTES = 64 << 20
"""Bytes of one JSON text that is read."""
MAX_VALUES = 1_000_000
"""Values that one JSON text may hold: a byte of text gives an object of a hundred."""


def read_json(raw: bytes, where: str, error: type[Exception], *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> Any:
    """A JSON text as data.

    Args:
        raw: the text, as UTF-8.
        where: the file, or the place in it, for messages.
        error: the class to raise.
        max_bytes, max_values: what is read at most, before ``WGTORCH_FILE_LIMITS``.

    Raises:
        error: it is too large, nested too deep, or no JSON.
    """
    check_json(raw, where, error, max_bytes=max_bytes, max_values=max_values)
    try:
        return json.loads(raw, parse_constant=_no_constant)
    except RecursionError:
        raise error(f"{where}: nested too deep to be read") from None
    except ValueError as wrong:  # UnicodeDecodeError is one
        raise error(f"{where}: not readable as JSON: {str(wrong)[:200]}; truncated or damaged") from wrong


def check_json(raw: bytes, where: str, error: type[Exception], *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> None:
    """Refuses a text that :func:`read_json` would not read, as who writes one does beforehand."""
    check_limit(len(raw), max_bytes, "{} bytes of JSON", where, error)
    if len(raw) > max_values:  # fewer bytes cannot hold more values
        check_limit(count_values(raw), max_values, "holds {} values", where, error)


def expect(value: Any, kind: type | tuple[type, ...], what: str, where: str, error: type[Exception]) -> Any:
    """Returns a value of the kind that belongs there.

    Raises:
        error: it is of another; True and False are no numbers.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join("null" if entry is type(None) else entry.__name__ for entry in kinds)
        raise error(f"{where}: {what} is {type(value).__name__} {str(value)[:60]!r}; expected {names}")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
