"""A level's structure as text that programs draw: Mermaid, DOT, SVG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from wgtorch.core.drawing.link import Link
from wgtorch.core.drawing.svg import svg_of
from wgtorch.core.errors import UnknownNameError, suggest
from wgtorch.core.tree import is_level

NEWLINE = r"\n"
FORMATS = ("mermaid", "dot", "svg")


class Drawing(str):
    """The text of a picture; a notebook shows it drawn."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg


def draw(level: Any, format: str = "mermaid", times: Mapping[str, float] | None = None) -> Drawing:
    """Draws a level; see :meth:`wgtorch.core.level.Level.draw`. Outputs of which a call gives only some have a question mark."""
    if format not in FORMATS:
        raise UnknownNameError(f"unknown format {format!r}; {suggest(format, FORMATS)}")
    names = {node_id: _caption(level, node_id, times or {}) for node_id in level.node_specs}
    routes = {node_id: tuple(level.nodes[node_id].routes) for node_id in level.node_specs}
    links = [
        link._replace(source_port=f"{link.source_port}?") if link.source_port in routes.get(link.source, ()) else link
        for link in level.links()
    ]
    svg = svg_of(names, links, level.run_order())
    text = {"mermaid": _mermaid, "dot": _dot}[format](names, links) if format != "svg" else svg
    drawing = Drawing(text)
    drawing.svg = svg
    return drawing


def _caption(level: Any, node_id: str, times: Mapping[str, float]) -> list[str]:
    child = level.nodes[node_id]
    rows = [node_id, child.block_type or (child.level if is_level(child) else type(child).__name__)]
    seconds = times.get(f"{level.block_id}/{node_id}", times.get(node_id))
    return rows if seconds is None else [*rows, f"{seconds * 1000:.1f} ms"]


def _mermaid(names: Mapping[str, list[str]], links: Iterable[Link]) -> str:
    def ref(node: str) -> str:
        if node in names:
            return f"n_{node.replace('-', '__')}"
        shown = node.strip(">")
        side = "in" if node.startswith(">") else "out"
        return f'{side}_{"".join(c if c.isalnum() else "_" for c in shown)}(["{shown}"])'

    rows = ["flowchart LR"]
    rows += [f'    {ref(node)}["{"<br/>".join(escape(row) for row in caption)}"]' for node, caption in names.items()]
    rows += [f"    {ref(link.source)} -->{f'|{escape(link.words)}|' if link.words else ''} {ref(link.target)}" for link in links]
    return "\n".join(rows)


def _dot(names: Mapping[str, list[str]], links: Iterable[Link]) -> str:
    def quote(text: str) -> str:
        return '"' + text.replace('"', r"\"") + '"'

    rows = ["digraph {", "    rankdir=LR; node [shape=box];"]
    rows += [f"    {quote(node)} [label={quote(NEWLINE.join(caption))}];" for node, caption in names.items()]
    rows += [f"    {quote(link.source)} -> {quote(link.target)}{f' [label={quote(link.words)}]' if link.words else ''};" for link in links]
    return "\n".join([*rows, "}"])
