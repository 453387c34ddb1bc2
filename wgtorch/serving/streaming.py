"""Answers that come in pieces, and callers that do not wait for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
from starlette.responses import Response

from wgtorch.serving.faults import fault_of, status_of
from wgtorch.serving.negotiation import EVENTS_TYPE, json_text
from wgtorch.serving.services import Service
from wgtorch.serving.wire import STREAM_TYPE, frame

Work = Callable[[Callable[[dict[str, Any]], None], Callable[[], bool]], dict[str, Any]]
"""Runs something: told where to tell what happens on the way, and what to ask whether it should stop; gives the answer."""


def event(entry: dict[str, Any]) -> bytes:
    """An entry of a stream as a server-sent event, named by what it holds: ``event``, ``step``, ``result`` or ``fault``."""
    name = next(iter(entry))
    return f"event: {name}\ndata: {json_text(entry[name])}\n\n".encode()


class Stream(Response):
    """What happens on the way, and then the answer or the error; the run is stopped when the caller hangs up.

    Args:
        work: what runs, in a thread.
        busy: how many may run at once.
        media_type: ``application/x-wgtorch-stream`` (safetensors bodies) or ``text/event-stream``.
        encode: an entry as bytes; that of the media type when left out.
        last: bytes after the answer.
    """

    def __init__(
        self,
        work: Work,
        busy: anyio.CapacityLimiter,
        media_type: str = STREAM_TYPE,
        *,
        encode: Callable[[dict[str, Any]], bytes] | None = None,
        last: bytes = b"",
    ) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-cache"} if media_type == EVENTS_TYPE else None)
        del self.headers["content-length"]
        self.work = work
        self.busy = busy
        self.encode = encode or (event if media_type == EVENTS_TYPE else frame)
        self.last = last

    @classmethod
    def of(cls, service: Service, message: dict[str, Any], busy: anyio.CapacityLimiter, media_type: str) -> Stream:
        """The stream of one request to a service."""
        return cls(lambda tell, stop: service.answer(message, tell=tell, cancelled=stop), busy, media_type)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        stop, loop, one_at_a_time, in_turn = threading.Event(), asyncio.get_running_loop(), threading.Lock(), asyncio.Lock()

        async def put(raw: bytes, more: bool = True) -> None:
            async with in_turn:
                await send({"type": "http.response.body", "body": raw, "more_body": more})

        def tell(entry: dict[str, Any]) -> None:
            """From whichever thread: a block that waits on a network tells of its text in one that others share, which must not wait."""
            with one_at_a_time:
                if not (raw := self.encode(entry)):
                    return
                sent = asyncio.run_coroutine_threadsafe(put(raw), loop)
            if asyncio._get_running_loop() is None:
                sent.result()

        def work() -> None:
            try:
                tell({"result": self.work(tell, stop.is_set)})
            except Exception as error:
                tell({"fault": {**fault_of(error), "status": status_of(error)}} if self.encode is event else
                     {"fault": fault_of(error), "status": status_of(error)})  # fmt: skip

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with anyio.create_task_group() as group:
            group.start_soon(hung_up, receive, stop)
            await anyio.to_thread.run_sync(work, limiter=self.busy)
            group.cancel_scope.cancel()
        await put(self.last, more=False)


async def hung_up(receive: Any, stop: threading.Event) -> None:
    """Waits until the caller is gone, and says so."""
    while True:
        entry = await receive()
        if entry["type"] == "http.disconnect":
            stop.set()
            return
