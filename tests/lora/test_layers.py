"""Adapted layers beside PEFT's own: one adapter, several, one for each sample; all kinds of layers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("peft")

import peft

from tests.blocks_for_tests import chain
from tests.lora.models import ALL_KINDS, Body, Layers, fill, snapshot
from wgtorch import lora
from wgtorch.core.block import Block
from wgtorch.core.errors import StructureError
from wgtorch.graph import Graph
from wgtorch.lora.adapted_module import tensors_of
from wgtorch.lora.injection import convert_layers

IDS = torch.randint(7, (4, 6), generator=torch.Generator().manual_seed(0))


def pair(**options: Any) -> tuple[Graph, nn.Module]:
    """A graph of all kinds of layers with two adapters, and the same module as PEFT alone would have it."""
    torch.manual_seed(0)
    graph = chain(Layers(), name="g", ports=("ids", "y"))
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        lora.add(graph, name, rank=2 + 2 * seed, alpha=3, target_modules=ALL_KINDS[: 5 - seed], wear=False, **options)
    if not options.get("use_dora"):
        fill(graph)
    torch.manual_seed(0)
    own = Layers()
    for seed, name in enumerate(("one", "two")):
        own.__dict__.pop("peft_config", None)
        config = peft.LoraConfig(r=2 + 2 * seed, lora_alpha=3, target_modules=ALL_KINDS[: 5 - seed], **options)
        peft.inject_adapter_in_model(config, own, name)
    own.load_state_dict(graph.nodes["n0"].state_dict(), strict=True)
    graph.eval()
    return graph, own.eval()


def by_peft(model: nn.Module, names: list[str]) -> Tensor:
    for part in model.modules():
        if isinstance(part, peft.tuners.tuners_utils.BaseTunerLayer):
            part.set_adapter(names)
            part._disable_adapters = not names
    return model(IDS)


ONE_BY_ONE: list[list[str]] = [[], ["one"], ["two"]]
KINDS: dict[str, tuple[dict[str, Any], list[list[str]]]] = {
    "lora": ({}, [*ONE_BY_ONE, ["one", "two"]]),
    "rslora": ({"use_rslora": True}, [*ONE_BY_ONE, ["one", "two"]]),
    "dora": ({"use_dora": True}, ONE_BY_ONE),  # what several give depends on their order in PEFT
}


@pytest.mark.parametrize(("kind", "names"), [(kind, names) for kind, (_, ways) in KINDS.items() for names in ways])
def test_the_same_bits_as_peft(kind: str, names: list[str]) -> None:
    graph, own = pair(**KINDS[kind][0])
    graph.set_adapter("n0", dict.fromkeys(names, 1.0))
    torch.testing.assert_close(graph(ids=IDS)["y"], by_peft(own, names), rtol=0, atol=0)


def test_an_adapter_for_each_sample_is_what_each_alone_would_give() -> None:
    graph, own = pair()
    graph.set_adapter("n0", ["two", None, "one", "two"])
    y = graph(ids=IDS)["y"]
    for row, names in enumerate((["two"], [], ["one"], ["two"])):
        torch.testing.assert_close(y[row], by_peft(own, names)[row])
    assert not torch.allclose(y[0], by_peft(own, [])[0])


def test_gradients_for_each_sample_are_those_of_each_alone() -> None:
    graph, own = pair()
    graph.set_adapter("n0", ["two", None, "one", "two"])
    weights = torch.randn(4, 4)
    (graph(ids=IDS)["y"] * weights).sum().backward()
    for row, names in enumerate((["two"], [], ["one"], ["two"])):
        if names:
            (by_peft(own, names)[row] * weights[row]).sum().backward()
    expected = {name: parameter.grad for name, parameter in own.named_parameters() if "lora_" in name}
    found = {name: parameter.grad for name, parameter in graph.nodes["n0"].named_parameters() if "lora_" in name}
    torch.testing.assert_close(found, expected)


def test_dropout_and_biases_for_each_sample() -> None:
    body = chain(Body(), name="b")
    for name in ("one", "two"):
        lora.add(body, name, rank=2, dropout=0.5, lora_bias=True)
    fill(body)
    x = torch.randn(3, 4)
    body.eval()
    body.set_adapter("n0", ["one", "two", None])
    y = body(x=x)["y"]
    for row, name in enumerate(("one", "two", None)):
        body.set_adapter("n0", name)
        torch.testing.assert_close(body(x=x)["y"][row], y[row])
    body.train().set_adapter("n0", ["one", "one", "one"])
    torch.manual_seed(5)
    mixed = body(x=x)["y"]
    body.set_adapter("n0", "one")
    torch.manual_seed(5)
    torch.testing.assert_close(body(x=x)["y"], mixed)
    assert not torch.allclose(mixed[0], y[0]), "dropout is at work"


def test_weights_scale_what_an_adapter_adds() -> None:
    graph = chain(Body(), name="b")
    lora.add(graph, "one", rank=2, target_modules=["second"])
    fill(graph)
    x = torch.randn(3, 4)
    outputs = []
    for adapter in (None, {"one": 1.0}, {"one": 0.25}, {"one": -2}):
        graph.set_adapter("n0", adapter)
        outputs.append(graph(x=x)["y"])
    added = outputs[1] - outputs[0]
    torch.testing.assert_close(outputs[2], outputs[0] + 0.25 * added)
    torch.testing.assert_close(outputs[3], outputs[0] - 2 * added)


def test_variants_are_used_whole_and_alike() -> None:
    graph, _ = pair(use_dora=True)
    graph.set_adapter("n0", {"one": 0.5})
    with pytest.raises(StructureError, match=r"'one' is no plain LoRA .* cannot be used with weight 0.5"):
        graph(ids=IDS)
    graph.set_adapter("n0", ["one", "two", None, "one"])
    with pytest.raises(StructureError, match="cannot differ within a batch"):
        graph(ids=IDS)


def test_halves_and_adapters_in_another_dtype() -> None:
    graph = chain(Body(), name="b").to(torch.bfloat16)
    lora.add(graph, "one", rank=2)
    fill(graph)
    assert {parameter.dtype for parameter in graph.parameters()} == {torch.bfloat16}
    x = torch.randn(2, 4, dtype=torch.bfloat16)
    for parameter in tensors_of(graph.nodes["n0"], "one").values():
        parameter.data = parameter.data.float()
    for adapter in ("one", ["one", None]):
        graph.set_adapter("n0", adapter)
        assert graph(x=x)["y"].dtype == torch.bfloat16


def test_layers_that_peft_put_in_are_taken_over() -> None:
    torch.manual_seed(0)
    body = Body()
    plain = copy.deepcopy(body)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["first"]), body, "mine")
    with torch.no_grad():
        body.first.lora_B["mine"].weight.normal_()
    graph = chain(body, name="g")
    x = torch.randn(2, 4)
    adapted = graph(x=x)["y"]
    assert not torch.equal(adapted, plain(x))
    assert lora.from_peft(graph) == ["n0"] and graph.node_specs["n0"].adapter == "mine"
    torch.testing.assert_close(graph(x=x)["y"], adapted, rtol=0, atol=0)
    torch.testing.assert_close(body(x), plain(x), rtol=0, atol=0)
    lora.remove(graph, "mine")
    assert snapshot(body)[2] == snapshot(plain)[2]


def test_kinds_that_cannot_are_said_to_be_so() -> None:
    body = Body()
    body.attention = nn.MultiheadAttention(4, 2)
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["attention"]), body, "mine")
    with pytest.raises(
        StructureError, match=r"attention is a MultiheadAttention of PEFT, whose adapters cannot differ from place to place"
    ):
        convert_layers(body)


def test_rows_of_fake_tensors_are_not_kept() -> None:
    graph = chain(Body(), name="b")
    lora.add(graph, "one", rank=2)
    graph.set_adapter("n0", ["one", None])
    graph.run({"x": torch.randn(2, 4)}, dry_run="fake")
    assert type(graph(x=torch.randn(2, 4))["y"]) is Tensor


class ByName(Block):
    """Calls its layer with the name that PyTorch has for the argument, as UNets of videos in diffusers do."""

    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(input=x)


def test_an_adapted_layer_is_called_by_name() -> None:
    graph, x = chain(ByName()), torch.ones(2, 3)
    before = graph(x=x)["y"]
    lora.add(graph, "one", rank=2, alpha=2, target_modules=["first"])
    with torch.no_grad():
        values = {name.split(".lora_")[1][0]: parameter.normal_() for name, parameter in graph.named_parameters() if ".lora_" in name}
    torch.testing.assert_close(graph(x=x)["y"], before + x @ values["A"].T @ values["B"].T)
