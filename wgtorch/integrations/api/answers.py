"""What comes back from an API, in a form that fits a file, and what was asked, in a form that can be looked up."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import suggest
from wgtorch.core.json_text import expect, read_json
from wgtorch.integrations.models.errors import ReplayError


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        text: of a model that writes.
        finish_reason: why it ended: ``stop``, ``length``, ``tools``, or the provider's own word.
        pieces: the text as it came in a stream; empty where it was not streamed.
        blob: bytes of a picture (PNG), a recording (WAV) or vectors (float32).
        shape: of the vectors [B, D].
        prompt_tokens, completion_tokens: as the provider counted; None where it did not say.
        left_out: options that the provider does not have.
        thoughts: of a model that tells them beside its text.
        cached_tokens: of the prompt, that the provider had read before.
    """

    text: str = ""
    finish_reason: str = "stop"
    pieces: tuple[str, ...] = ()
    blob: bytes = b""
    shape: tuple[int, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    left_out: tuple[str, ...] = ()
    thoughts: str = ""
    cached_tokens: int | None = None

    @property
    def tokens(self) -> int | None:
        """All tokens of the call; None where the provider did not say."""
        if self.prompt_tokens is None and self.completion_tokens is None:
            return None
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)

    def to_json(self) -> str:
        """All but the bytes."""
        text = json.dumps(plain := {name: getattr(self, name) for name in _PLAIN}, ensure_ascii=False)
        is_whole = not any("\ud800" <= letter <= "\udfff" for letter in text)  # half a surrogate pair has no UTF-8
        return text if is_whole else json.dumps(plain)

    @classmethod
    def from_json(cls, text: str, blob: bytes = b"") -> Answer:
        """What :meth:`to_json` wrote, and the bytes.

        Raises:
            ReplayError: they are something else.
        """
        where = "a recorded answer"
        raw = expect(text, str, "it", where, ReplayError).encode(errors="surrogatepass")
        entries = expect(read_json(raw, where, ReplayError), dict, "it", where, ReplayError)
        for name, value in entries.items():
            if name not in _PLAIN:
                raise ReplayError(f"{where}: unknown {name[:80]!r}; {suggest(name[:80], _PLAIN)}")
            kind = int if name == "shape" else str
            expect(value, _HOLDS[name], name, where, ReplayError)
            for item in value if isinstance(value, list) else ():
                expect(item, kind, f"a part of {name}", where, ReplayError)
        plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()}
        answer = cls(**plain, blob=expect(blob, bytes, "its blob", where, ReplayError))
        if answer.shape and (min(answer.shape) < 0 or 4 * math.prod(answer.shape) != len(blob)):
            raise ReplayError(f"{where}: {len(blob)} bytes of vectors {list(answer.shape)[:8]}; damaged")
        return answer


_PLAIN = tuple(entry.name for entry in fields(Answer) if entry.name != "blob")
_HOLDS: dict[str, Any] = {
    name: list if name in ("pieces", "shape", "left_out") else (int, type(None)) if name.endswith("_tokens") else str for name in _PLAIN
}


@dataclass(frozen=True, slots=True)
class Question:
    """One call as it is looked up: what is asked, and which draw of the answer.

    Args:
        kind: ``complete``, ``embed``, ``paint``, ``transcribe`` or ``speak``.
        request: what is asked, of :mod:`wgtorch.integrations.models.requests`.
        provider, model: who is asked.
        options: what the request has beside.
    """

    kind: str
    request: Any
    provider: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def draw(self) -> str:
        """The seed of the answer; empty where it has none."""
        seed = getattr(self.request, "seed", None)
        return "" if seed is None else str(seed)

    def described(self) -> str:
        """The question as canonical JSON, tensors by their content's hash; without the seed, and no key is in it."""
        body = {"kind": self.kind, "provider": self.provider, "model": self.model, "options": self.options, "request": _plain(self.request)}
        return json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(described: str) -> str:
    """The key under which a question is kept."""
    return hashlib.sha256(described.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Tensor):
        return {"tensor": list(value.shape), "sha256": _hash(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    entries = ((name, getattr(value, name)) for name in value.__dataclass_fields__ if name != "seed")
    return {name: _plain(entry) for name, entry in entries if entry is not None and entry != () and entry != {}}


def _hash(value: Tensor) -> str:
    # Pictures and sound are sent with 8 and 16 bits, so what rounds to the same is the same request.
    coarse = (value.detach().to("cpu", torch.float32).clamp(-1, 1) * 32767).round().to(torch.int16).contiguous()
    return hashlib.sha256(coarse.numpy().tobytes()).hexdigest()
