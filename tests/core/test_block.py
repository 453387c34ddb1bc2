"""Blocks: ports from signatures, configs from constructors, checked runs, wrapping, freezing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.blocks_for_tests import Affine, Scale, Split
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, MissingInputError, PortError, PortTypeError, StructureError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import Rng


class Undecided(Block):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": x}


# --- ports ------------------------------------------------------------------------------------------------------------


def test_ports_from_the_signature() -> None:
    spec = Scale().get_input_spec()
    assert list(spec) == ["x", "bias"]
    assert (spec["x"].dtype, spec["x"].optional) == ("tensor", False)
    assert (spec["bias"].dtype, spec["bias"].optional) == ("tensor", True)
    assert {name: port.direction for name, port in Scale().get_output_spec().items()} == {"y": "out"}


def test_declared_and_annotated_ports_are_the_same() -> None:
    class Declared(Block):
        inputs = {"x": "tensor", "bias": Port(dtype="tensor", optional=True)}
        outputs = {"y": "tensor"}

        def forward(self, x, bias=None):  # type: ignore[no-untyped-def]
            return {"y": x}

    assert Declared().get_input_spec() == Scale().get_input_spec()
    assert Declared().get_output_spec() == Scale().get_output_spec()


def test_a_declaration_refines_one_port_and_leaves_the_others() -> None:
    class Refined(Block):
        inputs = {"image": "image"}
        outputs = {"y": "tensor"}

        def forward(self, image: Tensor, strength: float = 1.0) -> dict[str, Tensor]:
            return {"y": image * strength}

    spec = Refined().get_input_spec()
    assert [(port.dtype, port.optional) for port in spec.values()] == [("image", False), ("number", True)]


def test_ports_through_keyword_arguments() -> None:
    class Open(Block):
        inputs = {"a": "text", "b": "text"}
        outputs = {"text": "text"}

        def forward(self, **texts: str) -> str:
            return " ".join(texts.values())

    assert list(Open().get_input_spec()) == ["a", "b"]
    assert Open().run({"a": "x", "b": "y"}) == {"text": "x y"}


def test_a_declared_input_that_forward_does_not_take_is_an_error() -> None:
    class Wrong(Block):
        inputs = {"z": "text"}
        outputs = {"y": "any"}

        def forward(self, x: str) -> str:
            return x

    with pytest.raises(StructureError, match="input 'z' is declared but not a parameter of forward"):
        Wrong().get_input_spec()


def test_positional_only_parameters_are_refused_with_the_mend() -> None:
    class Positional(Block):
        outputs = {"y": "any"}

        def forward(self, x: str, /) -> str:
            return x

    with pytest.raises(StructureError, match="'x' is positional-only; inputs are passed by name, so drop the '/'"):
        Positional().get_input_spec()


def test_a_single_output_may_come_from_the_annotation() -> None:
    class Bare(Block):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    assert list(Bare().get_output_spec()) == ["output"]
    assert Bare().get_output_spec()["output"].dtype == "tensor"
    torch.testing.assert_close(Bare().run({"x": torch.zeros(1)})["output"], torch.ones(1))


def test_undeclared_outputs_say_what_to_write() -> None:
    with pytest.raises(StructureError, match=r"Undecided declares no outputs; write outputs = \{'name': 'kind'\}"):
        Undecided().get_output_spec()


def test_rng_is_no_port() -> None:
    class Draws(Block):
        outputs = {"y": "tensor"}

        def forward(self, x: Tensor, rng: Rng) -> Tensor:
            return x

    assert list(Draws().get_input_spec()) == ["x"]
    assert Draws.wants_rng
    assert not Scale.wants_rng


def test_declarations_are_inherited_and_overridden() -> None:
    class Base(Block):
        inputs = {"a": "text"}
        outputs = {"y": "text", "z": "text"}

        def forward(self, a: Any, b: Any = None) -> dict[str, Any]:
            return {"y": a, "z": a}

    class Special(Base):
        inputs = {"b": "image"}
        outputs = {"z": "any"}

    assert [port.dtype for port in Special().get_input_spec().values()] == ["text", "image"]
    assert {name: port.dtype for name, port in Special().get_output_spec().items()} == {"y": "text", "z": "any"}


# --- config -----------------------------------------------------------------------------------------------------------


def test_config_is_what_the_constructor_was_given_defaults_included() -> None:
    assert Scale().config == {"factor": 2.0}
    assert Scale(3.0).config == {"factor": 3.0}
    assert Affine(seed=4).config == {"width": 4, "seed": 4}


def test_from_config_builds_its_equal() -> None:
    block = Affine(3, seed=9)
    twin = Affine.from_config(block.config)
    for (name, weight), (other, other_weight) in zip(block.state_dict().items(), twin.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(weight, other_weight)


def test_config_is_a_copy() -> None:
    class Listed(Block):
        outputs = {"y": "any"}

        def __init__(self, sizes: list[int], **more: int) -> None:
            super().__init__()

        def forward(self, x: Any) -> Any:
            return x

    sizes = [1, 2]
    block = Listed(sizes, depth=3)
    sizes.append(3)
    block.config["sizes"].append(4)
    assert block.config == {"sizes": [1, 2], "depth": 3}


def test_config_of_a_subclass_is_its_own_constructors() -> None:
    class Sub(Scale):
        def __init__(self, exponent: int = 1) -> None:
            super().__init__(2.0**exponent)

    assert Sub(3).config == {"exponent": 3}
    assert Sub(3).factor == 8.0


def test_wrong_arguments_show_the_signature() -> None:
    with pytest.raises(TypeError, match=r"(?s)unexpected keyword argument 'factro'"):
        Scale(factro=1.0)  # type: ignore[call-arg]


def test_an_unregistered_class_cannot_be_named_in_a_config() -> None:
    with pytest.raises(StructureError, match=r"Undecided has no block_type.*@register_block"):
        Undecided().to_config()


def test_a_config_of_something_else_than_plain_data_names_its_path() -> None:
    block = Scale(torch.ones(1))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"test/scale.factor: Tensor\[1\] float32 is not plain data"):
        block.to_config()


# --- running ----------------------------------------------------------------------------------------------------------


def test_run_and_call_are_the_same() -> None:
    x = torch.ones(2)
    assert torch.equal(Scale(3.0).run({"x": x})["y"], Scale(3.0)(x=x)["y"])


def test_an_unknown_input_names_block_port_and_the_nearest() -> None:
    with pytest.raises(PortError, match=r"test/scale: unknown input 'bais'; did you mean 'bias'\?"):
        Scale().run({"x": torch.ones(1), "bais": torch.ones(1)})


def test_a_missing_input_names_its_kind() -> None:
    with pytest.raises(MissingInputError, match=r"test/scale: missing input 'x' \(tensor\); given: \['bias'\]"):
        Scale().run({"bias": torch.ones(1)})


def test_a_wrong_kind_names_block_and_port() -> None:
    with pytest.raises(PortTypeError, match=r"test/scale.x: got str 'one'; expected a torch.Tensor"):
        Scale().run({"x": "one"})


def test_inputs_must_be_a_mapping() -> None:
    with pytest.raises(PortError, match="expected a mapping by port name"):
        Scale().run(torch.ones(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("returned", [{"double": torch.ones(1)}, {"double": 1, "square": 1, "cube": 1}, torch.ones(1)])
def test_an_output_that_was_not_declared_is_an_error(returned: Any) -> None:
    block = Split()
    block.forward = lambda x: returned  # type: ignore[method-assign]
    with pytest.raises(PortError, match=r"test/split: forward returned .*expected .*double.*square"):
        block.run({"x": torch.ones(1)})


def test_a_dict_is_a_mapping_by_output_also_for_a_single_dict_output() -> None:
    assert Block.wrap(lambda: {"recipe": {"a": 1}}, outputs={"recipe": "dict"}).run() == {"recipe": {"a": 1}}
    with pytest.raises(PortError, match=r"forward returned \['a'\]; expected \['recipe'\].*return {'recipe': value}"):
        Block.wrap(lambda: {"a": 1}, outputs={"recipe": "dict"}).run()


# --- wrapping ---------------------------------------------------------------------------------------------------------


def test_wrapping_a_module_renames_its_first_arguments() -> None:
    linear = nn.Linear(4, 4)
    block = Block.wrap(linear, inputs={"x": "tensor"}, outputs={"y": "tensor"})
    x = torch.randn(2, 4)
    assert torch.equal(block.run({"x": x})["y"], linear(x))
    assert dict(block.named_parameters()).keys() == {"target.weight", "target.bias"}
    assert block.block_id == "Linear"


def test_wrapping_a_function_needs_nothing_when_it_is_annotated() -> None:
    def halve(x: Tensor, by: float = 2.0) -> Tensor:
        return x / by

    block = Block.wrap(halve)
    assert [(name, port.optional) for name, port in block.get_input_spec().items()] == [("x", False), ("by", True)]
    torch.testing.assert_close(block.run({"x": torch.ones(1), "by": 4.0})["output"], torch.tensor([0.25]))
    assert block.block_id == "halve"


def test_a_wrapped_function_cannot_be_written_to_a_config() -> None:
    with pytest.raises(StructureError, match="register a block class around it"):
        Block.wrap(lambda x: x, outputs={"y": "any"}).to_config()


def test_wrapping_something_that_cannot_be_called() -> None:
    with pytest.raises(TypeError, match="got int 3; expected an nn.Module or a function"):
        Block.wrap(3)  # type: ignore[arg-type]


def test_an_async_function_waits() -> None:
    async def fetch(x: str) -> str:
        return x

    assert Block.wrap(fetch).is_async
    assert not Block.wrap(lambda x: x, outputs={"y": "any"}).is_async
    assert Block.wrap(lambda x: x, outputs={"y": "any"}, is_async=True).is_async


# --- training ---------------------------------------------------------------------------------------------------------


def test_freeze_holds_against_train_and_is_undone() -> None:
    block = Affine()
    parent = nn.Sequential(block)
    block.freeze()
    parent.train()
    assert not block.training
    assert list(block.trainable_parameters()) == []
    block.unfreeze()
    assert block.training
    assert len(list(block.trainable_parameters())) == 2


def test_blocks_hold_blocks() -> None:
    class Pair(Block):
        outputs = {"y": "tensor"}

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Affine(seed=1), Affine(seed=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    pair = Pair()
    x = torch.randn(2, 4)
    torch.testing.assert_close(pair.run({"x": x})["y"], pair.second.linear(pair.first.linear(x)))
    assert len(list(pair.parameters())) == 4


def test_a_forward_that_passes_its_inputs_on_needs_no_more_than_the_one_it_stands_for() -> None:
    class Scale(Block):
        inputs = {"x": Port(dtype="tensor"), "by": Port(dtype="number", description="how much")}
        outputs = {"y": "tensor"}

        def forward(self, x: Tensor, by: float = 2.0) -> dict[str, Tensor]:
            return {"y": x * by}

    class Noted(Scale):
        def forward(self, **inputs: Any) -> dict[str, Tensor]:
            return super().forward(**inputs)

    class Strict(Scale):
        def forward(self, x: Tensor, by: float) -> dict[str, Tensor]:
            return super().forward(x, by)

    assert [port.optional for port in Noted().get_input_spec().values()] == [False, True]
    assert torch.equal(Noted().run({"x": torch.ones(2)})["y"], torch.full((2,), 2.0))
    assert [port.optional for port in Strict().get_input_spec().values()] == [False, False]


def test_completion_names_nothing_private() -> None:
    names = dir(Scale())
    assert {"forward", "get_input_spec", "parameters", "training", "__class__"} <= set(names)
    assert [name for name in names if name.startswith("_") and not name.startswith("__")] == []
