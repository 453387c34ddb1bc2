"""The addresses of a world's sessions.

| | |
| --- | --- |
| ``POST /sessions`` | begins a life: ``{"seed": 7}`` |
| ``GET /sessions/<id>`` | its State, content and steps; with ``Accept: image/png`` the State's picture |
| ``POST /sessions/<id>/act`` | lives on: ``{"action": "go to the sea", "num_steps": 1}``; as ``POST /run``, streams too |
| ``PATCH /sessions/<id>`` | edits slots: ``{"intent": "..."}`` |
| ``POST /sessions/<id>/fork`` | another session with the same past: ``{"step": 3}`` |
| ``POST /sessions/<id>/rewind`` | back to the end of a step: ``{"step": 3}`` |
| ``GET /sessions/<id>/page`` | the life as an HTML page |
| ``DELETE /sessions/<id>`` | ends it |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from wgtorch.core.errors import RequestError, suggest
from wgtorch.serving.negotiation import JSON_TYPE, Form, form_for, respond
from wgtorch.serving.sessions import Sessions
from wgtorch.serving.streaming import Stream

Page = Callable[[Request], Awaitable[Response]]


class SessionRoutes:
    """The routes.

    Args:
        sessions: of the served world.
        message: reads a request within the server's limits.
        busy: how many runs may go on at once.
    """

    def __init__(self, sessions: Sessions, message: Callable[[Request], Awaitable[dict[str, Any]]], busy: anyio.CapacityLimiter) -> None:
        self.sessions = sessions
        self.message = message
        self.busy = busy

    def routes(self, guarded: Callable[[Page], Page]) -> list[Route]:
        """The routes, each behind the server's checks."""
        one = "/sessions/{session_id}"
        pages: list[tuple[str, str, Page]] = [
            ("/sessions", "POST", self.create), (one, "GET", self.look), (one, "PATCH", self.edit), (one, "DELETE", self.delete),
            (f"{one}/act", "POST", self.act), (f"{one}/fork", "POST", self.fork), (f"{one}/rewind", "POST", self.rewind),
            (f"{one}/page", "GET", self.page), (f"{one}/export", "GET", self.export),
        ]  # fmt: skip
        return [Route(path, guarded(page), methods=[method]) for path, method, page in pages]

    async def create(self, request: Request) -> Response:
        """Begins a life."""
        fields = await self._fields(request, ("seed",))
        seed = fields.get("seed")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise RequestError(f"seed is {seed!r}; expected a whole number")
        made = await self._thread(partial(self.sessions.create, seed))
        return JSONResponse(made.told(), status_code=201)

    async def look(self, request: Request) -> Response:
        """Where a life stands."""
        return respond(await self._thread(partial(self.sessions.look, _id(request))), self._form(request))

    async def act(self, request: Request) -> Response:
        """Lives on."""
        session_id = _id(request)
        self.sessions.get(session_id)
        message = await self.message(request)
        form = self._form(request)
        if form.is_stream:
            return Stream(lambda tell, stop: self.sessions.act(session_id, message, tell, stop), self.busy, form.media_type)
        return respond(await self._thread(partial(self.sessions.act, session_id, message)), form)

    async def edit(self, request: Request) -> Response:
        """Changes slots."""
        form, message = self._form(request), await self.message(request)
        return respond(await self._thread(partial(self.sessions.edit, _id(request), message)), form)

    async def fork(self, request: Request) -> Response:
        """Another session with the same past."""
        fields = await self._fields(request, ("step",))
        made = await self._thread(partial(self.sessions.fork, _id(request), fields.get("step")))
        return JSONResponse(made.told(), status_code=201)

    async def rewind(self, request: Request) -> Response:
        """Back to the end of a step."""
        form, fields = self._form(request), await self._fields(request, ("step",))
        return respond(await self._thread(partial(self.sessions.rewind, _id(request), fields.get("step"))), form)

    async def page(self, request: Request) -> Response:
        """The life as a page. It may hold what visitors and models wrote, so nothing in it is run."""
        html = await self._thread(partial(self.sessions.page, _id(request)))
        return HTMLResponse(
            html, headers={"Content-Security-Policy": "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"}
        )

    async def export(self, request: Request) -> Response:
        """The life's log as a zip."""
        content = await self._thread(partial(self.sessions.export, _id(request)))
        return Response(content, media_type="application/zip", headers={"Content-Disposition": 'attachment; filename="life.zip"'})

    async def delete(self, request: Request) -> Response:
        """Ends it."""
        await self._thread(partial(self.sessions.delete, _id(request)))
        return Response(status_code=204)

    async def _fields(self, request: Request, known: tuple[str, ...]) -> dict[str, Any]:
        """A small JSON body, which may be left out."""
        has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
        fields = await self.message(request) if has_body else {}
        for name in fields:
            if name not in known:
                raise RequestError(f"unknown field {name!r}; {suggest(name, known)}")
        return fields

    async def _thread(self, work: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(work, limiter=self.busy)

    def _form(self, request: Request) -> Form:
        accept = request.headers.get("accept", "") or JSON_TYPE
        form = form_for(accept, self.sessions.service.contract, {})
        return Form(JSON_TYPE) if accept == "*/*" else form


def _id(request: Request) -> str:
    return str(request.path_params["session_id"])
