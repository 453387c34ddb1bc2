"""The caller's side: one URL, its key, retries and limits."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from wgtorch.core.config.resolve import resolve_environment
from wgtorch.core.errors import ConfigError, EndpointError, RequestError, require
from wgtorch.serving.faults import raise_fault
from wgtorch.serving.wire import CONTENT_TYPE, STREAM_TYPE, body, frames, unpack

_AGAIN = (429, 502, 503)
"""Statuses after which the same call may go well."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 8.0  # seconds between two tries; each pause is twice the one before, and jittered
_CONNECT = 10.0  # seconds
_IN_ONE_GO = 16  # connections kept open
_MAX_JSON = 16 << 20  # bytes of a contract or an error

Tell = Callable[[dict[str, Any]], None]


class Endpoint:
    """An endpoint that serves a level. May be used from several threads; copies share it.

    Args:
        url: where its server listens (``http://host:8000``); ``${oc.env:NAME}`` in it is read from the environment.
        api_key_env: the environment variable that holds its key. Its name must begin with ``WGTORCH_``, so that a config
            from elsewhere cannot have another service's key sent to where it likes.
        timeout: seconds without a sign of the answer after which a call has failed.
        retries: how often a call that found nobody, or a server too busy, is made again.

    Raises:
        ConfigError: the URL is none, or holds a password; or the variable is of another name.
    """

    def __init__(self, url: str, *, api_key_env: str | None = None, timeout: float = 600.0, retries: int = 3) -> None:
        resolved = resolve_environment({"endpoint_url": url}, "endpoint")["endpoint_url"]
        parts = urlsplit(resolved) if isinstance(resolved, str) else urlsplit("")
        if parts.username or parts.password or parts.query or parts.fragment:
            what = "a password" if parts.username or parts.password else "a query or fragment"
            raise ConfigError(f"the endpoint_url of {parts.hostname} holds {what}; keys come from the environment, see api_key_env")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"endpoint_url {url!r}: expected an address such as 'http://localhost:8000'")
        if api_key_env is not None and not re.fullmatch(r"WGTORCH_[A-Z0-9_]+", api_key_env):
            raise ConfigError(f"endpoint {url}: api_key_env {api_key_env!r}; expected a variable whose name begins with 'WGTORCH_'")
        if timeout <= 0 or retries < 0:
            raise ConfigError(f"endpoint {url}: timeout {timeout}, retries {retries}; expected more than 0 seconds, and retries from 0")
        self.written = url
        self.url = str(resolved).rstrip("/")
        self.api_key_env = api_key_env
        self.timeout = timeout
        self.retries = retries
        urllib3: Any = require("urllib3", "serve")
        self._pool = urllib3.PoolManager(maxsize=_IN_ONE_GO, retries=False)

    def __deepcopy__(self, memo: dict) -> Endpoint:
        return self

    def __reduce__(self) -> tuple:
        return partial(Endpoint, self.written, **self.to_config()), ()

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def to_config(self) -> dict[str, Any]:
        """What differs from the defaults, beside the URL."""
        usual = {"api_key_env": None, "timeout": 600.0, "retries": 3}
        return {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}

    def contract(self) -> dict[str, Any]:
        """What ``GET /spec`` answers.

        Raises:
            EndpointError: nobody answers, or somebody else.
        """
        answer = self._send("GET", "/spec", self.url, None, "application/json", again=True)
        found = _json(answer.read(_MAX_JSON))
        if answer.status != 200:
            raise_fault(found, answer.status, "contract", self.url)
        if not isinstance(found, Mapping) or "level" not in found:
            raise EndpointError(f"{self.url}: GET /spec gave no contract; is a wgtorch server there?")
        return dict(found)

    def call(
        self, message: Mapping[str, Any], where: str, *, tell: Tell | None = None, again: bool = True, timeout: float | None = None
    ) -> dict[str, Any]:
        """Has the endpoint run what it serves.

        Args:
            message: the request.
            where: path of the node that calls, for messages.
            tell: is told what happens on the way.
            again: the call may be made twice without harm, so a lost connection is tried again.
            timeout: seconds that the caller has left, where they are fewer than the endpoint's own.

        Returns:
            The answer.

        Raises:
            EndpointError: nobody answers, the answer is not in time, or it failed over there.
            WgtorchError: a mistake of the caller, of the class it would have without an endpoint.
            PortError: a value cannot travel.
        """
        accept = CONTENT_TYPE if tell is None else STREAM_TYPE
        answer = self._send("POST", "/run", where, body(message), accept, again=again, timeout=timeout)
        try:
            if answer.status != 200:
                raise_fault(_json(answer.read(_MAX_JSON)), answer.status, where, self.url)
            if tell is not None:
                return self._followed(answer, where, tell)
            return unpack(_all_of(answer), f"answer of {self.url}")
        except RequestError as error:
            raise EndpointError(f"{where}: {self.url} gave an answer that cannot be read: {error}") from error
        except self._broken() as error:
            raise EndpointError(f"{where}: {self.url} broke off in the middle of its answer: {error}") from error
        finally:
            answer.release_conn()

    def _followed(self, answer: Any, where: str, tell: Tell) -> dict[str, Any]:
        for entry in frames(answer.stream(1 << 16), f"answer of {self.url}"):
            if "result" in entry:
                result: dict[str, Any] = entry["result"]
                return result
            if "fault" in entry:
                raise_fault(entry["fault"], int(entry.get("status", 500)), where, self.url)
            tell(entry)
        raise EndpointError(f"{where}: {self.url} ended its stream without a result")

    def _send(
        self, method: str, path: str, where: str, data: bytes | None, accept: str, *, again: bool, timeout: float | None = None
    ) -> Any:
        """Sends a request, again after a pause where that may help, and gives the answer with its body unread."""
        import urllib3

        headers = {"Accept": accept, **self._key(where)}
        if data is not None:
            headers |= {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(data))}
        patience = _patience(self.retries, lost=self.retries if again else 0)
        limit = self.timeout if timeout is None else max(0.001, min(self.timeout, timeout))
        limits = urllib3.Timeout(connect=min(_CONNECT, limit), read=limit)
        try:
            return self._pool.request(
                method,
                self.url + path,
                body=data,
                headers=headers,
                retries=patience,
                timeout=limits,
                redirect=False,
                preload_content=False,
            )
        except urllib3.exceptions.ReadTimeoutError as error:
            raise EndpointError(f"{where}: {self.url} gave no answer within {limit:g} s") from error
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise EndpointError(
                f"{where}: no answer from {self.url} after {self.retries} retries: {_short(reason)}. "
                "Is its server running? The call can be made again once it is."
            ) from error

    def _key(self, where: str) -> dict[str, str]:
        if self.api_key_env is None:
            return {}
        key = os.environ.get(self.api_key_env)
        if not key:
            raise EndpointError(f"{where}: the key of {self.url} is to come from the variable {self.api_key_env}, which is not set")
        return {"Authorization": f"Bearer {key}"}

    @staticmethod
    def _broken() -> tuple[type[Exception], ...]:
        import urllib3

        return (urllib3.exceptions.HTTPError, OSError)


def _patience(retries: int, *, lost: int) -> Any:
    """How urllib3 tries again: never after a timeout, which would only add to what the server has to do."""
    import urllib3

    class Patience(urllib3.Retry):
        def increment(
            self, method: Any = None, url: Any = None, response: Any = None, error: Any = None, *rest: Any, **options: Any
        ) -> Any:
            if isinstance(error, urllib3.exceptions.ReadTimeoutError):
                raise error
            return super().increment(method, url, response, error, *rest, **options)

    return Patience(
        total=retries,
        read=lost,
        other=0,
        status_forcelist=_AGAIN,
        allowed_methods=None,
        backoff_factor=_FIRST_PAUSE,
        backoff_max=_LONGEST_PAUSE,
        backoff_jitter=_FIRST_PAUSE,
        retry_after_max=int(_LONGEST_PAUSE),
        raise_on_status=False,
    )


def _all_of(answer: Any) -> bytearray:
    """The body in memory of its own, where tensors may lie."""
    held = bytearray()
    for chunk in answer.stream(1 << 20):
        held += chunk
    return held


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text[:200].decode(errors="replace")


def _short(reason: object) -> str:
    return re.sub(r"^\w+\(host=[^)]*\): ", "", str(reason))[:200]
