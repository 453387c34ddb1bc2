"""What a scripted server is told to say, and what it saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, and what goes wrong with it.

    Args:
        text: of a model that writes; of a transcription.
        image: file of a picture; one is made where left out.
        audio: WAV file of a recording; one is made where left out.
        vectors: embeddings [B][D]; made where left out.
        tokens: of prompt and answer; counted by words where left out.
        finish: why the answer ended, in OpenAI's words (``stop``, ``length``, ``content_filter``).
        refusal: the model's refusal, in place of a text.
        status: of HTTP; from 400 on the body is an error of ``code`` with ``text`` as its message.
        code: of the error.
        headers: more of them.
        delay: seconds before the first byte.
        until: asked again and again before that, until it is true.
        drip: seconds between pieces of the body.
        hang: never answer.
        cut: close the connection after so many pieces of a stream, or bytes of another body.
        raw: the whole body, in place of all this.
    """

    text: str = ""
    image: bytes | None = None
    audio: bytes | None = None
    vectors: Sequence[Sequence[float]] | None = None
    tokens: tuple[int, int] | None = None
    finish: str = "stop"
    refusal: str | None = None
    status: int = 200
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    until: Callable[[], object] | None = None
    drip: float = 0.0
    hang: bool = False
    cut: int | None = None
    raw: bytes | None = None


def refusal(words: str = "This goes against the content policy.") -> Reply:
    """An error of the provider's content policy."""
    return Reply(words, status=400, code="content_policy_violation")


@dataclass(slots=True)
class Seen:
    """One request that a scripted server was sent.

    Args:
        path: of the address.
        headers: names in lower case.
        content: the body as it came.
        began, ended: seconds of ``time.monotonic``; ``ended`` None while it is being answered.
        left: the client hung up before the answer was whole.
    """

    path: str
    headers: Mapping[str, str]
    content: bytes
    began: float
    ended: float | None = None
    left: bool = False

    @property
    def body(self) -> dict[str, Any]:
        """The body, where it is JSON."""
        return json.loads(self.content) if self.content[:1] == b"{" else {}

    @property
    def prompt(self) -> str:
        """The text of the last message, or the prompt or input of other requests."""
        body = self.body
        if "messages" not in body:
            found = body.get("prompt", body.get("input", ""))
            if isinstance(found, list) and found and isinstance(found[-1], dict):  # turns of the Responses protocol
                return "".join(part.get("text", "") for part in found[-1]["content"])
            return found if isinstance(found, str) else "\n".join(found)
        content = body["messages"][-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)

    @property
    def system(self) -> str:
        """What the model is told first."""
        body = self.body
        told = [message["content"] for message in body.get("messages", ()) if message["role"] == "system"]
        return str(body.get("system") or body.get("instructions") or "\n".join(told))
