"""Pictures of a level's structure, as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from wgtorch.core.errors import UnknownNameError, suggest
from wgtorch.core.tree import is_level

NEWLINE = r"\n"
FORMATS = ("mermaid", "dot", "svg")
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 150, 44, 70, 26  # pixels of a box and between boxes


class Drawing(str):
    """The text of a picture; a notebook shows it drawn."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg


def draw(level: Any, format: str = "mermaid", times: Mapping[str, float] | None = None) -> Drawing:
    """Draws a level; see :meth:`wgtorch.core.composite.Composite.draw`."""
    if format not in FORMATS:
        raise UnknownNameError(f"unknown format {format!r}; {suggest(format, FORMATS)}")
    names = {node_id: _caption(level, node_id, times or {}) for node_id in level.node_specs}
    links = list(level.links())
    svg = _svg(names, links)
    text = {"mermaid": _mermaid, "dot": _dot}[format](names, links) if format != "svg" else svg
    drawing = Drawing(text)
    drawing.svg = svg
    return drawing


Link = tuple[str, str, str]
"""(source, target, words); ``>name`` and ``name>`` stand for what comes in and goes out."""


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
    rows += [f"    {ref(source)} -->{f'|{escape(words)}|' if words else ''} {ref(target)}" for source, target, words in links]
    return "\n".join(rows)


def _dot(names: Mapping[str, list[str]], links: Iterable[Link]) -> str:
    def quote(text: str) -> str:
        return '"' + text.replace('"', r"\"") + '"'

    rows = ["digraph {", "    rankdir=LR; node [shape=box];"]
    rows += [f"    {quote(node)} [label={quote(NEWLINE.join(caption))}];" for node, caption in names.items()]
    rows += [f"    {quote(source)} -> {quote(target)}{f' [label={quote(words)}]' if words else ''};" for source, target, words in links]
    return "\n".join([*rows, "}"])


def _svg(names: Mapping[str, list[str]], links: list[Link]) -> str:
    """Boxes in columns by their distance from the inputs; edges back to an earlier column are dashed."""
    captions = dict(names)
    for source, target, _ in links:
        for end in (source, target):
            captions.setdefault(end, [end.strip(">")])
    column = _columns(captions, links)
    rows: dict[int, int] = {}
    spot: dict[str, tuple[float, float]] = {}
    for node in sorted(captions, key=lambda node: (column[node], list(captions).index(node))):
        row = rows.get(column[node], 0)
        rows[column[node]] = row + 1
        spot[node] = (20 + column[node] * (_WIDTH + _GAP_X), 20 + row * (_HEIGHT + _GAP_Y))
    width = max((x for x, _ in spot.values()), default=0) + _WIDTH + 20
    height = max((y for _, y in spot.values()), default=0) + _HEIGHT + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="12">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#557"/></marker></defs>',
    ]
    for source, target, words in links:
        parts.append(_arrow(spot[source], spot[target], words, back=column[target] <= column[source]))
    for node, caption in captions.items():
        parts.append(_box(spot[node], caption, inner=node in names))
    return "\n".join([*parts, "</svg>"])


def _columns(captions: Mapping[str, list[str]], links: list[Link]) -> dict[str, int]:
    column = dict.fromkeys(captions, 0)
    for _ in captions:
        for source, target, _ in links:
            # An edge towards an earlier place in the list of nodes closes a loop and pushes nothing to the right.
            if list(captions).index(source) < list(captions).index(target) or source.startswith(">") or target.endswith(">"):
                column[target] = max(column[target], min(column[source] + 1, len(captions)))
    return column


def _arrow(start: tuple[float, float], end: tuple[float, float], words: str, *, back: bool) -> str:
    if back:
        x1, y1, x2, y2 = start[0] + _WIDTH / 2, start[1] + _HEIGHT, end[0] + _WIDTH / 2, end[1] + _HEIGHT
        path, middle = (
            f"M{x1:.0f} {y1:.0f} C {x1:.0f} {y1 + 34:.0f}, {x2:.0f} {y2 + 34:.0f}, {x2:.0f} {y2:.0f}",
            ((x1 + x2) / 2, max(y1, y2) + 28),
        )
    else:
        x1, y1, x2, y2 = start[0] + _WIDTH, start[1] + _HEIGHT / 2, end[0], end[1] + _HEIGHT / 2
        bend = (x2 - x1) / 2
        path, middle = (
            f"M{x1:.0f} {y1:.0f} C {x1 + bend:.0f} {y1:.0f}, {x2 - bend:.0f} {y2:.0f}, {x2:.0f} {y2:.0f}",
            ((x1 + x2) / 2, (y1 + y2) / 2 - 4),
        )
    dash = ' stroke-dasharray="5 4"' if back else ""
    label = (
        f'<text x="{middle[0]:.0f}" y="{middle[1]:.0f}" text-anchor="middle" fill="#668" font-size="10">{escape(words)}</text>'
        if words
        else ""
    )
    return f'<path d="{path}" fill="none" stroke="#557"{dash} marker-end="url(#tip)"/>{label}'


def _box(spot: tuple[float, float], caption: list[str], *, inner: bool) -> str:
    x, y = spot
    fill, radius = ("#eef2fb", 6) if inner else ("#fbf6e9", 20)
    lines = [
        f'<text x="{x + _WIDTH / 2:.0f}" y="{y + 18 + 14 * index:.0f}" text-anchor="middle" '
        f'fill="{"#223" if not index else "#778"}">{escape(row)}</text>'
        for index, row in enumerate(caption[:3])
    ]
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{_WIDTH}" height="{_HEIGHT}" rx="{radius}" fill="{fill}" stroke="#557"/>' + "".join(lines)
