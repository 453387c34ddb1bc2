"""In which form an answer goes back, settled before anything runs; and tensors within JSON."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from starlette.responses import JSONResponse, Response
from torch import Tensor

from wgtorch.core.errors import Finding, RequestError
from wgtorch.core.kinds import describe
from wgtorch.serving.faults import fault_of, status_of
from wgtorch.serving.wire import CONTENT_TYPE, STREAM_TYPE, body
from wgtorch.storage.encoding import images_in
from wgtorch.storage.media import SAMPLING_RATE, png_bytes, sounds_in, video_bytes, wav_bytes, writes_mp4

JSON_TYPE = "application/json"
EVENTS_TYPE = "text/event-stream"
MULTIPART_TYPE = "multipart/form-data"
_MEDIA = {"image/png": "image", "video/mp4": "video", "image/gif": "video", "audio/wav": "audio"}
"""Media types of one output, and the kind that the output must have."""
_OF_STATES = ("image/png", "audio/wav")
"""Media types of what a world's State holds: its first picture, its first sound."""
STATE = "state"


def content_type(headers: Mapping[str, str]) -> str:
    """The type of a body, whose letters may be of any case, without its parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Form:
    """The form of an answer.

    Args:
        media_type: what it is sent as.
        output: the output that is sent alone, ``state`` where it is what a world's State shows; None where the whole answer is.
    """

    media_type: str
    output: str | None = None

    @property
    def is_stream(self) -> bool:
        """True where what happens on the way is told too."""
        return self.media_type in (STREAM_TYPE, EVENTS_TYPE)


def form_for(accept: str, contract: Mapping[str, Any], message: Mapping[str, Any]) -> Form:
    """The form that the caller likes best of those that this level can answer in.

    Args:
        accept: the header; empty for ``application/x-wgtorch``.
        contract: of the level.
        message: the request, which may ask for some outputs only.

    Raises:
        RequestError: none of what it asks for can be given; says what can.
    """
    for wish in _wishes(accept):
        if wish in ("*/*", "application/*", CONTENT_TYPE):
            return Form(CONTENT_TYPE)
        if wish in (STREAM_TYPE, EVENTS_TYPE, JSON_TYPE):
            return Form(wish)
        for media_type in _MEDIA:
            if wish == media_type or wish == f"{media_type.split('/')[0]}/*":
                found = _media_form(media_type, contract, message)
                if found is not None:
                    return found
    expected = f"one of {', '.join(media_types(contract))}"
    raise RequestError("nothing that the caller accepts can be given", [Finding("Accept", accept[:200], expected)], status=406)


def media_types(contract: Mapping[str, Any]) -> list[str]:
    """What a level can answer in."""
    kinds = {port["dtype"] for port in contract.get("outputs", {}).values()}
    media = [name for name, kind in _MEDIA.items() if kind in kinds and (name != "video/mp4" or writes_mp4())]
    if contract.get("level") == "world":
        media = list(_OF_STATES)
    return [CONTENT_TYPE, STREAM_TYPE, JSON_TYPE, EVENTS_TYPE, *media]


def _wishes(accept: str) -> list[str]:
    """Media types in an Accept header, the most wanted first."""
    found = []
    for place, entry in enumerate(accept.split(",")):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        try:
            found.append((-float(weight), place, name))
        except ValueError:
            found.append((0.0, place, name))
    return [name for weight, _, name in sorted(found) if name and weight < 0] if accept.strip() else ["*/*"]


def _media_form(media_type: str, contract: Mapping[str, Any], message: Mapping[str, Any]) -> Form | None:
    if contract.get("level") == "world":
        return Form(media_type, STATE) if media_type in _OF_STATES else None
    ports = contract.get("outputs", {})
    asked = message.get("outputs")
    names = [name for name in asked if name in ports] if isinstance(asked, list) else list(ports)
    name = next((name for name in names if ports[name]["dtype"] == _MEDIA[media_type]), None)
    if name is None or (media_type == "video/mp4" and not writes_mp4()):
        return None
    return Form(media_type, name)


def media_body(form: Form, answer: Mapping[str, Any]) -> bytes:
    """One output of an answer as a file: pictures of a batch side by side, its first video, its first sound.

    Raises:
        RequestError: the level gave no value there, or one that is none; a world's State holds no such thing yet (404).
    """
    if form.output == STATE and "state" in answer:
        return _shown(form, answer["state"] or {})
    outputs = answer["outputs"]
    value = outputs.get(form.output)
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Tensor) for item in value):
        value = value[0]
    if not isinstance(value, Tensor):
        raise RequestError(f"output {form.output!r} is {describe(value)}, which is no {form.media_type}", status=500)
    if form.media_type == "image/png":
        return png_bytes(value)
    if form.media_type == "audio/wav":
        rate = next(
            (outputs[name] for name in ("sampling_rate", "sample_rate") if isinstance(outputs.get(name), (int, float))), SAMPLING_RATE
        )
        return wav_bytes(value[0] if value.dim() == 3 else value, int(rate))
    return video_bytes(value[0] if value.dim() == 5 else value, form.media_type.split("/")[1])


def respond(answer: Mapping[str, Any], form: Form) -> Response:
    """An answer in the form that was settled."""
    try:
        if form.media_type == JSON_TYPE:
            return Response(json_text(answer), media_type=JSON_TYPE)
        if form.output is not None:
            return Response(media_body(form, answer), media_type=form.media_type, headers={"X-Wgtorch-Output": form.output})
        return Response(body(answer), media_type=CONTENT_TYPE)
    except Exception as error:  # what a block gave cannot travel
        return JSONResponse(fault_of(error), status_code=status_of(error) if isinstance(error, RequestError) else 500)


def _shown(form: Form, state: Mapping[str, Any]) -> bytes:
    for slot, value in state.items():
        if form.media_type == "image/png":
            for _, image in images_in(value, slot):
                return png_bytes(image)
        else:
            for audio, rate in sounds_in(value):
                return wav_bytes(audio, rate)
    raise RequestError(f"the world's State holds nothing that can be sent as {form.media_type} now", status=404)


# --- tensors within JSON ----------------------------------------------------------------------------------------------


def json_text(answer: Any) -> str:
    """An answer as JSON, each tensor in it as ``{"$tensor": {"dtype": ..., "shape": [...], "data": base64}}``.

    Numbers that JSON has no word for are ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.

    Raises:
        TypeError: something in it is no data.
    """
    return json.dumps(_plain(answer), allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {"$tensor": inline_tensor(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def inline_tensor(value: Tensor) -> dict[str, Any]:
    """A tensor as data: little endian bytes in base64."""
    held = value.detach().cpu().contiguous()
    raw = held.reshape(-1).view(torch.uint8).numpy().tobytes() if held.numel() else b""
    return {"dtype": str(held.dtype).removeprefix("torch."), "shape": list(held.shape), "data": base64.b64encode(raw).decode()}
