"""What the caller has enabled by ``torch.autocast`` holds in every node, for every device, also where a node runs aside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.blocks_for_tests import as_pipeline, block_of
from wgtorch.graph import Graph

DEVICES = ("cpu", "cuda", "xpu", "mps")
Seen = dict[str, tuple[bool, torch.dtype]]


def state() -> Seen:
    return {device: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in DEVICES}


@contextmanager
def autocast(device: str, dtype: torch.dtype) -> Iterator[None]:
    """As ``torch.autocast``, which enables nothing where there is no such device."""
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])


def blocking(seen: list[Seen]) -> Callable[[Any], Any]:
    def look(x: Any) -> Any:
        seen.append(state())
        return x

    return look


def coroutine(seen: list[Seen]) -> Callable[[Any], Any]:
    async def look(x: Any) -> Any:
        seen.append(state())
        await asyncio.sleep(0)  # the loop's thread serves other runs meanwhile
        seen.append(state())
        return x

    return look


def run(graph: Any) -> None:
    graph.run({"x": torch.ones(2)})


def run_async(graph: Any) -> None:
    asyncio.run(graph.arun({"x": torch.ones(2)}))


def run_limited(graph: Any) -> None:
    graph.run({"x": torch.ones(2)}, timeout=60)


def graph_around(block: Any, **node: Any) -> Graph:
    graph = Graph("g")
    graph.add_node(block, "look", **node)
    graph.infer_exposed_ports()
    return graph


GRAPHS: dict[str, Callable[[list[Seen]], Any]] = {
    "plain": lambda seen: graph_around(block_of(blocking(seen))),
    "in a thread": lambda seen: graph_around(block_of(blocking(seen), is_async=True)),
    "a coroutine": lambda seen: graph_around(block_of(coroutine(seen))),
    "with a limit": lambda seen: graph_around(block_of(blocking(seen)), timeout=60),
    "a coroutine with a limit": lambda seen: graph_around(block_of(coroutine(seen)), timeout=60),
    "below": lambda seen: as_pipeline(graph_around(block_of(coroutine(seen))), "g", "p"),
}


@pytest.mark.parametrize("how", [run, run_async, run_limited])
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("device", DEVICES)
def test_autocast_holds_in_every_node(device: str, name: str, how: Callable[[Any], None]) -> None:
    seen: list[Seen] = []
    graph = GRAPHS[name](seen)
    off = state()
    how(graph)
    with autocast(device, torch.float16):
        expected = state()
        assert expected[device] == (True, torch.float16)
        how(graph)
        assert state() == expected
    how(graph)
    third = len(seen) // 3
    assert seen == [off] * third + [expected] * third + [off] * third
    assert state() == off


@pytest.mark.parametrize("name", GRAPHS)
def test_autocast_switched_off_within_is_off_in_the_node(name: str) -> None:
    seen: list[Seen] = []
    graph = GRAPHS[name](seen)
    with autocast("cuda", torch.bfloat16):
        torch.set_autocast_enabled("cuda", False)
        run(graph)
    assert {(found["cuda"][0]) for found in seen} == {False}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_matrix_product_is_of_the_callers_dtype(name: str) -> None:
    """What autocast is for, on the one device that is always there."""
    kinds: list[torch.dtype] = []

    class Seeing(list[Seen]):
        def append(self, _: Seen) -> None:
            kinds.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)

    graph = GRAPHS[name](Seeing())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        run(graph)
    run(graph)
    half = len(kinds) // 2
    assert kinds == [torch.bfloat16] * half + [torch.float32] * half and half > 0
