"""OpenAPI 3.1 made from a contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.kinds import get_kind
from wgtorch.serving.wire import CONTENT_TYPE, STREAM_TYPE

_TENSOR = {
    "type": "object",
    "properties": {"$tensor": {"type": "string"}},
    "required": ["$tensor"],
    "additionalProperties": False,
}
_PLAIN: dict[str, dict[str, Any]] = {
    "text": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    "number": {"anyOf": [{"type": "number"}, {"$ref": "#/components/schemas/Tensor"}]},
    "dict": {"type": "object"},
    "list": {"type": "array"},
}
_FINDING = {name: {"type": "string"} for name in ("where", "found", "expected", "mend")}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "findings": {"type": "array", "items": {"type": "object", "properties": _FINDING}},
                "node": {"type": ["string", "null"]},
            },
        }
    },
}


def openapi_of(contract: Mapping[str, Any], *, needs_key: bool = False) -> dict[str, Any]:
    """The description of a server: what ``POST /run`` takes and gives, by the level's own ports."""
    level = contract["level"]
    request, answer = _world(contract) if level == "world" else _stage(contract) if level == "stage" else _task(contract)
    binary = "A safetensors file: the JSON in the entry '__wgtorch__' (U8), each {\"$tensor\": name} an entry of its own."
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": f"wgtorch {level} {contract['id']}", "version": contract["digest"]},
        "paths": {
            "/run": {
                "post": {
                    "summary": f"Runs the {level}",
                    "requestBody": {
                        "required": True,
                        "content": {
                            CONTENT_TYPE: {"schema": request, "x-encoding": binary},
                            "application/json": {"schema": request},
                        },
                    },
                    "responses": {
                        "200": {
                            "description": "The answer, as the Accept header asks; a stream tells events before it.",
                            "content": {
                                CONTENT_TYPE: {"schema": answer, "x-encoding": binary},
                                STREAM_TYPE: {"schema": {"type": "string", "format": "binary"}},
                                "application/json": {"schema": answer},
                            },
                        },
                        "4XX": _refusal("The request is refused; the findings say why."),
                        "5XX": _refusal("The run failed."),
                    },
                }
            },
            **{
                path: {"get": {"summary": text, "responses": {"200": {"description": text, "content": {"application/json": {}}}}}}
                for path, text in (("/spec", "The contract"), ("/health", "Whether the server is there"))
            },
        },
        "components": {"schemas": {"Tensor": _TENSOR, "Error": _ERROR}},
    }
    if needs_key:
        described["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"key": []}]
    return described


def _task(contract: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    inputs = _ports(contract["inputs"])
    request = _object({"inputs": inputs, **_RUN, "outputs": {"type": "array", "items": {"type": "string"}}}, [])
    if inputs["required"]:
        request["required"] = ["inputs"]
    return request, _object({"outputs": _ports(contract["outputs"])}, ["outputs"])


def _stage(contract: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    slots: dict[str, Any] = {"type": "object"}
    request = _object({"state": slots, "action": {}, "content": slots, **_RUN}, ["state"])
    return request, _object({"state": slots, "content": slots, "skipped": {"type": "string"}}, ["state"])


def _world(contract: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    slots = {"type": ["object", "null"], "properties": {name: {} for name in contract["state_schema"]}}
    request = _object({"state": slots, "action": {}, "num_steps": {"type": "integer", "minimum": 0}, **_RUN}, [])
    answer = {"state": slots, "content": {"type": "object"}, "passes": {"type": "integer"}, "seed": {"type": ["integer", "null"]}}
    return request, _object(answer, list(answer))


_RUN: dict[str, Any] = {
    "seed": {"type": ["integer", "null"]},
    "num_loop_steps": {"type": ["integer", "null"], "minimum": 1},
    "timeout": {"type": ["number", "null"], "exclusiveMinimum": 0},
}


def _ports(ports: Mapping[str, Any]) -> dict[str, Any]:
    required = [name for name, port in ports.items() if not port.get("optional")]
    return {"type": "object", "properties": {name: _port(port) for name, port in ports.items()}, "required": required}


def _port(port: Mapping[str, Any]) -> dict[str, Any]:
    kind = get_kind(port["dtype"])
    schema = {"$ref": "#/components/schemas/Tensor"} if kind.is_tensor else dict(_PLAIN.get(kind.name, {}))
    shape = f", of shape {port['shape']}" if port.get("shape") else ""
    return {**schema, "description": f"{kind.name}: {kind.expects}{shape}"}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _refusal(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
