"""An arrow of a drawing."""

from __future__ import annotations

from typing import NamedTuple


class Link(NamedTuple):
    """An arrow. ``>name`` as a source and ``name>`` as a target stand for what comes in and goes out.

    Args:
        source, target: ids of nodes.
        source_port, target_port: which of their ports it joins; empty where it joins the nodes as wholes.
    """

    source: str
    source_port: str
    target: str
    target_port: str

    @property
    def words(self) -> str:
        """What stands on the arrow."""
        ports = [port for port in (self.source_port, self.target_port) if port]
        return " > ".join(dict.fromkeys(ports))
