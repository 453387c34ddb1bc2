"""JSON that comes from outside: sizes are known before anything is made of it, no key is there twice, and errors have a name."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from wgtorch.core.limits import check_limit

MAX_BYTES = 64 << 20
"""Bytes of one JSON text that is read."""
MAX_VALUES = 1_000_000
"""Values that one JSON text may hold: a byte of text gives an object of a hundred."""


def loads(text: str | bytes, **options: Any) -> Any:
    """As ``json.loads``, which of a key that is there twice in one mapping keeps the last value and says nothing.

    Args:
        text: a JSON text.
        options: of ``json.loads``.

    Raises:
        DuplicateKeyError: a key is there twice.
        ValueError: it is no JSON.
    """
    return json.loads(text, object_pairs_hook=_unique_keys, **options)


class DuplicateKeyError(ValueError):
    """A mapping in a JSON text has a key twice; nobody says which of its values counts."""


def read_json(
    raw: bytes,
    where: str,
    error: type[Exception],
    *,
    max_bytes: int = MAX_BYTES,
    max_values: int = MAX_VALUES,
    is_sent: bool = False,
) -> Any:
    """A JSON text as data.

    Args:
        raw: the text, as UTF-8.
        where: the file, or the place in it, for messages.
        error: the class to raise.
        max_bytes, max_values: what is read at most, before ``WGTORCH_FILE_LIMITS``.
        is_sent: somebody sent it, so it is read as :func:`parse_json` does; a file may hold whatever a value held.

    Raises:
        error: it is too large, nested too deep, or no JSON.
    """
    check_json(raw, where, error, max_bytes=max_bytes, max_values=max_values)
    try:
        return parse_json(raw) if is_sent else loads(raw, parse_constant=refuse_constant)
    except RecursionError:
        raise error(f"{where}: nested too deep to be read") from None
    except DuplicateKeyError as wrong:
        raise error(f"{where}: {wrong}; expected each once") from wrong
    except ValueError as wrong:  # UnicodeDecodeError is one
        raise error(f"{where}: not readable as JSON: {str(wrong)[:200]}; truncated or damaged") from wrong


def parse_json(raw: bytes | str) -> Any:
    """A JSON text as data, where it holds nothing that could not be written again as one.

    Raises:
        ValueError: it is no JSON, a number has no finite value (NaN, 1e999), or a text holds half of a character (a lone surrogate).
    """
    text = raw.decode(json.detect_encoding(raw)) if isinstance(raw, bytes) else raw
    is_odd = _ODD.search(text) is not None
    found = loads(text, parse_constant=refuse_constant, parse_float=_finite if is_odd else None)
    if is_odd:
        json.dumps(found, ensure_ascii=False).encode()
    return found


def check_json(raw: bytes, where: str, error: type[Exception], *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> None:
    """Refuses a text that :func:`read_json` would not read, as who writes one does beforehand."""
    check_limit(len(raw), max_bytes, "{} bytes of JSON", where, error)
    if len(raw) > max_values:  # fewer bytes cannot hold more values
        check_limit(count_values(raw), max_values, "holds {} values", where, error)


def json_bytes(value: Any, **options: Any) -> bytes:
    """A value as JSON in UTF-8; half a surrogate pair, as cut text may end with, is written as its escape."""
    try:
        return json.dumps(value, ensure_ascii=False, **options).encode()
    except UnicodeEncodeError:
        return json.dumps(value, **options).encode()


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


def count_values(text: str | bytes) -> int:
    """At most so many values a JSON text holds; counted before any is made, since a few bytes give an object of a hundred."""
    marks: tuple[Any, ...] = (b"[", b"{", b",") if isinstance(text, bytes) else ("[", "{", ",")
    return 1 + sum(text.count(mark) for mark in marks)


_ODD = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]|[0-9][eE]\+?[0-9]{3}|[0-9]{200}")
"""What a text may hold that is no character, or no finite number."""


def _finite(digits: str) -> float:
    if math.isinf(found := float(digits)):
        raise ValueError(f"{digits[:40]} is beyond the numbers that a float holds")
    return found


def refuse_constant(name: str) -> Any:
    """For ``parse_constant``: NaN and infinity are no JSON."""
    raise ValueError(f"{name} is no JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DuplicateKeyError(f"key {twice[:200]!r} is there twice")
    return found
