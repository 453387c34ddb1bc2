"""The page's server: files of the page, what it shows as JSON, and what happens as server-sent events.

``GET /`` the page, ``/static/...`` its files; ``/api/view`` all that it shows, ``/api/view?past=...&after=...`` without the episodes that
an earlier view had, ``/api/events`` what happens (SSE),
``/api/picture/...``, ``/api/motion/...``, ``/api/sound/...``, ``/api/export.html``, ``/api/export.gif``;
``POST /api/act``, ``proceed``, ``stop``, ``pauses``, ``edit``, ``undo``, ``fork``, ``switch`` with a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from wgtorch.core.errors import WgtorchError
from wgtorch.core.json_text import parse_json
from wgtorch.play.export import animation_of, page_of
from wgtorch.play.game import Game, PlayError
from wgtorch.play.guard import Guard
from wgtorch.play.media import FORMS, motion_of, sound_of
from wgtorch.play.view import view_of
from wgtorch.serving.negotiation import JSON_TYPE, content_type

STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_LARGEST = 1 << 20  # bytes of a request
_BEAT = 15.0  # seconds between signs of life on a stream where nothing happens


def make_play_app(game: Game, *, token: str | None = None, hosts: Iterable[str] = ()) -> Guard:
    """The ASGI application of a game.

    Args:
        game: what is played.
        token: the session's secret; a new one when left out.
        hosts: names, beside those of loopback, by which the server may be called.

    Returns:
        The application; its ``token`` opens the page as ``/?token=...``.
    """
    app = _App(game)
    routes = [
        Route("/", app.page),
        Route("/static/{name}", app.static),
        Route("/api/view", app.view),
        Route("/api/events", app.events),
        Route("/api/picture/{where}/{index:int}.png", app.picture),
        Route("/api/motion/{where}/{index:int}.{form}", app.motion),
        Route("/api/sound/{where}.wav", app.sound),
        Route("/api/export.html", app.export_page),
        Route("/api/export.gif", app.export_animation),
        *[Route(f"/api/{name}", app.asked, methods=["POST"]) for name in _ASKED],
    ]
    return Guard(Starlette(routes=routes), token or secrets.token_urlsafe(24), hosts)


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise PlayError(f"{name}: expected a text")
    return value


def _number(data: Mapping[str, Any], name: str, default: int | None) -> int | None:
    value = data.get(name, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise PlayError(f"{name}: expected a whole number")
    return value


def _names(data: Mapping[str, Any], name: str) -> list[str]:
    value = data.get(name)
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise PlayError(f"{name}: expected a list of texts")
    return value


_ASKED: Mapping[str, Callable[[Game, Mapping[str, Any]], None]] = {
    "act": lambda game, data: game.act(_text(data, "action") if data.get("action") is not None else None),
    "proceed": lambda game, data: game.proceed(),
    "stop": lambda game, data: game.stop(),
    "pauses": lambda game, data: game.set_pauses(_names(data, "stages")),
    "edit": lambda game, data: game.edit(_text(data, "slot"), _text(data, "text")),
    "undo": lambda game, data: game.undo(_number(data, "passes", 1) or 0),
    "fork": lambda game, data: game.fork(_text(data, "name"), _number(data, "passes", None)),
    "switch": lambda game, data: game.switch(_text(data, "name")),
}
"""What a page may ask for, by the last part of the address."""


class _App:
    def __init__(self, game: Game) -> None:
        self.game = game

    async def page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html", media_type="text/html")

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in {path.name for path in STATIC.iterdir()}:
            return PlainTextResponse("no such file", 404)
        return FileResponse(STATIC / name, media_type=_TYPES[Path(name).suffix], headers={"cache-control": "no-cache"})

    async def view(self, request: Request) -> Response:
        after = request.query_params.get("after", "")[:12]
        known = (request.query_params.get("past"), int(after)) if after.isdecimal() else ()
        return JSONResponse(await anyio.to_thread.run_sync(view_of, self.game, *known))

    async def asked(self, request: Request) -> Response:
        """One thing that somebody asks for; 409 with the reason where it cannot be done."""
        name = request.url.path.rsplit("/", 1)[-1]
        try:
            body = await self._body(request)
            await anyio.to_thread.run_sync(_ASKED[name], self.game, body)
        except WgtorchError as error:
            return JSONResponse({"error": str(error)}, 409)
        return JSONResponse({"ok": True})

    async def _body(self, request: Request) -> Mapping[str, Any]:
        if content_type(request.headers) != JSON_TYPE:
            raise PlayError("expected a JSON object, as application/json")
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > _LARGEST:
                raise PlayError(f"the request is longer than {_LARGEST} bytes")
        try:
            body = parse_json(data or b"{}")
        except (ValueError, RecursionError) as error:
            raise PlayError(f"expected a JSON object: {error}") from error
        if not isinstance(body, dict):
            raise PlayError(f"expected a JSON object, found a {type(body).__name__}")
        return body

    async def events(self, request: Request) -> Response:
        """Server-sent events from now on, or from after the number that a page which comes back has seen last.

        The first is a ``changed`` without a number: what a page looks up from then on misses nothing.
        """
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isdecimal() else None

        async def stream() -> AsyncIterator[str]:
            with self.game.subscribed(after) as queue:
                yield "retry: 1500\nevent: changed\ndata: {}\n\n"
                while not await request.is_disconnected():
                    try:
                        event = await asyncio.wait_for(queue.get(), _BEAT)
                    except TimeoutError:
                        yield ": still here\n\n"
                        continue
                    yield f"id: {event['id']}\nevent: {event['kind']}\ndata: {json.dumps(event)}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def picture(self, request: Request) -> Response:
        episodes = self.game.episodes[self.game.branch]
        where, index = request.path_params["where"], request.path_params["index"]
        found = await anyio.to_thread.run_sync(episodes.picture, where, index)
        return PlainTextResponse("no such picture", 404) if found is None else Response(found, media_type="image/png")

    async def motion(self, request: Request) -> Response:
        """A picture as a loop in which water, rain, snow, smoke and sails move; 404 where nothing can."""
        where, index, form = (request.path_params[name] for name in ("where", "index", "form"))
        state = self.game.episodes[self.game.branch].state(where)
        found = await anyio.to_thread.run_sync(motion_of, state, index, form)
        if found is None:
            return PlainTextResponse("nothing moves here", 404)
        return Response(found, media_type=FORMS[form])

    async def sound(self, request: Request) -> Response:
        state = self.game.episodes[self.game.branch].state(request.path_params["where"])
        found = await anyio.to_thread.run_sync(sound_of, state)
        return PlainTextResponse("nothing sounds here", 404) if found is None else Response(found, media_type="audio/wav")

    async def export_page(self, request: Request) -> Response:
        found = await anyio.to_thread.run_sync(page_of, self.game)
        return Response(found, media_type="text/html", headers=_saved_as(f"{self.game.world.world_id}.html"))

    async def export_animation(self, request: Request) -> Response:
        found = await anyio.to_thread.run_sync(animation_of, self.game)
        if found is None:
            return PlainTextResponse("there are no pictures yet", 404)
        return Response(found, media_type="image/gif", headers=_saved_as(f"{self.game.world.world_id}.gif"))


def _saved_as(name: str) -> dict[str, str]:
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name)
    return {"content-disposition": f'attachment; filename="{safe}"'}
