"""SVG of a level: boxes with their ports in columns, arrows in the gaps between.

Columns and their order come from the layered layout of Sugiyama et al. 1981 (https://doi.org/10.1109/TSMC.1981.4308636) as grandalf
computes it. Names of ports stand in the boxes, in rows of their own, so no arrow needs words. An arrow crosses a column only where
the layout has left a place for it; one that closes a loop is dashed and goes back below all boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from wgtorch.core.drawing.link import Link

_ROW, _HEAD, _PAD, _MARGIN = 15, 19, 10, 16  # pixels: a port's row, a line of the caption, inside a box, around the picture
_GAP, _LANE, _BETWEEN = 46, 9, 22  # between columns, between arrows that go back, between boxes of a column
_WIDE, _NARROW = 7.6, 6.4  # pixels of a letter in captions (12 px) and ports (10.5 px), of sans-serif fonts that run wide

_STYLE = """
.wgt{font-family:ui-sans-serif,system-ui,sans-serif;font-size:12px}
.wgt rect{fill:#eef2fb;stroke:#556}.wgt rect.end{fill:#fbf6e9}
.wgt text{fill:#223}.wgt .soft{fill:#667}.wgt .port{fill:#446;font-size:10.5px}
.wgt path{fill:none;stroke:#557;stroke-width:1.2}.wgt .tip{fill:#557;stroke:none}
@media (prefers-color-scheme:dark){.wgt rect{fill:#242a38;stroke:#8a93a8}.wgt rect.end{fill:#33302a}.wgt text{fill:#e6e9f0}
.wgt .soft{fill:#a4abbb}.wgt .port{fill:#c3cbe0}.wgt path{stroke:#98a2bd}.wgt .tip{fill:#98a2bd}}
"""


@dataclass(slots=True)
class Box:
    """A node, or what comes in or goes out.

    Args:
        name: its id.
        caption: lines of text.
        is_end: it stands for an exposed port.
        inputs, outputs: names of ports that arrows join.
    """

    name: str
    caption: Sequence[str]
    is_end: bool
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        """In pixels."""
        left = max([len(name) for name in self.inputs], default=0) * _NARROW
        right = max([len(name) for name in self.outputs], default=0) * _NARROW
        return max(max(len(row) for row in self.caption) * _WIDE, left + right + (_PAD if left and right else 0)) + 2 * _PAD

    @property
    def height(self) -> float:
        """In pixels."""
        return len(self.caption) * _HEAD + max(len(self.inputs), len(self.outputs)) * _ROW + _PAD

    def port_y(self, port: str, side: list[str]) -> float:
        """Where an arrow meets a port; the middle of the caption for one that joins the node as a whole."""
        if port not in side:
            return self.y + len(self.caption) * _HEAD / 2 + _PAD / 2
        return self.y + len(self.caption) * _HEAD + _ROW * (side.index(port) + 0.5) + _PAD / 4

    def drawn(self) -> Iterator[str]:
        """The box and its words."""
        corner = ' class="end" rx="12"' if self.is_end else ' rx="6"'
        yield f'<rect x="{self.x:.0f}" y="{self.y:.0f}" width="{self.width:.0f}" height="{self.height:.0f}"{corner}/>'
        for index, row in enumerate(self.caption):
            style = ' class="soft"' if index else ' font-weight="600"' if not self.is_end else ""
            middle, base = self.x + self.width / 2, self.y + _HEAD * (index + 1) - _PAD / 4
            yield f'<text x="{middle:.0f}" y="{base:.0f}" text-anchor="middle"{style}>{escape(row)}</text>'
        for side, x, anchor in ((self.inputs, self.x + _PAD / 2, "start"), (self.outputs, self.x + self.width - _PAD / 2, "end")):
            for port in side:
                y = self.port_y(port, side) + 4
                yield f'<text class="port" x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(port)}</text>'


def svg_of(captions: Mapping[str, Sequence[str]], links: Sequence[Link], order: Sequence[str] = ()) -> str:
    """The picture.

    Args:
        captions: lines of text by node id.
        links: arrows between nodes, and from and to ends (``>name``, ``name>``).
        order: nodes in the order they run, as far as it is known: what leads to an earlier one closes a loop.
    """
    boxes = {name: Box(name, caption, False) for name, caption in captions.items()}
    for link in links:
        for end in (link.source, link.target):
            if end not in boxes:
                boxes[end] = Box(end, [end.strip(">")], True)
        for box, port, side in (
            (boxes[link.source], link.source_port, boxes[link.source].outputs),
            (boxes[link.target], link.target_port, boxes[link.target].inputs),
        ):
            if port and not box.is_end and port not in side:
                side.append(port)
    back = _closing(list(boxes), links, order)
    parts: list[str] = []
    top, right = float(_MARGIN), 0.0
    for component in _components(boxes, links):
        own = [link for link in links if link.source in component]
        forward, closing = [link for link in own if link not in back], [link for link in own if link in back]
        columns, routes = _laid_out(component, forward)
        lanes = Lanes(closing, columns)
        edges = _place(columns, routes, top, lanes)
        bottom = max(box.y + box.height for box in component.values())
        parts += [_forward(component[link.source], component[link.target], link, edges, routes[link]) for link in forward]
        parts += [_backward(component[link.source], component[link.target], link, edges, lanes, bottom) for link in closing]
        parts += [text for box in component.values() for text in box.drawn()]
        right = max(right, edges[-1][1] + lanes.after(len(columns) - 1))
        top = bottom + (len(lanes.below) + 1) * _LANE + _BETWEEN
    width, height = right + _MARGIN, top - _BETWEEN + _MARGIN if boxes else 2.0 * _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="wgt" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">'
    )
    tip = '<defs><marker id="wgt-tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    return "\n".join([head, f"<style>{_STYLE}</style>", f'{tip}<path class="tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>', *parts, "</svg>"])


# --- layout -----------------------------------------------------------------------------------------------------------


def _closing(names: Sequence[str], links: Sequence[Link], order: Sequence[str]) -> set[Link]:
    """Arrows that close a loop: that lead to a node which runs before, or that is on the way from the inputs."""
    rank = {name: index for index, name in enumerate(order)}
    found = {link for link in links if link.source in rank and rank[link.source] >= rank.get(link.target, len(rank))}
    after: dict[str, list[Link]] = {name: [] for name in names}
    for link in links:
        if link not in found:
            after[link.source].append(link)
    fed = {link.target for link in links if link not in found}
    state: dict[str, int] = {}  # 1 while on the way, 2 when done
    for start in sorted(names, key=lambda name: (name in fed, names.index(name))):
        if start in state:
            continue
        state[start] = 1
        way = [(start, iter(after[start]))]
        while way:
            name, rest = way[-1]
            step = next(rest, None)
            if step is None:
                state[name] = 2
                way.pop()
            elif state.get(step.target) == 1:
                found.add(step)
            elif step.target not in state:
                state[step.target] = 1
                way.append((step.target, iter(after[step.target])))
    return found


def _components(boxes: Mapping[str, Box], links: Sequence[Link]) -> list[dict[str, Box]]:
    """Boxes that arrows join, each group by itself, in the order of their first box."""
    group = {name: {name} for name in boxes}
    for link in links:
        if (one := group[link.source]) is not (other := group[link.target]):
            one |= other
            group.update(dict.fromkeys(other, one))
    return [{name: boxes[name] for name in boxes if name in each} for each in {id(each): each for each in group.values()}.values()]


def _laid_out(boxes: Mapping[str, Box], links: Sequence[Link]) -> tuple[list[list[Any]], dict[Link, list[float]]]:
    """Columns of boxes, and where arrows that pass columns cross them: (middle y of a box or an arrow) in grandalf's order."""
    from grandalf.graphs import Edge, Graph, Vertex
    from grandalf.layouts import SugiyamaLayout, VertexViewer

    vertices = {name: Vertex(name) for name in boxes}
    for name, vertex in vertices.items():
        vertex.view = VertexViewer(w=boxes[name].height, h=boxes[name].width)  # the layout goes from top to bottom, we to the right
    pairs = dict.fromkeys((link.source, link.target) for link in links)
    edges = {pair: Edge(vertices[pair[0]], vertices[pair[1]]) for pair in pairs}
    core = Graph(list(vertices.values()), list(edges.values())).C[0]
    layout = SugiyamaLayout(core)
    layout.xspace, layout.yspace, layout.dw, layout.dh = _BETWEEN, _GAP, 1, 1
    roots = [vertex for name, vertex in vertices.items() if not any(target == name for _, target in pairs)]
    layout.init_all(roots=roots, inverted_edges=[])
    layout.draw()
    columns: list[list[Any]] = [[] for _ in layout.layers]
    for index, layer in enumerate(layout.layers):
        columns[index] = [boxes[vertex.data] for vertex in layer if vertex in core.sV]
        for box in columns[index]:
            box.y = vertices[box.name].view.xy[0] - box.height / 2
    routes: dict[Link, list[float]] = {}
    for link in links:
        passed = layout.ctrls.get(edges[link.source, link.target], {})
        routes[link] = [passed[rank].view.xy[0] for rank in sorted(passed)[1:-1]]  # without the two ends
    return columns, routes


class Lanes:
    """Ways of the arrows that go back; those of one port share one as far as they can.

    Args:
        links: the arrows.
        columns: boxes by column.
    """

    def __init__(self, links: Sequence[Link], columns: Sequence[list[Box]]) -> None:
        column = {box.name: index for index, boxes in enumerate(columns) for box in boxes}
        self.below: dict[tuple[str, str], int] = {}
        self.rights: dict[int, dict[tuple[str, str], int]] = {}
        self.lefts: dict[int, dict[tuple[str, str], int]] = {}
        for link in links:
            way = (link.source, link.source_port)
            for taken in (self.below, self.rights.setdefault(column[link.source], {}), self.lefts.setdefault(column[link.target], {})):
                taken.setdefault(way, len(taken) + 1)

    def after(self, column: int) -> int:
        """Pixels that ways to the right of a column take."""
        return _LANE * len(self.rights.get(column, ()))

    def before(self, column: int) -> int:
        """Pixels that ways to the left of a column take."""
        return _LANE * len(self.lefts.get(column, ()))


def _place(columns: Sequence[list[Box]], routes: dict[Link, list[float]], top: float, lanes: Lanes) -> list[tuple[float, float]]:
    """Moves a component below ``top``, its columns side by side. Gives the left and right border of each column."""
    lowest = min([box.y for column in columns for box in column] + [y for route in routes.values() for y in route])
    for column in columns:
        for box in column:
            box.y += top - lowest
    for link in routes:
        routes[link] = [y + top - lowest for y in routes[link]]
    edges = []
    x = float(_MARGIN)
    for index, column in enumerate(columns):
        width = max([box.width for box in column], default=0.0)
        x += lanes.before(index)
        for box in column:
            box.x = x + (width - box.width) / 2
        edges.append((x, x + width))
        x += width + lanes.after(index) + _GAP
    return edges


def _column_of(box: Box, edges: Sequence[tuple[float, float]]) -> int:
    return next(index for index, (left, right) in enumerate(edges) if left <= box.x + box.width / 2 <= right)


# --- arrows -----------------------------------------------------------------------------------------------------------


def _forward(source: Box, target: Box, link: Link, edges: Sequence[tuple[float, float]], route: Sequence[float]) -> str:
    """Through the gaps, and straight through columns in between where the layout left a place."""
    first, last = _column_of(source, edges), _column_of(target, edges)
    y, end = source.port_y(link.source_port, source.outputs), target.port_y(link.target_port, target.inputs)
    path = [f"M{source.x + source.width:.0f} {y:.0f} H{edges[first][1]:.0f}"]
    stops = [*zip(range(first + 1, last), route, strict=False), (last, end)]
    x = edges[first][1]
    for column, height in stops:
        left, right = edges[column]
        middle = (x + left) / 2
        path.append(f"C{middle:.0f} {y:.0f} {middle:.0f} {height:.0f} {left:.0f} {height:.0f}")
        x, y = right, height
        path.append(f"H{(right if column != last else target.x):.0f}")
    return f'<path d="{" ".join(path)}" marker-end="url(#wgt-tip)"/>'


def _backward(source: Box, target: Box, link: Link, edges: Sequence[tuple[float, float]], lanes: Lanes, bottom: float) -> str:
    """Out to the right, down below all boxes, back, and up to the target."""
    way, first, last = (link.source, link.source_port), _column_of(source, edges), _column_of(target, edges)
    y, end = source.port_y(link.source_port, source.outputs), target.port_y(link.target_port, target.inputs)
    out, back = edges[first][1] + lanes.rights[first][way] * _LANE, edges[last][0] - lanes.lefts[last][way] * _LANE
    below = bottom + lanes.below[way] * _LANE
    path = f"M{source.x + source.width:.0f} {y:.0f} H{out:.0f} V{below:.0f} H{back:.0f} V{end:.0f} H{target.x:.0f}"
    return f'<path d="{path}" stroke-dasharray="5 4" marker-end="url(#wgt-tip)"/>'
