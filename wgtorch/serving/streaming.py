"""Answers that come in pieces, and callers that do not wait for them."""

from __future__ import annotations

import threading
from typing import Any

import anyio
from starlette.responses import Response

from wgtorch.serving.faults import fault_of, status_of
from wgtorch.serving.services import Service
from wgtorch.serving.wire import STREAM_TYPE, frame


class Stream(Response):
    """What happens on the way, and then the answer or the error; the run is stopped when the caller hangs up."""

    def __init__(self, service: Service, message: dict[str, Any], busy: anyio.CapacityLimiter) -> None:
        super().__init__(media_type=STREAM_TYPE)
        del self.headers["content-length"]
        self.service = service
        self.message = message
        self.busy = busy

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        stop = threading.Event()

        async def put(raw: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": raw, "more_body": more})

        def tell(entry: dict[str, Any]) -> None:
            anyio.from_thread.run(put, frame(entry))

        def work() -> None:
            try:
                tell({"result": self.service.answer(self.message, tell=tell, cancelled=stop.is_set)})
            except Exception as error:
                tell({"fault": fault_of(error), "status": status_of(error)})

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with anyio.create_task_group() as group:
            group.start_soon(hung_up, receive, stop)
            await anyio.to_thread.run_sync(work, limiter=self.busy)
            group.cancel_scope.cancel()
        await put(b"", more=False)


async def hung_up(receive: Any, stop: threading.Event) -> None:
    """Waits until the caller is gone, and says so."""
    while True:
        entry = await receive()
        if entry["type"] == "http.disconnect":
            stop.set()
            return
