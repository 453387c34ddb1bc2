"""``run(cache=)``: what is unchanged is not computed again, and what changed always is."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._pytree import register_pytree_node

import wgtorch
from wgtorch import Block, Graph, NodeCache, Pipeline, Rng, Stage, State, World, register_block
from wgtorch.core.errors import PortTypeError, StorageError
from wgtorch.core.run.result_cache import _snapshot

FACTOR = 1.0
CALLS: list[str] = []


def helper(x: Tensor) -> Tensor:
    return x * FACTOR


@register_block("test/cache/encode")
class Encode(Block):
    """A model that has everything that a result may depend on."""

    outputs = {"y": "tensor"}
    shift = 0.0

    def __init__(self, width: int = 4, name: str = "n") -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(len(name))
        self.linear, self.norm = nn.Linear(width, width), nn.BatchNorm1d(width)
        with torch.no_grad():
            for parameter in self.linear.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.gain, self.options, self.calls, self.name = 1.0, {"scales": [1.0, 2.0]}, 0, name

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        self.calls += 1
        CALLS.append(self.name)
        y = helper(self.norm(self.linear(x))) * self.gain * sum(self.options["scales"]) + self.shift
        return y if extra is None else y + extra


class Draw(Block):
    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        self.calls += 1
        return x + rng.normal(x.shape)


class Step(Block):
    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        self.calls += 1
        return x * 0.5 + (0 if c is None else c)


def chain(*blocks: Block, name: str = "g") -> Graph:
    graph = Graph(name)
    for index, block in enumerate(blocks):
        graph.add_node(block, f"n{index}", auto_connect=False)
        if index:
            graph.add_edge(f"n{index - 1}.y", f"n{index}.x")
    graph.expose_input("n0", "x")
    graph.expose_output(f"n{len(blocks) - 1}", "y")
    return graph


def two() -> Graph:
    return chain(Encode(name="a"), Encode(name="bb"))


def looped() -> Graph:
    """An encoder, noise, and a loop of three iterations that starts at the noise and reads what was encoded."""
    graph = Graph("looped", metadata={"num_loop_steps": 3})
    for name, block in {"encode": Encode(), "noise": Draw(), "step": Step(), "decode": Encode(name="ddd")}.items():
        graph.add_node(block, name, auto_connect=False)
    for source, target in (("noise.y", "step.x"), ("step.y", "step.x"), ("encode.y", "step.c"), ("step.y", "decode.x")):
        graph.add_edge(source, target)
    graph.expose_input("encode", "x")
    graph.expose_input("noise", "x", "shape")
    graph.expose_output("decode", "y")
    return graph


X = torch.linspace(-1, 1, 8).view(2, 4)


def calls_of(graph: Graph) -> dict[str, int]:
    return {name: block.calls for name, block in graph.nodes.items()}


def counted(graph: Graph, run: Callable[[], Any]) -> dict[str, int]:
    """How often each node is called by it; those that are not called are left out."""
    before = calls_of(graph)
    run()
    return {name: count - before[name] for name, count in calls_of(graph).items() if count != before[name]}


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_the_same_run_computes_nothing_and_gives_the_same() -> None:
    graph, cache = two(), NodeCache()
    want = graph.run({"x": X}, cache=cache)["y"]
    assert counted(graph, lambda: torch.testing.assert_close(graph.run({"x": X.clone()}, cache=cache)["y"], want, rtol=0, atol=0)) == {}
    assert torch.equal(want, graph.run({"x": X})["y"])
    assert cache.stats.hits == 1


def test_what_lies_downstream_of_a_change_is_computed_and_nothing_else() -> None:
    graph, cache = two(), NodeCache()
    graph.run({"x": X}, cache=cache)
    graph.nodes["n1"].gain = 3.0
    assert counted(graph, lambda: graph.run({"x": X}, cache=cache)) == {"n1": 1}
    assert counted(graph, lambda: graph.run({"x": X + 1}, cache=cache)) == {"n0": 1, "n1": 1}


def test_another_seed_runs_no_encoder_and_the_same_seed_nothing() -> None:
    graph, cache = looped(), NodeCache()
    inputs = {"x": X, "shape": torch.zeros(2, 4)}
    assert counted(graph, lambda: graph.run(inputs, seed=1, cache=cache)) == {"encode": 1, "noise": 1, "step": 3, "decode": 1}
    assert counted(graph, lambda: graph.run(inputs, seed=2, cache=cache)) == {"noise": 1, "step": 3, "decode": 1}
    assert counted(graph, lambda: graph.run(inputs, seed=1, cache=cache)) == {}
    for seed in (1, 2):
        assert torch.equal(graph.run(inputs, seed=seed, cache=cache)["y"], graph.run(inputs, seed=seed)["y"])


def test_a_loop_is_kept_as_a_whole() -> None:
    graph, cache = looped(), NodeCache()
    inputs = {"x": X, "shape": torch.zeros(2, 4)}
    graph.run(inputs, seed=1, cache=cache)
    graph.nodes["decode"].gain = 2.0
    assert counted(graph, lambda: graph.run(inputs, seed=1, cache=cache)) == {"decode": 1}
    assert counted(graph, lambda: graph.run(inputs, seed=1, num_loop_steps=2, cache=cache)) == {"step": 2, "decode": 1}
    graph.add_node(Encode(name="eeee"), "other")
    graph.add_edge("encode.y", "other.x")
    graph.expose_output("other", "y", "other")
    assert counted(graph, lambda: graph.run(inputs, seed=1, cache=cache)) == {"other": 1}


def test_calls_over_a_network_inside_a_loop_are_kept_one_by_one() -> None:
    class Ask(Step):
        is_async = True

    graph, cache = looped(), NodeCache()
    graph.replace_node("step", Ask())
    inputs = {"x": X, "shape": torch.zeros(2, 4)}
    graph.run(inputs, seed=1, num_loop_steps=2, cache=cache)
    assert counted(graph, lambda: graph.run(inputs, seed=1, num_loop_steps=5, cache=cache)) == {"step": 3, "decode": 1}


def test_levels_share_a_cache_and_are_kept_as_a_whole() -> None:
    graph, cache = two(), NodeCache()
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "first")
    pipeline.add_graph(graph, "again")
    pipeline.add_edge("first.y", "again.x")
    pipeline.infer_exposed_ports()
    graph.run({"x": X}, cache=cache)
    assert counted(graph, lambda: pipeline.run({"x": X}, cache=cache)) == {"n0": 1, "n1": 1}, "the first was there"
    assert counted(graph, lambda: pipeline.run({"x": X}, cache=cache)) == {}
    stage = Stage("s", role="s")
    stage.add_pipeline(pipeline, "p")
    stage.set_state_contract(["intent"], ["recipe"], {"p.x": "intent"}, {"recipe": "p.y"})
    assert counted(graph, lambda: stage.run(State(intent=X), cache=cache)) == {}
    world = World("w")
    world.add_stage(stage, "s")
    world.set_cycle(["s"])
    assert counted(graph, lambda: world.run(State(intent=X), cache=cache)) == {}
    assert torch.equal(world.state.recipe, pipeline.run({"x": X})["y"])


def test_a_condition_is_asked_each_time() -> None:
    graph, cache = two(), NodeCache()
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "g")
    pipeline.infer_exposed_ports()
    stage = Stage("s", role="s")
    stage.add_pipeline(pipeline, "p")
    stage.set_state_contract([], ["recipe"], {"p.x": "intent"}, {"recipe": "p.y"})
    stage.set_execution_condition(["outcome"], "p")
    assert stage.run(State(intent=X, outcome="x"), cache=cache).recipe is not None
    assert stage.run(State(intent=X), cache=cache).recipe is None


def test_parts_given_and_wanted_values_are_right() -> None:
    graph, cache = two(), NodeCache()
    graph.run({"x": X}, cache=cache)
    assert torch.equal(graph.run({"x": X}, outputs=["n0.y"], cache=cache)["n0.y"], graph.run({"x": X}, outputs=["n0.y"])["n0.y"])
    fed = {"n0.y": torch.ones(2, 4)}
    assert torch.equal(graph.run(fed, cache=cache)["y"], graph.run(fed)["y"])
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "g")
    pipeline.infer_exposed_ports()
    pipeline.run({"x": X}, cache=cache)
    assert torch.equal(pipeline.run({"x": X}, outputs=["g/n0.y"], cache=cache)["g/n0.y"], graph.run({"x": X}, outputs=["n0.y"])["n0.y"])


def test_a_mapped_node_and_a_template_give_what_they_give_without() -> None:
    pipeline, cache = Pipeline("p"), NodeCache()
    graph = chain(Encode(), Draw())
    pipeline.add_graph(graph, "g", map=["x"])
    pipeline.infer_exposed_ports()
    inputs = {"x": [X, X, X + 1]}
    want = pipeline.run(inputs, seed=3)["y"]
    calls = counted(graph, lambda: torch.testing.assert_close(pipeline.run(inputs, seed=3, cache=cache)["y"], want, rtol=0, atol=0))
    assert calls == {"n0": 2, "n1": 3}
    template = Graph.from_template("text_to_image", steps=2)
    for seed in (1, 2, 1):
        found = template.run({"prompt": "a castle"}, seed=seed, cache=cache)
        assert torch.equal(found["image"], template.run({"prompt": "a castle"}, seed=seed)["image"])


def test_runs_with_gradients_use_no_cache() -> None:
    graph, cache = two(), NodeCache()
    graph.run({"x": X}, cache=cache)
    calls = counted(graph, lambda: graph.run({"x": X}, training=True, cache=cache)["y"].sum().backward())
    assert calls == {"n0": 1, "n1": 1}
    assert graph.nodes["n0"].linear.weight.grad is not None


# --- what is not kept -------------------------------------------------------------------------------------------------


class Own(Draw):
    """Draws from something that the engine does not serve, or changes by being called."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.generator, self.total = how, torch.Generator().manual_seed(1), 0

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        self.calls += 1
        match self.how:
            case "python":
                return x + random.random()
            case "numpy":
                return x + np.random.rand()
            case "torch":
                return x + torch.randn(4)
            case "generator":
                return x + torch.randn(4, generator=self.generator)
        return x


@pytest.mark.parametrize("how", ["python", "numpy", "torch", "generator"])
def test_draws_that_follow_no_seed_are_not_kept(how: str) -> None:
    graph, cache = chain(Own(how)), NodeCache()
    for _ in range(2):
        assert counted(graph, lambda: graph.run({"x": X}, cache=cache)) == {"n0": 1}
    assert "draws" in cache.stats.uncached["n0"]


def test_draws_of_a_module_that_asks_for_no_generator_are_keyed() -> None:
    graph, cache = chain(Own("torch")), NodeCache()
    want = [graph.run({"x": X}, seed=seed)["y"] for seed in (1, 2)]
    found = [graph.run({"x": X}, seed=seed, cache=cache)["y"] for seed in (1, 2, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip([*want, *want], found, strict=True))
    assert graph.nodes["n0"].calls == 4


def test_a_block_may_say_that_it_is_not_to_be_kept() -> None:
    class Clock(Encode):
        cacheable = False

    graph, cache = chain(Encode(), Clock()), NodeCache()
    graph.run({"x": X}, cache=cache)
    assert counted(graph, lambda: graph.run({"x": X}, cache=cache)) == {"n1": 1}
    assert cache.stats.uncached == {"n1": "Clock says cacheable = False"}


def test_inputs_whose_content_cannot_be_told_are_computed_with_anew() -> None:
    class Opaque:
        def __reduce__(self) -> Any:
            raise TypeError("no")

    class Take(Draw):
        def forward(self, x: Any) -> Tensor:  # type: ignore[override]
            self.calls += 1
            return torch.ones(1)

    graph, cache = chain(Take()), NodeCache()
    value = Opaque()
    for _ in range(2):
        assert counted(graph, lambda: graph.run({"x": value}, cache=cache)) == {"n0": 1}
    assert "Opaque" in cache.stats.uncached["n0"]


# --- never a stale result ---------------------------------------------------------------------------------------------


def edit_global(graph: Graph) -> None:
    global FACTOR
    FACTOR += 0.5


def edit_method(graph: Graph) -> None:
    Encode.forward = edited_forward(Encode.forward)  # type: ignore[method-assign]


def edited_forward(before: Any) -> Any:
    def forward(self: Any, x: Tensor, extra: Tensor | None = None) -> Tensor:
        return before(self, x, extra) + 1

    return forward


def train(graph: Graph) -> None:
    optimizer = torch.optim.SGD(graph.parameters(), lr=0.1)
    graph(x=X)["y"].sum().backward()
    optimizer.step()
    graph.zero_grad()


def load(graph: Graph) -> None:
    graph.load_state_dict({name: value + 0.25 for name, value in graph.state_dict().items() if value.is_floating_point()}, strict=False)


def new_weight(graph: Graph) -> None:
    linear = graph.nodes["n0"].linear
    linear.weight = nn.Parameter(linear.weight.detach() * 1.5)


def data_weight(graph: Graph) -> None:
    graph.nodes["n0"].linear.weight.data[1, 2] += 0.5


def hook(graph: Graph) -> None:
    graph.nodes["n0"].linear.register_forward_hook(lambda module, args, output: output + 0.5)


def replace(graph: Graph) -> None:
    graph.replace_node("n1", Encode(name="replaced" * random.randint(1, 9)))


def swap(graph: Graph) -> None:
    graph.nodes["n0"].norm = nn.BatchNorm1d(4, eps=0.5)


def with_numpy(graph: Graph) -> None:
    graph.nodes["n0"].linear.bias.detach().numpy()[0] += 0.5


def setting(path: str, change: Callable[[Any], Any]) -> Callable[[Graph], None]:
    node, _, name = path.partition(".")

    def edit(graph: Graph) -> None:
        block = graph.nodes[node]
        setattr(block, name, change(getattr(block, name)))

    edit.__name__ = f"set_{name}"
    return edit


EDITS: list[Callable[[Graph], None]] = [
    edit_global,
    edit_method,
    train,
    load,
    new_weight,
    data_weight,
    hook,
    replace,
    swap,
    with_numpy,
    setting("n0.gain", lambda gain: gain + 1),
    setting("n1.shift", lambda shift: shift - 0.5),
    setting("n0.options", lambda options: {"scales": [*options["scales"], 0.5]}),
]


def scale(graph: Graph) -> None:
    graph.nodes["n1"].options["scales"][0] += 0.25


def buffer(graph: Graph) -> None:
    graph.nodes["n1"].norm.running_mean += 0.5


def filled(graph: Graph) -> None:
    before = graph.node_specs["n1"].inputs.get("extra", torch.zeros(4))
    graph.configure_node("n1", inputs={"extra": before + 1})


def filled_in_place(graph: Graph) -> None:
    if "extra" not in graph.node_specs["n1"].inputs:
        filled(graph)
    graph.node_specs["n1"].inputs["extra"].add_(0.5)


def epsilon(graph: Graph) -> None:
    graph.nodes["n0"].norm.eps += 0.125


EDITS += [scale, buffer, filled, filled_in_place, epsilon]


@pytest.fixture
def unedited() -> Any:
    global FACTOR
    forward = Encode.forward
    yield
    FACTOR, Encode.forward = 1.0, forward  # type: ignore[method-assign]


def name_of(edit: Any) -> str:
    return str(edit.__name__)


@pytest.mark.parametrize("edit", EDITS, ids=name_of)
def test_an_edit_is_seen(edit: Callable[[Graph], None], unedited: Any, tmp_path: Path) -> None:
    for cache in (NodeCache(), NodeCache(directory=tmp_path)):
        graph = two()
        before = graph.run({"x": X}, cache=cache)["y"]
        graph.run({"x": X}, cache=cache)
        edit(graph)
        found = graph.run({"x": X}, cache=cache)["y"]  # first: a run without it counts its calls, and so changes the blocks
        want = graph.run({"x": X})["y"]
        assert torch.equal(found, want)
        assert not torch.equal(before, want), "the edit changes nothing"


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.one_of(st.sampled_from(EDITS), st.integers(0, 2)), min_size=2, max_size=8))
def test_any_sequence_of_edits_and_runs_is_as_without_a_cache(moves: list[Any], unedited: Any) -> None:
    graph, cache = two(), NodeCache(max_bytes=2000)
    values = [X.clone(), X + 1, torch.zeros(2, 4)]
    for move in moves:
        if callable(move):
            move(graph)
        else:
            found = graph.run({"x": values[move]}, cache=cache)["y"]
            counts = [block.calls for block in graph.nodes.values()]
            assert torch.equal(found, graph.run({"x": values[move]})["y"])
            for block, count in zip(graph.nodes.values(), counts, strict=True):
                block.calls = count  # a changed count must not be what is seen
            found.zero_()  # whoever gets a result may change it
            values[move] += 0.5  # and what was given


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_autocast_and_precision_are_told_apart(dtype: torch.dtype) -> None:
    graph, cache = chain(Encode()), NodeCache()
    graph.run({"x": X}, cache=cache)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(graph.run({"x": X}, cache=cache)["y"], graph.run({"x": X})["y"])
    graph.to(dtype)
    assert graph.run({"x": X.to(dtype)}, cache=cache)["y"].dtype == dtype
    assert torch.equal(graph.run({"x": X.to(dtype)}, cache=cache)["y"], graph.run({"x": X.to(dtype)})["y"])


def test_adapters_are_told_apart() -> None:
    pytest.importorskip("peft")
    graph, cache = chain(Encode(), Encode(name="bb")), NodeCache()
    graph.run({"x": X}, cache=cache)
    for name in ("winter", "summer"):
        wgtorch.lora.add(graph, name=name, rank=2)
    with torch.no_grad():
        for path, parameter in graph.named_parameters():
            if "lora_B" in path:
                parameter.fill_(1.0 if "winter" in path else -0.5)
    seen = []
    for adapter in (None, "winter", "summer", {"winter": 0.5}, None):
        graph.set_adapter("n0", adapter)
        seen.append(graph.run({"x": X}, cache=cache)["y"])
        assert torch.equal(seen[-1], graph.run({"x": X})["y"])
    assert not torch.equal(seen[0], seen[1])
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "g")
    pipeline.infer_exposed_ports()
    for adapter in (None, "winter", "summer"):
        pipeline.set_adapter("g", adapter)
        assert torch.equal(pipeline.run({"x": X}, cache=cache)["y"], pipeline.run({"x": X})["y"])


def test_a_kept_value_that_is_changed_in_place_is_no_result_any_more() -> None:
    class Spoil(Draw):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            y = x.clone()
            x.zero_()
            return y

    graph, cache = chain(Encode(), Draw()), NodeCache()
    graph.run({"x": X}, seed=1, cache=cache)
    graph.replace_node("n1", Spoil())
    graph.run({"x": X}, seed=1, cache=cache)
    graph.replace_node("n1", Draw())
    assert torch.equal(graph.run({"x": X}, seed=4, cache=cache)["y"], graph.run({"x": X}, seed=4)["y"])


def test_the_names_that_draws_are_keyed_by_are_told_apart() -> None:
    cache = NodeCache()
    first, second = chain(Draw()), Graph("g")
    second.add_node(Draw(), "m", auto_connect=False)
    second.infer_exposed_ports()
    assert torch.equal(first.run({"x": X}, seed=1, cache=cache)["y"], first.run({"x": X}, seed=1)["y"])
    assert torch.equal(second.run({"x": X}, seed=1, cache=cache)["y"], second.run({"x": X}, seed=1)["y"])


# --- budget, hashing, folder ------------------------------------------------------------------------------------------


def test_the_least_recently_used_goes_first() -> None:
    graph, cache = chain(Encode()), NodeCache(max_bytes=64)
    for value in (0.0, 1.0, 0.0, 2.0):
        graph.run({"x": torch.full((2, 4), value)}, cache=cache)
    assert cache.stats.bytes <= 64
    assert cache.stats.evictions
    assert counted(graph, lambda: graph.run({"x": torch.zeros(2, 4)}, cache=cache)) == {}
    assert counted(graph, lambda: graph.run({"x": torch.ones(2, 4)}, cache=cache)) == {"n0": 1}
    large = NodeCache(max_bytes=8)
    graph.run({"x": X}, cache=large)
    assert (large.stats.bytes, len(large)) == (0, 0)


def test_a_tensor_that_is_the_same_is_not_read_again() -> None:
    graph, cache = chain(Step()), NodeCache()
    x = torch.randn(64, 64)
    graph.run({"x": x}, cache=cache)
    read = cache.stats.hashed_bytes
    graph.run({"x": x}, cache=cache)
    assert cache.stats.hashed_bytes == read
    x += 1
    assert torch.equal(graph.run({"x": x}, cache=cache)["y"], x * 0.5)
    assert cache.stats.hashed_bytes > read


def test_large_weights_are_told_by_their_version_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgtorch.core.run.fingerprint._LARGE", 1000)
    graph, cache = chain(Encode(width=64)), NodeCache()
    x = {"x": torch.ones(2, 64)}
    graph.run(x, cache=cache)
    assert cache.stats.hashed_bytes < 4096, "the input and small things"
    assert counted(graph, lambda: graph.run(x, cache=cache)) == {}
    for edit in (train_large, data_all, new_weight):
        edit(graph)
        assert torch.equal(graph.run(x, cache=cache)["y"], graph.run(x)["y"])
    calls = counted(graph, lambda: [graph.run(x, cache=cache) for _ in range(3)])
    assert calls == {}


def test_more_weights_than_are_remembered_at_first_are_told_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgtorch.core.run.fingerprint._LARGE", 0)
    monkeypatch.setattr("wgtorch.core.run.content_digest._KNOWN", 3)
    first, second, cache = two(), two(), NodeCache()
    for graph in (first, second):
        graph.run({"x": X}, cache=cache)
    first.nodes["n0"].register_buffer("beside", torch.ones(1))  # so that all of it is told anew
    first.run({"x": X}, cache=cache)
    del first.nodes["n0"].beside
    hits = cache.stats.hits
    first.run({"x": X}, cache=cache)
    assert cache.stats.hits == hits + 1


def data_all(graph: Graph) -> None:
    graph.nodes["n0"].linear.weight.data.mul_(1.5)


def train_large(graph: Graph) -> None:
    with torch.no_grad():
        graph.nodes["n0"].linear.weight.add_(0.5)


def test_mapped_weights_are_read_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    chain(Encode(width=64)).save(tmp_path / "graph")
    graph, cache = Graph.load(tmp_path / "graph"), NodeCache()
    x = {"x": torch.ones(2, 64)}
    graph.run(x, cache=cache)
    read = cache.stats.hashed_bytes
    assert counted(graph, lambda: graph.run(x, cache=cache)) == {}
    assert cache.stats.hashed_bytes - read < 1024


READ: list[int] = []


class Settings:
    """Held by all modules of a model, as configs of foreign models are."""

    def __init__(self) -> None:
        self.values = list(range(50))

    def __getstate__(self) -> Any:
        READ.append(1)
        return {"values": self.values}


def test_an_object_that_many_modules_hold_is_read_once_a_look() -> None:
    class Holds(Draw):
        def __init__(self, settings: Settings) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Identity() for _ in range(30))
            for layer in self.layers:
                layer.settings = settings  # type: ignore[assignment]

    settings = Settings()
    graph, cache = chain(Holds(settings)), NodeCache()
    graph.run({"x": X}, seed=1, cache=cache)
    READ.clear()
    assert counted(graph, lambda: graph.run({"x": X}, seed=1, cache=cache)) == {}
    assert len(READ) < 10, "not once for each of the thirty modules"
    settings.values.append(1)
    assert counted(graph, lambda: graph.run({"x": X}, seed=1, cache=cache)) == {"n0": 1}


RESTARTED = """
import sys, torch
from tests.core.test_node_cache import X, calls_of, looped
from wgtorch import NodeCache
graph, cache = looped(), NodeCache(directory=sys.argv[1])
for seed in sys.argv[2:]:
    y = graph.run({"x": X, "shape": torch.zeros(2, 4)}, seed=int(seed), cache=cache)["y"]
    print(sum(calls_of(graph).values()), y.sum().item().hex())
"""


def restarted(folder: Path, *seeds: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RESTARTED, str(folder), *seeds], stdout=subprocess.PIPE, text=True)


@pytest.mark.xdist_group("processes")
def test_a_folder_survives_a_restart_and_two_processes_may_share_it(tmp_path: Path) -> None:
    both = [restarted(tmp_path, "1") for _ in range(2)]
    first = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert first[0][1] == first[1][1]
    again = restarted(tmp_path, "1", "2").communicate()[0].split()
    assert again[:2] == ["0", first[0][1]]
    assert again[2] == "5", "the encoder is there, too"
    assert not list(tmp_path.glob("*.new"))


def test_a_torn_file_is_no_result(tmp_path: Path) -> None:
    graph = chain(Encode())
    want = graph.run({"x": X}, cache=NodeCache(directory=tmp_path))["y"]
    for file in tmp_path.glob("*.result"):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content if file.stat().st_size % 2 else content[: len(content) // 2])
    fresh = chain(Encode())
    assert torch.equal(fresh.run({"x": X}, cache=NodeCache(directory=tmp_path))["y"], want)
    assert fresh.nodes["n0"].calls == 1


def test_a_folder_keeps_to_its_budget(tmp_path: Path) -> None:
    graph, cache = chain(Encode()), NodeCache(max_bytes=20_000, directory=tmp_path)
    for value in range(70):
        graph.run({"x": torch.full((2, 4), float(value))}, cache=cache)
    assert sum(file.stat().st_size for file in tmp_path.glob("*.result")) < 60_000
    cache.clear()
    assert not list(tmp_path.glob("*.result"))
    assert len(cache) == 0


class Memory:
    """A value that PyTorch's pytree takes apart, and puts together with less."""

    def __init__(self, held: Tensor, note: str = "") -> None:
        self.held, self.note = held, note


register_pytree_node(Memory, lambda memory: ([memory.held], None), lambda held, _: Memory(*held))


def test_a_value_comes_back_with_all_that_it_holds() -> None:
    class Remembers(Block):
        outputs = {"y": "any"}
        calls = 0

        def forward(self, x: Tensor) -> Any:
            self.calls += 1
            return {"y": [Memory(x * 2, "mine")]}

    graph, cache = Graph("g"), NodeCache()
    graph.add_node(Remembers(), "n", auto_connect=False)
    graph.infer_exposed_ports()
    found = [graph.run({"x": X}, cache=cache)["y"][0] for _ in range(3)]
    assert graph.nodes["n"].calls == 1 and [each.note for each in found] == ["mine"] * 3
    assert len({each.held.data_ptr() for each in found}) == 3
    assert _snapshot(found)[0].note == "mine"


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PortTypeError, match=r"cache is dict .*; expected a NodeCache"):
        two().run({"x": X}, cache={})
    with pytest.raises(PortTypeError, match="max_bytes is int 0"):
        NodeCache(max_bytes=0)
    (tmp_path / "mine.txt").write_text("a")
    with pytest.raises(StorageError, match="holds other files than a cache's"):
        NodeCache(directory=tmp_path)
