"""Budgets for connections, which hold before anybody has shown a key: how many, and how long one may say nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.responses import JSONResponse

from wgtorch.core.errors import RequestError
from wgtorch.serving.faults import fault_of


class HeaderBudget:
    """ASGI middleware that refuses requests with a longer line and headers than are taken, whoever sends them.

    Args:
        app: what comes next.
        most: bytes.
    """

    def __init__(self, app: Any, most: int) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
        size += sum(len(name) + len(value) for name, value in scope.get("headers", ()))
        if scope["type"] == "http" and size > self.most:
            refused = RequestError(f"headers of {size} bytes; {self.most} are taken here", status=431)
            await JSONResponse(fault_of(refused), status_code=431, headers={"Connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def protocol_class(most: int, header_timeout: float) -> type[Any]:
    """uvicorn's HTTP protocol with limits on connections.

    Args:
        most: connections at once; one more is closed as it comes.
        header_timeout: seconds from the connection to its first whole request; who is slower is closed.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    open_now: set[Any] = set()

    class LimitedProtocol(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(open_now) >= most:
                transport.close()
                return
            open_now.add(self)
            self._waiting = self.loop.call_later(header_timeout, self._close_silent)

        def connection_lost(self, exc: Exception | None) -> None:
            open_now.discard(self)
            self._no_longer_waits()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None:
                self._no_longer_waits()

        def _close_silent(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

        def _no_longer_waits(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

    return LimitedProtocol
