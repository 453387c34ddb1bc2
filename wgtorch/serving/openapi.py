"""OpenAPI 3.1 made from a contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.kinds import get_kind
from wgtorch.serving.negotiation import EVENTS_TYPE, JSON_TYPE, media_types
from wgtorch.serving.openai_tasks import tasks_of
from wgtorch.serving.wire import CONTENT_TYPE

_INLINE = {
    "type": "object",
    "properties": {
        "dtype": {"type": "string", "enum": ["float32", "float16", "bfloat16", "float64", "uint8", "int32", "int64", "bool"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "data": {"type": "string", "contentEncoding": "base64", "description": "little endian bytes"},
    },
    "required": ["dtype", "shape", "data"],
    "additionalProperties": False,
    "example": {"dtype": "float32", "shape": [1], "data": "AACAPw=="},
}
_TENSOR = {
    "type": "object",
    "description": "In JSON the tensor itself; in a safetensors body the name of the entry that holds it.",
    "properties": {"$tensor": {"anyOf": [_INLINE, {"type": "string"}]}},
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
                            "description": "The answer in the form that Accept asks for, settled before anything runs.",
                            "content": _answers(contract, answer, binary),
                        },
                        "4XX": _refusal("The request is refused; the findings say why."),
                        "5XX": _refusal("The run failed."),
                    },
                }
            },
            **_front(contract),
            **(_sessions(request, answer) if level == "world" else {}),
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


def _answers(contract: Mapping[str, Any], answer: dict[str, Any], binary: str) -> dict[str, Any]:
    """The forms of an answer."""
    found: dict[str, Any] = {}
    for media_type in media_types(contract):
        if media_type == CONTENT_TYPE:
            found[media_type] = {"schema": answer, "x-encoding": binary}
        elif media_type == JSON_TYPE:
            found[media_type] = {"schema": answer}
        else:
            found[media_type] = {"schema": {"type": "string"} if media_type == EVENTS_TYPE else {"type": "string", "format": "binary"}}
    return found


def _front(contract: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's endpoints that the ports fit."""
    text, number, whole = {"type": "string"}, {"type": "number"}, {"type": "integer"}
    count, seed = {**whole, "minimum": 1, "maximum": 16}, {"type": ["integer", "null"], "minimum": -(2**62), "maximum": 2**62}
    message = _object({"role": {"enum": ["system", "user", "assistant"]}, "content": text}, ["role", "content"])
    prompt = {**text, "minLength": 1}
    picture = {**text, "description": "data:image/png;base64,..."}
    bodies: dict[str, tuple[str, dict[str, Any], list[str]]] = {
        "generations": ("/v1/images/generations", {"prompt": prompt, "n": count, "seed": seed}, ["prompt"]),
        "edits": ("/v1/images/edits", {"prompt": prompt, "image": picture, "mask": picture, "seed": seed}, ["prompt", "image"]),
        "chat": ("/v1/chat/completions", {"messages": {"type": "array", "items": message, "minItems": 1}, "stream": {"type": "boolean"},
                                          "temperature": number, "max_tokens": whole, "seed": seed}, ["messages"]),
        "embeddings": ("/v1/embeddings", {"input": {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}}, ["input"]),
    }  # fmt: skip
    named = {"parameters": [{"name": "name", "in": "path", "required": True, "schema": text}]}
    found: dict[str, Any] = {
        "/v1/models": {"get": _operation("OpenAI's list of models: this one")},
        "/v1/models/{name}": {**named, "get": _operation("That model")},
    }
    for name in tasks_of(contract):
        path, fields, needed = bodies[name]
        found[path] = {"post": _operation(f"OpenAI's {path.removeprefix('/v1/')}", _object(fields, needed))}
    return found


def _sessions(request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """The addresses of a world's sessions."""
    one, step = "/sessions/{session_id}", _object({"step": {"type": "integer", "minimum": 0}}, [])
    named = {"parameters": [{"name": "session_id", "in": "path", "required": True, "schema": {"type": "string"}}]}
    slots = {"type": "object"}
    return {
        "/sessions": {"post": _operation("Begins a life", _object({"seed": {"type": "integer"}}, []), status="201")},
        one: {
            **named,
            "get": _operation("Where a life stands"),
            "patch": _operation("Edits slots of the State", slots),
            "delete": {"summary": "Ends a life", "responses": {"204": {"description": "Ended"}, "4XX": _refusal("Refused")}},
        },
        f"{one}/act": {**named, "post": _operation("Lives on, as POST /run", request, answer)},
        f"{one}/fork": {**named, "post": _operation("Another session with the same past", step, status="201")},
        f"{one}/rewind": {**named, "post": _operation("Back to the end of a step", {**step, "required": ["step"]})},
        f"{one}/page": {**named, "get": _operation("The life as a page", media_type="text/html")},
        f"{one}/export": {**named, "get": _operation("The life's log, to take away", media_type="application/zip")},
    }


def _operation(
    summary: str,
    body: dict[str, Any] | None = None,
    answer: dict[str, Any] | None = None,
    status: str = "200",
    media_type: str = JSON_TYPE,
) -> dict[str, Any]:
    asked = {} if body is None else {"requestBody": {"required": True, "content": {JSON_TYPE: {"schema": body}}}}
    given = {"description": summary, "content": {media_type: {} if answer is None else {"schema": answer}}}
    responses = {status: given, "4XX": _refusal("The request is refused; the findings say why."), "5XX": _refusal("The run failed.")}
    return {"summary": summary, **asked, "responses": responses}


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
