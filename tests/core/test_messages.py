"""A mistake in building is told where it is made: what was given, what was expected, what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

from tests.blocks_for_tests import Scale
from wgtorch import Block, Graph, Pipeline, register_block
from wgtorch.core.errors import PortTypeError, StructureError, StructureTypeError, UnknownNameError, WgtorchError


@register_block("messages_test/scale")
class Named(Block):
    outputs = {"y": "tensor"}

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class NeverSetUp(Block):
    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        self.factor = 2.0

    def forward(self, x: Tensor) -> Tensor:
        return x


class SetUpByAnother(NeverSetUp):
    def __init__(self) -> None:
        nn.Module.__init__(self)


class UnknownKind(Block):
    def __init__(self) -> None:
        super().__init__()
        self.outputs = {"y": "tensr"}

    def forward(self, x: Tensor) -> Tensor:
        return x


def graph() -> Graph:
    built = Graph("g")
    built.add_node(Scale(), "a")
    return built


MISTAKES: dict[str, tuple[Callable[[Graph], Any], type[Exception], str]] = {
    "a class": (lambda g: g.add_node(Named, "b"), StructureError, r"g: got the class Named; .*write Named\(\.\.\.\)"),
    "a class of a module": (lambda g: g.add_node(nn.Linear, "b"), StructureError, r"got the class Linear; .*write Linear\(\.\.\.\)"),
    "a class to wrap": (lambda g: Block.wrap(Named), StructureTypeError, r"Block.wrap: got the class Named; .*write Named\(\.\.\.\)"),
    "a class of a level": (lambda g: Pipeline("p").add_graph(Graph), StructureError, r"p: got the class Graph; .*write Graph\(\.\.\.\)"),
    "no super().__init__()": (lambda g: g.add_node(NeverSetUp(), "b"), StructureError, r"NeverSetUp.__init__ does not call super\(\)"),
    "no super().__init__(), replacing": (lambda g: g.replace_node("a", NeverSetUp()), StructureError, "NeverSetUp.__init__ does not call"),
    "no super().__init__(), run": (lambda g: NeverSetUp().run({"x": 1}), StructureError, "NeverSetUp.__init__ does not call super"),
    "another's __init__": (lambda g: g.add_node(SetUpByAnother(), "b"), StructureError, "SetUpByAnother.__init__ does not call super"),
    "an unknown kind of an instance": (lambda g: g.add_node(UnknownKind(), "b"), UnknownNameError, r"UnknownKind.outputs\['y'\].*'tensor'"),
    "an unknown kind to wrap": (
        lambda g: Block.wrap(len, outputs={"y": "tensr"}),
        UnknownNameError,
        r"Block.wrap: outputs=\['y'\].*did you mean 'tensor'",
    ),
    "outputs to wrap": (lambda g: Block.wrap(len, outputs=["y"]), PortTypeError, r"Block.wrap: outputs= is list of 1 .*\{'y': 'tensor'\}"),
    "arguments of the block": (
        lambda g: g.add_node("messages_test/scale", "b", factor=2),
        StructureError,
        r"g/b: unknown 'factor'.*config=\{'factor': \.\.\.\}",
    ),
    "arguments of the block beside it": (lambda g: g.add_node(Scale(), "b", factor=2), StructureError, r"unknown 'factor'.*constructor"),
    "config= beside a block": (lambda g: g.add_node(Named(), "b", config={"factor": 3}), StructureError, "config= is given beside Named"),
    "config= that is none": (lambda g: g.add_node("messages_test/scale", config=[3]), StructureTypeError, "g: config is list.*mapping"),
    "no text as id": (lambda g: g.add_node(Scale(), 5), StructureError, "node id 5: expected letters"),
    "an edge of pairs": (
        lambda g: g.add_edge(("a", "y"), ("a", "x")),
        StructureTypeError,
        r"g: got the ends .*'a\.y', 'b\.x'",
    ),
    "an edge of numbers": (
        lambda g: g.add_edge(1, 2, 3, 4),
        StructureTypeError,
        r"ends 1, 2, 3, 4; expected .'a', 'y', 'b', 'x'",
    ),
    "a name that is none": (lambda g: g.expose_input("a", "x", 3), StructureTypeError, "g: a.x is to be exposed as 3; expected a name"),
    "an empty name": (lambda g: g.expose_output("a", "y", ""), StructureTypeError, "g: a.y is to be exposed as ''; expected a name"),
    "inputs= a list": (
        lambda g: g.add_node(Scale(), "b", inputs=["x"]),
        StructureTypeError,
        r"g/b: inputs=\['x'\] is list.*mapping",
    ),
    "map= a number": (lambda g: g.add_node(Scale(), "b", map=3), StructureTypeError, "g/b: map=3 is int 3; expected the name of an input"),
    "map= of numbers": (lambda g: g.add_node(Scale(), "b", map=[3]), StructureTypeError, r"g/b: map=\[3\] .*expected the name of an input"),
    "timeout= text": (lambda g: g.add_node(Scale(), "b", timeout="1"), StructureTypeError, "g/b: timeout='1' is str '1'; .*number above 0"),
    "timeout= nothing": (lambda g: g.configure_node("a", timeout=0), StructureTypeError, "g/a: timeout=0 is int 0; .*number above 0"),
    "trainable= text": (lambda g: g.add_node(Scale(), "b", trainable="no"), StructureTypeError, "g/b: trainable='no' .*True or False"),
    "reuse= a number": (lambda g: g.add_node(Scale(), "b", reuse=1), StructureTypeError, "g/b: reuse=1 is int 1; expected True or False"),
    "metadata= a list": (lambda g: Graph("h", metadata=[1]), StructureError, "h: metadata is list of 1 .*expected a mapping of plain data"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_it_says_what_was_given_and_what_to_write(mistake: str) -> None:
    work, kind, words = MISTAKES[mistake]
    built = graph()
    before = built.to_config()
    with pytest.raises(kind, match=words) as caught:
        work(built)
    assert isinstance(caught.value, WgtorchError)
    assert built.to_config() == before


@pytest.mark.parametrize(
    ("declared", "kind", "words"),
    [
        ({"outputs": ["y"]}, PortTypeError, r"Bad.outputs is list of 1 .*expected a mapping of kinds by port, such as \{'y': 'tensor'\}"),
        ({"inputs": "x"}, PortTypeError, "Bad.inputs is str 'x'; expected a mapping"),
        ({"outputs": {"y": "tensr"}}, UnknownNameError, r"Bad.outputs\['y'\]: unknown kind of value 'tensr'; did you mean 'tensor'"),
        ({"inputs": {"x": 3}}, PortTypeError, r"Bad.inputs\['x'\] is int 3; expected the name of a kind, such as 'tensor', or a Port"),
        ({"outputs": {3: "tensor"}}, PortTypeError, "Bad.outputs: a port is called 3; expected a name as text"),
    ],
)
def test_wrong_declarations_are_refused_where_the_class_is_made(declared: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        type("Bad", (Block,), {**declared, "forward": lambda self, x: x})


def test_what_says_nothing_is_no_mistake() -> None:
    built = graph()
    built.add_node(Named(), "b", config={})
    built.configure_node("b", timeout=None, map="x", inputs=None)
    assert built.node_specs["b"].timeout is None and built.node_specs["b"].map == ("x",)
