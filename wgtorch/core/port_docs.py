"""What a block class's docstring need not repeat: its ports, and arguments that a class above describes; read when somebody asks."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from wgtorch.core.port import Port
from wgtorch.core.signature import parameters_of

_HEADING = "\n\n    Ports:\n"
_ARGUMENTS = re.compile(r"^Args:(?:\n    .*)+", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w[\w, ]*):.*(?:\n {5,}.*)*", re.MULTILINE)


class DocWithPorts:
    """A class's ``__doc__``: what its author wrote, the arguments that a class above describes, and the ports that the class declares.

    Args:
        written: the author's text.
    """

    def __init__(self, written: str | None) -> None:
        self.written = (written or "").partition(_HEADING)[0].rstrip()

    def __get__(self, instance: object, owner: Any) -> str | None:
        docs = (base.__dict__.get("__doc__") for base in owner.__mro__)
        found = (each.written if isinstance(each, DocWithPorts) else each for each in docs)
        texts = [inspect.cleandoc(text) for text in found if text and isinstance(text, str)]
        written = textwrap.indent(_with_arguments(texts, owner), "    ")[4:]
        inputs, outputs = owner.class_ports()
        lines = [*_lines(inputs.values(), "in"), *_lines(outputs.values(), "out")]
        return (written.rstrip() + (_HEADING + "\n".join(lines) + "\n" if lines else "")) or None


def _with_arguments(texts: Sequence[str], owner: Any) -> str:
    """The first text, with what the others say of arguments of the constructor that it does not name."""
    sections = [_ENTRY.finditer(section[0]) for text in texts if (section := _ARGUMENTS.search(text))]
    described: dict[str, str] = {}
    for entry in (entry for section in sections for entry in section):
        described = dict.fromkeys(entry[1].split(", "), entry[0]) | described
    written = texts[0] if texts else ""
    own = _ARGUMENTS.search(written)
    wanted = (described.get(parameter.name, "") for parameter in parameters_of(owner.__init__))
    missing = "\n".join(entry for entry in dict.fromkeys(wanted) if entry and (own is None or entry not in own[0]))
    if not missing:
        return written
    return f"{written}\n\nArgs:\n{missing}" if own is None else f"{written[: own.end()]}\n{missing}{written[own.end() :]}"


def _lines(ports: Iterable[Port], direction: str) -> list[str]:
    """One line for each port: ``in   x (tensor [B, 3], optional): what it is``."""
    lines = []
    for port in ports:
        several = "" if port.aggregation == "single" else f", {port.aggregation} of several"
        kind = f"{port.dtype} {port.shape_text()}".rstrip()
        text = f"        {direction:<4}{port.name} ({kind}{', optional' if port.optional else ''}{several})"
        lines.append(f"{text}: {port.description}" if port.description else text)
    return lines
