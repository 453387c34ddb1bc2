"""Which blocks and layers get an adapter, what is frozen, and that nothing is left of it afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("peft")

import peft

from tests.blocks_for_tests import Affine, Pause, Scale, as_pipeline, as_stage, chain
from tests.lora.models import Body, Layers, fill, snapshot, twice
from wgtorch import lora
from wgtorch.core.block import Block
from wgtorch.core.errors import StructureError, TrainingError, UnknownNameError
from wgtorch.graph import Graph
from wgtorch.lora.adapted_module import layers_of, tensors_of

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Unlinear(Block):
    """Has weights, and no layer for an adapter."""

    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def same(module: nn.Module, before: Any) -> None:
    after = snapshot(module)
    assert after[0] == before[0] and after[2:] == before[2:]
    assert all(torch.equal(after[1][name], value) for name, value in before[1].items())


@pytest.mark.parametrize("freeze_base", [False, True])
def test_nothing_is_left_when_the_last_adapter_goes(freeze_base: bool) -> None:
    graph = chain(Affine(seed=1), Body(), Unlinear(), Body(seed=2), name="g")
    graph.nodes["n1"].first.bias.requires_grad_(False)
    before, y = snapshot(graph), graph.eval()(x=X)["y"]
    attributes = [set(part.__dict__) for part in graph.modules()]
    for name in ("one", "two"):
        lora.add(graph, name, rank=2, freeze_base=freeze_base)
        fill(graph)
    assert not torch.equal(graph(x=X)["y"], y)
    lora.remove(graph, "one")
    assert graph.node_specs["n1"].adapter == "two" and set(lora.adapters(graph)) == {"two"}
    assert any(parameter.requires_grad for name, parameter in graph.named_parameters() if "lora" not in name) is not freeze_base
    lora.remove(graph, "two")
    same(graph, before)
    assert torch.equal(graph(x=X)["y"], y)
    allowed = {"_adapter_gate"}
    assert [set(part.__dict__) - allowed for part in graph.modules()] == attributes
    assert graph.node_specs["n1"].adapter is None


def test_the_report_says_which_blocks_got_it_and_why_others_did_not() -> None:
    graph = Graph("g")
    shared = Body()
    for node, child in (("a", shared), ("b", Scale()), ("c", Pause()), ("d", Unlinear()), ("e", shared)):
        graph.add_node(child, node)
    report = lora.add(graph, "one", rank=3)
    assert [(block.path, block.layers, block.parameters) for block in report.adapted] == [("a", 2, 2 * 3 * 8)]
    assert {block.path: block.reason for block in report.skipped} == {
        "b": "it has no weights",
        "c": "it waits on an API or another process, so its weights are not here",
        "d": "it has no linear layers",
    }
    assert report.parameters == 48 and report.layers == 2
    assert "adapter 'one': 48 parameters on 1 blocks, 3 skipped" in str(report) and "c  skipped: it waits on an API" in str(report)
    assert [graph.node_specs[node].adapter for node in "abcde"] == ["one", None, None, None, "one"]


def test_the_report_is_exact() -> None:
    graph = twice(Body())
    again = lora.add(graph, "one", rank=1, nodes=["n1"])
    assert again == lora.Report("one", (lora.Adapted("n1", "test_lora/body", 2, 2 * 1 * 8),), (), frozen=0)
    assert str(again) == "adapter 'one': 16 parameters on 1 blocks, 0 skipped\n  n1  test_lora/body: 2 layers, 16 parameters"
    held = sum(parameter.numel() for name, parameter in graph.named_parameters() if "lora_" not in name)
    froze = lora.add(graph, "two", rank=2, target_modules=["first"], freeze_base=True, nodes=["n1", "n0"])
    skipped = (lora.Skipped("n0", "none of its layers matches ['first']"),)
    assert froze == lora.Report("two", (lora.Adapted("n1", "test_lora/body", 1, 16),), skipped, frozen=held)
    assert str(froze).splitlines()[0] == f"adapter 'two': 16 parameters on 1 blocks, 1 skipped, {held:,} of the base frozen"
    assert lora.add(graph, "three", nodes=["n1"], freeze_base=True).frozen == 0, "it was frozen already"


def test_models_behind_a_provider_are_skipped_and_reported() -> None:
    """The same type of block, here and far away: only the one with weights gets an adapter."""
    pytest.importorskip("openai")
    graph = Graph("g")
    graph.add_node("llm", "far", config={"backend": "api", "provider": "openai", "model_id": "some-model"})
    graph.add_node(Body(), "near")
    report = lora.add(graph, "one", rank=2, freeze_base=True)
    assert [block.path for block in report.adapted] == ["near"]
    assert [(block.path, block.reason.split(",")[0]) for block in report.skipped] == [("far", "it waits on an API or another process")]
    assert {name.split(".")[-2] for name, parameter in graph.named_parameters() if parameter.requires_grad} == {"one"}


def test_a_level_of_blocks_without_weights_is_no_error() -> None:
    graph = chain(Scale(), Pause(), name="g")
    report = lora.add(graph, freeze_base=True)
    assert not report.adapted and len(report.skipped) == 2
    assert list(graph.trainable_parameters()) == []


@pytest.mark.parametrize("as_level", [as_pipeline, as_stage])
def test_every_level(as_level: Any) -> None:
    level = as_level(chain(Body(), Scale(), name="g"))
    lora.add(level, "one", rank=2, freeze_base=True)
    trained = list(level.trainable_parameters())
    assert trained and {id(p) for p in trained} == {id(p) for n, p in level.named_parameters() if "lora_" in n}
    path = next(iter(lora.adapters(level)["one"]))
    assert path.endswith("/n0")
    level.set_adapter(path, None)
    level.set_adapter(path, "one")
    lora.remove(level, "one")
    assert lora.adapters(level) == {}


def test_a_block_alone() -> None:
    body = Body()
    before = body(X)
    lora.add(body, "one", rank=2)
    fill(body)
    assert torch.equal(body(X), before)
    with lora.use_adapter(body, "one"):
        assert not torch.equal(body(X), before)
    with pytest.raises(StructureError, match="is a block and has no nodes"):
        lora.add(body, "two", nodes=["x"])


def test_only_the_nodes_that_are_named() -> None:
    graph = chain(Body(seed=1), Body(seed=2), name="g")
    pipeline = as_pipeline(graph, "paint")
    lora.add(pipeline, "one", nodes=["paint/n1"], freeze_base=True)
    assert lora.adapters(pipeline) == {"one": ["paint/n1"]}
    assert not graph.nodes["n0"].first.weight.requires_grad and not graph.nodes["n0"].training, "the base is frozen everywhere"
    lora.remove(pipeline, "one")
    assert graph.nodes["n0"].first.weight.requires_grad and graph.nodes["n0"].train().training
    lora.add(pipeline, "one", nodes="paint")
    assert lora.adapters(pipeline) == {"one": ["paint/n0", "paint/n1"]}
    with pytest.raises(UnknownNameError, match="did you mean 'n1'"):
        lora.add(pipeline, "two", nodes=["paint/n11"])


def test_layers_by_the_end_of_their_path_or_by_expression() -> None:
    for words, layers in ((["first"], 1), (["first", "second"], 2), ("(first|second)", 2), ("all-linear", 2), (None, 2)):
        graph = chain(Body(), Scale(), name="g")
        assert lora.add(graph, "one", target_modules=words).layers == layers
    report = lora.add(chain(Layers(), ports=("ids", "y")), target_modules=["wide", "image", "embed"])
    assert report.layers == 3


@pytest.mark.parametrize("words", ["fist", ["fist"], ["first", "fist"], ["norm"]])
def test_names_that_match_no_layer_are_an_error(words: Any) -> None:
    graph = chain(Body(), Scale(), name="g")
    before = snapshot(graph)
    hint = "" if words == ["norm"] else ".*did you mean 'first'"
    with pytest.raises(StructureError, match=rf"target_modules '(fist|norm)' matches no layer of any block{hint}"):
        lora.add(graph, "one", target_modules=words)
    same(graph, before)


@pytest.mark.parametrize(("words", "told"), [("((", "is no regular expression: missing"), ([], "names no layer"), ("", "names no layer")])
def test_words_that_can_be_no_layers(words: str | list[str], told: str) -> None:
    with pytest.raises(StructureError, match=f"lora.add: target_modules .*{told}"):
        lora.add(chain(Body()), "one", target_modules=words)


def test_what_is_wrong_is_said_before_anything_is_changed() -> None:
    graph = chain(Body(seed=1), Body(seed=2), name="g")
    lora.add(graph, "one", nodes=["n1"])
    before = snapshot(graph)
    for options, words in (
        ({"name": "one"}, "n1: has an adapter 'one' already"),
        ({"name": "a.b"}, "expected letters, digits"),
        ({"name": "two", "rank": 0}, "rank 0; expected a whole number from 1"),
        ({"name": "two", "rank": "x"}, "rank 'x'; expected a whole number from 1"),
        ({"name": "two", "rank": 2.0}, "rank 2.0; expected a whole number from 1"),
        ({"name": "two", "alpha": "8"}, "alpha '8'; expected a number"),
        ({"name": "two", "alpha": float("nan")}, "alpha nan; expected a number"),
        ({"name": "two", "dropout": 1}, "dropout 1; expected a probability"),
        ({"name": "two", "freeze_base": "no"}, "freeze_base 'no'; expected True or False"),
        ({"name": "two", "rankk": 3}, "unknown 'rankk'; did you mean 'rank'"),
        ({"name": "two", "init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the base itself"),
        ({"name": "two", "init_lora_weights": "nonsense"}, "init_lora_weights is 'nonsense'"),
        ({"name": "two", "rank_pattern": {"nowhere": 3}}, "rank_pattern keys did not match"),
    ):
        with pytest.raises(StructureError, match=words):
            lora.add(graph, **options)
        same(graph, before)
    with pytest.raises(StructureError, match="no block below has an adapter 'tow'; known: 'one'"):
        lora.remove(graph, "tow")


def test_a_failure_half_way_takes_back_what_was_put_in() -> None:
    class Grouped(Block):
        outputs = {"y": "tensor"}

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv1d(4, 4, 1, groups=4)

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x)

    graph = Graph("g")
    graph.add_node(Body(), "body")
    graph.add_node(Grouped(), "grouped")
    before = snapshot(graph)
    with pytest.warns(UserWarning, match="groups > 1"), pytest.raises(StructureError, match="rank is divisible by groups"):
        lora.add(graph, "one", rank=2, target_modules=["first"], freeze_base=True)
    same(graph, before)


def test_a_second_adapter_leaves_the_first_and_the_base_training() -> None:
    graph = chain(Body(), name="g")
    graph.nodes["n0"].second.bias.requires_grad_(False)
    lora.add(graph, "one", rank=2)
    lora.add(graph, "two", rank=4, wear=False)
    grads = {name: parameter.requires_grad for name, parameter in graph.named_parameters()}
    assert grads.pop("nodes.n0.second.base_layer.bias") is False and all(grads.values())
    assert graph.node_specs["n0"].adapter == "one"


def test_new_layers_are_in_the_mode_of_their_model() -> None:
    graph = chain(Body(), name="g").eval()
    lora.add(graph, "one", rank=2, dropout=0.9)
    fill(graph)
    assert not any(part.training for part in graph.modules())
    assert torch.equal(graph(x=X)["y"], graph(x=X)["y"])
    graph.train()
    assert not torch.equal(graph(x=X)["y"], graph(x=X)["y"])


def test_a_base_stays_frozen_while_one_adapter_says_so() -> None:
    graph = chain(Body(), Unlinear(), name="g")
    base = graph.nodes["n0"].second.bias
    lora.add(graph, "one", rank=2, freeze_base=True)
    lora.add(graph, "two", rank=2, freeze_base=True)
    graph.train()
    assert not graph.nodes["n1"].training, "its running statistics are of the base too"
    lora.remove(graph, "one")
    assert not base.requires_grad and not graph.train().nodes["n1"].training
    lora.remove(graph, "two")
    assert base.requires_grad and graph.train().nodes["n1"].training


@pytest.mark.parametrize("second", ["one", "two"])
@pytest.mark.parametrize("freeze_base", [False, True])
def test_places_that_get_their_adapters_one_after_the_other(second: str, freeze_base: bool) -> None:
    """The first freezes all there is; a block that gets its own later trains that in the mode of its level, and is free at last."""
    graph = chain(Body(seed=1), Unlinear(), Body(seed=2), name="g")
    before = snapshot(graph)
    lora.add(graph, "one", rank=2, nodes=["n0"], freeze_base=True)
    assert [child.training for child in graph.train().nodes.values()] == [True, False, False]
    lora.add(graph, second, rank=2, nodes=["n2"], freeze_base=freeze_base)
    assert graph.nodes["n2"].training and [child.training for child in graph.train().nodes.values()] == [True, False, True]
    assert all("lora_" in name for name, parameter in graph.named_parameters() if parameter.requires_grad)
    if second == "two":
        lora.remove(graph, "two")
        assert [child.training for child in graph.train().nodes.values()] == [True, False, False]
    lora.remove(graph, "one")
    assert [child.training for child in graph.train().nodes.values()] == [True, True, True]
    same(graph, before)


def test_a_block_that_was_frozen_before_stays_so() -> None:
    graph = chain(Body(seed=1), Body(seed=2), name="g")
    graph.nodes["n1"].freeze()
    lora.add(graph, "one", rank=2, freeze_base=True)
    lora.remove(graph, "one")
    assert not graph.train().nodes["n1"].training and not graph.nodes["n1"].first.weight.requires_grad


def test_heads_that_share_the_embedding_are_left_alone() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)

    class Speaker(Block):
        outputs = {"y": "tensor"}
        ref_module = "model"

        def __init__(self) -> None:
            super().__init__()
            self.model = transformers.LlamaForCausalLM(config)

        def forward(self, x: Tensor) -> Tensor:
            return self.model(inputs_embeds=x).logits

    graph = chain(Speaker(), name="g")
    report = lora.add(graph, rank=2)
    assert report.layers == 7 and "lm_head" not in str(graph.nodes["n0"].model.peft_config["style"].target_modules)


# --- training ---------------------------------------------------------------------------------------------------------


def test_adapters_missing_from_the_optimizer_are_an_error() -> None:
    graph = chain(Body(), name="g")
    early = torch.optim.SGD(graph.parameters(), lr=0.1)
    lora.add(graph, "one", rank=2)
    lora.add(graph, "idle", rank=2, wear=False)
    with pytest.raises(TrainingError, match=r"4 adapter parameters are in no optimizer: n0: adapter 'one': first.lora_A.weight"):
        lora.check_optimizer(graph, early)
    late = torch.optim.SGD([p for n, p in graph.named_parameters() if ".one." in n], lr=0.1)
    lora.check_optimizer(graph, late)
    lora.check_optimizer(graph, [torch.optim.SGD([p], lr=0.1) for n, p in graph.named_parameters() if ".one." in n])
    with pytest.raises(TrainingError, match=r"^2 adapter parameters .*: n0: adapter 'one': second.lora_A.weight; [^;]*. Make"):
        lora.check_optimizer(graph, torch.optim.SGD([p for n, p in graph.named_parameters() if "first" in n], lr=0.1))
    lora.check_optimizer(graph, [early, late])
    lora.check_optimizer(graph.nodes["n0"], torch.optim.SGD(graph.parameters(), lr=0.1))
    with pytest.raises(TrainingError, match="'idle'"):
        lora.check_optimizer(graph.nodes["n0"], late)
    graph.set_trainable("n0", False)
    lora.check_optimizer(graph, early)
    graph.set_trainable("n0", True)
    graph.nodes["n0"].requires_grad_(False)
    lora.check_optimizer(graph, early)


def test_a_step_moves_the_adapters_and_nothing_else() -> None:
    graph = twice(Body())
    lora.add(graph, "one", rank=2, nodes=["n1"], freeze_base=True)
    lora.add(graph, "two", rank=2, nodes=["n3"])
    graph.set_adapter("n1", "one")
    before = snapshot(graph)[1]
    optimizer = torch.optim.SGD(graph.trainable_parameters(), lr=0.1)
    lora.check_optimizer(graph, optimizer)
    for _ in range(2):
        graph(x=X)["y"].square().sum().backward()
        optimizer.step()
    moved = {name for name, value in graph.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all("lora_" in name for name in moved)
    assert {name.split(".")[-2] for name in moved} == {"one", "two"}


def test_of_many_missing_parameters_the_first_are_shown() -> None:
    graph = chain(Body(seed=1), Body(seed=2), Body(seed=3), name="g")
    early = torch.optim.SGD(graph.parameters(), lr=0.1)
    lora.add(graph, "one", rank=2, nodes=["n0", "n1"])
    with pytest.raises(TrainingError, match=r"^8 adapter parameters .*n1: adapter 'one': second.lora_B.weight. Make"):
        lora.check_optimizer(graph, early)
    lora.add(graph, "two", rank=2, nodes=["n2"], target_modules=["first"])
    with pytest.raises(TrainingError, match=r"^10 adapter parameters .*n1: adapter 'one': second.lora_B.weight and 2 more. Make"):
        lora.check_optimizer(graph, early)


def test_alpha_is_the_rank_unless_it_is_said() -> None:
    body = Body()
    for name, options in (("one", {}), ("two", {"alpha": 8}), ("three", {"alpha": 0})):
        lora.add(body, name, rank=4, **options)
    assert dict(body.first.scaling) == {"one": 1.0, "two": 2.0, "three": 0.0}
    assert {name: type(part).__name__ for name, part in body.first.lora_dropout.items()} == dict.fromkeys(
        ("one", "two", "three"), "Identity"
    )


class Deep(Body):
    """Layers in a list, as PEFT counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleDict({"query": nn.Linear(4, 4)}) for _ in range(2)])


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"alpha_pattern": {"first": 4}}, {"first": (2, 2.0), "second": (2, 1.0)}),
        ({"rank_pattern": {"first": 1}}, {"first": (1, 2.0), "second": (2, 1.0)}),
        ({"use_rslora": True}, {"first": (2, 2**0.5), "second": (2, 2**0.5)}),
        ({"exclude_modules": ["first"]}, {"second": (2, 1.0)}),
        ({"fan_in_fan_out": False}, {"first": (2, 1.0), "second": (2, 1.0)}),
        ({"use_dora": True}, {"first": (2, 1.0), "second": (2, 1.0)}),
        ({"lora_bias": True}, {"first": (2, 1.0), "second": (2, 1.0)}),
        ({"init_lora_weights": False}, {"first": (2, 1.0), "second": (2, 1.0)}),
        ({"init_lora_weights": "gaussian"}, {"first": (2, 1.0), "second": (2, 1.0)}),
        ({"init_lora_weights": "orthogonal"}, {"first": (2, 1.0), "second": (2, 1.0)}),
        ({"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": "layers"}, {"layers.1.query": (2, 1.0)}),
    ],
)
def test_options_of_peft(options: dict[str, Any], found: dict[str, tuple[int, float]]) -> None:
    graph = chain(Deep() if "layers_pattern" in options else Body(), name="g")
    y = graph(x=X)["y"]
    report = lora.add(graph, "one", **{"rank": 2, "target_modules": ["first", "second"], **options})
    assert report.layers == len(found), "what PEFT left out is not counted"
    layers = dict(layers_of(graph.nodes["n0"]))
    assert {path: (layer.r["one"], pytest.approx(layer.scaling["one"])) for path, layer in layers.items()} == found
    assert all(layer.use_dora.get("one", False) is options.get("use_dora", False) for layer in layers.values())
    assert all(layer.lora_bias["one"] is options.get("lora_bias", False) for layer in layers.values())
    assert torch.allclose(graph(x=X)["y"], y) is (options.get("init_lora_weights") not in (False,))


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
@pytest.mark.parametrize(("active", "selected"), [(["x"], "x"), (["y"], "y"), (["x", "y"], {"x": 1.0, "y": 1.0}), ([], None), (None, None)])
def test_what_was_active_in_peft_is_selected(active: list[str] | None, selected: Any) -> None:
    body = Body()
    for name in ("x", "y"):
        peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["first", "second"], init_lora_weights=False), body, name)
    for _, layer in layers_of(body):
        layer.set_adapter(active or [])
        if active is None:
            layer.enable_adapters(False)
    graph = chain(Scale(), body, body, name="g")
    y = graph(x=X)["y"]
    skipped = lora.add(graph, "z").skipped
    assert [(block.path, block.reason) for block in skipped if block.path == "n1"] == [
        ("n1", "it has adapters that PEFT put in; wgtorch.lora.from_peft takes them over")
    ]
    assert lora.from_peft(graph) == ["n1", "n2"]
    assert [graph.node_specs[node].adapter for node in graph.nodes] == [None, selected, selected]
    torch.testing.assert_close(graph(x=X)["y"], y)
    assert lora.from_peft(graph) == []


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["query"], {"query"}),
        ("layers.*query", "layers.*query"),
        (None, {"first", "second", "layers.0.query", "layers.1.query"}),
        ("all-linear", {"first", "second", "layers.0.query", "layers.1.query"}),
    ],
)
def test_configs_keep_the_words_of_the_user_where_they_name_the_layers(words: Any, kept: Any) -> None:
    graph = chain(Deep(), name="g")
    lora.add(graph, "one", rank=2, target_modules=words)
    assert graph.nodes["n0"].peft_config["one"].target_modules == kept


def test_removing_one_adapter_leaves_what_trains_of_the_others() -> None:
    body = Body()
    for name in ("one", "two", "three"):
        lora.add(body, name, rank=2)
    for parameter in tensors_of(body, "one").values():
        parameter.requires_grad_(False)
    for name in ("three", "two"):
        lora.remove(body, name)
        assert not any(parameter.requires_grad for parameter in tensors_of(body, "one").values())
