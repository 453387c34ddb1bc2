"""Structured output: what a model is told about a JSON Schema, how its answer is read, and what it is told when that fails."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.models.lenient_json import parse, values_in
from wgtorch.integrations.models.requests import Completion, Message, TextRequest
from wgtorch.integrations.models.thoughts import split_thoughts

_SHOWN = 5  # findings told to the model, and in an error
_ARGUMENTS = ("arguments", "parameters", "input")
_SCHEMA_WORDS = frozenset(("$schema", "type", "title", "description", "properties", "required", "additionalProperties"))


def check_schema(schema: Mapping[str, Any], where: str) -> None:
    """Refuses what is no JSON Schema.

    Raises:
        ConfigError: with what is wrong in it.
    """
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as error:
        raise ConfigError(f"{where}: not a JSON Schema at {error.json_path}: {error.message}") from None


def asking_for_json(request: TextRequest) -> TextRequest:
    """The request with its schema in words as well, for models that no one holds to it."""
    if request.schema is None:
        return request
    words = (
        "Answer with one JSON value that follows this JSON Schema, and with nothing else: no explanation, no code fence.\n"
        f"{json.dumps(request.schema, ensure_ascii=False)}"
    )
    first, *rest = request.messages
    if first.role == "system":
        return replace(request, messages=(replace(first, text=f"{first.text}\n\n{words}"), *rest))
    return replace(request, messages=(Message("system", words), first, *rest))


def read_json(text: str, schema: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """The value in an answer, and what is wrong with it: nothing, when it may be used.

    Thoughts, code fences and prose around the value are passed over, and small slips forgiven
    (:mod:`~wgtorch.integrations.models.lenient_json`), as is a value that is written as a text, in a list or an entry of its own, among the
    schema's words (``{"properties": value}``) or as the call of a function. The schema itself is no answer to it. Two different values
    that both follow the schema are a finding: nobody knows which is meant.
    """
    from jsonschema import Draft202012Validator

    checker = Draft202012Validator(dict(schema))
    fitting: list[Any] = []
    nearest: tuple[int, Any, list[str]] | None = None
    for value in values_in(split_thoughts(text)[0]):
        if _is_schema(value, schema):
            nearest = nearest or (0, None, ["it repeats the schema; expected a value that follows it"])
            continue
        errors = sorted(checker.iter_errors(value), key=lambda error: error.json_path)
        if errors:
            inner = next((inner for inner in _unwrapped(value) if checker.is_valid(inner) and not _is_schema(inner, schema)), None)
            value, errors = (value, errors) if inner is None else (inner, [])
        if not errors:
            fitting += [] if any(_same(value, other) for other in fitting) else [value]
        elif nearest is None or len(str(value)) > nearest[0]:
            nearest = (len(str(value)), value, [f"{error.json_path}: {error.message[:300]}" for error in errors[:_SHOWN]])
    if len(fitting) == 1:
        return fitting[0], []
    if fitting:
        return None, [f"it holds {len(fitting)} different values that follow the schema; expected one"]
    return (nearest[1], nearest[2]) if nearest is not None else (None, ["it is not JSON: " + _why_not(text)])


def repairing(request: TextRequest, answer: Completion, findings: list[str]) -> TextRequest:
    """The request to make once more, after an answer that did not follow the schema."""
    listed = "\n".join(f"- {finding}" for finding in findings)
    again = f"That answer cannot be used:\n{listed}\nGive the whole answer again, as one JSON value that follows the schema."
    said = answer.text or "(nothing)"
    return replace(request, messages=(*request.messages, Message("assistant", said), Message("user", again)))


def _unwrapped(value: Any, depth: int = 3) -> Iterator[Any]:
    """What is in a value: in a text as JSON, in a list or an entry of its own, among a schema's words, in the call of a function."""
    inner: list[Any] = []
    if isinstance(value, list) and len(value) == 1:
        inner = value
    elif isinstance(value, str):
        with contextlib.suppress(ValueError):
            inner = [parse(value)]
    elif isinstance(value, Mapping):
        called = [value[name] for name in _ARGUMENTS if name in value and set(value) <= {name, "name", "type", "id", "function"}]
        inner = called or ([value["properties"]] if "properties" in value and set(value) <= _SCHEMA_WORDS else [])
        inner = inner or (list(value.values()) if len(value) == 1 and not {"error", "errors"} & set(value) else [])
    for entry in inner:
        yield entry
        if depth:
            yield from _unwrapped(entry, depth - 1)


def _is_schema(value: Any, schema: Mapping[str, Any]) -> bool:
    """True for the schema in place of a value, whole or its properties alone."""
    properties = schema.get("properties")
    if not isinstance(value, Mapping) or not value:
        return False
    return _same(value, dict(schema)) or (bool(properties) and any(_same(part, properties) for part in (value, value.get("properties"))))


def _same(first: Any, second: Any) -> bool:
    return json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)  # 1 and True are different


def _why_not(text: str) -> str:
    if not text.strip():
        return "there is no text"
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        return str(error)
    try:
        parse(text)
    except ValueError as error:  # NaN, or two values of one name
        return str(error)
    raise AssertionError("what is JSON was read")
