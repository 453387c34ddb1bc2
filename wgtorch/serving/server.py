"""The HTTP around a service: ``POST /run``, ``GET /spec``, ``/health``, ``/docs``, OpenAI's endpoints, sessions of worlds.

app = make_app(level)                      # any ASGI server runs it
with serving(level) as url: ...            # in a thread, on a free port; for notebooks and tests
serve(level, port=8000)                    # until interrupted
"""

from __future__ import annotations

import hmac
import math
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from wgtorch.core.errors import ConfigError, EndpointError, Finding, RequestError
from wgtorch.core.kinds import describe
from wgtorch.core.run.joined_runs import shares_calls
from wgtorch.serving.batching import Batcher
from wgtorch.serving.connections import HeaderBudget, protocol_class
from wgtorch.serving.docs_page import docs_page
from wgtorch.serving.faults import fault_of, status_of
from wgtorch.serving.forms import fields_of, message_of
from wgtorch.serving.negotiation import JSON_TYPE, MULTIPART_TYPE, content_type, form_for, respond
from wgtorch.serving.openai_front import OpenAIFront
from wgtorch.serving.openapi import openapi_of
from wgtorch.serving.services import Service, WorldService, service_for
from wgtorch.serving.session_routes import SessionRoutes
from wgtorch.serving.sessions import Sessions
from wgtorch.serving.streaming import Stream, hung_up
from wgtorch.serving.wire import CONTENT_TYPE, unpack, unpack_json
from wgtorch.serving.world_chat import WorldChat

EVERYWHERE = ("0.0.0.0", "::")
"""Hosts to listen at that are all addresses of this machine."""
_POLL = 0.05  # seconds between looks at a server that starts or stops


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes. Those on connections, headers and bytes hold for everybody, before a key was shown.

    Args:
        max_bytes: of one request.
        timeout: seconds that a run may take; None for no limit.
        read_timeout: seconds in which a request must have arrived.
        concurrency: runs at once.
        waiting: requests that may wait for a run to end; more are told to come back later.
        max_batch: samples that concurrent requests may share forward passes with, where some block takes several (``batched``,
            ``rows_are_samples``); 1 runs each alone.
        batch_wait: seconds that a request waits for others to share a pass with.
        connections: open at once; more are closed when they come.
        header_bytes: of a request's line and headers.
        header_timeout: seconds in which they must have arrived; a connection that says nothing is closed then, too.
        bytes_in_flight: of the bodies of all requests that are being read or wait to be answered.
        sessions: of a world, at once.
    """

    max_bytes: int = 256 << 20
    timeout: float | None = None
    read_timeout: float = 60.0
    concurrency: int = 4
    waiting: int = 64
    max_batch: int = 1
    batch_wait: float = 0.005
    connections: int = 512
    header_bytes: int = 32 << 10
    header_timeout: float = 20.0
    bytes_in_flight: int = 1 << 30
    sessions: int = 64

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, kinds = getattr(self, entry.name), (int,) if isinstance(entry.default, int) else (int, float)
            if value is None and entry.default is None:
                continue
            least = 0 if entry.name in ("waiting", "batch_wait", "sessions") else None
            is_number = isinstance(value, kinds) and not isinstance(value, bool) and value < math.inf
            if not is_number or not (value > 0 or value == least):
                what = "a whole number" if kinds == (int,) else "a number"
                raise ConfigError(
                    f"Limits.{entry.name}: found {describe(value)}; expected {what} {'above 0' if least is None else 'from 0'}"
                    f"{', or None for no limit' if entry.default is None else ''}"
                )


def make_app(
    level: Any,
    *,
    api_key: str | None = None,
    limits: Limits | None = None,
    device: Any = None,
    cors: Sequence[str] = (),
    sessions_dir: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> Starlette:
    """The ASGI application that serves a block or level.

    Args:
        level: what is served.
        api_key: what callers must show as ``Authorization: Bearer``; None lets everybody in.
        limits: what is taken. Those on connections and headers are the server's that runs the application: :func:`serve` keeps to them.
        device: where tensors of requests are moved.
        cors: origins whose pages may call (``https://my.page``), or ``*``; none by default.
        sessions_dir: where sessions of a world keep their logs; in memory where left out.
        name: of the model, as OpenAI's endpoints and ``/health`` tell it; the level's id where left out.
    """
    limits = limits or Limits()
    service = service_for(level, device=device, timeout=limits.timeout)
    return _Server(service, api_key, limits, tuple(cors), sessions_dir, name or level.block_id).app()


@contextmanager
def serving(level: Any, *, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Iterator[str]:
    """Serves a level in a thread of this process while the block lasts, and gives its URL.

    Args:
        level: what is served.
        host: where to listen.
        port: 0 takes a free one.
        options: as for :func:`make_app`.
    """
    server = _uvicorn(make_app(level, **options), options.get("limits") or Limits())
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
    serve_app(make_app(level, **options), host=host, port=port, ready=ready, limits=options.get("limits"))


def serve_app(
    app: Any, *, host: str = "127.0.0.1", port: int = 8000, ready: Any = None, patience: int | None = None, limits: Limits | None = None
) -> None:
    """Serves an ASGI application until the process is interrupted or told to end.

    Args:
        app: what is served.
        host: where to listen.
        port: 0 takes a free one.
        ready: called with the URL once the server listens.
        patience: seconds that open answers, such as streams of events, may take to end when the server does; None for no limit.
        limits: on connections and headers; the usual ones by default.

    Raises:
        OSError: the port is taken.
    """
    server = _uvicorn(app, limits or Limits(), patience)
    with _listen(host, port) as listening:
        if ready is not None:
            name = socket.gethostname() if host in EVERYWHERE else f"[{host}]" if ":" in host else host
            ready(f"http://{name}:{listening.getsockname()[1]}")
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


def _uvicorn(app: Starlette, limits: Limits, patience: int | None = None) -> Any:
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=patience,
        http=protocol_class(limits.connections, limits.header_timeout),
        h11_max_incomplete_event_size=limits.header_bytes,
    )
    return uvicorn.Server(config)


class _Server:
    """Routes, and the way of a request through the checks to the service."""

    def __init__(self, service: Service, api_key: str | None, limits: Limits, cors: tuple[str, ...], sessions_dir: Any, name: str) -> None:
        self.service = service
        self.api_key = api_key
        self.limits = limits
        self.cors = cors
        self.name = name
        shares = limits.max_batch > 1 and shares_calls(service.level)  # else a request would wait for others and gain nothing
        self.batcher = Batcher(service, limits.max_batch, limits.batch_wait) if shares else None
        self.busy = anyio.CapacityLimiter(limits.concurrency)
        self.in_flight = 0  # bytes of bodies
        self.sessions: SessionRoutes | None = None
        chat = None
        if isinstance(service, WorldService):
            sessions = Sessions(service, most=limits.sessions, folder=sessions_dir)
            self.sessions, chat = SessionRoutes(sessions, self._message, self.busy), WorldChat(sessions)
        self.front = OpenAIFront(service, self._raw, self._answers, self.busy, limits.max_bytes, name, chat)

    def app(self) -> Starlette:
        """The application."""
        routes = [
            Route("/run", self._guarded(self.run), methods=["POST"]),
            Route("/spec", self._guarded(self.spec), methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/openapi.json", self._guarded(self.openapi), methods=["GET"]),
            Route("/docs", self.docs, methods=["GET"]),
            *self.front.routes(self._guarded),
            *(self.sessions.routes(self._guarded) if self.sessions is not None else []),
        ]
        return Starlette(routes=routes, middleware=self._middleware(), exception_handlers={404: self.no_such_page, 405: self.no_such_page})

    def _middleware(self) -> list[Middleware]:
        from starlette.middleware.cors import CORSMiddleware

        found = [Middleware(HeaderBudget, most=self.limits.header_bytes)]
        if self.cors:
            methods = ["GET", "POST", "PATCH", "DELETE"]
            found.append(Middleware(CORSMiddleware, allow_origins=list(self.cors), allow_methods=methods, allow_headers=["*"]))
        return found

    def _guarded(self, page: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """A page behind the checks: the key first, then the page, whose refusals become answers."""

        async def guarded(request: Request) -> Response:
            refused = self._refusal(request)
            if refused is not None:
                return refused
            try:
                return await page(request)
            except RequestError as error:
                # The rest of the body is not read, so nothing more can come over this connection.
                return _fault(error, headers=_HEADERS.get(error.status))
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as error:
                return _fault(error)
            finally:
                self._release(request)

        return guarded

    async def health(self, request: Request) -> Response:
        """Says that the server is there, and how many runs go on."""
        state = self.busy.statistics()
        return JSONResponse({"status": "ok", "level": self.service.contract["level"], "id": self.name,
                             "running": state.borrowed_tokens, "waiting": state.tasks_waiting})  # fmt: skip

    async def spec(self, request: Request) -> Response:
        """The contract."""
        return JSONResponse(self.service.contract)

    async def openapi(self, request: Request) -> Response:
        """The contract as OpenAPI."""
        return JSONResponse(openapi_of(self.service.contract, needs_key=self.api_key is not None))

    async def docs(self, request: Request) -> Response:
        """A page that shows what can be asked for, and tries it. The page itself tells nothing of the level; it asks with the key."""
        return HTMLResponse(docs_page())

    async def no_such_page(self, request: Request, error: Exception) -> Response:
        """What other paths and methods are answered with."""
        status = getattr(error, "status_code", 404)
        there = sorted((route.path, method) for route in request.app.routes for method in route.methods - {"HEAD"})
        text = f"{request.method} {request.url.path[:200]}: there is {', '.join(f'{method} {path}' for path, method in there)}"
        return _fault(RequestError(text, status=status), getattr(error, "headers", None))  # Allow, of another method

    async def run(self, request: Request) -> Response:
        """Runs the level for one request."""
        message = await self._message(request)
        form = form_for(request.headers.get("accept", ""), self.service.contract, message)
        if form.is_stream:
            self._room()
            return Stream.of(self.service, message, self.busy, form.media_type)
        found = await self._answer(request, message)
        if isinstance(found, Exception):
            return _fault(found)
        return respond(found, form)

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a caller without the key."""
        if self.api_key is None:
            return None
        shown = request.headers.get("authorization", "")
        if hmac.compare_digest(shown.encode(), f"Bearer {self.api_key}".encode()):
            return None
        return _fault(RequestError("no key, or a wrong one; expected 'Authorization: Bearer <key>'", status=401))

    def _room(self) -> None:
        """Refuses a request where too many wait."""
        if self.busy.statistics().tasks_waiting >= self.limits.waiting:
            raise RequestError("too many requests wait already; come back later", status=503)

    async def _message(self, request: Request) -> dict[str, Any]:
        """A request to the level, in any of the forms that it may come in."""
        kind = content_type(request.headers)
        if kind not in (CONTENT_TYPE, JSON_TYPE, MULTIPART_TYPE):
            expected = f"{CONTENT_TYPE!r}, {JSON_TYPE!r} or {MULTIPART_TYPE!r}"
            raise RequestError(f"content type {kind[:100]!r}; expected {expected}", status=415)
        held = await self._raw(request)
        if kind == MULTIPART_TYPE:
            return message_of(await fields_of(bytes(held), request.headers, self.limits.max_bytes), self.service.contract)
        return unpack(held, "request") if kind == CONTENT_TYPE else unpack_json(held, "request")

    async def _raw(self, request: Request) -> bytearray:
        """A body, read within the limits; its bytes count as in flight until the answer is made."""
        limit = self.limits.max_bytes
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", ""):
            found = [Finding("request", f"Content-Encoding {coding[:60]!r}", "none", "Send the body uncompressed.")]
            raise RequestError("compressed bodies are not read", found, status=415)
        length = request.headers.get("content-length", "")
        too_large = RequestError(f"the body is larger than the {limit} bytes that are taken here", status=413)
        if length.isdigit() and int(length) > limit:
            raise too_large
        held = bytearray()
        try:
            with anyio.fail_after(self.limits.read_timeout):
                async for chunk in request.stream():
                    held += chunk
                    self._reserve(request, len(chunk))
                    if len(held) > limit:
                        raise too_large
        except TimeoutError:
            raise RequestError(f"the body did not arrive within {self.limits.read_timeout} s", status=408) from None
        self._room()
        return held

    def _reserve(self, request: Request, count: int) -> None:
        if self.in_flight + count > self.limits.bytes_in_flight:
            raise RequestError("too many bytes of requests are in flight; come back later", status=503)
        self.in_flight += count
        request.state.reserved = getattr(request.state, "reserved", 0) + count

    def _release(self, request: Request) -> None:
        self.in_flight -= getattr(request.state, "reserved", 0)
        request.state.reserved = 0

    async def _answers(self, request: Request, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Answers to several requests of one caller, through as few forward passes as may be."""
        found: list[Any] = [None] * len(messages)

        async def one(index: int) -> None:
            found[index] = await self._answer(request, messages[index])

        if len(messages) == 1:
            await one(0)
        else:
            async with anyio.create_task_group() as group:
                for index in range(len(messages)):
                    group.start_soon(one, index)
        for answer in found:
            if isinstance(answer, Exception):
                raise answer
        return found

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


_HEADERS = {408: {"Connection": "close"}, 413: {"Connection": "close"}, 503: {"Retry-After": "1"}}


def _fault(error: Exception, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(fault_of(error), status_code=status_of(error), headers=headers)
