"""One block at two places with two adapters, compared with the same sum written by hand in PyTorch."""

from __future__ import annotations

import copy
import threading
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

pytest.importorskip("peft")

from tests.blocks_for_tests import Affine, as_pipeline, chain
from tests.lora.models import Body, by_hand, fill, gradients, leaves, twice
from tests.matrix import spread
from wgtorch import lora
from wgtorch.core.errors import PortError, StructureError, UnknownNameError
from wgtorch.graph import Graph
from wgtorch.lora.active_adapters import current
from wgtorch.pipeline import Pipeline

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def adapted(body: Body | None = None, *names: str, freeze: bool = True) -> Graph:
    """The block twice in a graph, with adapters that no place selects yet."""
    graph = twice(body or Body())
    for name in names or ("one", "two"):
        lora.add(graph, name, rank=2, alpha=3, nodes=["n1"], wear=False)
    fill(graph)
    if freeze:
        graph.nodes["n1"].requires_grad_(False)
        for name, parameter in graph.nodes["n1"].named_parameters():
            parameter.requires_grad_("lora_" in name)
    return graph


def wanted(graph: Graph, first: dict[str, float], second: dict[str, float]) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Output and gradients that the formula gives."""
    weights = leaves(graph.nodes["n1"])
    before, between = (copy.deepcopy(graph.nodes[node]) for node in ("n0", "n2"))
    y = by_hand(between(by_hand(before(X), weights, first, 1.5)), weights, second, 1.5)
    y.square().sum().backward()
    return y, {name: value.grad for name, value in weights.items()}


WAYS: dict[str, Any] = {
    "forward": lambda graph: graph(x=X)["y"],
    "run": lambda graph: graph.run({"x": X}, training=True, seed=3)["y"],
    "pipeline": lambda graph: as_pipeline(graph)(x=X)["y"],
    "checkpointed": lambda graph: checkpoint(lambda x: graph(x=x)["y"], X, use_reentrant=False),
    "reentrant": lambda graph: checkpoint(lambda x: graph(x=x)["y"], X.clone().requires_grad_(), use_reentrant=True),
}


@pytest.mark.parametrize("again", ["", "kept"])
@pytest.mark.parametrize("way", WAYS)
def test_two_adapters_in_one_backward_pass(way: str, again: str) -> None:
    graph = adapted(Body(again=again))
    graph.set_adapter("n1", "one")
    graph.set_adapter("n3", "two")
    y = WAYS[way](graph)
    y.square().sum().backward()
    expected, grads = wanted(graph, {"one": 1.0}, {"two": 1.0})
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(graph.nodes["n1"]), grads)
    assert grads["first.lora_A.one"] is not None and grads["first.lora_A.two"] is not None
    assert grads["first.weight"] is None, "none for the base"
    assert graph.nodes["n0"].linear.weight.grad is not None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"one": 1.0}, {}),
        ({"one": 1.0}, {"one": 1.0}),
        ({"one": 0.5, "two": -2.0}, {"two": 1.0}),
        ({}, {}),
    ],
)
def test_several_weighted_adapters_at_a_place_and_a_base_that_trains(first: dict[str, float], second: dict[str, float]) -> None:
    graph = adapted(freeze=False)
    graph.set_adapter("n1", first or None)
    graph.set_adapter("n3", second)
    y = graph(x=X)["y"]
    y.square().sum().backward()
    expected, grads = wanted(graph, first, second)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(graph.nodes["n1"]), grads)
    assert grads["first.weight"] is not None


def test_a_frozen_place_trains_neither_base_nor_adapter() -> None:
    graph = adapted(freeze=False)
    graph.set_adapter("n1", "one")
    graph.set_adapter("n3", "one")
    graph.set_trainable("n3", False)
    graph(x=X)["y"].square().sum().backward()
    weights = leaves(graph.nodes["n1"])
    still = {name: value.detach() for name, value in weights.items()}
    y = by_hand(graph.nodes["n2"](by_hand(graph.nodes["n0"](X).detach(), weights, {"one": 1.0}, 1.5)), still, {"one": 1.0}, 1.5)
    y.square().sum().backward()
    torch.testing.assert_close(gradients(graph.nodes["n1"]), {name: value.grad for name, value in weights.items()})
    assert weights["first.lora_A.one"].grad is not None


@pytest.mark.parametrize(("backend", "frozen"), spread(product(["eager", "aot_eager"], [False, True])))
def test_under_compile_without_a_graph_break(backend: str, frozen: bool) -> None:
    torch._dynamo.reset()
    graph = adapted()
    graph.set_adapter("n1", "one")
    graph.set_adapter("n3", {"two": 0.5})
    if frozen:
        graph.set_trainable("n3", False)
    compiled = torch.compile(graph, fullgraph=True, backend=backend)
    y = compiled(x=X)["y"]
    y.square().sum().backward()
    found = gradients(graph.nodes["n1"])
    graph.zero_grad()
    plain = graph(x=X)["y"]
    plain.square().sum().backward()
    torch.testing.assert_close(y, plain)
    torch.testing.assert_close(found, gradients(graph.nodes["n1"]))
    graph.set_adapter("n1", "two")
    torch.testing.assert_close(compiled(x=X)["y"], graph(x=X)["y"])
    assert not torch.allclose(compiled(x=X)["y"], y)


def test_a_compiled_block_has_one_graph_for_each_adapter() -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    body = adapted().nodes["n1"]
    graph = chain(body)
    weights = leaves(body)
    body.compile(fullgraph=True, backend=counter)
    for name in ("one", "two", None, "one", "two", None):
        graph.set_adapter("n0", name)
        torch.testing.assert_close(graph(x=X)["y"], by_hand(X, weights, {name: 1.0} if name else {}, 1.5))
    assert counter.frame_count == 3


def test_other_weights_of_an_adapter_are_not_compiled_again(tmp_path: Path) -> None:
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    body = adapted().nodes["n1"]
    graph = chain(body)
    graph.set_adapter("n0", "one")
    for number in (2, 3):
        other = adapted().nodes["n1"]
        with torch.no_grad():
            for name, parameter in other.named_parameters():
                if ".lora_" in name or "lora_" in name:
                    parameter.mul_(number)
        lora.save(other, tmp_path / str(number), "one")
    body.compile(fullgraph=True, backend=counter)
    first = graph(x=X)["y"]
    for number in (2, 3, 2):
        lora.load(graph, tmp_path / str(number), "one", replace=True)
        torch.testing.assert_close(graph(x=X)["y"], by_hand(X, leaves(body), {"one": 1.0}, 1.5))
        assert not torch.allclose(graph(x=X)["y"], first)
    assert counter.frame_count == 1


def test_two_threads_at_once() -> None:
    """Two graphs around one block, each in its own thread with its own adapter, meeting inside the block at every call."""
    barrier = threading.Barrier(2, timeout=60)

    class Meeting(Body):
        def body(self, x: Tensor) -> Tensor:
            barrier.wait()
            hidden = self.first(x)
            barrier.wait()
            return self.second(torch.tanh(hidden))

    body = Meeting()
    graphs = {name: chain(body, name=name) for name in ("one", "two")}
    for name, graph in graphs.items():
        lora.add(graph, name, rank=2)
    fill(graphs["one"])
    assert {name: graph.node_specs["n0"].adapter for name, graph in graphs.items()} == {"one": "one", "two": "two"}
    found: dict[str, list[Tensor]] = {"one": [], "two": []}

    def work(name: str) -> None:
        for _ in range(5):
            found[name].append(graphs[name](x=X)["y"])

    threads = [threading.Thread(target=work, args=(name,)) for name in graphs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    weights = leaves(body)
    for name, ys in found.items():
        assert len(ys) == 5
        for y in ys:
            torch.testing.assert_close(y, by_hand(X, weights, {name: 1.0}))


@pytest.mark.parametrize("how", ["plain", "checkpointed", "recomputed inside", "compiled"])
def test_one_block_in_two_graphs_in_one_backward_pass(how: str) -> None:
    """The sum of two graphs' losses: each adapter gets the gradient of its own graph, the base none."""
    torch._dynamo.reset()
    body = Body(again="kept" if how == "recomputed inside" else "")
    body.requires_grad_(False)
    graphs = [chain(Affine(seed=seed), body, name=name) for seed, name in enumerate(("left", "right"))]
    for name, graph in zip(("one", "two"), graphs, strict=True):
        lora.add(graph, name, rank=2, alpha=3, nodes=["n1"])
    fill(graphs[0])
    assert [graph.node_specs["n1"].adapter for graph in graphs] == ["one", "two"]
    calls: list[Any] = [torch.compile(graph, fullgraph=True, backend="aot_eager") if how == "compiled" else graph for graph in graphs]
    x = X.clone().requires_grad_()
    ys = [
        checkpoint(lambda x, call=call: call(x=x)["y"], x, use_reentrant=False) if how == "checkpointed" else call(x=x)["y"]
        for call in calls
    ]
    (ys[0].square().sum() + ys[1].sin().sum()).backward()
    weights = leaves(body)
    own = [by_hand(graph.nodes["n0"](X), weights, {name: 1.0}, 1.5) for graph, name in zip(graphs, ("one", "two"), strict=True)]
    (own[0].square().sum() + own[1].sin().sum()).backward()
    torch.testing.assert_close(gradients(body), {name: value.grad for name, value in weights.items()})
    assert weights["first.lora_A.one"].grad is not None and weights["first.weight"].grad is None


@pytest.mark.parametrize("how", ["checkpointed", "compiled"])
def test_an_adapter_for_each_sample_when_it_is_computed_again_or_compiled(how: str) -> None:
    torch._dynamo.reset()
    graph = adapted(Body(again="kept" if how == "checkpointed" else ""))
    graph.set_adapter("n1", ["two", None, "one"])
    call: Any = torch.compile(graph, fullgraph=True, backend="aot_eager") if how == "compiled" else graph
    call(x=X)["y"].square().sum().backward()
    weights = leaves(graph.nodes["n1"])
    rows = []
    for row, names in enumerate(({"two": 1.0}, {}, {"one": 1.0})):
        between = graph.nodes["n2"](by_hand(graph.nodes["n0"](X[row : row + 1]), weights, names, 1.5))
        rows.append(by_hand(between, weights, {}, 1.5))
    torch.cat(rows).square().sum().backward()
    torch.testing.assert_close(gradients(graph.nodes["n1"]), {name: value.grad for name, value in weights.items()})


# --- levels, samples, calls outside of places -------------------------------------------------------------------------


def test_what_a_level_selects_holds_for_all_blocks_below() -> None:
    body = Body()
    graph = chain(body, name="g")
    lora.add(graph, "one", rank=2)
    lora.add(graph, "two", rank=2, wear=False)
    fill(graph)
    pipeline = Pipeline("p")
    for node in ("first", "again"):
        pipeline.add_graph(graph, node)
    pipeline.add_edge("first.y", "again.x")
    pipeline.infer_exposed_ports()
    pipeline.set_adapter("again", "two")
    weights = leaves(body)
    torch.testing.assert_close(pipeline(x=X)["y"], by_hand(by_hand(X, weights, {"one": 1.0}), weights, {"two": 1.0}))
    pipeline.set_adapter("again/n0", None)  # inside: at both, and the level around still decides
    torch.testing.assert_close(pipeline(x=X)["y"], by_hand(by_hand(X, weights, {}), weights, {"two": 1.0}))
    with pytest.raises(StructureError, match=r"p/first: no adapter 'three' on Graph 'g'; known: 'one', 'two'"):
        pipeline.set_adapter("first", "three")


def test_an_adapter_for_each_sample() -> None:
    graph = adapted()
    graph.set_adapter("n1", ["two", None, "one"])
    y = graph(x=X)["y"]
    weights = leaves(graph.nodes["n1"])
    for row, names in enumerate(({"two": 1.0}, {}, {"one": 1.0})):
        alone = by_hand(graph.nodes["n2"](by_hand(graph.nodes["n0"](X[row : row + 1]), weights, names, 1.5)), weights, {}, 1.5)
        torch.testing.assert_close(y[row : row + 1], alone)
    y[2].sum().backward()
    found = gradients(graph.nodes["n1"])
    assert found["first.lora_B.one"].abs().sum() > 0 and found["first.lora_B.two"].abs().sum() == 0
    with pytest.raises(PortError, match=r"adapters for 3 samples, and a layer is given 2 rows"):
        graph(x=X[:2])


def test_a_level_selects_for_each_sample_what_its_blocks_have() -> None:
    """A block leaves out the names that it has not; one that has none of them goes by its own place."""
    graph = Graph("inner")
    bodies = [Body(seed=1), Body(seed=2), Body(seed=3)]
    for number, body in enumerate(bodies):
        graph.add_node(body, f"n{number}")
    graph.add_edge("n0.y", "n1.x")
    graph.add_edge("n1.y", "n2.x")
    graph.infer_exposed_ports()
    lora.add(graph, "one", rank=2, nodes=["n0"], target_modules=["first"])
    lora.add(graph, "two", rank=2, nodes=["n0", "n1"], wear=False)
    lora.add(graph, "own", rank=2, nodes=["n2"])
    fill(graph)
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "only", adapter=["one", "two", None])
    pipeline.infer_exposed_ports()
    rows = []
    for x, name in zip(X.split(1), ("one", "two", None), strict=True):
        for body, has in zip(bodies, (("one", "two"), ("two",), ()), strict=True):
            names: Any = "own" if not has else name if name in has else None
            with lora.use_adapter(body, names):
                x = body(x)
        rows.append(x)
    torch.testing.assert_close(pipeline.run({"x": X})["y"], torch.cat(rows))
    assert lora.set_adapter(Graph("empty"), None) == []


def test_a_mapped_node_uses_one_for_each_item() -> None:
    graph = Graph("g")
    graph.add_node(Body(), "body", map="x")
    graph.infer_exposed_ports()
    for name in ("one", "two"):
        lora.add(graph, name, rank=2)
    fill(graph)
    graph.set_adapter("body", ["one", None, "two"])
    weights = leaves(graph.nodes["body"])
    ys = graph.run({"x": [X, X, X]})["y"]
    for y, names in zip(ys, ({"one": 1.0}, {}, {"two": 1.0}), strict=True):
        torch.testing.assert_close(y, by_hand(X, weights, names))
    with pytest.raises(StructureError, match="item 3 of a mapped list, and adapters for 3 samples"):
        graph.run({"x": [X] * 4})
    for adapter in ("two", {"one": 0.5, "two": 2.0}):
        graph.set_adapter("body", adapter)
        active = {adapter: 1.0} if isinstance(adapter, str) else adapter
        for y in graph.run({"x": [X, X]})["y"]:
            torch.testing.assert_close(y, by_hand(X, weights, active))


def test_a_block_called_outside_of_places_uses_what_it_is_told() -> None:
    graph = adapted()
    graph.set_adapter("n1", "one")
    body = graph.nodes["n1"]
    weights = leaves(body)
    torch.testing.assert_close(body(X), by_hand(X, weights, {}))
    with lora.use_adapter(body, "two"):
        torch.testing.assert_close(body(X), by_hand(X, weights, {"two": 1.0}, 1.5))
        with lora.use_adapter(body, None):
            torch.testing.assert_close(body(X), by_hand(X, weights, {}))
            y = graph(x=X)["y"]
        torch.testing.assert_close(body(X), by_hand(X, weights, {"two": 1.0}, 1.5))
    assert current.active is None and current.outer == ()
    torch.testing.assert_close(y, wanted(graph, {}, {})[0])
    with pytest.raises(StructureError, match="no adapter 'tow' on Body .*did you mean 'two'"), lora.use_adapter(body, "tow"):
        pass
    with pytest.raises(ZeroDivisionError), lora.use_adapter(body, "two"):
        1 / 0  # noqa: B018
    assert current.active is None


def test_an_error_inside_a_place_leaves_nothing_active() -> None:
    graph = adapted()
    graph.set_adapter("n1", "one")
    with pytest.raises(RuntimeError):
        graph(x=torch.randn(3, 5))
    assert current.active is None and current.outer == () and current.gates == ()


# --- what places say --------------------------------------------------------------------------------------------------


def test_an_adapter_that_is_not_there_is_an_error_with_the_nearest_names() -> None:
    graph = adapted(None, "winter", "summer")
    with pytest.raises(StructureError, match=r"twice/n1: no adapter 'wintre' on Body 'test_lora/body'; did you mean 'winter'"):
        graph.set_adapter("n1", "wintre")
    with pytest.raises(StructureError, match=r"n1: no adapter 'spring'"):
        graph.set_adapter("n1", {"winter": 1, "spring": 1})
    with pytest.raises(StructureError, match=r"twice/n0: no adapter 'winter': Affine .* has no adapters; leave adapter out"):
        graph.configure_node("n0", adapter="winter")
    with pytest.raises(UnknownNameError, match="did you mean 'n1'"):
        graph.set_adapter("n11", "winter")
    for wrong in ({"winter": float("nan")}, {"winter": "1"}, 3, []):
        with pytest.raises(StructureError, match="adapter"):
            graph.set_adapter("n1", wrong)
    assert graph.node_specs["n1"].adapter is None
    graph.add_node(graph.nodes["n1"], "third", adapter="summer")
    assert graph.node_specs["third"].adapter == "summer"


@pytest.mark.parametrize("adapter", ["one", {"one": 0.5, "two": 2.0}, ("one", None, "two")])
def test_configs_say_what_is_selected_and_the_run_looks_for_it(adapter: Any) -> None:
    graph = adapted()
    graph.set_adapter("n1", adapter)
    again = Graph.from_config(graph.to_config())
    assert again.node_specs["n1"].adapter == adapter and again.to_config() == graph.to_config()
    findings = again.validate(strict=False).errors
    assert any("no adapter 'one'" in str(finding) for finding in findings)
    with pytest.raises(StructureError, match="n1: no adapter 'one'"):
        again(x=X)
    for name in ("one", "two"):
        lora.add(again, name, rank=2, alpha=3, nodes=["n1"], wear=False)
    again.load_state_dict(graph.state_dict(), strict=True)
    assert again.validate().is_valid
    torch.testing.assert_close(again(x=X), graph(x=X), rtol=0, atol=0)


def test_a_copy_selects_for_itself() -> None:
    graph = adapted()
    graph.set_adapter("n1", "one")
    clone = copy.deepcopy(graph)
    torch.testing.assert_close(clone(x=X), graph(x=X), rtol=0, atol=0)
    lora.remove(clone, "one")
    assert graph.node_specs["n1"].adapter == "one" and lora.adapters(clone) == {"two": ["n1", "n3"]}
    torch.testing.assert_close(graph(x=X)["y"], wanted(graph, {"one": 1.0}, {})[0])
    own = graph.clone_node("n3")
    graph.set_adapter("n3", "two")
    assert own is not graph.nodes["n1"]
    torch.testing.assert_close(graph(x=X)["y"], wanted(graph, {"one": 1.0}, {"two": 1.0})[0])


def test_a_plan_made_before_there_were_adapters_uses_none() -> None:
    body = Body()
    left, right = twice(body), chain(body, name="right")
    before = left(x=X)["y"]
    lora.add(right, "one", rank=2)
    fill(right)
    torch.testing.assert_close(left(x=X)["y"], before, rtol=0, atol=0)
    left.set_adapter("n3", "one")
    assert not torch.equal(left(x=X)["y"], before)


def test_waiting_nodes_and_threads_take_along_what_is_active() -> None:
    from tests.blocks_for_tests import Pause

    body = Body()
    inner = Graph("inner")
    inner.add_node(Pause(0.01), "wait")
    inner.add_node(body, "body", timeout=20)
    inner.add_edge("wait.y", "body.x")
    inner.infer_exposed_ports()
    lora.add(inner, "one", rank=2, wear=False)
    fill(inner)
    pipeline = Pipeline("p")
    pipeline.add_graph(inner, "only", adapter="one")
    pipeline.infer_exposed_ports()
    torch.testing.assert_close(pipeline.run({"x": X})["y"], by_hand(X, leaves(body), {"one": 1.0}).detach())


def test_affine_blocks_stay_on_the_fast_path() -> None:
    graph = adapted()
    graph.set_adapter("n1", "one")
    plain = {step.node: not step.needs for step in graph.plan().steps}  # type: ignore[union-attr]
    assert plain == {"n0": True, "n1": False, "n2": True, "n3": False}
    lora.remove(graph, "one")
    lora.remove(graph, "two")
    assert not any(step.needs for step in graph.plan().steps)
    assert Affine is type(graph.nodes["n0"])
