"""Inputs of a kept call: whatever a block may read of a value is part of what tells it apart, attributes of any class among it."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import os
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wgtorch import Block, Graph, NodeCache


class Reads(Block):
    """What is read of a value by way of ``k``, or of a call of it."""

    outputs = {"y": "any"}

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        if type(x) in (list, tuple):
            (x,) = x
        if type(x) is dict:
            x = next(iter(x.values())) or next(iter(x))
        return x.k if hasattr(x, "k") else x() if callable(x) else x["k"]


class OfDict(dict[str, Any]):
    pass


class OfOrdered(collections.OrderedDict[str, Any]):
    pass


class OfCounter(collections.Counter[str]):
    pass


class OfUserDict(collections.UserDict[str, Any]):
    pass


class OfList(list[Any]):
    pass


class OfTuple(tuple[Any, ...]):
    pass


class OfText(str):
    pass


class OfNumber(int):
    pass


class OfSet(set[Any]):
    pass


class OfDeque(collections.deque[Any]):
    pass


class OfNamed(NamedTuple("Named", [("a", Any)])):
    pass


class OfArray(np.ndarray[Any, Any]):
    pass


class OfMapping(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        return {"a": 1}[name]

    def __iter__(self) -> Any:
        return iter(("a",))

    def __len__(self) -> int:
        return 1


class Slotted:
    __slots__ = ("k",)


class SlottedDict(dict[str, Any]):
    __slots__ = ("k",)


@dataclasses.dataclass(slots=True)
class SlottedData:
    k: int = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    k: int = 0


class Pickled:
    """Leaves its attribute out of its pickles, and holds what nothing tells."""

    def __init__(self) -> None:
        self.lock, self.me = threading.Lock(), self

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def read(self) -> Any:
        return self.__dict__["k"]


class PickledText(str):
    def __reduce__(self) -> Any:
        return PickledText, (str(self),)


class PickledList(list[Any]):
    def __reduce__(self) -> Any:
        return PickledList, (), None, iter(list(self))


class Member(enum.Enum):
    A = 1


def put(value: Any, k: int) -> Any:
    value.k = k
    return value


VALUES: dict[str, Callable[[int], Any]] = {
    "dict": lambda k: put(OfDict(a=1), k),
    "ordered": lambda k: put(OfOrdered(a=1), k),
    "counter": lambda k: put(OfCounter("a"), k),
    "user dict": lambda k: put(OfUserDict(a=1), k),
    "mapping": lambda k: put(OfMapping(), k),
    "read-only mapping": lambda k: types.MappingProxyType({"k": k}),
    "chained mappings": lambda k: collections.ChainMap({"a": 1}, {"k": k}),
    "default of a mapping": lambda k: collections.defaultdict(lambda: k),
    "list": lambda k: put(OfList([1]), k),
    "tuple": lambda k: put(OfTuple((1,)), k),
    "named tuple": lambda k: put(OfNamed(torch.ones(1)), k),
    "text": lambda k: put(OfText("a"), k),
    "number": lambda k: put(OfNumber(1), k),
    "set": lambda k: put(OfSet((1,)), k),
    "deque": lambda k: put(OfDeque([1]), k),
    "array": lambda k: put(np.ones(2).view(OfArray), k),
    "tensor": lambda k: put(torch.ones(2), k),
    "parameter": lambda k: put(nn.Parameter(torch.ones(2)), k),
    "slots": lambda k: put(Slotted(), k),
    "slots of a dict": lambda k: put(SlottedDict(a=1), k),
    "data with slots": lambda k: put(SlottedData(), k),
    "frozen data": Frozen,
    "namespace": lambda k: types.SimpleNamespace(k=k),
    "left out of pickles": lambda k: put(Pickled(), k),
    "text that says how it is pickled": lambda k: put(PickledText("a"), k),
    "list that says how it is pickled": lambda k: put(PickledList([1]), k),
    "member of an enumeration": lambda k: put(Member.A, k),
    "class": lambda k: type("Same", (), {"k": k, "__module__": __name__}),
    "function": lambda k: lambda: k,
    "partial": lambda k: functools.partial(max, k, 0),
    "method": lambda k: put(Pickled(), k).read,
    "in a list": lambda k: [put(OfDict(a=1), k)],
    "in a dict": lambda k: {"a": put(OfText("a"), k)},
    "key of a dict": lambda k: {put(OfText("a"), k): None},
}


def graph_of(block: Block) -> Graph:
    graph = Graph("g")
    graph.add_node(block, "n", auto_connect=False)
    graph.infer_exposed_ports()
    return graph


@pytest.mark.parametrize("make", [pytest.param(make, id=name.replace(" ", "_")) for name, make in VALUES.items()])
def test_an_input_is_told_by_all_that_can_be_read_of_it(make: Callable[[int], Any]) -> None:
    block, cache = Reads(), NodeCache()
    graph = graph_of(block)
    found = [graph.run({"x": make(k)}, cache=cache)["y"] for k in (1, 2, 1, 2)]
    assert found == [1, 2, 1, 2]
    assert block.calls == 2, cache.stats.uncached


def test_an_attribute_of_a_tensor_of_a_class_of_ones_own_is_seen() -> None:
    class Own(Tensor):
        pass

    graph, cache = graph_of(Reads()), NodeCache()
    assert [graph.run({"x": put(torch.ones(2).as_subclass(Own), k)}, cache=cache)["y"] for k in (1, 2)] == [1, 2]


class Loops(Block):
    outputs = {"y": "any"}

    def forward(self, x: Any) -> Any:
        made = [x]
        made.append(made)  # type: ignore[arg-type]
        return made


def test_what_lies_inside_of_itself_is_not_kept() -> None:
    graph, cache, x = graph_of(Loops()), NodeCache(), [1]
    x.append(x)  # type: ignore[arg-type]
    for value in (x, 1):
        y = graph.run({"x": value}, cache=cache)["y"]
        assert y[1] is y
    assert "n" in cache.stats.uncached


class OfEnvironment(Reads):
    def forward(self, x: Any) -> Any:
        self.calls += 1
        return named("WORD")


def named(name: str) -> str:
    return os.environ.get(f"WGTORCH_TEST_{name}", "none")


def test_variables_of_the_environment_are_seen_where_ones_own_code_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    block, other, cache = OfEnvironment(), Reads(), NodeCache()
    graph, plain = graph_of(block), graph_of(other)
    found = []
    for word in ("sea", "hill", "sea", "hill"):
        monkeypatch.setenv("WGTORCH_TEST_WORD", word)
        found.append(graph.run({"x": 1}, cache=cache)["y"])
        plain.run({"x": types.SimpleNamespace(k=1)}, cache=cache)
    assert found == ["sea", "hill", "sea", "hill"] and (block.calls, other.calls) == (2, 1)


class _Table(Block):
    outputs = {"y": "any"}

    def __init__(self) -> None:
        super().__init__()
        self.table: Any = []

    def forward(self, x: Tensor) -> Tensor:
        held = self.table
        while type(held) is list:
            held = held[-1]
        return x * float(held[0])


@pytest.mark.parametrize("wrapped", [lambda item: [0] * 5000 + [item], lambda item: [[[[[[[[item]]]]]]]]], ids=["long", "deep"])
def test_arrays_of_the_same_bytes_differ_in_long_and_deep_lists(wrapped: Callable[[Any], Any]) -> None:
    block, cache, x = _Table(), NodeCache(), torch.ones(1)
    graph = Graph("g")
    graph.add_node(block, "b")
    graph.infer_exposed_ports()
    for kind in (np.int32, np.float32):
        block.table = wrapped(np.array([1], dtype=np.int32).view(kind))
        assert torch.equal(graph.run({"x": x}, cache=cache)["y"], graph.run({"x": x})["y"])
    assert cache.stats.hits == 0
