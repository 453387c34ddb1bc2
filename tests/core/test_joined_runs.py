"""``batch``: several items through as few calls as their blocks allow, each as it would be alone."""

from __future__ import annotations

from collections import ChainMap, OrderedDict, UserDict
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wgtorch import Block, Graph, Pipeline, Rng, Stage, State
from wgtorch.core.errors import PortError, PortTypeError


class Rows(Block):
    """A model of rows [B, 3] that draws, in both ways, and counts its calls."""

    outputs = {"y": "tensor"}
    rows_are_samples = True

    def __init__(self, limit: float = 1e6) -> None:
        super().__init__()
        self.linear, self.limit, self.sizes = nn.Linear(3, 3), limit, []

    def forward(self, x: Tensor, scale: float = 1.0, rng: Rng | None = None) -> Tensor:
        self.sizes.append(len(x))
        if (x > self.limit).any():
            raise ArithmeticError("too large")
        return self.linear(x) * scale + rng.normal(x.shape) + torch.rand_like(x)


class Lists(Block):
    """Answers a list in one call."""

    outputs = {"text": "text"}
    batched = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def forward(self, prompt: str | list[str], times: int = 1, rng: Rng | None = None) -> Any:
        self.asked.append(prompt)
        if isinstance(prompt, str):
            return f"{prompt * times} {rng.seed()}"
        return [f"{one * times} {rng.seed(index)}" for index, one in enumerate(prompt)]


class Alone(Block):
    """Says nothing of several samples."""

    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x - x.mean()


class CountDown(Block):
    """Ends a loop after as many iterations as it is told."""

    outputs = {"left": "number", "done": "any"}

    def forward(self, left: int) -> dict[str, Any]:
        return {"left": left - 1, "done": left <= 1}


def graph_of(*blocks: Block) -> Graph:
    graph = Graph("g")
    for index, block in enumerate(blocks):
        graph.add_node(block, f"n{index}", auto_connect=False)
        if index:
            graph.add_edge(f"n{index - 1}.y", f"n{index}.x")
    for name in blocks[0].get_input_spec():
        graph.expose_input("n0", name)
    graph.infer_exposed_ports()
    return graph


def assert_as_alone(level: Any, items: Sequence[Any], results: Sequence[Any], seeds: Sequence[Any], **options: Any) -> None:
    for item, result, seed in zip(items, results, seeds, strict=True):
        alone = level.run(item, seed=seed, **options)
        assert result.keys() == alone.keys()
        for name, value in alone.items():
            if isinstance(value, str):
                assert result[name] == value
            else:
                torch.testing.assert_close(result[name], value)


def test_items_share_calls_and_are_as_they_would_be_alone() -> None:
    first, between, last = Rows(), Alone(), Rows()
    graph = graph_of(first, between, last)
    items = [{"x": torch.randn(2, 3)} for _ in range(4)]
    results = graph.batch(items, seed=[5, 6, 7, 8])
    assert first.sizes == last.sizes == [8]
    assert between.calls == 4
    assert_as_alone(graph, items, results, [5, 6, 7, 8])


def test_one_seed_is_every_items_seed_and_lists_are_seeds_of_rows() -> None:
    graph = graph_of(Rows())
    items = [{"x": torch.randn(2, 3)} for _ in range(3)]
    assert_as_alone(graph, items, graph.batch(items, seed=7), [7, 7, 7])
    seeds = [[1, 2], [3, 4], [5, 6]]
    assert_as_alone(graph, items, graph.batch(items, seed=seeds), seeds)


def test_items_of_other_shapes_or_other_numbers_are_called_apart() -> None:
    block = Rows()
    graph = graph_of(block)
    items: list[dict[str, Any]] = [{"x": torch.randn(2, 3)}, {"x": torch.randn(1, 3)}, {"x": torch.randn(2, 3)}]
    results = graph.batch(items, seed=[1, 2, 3])
    assert sorted(block.sizes) == [1, 4]
    assert_as_alone(graph, items, results, [1, 2, 3])
    block.sizes.clear()
    items = [{"x": torch.randn(2, 3), "scale": scale} for scale in (1.0, 2.0, 1.0)]
    assert_as_alone(graph, items, graph.batch(items, seed=[1, 2, 3]), [1, 2, 3])
    assert sorted(block.sizes[:2]) == [2, 4]


def test_a_failed_item_does_not_lose_the_others() -> None:
    graph = graph_of(Rows(), Alone())
    items = [{"x": torch.zeros(1, 3)}, {"x": torch.full((1, 3), 1e9)}, {"x": torch.ones(1, 3)}, {}]
    results = graph.batch(items, seed=[1, 2, 3, 4])
    assert isinstance(results[1], ArithmeticError)
    assert "raised in node n0 of g" in results[1].__notes__
    assert isinstance(results[3], PortError)
    for k in (0, 2):
        torch.testing.assert_close(results[k], graph.run(items[k], seed=[1, 2, 3][k]))


def test_blocks_that_take_lists_are_asked_once() -> None:
    block = Lists()
    graph = graph_of(block)
    items: list[dict[str, Any]] = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c", "times": 2}]
    results = graph.batch(items, seed=[1, 2, 3])
    assert sorted(map(str, block.asked)) == ["['a', 'b']", "c"]
    assert_as_alone(graph, items, results, [1, 2, 3])


def test_loops_of_other_lengths_join_while_both_go_on() -> None:
    rows = Rows()
    graph = Graph("g")
    graph.add_node(rows, "rows", auto_connect=False)
    graph.add_node(CountDown(), "count", auto_connect=False)
    for source, target in (("rows.y", "rows.x"), ("count.left", "count.left"), ("count.left", "rows.scale")):
        graph.add_edge(source, target)
    graph.expose_input("rows", "x")
    graph.expose_input("count", "left")
    graph.expose_output("rows", "y")
    graph.run({"x": torch.zeros(1, 3), "left": 2}, seed=1, num_loop_steps=1)

    rows.sizes.clear()
    items = [{"x": torch.zeros(1, 3), "left": 3}, {"x": torch.ones(1, 3), "left": 3}]
    results = graph.batch(items, seed=[1, 2], num_loop_steps=3)
    assert rows.sizes == [2, 2, 2]
    assert_as_alone(graph, items, results, [1, 2], num_loop_steps=3)


def test_pipelines_stages_and_mapped_nodes_join_below() -> None:
    rows = Rows()
    inner = graph_of(rows)
    pipeline = Pipeline("p")
    pipeline.add_graph(inner, "g", map=["x"])
    pipeline.infer_exposed_ports()
    items = [{"x": [torch.randn(1, 3), torch.randn(1, 3)]} for _ in range(3)]
    results = pipeline.batch(items, seed=[1, 2, 3])
    assert rows.sizes == [3, 3]
    assert_as_alone(pipeline, items, results, [1, 2, 3])

    plain = Pipeline("plain")
    plain.add_graph(inner, "g")
    plain.infer_exposed_ports()
    stage = Stage("s", role="s")
    stage.add_pipeline(plain, "p")
    stage.set_state_contract(["intent"], ["recipe"], {"p.x": "intent"}, {"recipe": "p.y"})
    rows.sizes.clear()
    states = [State(intent=torch.randn(1, 3)) for _ in range(2)]
    found = stage.batch(states, seed=[1, 2])
    assert rows.sizes == [2]
    for state, result, seed in zip(states, found, [1, 2], strict=True):
        torch.testing.assert_close(result.recipe, stage.run(state, seed=seed).recipe)


def test_a_template_paints_several_prompts_with_one_call_an_iteration() -> None:
    graph = Graph.from_template("text_to_image", steps=2)
    calls: list[int] = []
    backbone = next(child for child in graph.nodes.values() if child.role == "backbone")
    backbone.register_forward_pre_hook(lambda module, args, kwargs: calls.append(1), with_kwargs=True)
    name = next(iter(name for name, port in graph.get_input_spec().items() if port.dtype == "text" and not port.optional))
    items = [{name: "a castle at night"}, {name: "a grey sea"}]
    graph.run(items[0], seed=1)
    alone = len(calls)
    calls.clear()
    results = graph.batch(items, seed=[1, 2])
    assert len(calls) == alone
    for item, result, seed in zip(items, results, [1, 2], strict=True):
        torch.testing.assert_close(result["image"], graph.run(item, seed=seed)["image"], rtol=1e-4, atol=1e-4)


def test_generators_that_callers_own_stay_each_items_own() -> None:
    graph = Graph("g", metadata={"takes_generator": True})
    graph.add_node(Rows(), "rows", auto_connect=False)
    graph.expose_input("rows", "x")
    graph.expose_output("rows", "y")

    class Drawn(Rows):
        def forward(self, x: Tensor, scale: float = 1.0, rng: Rng | None = None) -> Tensor:
            return x + rng.normal(x.shape)

    graph.replace_node("rows", Drawn())
    items = [{"x": torch.zeros(2, 3), "generator": torch.Generator().manual_seed(k)} for k in range(3)]
    found = graph.batch(items)
    for k, each in enumerate(found):
        assert torch.equal(each["y"], torch.randn(2, 3, generator=torch.Generator().manual_seed(k)))
    with pytest.raises(PortError, match="a generator of yours cannot stop and go on; give it seed= instead"):
        graph.run_until(items[0], before="rows")


def test_events_say_which_item_they_are_of() -> None:
    told: list[Any] = []
    graph_of(Rows(), Alone()).batch([{"x": torch.zeros(1, 3)}, {"x": torch.ones(1, 3)}], callbacks=told.append)
    for item in (0, 1):
        assert [(e.kind, e.path) for e in told if e.item == item] == [(k, n) for n in ("n0", "n1") for k in ("start", "end")]


def test_more_items_than_go_on_at_once() -> None:
    block = Rows()
    items = [{"x": torch.randn(1, 3)} for _ in range(5)]
    graph = graph_of(block)
    results = graph.batch(items, seed=list(range(5)), batch_size=2)
    assert block.sizes == [2, 2, 1]
    assert_as_alone(graph, items, results, range(5))
    assert graph.batch([]) == []


def test_what_is_no_batch_is_refused() -> None:
    graph = graph_of(Rows())
    with pytest.raises(PortError, match="2 seeds for a batch of 1"):
        graph.batch([{"x": torch.zeros(1, 3)}], seed=[1, 2])
    with pytest.raises(PortTypeError, match="expected a list with the inputs of each item"):
        graph.batch({"x": torch.zeros(1, 3)})
    with pytest.raises(PortTypeError, match="batch_size is 0"):
        graph.batch([], batch_size=0)


class Mapped(dict):  # type: ignore[type-arg]
    """A mapping of a class that PyTorch's pytree takes for one value."""


class Told(list):  # type: ignore[type-arg]
    """A list of such a class."""


@pytest.mark.parametrize("made", [dict, Mapped, OrderedDict, UserDict, ChainMap, lambda held: Told(held.values())])
@pytest.mark.parametrize("is_given", [False, True])
def test_rows_in_mappings_of_any_class_are_each_items_own(made: Any, is_given: bool) -> None:
    class Nested(Block):
        outputs = {"y": "any"}
        rows_are_samples = True

        def forward(self, x: Tensor, held: Any = None) -> Any:
            (more,) = (held.values() if isinstance(held, Mapping) else held) if held is not None else (x * 10,)
            return {"y": made({"rows": x + more})}

    graph = graph_of(Nested())
    items: list[Any] = [{"x": torch.full((1, 3), float(index))} for index in range(3)]
    if is_given:
        items = [{**item, "held": made({"rows": item["x"] * 10})} for item in items]
    for index, result in enumerate(graph.batch(items)):
        (rows,) = result["y"].values() if isinstance(result["y"], Mapping) else result["y"]
        assert torch.equal(rows, torch.full((1, 3), 11.0 * index))
