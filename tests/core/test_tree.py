"""The one traversal: every place with its path, each level's inside as often as asked."""

from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_architecture import PACKAGE
from wgtorch import Block, Graph, Pipeline
from wgtorch.core.tree import is_level, levels, unique_blocks, walk


def level(**nodes: Any) -> Any:
    return SimpleNamespace(level="graph", nodes=nodes)


def block() -> Any:
    return SimpleNamespace(level="block")


def naive(root: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for node_id, child in root.nodes.items():
        found.append((f"{prefix}{node_id}", child, root))
        if is_level(child):
            found += naive(child, f"{prefix}{node_id}/")
    return found


@st.composite
def trees(draw: st.DrawFn) -> Any:
    made: list[Any] = [block(), block()]
    for _ in range(draw(st.integers(1, 5))):
        made.append(level(**{f"n{index}": draw(st.sampled_from(made)) for index in range(draw(st.integers(0, 3)))}))
    return made[-1]


@given(trees())
def test_a_walk_gives_what_a_recursion_gives(root: Any) -> None:
    everything = naive(root)
    assert list(walk(root)) == everything
    once: dict[tuple[int, str], tuple[str, Any, Any]] = {}
    for path, child, parent in everything:
        once.setdefault((id(parent), path.rpartition("/")[2]), (path, child, parent))
    assert list(walk(root, repeats=0)) == list(once.values())
    assert {id(found) for found in levels(root)} == {id(root), *(id(child) for _, child, _ in everything if is_level(child))}
    assert len(levels(root)) == len({id(found) for found in levels(root)})
    blocks = unique_blocks(root)
    assert [user for unique in blocks.values() for user in unique.users] == [
        path.replace("/", ".") for unique in blocks.values() for path, child, _ in everything if child is unique.block
    ]
    assert all(parent.nodes[node_id] is unique.block for unique in blocks.values() for parent, node_id in unique.holders)


def test_a_block_is_its_own_only_place() -> None:
    alone = block()
    assert list(walk(alone)) == [("", alone, None)]
    assert levels(alone) == []
    assert list(unique_blocks(alone)) == ["block"]


def test_thousands_of_nested_levels_are_walked() -> None:
    root = level(leaf=block())
    for _ in range(5_000):
        root = level(inner=root)
    assert sum(1 for _ in walk(root)) == 5_001
    assert len(levels(root)) == 5_001
    assert len(unique_blocks(root)) == 1


def test_levels_shared_in_shared_levels_end() -> None:
    root = level(leaf=block())
    for _ in range(60):
        root = level(first=root, second=root)
    assert sum(1 for _ in walk(root, repeats=1_000)) <= 1_000 + 121
    assert len(levels(root)) == 61
    (only,) = unique_blocks(root).values()
    assert len(only.holders) == 1


def test_real_levels_are_walked_by_their_node_ids() -> None:
    graph = Graph("g")
    graph.add_node(Block.wrap(lambda x: x, outputs={"y": "any"}), "keys")
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "a")
    pipeline.add_graph(graph, "b")
    assert [path for path, _, _ in walk(pipeline)] == ["a", "a/keys", "b", "b/keys"]
    assert [path for path, _, _ in walk(pipeline, repeats=0)] == ["a", "a/keys", "b"]


@pytest.mark.parametrize("asked", ["hasattr", "getattr"])
def test_nobody_else_asks_whether_something_is_a_level_by_its_attributes(asked: str) -> None:
    words = {"hasattr": "nodes", "getattr": "level"}
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "core" / "tree.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == asked
        if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) and node.args[1].value == words[asked]
    ]
    assert wrong == []
