"""Structured output: what a model is told about a JSON Schema, how its answer is read, and what it is told when that fails."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.models.requests import Completion, Message, TextRequest

_FENCE = re.compile(r"^\s*```[a-zA-Z]*\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)
_SHOWN = 5  # findings told to the model, and in an error


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

    A code fence around the value is taken off; anything else beside it is a finding.
    """
    from jsonschema import Draft202012Validator

    fenced = _FENCE.match(text)
    try:
        value = json.loads(fenced.group(1) if fenced else text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return None, [f"it is not JSON: {error}"]
    errors = sorted(Draft202012Validator(dict(schema)).iter_errors(value), key=lambda error: error.json_path)
    return value, [f"{error.json_path}: {error.message[:300]}" for error in errors[:_SHOWN]]


def repairing(request: TextRequest, answer: Completion, findings: list[str]) -> TextRequest:
    """The request to make once more, after an answer that did not follow the schema."""
    listed = "\n".join(f"- {finding}" for finding in findings)
    again = f"That answer cannot be used:\n{listed}\nGive the whole answer again, as one JSON value that follows the schema."
    said = answer.text or "(nothing)"
    return replace(request, messages=(*request.messages, Message("assistant", said), Message("user", again)))


def both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The usage of two calls for one answer: counts and times added, the rest of the second."""
    usage = {**first, **second}
    for name in ("calls", "prompt_tokens", "completion_tokens", "latency", "cost"):
        if name in first and name in second:
            known = first[name] is not None and second[name] is not None
            usage[name] = first[name] + second[name] if known else None
    if "replayed" in usage:
        usage["replayed"] = bool(first.get("replayed")) and bool(second.get("replayed"))
    return usage


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
