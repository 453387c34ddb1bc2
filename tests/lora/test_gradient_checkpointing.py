"""What is computed again in the backward pass has the adapters it had: loops of the engine, models of diffusers and transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("peft")

from tests.blocks_for_tests import chain
from tests.lora.models import Body, fill, twice
from wgtorch import lora
from wgtorch.core.block import Block
from wgtorch.core.errors import StructureError
from wgtorch.graph import Graph

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def looped(steps: int = 3) -> Graph:
    """A loop through a block that uses an adapter, another block that uses another, and one that has one and uses none."""
    graph = Graph("loop", metadata={"num_loop_steps": steps})
    graph.add_node(Body(seed=1), "one")
    graph.add_node(Body(seed=2), "two")
    graph.add_node(graph.nodes["one"], "bare")
    for source, target in (("one", "two"), ("two", "bare"), ("bare", "one")):
        graph.add_edge(f"{source}.y", f"{target}.x")
    graph.expose_input("one", "x")
    graph.expose_output("bare", "y")
    lora.add(graph, "a", rank=2, nodes=["one"])
    lora.add(graph, "b", rank=2, nodes=["two"])
    fill(graph)
    return graph


def grads(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if parameter.grad is None else parameter.grad.clone() for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("around", [None, {"b": 0.5}])
def test_turns_of_a_loop(around: Any) -> None:
    graph = looped()
    found = []
    for recomputed in (False, True):
        again = copy.deepcopy(graph)
        if recomputed:
            again.gradient_checkpointing()
        with lora.use_adapter(again, around) if around else torch.enable_grad():
            y = again(x=X)["y"]
        y.square().sum().backward()
        found.append((y, grads(again)))
    assert found[0][1]["nodes.one.first.lora_A.a.weight" if not around else "nodes.two.first.lora_A.b.weight"] is not None
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # what PyTorch imports for its scan
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # PyTorch's own look at it while compiling
@pytest.mark.parametrize("how", ["body", pytest.param("whole", marks=pytest.mark.slow)])
def test_compiled_loops(how: str) -> None:
    torch._dynamo.reset()
    graph, plain = looped(), looped()
    compiled: Any = graph
    if how == "body":
        graph.compile(fullgraph=True, backend="eager")
    else:
        compiled = torch.compile(graph, fullgraph=True, backend="aot_eager")
    for each in (compiled, plain):
        each(x=X)["y"].square().sum().backward()
    torch.testing.assert_close(grads(graph), grads(plain))
    for one, around in (("a", None), (None, None), (None, "b")):
        graph.set_adapter("one", one)
        plain.set_adapter("one", one)
        with torch.no_grad(), lora.use_adapter(graph, around) if around else torch.no_grad():
            torch.testing.assert_close(compiled(x=X)["y"], plain(x=X)["y"])


def test_raw_checkpointing_inside_a_block_is_an_error_and_never_a_wrong_result() -> None:
    graph = twice(Body(again="raw"))
    lora.add(graph, "one", rank=2)
    fill(graph)
    y = graph(x=X)["y"]
    with pytest.raises(StructureError, match=r"computed again in the backward pass.*checkpoint\(wgtorch.lora.preserve_adapter_context"):
        y.sum().backward()


# --- models of other libraries ----------------------------------------------------------------------------------------


class Foreign(Block):
    """Holds a model as blocks of diffusers and transformers do."""

    outputs = {"y": "tensor"}
    ref_module = "model"

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        if hasattr(self.model.config, "sample_size"):
            condition = torch.linspace(-1, 1, batch * 3 * 16).view(batch, 3, 16)
            return self.model(x, 7, encoder_hidden_states=condition, return_dict=False)[0]
        return self.model(inputs_embeds=x).last_hidden_state


def unet() -> tuple[Any, Tensor]:
    pytest.importorskip("diffusers")
    from tests.integrations.diffusers.tiny import unet

    return unet(), torch.randn(2, 4, 8, 8)


def llama() -> tuple[Any, Tensor]:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, attn_implementation="eager"
    )
    return transformers.LlamaModel(config), torch.randn(2, 5, 16)


MODELS: dict[str, Callable[[], tuple[Any, Tensor]]] = {"unet": unet, "llama": llama}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    return MODELS[request.param]()


def enable(model: Any) -> None:
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    elif hasattr(model, "gradient_checkpointing_enable"):
        model.gradient_checkpointing_enable()
    else:
        model.enable_gradient_checkpointing()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_models_own_checkpointing(model: tuple[Any, Tensor], when: str) -> None:
    """One model at two places with two adapters: with and without checkpointing the same, by PEFT's own words too."""
    import peft

    foreign, x = model
    block = Foreign(foreign)
    graph = Graph("g")
    for node in ("n0", "n1", "n2"):
        graph.add_node(block, node)
    graph.add_edge("n0.y", "n1.x")
    graph.add_edge("n1.y", "n2.x")
    graph.infer_exposed_ports()
    if when == "before":
        enable(foreign)
    lora.add(graph, "a", rank=2, nodes=["n0"], freeze_base=True)
    lora.add(graph, "b", rank=2, nodes=["n1"])
    fill(graph)
    graph.train()
    plain = copy.deepcopy(graph)
    if when == "after":
        enable(foreign)
    else:
        plain_model = plain.nodes["n0"].model
        getattr(plain_model, "disable_gradient_checkpointing", getattr(plain_model, "activation_checkpointing_disable", None))()
    calls = count_calls(foreign)
    y = graph(x=x)["y"]
    forward = calls[0]
    y.square().mean().backward()
    assert calls[0] > forward, "something was computed again"
    expected = plain(x=x)["y"]
    expected.square().mean().backward()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(grads(graph), grads(plain))
    trained = {name.split(".")[-2] for name, grad in grads(graph).items() if grad is not None}
    assert trained == {"a", "b"}
    assert isinstance(foreign.peft_config["a"], peft.LoraConfig)


def count_calls(model: nn.Module) -> list[int]:
    calls = [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    for part in model.modules():
        if "lora_A" in part._modules:
            part.register_forward_hook(count)
    return calls


def test_checkpointing_is_the_models_own_again_without_adapters() -> None:
    foreign, _ = unet()
    graph = chain(Foreign(foreign), name="g")
    foreign.enable_gradient_checkpointing()
    before = {name: part.__dict__.get("_gradient_checkpointing_func") for name, part in foreign.named_modules()}
    lora.add(graph, rank=2)
    clone = copy.deepcopy(graph)
    clone.nodes["n0"].model.disable_gradient_checkpointing()
    assert not clone.nodes["n0"].model.is_gradient_checkpointing and foreign.is_gradient_checkpointing
    lora.remove(graph, "style")
    assert {name: part.__dict__.get("_gradient_checkpointing_func") for name, part in foreign.named_modules()} == before
    assert "_set_gradient_checkpointing" not in foreign.__dict__
