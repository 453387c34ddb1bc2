"""Keys: where they come from, and how they are kept out of everything else."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

from wgtorch.core.errors import ConfigError

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,80}")
_OWN_HEADERS = {"host", "content-type", "content-length", "content-encoding", "transfer-encoding", "connection", "accept", "cookie"}
_LOOKS_SECRET = re.compile(r"(?i)\b(sk-[\w-]{6,}|bearer\s+[\w.~+/=-]{6,})")
MASK = "***"


class Secret:
    """A key that shows itself to nobody: not printed, not compared, not copied into files."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the header of a request."""
        return self._value

    def digest(self) -> str:
        """What tells keys apart without being one."""
        return hashlib.sha256(self._value.encode()).hexdigest()

    def scrub(self, text: str) -> str:
        """The text without the key."""
        for form in {self._value, quote(self._value, safe="")}:
            text = text.replace(form, MASK)
        return text

    def __repr__(self) -> str:
        return MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is never written anywhere; name the variable of the environment that holds it")


def scrubbed(text: str, *secrets: Secret) -> str:
    """A provider's words without keys, or what looks like one."""
    for secret in secrets:
        text = secret.scrub(text)
    return _LOOKS_SECRET.sub(MASK, text)


def check_headers(headers: Any, where: str) -> tuple[tuple[str, str], ...]:
    """Names of headers with the variables that hold their values.

    Raises:
        ConfigError: they are none, or would change what a request is.
    """
    if not isinstance(headers, Mapping):
        raise ConfigError(f"{where}: expected headers with the variables of their values, as {{'X-Gateway-Token': 'WGTORCH_GATEWAY'}}")
    for name, variable in headers.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name) or name.lower() in _OWN_HEADERS:
            raise ConfigError(f"{where}: found {name!r}, expected the name of a header that a gateway reads, as X-Gateway-Token")
        check_variable(variable, f"{where}.{name}")
    return tuple(sorted(headers.items()))


def check_variable(name: Any, where: str) -> None:
    """Refuses what cannot name a variable, without repeating it: people paste keys there.

    Raises:
        ConfigError: it is not written like a variable's name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: expected the name of a variable of the environment, in capitals, such as OPENAI_API_KEY; "
            "never write a key into a config"
        )


def read_key(variable: str | None) -> Secret | None:
    """The key in a variable of the environment; None where there is none."""
    value = os.environ.get(variable, "").strip() if variable else ""
    return Secret(value) if value else None


def check_endpoint(url: str, where: str) -> str:
    """The address of an API, in one form.

    Raises:
        ConfigError: it is no http address, or holds credentials or a query.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"{where}.endpoint_url: an address with credentials, a query or a fragment; give the key in the environment (api_key_env)"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{where}.endpoint_url: found {url!r}, expected an address such as http://localhost:8000/v1")
    return url.rstrip("/")


def host_of(url: str) -> str:
    """The host an address names."""
    return urlsplit(url).hostname or ""


def is_loopback(url: str) -> bool:
    """True when an address is this machine's."""
    host = host_of(url)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
