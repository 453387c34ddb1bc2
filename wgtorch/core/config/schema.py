"""JSON Schemas of configs, one for each level, and the checks made with them before anything is built."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wgtorch.core.config.resolve import MAX_NODES
from wgtorch.core.errors import ConfigError, Finding, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.structure import _NODE_ID

SCHEMA_VERSION = "1.0"
LEVELS = ("graph", "pipeline", "stage", "world")
_CHILD = {"graph": "block", "pipeline": "graph", "stage": "pipeline", "world": "stage"}
_SHOWN = 20  # findings in one message
_MOST = 100  # findings that are looked for
_LONGEST = 300  # letters of what jsonschema says, which holds the value

_TEXT: dict[str, Any] = {"type": "string"}
_ID: dict[str, Any] = {"type": "string", "pattern": f"^{_NODE_ID.pattern}$"}
_ID_OR_NULL: dict[str, Any] = {"type": ["string", "null"]}
_ADAPTER: dict[str, Any] = {
    "anyOf": [
        {"type": ["string", "null"]},
        {"type": "object", "additionalProperties": {"type": "number"}},
        {"type": "array", "items": {"type": ["string", "null"]}},
    ]
}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_SLOTS: dict[str, Any] = {"type": "array", "items": {"type": ["string", "integer"]}}
_DATA: dict[str, Any] = {"type": "object"}
_PLACE: dict[str, Any] = {
    "node_id": _ID,
    "trainable": {"type": "boolean"},
    "adapter": _ADAPTER,
    "inputs": _DATA,
    "map": {"anyOf": [_TEXT, _TEXTS]},
    "timeout": {"type": ["number", "null"], "exclusiveMinimum": 0},
    "condition": {"anyOf": [_TEXT, _SLOTS]},
    "reuse": {"type": "boolean"},
    "share": _TEXT,
}


def _closed(properties: dict[str, Any], required: Iterable[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


_EDGE = _closed(
    dict.fromkeys(("source_node", "source_port", "target_node", "target_port"), _TEXT),
    ("source_node", "source_port", "target_node", "target_port"),
)
_EXPOSED = _closed(dict.fromkeys(("node_id", "port_name", "name"), _TEXT), ("node_id", "port_name"))


_ENDPOINT: dict[str, Any] = {
    "endpoint_url": _TEXT,
    "endpoint": _closed(
        {
            "contract": _DATA,
            "api_key_env": {"type": ["string", "null"]},
            "timeout": {"type": "number", "exclusiveMinimum": 0},
            "retries": {"type": "integer", "minimum": 0},
        },
        (),
    ),
}
"""What stands in place of a child that runs at another endpoint."""


def _node(level: str) -> dict[str, Any]:
    child = _CHILD[level]
    properties = {**_PLACE, "template": _TEXT, "params": _DATA, **_ENDPOINT}
    if level == "graph":
        properties |= {"block_type": _TEXT, "config": _DATA}
    else:
        properties |= {"config": {"$ref": f"#/$defs/{child}"}}
    return _closed(properties, ("node_id",))


def _stage_or_endpoint() -> dict[str, Any]:
    elsewhere = _closed({**_ENDPOINT, "share": _TEXT}, ("endpoint_url",))
    return {"if": {"type": "object", "required": ["endpoint_url"]}, "then": elsewhere, "else": {"$ref": "#/$defs/stage"}}


def _level(level: str) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "schema_version": _TEXT,
        "kind": {"const": level},
        f"{level}_id": _ID,
        "metadata": _DATA,
    }
    required = ["kind", f"{level}_id"]
    if level == "world":
        properties |= {
            "stages": {"type": "object", "additionalProperties": _stage_or_endpoint()},
            "places": {"type": "object", "additionalProperties": _closed({name: _PLACE[name] for name in ("trainable", "adapter")}, ())},
            "cycle": _TEXTS,
            "state_schema": _TEXTS,
            "storage": {"anyOf": [_DATA, {"type": "null"}]},
            "initial_content": _DATA,
        }
        return _closed(properties, [*required, "stages"])
    properties |= {
        "nodes": {"type": "array", "items": {"$ref": f"#/$defs/{level}_node"}, "maxItems": MAX_NODES},
        "edges": {"type": "array", "items": _EDGE},
        "exposed_inputs": {"type": "array", "items": _EXPOSED},
        "exposed_outputs": {"type": "array", "items": _EXPOSED},
    }
    if level == "graph":
        properties["auto_connect"] = {"type": "boolean"}
    if level == "stage":
        properties |= {
            "role": _TEXT,
            "share": _TEXT,
            "state_contract": _closed(
                {
                    "inputs": _TEXTS,
                    "outputs": _TEXTS,
                    "mapping_input": {"type": "object", "additionalProperties": _TEXT},
                    "mapping_output": {"type": "object", "additionalProperties": {"anyOf": [_TEXT, _TEXTS]}},
                    "merge": {"type": "object", "additionalProperties": _TEXT},
                    "new_state": {"type": "boolean"},
                },
                (),
            ),
            "execution_condition": {"anyOf": [_TEXT, _SLOTS, {"type": "null"}]},
        }
    return _closed(properties, [*required, "nodes"])


@functools.cache
def level_schema(level: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one level's configs; configs of the levels below are in ``$defs``."""
    below = LEVELS[: LEVELS.index(level) + 1]
    definitions = {name: _level(name) for name in below} | {f"{name}_node": _node(name) for name in below if name != "world"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"wgtorch {level}",
        **_level(level),
        "$defs": definitions,
    }


def block_schema(block_class: type) -> dict[str, Any]:
    """The JSON Schema of a block's config, from the types of its constructor's arguments."""
    return _block_schema(block_class)


@functools.cache
def _block_schema(block_class: type) -> dict[str, Any]:
    init: Callable[..., Any] = block_class.__init__  # type: ignore[misc]
    properties: dict[str, Any] = {}
    required: list[str] = []
    is_open = False
    try:
        hints = typing.get_type_hints(init, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    for name, parameter in list(inspect.signature(init).parameters.items())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            properties[name] = _annotation_schema(hints.get(name, parameter.annotation), parameter.default)
            if parameter.default is parameter.empty:
                required.append(name)
    # Any block's weights may come from a file that its config refers to.
    properties.setdefault("checkpoint_ref", {"type": ["string", "null"]})
    schema = _closed(properties, required)
    schema["additionalProperties"] = is_open
    return schema


def _annotation_schema(annotation: Any, default: Any) -> dict[str, Any]:
    if annotation in (inspect.Parameter.empty, Any):
        return {}
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    try:
        schema = TypeAdapter(annotation).json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError):
        return {}
    schema.pop("prefixItems", None)  # a tuple's length is the constructor's business
    schema.pop("minItems", None)
    schema.pop("maxItems", None)
    return {"anyOf": [schema, {"type": "null"}]} if default is None else schema


def check_block_config(block_class: type, config: Mapping[str, Any], where: str) -> None:
    """Checks a block's config against its schema.

    Raises:
        ConfigError: lists everything that does not fit.
    """
    findings = _schema_findings(config, block_schema(block_class), where)
    if findings:
        raise config_error(f"config of {getattr(block_class, 'block_type', '') or block_class.__name__}", findings)


def check_endpoint_config(config: Mapping[str, Any], where: str) -> None:
    """Checks what describes a child at another endpoint.

    Raises:
        ConfigError: lists everything that does not fit.
    """
    findings = _schema_findings(config, _closed(_ENDPOINT, ("endpoint_url",)), where)
    if findings:
        raise config_error("config of an endpoint", findings)


def check_level_config(config: Any, level: str, class_of: Callable[[str], type]) -> None:
    """Checks a level's config, with refs resolved, and the configs of all blocks in it.

    Args:
        config: plain data.
        level: its kind.
        class_of: the class of a block type; raises KeyError with a message for unknown ones.

    Raises:
        ConfigError: lists everything that does not fit, each with its path in the config.
    """
    findings = _schema_findings(config, level_schema(level), "")
    findings += _block_findings(config, "", class_of)
    if findings:
        raise config_error(f"{level} config", findings)


def config_error(subject: str, findings: list[Finding]) -> ConfigError:
    """One error for all findings about a config."""
    lines = "\n".join(f"  - {finding}" for finding in findings[:_SHOWN])
    more = f"\n  - and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    least = "at least " if len(findings) >= _MOST else ""
    error = ConfigError(f"{subject} is not valid ({least}{len(findings)} finding{'s' if len(findings) != 1 else ''}):\n{lines}{more}")
    error.findings = tuple(findings)  # type: ignore[attr-defined]
    return error


def _block_findings(value: Any, where: str, class_of: Callable[[str], type]) -> list[Finding]:
    findings: list[Finding] = []
    if isinstance(value, Mapping):
        block_type = value.get("block_type")
        if isinstance(block_type, str) and "node_id" in value:
            try:
                block_class = class_of(block_type)
            except KeyError as error:
                return [Finding(f"{where}.block_type", str(error))]
            config = value.get("config") or {}
            if isinstance(config, Mapping) and not _holds_interpolation(config):
                findings += _schema_findings(config, block_schema(block_class), f"{where}.config")
            return findings
        for key, item in value.items():
            if len(findings) < _MOST:
                findings += _block_findings(item, f"{where}.{key}" if where else str(key), class_of)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if len(findings) < _MOST:
                findings += _block_findings(item, f"{where}[{index}]", class_of)
    return findings


def _holds_interpolation(config: Mapping[str, Any]) -> bool:
    return "${" in str(config)


def _schema_findings(value: Any, schema: dict[str, Any], where: str) -> list[Finding]:
    import jsonschema

    findings = []
    for error in jsonschema.Draft202012Validator(schema).iter_errors(value):
        findings += _finding(error, where)
        if len(findings) >= _MOST:
            break
    return findings


def _finding(error: Any, where: str) -> list[Finding]:
    """What jsonschema found, in our words."""
    path = where
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    path = path or "config"
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = error.schema.get("properties", {})
        unknown = [name for name in error.instance if name not in known][:_MOST]
        return [Finding(f"{path}.{name}", "unknown key", mend=_sentence(suggest(name, known))) for name in unknown]
    if error.validator == "required":
        return [Finding(path, f"{name!r} is missing") for name in error.validator_value if name not in error.instance]
    if error.validator == "type":
        expected = error.validator_value if isinstance(error.validator_value, str) else " or ".join(error.validator_value)
        return [Finding(path, f"got {describe(error.instance)}", expected)]
    if error.validator == "anyOf":
        expected = " or ".join(str(option.get("type", option)) for option in error.validator_value)
        return [Finding(path, f"got {describe(error.instance)}", expected)]
    if error.validator in ("enum", "const"):
        values = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        return [Finding(path, f"got {describe(error.instance)}", f"one of {values}", _sentence(suggest(error.instance, values)))]
    return [Finding(path, error.message if len(error.message) < _LONGEST else f"{error.message[:_LONGEST]}...")]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] if text else text
