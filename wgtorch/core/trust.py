"""What a config from a file may do beyond being data. Only the caller's code widens it, with ``trust=`` where it loads."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wgtorch.core.errors import ConfigError
from wgtorch.core.kinds import describe

_OWN = "WGTORCH_*"
_NAMES_A_KEY = re.compile(
    r"(?i)(^|[-_.])(api[-_]?key|access[-_]?key([-_]?id)?|secret([-_]?key)?|client[-_]?secret|private[-_]?key|subscription[-_]?key|passwords?|"
    r"passwd|passphrase|credentials?|(proxy[-_]?)?authorization|auth|cookies?|bearer|signature|"
    r"((access|auth|refresh|session|security|id|api|bearer|user)[-_]?)token)$|^(token|apikey|x-functions-key)$"
)
_NAMES_A_KEY_THERE = re.compile(r"(?i)(header|quer|param|cookie)[^.]*\.[^.]*(key|token|secret|auth|cookie|sig)[^.]*$")
_LOOKS_LIKE_A_KEY = re.compile(
    r"\bsk-[A-Za-z0-9_-]{12,}|\bbearer\s+[\w.~+/=-]{12,}|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bhf_\w{20,}|\bAKIA[0-9A-Z]{16}\b|"
    r"\bxox[abeprs]-[\w-]{10,}|\bAIza[\w-]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Trust:
    """What a file may do that files may not by themselves. ``trust=True`` allows all of it.

    Args:
        env: variables of the environment that it may read, and send as a key to any address: ``"NAME"``, or ``"PREFIX_*"``.
            Files may read ``WGTORCH_*`` anyway.
        endpoints: addresses that a provider's own key may be sent to (``"https://proxy.example.org"``) beside the provider's own.

    Raises:
        ConfigError: an entry is no text, or an endpoint is no http address.

    Example:
        >>> Graph.from_yaml("graph.yaml", trust=Trust(env=("MY_LLM_KEY",)))
    """

    env: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("env", "endpoints"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(entry, str) for entry in value):
                raise ConfigError(f"Trust.{name}: got {describe(value)}; expected a tuple of texts")
            object.__setattr__(self, name, tuple(value))
        for url in self.endpoints:
            if url != "*" and not _origin(url)[1]:
                raise ConfigError(f"Trust.endpoints: found {url!r}; expected an address such as 'https://proxy.example.org'")

    def reads(self, name: str) -> bool:
        """True for a variable that may be read."""
        return any(fnmatchcase(name, pattern) for pattern in (_OWN, *self.env))

    def reaches(self, url: str) -> bool:
        """True for an address that a provider's own key may be sent to."""
        return any(entry == "*" or _origin(entry) == _origin(url) for entry in self.endpoints)


_EVERYTHING = Trust(("*",), ("*",))


@dataclass(frozen=True, slots=True)
class _Border:
    file: str
    trust: Trust
    path: tuple[str, ...] = ()


_border: ContextVar[_Border | None] = ContextVar("wgtorch_border", default=None)
"""Where what is built now comes from; None for what the caller wrote in code."""


def in_code() -> bool:
    """True where what is built now was written in code, not in a file."""
    return _border.get() is None


def untrusted_file() -> str | None:
    """The file that what is built now comes from; None where code says so, or the file is trusted with everything."""
    border = _border.get()
    return None if border is None or border.trust == _EVERYTHING else border.file


@contextmanager
def from_file(file: str | os.PathLike[str], trust: Trust | bool | None = None) -> Iterator[None]:
    """Says that what is built now comes from a file; None trusts it as what names it, or not at all where code does."""
    around = _border.get()
    if trust is None:
        trust = around.trust if around is not None else Trust()
    elif isinstance(trust, bool):
        trust = _EVERYTHING if trust else Trust()
    elif not isinstance(trust, Trust):
        raise ConfigError(f"{file}: trust is {describe(trust)}; expected True or wgtorch.core.trust.Trust(env=..., endpoints=...)")
    token = _border.set(_Border(str(file), trust, around.path if around is not None else ()))
    try:
        yield
    finally:
        _border.reset(token)


@contextmanager
def at_node(node_id: str) -> Iterator[None]:
    """Says which node of a file's config is built now, for messages."""
    border = _border.get()
    if border is None:
        yield
        return
    token = _border.set(replace(border, path=(*border.path, node_id)))
    try:
        yield
    finally:
        _border.reset(token)


def check_read(name: str, where: str) -> None:
    """Refuses to read a variable of the environment for a file that may not have it.

    Raises:
        ConfigError: with the variable, its place, and how to allow it.
    """
    border = _border.get()
    if border is not None and not border.trust.reads(name):
        raise _refused(border, where, f"reads the environment variable {name}; a file may read {_OWN} alone", name)


def check_key(name: str, url: str, where: str, *, own: bool, at_home: bool) -> None:
    """Refuses to send a key for a file that may not send it there.

    Args:
        name: the variable that holds it.
        url: the address.
        where: who asks, for messages.
        own: it is the provider's own.
        at_home: the address is the provider's own.

    Raises:
        ConfigError: with the variable, its place, and how to allow it.
    """
    border = _border.get()
    if border is None or border.trust.reads(name) or (own and (at_home or border.trust.reaches(url))):
        return
    said = f"sends the environment variable {name} to {url}; a file may send {_OWN}, and a provider's own key to its own https address"
    raise _refused(border, f"{where}.api_key_env", said, name)


def check_write(path: str | os.PathLike[str], where: str, instead: str) -> None:
    """Refuses a place outside of the current folder that a file would have something written to.

    Args:
        path: the place.
        where: what names it, for messages.
        instead: what the caller may write in code.

    Raises:
        ConfigError: with the path, its place in the config, and how to allow it.
    """
    border = _border.get()
    if border is None or border.trust == _EVERYTHING or is_below_here(path):
        return
    place = "/".join(border.path)
    raise ConfigError(
        f"{border.file}: {f'{place}: ' if place else ''}{where}: would be written to {os.fspath(path)!r}; a file may choose a place below "
        f"the current folder. If it is to be there, {instead}, or load it with trust=True"
    )


def is_below_here(path: str | os.PathLike[str]) -> bool:
    """True for a path inside the current folder, links followed; never for an address."""
    return "://" not in os.fspath(path) and Path(path).expanduser().resolve().is_relative_to(Path.cwd().resolve())


def check_no_keys(value: Any, where: str) -> None:
    """Refuses keys and passwords in what is written, shown and sent as it stands: by the name they have there, or by their look.

    Raises:
        ConfigError: with the place, and without the key.
    """
    stack = [(where, value)]
    while stack:
        place, held = stack.pop()
        if isinstance(held, Mapping):
            stack += [(f"{place}.{name}", item) for name, item in held.items()]
        elif isinstance(held, (list, tuple)):
            stack += [(f"{place}[{index}]", item) for index, item in enumerate(held)]
        elif isinstance(held, str) and held and (_LOOKS_LIKE_A_KEY.search(held) or _is_named_as_key(place)):
            raise ConfigError(
                f"{place}: looks like a key or a password, which no config may hold: it would be written into every file, report and log. "
                "Put it into the environment and name the variable (api_key_env='MY_KEY')"
            )


def _is_named_as_key(place: str) -> bool:
    return bool(_NAMES_A_KEY.search(place.rpartition(".")[2].partition("[")[0]) or _NAMES_A_KEY_THERE.search(place))


def _refused(border: _Border, where: str, said: str, name: str) -> ConfigError:
    place = "/".join(border.path)
    return ConfigError(
        f"{border.file}: {f'{place}: ' if place else ''}{where}: {said}. If it is to, load it with trust=Trust(env=({name!r},)) "
        f"(from wgtorch.core.trust import Trust), on the command line with --trust {name}"
    )


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return ("", "", None)
    return (parts.scheme, parts.hostname or "" if parts.scheme in ("http", "https") else "", port)
