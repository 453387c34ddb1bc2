"""What holds of every run: parts compute what the whole does, order tells nothing, runs inside runs inherit, a seed is local."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import multiprocessing
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import wgtorch
from tests.blocks_for_tests import as_pipeline, as_stage
from tests.core.random_structures import Sketch, dags, loops
from tests.waiting import clock_of_runs
from wgtorch import Block, Graph, Pipeline, Port, Stage, State, World
from wgtorch.core.errors import (
    PortError,
    PortTypeError,
    RunCancelled,
    RunTimeoutError,
    StateError,
    UnknownNameError,
    ValidationError,
)
from wgtorch.core.plan import make_plan
from wgtorch.core.tree import walk

PACKAGE = str(Path(wgtorch.__file__).parent) + os.sep


class Add(Block):
    outputs = {"y": "tensor"}

    def __init__(self, k: float = 1.0) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        return x + self.k


class Noise(Block):
    """Draws without asking for a generator."""

    outputs = {"y": "tensor"}

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Owner(Block):
    """Runs a graph of its own."""

    outputs = {"y": "tensor"}

    def __init__(self, inner: Any = None, **options: Any) -> None:
        super().__init__()
        self.inner, self.options = inner, options

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.run({"x": x}, **self.options)["y"]


class Calls(Owner):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x=x)["y"]


def ring(a: Block, b: Block, **options: Any) -> Graph:
    g = Graph("g", **options)
    g.add_node(a, "a")
    g.add_node(b, "b")
    g.add_edge("a.y", "b.x")
    g.add_edge("b.y", "a.x")
    g.expose_input("a", "x")
    g.expose_output("b", "y")
    return g


def one(block: Block, name: str = "g") -> Graph:
    g = Graph(name)
    g.add_node(block, "n")
    g.infer_exposed_ports()
    return g


def linear() -> Graph:
    return one(Block.wrap(nn.Linear(2, 2), inputs={"x": "tensor"}, outputs={"y": "tensor"}), "inner")


# --- parts ------------------------------------------------------------------------------------------------------------


def test_a_part_of_a_loop_computes_what_the_loop_does() -> None:
    g = ring(Add(1), Add(2), metadata={"num_loop_steps": 5})
    x = {"x": torch.zeros(1)}
    assert g.run(x)["y"].item() == g.select(outputs=["y"]).run(x)["y"].item() == 15


@given(st.one_of(dags(), loops()), st.data())
def test_a_part_of_any_graph_computes_what_the_whole_does(sketch: Sketch, data: st.DataObject) -> None:
    graph = sketch.graph()
    names = [entry.name for entry in graph.exposed_outputs]
    wanted = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    whole = graph.run(sketch.tensors())
    part = graph.select(outputs=wanted)
    given_there = {name: value for name, value in sketch.tensors().items() if name in part.get_input_spec()}
    found = part.run(given_there)
    assert {name: int(value) for name, value in found.items()} == {name: int(whole[name]) for name in wanted}


def test_only_the_ports_that_are_named_are_cut() -> None:
    g = ring(Add(1), Add(2), metadata={"num_loop_steps": 5})
    assert g.select(inputs=["b.x"]).run({"x": torch.zeros(1)})["y"].item() == 2


def test_a_part_joins_nothing_anew_by_roles() -> None:
    graph = Graph.from_template("text_to_image", steps=2)
    graph.remove_edge("guidance.pred_guided", "solver.pred")
    graph.add_edge("backbone.pred", "solver.pred")
    part = graph.select(outputs=["solver.next_latent"])
    assert set(part.edges) <= set(graph.edges)
    values = {"prompt": "a castle"}
    assert torch.equal(
        part.run(values, seed=1)["next_latent"], graph.run(values, seed=1, outputs=["solver.next_latent"])["solver.next_latent"]
    )


def test_two_values_for_one_port_in_an_iteration_are_a_finding() -> None:
    g = ring(Add(1), Add(2), metadata={"num_loop_steps": 2})
    g.add_node(Add(3), "c")
    g.add_edge("b.y", "c.x")
    g.add_edge("c.y", "b.x")
    with pytest.raises(ValidationError, match=r"g/b\.x: in each iteration .* two values arrive: from a\.y, and fed back from c\.y"):
        g.run({"x": torch.zeros(1)})


# --- order of building ------------------------------------------------------------------------------------------------


@given(st.one_of(dags(), loops()), st.data())
def test_in_which_order_a_graph_is_built_tells_nothing(sketch: Sketch, data: st.DataObject) -> None:
    structure = sketch.structure()
    nodes = data.draw(st.permutations(list(structure.nodes)))
    other = type(structure)(
        structure.name,
        {node: structure.nodes[node] for node in nodes},
        tuple(data.draw(st.permutations(structure.edges))),
        tuple(data.draw(st.permutations(structure.inputs))),
        structure.outputs,
    )
    assert make_plan(other) == make_plan(structure)


class Optional(Block):
    outputs = {"y": "any"}

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k = k

    def forward(self, h: int | None = None) -> int:
        return (h or 0) * 2 + self.k


def mutual(order: str, **inputs: Any) -> Graph:
    g = Graph("g", metadata={"num_loop_steps": 2})
    for n in order:
        g.add_node(Optional({"a": 1, "b": 10}[n]), n, auto_connect=False, inputs=inputs.get(n))
    g.add_edge("a.y", "b.h")
    g.add_edge("b.y", "a.h")
    g.expose_output("a", "y")
    return g


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_loop_in_which_nothing_says_who_is_first_is_a_finding(order: str) -> None:
    with pytest.raises(ValidationError, match=r"which node of the loop through a, b is first.*exactly one of a\.h, b\.h"):
        mutual(order).run({})
    assert mutual(order, a={"h": 0}).run({})["y"] == 25


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_a_seeded_run_is_nobody_elses_business() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(x: Tensor) -> Tensor:
        entered.set()
        leave.wait(60)
        return x + torch.randn(3)

    g = one(Block.wrap(slow, outputs={"y": "tensor"}))
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    thread = threading.Thread(target=lambda: g.run({"x": torch.zeros(3)}, seed=1))
    thread.start()
    assert entered.wait(60)
    found = torch.randn(3)
    leave.set()
    thread.join()
    assert torch.equal(found, expected)


def test_seeded_runs_of_several_threads_overlap() -> None:
    meet = threading.Barrier(4, timeout=60)

    def forward(x: Tensor) -> Tensor:
        meet.wait()
        return x + torch.randn(3)

    g = one(Block.wrap(forward, outputs={"y": "tensor"}))
    found: list[Tensor] = []
    threads = [threading.Thread(target=lambda: found.append(g.run({"x": torch.zeros(3)}, seed=1)["y"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(torch.equal(one, found[0]) for one in found)


def _draw_in_a_child(queue: Any) -> None:
    queue.put(one(Noise()).run({"x": torch.zeros(2, 3)}, seed=1)["y"].tolist())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_that_is_forked_meanwhile_runs() -> None:
    context = multiprocessing.get_context("fork")
    entered, leave = threading.Event(), threading.Event()

    def slow(x: Tensor) -> Tensor:
        entered.set()
        leave.wait(60)
        return x

    thread = threading.Thread(target=lambda: one(Block.wrap(slow, outputs={"y": "tensor"})).run({"x": torch.zeros(3)}, seed=1))
    thread.start()
    assert entered.wait(60)
    queue = context.Queue()
    child = context.Process(target=_draw_in_a_child, args=(queue,))
    child.start()
    try:
        assert queue.get(timeout=60) == one(Noise()).run({"x": torch.zeros(2, 3)}, seed=1)["y"].tolist()
    finally:
        leave.set()
        thread.join()
        child.join()


def test_sample_k_of_a_list_of_seeds_is_what_its_seed_gives_alone() -> None:
    x = torch.arange(6.0).view(3, 2)
    for block in (Noise(), Block.wrap(nn.Dropout(0.5), inputs={"x": "tensor"}, outputs={"y": "tensor"})):
        g = one(block)
        whole = g.run({"x": x}, seed=[5, 6, 7], training=True)["y"]
        for k, seed in enumerate((5, 6, 7)):
            assert torch.equal(g.run({"x": x[k : k + 1]}, seed=[seed], training=True)["y"], whole[k : k + 1])
    assert torch.equal(one(Noise()).run({"x": x[:1]}, seed=5)["y"], one(Noise()).run({"x": x[:1]}, seed=[5])["y"])
    with pytest.raises(PortError, match="g: 2 seeds, and the inputs hold {'x': 3} samples"):
        g.run({"x": x}, seed=[1, 2])


def test_the_first_of_a_batch_is_what_it_is_alone_and_names_have_no_part() -> None:
    x = torch.zeros(4, 3)
    whole = one(Noise()).run({"x": x}, seed=3)["y"]
    assert torch.equal(one(Noise()).run({"x": x[:1]}, seed=3)["y"], whole[:1])
    assert torch.equal(one(Noise(), "another").run({"x": x}, seed=3)["y"], whole)
    assert not torch.equal(one(Noise()).run({"x": x}, seed=4)["y"], whole)


@pytest.mark.parametrize("is_async", [False, True])
def test_no_generator_of_the_process_is_read_or_written(is_async: bool) -> None:
    g = Graph("g", metadata={"num_loop_steps": 3})
    g.add_node(Noise(), "a", timeout=30 if is_async else None)
    g.add_edge("a.y", "a.x")
    g.expose_input("a", "x")
    g.expose_output("a", "y")
    before = torch.get_rng_state()
    first = g.run({"x": torch.zeros(3)}, seed=1)["y"]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert torch.equal(g.run({"x": torch.zeros(3)}, seed=1)["y"], first)


def test_draws_of_a_coroutine_are_served_too() -> None:
    async def forward(x: Tensor) -> Tensor:
        await asyncio.sleep(0)
        return x + torch.randn_like(x)

    g = one(Block.wrap(forward, outputs={"y": "tensor"}))
    before = torch.get_rng_state()
    first, again = (g.run({"x": torch.zeros(3)}, seed=1)["y"] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_under_gradient_checkpointing_draws_what_it_drew() -> None:
    def loop() -> Graph:
        torch.manual_seed(0)
        g = Graph("g", metadata={"num_loop_steps": 3})
        g.add_node(Block.wrap(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), inputs={"x": "tensor"}, outputs={"y": "tensor"}), "a")
        g.add_edge("a.y", "a.x")
        g.expose_input("a", "x")
        g.expose_output("a", "y")
        return g

    gradients = []
    for graph in (loop(), loop().gradient_checkpointing()):
        graph.run({"x": torch.ones(2, 4)}, seed=1, training=True)["y"].sum().backward()
        gradients.append([parameter.grad for parameter in graph.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)  # type: ignore[arg-type]


# --- runs inside runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [Owner, Calls])
def test_a_run_inside_a_block_takes_mode_and_gradients_from_the_run_around_it(owner: type[Owner]) -> None:
    seen: list[bool] = []
    inner = linear()
    inner.nodes["n"].target.register_forward_hook(lambda module, args, output: seen.append(module.training))
    g = one(owner(inner))
    assert g.run({"x": torch.ones(1, 2)}, training=True)["y"].requires_grad
    assert not g.run({"x": torch.ones(1, 2)})["y"].requires_grad
    assert seen == [True, False]


@pytest.mark.parametrize("owner", [Owner, Calls])
def test_a_run_inside_a_block_takes_seed_callbacks_and_stops(owner: type[Owner], monkeypatch: pytest.MonkeyPatch) -> None:
    g = one(owner(one(Noise(), "inner")))
    x = torch.zeros(2, 3)
    before = torch.get_rng_state()
    assert torch.equal(g.run({"x": x}, seed=1)["y"], g.run({"x": x}, seed=1)["y"])
    assert not torch.equal(g.run({"x": x}, seed=1)["y"], g.run({"x": x}, seed=2)["y"])
    assert torch.equal(torch.get_rng_state(), before)
    paths: list[str] = []
    g.run({"x": x}, callbacks=lambda event: paths.append(f"{event.kind} {event.path} of {event.root}"))
    assert paths == ["start n of g", "start n/n of g", "end n/n of g", "end n of g"]
    asked: list[int] = []
    with pytest.raises(RunCancelled, match="before n/n of g"):
        g.run({"x": x}, cancelled=lambda: asked.append(1) is None and len(asked) > 1)

    pass_time = clock_of_runs(monkeypatch)

    def late(x: Tensor) -> Tensor:
        pass_time(601)
        return x

    with pytest.raises(RunTimeoutError, match="n/b of g"):
        inner = Graph("inner")
        inner.add_node(Block.wrap(late, outputs={"y": "tensor"}), "a")
        inner.add_node(Add(), "b")
        inner.add_edge("a.y", "b.x")
        inner.infer_exposed_ports()
        one(owner(inner)).run({"x": x}, timeout=600)


def test_a_run_inside_a_block_does_what_it_is_told() -> None:
    g = one(Owner(linear(), training=False))
    assert not g.run({"x": torch.ones(1, 2)}, training=True)["y"].requires_grad
    fixed = one(Owner(one(Noise(), "inner"), seed=9))
    x = torch.zeros(2, 3)
    assert torch.equal(fixed.run({"x": x}, seed=1)["y"], fixed.run({"x": x}, seed=2)["y"])
    heard: list[Any] = []
    one(Owner(one(Noise(), "inner"), callbacks=[])).run({"x": x}, callbacks=[heard.append])
    assert [event.path for event in heard] == ["n", "n"]


@pytest.mark.parametrize("kind", ["cpu", "cuda", "xpu"])
@pytest.mark.parametrize("way", ["async", "timeout", "map"])
def test_autocast_of_every_device_is_carried_into_nodes_that_run_aside(kind: str, way: str) -> None:
    seen: list[Any] = []

    def forward(x: Any) -> Any:
        seen.append((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)))
        return x

    g = Graph("g")
    place: dict[str, Any] = {"timeout": {"timeout": 30}, "map": {"map": "x"}}.get(way, {})
    g.add_node(Block.wrap(forward, outputs={"y": "any"}, is_async=way != "timeout"), "n", **place)
    g.infer_exposed_ports()
    before = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    x = [1, 2] if way == "map" else 1
    try:
        torch.set_autocast_enabled(kind, True)
        torch.set_autocast_dtype(kind, torch.float16)
        g.run({"x": x})
    finally:
        torch.set_autocast_enabled(kind, before[0])
        torch.set_autocast_dtype(kind, before[1])
    g.run({"x": x})
    count = len(seen) // 2
    assert seen == [(True, torch.float16)] * count + [before] * count


# --- values that are changed, and what they are -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (["a"], lambda x: x.append("m")),
        ({"k": 1}, lambda x: x.update(k=2)),
        ([["a"]], lambda x: x[0].append("m")),
        ({"k": [1]}, lambda x: x["k"].clear()),
        (["a"], lambda x: x.__setitem__(0, "b")),
        (["b", "a"], lambda x: x.sort()),
    ],
)
def test_a_block_cannot_change_a_state_at_any_depth(value: Any, change: Any) -> None:
    def forward(x: Any) -> str:
        change(x)
        return "r"

    pipeline = Pipeline("p")
    pipeline.add_graph(one(Block.wrap(forward, outputs={"y": "any"})), "g")
    pipeline.infer_exposed_ports()
    stage = Stage("s")
    stage.add_pipeline(pipeline, "p")
    stage.set_state_contract(["artifacts"], ["recipe"], {"p.x": "artifacts"}, {"recipe": "p.y"})
    state = State(artifacts=value)
    before = repr(value)
    assert repr(state.artifacts) == before
    assert stage.run(state).recipe == "r"
    assert repr(state.artifacts) == before
    with pytest.raises(PortError, match=r"p/g/n\.x: the block changed its input in place"):
        stage.run(state, debug=True)


def test_a_dict_is_always_a_mapping_by_output() -> None:
    def whole(x: Any) -> Any:
        return {"k": 1}

    with pytest.raises(PortError, match=r"forward returned \['k'\]; expected \['y'\].*return {'y': value}"):
        one(Block.wrap(whole, outputs={"y": "dict"})).run({"x": 1})
    assert one(Block.wrap(lambda x: {"y": {"y": 1}}, outputs={"y": "dict"})).run({"x": 1}) == {"y": {"y": 1}}


@pytest.mark.parametrize(
    ("block", "word"),
    [
        (Block.wrap(lambda x: (x.append(1), "r")[1], outputs={"y": "any"}), r"n\.x: the block changed its input in place"),
        (Block.wrap(lambda x: (x[0].add_(1), "r")[1], outputs={"y": "any"}), r"n\.x: the block changed its input in place"),
        (Block.wrap(lambda x: "words", outputs={"y": "tensor"}), r"n\.y \(output\): got"),
    ],
)
def test_debug_finds_what_is_changed_in_place_and_of_a_wrong_kind(block: Block, word: str) -> None:
    g = one(block)
    g.run({"x": [torch.ones(2)]})
    with pytest.raises(PortError, match=word):
        g.run({"x": [torch.ones(2)]}, debug=True)


@dataclass
class Thing:
    """An object that tells nobody that it changed."""

    name: str = "a"
    value: Tensor | None = None


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: torch.ones(3), lambda x: x.data.add_(1)),
        (lambda: torch.ones(3), lambda x: x.numpy().__iadd__(1)),
        (lambda: torch.ones(3), lambda x: setattr(x, "data", torch.zeros(3))),
        (lambda: torch.ones(3000, 100), lambda x: x.data[17].mul_(2)),
        (lambda: np.ones(3), lambda x: x.__iadd__(1)),
        (lambda: bytearray(b"a"), lambda x: x.extend(b"b")),
        (Thing, lambda x: setattr(x, "name", "b")),
        (lambda: [Thing(value=torch.ones(2))], lambda x: x[0].value.mul_(2)),
    ],
    ids=["data", "array", "set_data", "large", "numpy", "bytearray", "object", "tensor_of_an_object"],
)
def test_debug_finds_changes_that_no_version_tells_of(make: Any, change: Any) -> None:
    def forward(x: Any) -> int:
        change(x)
        return 1

    g = Graph("g")
    g.add_node(Block.wrap(lambda x: {"y": x}, outputs={"y": "any"}), "before")
    g.add_node(Block.wrap(forward, outputs={"y": "any"}), "after")
    g.add_edge("before.y", "after.x")
    g.infer_exposed_ports()
    with pytest.raises(PortError, match=r"after\.x: the block changed its input in place") as caught:
        g.run({"x": make()}, debug=True)
    assert caught.value.node_path == "after"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kind", "value"), [("text", 3), ("image", torch.ones(3)), ("number", "x"), ("list", 3), ("tensor", "a")])
def test_debug_checks_kinds_on_inner_edges(kind: str, value: Any) -> None:
    g = Graph("g")
    g.add_node(Block.wrap(lambda x: {"y": value}, outputs={"y": "any"}), "before")
    g.add_node(Block.wrap(lambda x: 1, inputs={"x": kind}, outputs={"y": "any"}), "after")
    g.add_edge("before.y", "after.x")
    g.infer_exposed_ports()
    assert g.run({"x": 0}) == {"y": 1}
    with pytest.raises(PortTypeError, match=r"after\.x: got .*expected .*kind"):
        g.run({"x": 0}, debug=True)
    mapped = Graph("g")
    mapped.add_node(Block.wrap(lambda x: 1, inputs={"x": kind}, outputs={"y": "any"}), "n", map="x")
    mapped.infer_exposed_ports()
    with pytest.raises(PortTypeError, match=r"n\.x: got"):
        mapped.run({"x": [value]}, debug=True)


def test_debug_says_nothing_of_what_is_in_order() -> None:
    graph = Graph.from_template("text_to_image", steps=2)
    image = graph.run({"prompt": "the sea"}, seed=1, debug=True)["image"]
    assert torch.equal(image, graph.run({"prompt": "the sea"}, seed=1)["image"])
    world = World.from_template("default")
    world.run(num_steps=1, seed=1, debug=True)


@pytest.mark.parametrize("level", ["graph", "pipeline", "stage", "world"])
@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("invented", 1, "invented"),
        ("training", "yes", "training is str 'yes'"),
        ("debug", 1, "debug is int 1"),
        ("dry_run", "fakes", "dry_run is .*fakes"),
        ("timeout", "1", "timeout is str"),
        ("seed", "a", "seed is str"),
        ("cache", {}, "cache is dict"),
        ("callbacks", 3, "callbacks is int 3"),
        ("cancelled", True, "cancelled is bool"),
    ],
)
def test_no_level_takes_an_option_that_nothing_reads(level: str, option: str, value: Any, word: str) -> None:
    graph = one(Block.wrap(lambda x: x, outputs={"y": "any"}))
    stage = as_stage(graph, "s") if level in ("stage", "world") else None
    world = World("w")
    if stage is not None:
        world.add_stage(stage, "s")
        world.set_cycle(["s"])
    root: Any = {"graph": graph, "pipeline": as_pipeline(graph), "stage": stage, "world": world}[level]
    given: Any = State(recipe={}) if stage is not None else {"x": 1}
    with pytest.raises(TypeError, match=word):
        root.run(given, **{option: value})
    with pytest.raises(TypeError, match=word):
        asyncio.run(root.arun(given, **{option: value}))
    if option != "dry_run":  # which a stream has not
        with pytest.raises(TypeError, match=word):
            root.stream(given, **{option: value})  # the call itself, before the first event is asked for
    if not (option == "dry_run" and level == "world"):
        with pytest.raises(TypeError, match=word):
            root.batch([given], **{option: value})


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"timeout": float("nan")}, "timeout is float nan"),
        ({"num_loop_steps": 0}, "num_loop_steps is int 0"),
        ({"num_loop_steps": {"zz": 2}}, "num_loop_steps for 'zz', which is in no loop"),
        ({"outputs": 3}, "outputs is int 3"),
        ({"outputs": ["b.z"]}, "'b.z' names no output"),
        ({"device": "nowhere"}, "device is str 'nowhere'"),
        ({"seed": []}, "seed is an empty list"),
    ],
    ids=["nan", "no_steps", "no_loop", "no_names", "no_port", "no_device", "no_seed"],
)
def test_what_an_option_cannot_be_is_told_where_it_is_given(options: dict[str, Any], word: str) -> None:
    graph = ring(Add(1), Add(2), metadata={"num_loop_steps": 2})
    for ask in (graph.run, graph.stream):
        with pytest.raises((PortError, UnknownNameError), match=word):
            ask({"x": torch.zeros(1)}, **options)
    if "seed" not in options:
        with pytest.raises((PortError, UnknownNameError), match=word):
            graph.batch([{"x": torch.zeros(1)}], **options)


def test_a_life_has_one_seed() -> None:
    stage = as_stage(one(Block.wrap(lambda x: x, outputs={"y": "any"})), "s")
    world = World("w")
    world.add_stage(stage, "s")
    world.set_cycle(["s"])
    for ask in (world.run, world.stream):
        with pytest.raises(PortTypeError, match="a life has one seed"):
            ask(State(recipe={}), seed=[1, 2])
    for level in (world, stage):
        with pytest.raises(PortTypeError, match="seed is float 1.5"):
            level.batch([State(recipe={})], seed=[1.5])
    with pytest.raises(StateError, match="num_steps is -1"):
        world.batch([None], num_steps=-1)


# --- the signature and the frames -------------------------------------------------------------------------------------


def test_forward_has_the_exposed_inputs_as_its_signature() -> None:
    class Biased(Block):
        outputs = {"y": "tensor"}

        def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
            return x if bias is None else x + bias

    g = Graph("g")
    g.add_node(Biased(), "a")
    g.expose_input("a", "bias")
    g.expose_input("a", "x", "picture")
    g.expose_output("a", "y")
    assert str(inspect.signature(g.forward)) == "(picture, bias=None)"
    g.hide_input("bias")
    assert list(inspect.signature(g.forward).parameters) == ["picture"]
    x = torch.ones(2, 4)
    program = torch.export.export(g, (), {"picture": x}, dynamic_shapes={"picture": {0: torch.export.Dim("b", min=2, max=64)}}).module()
    wide = torch.randn(9, 4)
    assert torch.equal(program(picture=wide)["y"], g(picture=wide)["y"])


@pytest.mark.parametrize("options", [{}, {"seed": 1}, {"timeout": 60}, {"callbacks": [lambda event: None]}])
def test_how_many_frames_of_ours_a_level_takes(options: dict[str, Any]) -> None:
    depths: list[int] = []

    def forward(x: Tensor) -> Tensor:
        frame, count = inspect.currentframe(), 0
        while frame is not None:
            count += frame.f_code.co_filename.startswith(PACKAGE)
            frame = frame.f_back
        depths.append(count)
        return x

    level: Any = one(Block.wrap(forward, outputs={"y": "tensor"}))
    level.run({"x": torch.ones(1)}, **options)
    for index in range(3):
        outer = Graph(f"outer{index}")
        outer.add_node(level, "n")
        outer.infer_exposed_ports()
        level = outer
        level.run({"x": torch.ones(1)}, **options)
    steps = [after - before for before, after in itertools.pairwise(depths)]
    assert max(steps) <= 4 and depths[0] <= 5, depths


def test_how_many_frames_of_ours_lie_between_a_world_and_a_backbone() -> None:
    world, depths = World.from_template("default", steps=1), []

    def look(module: nn.Module, args: Any) -> None:
        frames = [frame for frame in inspect.stack(0) if frame.filename.startswith(PACKAGE)]
        depths.append(len(frames))

    for _, child, _ in walk(world):
        if getattr(child, "role", "") == "backbone":
            child.register_forward_pre_hook(look)
    world.run(num_steps=1, seed=1)
    assert depths and max(depths) <= 20


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_mistakes_in_a_run_are_told_where_they_are_made() -> None:
    g = one(Add())
    with pytest.raises(TypeError, match=r"g: inputs are .*; expected a mapping by name, as run\({'x': value}\)"):
        g.run(torch.ones(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"g: run\(\) takes inputs in a mapping; write run\({'x': \.\.\.}\)"):
        g.run(x=torch.ones(2))
    with pytest.raises(TypeError, match=r"g: run\(\) has no option 'sed'; did you mean 'seed'"):
        g.run({"x": torch.ones(2)}, sed=1)
    assert list(g.run({"x": torch.ones(2)}, outputs="y")) == ["y"]
    with pytest.raises(TypeError, match="g: outputs is .*; expected names"):
        g.run({"x": torch.ones(2)}, outputs=3)  # type: ignore[arg-type]
    heard: list[Any] = []
    g.run({"x": torch.ones(2)}, callbacks=heard.append)
    assert len(heard) == 2
    with pytest.raises(TypeError, match="g: callbacks is str 'print'; expected functions of an event"):
        g.run({"x": torch.ones(2)}, callbacks="print")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"g: timeout is str '1' .*; expected seconds from 0, or None for no limit"):
        g.run({"x": torch.ones(2)}, timeout="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"g: cancelled is bool .*; expected a function"):
        g.run({"x": torch.ones(2)}, cancelled=True)  # type: ignore[arg-type]


def test_a_port_that_is_optional_stays_so_through_levels() -> None:
    class Maybe(Block):
        outputs = {"y": "any", "z": Port(dtype="any", optional=True)}

        def forward(self, x: Any) -> dict[str, Any]:
            return {"y": x}

    assert one(Maybe()).run({"x": 1}) == {"y": 1}


@pytest.mark.parametrize("level", [Graph, Pipeline, Stage, World])
def test_the_options_of_a_run_stand_in_its_signature(level: type) -> None:
    named = inspect.signature(level.run).parameters  # type: ignore[attr-defined]
    assert {"dry_run", "training", "callbacks", "timeout", "cancelled", "debug", "cache", "profile", "seed"} <= set(named)
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in named.values())
    assert ("num_loop_steps" in named) == (level is not World)


class Collects(Block):
    """Adds to what it is given."""

    outputs = {"y": "any"}

    def forward(self, x: Any, found: Any) -> Any:
        found["of"].append(x)
        return found["of"]


def test_what_a_place_fills_in_is_of_each_run_alone() -> None:
    graph = Graph("g")
    graph.add_node(Collects(), "n", inputs={"found": {"of": []}})
    graph.infer_exposed_ports()
    for x in (1, 2):
        assert graph.run({"x": x})["y"] == [x]
        assert graph.run({"x": x}, callbacks=[lambda event: None])["y"] == [x]
        assert graph(x=x)["y"] == [x]
    assert graph.node_specs["n"].inputs == {"found": {"of": []}}
