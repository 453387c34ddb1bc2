"""What is compared of a block: no change of what a block holds is missed, none of it is kept alive, and it is not gone through again."""

from __future__ import annotations

import enum
import functools
import gc
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wgtorch import Block, Graph, NodeCache
from wgtorch.core.run import block_look
from wgtorch.core.run.fingerprint import Fingerprints

X = torch.linspace(-1, 1, 8).view(2, 4)


class Kind(enum.Enum):
    FIRST = 1
    SECOND = 2


class Helper:
    factor: Any = 1.0

    def __init__(self, value: Any = 1.0) -> None:
        self.value = value

    def times(self, x: Any) -> Any:
        return x * self.value * self.factor


class Other(Helper):
    def times(self, x: Any) -> Any:
        return x * 5


class Slotted:
    __slots__ = ("__dict__", "__weakref__", "value")

    def __init__(self) -> None:
        self.value = 1.0


class Listed(list[Any]):
    """A list with attributes."""

    extra = 1


class Named(OrderedDict[str, Any]):
    """A mapping with attributes."""


def scaled(x: Any, by: float) -> Any:
    return x * by


def closure(by: Any) -> Callable[[Any], Any]:
    return lambda x: x * by


def subtracted(by: Any) -> Callable[[Any], Any]:
    return lambda x: x - by


def weight_of(values: Any) -> float:
    """The order, kinds and values of what is inside."""
    text = repr(list(values.items()) if isinstance(values, dict) else values)
    return sum(index * ord(letter) for index, letter in enumerate(text)) / 1000


class Holds(Block):
    """Holds one of each kind."""

    outputs = {"y": "any"}

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.helper, self.nested, self.slotted = Helper(), Helper(Helper()), Slotted()
        self.options: dict[str, Any] = {"a": 1, "deep": {"b": [1, 2, (3, [4])]}}
        self.several: list[Any] = [1, 2.0, "x"]
        self.ordered: Any = OrderedDict(a=1, b=2)
        self.named = Named(a=1, b=[2])
        self.named.extra = 1  # type: ignore[attr-defined]
        self.listed = Listed([1])
        self.mixed: list[Any] = [1, Helper(), {"x": Helper()}]
        self.chosen, self.kinds, self.queue, self.array = Kind.FIRST, {1, 2}, deque([1]), np.ones(2)
        self.function: Any = closure(2.0)
        self.partial, self.method = functools.partial(scaled, by=2.0), Helper().times
        self.hidden, self.scale, self.dtype = [nn.Linear(4, 4)], 1, torch.float32
        self.__dict__["beside"] = nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.norm(self.hidden[0](self.beside(self.linear(x))))
        y = self.nested.value.times(self.helper.times(y)) * self.slotted.value
        y = self.method(self.partial(self.function(y))) * self.mixed[1].times(1) * self.mixed[2]["x"].times(1)
        rest = [self.options, self.several, self.ordered, self.named, sorted(self.kinds), list(self.queue), self.mixed[0], type(self.scale)]
        number = sum(weight_of(value) for value in rest) + self.named.extra + self.listed.extra  # type: ignore[attr-defined]
        return (y + number + self.array.sum() + self.chosen.value).to(self.dtype)


def same_address(block: Holds) -> None:
    block.several.pop()
    block.several.append("y")


def other_dict(block: Holds) -> None:
    del block.options["deep"]["b"]
    block.options["deep"]["b"] = [1, 2, (3, [5])]


EDITS: dict[str, Callable[[Holds], Any]] = {
    "attribute of an object": lambda b: setattr(b.helper, "value", 2.0),
    "attribute of an object deep inside": lambda b: setattr(b.nested.value, "value", 2.0),
    "attribute that hides one of the class": lambda b: setattr(b.helper, "factor", 3.0),
    "another object": lambda b: setattr(b, "helper", Helper(4.0)),
    "another object deep inside": lambda b: setattr(b.nested, "value", Helper(4.0)),
    "class of an object": lambda b: setattr(b.helper, "__class__", Other),
    "slot": lambda b: setattr(b.slotted, "value", 2.0),
    "entry": lambda b: b.options.__setitem__("a", 2),
    "entry of another kind": lambda b: b.options.__setitem__("a", True),
    "item deep inside": lambda b: b.options["deep"]["b"][2][1].append(1),
    "list deep inside": other_dict,
    "order of entries": lambda b: b.options.__setitem__("a", b.options.pop("a")),
    "item": lambda b: b.several.__setitem__(0, 7),
    "item of another kind": lambda b: b.several.__setitem__(0, True),
    "item at the same place": same_address,
    "order of items": lambda b: b.several.reverse(),
    "order of an ordered mapping": lambda b: b.ordered.move_to_end("a"),
    "order of a mapping with attributes": lambda b: b.named.move_to_end("a"),
    "entry of a mapping with attributes": lambda b: b.named["b"].append(1),
    "attribute of a mapping": lambda b: setattr(b.named, "extra", 2),
    "object in a list": lambda b: setattr(b.mixed[1], "value", 2.0),
    "object in a mapping in a list": lambda b: setattr(b.mixed[2]["x"], "value", 2.0),
    "item beside objects of another kind": lambda b: b.mixed.__setitem__(0, True),
    "member of an enumeration": lambda b: setattr(b, "chosen", Kind.SECOND),
    "attribute of a list": lambda b: setattr(b.listed, "extra", 2),
    "set": lambda b: b.kinds.add(5),
    "queue": lambda b: b.queue.append(5),
    "array": lambda b: b.array.__setitem__(0, 5),
    "function": lambda b: setattr(b, "function", closure(3.0)),
    "cell": lambda b: setattr(b.function.__closure__[0], "cell_contents", 3.0),
    "code": lambda b: setattr(b.function, "__code__", subtracted(1.0).__code__),
    "arguments of a partial": lambda b: b.partial.keywords.__setitem__("by", 3.0),
    "owner of a method": lambda b: setattr(b.method.__self__, "value", 3.0),
    "kind of a number": lambda b: setattr(b, "scale", True),
    "dtype": lambda b: setattr(b, "dtype", torch.float64),
    "weight of a module in a list": lambda b: b.hidden[0].weight.data.mul_(2),
    "weight of a module beside": lambda b: b.beside.weight.data.add_(torch.rand(4, 4)),
    "another module beside": lambda b: b.__dict__.__setitem__("beside", nn.Linear(4, 4)),
    "weight": lambda b: b.linear.weight.data.add_(torch.rand(4, 4)),
    "weight turned over": lambda b: setattr(b.linear.weight, "data", b.linear.weight.data.t()),
    "weight by another": lambda b: setattr(b.linear, "weight", nn.Parameter(torch.rand(4, 4))),
    "attribute of a layer": lambda b: setattr(b.norm, "eps", 0.5),
    "class of a layer": lambda b: setattr(b.linear, "__class__", _Doubled),
    "forward of a layer": lambda b: setattr(b.linear, "forward", lambda x: x),
    "hook of a layer": lambda b: b.linear.register_forward_hook(lambda module, args, y: y * y.flip(-1)),
    "layer": lambda b: setattr(b, "linear", nn.Linear(4, 4)),
    "no bias": lambda b: setattr(b.linear, "bias", None),
}


class _Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def graph_of(block: Block) -> Graph:
    graph = Graph("g")
    graph.add_node(block, "n", auto_connect=False)
    graph.infer_exposed_ports()
    return graph


@pytest.fixture
def gone_through(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Blocks that were gone through whole."""
    found: list[Any] = []
    parts = Fingerprints.parts
    monkeypatch.setattr(Fingerprints, "parts", lambda self, block: found.append(block) or parts(self, block))
    return found


@pytest.mark.parametrize("how", ["train", "eval", "unversioned"])  # the last as where versions tell nothing of attributes: Python 3.13
@pytest.mark.parametrize("edit", EDITS, ids=lambda name: name.replace(" ", "_"))
def test_a_change_is_seen(edit: str, how: str, gone_through: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "unversioned":
        numbers = count()
        monkeypatch.setattr(block_look, "attribute_version", lambda entries: next(numbers))
    block = Holds().train(how == "train")
    graph, cache = graph_of(block), NodeCache()
    before = [graph.run({"x": X}, cache=cache)["y"] for _ in range(2)][-1]
    gone_through.clear()
    graph.run({"x": X}, cache=cache)
    assert block.calls == 1, cache.stats
    assert block not in gone_through
    EDITS[edit](block)
    found, want = graph.run({"x": X}, cache=cache)["y"], graph.run({"x": X})["y"]
    assert torch.equal(found, want)
    assert want.dtype != before.dtype or not torch.equal(before, want), "the edit changes nothing"


def test_a_block_that_its_parts_refer_to_is_not_kept_alive() -> None:
    block = Holds()
    block.helper.owner = block  # type: ignore[attr-defined]
    block.options["owner"] = {"block": block}
    block.mixed.append(block.forward)
    block.linear.register_forward_hook(types.MethodType(lambda self, module, args, y: None, block))
    graph, cache = graph_of(block), NodeCache()
    want = graph.run({"x": X})["y"]
    for _ in range(3):
        assert torch.equal(graph.run({"x": X}, cache=cache)["y"], want)
    seen = weakref.ref(block)
    del block, graph
    gc.collect()
    assert seen() is None
