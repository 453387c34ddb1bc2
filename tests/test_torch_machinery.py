"""PyTorch's own machinery, untouched, on every level: the same tests on a Graph, a Pipeline, a Stage and a World.

Every level here holds the same three weights: one block at two places, and another behind a rectifier,

    x -> first -> relu -> first -> last -> y
"""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.func import functional_call, grad, stack_module_state, vmap

from tests.blocks_for_tests import Add, Affine, Dropout, Relu, Scale, Split, as_pipeline, chain, counter
from wgtorch.core.level import Level
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.world import World
from wgtorch.world_runtime.state import State

WIDTH = 4
SLOTS = ("recipe", "artifacts", "outcome")


@dataclass
class Case:
    """One level, and how it is called as PyTorch calls modules."""

    module: Level
    feed: Callable[[Tensor], dict[str, Any]]
    read: Callable[[Any], Tensor]
    paths: tuple[str, str, str]
    """Where the first block stands, twice, and where the last one does."""
    child: str
    """The child of the level itself that holds the last block."""

    def __call__(self, x: Tensor, module: nn.Module | None = None) -> Tensor:
        return self.read((self.module if module is None else module)(**self.feed(x)))

    @property
    def first(self) -> Affine:
        return self.module.find(self.paths[0])  # type: ignore[return-value]

    @property
    def last(self) -> Affine:
        return self.module.find(self.paths[2])  # type: ignore[return-value]

    def loss(self, x: Tensor) -> Tensor:
        return self(x).square().mean()


def make_graph() -> Case:
    first, last = Affine(WIDTH, seed=1), Affine(WIDTH, seed=2)
    graph = chain(first, Relu(), first, last, name="graph")
    return Case(graph, lambda x: {"x": x}, lambda out: out["y"], ("n0", "n2", "n3"), "n3")


def two_graphs() -> tuple[Graph, Graph]:
    first, last = Affine(WIDTH, seed=1), Affine(WIDTH, seed=2)
    return chain(first, Relu(), name="one"), chain(first, last, name="two")


def make_pipeline() -> Case:
    one, two = two_graphs()
    pipeline = Pipeline("pipeline")
    pipeline.add_graph(one, "one")
    pipeline.add_graph(two, "two")
    pipeline.add_edge("one.y", "two.x")
    pipeline.infer_exposed_ports()
    return Case(pipeline, lambda x: {"x": x}, lambda out: out["y"], ("one/n0", "two/n0", "two/n1"), "two")


def make_stage() -> Case:
    one, two = two_graphs()
    stage = Stage("stage")
    stage.add_pipeline(as_pipeline(one), "one")
    stage.add_pipeline(as_pipeline(two), "two")
    stage.add_edge("one.y", "two.x")
    stage.set_state_contract(["recipe"], ["artifacts"], {"one.x": "recipe"}, {"artifacts": "two.y"})
    paths = ("one/only/n0", "two/only/n0", "two/only/n1")
    return Case(stage, lambda x: {"state": State(recipe=x)}, lambda state: state.artifacts, paths, "two")


def make_world() -> Case:
    world = World("world")
    world.set_state_schema(SLOTS)
    for graph, read, write in zip(two_graphs(), SLOTS, SLOTS[1:], strict=False):
        stage = Stage(graph.block_id)
        stage.add_pipeline(as_pipeline(graph), "work")
        stage.set_state_contract([read], [write], {"work.x": read}, {write: "work.y"})
        world.add_stage(stage, graph.block_id)
    world.set_cycle(["one", "two"])
    paths = ("one/work/only/n0", "two/work/only/n0", "two/work/only/n1")
    return Case(world, lambda x: {"state": State(schema=SLOTS, recipe=x)}, lambda state: state.outcome, paths, "two")


CASES: dict[str, Callable[[], Case]] = {"graph": make_graph, "pipeline": make_pipeline, "stage": make_stage, "world": make_world}


@pytest.fixture(params=CASES)
def level(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(5))


def by_hand(case: Case, x: Tensor) -> Tensor:
    """The same computation without the engine."""
    return case.last.linear(case.first.linear(case.first.linear(x).relu()))


# --- calling ----------------------------------------------------------------------------------------------------------


def test_the_call_is_the_computation(level: Case, x: Tensor) -> None:
    assert torch.equal(level(x), by_hand(level, x))
    assert level.first is level.module.find(level.paths[1])


def test_a_call_keeps_the_callers_grad_mode(level: Case, x: Tensor) -> None:
    assert level(x).requires_grad
    with torch.no_grad():
        assert not level(x).requires_grad
    with torch.inference_mode():
        assert level(x).is_inference()


# --- parameters -------------------------------------------------------------------------------------------------------


def test_parameters_come_once_however_often_a_block_is_used(level: Case) -> None:
    names = dict(level.module.named_parameters())
    assert len(names) == 4
    assert {id(parameter) for parameter in names.values()} == {id(p) for block in (level.first, level.last) for p in block.parameters()}
    assert len(list(level.module.parameters())) == 4
    assert len(list(level.module.trainable_parameters())) == 4
    everywhere = dict(level.module.named_parameters(remove_duplicate=False))
    assert len(everywhere) == 6


def test_parameter_names_are_paths(level: Case) -> None:
    names = list(level.module.state_dict())
    for path in level.paths:
        expected = "nodes." + ".nodes.".join(path.split("/")) + ".linear.weight"
        assert expected in names
    assert level.module.get_parameter(names[0]) is level.first.linear.weight


def test_an_optimizer_takes_each_weight_once(level: Case, x: Tensor) -> None:
    optimizer = torch.optim.SGD(level.module.parameters(), lr=0.1)
    assert len(optimizer.param_groups[0]["params"]) == 4
    before = level.loss(x)
    before.backward()
    optimizer.step()
    assert level.loss(x) < before


def test_to_dtype(level: Case, x: Tensor) -> None:
    expected = by_hand(level, x).double()
    assert level.module.to(torch.float64) is level.module
    assert all(parameter.dtype == torch.float64 for parameter in level.module.parameters())
    out = level(x.double())
    assert out.dtype == torch.float64
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    assert level.first is level.module.find(level.paths[1])


def test_to_meta(level: Case, x: Tensor) -> None:
    level.module.to("meta")
    assert level(x.to("meta")).shape == (3, WIDTH)


def test_requires_grad(level: Case, x: Tensor) -> None:
    assert level.module.requires_grad_(False) is level.module
    assert not level(x).requires_grad
    assert list(level.module.trainable_parameters()) == []
    level.module.requires_grad_(True)
    level.loss(x).backward()
    assert all(parameter.grad is not None for parameter in level.module.parameters())
    level.module.zero_grad()
    assert all(parameter.grad is None for parameter in level.module.parameters())


def test_train_and_eval_reach_every_block(level: Case) -> None:
    assert level.module.eval() is level.module
    assert not any(module.training for module in level.module.modules())
    level.module.train()
    assert all(module.training for module in level.module.modules())


# --- state dicts ------------------------------------------------------------------------------------------------------


def test_a_state_dict_loads_strictly_into_its_equal(level: Case, x: Tensor, request: pytest.FixtureRequest) -> None:
    with torch.no_grad():
        for parameter in level.module.parameters():
            parameter.add_(torch.randn(parameter.shape))
    other = CASES[request.node.callspec.params["level"]]()
    assert not torch.equal(other(x), level(x))
    result = other.module.load_state_dict(level.module.state_dict(), strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert torch.equal(other(x), level(x))
    assert other.first is other.module.find(other.paths[1])


def test_a_state_dict_holds_weights_and_nothing_else(level: Case) -> None:
    state = level.module.state_dict()
    assert len(state) == 6
    assert all(isinstance(value, Tensor) for value in state.values())
    names = list(state)
    shared = [name for name in names if state[name].data_ptr() == level.first.linear.weight.data_ptr()]
    assert len(shared) == 2


def test_strict_loading_refuses_what_does_not_fit(level: Case) -> None:
    state = level.module.state_dict()
    removed = state.popitem()[0]
    with pytest.raises(RuntimeError, match=f"Missing key.*{removed}"):
        level.module.load_state_dict(state, strict=True)


# --- gradients --------------------------------------------------------------------------------------------------------


def test_autograd_through_a_chain_whose_input_is_a_leaf(level: Case, x: Tensor) -> None:
    leaf, twin = x.clone().requires_grad_(), x.clone().requires_grad_()
    level(leaf).square().sum().backward()
    found = [parameter.grad.clone() for parameter in level.module.parameters()]  # type: ignore[union-attr]
    level.module.zero_grad()
    by_hand(level, twin).square().sum().backward()
    assert torch.equal(leaf.grad, twin.grad)  # type: ignore[arg-type]
    for mine, parameter in zip(found, level.module.parameters(), strict=True):
        assert torch.equal(mine, parameter.grad)  # type: ignore[arg-type]


def test_second_derivatives(level: Case, x: Tensor) -> None:
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(level(leaf).square().sum(), leaf, create_graph=True)
    slope.square().sum().backward()
    assert leaf.grad is not None
    assert level.first.linear.weight.grad is not None


def test_a_frozen_place_passes_gradients_and_takes_none(level: Case, x: Tensor) -> None:
    level.module.set_trainable(level.child, False)
    leaf = x.clone().requires_grad_()
    level(leaf).sum().backward()
    assert level.last.linear.weight.grad is None
    assert level.first.linear.weight.grad is not None, "the first block also stands where it trains"
    assert leaf.grad is not None
    assert level.last.linear.weight.requires_grad
    assert torch.equal(level(x), by_hand(level, x))


def test_a_frozen_place_of_a_level_that_holds_a_block_twice(x: Tensor) -> None:
    """The weights are the level's own again after the call, as Parameters."""
    case = make_graph()
    before = dict(case.module.named_parameters())
    pipeline = Pipeline("p")
    pipeline.add_graph(case.module, "frozen", trainable=False)
    pipeline.infer_exposed_ports()
    leaf = x.clone().requires_grad_()
    for _ in range(2):
        out = pipeline(x=leaf)["y"]
        assert torch.equal(out, by_hand(case, x))
    out.sum().backward()
    assert leaf.grad is not None
    after = dict(case.module.named_parameters())
    assert list(after) == list(before)
    for name, parameter in after.items():
        assert parameter is before[name], f"{name} was exchanged by the call"
        assert parameter.grad is None


def test_autocast_reaches_the_blocks(level: Case, x: Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert level(x).dtype == torch.bfloat16


# --- hooks ------------------------------------------------------------------------------------------------------------


def test_forward_hooks_on_the_level_and_on_a_block(level: Case, x: Tensor) -> None:
    calls: list[str] = []
    level.module.register_forward_pre_hook(lambda module, args, kwargs: calls.append("before"), with_kwargs=True)
    level.first.register_forward_hook(lambda module, args, out: calls.append("block"))
    level.module.register_forward_hook(lambda module, args, out: calls.append("after"))
    level(x)
    assert calls == ["before", "block", "block", "after"]


def test_hooks_are_told_the_same_however_the_level_is_called(level: Case, x: Tensor) -> None:
    """Leading inputs come by position, as in PyTorch's own modules, also when a run is watched."""
    seen: list[tuple[int, list[str]]] = []
    level.last.register_forward_hook(lambda module, args, kwargs, out: seen.append((len(args), list(kwargs))), with_kwargs=True)
    level(x)
    feed = level.feed(x)
    level.module.run(feed.get("state", feed), callbacks=[lambda event: None])
    assert seen == [(1, []), (1, [])]


def test_a_forward_hook_may_change_what_a_block_gives(level: Case, x: Tensor) -> None:
    level.last.register_forward_hook(lambda module, args, out: out * 0 + 7)
    assert torch.equal(level(x), torch.full((3, WIDTH), 7.0))


def test_backward_hooks(level: Case, x: Tensor) -> None:
    seen: list[torch.Size] = []
    level.last.register_full_backward_hook(lambda module, grad_in, grad_out: seen.append(grad_out[0].shape))
    level.loss(x.requires_grad_()).backward()
    assert seen == [torch.Size((3, WIDTH))]


def test_run_calls_the_hooks_too(level: Case, x: Tensor) -> None:
    calls: list[str] = []
    level.first.register_forward_hook(lambda module, args, out: calls.append("block"))
    feed = level.feed(x)
    level.module.run(feed.get("state", feed))
    assert calls == ["block", "block"]


# --- copies -----------------------------------------------------------------------------------------------------------


def test_a_deep_copy_keeps_sharing_and_is_apart(level: Case, x: Tensor) -> None:
    level(x)
    twin = copy.deepcopy(level.module)
    assert type(twin) is type(level.module)
    assert twin.find(level.paths[0]) is twin.find(level.paths[1])
    assert twin.find(level.paths[0]) is not level.first
    before = level(x)
    assert torch.equal(level(x, twin), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(level(x), before)
    assert torch.equal(level(x, twin), torch.zeros(3, WIDTH))
    assert twin.to_config() == level.module.to_config()


def test_changing_the_structure_of_a_copy_leaves_the_original(level: Case, x: Tensor) -> None:
    twin = copy.deepcopy(level.module)
    twin.remove_node(level.child)
    assert torch.equal(level(x), by_hand(level, x))
    assert level.child in level.module.nodes


def test_pickle_keeps_sharing(level: Case, x: Tensor) -> None:
    """Processes that are spawned are handed their modules this way."""
    twin = pickle.loads(pickle.dumps(level.module))
    assert twin.find(level.paths[0]) is twin.find(level.paths[1])
    assert torch.equal(level(x, twin), level(x))


def test_saving_pickles_nothing(level: Case, x: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was pickled")

    for name in ("dump", "dumps", "Pickler", "load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    level.module.save(tmp_path / "saved")
    twin = type(level.module).load(tmp_path / "saved")
    monkeypatch.undo()
    assert torch.equal(level(x, twin), level(x))
    assert twin.find(level.paths[0]) is twin.find(level.paths[1])
    files = [path for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    assert sum(path.suffix == ".safetensors" for path in files) == 2
    for path in files:
        start = path.read_bytes()[:2]
        assert start != b"PK", f"{path.name} is a zip, as torch.save writes"
        assert start[:1] != b"\x80", f"{path.name} is a pickle"


# --- torch.func -------------------------------------------------------------------------------------------------------


def functional(level: Case, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """A module at two paths is one module: PyTorch must not tie its weights once more (it would not put them back)."""
    return level.read(functional_call(level.module, weights, (), level.feed(x), tie_weights=False))


def test_functional_call(level: Case, x: Tensor) -> None:
    expected = level(x)
    weights = {name: parameter.detach() * 0 for name, parameter in level.module.named_parameters()}
    assert torch.equal(functional(level, weights, x), torch.zeros(3, WIDTH))
    assert torch.equal(level(x), expected)


def test_functional_gradients(level: Case, x: Tensor) -> None:
    weights = {name: parameter.detach() for name, parameter in level.module.named_parameters()}
    found = grad(lambda given: functional(level, given, x).square().mean())(weights)
    level.loss(x).backward()
    for name, parameter in level.module.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_vmap_over_an_ensemble(x: Tensor) -> None:
    models = [chain(Affine(WIDTH, seed=seed), Relu(), Affine(WIDTH, seed=seed + 10)) for seed in range(3)]
    params, buffers = stack_module_state(models)  # type: ignore[arg-type]
    skeleton = copy.deepcopy(models[0]).to("meta")
    found = vmap(lambda p, b: functional_call(skeleton, (p, b), (), {"x": x})["y"])(params, buffers)
    torch.testing.assert_close(found, torch.stack([model(x=x)["y"] for model in models]))


# --- torch.compile and torch.export -----------------------------------------------------------------------------------


@pytest.fixture
def compiler() -> Any:
    torch._dynamo.reset()
    yield CompileCounter()
    torch._dynamo.reset()


def test_compile_of_the_whole_without_a_break(level: Case, x: Tensor, compiler: CompileCounter) -> None:
    expected = level(x)
    compiled = torch.compile(level.module, fullgraph=True, backend=compiler)
    assert torch.equal(level(x, compiled), expected)
    assert torch.equal(level(2 * x, compiled), level(2 * x))
    assert compiler.frame_count == 1, "compiled again, or in pieces"


def test_gradients_through_the_compiled(level: Case, x: Tensor, compiler: CompileCounter) -> None:
    compiled = torch.compile(level.module, fullgraph=True, backend="aot_eager")
    level.read(compiled(**level.feed(x))).square().mean().backward()
    found = [parameter.grad.clone() for parameter in level.module.parameters()]  # type: ignore[union-attr]
    level.module.zero_grad()
    level.loss(x).backward()
    for mine, parameter in zip(found, level.module.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad)


def every_sort_of_node() -> Graph:
    """Several outputs, a join, an optional input, a frozen place, a held value."""
    graph = Graph("g")
    graph.add_node(Affine(WIDTH, seed=1), "a")
    graph.add_node(Split(), "split")
    graph.add_node(Affine(WIDTH, seed=2), "frozen", trainable=False)
    graph.add_node(Add(), "add")
    graph.add_node(Scale(0.5), "scale", inputs={"bias": torch.ones(WIDTH)})
    for ends in ("a.y split.x", "split.double frozen.x", "frozen.y add.a", "split.square add.b", "add.y scale.x"):
        graph.add_edge(*ends.split())
    graph.infer_exposed_ports()
    return graph


def test_compile_of_every_sort_of_node(x: Tensor, compiler: CompileCounter) -> None:
    graph = every_sort_of_node()
    expected = graph(x=x)["y"]
    assert torch.equal(torch.compile(graph, fullgraph=True, backend=compiler)(x=x)["y"], expected)
    assert compiler.frame_count == 1


def test_compile_of_a_frozen_level_that_holds_a_block_twice(x: Tensor, compiler: CompileCounter) -> None:
    case = make_graph()
    before = dict(case.module.named_parameters())
    pipeline = Pipeline("p")
    pipeline.add_graph(case.module, "frozen", trainable=False)
    pipeline.infer_exposed_ports()
    compiled = torch.compile(pipeline, fullgraph=True, backend=compiler)
    for _ in range(2):
        assert torch.equal(compiled(x=x)["y"], by_hand(case, x))
    after = dict(case.module.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


def test_compile_of_a_loop(x: Tensor, compiler: CompileCounter) -> None:
    graph = counter(4)
    compiled = torch.compile(graph, fullgraph=True, backend=compiler)
    assert torch.equal(compiled(x=x)["y"], 16 * x)
    assert torch.equal(compiled(x=-x)["y"], -16 * x)
    assert compiler.frame_count == 1


def test_a_block_that_is_compiled_stands_in_a_graph(x: Tensor, compiler: CompileCounter) -> None:
    graph = chain(Affine(WIDTH, seed=1), Affine(WIDTH, seed=2))
    expected = graph(x=x)["y"]
    graph.nodes["n0"].compile(backend=compiler, fullgraph=True)
    assert torch.equal(graph.run({"x": x})["y"], expected.detach())
    assert compiler.frame_count == 1


def test_a_compiled_graph_follows_a_change_of_structure(x: Tensor, compiler: CompileCounter) -> None:
    graph = chain(Scale(2.0), Scale(5.0))
    compiled = torch.compile(graph, fullgraph=True, backend=compiler)
    assert torch.equal(compiled(x=x)["y"], 2.0 * x * 5.0)
    graph.replace_node("n1", Scale(7.0))
    assert torch.equal(compiled(x=x)["y"], 2.0 * x * 7.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own import
@pytest.mark.parametrize("name", CASES)
def test_compile_with_inductor(name: str, x: Tensor) -> None:
    torch._dynamo.reset()
    case = CASES[name]()
    compiled = torch.compile(case.module, fullgraph=True)
    torch.testing.assert_close(case(x, compiled), case(x))
    case.loss(x).backward()
    torch._dynamo.reset()


@pytest.mark.parametrize("make", [make_graph, make_pipeline, lambda: every_sort_of_node()], ids=["graph", "pipeline", "every sort of node"])
def test_export_of_a_dag(make: Callable[[], Any], x: Tensor) -> None:
    made = make()
    module = made if isinstance(made, Graph) else made.module
    exported = torch.export.export(module, args=(), kwargs={"x": x})
    program = exported.module()
    for value in (x, 2 * x):
        torch.testing.assert_close(program(x=value)["y"], module(x=value)["y"])
    weights = {id(parameter) for parameter in module.parameters()}
    assert len(exported.parameters() if isinstance(exported.parameters, dict) else list(exported.parameters())) >= len(weights)


def test_export_with_a_batch_of_any_size(x: Tensor) -> None:
    graph = make_graph().module
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(graph, args=(x,), dynamic_shapes={"x": {0: batch}}).module()
    wide = torch.randn(17, WIDTH)
    torch.testing.assert_close(program(wide)["y"], graph(x=wide)["y"])


# --- distributed ------------------------------------------------------------------------------------------------------


def batches() -> list[Tensor]:
    return [torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(rank)) for rank in range(2)]


def train_on_one_rank(rank: int, folder: str) -> None:
    """What each process does: the gradients of every level, by name, into a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for name, make in CASES.items():
        case = make()
        wrapped = nn.parallel.DistributedDataParallel(case.module)
        case(batches()[rank], wrapped).square().mean().backward()
        found[name] = {path: parameter.grad for path, parameter in case.module.named_parameters()}
    torch.save(found, f"{folder}/rank{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads and the end of a DistributedDataParallel can wait for each other without end


@pytest.mark.xdist_group("processes")
def test_distributed_data_parallel_averages_the_gradients(tmp_path: Path) -> None:
    mp.spawn(train_on_one_rank, args=(str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    for name, make in CASES.items():
        case = make()
        (sum(case.loss(batch) for batch in batches()) / 2).backward()
        expected = dict(case.module.named_parameters())
        for rank in ranks:
            assert list(rank[name]) == list(expected)
            for path, parameter in expected.items():
                torch.testing.assert_close(
                    rank[name][path], parameter.grad, msg=lambda text, name=name, path=path: f"{name} {path}: {text}"
                )


def test_dropout_and_seeds_work_through_a_call(x: Tensor) -> None:
    graph = chain(Dropout(), Affine(WIDTH))
    torch.manual_seed(3)
    first = graph(x=x)["y"]
    torch.manual_seed(3)
    assert torch.equal(graph(x=x)["y"], first)
