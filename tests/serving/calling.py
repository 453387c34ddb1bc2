"""Calls a server as anybody could, without any of the client's own code."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from wgtorch.serving.wire import CONTENT_TYPE, body, unpack


def call(
    url: str,
    path: str = "/run",
    data: bytes | None = b"",
    *,
    method: str = "POST",
    kind: str = CONTENT_TYPE,
    accept: str = CONTENT_TYPE,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    """Status, and the answer decoded by what it says it is."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    try:
        connection.request(method, path, body=data, headers={"Content-Type": kind, "Accept": accept, **(headers or {})})
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.getheader("Content-Type", "").startswith("application/json"):
        return answer.status, json.loads(content)
    return answer.status, unpack(bytearray(content), "answer") if answer.status == 200 else content


def run(url: str, **message: Any) -> tuple[int, Any]:
    """Has the server run a request."""
    return call(url, data=body(message))


def findings(answer: Any) -> list[tuple[str, str, str]]:
    """(where, found, expected) of each finding of a refusal."""
    return [(entry["where"], entry["found"], entry["expected"]) for entry in answer["error"]["findings"]]
