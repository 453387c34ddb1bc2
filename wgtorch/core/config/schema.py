"""JSON Schemas of configs, one for each level, and the checks made with them before anything is built."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wgtorch.core.errors import ConfigError, Finding, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.registry import LevelRegistry
from wgtorch.core.structure import _NODE_ID, Edge, Exposed

SCHEMA_VERSION = "1.0"
_SHOWN = 20  # findings in one message
_MOST = 100  # findings that are looked for
_LONGEST = 300  # letters of what jsonschema says, which holds the value

# --- what schemas of levels are made of -------------------------------------------------------------------------------


def closed(properties: dict[str, Any], required: Iterable[str] = ()) -> dict[str, Any]:
    """The schema of a mapping with these keys and no others."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    """The schema of a list."""
    return {"type": "array", "items": items}


def one_of(*options: dict[str, Any]) -> dict[str, Any]:
    """The schema of what fits one of several."""
    return {"anyOf": list(options)}


TEXT: dict[str, Any] = {"type": "string"}
TEXTS = listed(TEXT)
DATA: dict[str, Any] = {"type": "object"}
NULL: dict[str, Any] = {"type": "null"}
CONDITION = one_of(TEXT, listed({"type": ["string", "integer"]}))
EDGE = closed(dict.fromkeys(Edge.__dataclass_fields__, TEXT), Edge.__dataclass_fields__)
EXPOSED = closed(dict.fromkeys(Exposed.__dataclass_fields__, TEXT), ("node_id", "port_name"))
_ID: dict[str, Any] = {"type": "string", "pattern": f"^{_NODE_ID.pattern}$"}
_NAME: dict[str, Any] = {"type": ["string", "null"]}
PLACE: dict[str, Any] = {
    "node_id": _ID,
    "trainable": {"type": "boolean"},
    "adapter": one_of(_NAME, {"type": "object", "additionalProperties": {"type": "number"}}, listed(_NAME)),
    "inputs": DATA,
    "map": one_of(TEXT, TEXTS),
    "timeout": {"type": ["number", "null"], "exclusiveMinimum": 0},
    "condition": CONDITION,
    "retry": one_of(
        {"type": "integer", "minimum": 1},
        closed(
            {
                "times": {"type": "integer", "minimum": 1},
                "wait": {"type": "number", "minimum": 0},
                "factor": {"type": "number", "minimum": 1},
                "longest": {"type": "number", "minimum": 0},
                "on": TEXT,
            }
        ),
    ),
    "reuse": {"type": "boolean"},
    "share": TEXT,
}
"""What a config says of a node beside what stands there."""
ENDPOINT: dict[str, Any] = {
    "endpoint_url": TEXT,
    "endpoint": closed(
        {
            "contract": DATA,
            "api_key_env": _NAME,
            "timeout": {"type": "number", "exclusiveMinimum": 0},
            "retries": {"type": "integer", "minimum": 0},
        }
    ),
}
"""What stands in place of a child that runs at another endpoint."""


# --- levels -----------------------------------------------------------------------------------------------------------


@functools.cache
def level_schema(level: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one level's configs; configs of the levels below are in ``$defs``."""
    top = LevelRegistry.get(level)
    definitions: dict[str, Any] = {}
    cls = top
    while _is_level(cls):
        definitions |= {cls.level: _level(cls), f"{cls.level}_node": _node(cls)}
        cls = cls.child_class
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"wgtorch {level}",
        **_level(top),
        "$defs": definitions,
    }


@functools.cache
def _flat_schema(level: str) -> dict[str, Any]:
    """The schema of a level without what is below it."""
    cls = LevelRegistry.get(level)
    return {**_level(cls, DATA), "$defs": {f"{cls.level}_node": _node(cls, DATA)}}


def _level(cls: type[Any], child: dict[str, Any] | None = None) -> dict[str, Any]:
    child = child or {"$ref": f"#/$defs/{cls.child_class.level}"}
    nodes = cls.nodes_schema({"$ref": f"#/$defs/{cls.level}_node"}, child)
    properties = {"schema_version": TEXT, "kind": {"const": cls.level}, cls.id_key: _ID, "metadata": DATA, **nodes, **cls.config_properties}
    return closed(properties, ("kind", cls.id_key, cls.nodes_key))


def _node(cls: type[Any], child: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = {**PLACE, "template": TEXT, "params": DATA, **ENDPOINT}
    if _is_level(cls.child_class):
        properties["config"] = child or {"$ref": f"#/$defs/{cls.child_class.level}"}
    else:
        properties |= {"block_type": TEXT, "config": DATA}
    return closed(properties, ("node_id",))


def _is_level(cls: type[Any]) -> bool:
    return cls.level in LevelRegistry


# --- blocks -----------------------------------------------------------------------------------------------------------


@functools.cache
def block_schema(block_class: type) -> dict[str, Any]:
    """The JSON Schema of a block's config, from the types of its constructor's arguments."""
    init: Callable[..., Any] = block_class.__init__  # type: ignore[misc]
    schema = arguments_schema(init, list(inspect.signature(init).parameters.values())[1:])
    # Any block's weights may come from a file that its config refers to.
    schema["properties"].setdefault("checkpoint_ref", {"type": ["string", "null"]})
    return schema


def arguments_schema(function: Callable[..., Any], parameters: Iterable[inspect.Parameter] | None = None) -> dict[str, Any]:
    """The JSON Schema of a mapping of a function's keyword arguments, from their types; what no schema can tell takes anything.

    Args:
        function: a block's constructor, a template.
        parameters: those to describe; all of them by default.
    """
    properties: dict[str, Any] = {}
    required: list[str] = []
    is_open = False
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    for parameter in inspect.signature(function).parameters.values() if parameters is None else parameters:
        name = parameter.name
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            properties[name] = _annotation_schema(hints.get(name, parameter.annotation), parameter.default)
            if parameter.default is parameter.empty:
                required.append(name)
    schema = closed(properties, required)
    schema["additionalProperties"] = is_open
    return schema


def argument_findings(function: Callable[..., Any], given: Mapping[str, Any], where: str) -> list[Finding]:
    """What of keyword arguments that are plain data does not fit the types of a function's parameters.

    Parameters that may take a mapping are left to the function, which knows what must be in it.
    """
    properties = arguments_schema(function)["properties"]
    simple = {name: entry for name, entry in properties.items() if "'object'" not in str(entry)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items() if name in simple}
    plain = {name: value for name, value in plain.items() if isinstance(value, (str, int, float, bool, list, dict, type(None)))}
    return _schema_findings(plain, {"type": "object", "properties": simple}, where)


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
    if default is not None or {"type": "null"} in schema.get("anyOf", ()):
        return schema
    return {"anyOf": [schema, {"type": "null"}]}


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
    findings = _schema_findings(config, closed(ENDPOINT, ("endpoint_url",)), where)
    if findings:
        raise config_error("config of an endpoint", findings)


def check_level_config(config: Any, cls: type[Any], class_of: Callable[[str], type]) -> None:
    """Checks a level's config, with refs resolved, and those of all levels and blocks in it.

    Args:
        config: plain data.
        cls: the level's class.
        class_of: the class of a block type; raises KeyError with a message for unknown ones.

    Raises:
        ConfigError: lists everything that does not fit, each with its path in the config.
    """
    findings: list[Finding] = []
    stack = [(cls, config, "")]
    while stack and len(findings) < _MOST:
        level, tree, where = stack.pop()
        if (version := tree.get("schema_version", SCHEMA_VERSION)) != SCHEMA_VERSION:
            raise ConfigError(
                f"{where or level.level} config: schema_version {version!r} is not known here; this version reads {SCHEMA_VERSION!r}. "
                "Update wgtorch, or write the config anew."
            )
        findings += _schema_findings(tree, _flat_schema(level.level), where)
        below: list[tuple[type[Any], Any, str]] = []
        for path, entry in level.nodes_in_config(tree):
            if len(findings) >= _MOST:
                break
            path = f"{where}.{path}" if where else path
            if isinstance(entry.get("block_type"), str) and not _is_level(level.child_class):
                findings += _block_findings(entry, path.removesuffix(".config"), class_of)
            elif isinstance(inner := entry.get("config"), Mapping) and "endpoint_url" not in (entry if path.endswith(".config") else inner):
                child = level.child_class
                if not _is_level(child) and isinstance(inner.get("kind"), str) and inner["kind"] in LevelRegistry:
                    child = LevelRegistry.get(inner["kind"])
                if _is_level(child):
                    below.append((child, inner, path))
        stack += reversed(below)
    if findings:
        raise config_error(f"{cls.level} config", findings)


def config_error(subject: str, findings: list[Finding]) -> ConfigError:
    """One error for all findings about a config."""
    lines = "\n".join(f"  - {finding}" for finding in findings[:_SHOWN])
    more = f"\n  - and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    least = "at least " if len(findings) >= _MOST else ""
    error = ConfigError(f"{subject} is not valid ({least}{len(findings)} finding{'s' if len(findings) != 1 else ''}):\n{lines}{more}")
    error.findings = tuple(findings)  # type: ignore[attr-defined]
    return error


def _block_findings(entry: Mapping[str, Any], where: str, class_of: Callable[[str], type]) -> list[Finding]:
    try:
        block_class = class_of(entry["block_type"])
    except KeyError as error:
        return [Finding(f"{where}.block_type", str(error))]
    config = entry.get("config") or {}
    if not isinstance(config, Mapping) or "${" in str(config):
        return []
    return _schema_findings(config, block_schema(block_class), f"{where}.config")


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
