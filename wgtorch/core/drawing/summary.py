"""A level on one page: its ports, its nodes and its edges in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from wgtorch.core.errors import WgtorchError
from wgtorch.core.port import MISSING, Port
from wgtorch.core.tree import is_level

_MOST = 24
"""Lines of nodes, and of edges, that are shown."""
_LONGEST = 110


def summary_of(level: Any) -> str:
    """What ``repr`` of a level shows: at most a page, with what its nodes are and how they are joined."""
    lines = [f"{type(level).__name__} {level.block_id!r}"]
    for head, words in level.summary_facts():
        lines += _wrapped(f"  {head}: ", words) if words else []
    width = max([len(node_id) for node_id in level.node_specs], default=0)
    nodes = [f"    {node_id.ljust(width)}  {_node(level, node_id)}" for node_id in level.node_specs]
    lines += _cut("  nodes:", nodes)
    edges = [f"    {_end(link.source, link.source_port)} -> {_end(link.target, link.target_port)}" for link in level.links()]
    edges = [edge for link, edge in zip(level.links(), edges, strict=True) if link.source_port and link.target_port]
    return "\n".join([*lines, *_cut("  edges:", edges)])


def ports_of(level: Any) -> list[tuple[str, list[str]]]:
    """Input and output ports, each in a few letters."""
    found = []
    for head, spec in (("inputs", level.get_input_spec), ("outputs", level.get_output_spec)):
        try:
            found.append((head, [_port(name, port) for name, port in spec().items()]))
        except WgtorchError as error:  # what is half built is shown all the same
            found.append((head, [f"({error})"]))
    return found


def html_of(level: Any) -> str:
    """What a notebook shows of a level: the drawing, and the summary folded below."""
    name = escape(f"{type(level).__name__} {level.block_id!r}")
    drawn = f'<div style="overflow-x:auto">{level.draw("svg")}</div>'
    return f"{drawn}<details><summary>{name}</summary><pre>{escape(summary_of(level))}</pre></details>"


def _port(name: str, port: Port) -> str:
    default = "" if port.default is MISSING else f" = {_short(port.default)}"
    return f"{name}{'?' if port.optional and not default else ''}: {f'{port.dtype} {port.shape_text()}'.rstrip()}{default}"


def _node(level: Any, node_id: str) -> str:
    child, node = level.nodes[node_id], level.node_specs[node_id]
    facts = [child.block_type or f"{type(child).__name__} {child.block_id!r}"]
    count = sum(parameter.numel() for parameter in child.parameters())
    if is_level(child):
        facts.append(f"{len(child.node_specs)} nodes")
    if count:
        facts.append(f"{_count(count)} parameters")
    facts += ["frozen"] if not node.trainable else []
    facts += [f"adapter {node.adapter!r}"] if node.adapter else []
    facts += [f"map over {', '.join(node.map)}"] if node.map else []
    facts += [f"inputs {_short(dict(node.inputs))}"] if node.inputs else []
    facts += [at] if (at := getattr(getattr(child, "endpoint", None), "url", None)) else []
    return ", ".join(facts + child.node_facts())


def _end(node: str, port: str) -> str:
    return f"{node}.{port}" if port else node


def _count(number: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        text = ", ".join(f"{name}={_short(item)}" for name, item in value.items())
    else:
        text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    return text if len(text) <= 48 else f"{text[:45]}..."


def _cut(head: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"    ... {len(lines) - _MOST} more"] if len(lines) > _MOST else []
    return [head, *(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..." for line in lines[:_MOST]), *more]


def _wrapped(head: str, words: list[str]) -> Iterator[str]:
    """Words after each other, on as many lines as they need."""
    line = head + words[0]
    for word in words[1:]:
        if len(line) + len(word) + 2 > _LONGEST:
            yield line + ","
            line = " " * len(head) + word
        else:
            line += f", {word}"
    yield line
