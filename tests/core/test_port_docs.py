"""Ports are stated once, and ``help()`` shows them."""

from __future__ import annotations

import inspect
import pydoc
import typing
from typing import Any, Required, TypedDict, Unpack

import pytest
from torch import Tensor

from tests.blocks_for_tests import Scale
from wgtorch import Block, Graph, Port
from wgtorch.core.config.schema import block_schema
from wgtorch.roles import Backbone


class Blend(Block):
    """Mixes two things."""

    inputs = {"a": Port(dtype="tensor", shape=("B", None), description="the first, in [0, 1]"), "many": Port(aggregation="sum")}
    outputs = {"y": Port(dtype="tensor", description="the mixture")}

    def forward(self, a: Tensor, many: Tensor, share: float = 0.5) -> Tensor:
        return a * share + many


class Half(Blend):
    inputs = {"a": "latent"}


class Other(Half):
    """Mixes otherwise."""

    outputs = {"y": Port(dtype="tensor", description="something else")}


def test_help_shows_the_ports_in_the_order_of_forward() -> None:
    assert inspect.getdoc(Blend) == (
        "Mixes two things.\n\nPorts:\n"
        "    in  a (tensor [B, *]): the first, in [0, 1]\n"
        "    in  many (any, sum of several)\n"
        "    in  share (number, optional)\n"
        "    out y (tensor): the mixture"
    )
    assert "in  a (tensor [B, *]): the first, in [0, 1]" in pydoc.render_doc(Blend)
    assert Blend().__doc__ == Blend.__doc__


def test_what_a_base_says_of_a_port_need_not_be_said_again() -> None:
    spec = Half().get_input_spec()
    assert (spec["a"].dtype, spec["a"].description) == ("latent", "the first, in [0, 1]")
    text = inspect.getdoc(Half) or ""
    assert text.startswith("Mixes two things.\n\nPorts:\n    in  a (latent): the first, in [0, 1]") and text.count("Ports:") == 1
    assert (inspect.getdoc(Other) or "").startswith("Mixes otherwise.\n\nPorts:")
    assert "out y (tensor): something else" in (Other.__doc__ or "")


class Needed(Backbone):
    """A backbone that needs its condition."""

    def forward(self, latent: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return latent + condition


def test_the_signature_says_what_is_optional() -> None:
    spec = Needed().get_input_spec()
    assert Backbone.inputs["condition"].optional and not spec["condition"].optional
    assert spec["condition"].description == "what the prediction depends on [B, T, D]"
    assert not Block.wrap(lambda x: x, inputs={"x": Port(optional=True)}, outputs={"y": "any"}).get_input_spec()["x"].optional
    assert Block.wrap(lambda x: x, inputs={"x": Port(default=3)}, outputs={"y": "any"}).get_input_spec()["x"].optional


def test_a_class_without_a_forward_or_without_ports_has_a_docstring_too() -> None:
    assert "in  condition (embedding, optional): what the prediction depends on [B, T, D]" in (Backbone.__doc__ or "")
    assert "Ports:" not in (Graph.__doc__ or "")


def test_a_text_made_of_a_base_s_has_the_ports_once() -> None:
    made = type("Made", (Blend,), {"__doc__": f"Made of this. {Blend.__doc__}"})
    assert (made.__doc__ or "").count("Ports:") == 1


def test_a_description_goes_with_the_port_and_compares_with_nothing() -> None:
    graph = Graph("g")
    graph.add_node(Blend(), "blend")
    graph.add_node(Scale(), "scale", map="x")
    graph.expose_input("blend", "a", "first")
    graph.expose_input("scale", "x", "first")
    graph.expose_output("blend", "y")
    assert graph.get_input_spec()["first"].description == "the first, in [0, 1]"
    assert graph.get_output_spec()["y"] == Port("y", "out", "tensor")
    assert graph.get_output_spec()["y"].description == "the mixture"


class Sized(Block):
    """Has a size.

    Args:
        size: how large it is.
        unit: in which
            unit.
    """

    def __init__(self, *, size: int, unit: str = "cm") -> None:
        super().__init__()
        self.size, self.unit = size, unit

    def forward(self, x: Tensor) -> Tensor:
        return x * self.size


class Size(TypedDict, total=False):
    size: Required[int]
    unit: str


class Length(TypedDict):
    length: int


class Coloured(Sized):
    """Has a colour too.

    Args:
        colour: which.

    Raises:
        ValueError: never.
    """

    def __init__(self, *, colour: str = "red", **size: Unpack[Size]) -> None:
        super().__init__(**size)
        self.colour = colour


class Named(Sized):
    def __init__(self, *, name: str, **size: typing.Unpack[Size]) -> None:
        super().__init__(**size)
        self.name = name


class Open(Sized):
    def __init__(self, **size: Unpack[Nowhere]) -> None:  # type: ignore[name-defined]  # noqa: F821
        super().__init__(**size)


class Plain(Coloured):
    """Says nothing of its arguments."""


def test_arguments_that_a_base_describes_need_not_be_described_again() -> None:
    inherited = "    size: how large it is.\n    unit: in which\n        unit."
    expected = f"Has a colour too.\n\nArgs:\n    colour: which.\n{inherited}\n\nRaises:\n    ValueError: never.\n\nPorts:"
    assert (inspect.getdoc(Coloured) or "").startswith(expected)
    plain = f"Says nothing of its arguments.\n\nArgs:\n{inherited}\n    colour: which.\n\nPorts:"
    assert (inspect.getdoc(Plain) or "").startswith(plain)
    assert (inspect.getdoc(Sized) or "").count("size:") == 1


def test_arguments_that_are_passed_on_stand_in_the_signature_one_by_one() -> None:
    assert list(inspect.signature(Coloured).parameters) == ["size", "unit", "colour"]
    assert inspect.signature(Coloured).parameters["unit"].default == "cm"
    assert list(inspect.signature(Named).parameters) == ["size", "unit", "name"]
    assert list(inspect.signature(Open).parameters) == ["size"] and block_schema(Open)["additionalProperties"] is True
    assert Coloured(size=2).config == {"size": 2, "unit": "cm", "colour": "red"}
    schema = block_schema(Coloured)
    assert (schema["required"], schema["additionalProperties"], schema["properties"]["size"]["type"]) == (["size"], False, "integer")


class Placed(Block):
    def __init__(self, size: int = 1, unit: str = "cm") -> None:
        super().__init__()
        self.size, self.unit = size, unit

    def forward(self, x: Tensor) -> Tensor:
        return x * self.size


class Wide(Placed):
    def __init__(self, width: int, unit: str = "m", **size: Unpack[Size]) -> None:  # type: ignore[misc]
        super().__init__(unit=unit, **size)
        self.width = width


def test_what_is_passed_on_is_taken_by_name_and_what_a_constructor_states_is_its_own() -> None:
    assert list(inspect.signature(Wide).parameters) == ["width", "unit", "size"]
    block = Wide(8, size=3)
    assert block.config == {"width": 8, "unit": "m", "size": 3} and (block.width, block.unit, block.size) == (8, "m", 3)
    with pytest.raises(TypeError, match=r"takes from 2 to 3 positional arguments but 4 were given"):
        Wide(8, "m", 3)  # type: ignore[misc]


def test_an_argument_that_nobody_takes_is_refused_in_the_name_of_the_class_that_was_called() -> None:
    with pytest.raises(TypeError, match=r"Coloured.__init__\(\) got an unexpected keyword argument 'siz'; did you mean 'size'\?"):
        Coloured(siz=2)  # type: ignore[call-arg]


def test_what_is_passed_on_must_be_taken_by_the_class_above() -> None:
    with pytest.raises(TypeError, match=r"Wrong.__init__: Length has 'length', which the class above does not take"):

        class Wrong(Sized):
            def __init__(self, **other: Unpack[Length]) -> None:
                super().__init__(**other)  # type: ignore[call-arg]


class Told:
    """A docstring that is made when somebody asks, as foreign classes have them."""

    def __get__(self, instance: object, owner: type) -> str:
        return "made"


def test_a_class_above_may_have_another_kind_of_docstring() -> None:
    mixin = type("Mixin", (), {"__doc__": Told()})
    assert (type("Mixed", (mixin, Sized), {"__doc__": "Its own."}).__doc__ or "").startswith("Its own.")


@pytest.mark.parametrize("annotation", ["options of the model", "pytest.nothing_of_this_name", "5", "list[", "Nowhere"])
def test_an_annotation_of_what_is_passed_on_need_not_be_a_type(annotation: str) -> None:
    def init(self: Any, **rest: Any) -> None:
        Sized.__init__(self, size=1)

    init.__annotations__["rest"] = annotation
    assert type("Free", (Sized,), {"__init__": init})().config == {}
