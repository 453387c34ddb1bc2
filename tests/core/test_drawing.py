"""Pictures of a structure: every node, edge and exposed port is in them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.blocks_for_tests import Scale, Shout, as_pipeline, as_stage, block_of, chain, counter
from wgtorch.core.errors import UnknownNameError
from wgtorch.graph import Graph


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
