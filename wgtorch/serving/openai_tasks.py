"""Which of OpenAI's endpoints fit a level's ports, and what a request to one of them asks of the level."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wgtorch.core.errors import Finding, RequestError, suggest
from wgtorch.serving.forms import picture

_TEXTS = ("prompt", "text")
_ABOUT_CALLER = {"model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "seed", "n"}
"""Fields that tell of the caller and change no answer, and those that are read elsewhere."""
_MOST = 16  # answers to one request


@dataclass(frozen=True, slots=True)
class Task:
    """What a level can do for one endpoint.

    Args:
        text: the input that the prompt goes to.
        output: what is answered.
        image: the input of a picture, where there is one.
        mask: the input of a mask, where there is one.
    """

    text: str
    output: str
    image: str | None = None
    mask: str | None = None


def tasks_of(contract: Mapping[str, Any]) -> dict[str, Task]:
    """Tasks by endpoint: ``generations``, ``edits``, ``chat``, ``embeddings``; those that the ports fit. With a world one can chat."""
    if contract["level"] == "world":
        return {"chat": Task("action", "text")}
    inputs, outputs = contract.get("inputs", {}), contract.get("outputs", {})
    texts = [name for name, port in inputs.items() if port["dtype"] == "text"]
    text = next((name for name in _TEXTS if name in texts), texts[0] if len(texts) == 1 else None)
    if text is None or contract["level"] not in ("graph", "pipeline"):
        return {}
    image = next((name for name, port in inputs.items() if port["dtype"] == "image" and "mask" not in name), None)
    mask = next((name for name in ("mask_image", "mask") if name in inputs), None)
    needed = {name for name, port in inputs.items() if not port.get("optional")} - {text}
    found: dict[str, Task] = {}

    def first(kind: str) -> str | None:
        return next((name for name, port in outputs.items() if port["dtype"] == kind), None)

    if (output := first("image")) is not None:
        if not needed:
            found["generations"] = Task(text, output)
        if image is not None and needed <= {image, mask}:
            found["edits"] = Task(text, output, image, mask)
    if (output := first("text")) is not None and needed <= {image} and not first("image"):
        found["chat"] = Task(text, output, image)
    if (output := first("embedding")) is not None and not needed:
        found["embeddings"] = Task(text, output)
    return found


def count_and_seed(body: Mapping[str, Any]) -> tuple[int, int | None]:
    """How many answers, and the seed of the first.

    Raises:
        RequestError: one of them is no such number.
    """
    count, seed = body.get("n"), body.get("seed")
    count = 1 if count is None else count
    for name, value, least, most in (("n", count, 1, _MOST), ("seed", seed, -(2**62), 2**62)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most):
            raise RequestError(f"{name} is {value!r:.60}; expected a whole number from {least} to {most}")
    return count, seed


def other_inputs(
    body: Mapping[str, Any], read: set[str], usual: Mapping[str, tuple[Any, ...]], contract: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields that are inputs of the level by their own name.

    Args:
        body: the request.
        read: fields that the endpoint itself has read.
        usual: values of fields that ask for nothing but what is given anyway.
        contract: of the level.

    Raises:
        RequestError: a field is none of these; nothing is left unread without a word.
    """
    inputs = contract.get("inputs", {})
    given, findings = {}, []
    for name, value in body.items():
        if value is None or name in read or name in _ABOUT_CALLER or (name in usual and value in usual[name]):
            continue
        if name in inputs:
            given[name] = value
        else:
            text = f"{value!r}"[:60]
            mend = "" if name in usual else suggest(name, dict.fromkeys([*sorted(read), *usual, *inputs]))
            findings.append(Finding(f"request.{name}", text, f"one of {list(usual[name])}" if name in usual else "no such field", mend))
    if findings:
        raise RequestError("this level cannot do what the request asks for", findings)
    return given


def joined(given: Mapping[str, Any], filled: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs that a request gives by their own names, and those that an endpoint's own fields fill.

    Raises:
        RequestError: one is given both ways.
    """
    if twice := given.keys() & filled.keys():
        findings = [Finding(f"request.{name}", "given beside the endpoint's field that fills it", "one of them") for name in sorted(twice)]
        raise RequestError("the request does not fit", findings)
    return {**given, **filled}


def prompt_of(body: Mapping[str, Any], name: str = "prompt") -> str:
    """A text of the request.

    Raises:
        RequestError: it is missing, empty or no text.
    """
    text = body.get(name)
    if not isinstance(text, str) or not text:
        raise RequestError("the request does not fit", [Finding(f"request.{name}", f"{text!r}"[:60], "a text")])
    return text


def chat_inputs(body: Mapping[str, Any], task: Task, contract: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs from the messages of a conversation: the last one is the prompt, those before it system text and history.

    Where the level has no input for system text or history, they stand before the prompt.

    Raises:
        RequestError: there is no message, or one that this level cannot be told.
    """
    messages, ports = body.get("messages"), contract["inputs"]
    if not isinstance(messages, list) or not messages or not all(isinstance(entry, Mapping) for entry in messages):
        raise RequestError("the request does not fit", [Finding("request.messages", f"{messages!r}"[:60], "a list of messages")])
    system: list[str] = []
    history: list[dict[str, str]] = []
    given: dict[str, Any] = {}
    for index, entry in enumerate(messages):
        text, image = _content(entry.get("content"), f"request.messages[{index}].content")
        role = entry.get("role")
        if role not in ("system", "developer", "user", "assistant"):
            raise RequestError(
                "the request does not fit", [Finding(f"request.messages[{index}].role", f"{role!r}", "user, assistant or system")]
            )
        if image is not None:
            if task.image is None:
                raise RequestError("this level takes no pictures", [Finding(f"request.messages[{index}]", "a picture", "text")])
            if task.image in given:
                raise RequestError("this level takes one picture", [Finding(f"request.messages[{index}]", "another picture", "text")])
            given[task.image] = image.unsqueeze(0)
        if role in ("system", "developer"):
            system.append(text)
        else:
            history.append({"role": role, "content": text})
    if not history or history[-1]["role"] != "user":
        raise RequestError(
            "the request does not fit", [Finding("request.messages", "the last one is not the user's", "a message of the user")]
        )
    prompt = history.pop()["content"]
    before = []
    if system:
        given |= {"system": "\n\n".join(system)} if "system" in ports else {}
        before += [] if "system" in ports else system
    if history:
        given |= {"history": history} if "history" in ports else {}
        before += [] if "history" in ports else [f"{turn['role']}: {turn['content']}" for turn in history]
    if task.image is not None and task.image not in given and not ports[task.image].get("optional"):
        raise RequestError("the request does not fit", [Finding("request.messages", "no picture", "a message with an image_url")])
    return {**given, task.text: "\n\n".join([*before, prompt])}


def _content(content: Any, where: str) -> tuple[str, Any]:
    """Text of a message, and its picture."""
    if isinstance(content, str):
        return content, None
    if not isinstance(content, list):
        raise RequestError("the request does not fit", [Finding(where, f"{content!r}"[:60], "a text, or a list of parts")])
    texts, image = [], None
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url" and image is None:
            image = data_picture(part.get("image_url"), where)
        else:
            raise RequestError("the request does not fit", [Finding(where, f"{part!r}"[:60], "texts, and one image_url")])
    return "\n".join(texts), image


def data_picture(source: Any, where: str) -> Any:
    """A picture [3, H, W] from a ``data:`` address. Other addresses are not fetched: a server that fetches what callers name is theirs.

    Raises:
        RequestError: it is another address, or no picture.
    """
    url = source.get("url") if isinstance(source, Mapping) else source
    try:
        if not isinstance(url, str) or not url.startswith("data:image/") or ";base64," not in url:
            raise ValueError("missing" if url is None else f"{str(url)[:60]!r}")
        return picture(base64.b64decode(url.partition(";base64,")[2], validate=True))
    except (ValueError, binascii.Error) as error:
        raise RequestError("the picture cannot be read", [Finding(where, str(error)[:200], "data:image/png;base64,...")]) from None
