"""A provider on this machine that answers as it is told: right, wrong, late, in part, or not at all."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from wgtorch.testing.protocols import body_of, error_body
from wgtorch.testing.replies import Reply, Seen

_LONGEST = 64 << 20  # bytes of a request's body
_LOOK = 0.02  # seconds between looks at whether the client is still there


class ScriptedServer:
    """Speaks OpenAI's protocol at ``url`` and Anthropic's at ``anthropic_url``, in a thread of its own.

    Replies are given in the order of the script; when it is at its end, ``respond`` makes them.

    Args:
        respond: makes the reply to a request, a text or a :class:`Reply`; the prompt itself by default.
        key: what clients must send; any will do where left out. The error repeats what was sent, as some providers do.
        delay: seconds before every answer.

    Example:
        >>> with ScriptedServer() as server:
        ...     server.script(Reply(status=429, headers={"Retry-After": "0.1"}), "Once upon a time")
        ...     llm = LLM(model_id="m", endpoint_url=server.url)
        ...     llm(prompt="Begin.")["text"]
        'Once upon a time'
    """

    def __init__(self, respond: Callable[[Seen], Reply | str] | None = None, *, key: str | None = None, delay: float = 0.0) -> None:
        self.respond = respond or (lambda seen: seen.prompt)
        self.key = key
        self.delay = delay
        self.requests: list[Seen] = []
        self.most_at_once = 0
        self.connections = 0
        self._script: deque[Reply] = deque()
        self._at_once = 0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._serve, name="scripted-server", daemon=True)
        self._ready = threading.Event()
        self._port = 0

    @property
    def url(self) -> str:
        """Address of OpenAI's protocol."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def anthropic_url(self) -> str:
        """Address of Anthropic's protocol."""
        return f"http://127.0.0.1:{self._port}"

    def script(self, *replies: Reply | str) -> None:
        """Adds replies to the script."""
        self._script.extend(Reply(reply) if isinstance(reply, str) else reply for reply in replies)

    def start(self) -> Self:
        """Begins to listen, at a free port."""
        self._thread.start()
        self._ready.wait(60)
        return self

    def stop(self) -> None:
        """Ends all connections."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(60)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    # --- private steps ------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", 0, limit=1 << 20))
        self._port = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            self._server.close()
            open_ones = asyncio.all_tasks(self._loop)
            for task in open_ones:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*open_ones, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection is to be closed."""
        seen = await _read(reader)
        if seen is None:
            return False
        self.requests.append(seen)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        answering = asyncio.ensure_future(self._answer(seen, writer))
        try:
            while not (await asyncio.wait({answering}, timeout=_LOOK))[0]:
                if reader.at_eof():
                    seen.left = True
                    return False
            return answering.result()
        except ConnectionError:  # which writing to it may tell first
            seen.left = True
            raise
        finally:
            answering.cancel()
            self._at_once -= 1
            seen.ended = time.monotonic()

    async def _answer(self, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        reply = self._reply(seen)
        while reply.until is not None and not reply.until():
            await asyncio.sleep(_LOOK / 4)
        if reply.delay or self.delay:
            await asyncio.sleep(reply.delay or self.delay)
        if reply.hang:
            await asyncio.sleep(3600)
        if reply.raw is not None:
            kind, pieces = "application/json", [reply.raw]
        elif reply.status >= 400:
            kind, pieces = error_body(seen.path, reply)
        else:
            found = body_of(seen, reply)
            if found is None:
                reply = Reply(f"no such path: {seen.path}", status=404)
                found = error_body(seen.path, reply)
            kind, pieces = found
        streams = kind == "text/event-stream"
        if not streams and (reply.drip or reply.cut is not None):
            pieces = [bytes([byte]) for byte in b"".join(pieces)]
        head = {"Content-Type": kind, **reply.headers}
        head |= {"Transfer-Encoding": "chunked"} if streams else {"Content-Length": str(sum(map(len, pieces)))}
        lines = [f"HTTP/1.1 {reply.status} -", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        sent = bytearray("\r\n".join(lines).encode())
        for index, piece in enumerate(pieces):
            if index == reply.cut:
                break
            sent += b"%x\r\n%s\r\n" % (len(piece), piece) if streams else piece
            if reply.drip:
                writer.write(bytes(sent))
                sent.clear()
                await writer.drain()
                await asyncio.sleep(reply.drip)
        whole = reply.cut is None or reply.cut >= len(pieces)
        writer.write(bytes(sent) + (b"0\r\n\r\n" if streams and whole else b""))
        await writer.drain()
        return whole

    def _reply(self, seen: Seen) -> Reply:
        sent = seen.headers.get("x-api-key") or seen.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and sent != self.key:
            return Reply(f"Incorrect API key provided: {sent}", status=401, code="invalid_api_key")
        if self._script:
            return self._script.popleft()
        made = self.respond(seen)
        return Reply(made) if isinstance(made, str) else made


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    path = head[0].split(" ")[1]
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if "chunked" in headers.get("transfer-encoding", ""):
        content = bytearray()
        while size := int((await reader.readline()).strip() or b"0", 16):
            content += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return Seen(path, headers, bytes(content), time.monotonic())
    length = int(headers.get("content-length") or 0)
    if length > _LONGEST:
        return None
    return Seen(path, headers, await reader.readexactly(length), time.monotonic())
