"""What a server takes, learnt from its refusals for each address, model and kind of call, and kept."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from wgtorch.core.cache_folder import cache_folder
from wgtorch.core.checkpoint.atomic import write_file
from wgtorch.integrations.api.secrets import is_loopback

SCHEMA_MODES = ("json_schema", "json_object", "words")
"""Ways to ask for a value that follows a schema, the strictest first. In words it is asked for in every case."""
_MAY_MISS = ("temperature", "top_p", "seed", "stop", "stream", "stream_options", "encoding_format")
_OTHER_NAME = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_A_VALUE = re.compile(r"too (large|long|big|high|small|low)|at (most|least)|maximum|minimum|between|range|exceed|[<>]=|(less|greater) than")
_OTHER_CAUSE = re.compile(
    r"model .*(not |n't )(found|exist)|no such model|unknown model|context|too long|too large|credit|billing|quota|api key"
)
_KEPT_FOR = 7 * 24 * 3600.0  # seconds after which a server may have learnt something


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one model at one address takes in one kind of call.

    Args:
        without: options that it refuses.
        renamed: options that it has under another name.
        system: where the instructions go: in a turn of role ``system``, or in front of the first ``user`` turn.
        schema: one of :data:`SCHEMA_MODES`.
        image: how a picture is given: as an ``object`` with its address, or the address as ``text``.
    """

    without: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()
    system: str = "system"
    schema: str = SCHEMA_MODES[0]
    image: str = "object"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a server does not take a request.

    Args:
        status: of HTTP.
        words: its own, in lower case.
        named: entries of the request that it names outright.
    """

    status: int
    words: str
    named: tuple[str, ...] = ()


def learnt(known: Capabilities, refusal: Refusal, body: Mapping[str, Any], *, has_schema: bool) -> Capabilities | None:
    """What a refusal teaches; None where it is not about the form of the request, or teaches nothing new.

    Args:
        known: how the request was made.
        refusal: what came back.
        body: the request, as it was sent.
        has_schema: a value that follows a schema is asked for.
    """
    if refusal.status not in (400, 405, 415, 422) and refusal.status < 500:
        return None
    is_server_error = refusal.status >= 500
    about = [name for name in body if name in refusal.named or _mentions(refusal.words, "streaming" if name == "stream" else name)]
    for name, other in _OTHER_NAME.items():
        wants_other = _mentions(refusal.words, other)
        if name in body and name not in known.renamed and (wants_other or (name in about and not _A_VALUE.search(refusal.words))):
            return replace(known, renamed=(*known.renamed, name))
    about_schema = re.search(
        r"response_format|text\.format|output_config|output_format|json_schema|json_object|json mode|structured|guided|grammar",
        refusal.words,
    )
    if has_schema and (about_schema or "response_format" in refusal.named) and known.schema != SCHEMA_MODES[-1]:
        return replace(known, schema=SCHEMA_MODES[SCHEMA_MODES.index(known.schema) + 1])
    if known.system == "system" and _has_system(body) and _NO_SYSTEM.search(refusal.words):
        return replace(known, system="user")
    if is_server_error:
        return None
    if known.image == "object" and re.search(r"image_url", refusal.words) and _has_image(body):
        return replace(known, image="text")
    if not _A_VALUE.search(refusal.words):
        may_miss = (*_MAY_MISS, *(() if has_schema else ("response_format",)))
        missing = [name for name in about if name in may_miss and name not in known.without]
        if missing:
            return replace(known, without=(*known.without, *missing))
    says_nothing = not about and not refusal.named and not _OTHER_CAUSE.search(refusal.words)
    if (
        has_schema
        and says_nothing
        and any(name in body for name in ("response_format", "output_config", "text"))
        and known.schema != SCHEMA_MODES[-1]
    ):
        return replace(known, schema=SCHEMA_MODES[SCHEMA_MODES.index(known.schema) + 1])
    return None


def fitted(known: Capabilities, body: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A request as the server takes it, and the options that had to be left out of it."""
    without = {*known.without, *(("stream_options",) if "stream" in known.without else ())}
    left_out = tuple(name for name in body if name in without)
    sent = {name: value for name, value in body.items() if name not in left_out}
    for name in known.renamed:
        if name in sent:
            sent[_OTHER_NAME[name]] = sent.pop(name)
    if known.system == "user" and _has_system(sent):
        sent["messages"] = _system_in_first_turn(sent["messages"])
    if known.image == "text" and _has_image(sent):
        sent["messages"] = [_with_addresses(message) for message in sent["messages"]]
    return sent, left_out


def _mentions(words: str, name: str) -> bool:
    return re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", words) is not None


_NO_SYSTEM = re.compile(r"\bsystem\b|roles? must alternate|\buser\b\W{0,3}(?:(?:and|or)\W{1,3})?assistant\b", re.IGNORECASE)
"""Of role ``system``, by its name or by those of the roles that there are."""


def _has_system(body: Mapping[str, Any]) -> bool:
    return any(message.get("role") == "system" for message in body.get("messages") or ())


def _has_image(body: Mapping[str, Any]) -> bool:
    contents = (message.get("content") for message in body.get("messages") or ())
    return any(part.get("type") == "image_url" for content in contents if isinstance(content, list) for part in content)


def _system_in_first_turn(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    told = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    first, *rest = [message for message in messages if message["role"] != "system"]
    content = first["content"]
    whole = f"{told}\n\n{content}" if isinstance(content, str) else [{"type": "text", "text": told}, *content]
    return [{**first, "content": whole}, *rest]


def _with_addresses(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(message.get("content"), list):
        return message
    parts = [{**part, "image_url": part["image_url"]["url"]} if part["type"] == "image_url" else part for part in message["content"]]
    return {**message, "content": parts}


# --- what this process knows, and what is kept in a file ----------------------------------------------------------------

_known: dict[str, Capabilities] = {}
_lock = threading.Lock()
_was_read = False


def known_of(endpoint: str, model: str, call: str) -> Capabilities:
    """What was learnt of a model at an address."""
    with _lock:
        _read_once()
        return _known.get(_key(endpoint, model, call), Capabilities())


def remember(endpoint: str, model: str, call: str, found: Capabilities) -> None:
    """Keeps what was learnt: for this process, and in a file of the user's cache for the next.

    Of a server on this machine nothing goes into the file: tomorrow another may listen there.
    """
    with _lock:
        _known[_key(endpoint, model, call)] = found
        if not is_loopback(endpoint):
            _write(_key(endpoint, model, call), found)


def forget() -> None:
    """Forgets what this process knows; the file stays."""
    global _was_read
    with _lock:
        _known.clear()
        _was_read = False


def _key(endpoint: str, model: str, call: str) -> str:
    return f"{call} {model} {endpoint}"


def _path() -> Path:
    return cache_folder() / "api_capabilities.json"


def _read_once() -> None:
    global _was_read
    if _was_read:
        return
    _was_read = True
    for key, entry in _stored().items():
        plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
        _known.setdefault(key, Capabilities(**plain))


def _stored() -> dict[str, dict[str, Any]]:
    """What the file holds and is not too old; nothing where it cannot be read, since it only saves requests."""
    names = {entry.name for entry in fields(Capabilities)}
    try:
        stored: Any = json.loads(_path().read_text(encoding="utf-8"))
        entries: Iterable[tuple[str, Any]] = stored.items()
        fresh = [(key, entry) for key, entry in entries if time.time() - entry["when"] < _KEPT_FOR and entry["schema"] in SCHEMA_MODES]
        return {key: {name: entry[name] for name in names} for key, entry in fresh}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(key: str, found: Capabilities) -> None:
    try:
        try:
            stored = json.loads(_path().read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = {}
        stored[key] = {**asdict(found), "when": time.time()}
        _path().parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(stored, indent=1, sort_keys=True)
        write_file(_path(), lambda fresh: fresh.write_text(text, encoding="utf-8"))
    except (OSError, TypeError):  # a cache that cannot be written costs a request in the next process
        return
