"""JSON as models write it: with what most readers forgive, and nothing that changes a value."""

from __future__ import annotations

import contextlib
import html
import json
import re
from collections.abc import Iterator
from typing import Any

from wgtorch.core.json_text import refuse_constant

_FENCE = re.compile(r"^[ \t]*```[\w+-]*[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_SPACE = re.compile(r"(?:\s|(?://|#)[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])")
_NAME = re.compile(r"[A-Za-z_$][\w$]*")
_LOOKS_LIKE_JSON = re.compile(r"\{\s*(?:[\"'“}{\[]|\w+\s*:)|\[\s*[\"'“{\[\]\d-]")
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\", '"': '"', "'": "'"}
_QUOTES = {'"': '"', "'": "'", "“": "”"}
_DEEPEST = 200


def values_in(text: str) -> Iterator[Any]:
    """Every JSON value in an answer: the whole text, what stands in code fences, and each object or list with prose around it.

    Forgiven are trailing commas, comments, raw line breaks and lone backslashes in strings, single or typographic quotes, names without
    quotes, Python's ``True``, ``False`` and ``None``, and a value that is escaped as a whole (``{{"a": 1}}``, ``{\\"a\\": 1}``,
    ``{&quot;a&quot;: 1}``). What is cut, holds NaN, or says two things of one name, is no value.
    """
    whole = text.strip().removeprefix("\ufeff")
    for form in (whole, *_escaped_forms(whole)):
        try:
            yield parse(form)
            return
        except ValueError:
            continue
    for fenced in _FENCE.finditer(text):
        try:
            yield parse(fenced.group(1).strip())
        except ValueError:
            continue
    at = 0
    while (begin := _next_bracket(whole, at)) >= 0:
        try:
            value, at = _value(whole, begin, 0)
            yield value
        except ValueError:
            at = _after_broken(whole, begin)


def parse(text: str) -> Any:
    """The one value that a text is.

    Raises:
        ValueError: it is none, or more than one.
    """
    try:
        return json.loads(text, strict=False, parse_constant=refuse_constant, object_pairs_hook=_unambiguous)
    except (ValueError, RecursionError):
        pass
    value, end = _value(text, _skip(text, 0), 0)
    if _skip(text, end) != len(text):
        raise ValueError(f"more text after the value: {text[end : end + 40]!r}")
    return value


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """The value at a place, and where it ends."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    first = text[at : at + 1]
    if first == "{":
        return _object(text, at, depth)
    if first == "[":
        return _list(text, at, depth)
    if first in _QUOTES and first:
        return _string(text, at)
    if number := _NUMBER.match(text, at):
        return json.loads(number.group()), number.end()
    name = _NAME.match(text, at)
    if name and name.group() in _WORDS:
        return _WORDS[name.group()], name.end()
    is_constant = (name is not None and name.group() in ("NaN", "Infinity")) or text.startswith("-Infinity", at)
    raise ValueError("NaN and infinity are not JSON" if is_constant else f"no JSON value at {text[at : at + 40]!r}")


def _object(text: str, at: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        if text[at : at + 1] in _QUOTES and text[at : at + 1]:
            key, at = _string(text, at)
        elif name := _NAME.match(text, at):
            key, at = name.group(), name.end()
        else:
            raise ValueError(f"no name of an entry at {text[at : at + 40]!r}")
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise ValueError(f"no colon after {key!r}")
        value, at = _value(text, _skip(text, at + 1), depth + 1)
        found = _unambiguous([*found.items(), (key, value)])
        at = _after_comma(text, at, "}")
    return found, at + 1


def _list(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        value, at = _value(text, at, depth + 1)
        found.append(value)
        at = _after_comma(text, at, "]")
    return found, at + 1


def _string(text: str, at: int) -> tuple[str, int]:
    closing = _QUOTES[text[at]]
    parts: list[str] = []
    at += 1
    while at < len(text):
        letter = text[at]
        if letter == closing:
            return whole_letters("".join(parts)), at + 1
        if letter != "\\":
            parts.append(letter)
            at += 1
        elif text[at + 1 : at + 2] == "u":
            parts.append(chr(int(text[at + 2 : at + 6], 16)))
            at += 6
        elif text[at + 1 : at + 2] in _ESCAPES:
            parts.append(_ESCAPES[text[at + 1]])
            at += 2
        else:  # a path or a formula, whose backslash was meant as one
            parts.append(text[at : at + 2])
            at += 2
    raise ValueError("a string that does not end")


def whole_letters(text: str) -> str:
    """A text whose halves of letters, as some servers stream and escape them, are joined; a lone one is no letter."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _after_comma(text: str, at: int, closing: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] == ",":
        return _skip(text, at + 1)
    if text[at : at + 1] != closing:
        raise ValueError(f"neither a comma nor {closing!r} at {text[at : at + 40]!r}")
    return at


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _next_bracket(text: str, at: int) -> int:
    found = [place for bracket in "{[" if (place := text.find(bracket, at)) >= 0]
    return min(found, default=-1)


def _after_broken(text: str, begin: int) -> int:
    """Where to look on after a bracket that opens no value: a part of a broken one is not what was asked for."""
    if not _LOOKS_LIKE_JSON.match(text, begin):
        return begin + 1
    depth = 0
    for at in range(begin, len(text)):
        depth += (text[at] in "{[") - (text[at] in "}]")
        if depth == 0:
            return at + 1
    return len(text)


def _escaped_forms(text: str) -> Iterator[str]:
    """What a text is that is escaped as a whole: for a template, as a string, for a page."""
    if text.startswith("{{") and text.endswith("}}"):
        yield text[1:-1]
        yield text.replace("{{", "{").replace("}}", "}")
    if text[:1] in ("{", "[") and '\\"' in text:
        with contextlib.suppress(ValueError):
            yield json.loads(f'"{text}"', strict=False)
    if text[:1] in ("{", "[") and "&quot;" in text:
        yield html.unescape(text)


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and repr(found[name]) != repr(value):
            raise ValueError(f"two values of {name!r}")
        found[name] = value
    return found
