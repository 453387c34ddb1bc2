"""Ports in a block class's docstring, where ``help()`` and editors look: read off the class when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wgtorch.core.port import Port

_HEADING = "\n\n    Ports:\n"


class DocWithPorts:
    """A class's ``__doc__``: what its author wrote, and the ports that the class declares.

    Args:
        written: the author's text.
    """

    def __init__(self, written: str | None) -> None:
        self.written = (written or "").partition(_HEADING)[0].rstrip()

    def __get__(self, instance: object, owner: Any) -> str | None:
        texts = (base.__dict__.get("__doc__") for base in owner.__mro__)
        written = next((text for each in texts if (text := each.written if isinstance(each, DocWithPorts) else each)), "")
        inputs, outputs = owner.class_ports()
        lines = [*_lines(inputs.values(), "in"), *_lines(outputs.values(), "out")]
        return (written.rstrip() + (_HEADING + "\n".join(lines) + "\n" if lines else "")) or None


def _lines(ports: Iterable[Port], direction: str) -> list[str]:
    """One line for each port: ``in   x (tensor [B, 3], optional): what it is``."""
    lines = []
    for port in ports:
        several = "" if port.aggregation == "single" else f", {port.aggregation} of several"
        kind = f"{port.dtype} {port.shape_text()}".rstrip()
        text = f"        {direction:<4}{port.name} ({kind}{', optional' if port.optional else ''}{several})"
        lines.append(f"{text}: {port.description}" if port.description else text)
    return lines
