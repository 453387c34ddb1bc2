"""Streams of the chat protocol: every byte is heard of, and the pieces become an answer."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from wgtorch.integrations.api.answers import Answer
from wgtorch.integrations.api.failures import BadAnswer, broken_off, not_an_answer, refused
from wgtorch.integrations.api.providers.chat_messages import calls_tools, check_ended, choice_of, message_in, reason_of, said_in, tokens_of

_DONE = re.compile(rb"(?:^|[\r\n])data: *\[DONE\]")
_WHOLE = 1 << 20  # bytes of a body that holds no event of a stream


class StreamedChat:
    """An answer as its pieces come. Of several answers, the first is read; nobody asked for the others."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._thoughts: list[str] = []
        self._refusals: list[str] = []
        self._by_delta = self._calls = False
        self._reason: Any = None
        self._usage: Any = None
        self._told = ""

    def add(self, chunk: Any) -> str:
        """Takes in the next piece; gives the text in it.

        Raises:
            BadAnswer: a filter, or a failure of the server, ended the answer.
        """
        self._usage = getattr(chunk, "usage", None) or self._usage
        choice = choice_of(getattr(chunk, "choices", None))
        if choice is None:
            words = (said for name in ("message", "detail") if isinstance(said := getattr(chunk, name, None), str))
            self._told = next(words, self._told)
        if choice is None or choice.index:
            return ""
        self._reason = choice.finish_reason or self._reason
        check_ended(choice, self._reason)
        delta = getattr(choice, "delta", None)
        self._by_delta = self._by_delta or any(said_in(delta))
        said = delta if self._by_delta else message_in(choice)  # some servers end with the whole message
        self._refusals.append(getattr(said, "refusal", None) or "")
        self._calls = self._calls or calls_tools(said)
        text, thoughts = said_in(said)
        self._thoughts.append(thoughts)
        if text:
            self.pieces.append(text)
        return text

    def answer(self, *, is_whole: bool) -> Answer:
        """What came.

        Args:
            is_whole: the server said that it was all.

        Raises:
            BadAnswer: the model refused, or the stream broke off.
        """
        if any(self._refusals):
            raise refused(f"the model refuses: {''.join(self._refusals)}")
        if self._reason is None and not is_whole:
            raise broken_off(self._told) if self._told else broken_off()
        reason = "tools" if self._calls and not self.pieces else reason_of(self._reason)
        return Answer("".join(self.pieces), reason, tuple(self.pieces), thoughts="".join(self._thoughts), **tokens_of(self._usage))


class StreamWatch:
    """Hears of every byte of a streamed answer, also of those that hold no text (comments that keep a connection alive).

    A mark of the byte order before the first event is passed over, and the last event ends with the body.

    Args:
        stream: of an SDK, of which nothing was read yet.
        alive: called for each piece of the body.
    """

    def __init__(self, stream: Any, alive: Callable[[], None]) -> None:
        self.saw_done = False
        """The server said ``[DONE]``: the answer is whole, whether or not it said why it ended."""
        self.is_stream = False
        """An event of a stream came."""
        self.body = b""
        """The beginning of the body, as long as none came."""
        self.has_ended = False
        self._alive, self._tail = alive, b""
        self._bytes = stream.response.aiter_bytes
        stream.response.aiter_bytes = self._watched

    def broken_off(self) -> BadAnswer:
        """The failure of a stream without an end, or of an answer that is none."""
        text = self.body.decode(errors="replace").strip()
        return broken_off() if self.is_stream or text[:1] not in ("{", "<") else not_an_answer("the answer is no stream", text)

    async def _watched(self, *args: Any) -> AsyncIterator[bytes]:
        async for piece in self._bytes(*args):
            self._alive()
            if not self.body:
                piece = piece.removeprefix(b"\xef\xbb\xbf")
            if not self.is_stream:
                self.body += piece[: _WHOLE - len(self.body)]
            self._tail = (self._tail + piece)[-4096:]
            self.saw_done = self.saw_done or _DONE.search(self._tail) is not None
            yield piece
        self.has_ended = True
        if not self._tail.replace(b"\r\n", b"\n").replace(b"\r", b"\n").endswith(b"\n\n"):
            yield b"\n\n"
