"""The HTTP around a service: ``POST /run``, ``GET /spec``, ``/health``, ``/openapi.json``.

app = make_app(level)                      # any ASGI server runs it
with serving(level) as url: ...            # in a thread, on a free port; for notebooks and tests
serve(level, port=8000)                    # until interrupted
"""

from __future__ import annotations

import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wgtorch.core.errors import EndpointError, RequestError
from wgtorch.serving.batching import Batcher
from wgtorch.serving.faults import fault_of, status_of
from wgtorch.serving.openapi import openapi_of
from wgtorch.serving.services import Service, service_for
from wgtorch.serving.streaming import Stream, hung_up
from wgtorch.serving.wire import CONTENT_TYPE, STREAM_TYPE, body, unpack, unpack_json

JSON_TYPE = "application/json"
_POLL = 0.05  # seconds between looks at a server that starts or stops


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes.

    Args:
        max_bytes: of one request.
        timeout: seconds that a run may take; None for no limit.
        read_timeout: seconds in which a request must have arrived.
        concurrency: runs at once.
        waiting: requests that may wait for a run to end; more are told to come back later.
        max_batch: samples that concurrent requests may share one forward pass with; 1 runs each alone.
        batch_wait: seconds that a request waits for others to share a pass with.
    """

    max_bytes: int = 256 << 20
    timeout: float | None = None
    read_timeout: float = 60.0
    concurrency: int = 4
    waiting: int = 64
    max_batch: int = 1
    batch_wait: float = 0.005


def make_app(level: Any, *, api_key: str | None = None, limits: Limits | None = None, device: Any = None) -> Starlette:
    """The ASGI application that serves a block or level.

    Args:
        level: what is served.
        api_key: what callers must show as ``Authorization: Bearer``; None lets everybody in.
        limits: what is taken.
        device: where tensors of requests are moved.
    """
    limits = limits or Limits()
    return _Server(service_for(level, device=device, timeout=limits.timeout), api_key, limits).app()


@contextmanager
def serving(level: Any, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Iterator[str]:
    """Serves a level in a thread of this process while the block lasts, and gives its URL.

    Args:
        level: what is served.
        host: where to listen.
        port: 0 takes a free one.
        options: as for :func:`make_app`.
    """
    server = _uvicorn(make_app(level, **options))
    listening = _listen(host, port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="wgtorch-server", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise EndpointError(f"the server on {host}:{port} did not start; its log says why")
            time.sleep(_POLL / 10)
        yield f"http://{host}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def serve(level: Any, *, host: str = "127.0.0.1", port: int = 8000, ready: Any = None, **options: Any) -> None:
    """Serves a level until the process is interrupted or told to end.

    Args:
        level: what is served.
        host: where to listen.
        port: 0 takes a free one.
        ready: called with the URL once the server listens.
        options: as for :func:`make_app`.

    Raises:
        OSError: the port is taken.
    """
    serve_app(make_app(level, **options), host=host, port=port, ready=ready)


def serve_app(app: Any, *, host: str = "127.0.0.1", port: int = 8000, ready: Any = None, patience: int | None = None) -> None:
    """Serves an ASGI application until the process is interrupted or told to end.

    Args:
        app: what is served.
        host: where to listen.
        port: 0 takes a free one.
        ready: called with the URL once the server listens.
        patience: seconds that open answers, such as streams of events, may take to end when the server does; None for no limit.

    Raises:
        OSError: the port is taken.
    """
    server = _uvicorn(app, patience)
    with _listen(host, port) as listening:
        if ready is not None:
            ready(f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}")
        server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, so that asyncio lets small answers go at once (TCP_NODELAY) instead of after 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError:
        listening.close()
        raise
    return listening


def _uvicorn(app: Any, patience: int | None = None) -> Any:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=patience,
        ws="none",
        lifespan="off",
    )
    return uvicorn.Server(config)


class _Server:
    """Routes, and the way of a request through the checks to the service."""

    def __init__(self, service: Service, api_key: str | None, limits: Limits) -> None:
        self.service = service
        self.api_key = api_key
        self.limits = limits
        self.batcher = Batcher(service, limits.max_batch, limits.batch_wait) if limits.max_batch > 1 else None
        self.busy = anyio.CapacityLimiter(limits.concurrency)

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/run", self.run, methods=["POST"]),
                Route("/spec", self.spec, methods=["GET"]),
                Route("/health", self.health, methods=["GET"]),
                Route("/openapi.json", self.openapi, methods=["GET"]),
            ],
            exception_handlers={404: self.no_such_page, 405: self.no_such_page},
        )

    async def health(self, request: Request) -> Response:
        """Says that the server is there, and how many runs go on."""
        state = self.busy.statistics()
        return JSONResponse({"status": "ok", "level": self.service.contract["level"], "id": self.service.contract["id"],
                             "running": state.borrowed_tokens, "waiting": state.tasks_waiting})  # fmt: skip

    async def spec(self, request: Request) -> Response:
        """The contract."""
        return self._refusal(request) or JSONResponse(self.service.contract)

    async def openapi(self, request: Request) -> Response:
        """The contract as OpenAPI."""
        return self._refusal(request) or JSONResponse(openapi_of(self.service.contract, needs_key=self.api_key is not None))

    async def no_such_page(self, request: Request, error: Exception) -> Response:
        """What other paths and methods are answered with."""
        status = getattr(error, "status_code", 404)
        text = f"{request.method} {request.url.path[:200]}: there is POST /run, GET /spec, GET /health and GET /openapi.json"
        return _fault(RequestError(text, status=status))

    async def run(self, request: Request) -> Response:
        """Runs the level for one request."""
        refused = self._refusal(request)
        if refused is not None:
            return refused
        try:
            message = await self._message(request)
        except RequestError as error:
            # The rest of the body is not read, so nothing more can come over this connection.
            return _fault(error, headers={"Connection": "close"} if error.status in (408, 413) else None)
        except ClientDisconnect:
            return Response(status_code=499)
        if self.busy.statistics().tasks_waiting >= self.limits.waiting:
            return _fault(RequestError("too many requests wait already; come back later", status=503), headers={"Retry-After": "1"})
        if STREAM_TYPE in request.headers.get("accept", ""):
            return Stream(self.service, message, self.busy)
        found = await self._answer(request, message)
        if isinstance(found, Exception):
            return _fault(found)
        return _response(found, request.headers.get("accept", ""))

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a caller without the key."""
        if self.api_key is None:
            return None
        shown = request.headers.get("authorization", "")
        if hmac.compare_digest(shown.encode(), f"Bearer {self.api_key}".encode()):
            return None
        return _fault(RequestError("no key, or a wrong one; expected 'Authorization: Bearer <key>'", status=401))

    async def _message(self, request: Request) -> dict[str, Any]:
        limit = self.limits.max_bytes
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind not in (CONTENT_TYPE, JSON_TYPE):
            raise RequestError(f"content type {kind[:100]!r}; expected {CONTENT_TYPE!r}, or {JSON_TYPE!r} without tensors", status=415)
        length = request.headers.get("content-length", "")
        too_large = RequestError(f"the body is larger than the {limit} bytes that are taken here", status=413)
        if length.isdigit() and int(length) > limit:
            raise too_large
        held = bytearray()
        try:
            with anyio.fail_after(self.limits.read_timeout):
                async for chunk in request.stream():
                    held += chunk
                    if len(held) > limit:
                        raise too_large
        except TimeoutError:
            raise RequestError(f"the body did not arrive within {self.limits.read_timeout} s", status=408) from None
        return unpack(held, "request") if kind == CONTENT_TYPE else unpack_json(held, "request")

    async def _answer(self, request: Request, message: dict[str, Any]) -> dict[str, Any] | Exception:
        """What the service gives or raises; the run is stopped when the caller hangs up."""
        stop = threading.Event()

        def work() -> dict[str, Any] | Exception:
            try:
                return self.service.answer(message, cancelled=stop.is_set)
            except Exception as error:
                return error

        if self.batcher is not None and self.batcher.takes(message):
            return await self.batcher.answer(message, self.busy)
        found: list[dict[str, Any] | Exception] = []
        async with anyio.create_task_group() as group:
            group.start_soon(hung_up, request.receive, stop)
            found.append(await anyio.to_thread.run_sync(work, limiter=self.busy))
            group.cancel_scope.cancel()
        return found[0]


def _response(answer: dict[str, Any], accept: str) -> Response:
    if JSON_TYPE in accept and CONTENT_TYPE not in accept:
        try:
            return Response(json.dumps(_plain(answer), allow_nan=False, ensure_ascii=False), media_type=JSON_TYPE)
        except (TypeError, ValueError):
            text = f"the answer holds tensors, which travel as {CONTENT_TYPE}; ask for that in Accept, or for other outputs"
            return _fault(RequestError(text, status=406))
    try:
        return Response(body(answer), media_type=CONTENT_TYPE)
    except Exception as error:  # what a block gave cannot travel
        return JSONResponse(fault_of(error), status_code=500)


def _plain(value: Any) -> Any:
    """Mappings of any kind as dicts, so that JSON can hold them."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _fault(error: Exception, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(fault_of(error), status_code=status_of(error), headers=headers)
