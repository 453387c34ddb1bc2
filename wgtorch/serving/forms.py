"""Requests as HTML forms and ``curl -F`` send them: files and fields by input."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.errors import Finding, RequestError, suggest
from wgtorch.core.json_text import DuplicateKeyError, parse_json
from wgtorch.core.kinds import get_kind

_OF_RUN = {"seed", "num_loop_steps", "timeout", "outputs", "action", "num_steps"}
"""Fields of a request beside its inputs; each is read as JSON where it is JSON."""


async def fields_of(raw: bytes, headers: Any, limit: int) -> list[tuple[str, str | bytes]]:
    """The parts of a multipart body in their order: texts, and the bytes of files.

    Raises:
        RequestError: it is damaged, or a text in it is no UTF-8.
    """
    from python_multipart.multipart import parse_options_header
    from starlette.datastructures import Headers, UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def stream() -> AsyncGenerator[bytes, None]:
        yield bytes(raw)

    words = parse_options_header(headers.get("content-type", ""))[1]
    boundary, charset = words.get(b"boundary", b""), words.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in ("utf-8", "utf8", "us-ascii"):
        raise RequestError("the body cannot be read", [Finding("request", f"charset {charset[:60]!r}", "utf-8")])
    if not boundary or b"--" + boundary + b"--" not in raw[-len(boundary) - 16 :]:
        raise RequestError("the body cannot be read", [Finding("request", "it does not end with its boundary", "multipart/form-data")])
    # What is no UTF-8 the parser would take for Latin-1 without a word. As Latin-1 all bytes come as they are, and are read below.
    plain = Headers({"content-type": f'multipart/form-data; boundary="{boundary.decode("latin-1")}"; charset=latin-1'})
    try:
        form = await MultiPartParser(plain, stream(), max_part_size=limit).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        text = str(getattr(error, "message", error))[:200]
        raise RequestError("the body cannot be read", [Finding("request", text, "multipart/form-data")]) from None
    found: list[tuple[str, str | bytes]] = []
    try:
        for name, value in form.multi_items():
            found.append((_utf_8(name), await value.read() if isinstance(value, UploadFile) else _utf_8(value)))
    except UnicodeDecodeError as error:
        raise RequestError("the body cannot be read", [Finding(f"request.{name}"[:200], str(error), "text in UTF-8")]) from None
    finally:
        await form.close()
    return found


def message_of(fields: list[tuple[str, str | bytes]], contract: Mapping[str, Any]) -> dict[str, Any]:
    """A request from the parts of a form: inputs by name, several parts of one name as a list, and the fields of a run.

    Raises:
        RequestError: lists every part that is unknown or no value of its input.
    """
    ports = contract.get("inputs", {})
    message: dict[str, Any] = {}
    inputs: dict[str, list[Any]] = {}
    findings = []
    for name, value in fields:
        if name in ports:
            try:
                inputs.setdefault(name, []).append(part_value(value, ports[name]["dtype"]))
            except ValueError as error:
                findings.append(Finding(f"request.{name}", str(error)[:200], get_kind(ports[name]["dtype"]).expects))
        elif name in _OF_RUN and isinstance(value, str):
            try:
                message[name] = _json(value) if name != "action" else value
            except DuplicateKeyError as error:
                findings.append(Finding(f"request.{name}", str(error), "each key once"))
                continue
            if name == "outputs" and isinstance(message[name], str):
                message[name] = [part.strip() for part in message[name].split(",")]
        else:
            known = ("action", "num_steps", "seed", "timeout") if contract["level"] == "world" else (*ports, *_OF_RUN)
            findings.append(Finding(f"request.{name}", "unknown field", mend=suggest(name, known)))
    if findings:
        raise RequestError("the form does not fit", findings)
    if inputs:
        message["inputs"] = {name: values[0] if len(values) == 1 else values for name, values in inputs.items()}
    return message


def part_value(value: str | bytes, kind: str) -> Any:
    """A part as a value of a port's kind: what is neither text nor a file of its kind is read as JSON where it is JSON.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str):
        return value if kind == "text" else _json(value)
    if kind == "text":
        return value.decode()
    return picture(value) if kind == "image" else sound(value) if kind == "audio" else _json(value.decode())


def picture(content: bytes) -> Tensor:
    """A picture's file as [3, H, W] in [0, 1].

    Raises:
        ValueError: it is none.
    """
    from wgtorch.integrations.api.media import image_of

    return image_of(content)


def sound(content: bytes) -> Tensor:
    """A WAV file as [1, samples] in [-1, 1].

    Raises:
        ValueError: it is none.
    """
    from wgtorch.integrations.api.media import audio_of

    return audio_of(content)[0]


def _utf_8(text: str) -> str:
    return text.encode("latin-1").decode()


def _json(text: str) -> Any:
    try:
        return parse_json(text)
    except DuplicateKeyError:
        raise
    except (ValueError, RecursionError):  # no JSON, or nested too deep
        return text
