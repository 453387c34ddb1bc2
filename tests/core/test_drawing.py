"""Pictures of a structure: every node, edge and exposed port is in them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.blocks_for_tests import Scale, Shout, as_pipeline, as_stage, block_of, chain, counter
from tests.core.random_structures import Sketch, dags, loops
from wgtorch.core.errors import UnknownNameError
from wgtorch.core.tree import levels
from wgtorch.graph import Graph
from wgtorch.world import World


def test_mermaid() -> None:
    graph = chain(Scale(), Scale(), name="g")
    assert graph.draw() == "\n".join(
        [
            "flowchart LR",
            '    n_n0["n0<br/>test/scale"]',
            '    n_n1["n1<br/>test/scale"]',
            '    in_x(["x"]) -->|x| n_n0',
            "    n_n0 -->|y &gt; x| n_n1",
            '    n_n1 -->|y| out_y(["y"])',
        ]
    )


def test_dot() -> None:
    text = chain(Scale(), Scale()).draw("dot")
    assert text.startswith("digraph {")
    assert text.endswith("}")
    for row in ('"n0" [label="n0\\ntest/scale"];', '"n0" -> "n1" [label="y > x"];', '">x" -> "n0"', '"n1" -> "y>"'):
        assert row in text


def test_svg_is_well_formed_and_holds_every_node() -> None:
    graph = counter(3)
    graph.add_node(Shout("<&>"), "say")
    root = ET.fromstring(graph.draw("svg"))
    words = {element.text for element in root.iter() if element.tag.endswith("text")}
    assert {"double", "test/scale", "say", "test/shout", "x", "y"} <= words
    assert root.attrib["width"].isdigit()


def test_an_edge_that_closes_a_loop_is_dashed() -> None:
    assert "stroke-dasharray" in counter(3).draw("svg")
    assert "stroke-dasharray" not in chain(Scale(), Scale()).draw("svg")


def test_measured_times_are_written_on_the_nodes() -> None:
    graph = chain(Scale(), Scale(), name="g")
    for format in ("mermaid", "dot", "svg"):
        text = graph.draw(format, times={"g/n0": 0.0125, "n1": 1.0})
        assert "12.5 ms" in text
        assert "1000.0 ms" in text
    assert " ms" not in graph.draw()


def test_names_that_could_break_the_picture() -> None:
    graph = Graph("g")
    for node_id in ("end", "graph", "a-b", "a_b", "0"):
        graph.add_node(block_of(lambda x: x), node_id)
        graph.expose_input(node_id, "x", f'in <{node_id}> "quoted"')
    mermaid = graph.draw()
    boxes = [row.split("[")[0].strip() for row in mermaid.splitlines() if row.strip().startswith("n_")]
    assert len(set(boxes)) == 5, "two nodes share one name in the picture"
    ET.fromstring(graph.draw("svg"))
    assert '\\"quoted\\"' in graph.draw("dot")


WIDTHS = {"port": 6.0}
"""Pixels of a letter at most, in the fonts that browsers take; captions are larger."""


def boxes_and_words(svg: str) -> tuple[list[Any], list[Any]]:
    """(left, top, right, bottom) of boxes, and of words."""
    boxes, words = [], []
    for element in ET.fromstring(svg).iter():
        tag, at = element.tag.split("}")[-1], element.attrib
        if tag == "rect":
            x, y = float(at["x"]), float(at["y"])
            boxes.append((x, y, x + float(at["width"]), y + float(at["height"])))
        elif tag == "text":
            width = len(element.text or "") * WIDTHS.get(at.get("class", ""), 7.0)
            left = float(at["x"]) - {"middle": width / 2, "end": width}.get(at.get("text-anchor", ""), 0.0)
            words.append((left, float(at["y"]) - 9, left + width, float(at["y"]) + 2))
    return boxes, words


def crossed(svg: str, boxes: list[Any]) -> int:
    """How many arrows run through a box."""
    found = 0
    for element in ET.fromstring(svg).iter():
        if element.tag.endswith("path") and "marker-end" in element.attrib:
            points = list(points_of(element.attrib["d"]))
            found += any(left + 2 < x < right - 2 and top + 2 < y < bottom - 2 for x, y in points for left, top, right, bottom in boxes)
    return found


def points_of(path: str) -> Iterator[tuple[float, float]]:
    """Points along a path of moves, straight lines and curves."""
    x = y = 0.0
    for command, numbers in re.findall(r"([MHVC])([^MHVC]*)", path):
        at = [float(number) for number in numbers.split()]
        if command == "M":
            x, y = at
        else:
            end = {"H": (at[-1], y), "V": (x, at[-1]), "C": tuple(at[-2:])}[command]
            one, two = ((at[0], at[1]), (at[2], at[3])) if command == "C" else ((x, y), end)
            for step in range(41):
                t = step / 40
                weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
                yield tuple(sum(w * p[axis] for w, p in zip(weights, ((x, y), one, two, end), strict=True)) for axis in (0, 1))
            x, y = end


def overlaps(first: Any, second: Any) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def check_readable(svg: str) -> None:
    boxes, words = boxes_and_words(svg)
    width, height = (float(ET.fromstring(svg).attrib[name]) for name in ("width", "height"))
    assert not [pair for pair in combinations(boxes, 2) if overlaps(*pair)], "two boxes lie over each other"
    assert not [pair for pair in combinations(words, 2) if overlaps(*pair)], "two words lie over each other"
    for word in words:
        assert any(box[0] <= word[0] and box[1] <= word[1] and word[2] <= box[2] and word[3] <= box[3] for box in boxes), "a word is cut"
    assert crossed(svg, boxes) == 0, "an arrow runs through a box"
    assert all(0 <= x <= width and 0 <= y <= height for box in boxes for x, y in (box[:2], box[2:]))


@pytest.mark.parametrize("name", ["graph/text_to_image", "graph/image_to_image", "graph/inpaint", "graph/chat", "graph/upscale"])
def test_nothing_lies_over_anything_in_a_template(name: str) -> None:
    check_readable(Graph.from_template(name.split("/")[1]).draw("svg"))


def test_nothing_lies_over_anything_in_a_world() -> None:
    world = World.from_template("default")
    for level in levels(world):
        check_readable(level.draw("svg"))


@given(st.one_of(dags(), loops()))
@settings(max_examples=30, deadline=None)
def test_nothing_lies_over_anything_in_any_graph(sketch: Sketch) -> None:
    check_readable(sketch.graph().draw("svg"))


def test_a_level_shows_itself_on_a_page() -> None:
    graph = chain(Scale(), Scale(), name="g")
    text = repr(graph)
    assert text.splitlines()[:2] == ["Graph 'g'", "  inputs: x: tensor"]
    assert "n0  test/scale" in text and "    n0.y -> n1.x" in text
    graph.set_trainable("n1", False)
    assert "n1  test/scale, frozen" in repr(graph)
    assert repr(Graph("empty")) == "Graph 'empty'"
    many = chain(*[Scale() for _ in range(200)])
    assert len(repr(many).splitlines()) < 60 and "... 176 more" in repr(many)
    assert "<svg" in graph._repr_html_() and "&#x27;g&#x27;" in graph._repr_html_()


def test_a_world_shows_its_stages_and_how_far_it_is() -> None:
    text = repr(World.from_template("default"))
    assert "  lived: 0 passes" in text and "artifacts -> description" in text and len(text.splitlines()) < 30


def test_a_notebook_shows_the_picture_whatever_the_text() -> None:
    graph = chain(Scale())
    assert graph.draw("mermaid")._repr_svg_() == graph.draw("svg")


def test_every_level_draws_its_own_children() -> None:
    graph = chain(Scale(), name="inner")
    assert 'n_only["only<br/>graph"]' in as_pipeline(graph).draw()
    text = as_stage(graph).draw()
    assert 'n_work["work<br/>pipeline"]' in text
    assert "recipe" in text
    assert "artifacts" in text


def test_an_unknown_format_names_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown format 'svgg'; did you mean 'svg'"):
        chain(Scale()).draw("svgg")


def test_an_empty_graph_can_be_drawn() -> None:
    assert Graph("g").draw() == "flowchart LR"
    ET.fromstring(Graph("g").draw("svg"))
