"""Who may come in: the session's token, names of this host, and pages of this server only."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
"""Headers of every answer."""
COOKIE = "wgtorch_play"
_HERE = ("localhost", "127.0.0.1", "::1")

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]


class Guard:
    """An ASGI application around another that lets nobody in without the token.

    A request must name this host, or its address (against DNS rebinding), must not come from a page of elsewhere, and must show the
    token: as ``Authorization: Bearer``, or as the cookie that a browser gets when it opens the page with ``?token=`` once.

    Args:
        app: what is guarded.
        token: the session's secret.
        hosts: names, beside those of loopback, by which the server may be called.
    """

    def __init__(self, app: App, token: str, hosts: Iterable[str] = ()) -> None:
        self.app, self.token = app, token
        self.hosts = {host.lower() for host in (*_HERE, *hosts)}

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        await self.app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _host_of(f"//{host}")
        if name not in self.hosts and not _is_address(name):  # nobody's page can make a browser call an address by another name
            return PlainTextResponse(f"{host!r}: this server is not called so; start it with --allow-host NAME", 421)
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return PlainTextResponse("Pages of elsewhere may not ask here.", 403)
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["path"] != "/":
            return PlainTextResponse("Pages of elsewhere may not ask here.", 403)
        if self._is_known(headers):
            return None
        if scope["path"] == "/" and scope["method"] == "GET":
            return self._welcome(scope)
        return PlainTextResponse("This session wants its token. Open the address that the program printed.", 401)

    def _is_known(self, headers: Headers) -> bool:
        shown = headers.get("authorization", "").removeprefix("Bearer ")
        return self._is_token(shown) or self._is_token(_cookie(headers.get("cookie", "")))

    def _is_token(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode("utf-8", "replace"), self.token.encode())

    def _welcome(self, scope: Scope) -> Response:
        """The token in the address becomes a cookie, and the address loses it."""
        from urllib.parse import parse_qs

        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if not self._is_token(given):
            return PlainTextResponse("This session wants its token. Open the address that the program printed.", 401)
        answer = Response(status_code=303, headers={"location": "/"})
        answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", path="/")
        return answer


def _host_of(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _is_address(name: str | None) -> bool:
    try:
        return bool(ip_address(name or ""))
    except ValueError:
        return False


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _with_headers(send: Any) -> Any:
    async def answer(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", ())}
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in own]
            if b"cache-control" not in own:
                more.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await send(message)

    return answer
