"""``run_until`` and ``resume``: a run that stops anywhere and goes on is the run that never stopped."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.blocks_for_tests import Scale, chain
from tests.core.random_structures import Sketch, dags, loops
from tests.core.test_precompute_invariants import Told
from tests.core.test_precompute_invariants import loop as told_loop
from wgtorch import Block, Graph, NodeCache, Paused, Pipeline, Rng, Stage, State, World
from wgtorch.core.errors import PortError, PortTypeError, RunTimeoutError, StorageError, UnknownNameError


class Encode(Block):
    outputs = {"y": "tensor"}

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


class Step(Block):
    """Draws in both ways, and remembers what it had in the iteration before."""

    outputs = {"y": "tensor", "memory": "any"}

    def forward(self, x: Tensor, c: Tensor, memory: Any = None, rng: Rng | None = None) -> dict[str, Any]:
        before = x if memory is None else memory[0]
        return {"y": x / 2 + c + before + rng.normal(x.shape) + torch.rand_like(x), "memory": (x, {"deep": [1, "a", None, 2.5]})}


class Waits(Block):
    outputs = {"y": "tensor"}

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds

    async def forward(self, x: Tensor) -> Tensor:
        import asyncio

        await asyncio.sleep(self.seconds)
        return x * 3


def looped(steps: int = 4) -> Graph:
    graph = Graph("inner", metadata={"num_loop_steps": steps})
    for name, block in {"encode": Encode(), "step": Step(), "wait": Waits(), "decode": Encode(2)}.items():
        graph.add_node(block, name, auto_connect=False)
    for source, target in (
        ("encode.y", "step.c"),
        ("step.memory", "step.memory"),
        ("step.y", "wait.x"),
        ("wait.y", "step.x"),
        ("wait.y", "decode.x"),
    ):
        graph.add_edge(source, target)
    graph.expose_input("encode", "x")
    graph.expose_input("step", "x", "start")
    graph.expose_output("decode", "y")
    return graph


def nested(**place: Any) -> Pipeline:
    first, second = looped(), Graph("second")
    second.add_node(Encode(5), "encode", auto_connect=False)
    second.infer_exposed_ports()
    pipeline = Pipeline("p")
    pipeline.add_graph(first, "first", **place)
    pipeline.add_graph(second, "second", **({"map": ["x"]} if place else {}))
    pipeline.add_edge("first.y", "second.x")
    pipeline.infer_exposed_ports()
    return pipeline


X = torch.linspace(-1, 1, 6).view(2, 3)
INPUTS = {"x": X, "start": X + 1}


def same(first: Any, second: Any) -> bool:
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("node", "iteration"), [("encode", None), ("step", 0), ("step", 2), ("wait", 3), ("decode", None), ("step", (1,)), ("wait", None)]
)
@pytest.mark.parametrize("saved", [False, True])
def test_a_graph_goes_on_as_if_it_had_never_stopped(when: str, node: str, iteration: Any, saved: bool, tmp_path: Path) -> None:
    graph = looped()
    want = graph.run(INPUTS, seed=7)["y"]
    paused = graph.run_until(INPUTS, **{when: node}, iteration=iteration, seed=7)
    if saved:
        paused = Paused.load(paused.save(tmp_path / "paused"))
    for _ in range(2):  # it can be gone on with several times
        assert torch.equal(graph.resume(paused)["y"], want)


@pytest.mark.parametrize("place", [{}, {"map": ["x", "start"]}], ids=["plain", "mapped"])
@pytest.mark.parametrize(("when", "path", "iteration"), [
    ("before", "first", None), ("after", "first", None), ("before", "first/step", 2), ("after", "first/wait", 1),
    ("before", "second/encode", None), ("after", "second", None),
])  # fmt: skip
def test_levels_inside_levels_stop_too(place: dict[str, Any], when: str, path: str, iteration: Any, tmp_path: Path) -> None:
    pipeline = nested(**place)
    inputs = {name: [value, value + 1] for name, value in INPUTS.items()} if place else INPUTS
    want = pipeline.run(inputs, seed=3)["y"]
    paused = pipeline.run_until(inputs, **{when: path}, iteration=iteration, seed=3)
    assert same(pipeline.resume(paused)["y"], want)
    assert same(pipeline.resume(Paused.load(paused.save(tmp_path / "paused")))["y"], want)


def test_a_run_stops_again_and_again() -> None:
    graph = looped()
    want = graph.run(INPUTS, seed=7)["y"]
    paused = graph.run_until(INPUTS, before="step", seed=7)
    seen = [paused.iterations]
    for _ in range(3):
        paused = graph.resume(paused, before="step")
        seen.append(paused.iterations)
    assert seen == [(0,), (1,), (2,), (3,)]
    paused = graph.resume(paused, after="step", iteration=3)
    assert repr(paused) == "Paused run of inner after step in iteration 3"
    assert torch.equal(graph.resume(paused)["y"], want)


def test_the_second_item_of_a_mapped_node_stops_after_the_first_went_on() -> None:
    pipeline = nested(map=["x", "start"])
    inputs = {name: [value, value + 1] for name, value in INPUTS.items()}
    want = pipeline.run(inputs, seed=3)["y"]
    paused = pipeline.run_until(inputs, before="first/step", iteration=3, seed=3)
    paused = pipeline.resume(paused, before="first/step", iteration=3)
    assert [len(frame.results) for frame in paused.frames if frame.results is not None] == [1]
    assert same(pipeline.resume(paused)["y"], want)


def test_a_stage_goes_on_with_its_state_and_content(tmp_path: Path) -> None:
    stage = Stage("s", role="s")
    stage.add_pipeline(nested(), "p")
    stage.set_state_contract(["intent"], ["recipe"], {"p.x": "intent", "p.start": "content.start"}, {"recipe": "p.y"})
    state, content = State(intent=X, outcome="kept"), {"start": X + 1}
    want = stage.run(state, content=content, seed=4)
    paused = Paused.load(stage.run_until(state, content=content, before="p/first/step", iteration=1, seed=4).save(tmp_path / "paused"))
    found = stage.resume(paused)
    assert torch.equal(found.recipe, want.recipe)
    assert found.outcome == "kept"


def living(folder: Path | None = None) -> World:
    world = World("w")
    for role, source, target in (("first", "intent", "recipe"), ("second", "recipe", "artifacts")):
        stage = Stage(role, role=role)
        stage.add_pipeline(nested(), "p")
        stage.set_state_contract([source], [target], {"p.x": source, "p.start": source}, {target: "p.y"})
        world.add_stage(stage, role)
    world.set_cycle(["first", "second"])
    world.set_storage(None if folder is None else {"state_dir": str(folder)})
    return world


def test_a_world_stops_inside_a_stage_and_lives_on(tmp_path: Path) -> None:
    whole = living()
    whole.run(State(intent=X), seed=5, num_steps=2)
    world = living(tmp_path / "life")
    paused = world.run_until(State(intent=X), before="second/p/first/step", iteration=2, seed=5, num_steps=2)
    assert (world.life.passes, world.life.stage) == (0, 1)
    paused.save(tmp_path / "paused")
    again = living(tmp_path / "life").resume()
    state = again.resume(Paused.load(tmp_path / "paused"))
    assert torch.equal(state.artifacts, whole.state.artifacts)
    assert again.life.passes == 2
    with pytest.raises(PortError, match="is of life, pass and stage"):
        again.resume(paused)


# --- values -----------------------------------------------------------------------------------------------------------


def test_values_are_looked_at_and_replaced() -> None:
    graph = looped()
    paused = graph.run_until(INPUTS, before="step", iteration=2, seed=7)
    assert {"step.x", "step.c", "step.memory", "start"} >= set(paused.values) - {"encode.y", "x", "wait.y", "step.y"}
    assert torch.equal(paused.values["step.x"], graph.run(INPUTS, seed=7, num_loop_steps=2, outputs=["wait.y"])["wait.y"])
    mine = torch.full((2, 3), 0.5)
    changed = graph.resume(paused, {"step.x": mine})["y"]
    assert not torch.equal(changed, graph.resume(paused)["y"]), "the paused run itself is as it was"

    after = graph.run_until(INPUTS, after="encode", seed=7)
    fed = graph.run({**INPUTS, "encode.y": mine}, seed=7)["y"]
    assert torch.equal(graph.resume(after, {"encode.y": mine})["y"], fed)
    before = graph.run_until(INPUTS, before="encode", seed=7)
    assert torch.equal(graph.resume(before, {"encode.x": mine})["y"], graph.run({"x": mine, "start": X + 1}, seed=7)["y"])


def test_values_of_nested_levels_have_their_paths() -> None:
    paused = nested().run_until(INPUTS, before="first/step", iteration=1, seed=7)
    assert {"first/step.x", "first/step.c", "first/wait.y", "x", "start"} <= set(paused.values) | {"first/wait.y"}
    want = nested().run({**INPUTS}, seed=7, outputs=["first/encode.y"])["first/encode.y"]
    assert torch.equal(paused.values["first/step.c"], want)
    with pytest.raises(UnknownNameError, match=r"holds no 'first/stop.x'.*first/step.x"):
        nested().resume(paused, {"first/stop.x": X})
    with pytest.raises(PortTypeError, match="expected a torch.Tensor"):
        nested().resume(paused, {"first/step.x": "no"})


def test_what_a_node_makes_before_a_loop_is_made_again(tmp_path: Path) -> None:
    graph = told_loop(Told())
    inputs = {"x": torch.ones(4), "told": torch.zeros(4)}
    want = graph.run(inputs)["y"]
    paused = graph.run_until(inputs, before="scale", iteration=1)
    assert torch.equal(graph.resume(paused)["y"], want)
    loaded = Paused.load(paused.save(tmp_path / "paused"))
    asked = len(graph.nodes["told"].asked)
    assert torch.equal(graph.resume(loaded)["y"], want)
    assert len(graph.nodes["told"].asked) == asked + 1


def test_parts_and_given_values_of_the_run_hold_when_it_goes_on(tmp_path: Path) -> None:
    pipeline = nested()
    options: dict[str, Any] = {"outputs": ["first/step.y", "y"], "num_loop_steps": 2, "seed": 1}
    given = {**INPUTS, "first/encode.y": X * 2}
    del given["x"]
    want = pipeline.run(given, **options)
    paused = pipeline.run_until(given, before="first/step", iteration=1, **options)
    for each in (paused, Paused.load(paused.save(tmp_path / "paused"))):
        found = pipeline.resume(each)
        assert list(found) == list(want)
        assert all(torch.equal(found[name], want[name]) for name in want)
    late = pipeline.run_until(given, before="second", **options)
    assert torch.equal(pipeline.resume(late)["first/step.y"], want["first/step.y"])


def test_a_template_stops_in_its_sampler(tmp_path: Path) -> None:
    graph = Graph.from_template("text_to_image", steps=3)
    inputs = {"prompt": "a castle at night"}
    want = graph.run(inputs, seed=1)["image"]
    solver = next(name for name, block in graph.nodes.items() if block.role == "solver")
    paused = Paused.load(graph.run_until(inputs, before=solver, iteration=1, seed=1).save(tmp_path / "paused"))
    assert torch.equal(graph.resume(paused)["image"], want)
    assert not torch.equal(graph.resume(paused, {f"{solver}.latent": paused.values[f"{solver}.latent"].flip(-1)})["image"], want)


def spiral() -> Graph:
    """A loop around a level with a loop of its own, in which a node waits on a network."""
    graph = Graph("outer", metadata={"num_loop_steps": 3})
    graph.add_node(looped(3), "inner", auto_connect=False)
    graph.add_node(Waits(0.001), "wait", auto_connect=False)
    for source, target in (("inner.y", "wait.x"), ("wait.y", "inner.start")):
        graph.add_edge(source, target)
    graph.expose_input("inner", "x", "x")
    graph.expose_input("inner", "start", "start")
    graph.expose_output("wait", "y", "y")
    return graph


STOPS: list[tuple[str, dict[str, Any]]] = [
    ("nested", {"after": "first/step", "iteration": 2}),
    ("spiral", {"before": "inner/step", "iteration": (1, 2)}),
    ("spiral", {"after": "inner/step", "iteration": (2, 0)}),
    ("spiral", {"before": "inner/wait", "iteration": (0, 1)}),
    ("spiral", {"after": "inner/wait", "iteration": (1, 0)}),
    ("spiral", {"before": "inner/encode", "iteration": 1}),
    ("spiral", {"after": "inner/decode", "iteration": 2}),
    ("spiral", {"before": "inner", "iteration": 2}),
    ("spiral", {"after": "wait", "iteration": 1}),
]

RESUMED = """
import sys, torch
from pathlib import Path
from tests.core import test_pause
from wgtorch import Paused
folder = Path(sys.argv[1])
for index, (name, _) in enumerate(test_pause.STOPS):
    level = getattr(test_pause, name)()
    paused = Paused.load(folder / f"{index}.paused")
    torch.save([level.resume(paused)["y"], level.resume(paused, test_pause.replaced(paused))["y"]], folder / f"{index}.pt")
world = test_pause.living(folder / "life").resume()
torch.save(world.resume(Paused.load(folder / "world.paused")).artifacts, folder / "world.pt")
"""


def replaced(paused: Paused) -> dict[str, Any]:
    """All tensors that it holds and that are still read, changed."""
    read = {name for name, (frame, slot, _) in paused._places().items() if frame.is_read(slot)}
    return {name: value / 2 - 0.25 for name, value in paused.values.items() if isinstance(value, Tensor) and name in read}


@pytest.mark.parametrize(("name", "stop"), STOPS)
def test_what_is_said_to_be_read_is_all_that_is_left_of_the_run_needs(name: str, stop: dict[str, Any]) -> None:
    level = globals()[name]()
    want = level.run(INPUTS, seed=9)["y"]
    paused = level.run_until(INPUTS, seed=9, **stop)
    assert torch.equal(level.resume(paused, paused.values)["y"], want), "what is given back as it is may be"
    for frame in paused.frames:
        frame.slots = {slot: value if frame.is_read(slot) else torch.full((2, 3), torch.nan) for slot, value in frame.slots.items()}
    assert torch.equal(level.resume(paused)["y"], want)


class Plus(Block):
    outputs = {"y": "tensor"}

    def forward(self, x: Tensor, by: float = 1.0) -> Tensor:
        return x + by


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("node", ["inner/a", "inner/b", "inner", "c"])
@pytest.mark.parametrize("iteration", [0, 1, 2])
def test_a_value_that_is_replaced_has_an_effect_or_is_refused(when: str, node: str, iteration: int) -> None:
    inner, outer = Graph("inner", metadata={"num_loop_steps": 3}), Graph("outer", metadata={"num_loop_steps": 3})
    for graph, children in ((inner, {"a": Plus(), "b": Plus()}), (outer, {"inner": inner, "c": Plus()})):
        (first, _), (second, _) = children.items()
        for name, child in children.items():
            graph.add_node(child, name, auto_connect=False)
        graph.add_edge(f"{first}.y", f"{second}.x")
        graph.add_edge(f"{second}.y", f"{first}.x")
        graph.expose_input(first, "x")
        graph.expose_output(second, "y")
    paused = outer.run_until({"x": torch.zeros(1)}, **{when: node}, iteration=iteration)
    found = set()
    for path, value in paused.values.items():
        try:
            found.add(outer.resume(paused, {path: value + 100})["y"].item())
        except PortError as error:
            found.add(str(error).partition(" any more")[0].replace(repr(path), "it"))
    assert found - {f"{outer.block_id}: nothing reads it"} == {121.0}


def test_values_that_are_no_mapping_are_refused_by_name() -> None:
    name, stop = STOPS[0]
    level = globals()[name]()
    with pytest.raises(PortTypeError, match=r"values is list .*expected a mapping by the paths of paused.values"):
        level.resume(level.run_until(INPUTS, seed=9, **stop), [1])


@pytest.mark.xdist_group("processes")
def test_another_process_goes_on(tmp_path: Path) -> None:
    want: list[Any] = []
    for index, (name, stop) in enumerate(STOPS):
        level = globals()[name]()
        paused = level.run_until(INPUTS, seed=9, **stop)
        paused.save(tmp_path / f"{index}.paused")
        want.append([level.run(INPUTS, seed=9)["y"], level.resume(paused, replaced(paused))["y"]])
    assert sum(not torch.equal(*each) for each in want) > len(want) // 2, "what is replaced is read"
    whole = living()
    whole.run(State(intent=X), seed=5, num_steps=3)
    world = living(tmp_path / "life")
    paused = world.run_until(State(intent=X), before="second/p/first/step", iteration=(1, 2), seed=5, num_steps=3)
    assert (world.life.passes, world.life.stage) == (1, 1), "in its second pass"
    paused.save(tmp_path / "world.paused")
    del world
    subprocess.run([sys.executable, "-c", RESUMED, str(tmp_path)], check=True)
    for index, (name, stop) in enumerate(STOPS):
        found = torch.load(tmp_path / f"{index}.pt")
        assert all(map(torch.equal, found, want[index])), (name, stop)
    assert torch.equal(torch.load(tmp_path / "world.pt"), whole.state.artifacts)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(sketch=st.one_of(dags(), loops()), data=st.data())
def test_any_graph_stops_anywhere(sketch: Sketch, data: st.DataObject, tmp_path: Path) -> None:
    graph = sketch.graph()
    inputs = sketch.tensors()
    ran: list[tuple[str, int | None]] = []
    iteration: list[int | None] = [None]

    def note(event: Any) -> None:
        if event.kind == "loop":
            iteration[0] = event.step
        elif event.kind == "start":
            ran.append((event.path, iteration[0]))

    want = graph.run(inputs, callbacks=note)
    node, _ = data.draw(st.sampled_from(ran))
    when = data.draw(st.sampled_from(["before", "after"]))
    paused = graph.run_until(inputs, **{when: node})
    for _ in range(data.draw(st.integers(0, 2))):
        other, _ = data.draw(st.sampled_from(ran))
        with contextlib.suppress(PortError):  # the rest of the run does not come there
            paused = graph.resume(paused, **{data.draw(st.sampled_from(["before", "after"])): other})
    paused = Paused.load(paused.save(tmp_path / "any"))
    found = graph.resume(paused)
    assert {name: int(value) for name, value in found.items()} == {name: int(value) for name, value in want.items()}


# --- options and errors -----------------------------------------------------------------------------------------------


def test_gradients_go_through_a_stop_and_cannot_be_saved(tmp_path: Path) -> None:
    graph = looped()
    paused = graph.run_until(INPUTS, before="step", iteration=2, seed=7, training=True)
    graph.resume(paused)["y"].sum().backward()
    assert graph.nodes["encode"].linear.weight.grad is not None
    with pytest.raises(StorageError, match="gradients go through"):
        paused.save(tmp_path / "paused")


def test_modes_are_given_back_and_callbacks_hear_of_both_halves() -> None:
    graph = looped()
    told: list[Any] = []
    paused = graph.run_until(INPUTS, before="step", iteration=1, seed=7, callbacks=told.append)
    assert all(module.training for module in graph.modules())
    assert (told[-1].kind, told[-1].step) == ("loop", 1)
    half = len(told)
    graph.resume(paused, callbacks=told.append)
    whole: list[Any] = []
    graph.run(INPUTS, seed=7, callbacks=whole.append)
    starts = [event.path for event in told if event.kind == "start"]
    assert starts == [event.path for event in whole if event.kind == "start"]
    assert half < len(told)


def test_time_limits_of_nodes_hold() -> None:
    graph = looped()
    graph.replace_node("wait", Waits(5.0))
    graph.configure_node("wait", timeout=0.05)
    paused = graph.run_until(INPUTS, before="wait", seed=7)
    with pytest.raises(RunTimeoutError, match="wait took longer than its limit"):
        graph.resume(paused)


def test_what_is_never_reached_is_said() -> None:
    graph = looped()
    with pytest.raises(PortError, match=r"ended without stopping before step in iteration 9; it ran in iterations \(0,\), \(1,\)"):
        graph.run_until(INPUTS, before="step", iteration=9)
    with pytest.raises(PortError, match="ended without stopping after encode in iteration 0; it ran once"):
        graph.run_until(INPUTS, after="encode", iteration=0)


def test_mistakes_are_told() -> None:
    graph = looped()
    with pytest.raises(PortTypeError, match="expected one of before= and after="):
        graph.run_until(INPUTS)
    with pytest.raises(PortTypeError, match="expected one of before= and after="):
        graph.run_until(INPUTS, before="step", after="step")
    with pytest.raises(UnknownNameError, match="there is no node 'stop'.*step"):
        graph.run_until(INPUTS, before="stop")
    with pytest.raises(UnknownNameError, match="is a block and has no nodes"):
        graph.run_until(INPUTS, before="step/linear")
    with pytest.raises(PortTypeError, match="iteration is str"):
        graph.run_until(INPUTS, before="step", iteration="2")
    with pytest.raises(TypeError, match="run_until.. has no option 'dry_run'"):
        graph.run_until(INPUTS, before="step", dry_run=True)
    paused = graph.run_until(INPUTS, before="step", seed=7)
    with pytest.raises(TypeError, match="resume.. has no option 'seed'"):
        graph.resume(paused, seed=3)
    with pytest.raises(PortError, match="expected what run_until"):
        graph.resume({})
    graph.add_node(Encode(), "more", auto_connect=False)
    graph.add_edge("encode.y", "more.x")
    graph.expose_output("more", "y", "more")
    with pytest.raises(PortError, match="its nodes and edges are not what they were"):
        graph.resume(paused)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"nothing")
    with pytest.raises(StorageError, match="no paused run, or damaged"):
        Paused.load(tmp_path / "a")


def test_a_value_of_a_foreign_class_is_named(tmp_path: Path) -> None:
    class Foreign(Block):
        outputs = {"thing": "any"}

        def forward(self, x: Tensor) -> Any:
            return object()

    class Use(Block):
        outputs = {"y": "any"}

        def forward(self, thing: Any) -> int:
            return 1

    graph = Graph("g")
    graph.add_node(Foreign(), "a")
    graph.add_node(Use(), "b")
    graph.add_edge("a.thing", "b.thing")
    graph.infer_exposed_ports()
    paused = graph.run_until({"x": X}, before="b")
    assert graph.resume(paused) == {"y": 1}
    with pytest.raises(StorageError, match=r"b.thing: object .* cannot be stored"):
        paused.save(tmp_path / "paused")


@pytest.mark.parametrize("value", [X.to_sparse(), X.to("meta"), X.to(torch.complex128)], ids=["sparse", "meta", "complex128"])
def test_a_tensor_that_files_have_no_form_for_is_named(value: Tensor, tmp_path: Path) -> None:
    graph = Graph("g")
    graph.add_node(Waits(), "a")
    graph.infer_exposed_ports()
    with pytest.raises(StorageError, match=r"x: Tensor\[.* cannot be stored; expected a dense tensor"):
        graph.run_until({"x": value}, before="a").save(tmp_path / "paused")
    assert not list(tmp_path.iterdir())


def test_a_column_of_a_large_tensor_takes_no_more_than_its_own_memory(tmp_path: Path) -> None:
    graph = Graph("g")
    graph.add_node(Waits(), "a")
    graph.infer_exposed_ports()
    column = torch.randn(300, 3000)[:, 5]
    file = graph.run_until({"x": column}, before="a").save(tmp_path / "paused")
    loaded = Paused.load(file).values["x"]
    assert torch.equal(loaded, column) and loaded.untyped_storage().nbytes() < 2000 and file.stat().st_size < 3000
    assert torch.equal(graph.resume(Paused.load(file))["y"], column * 3)


def test_a_saved_run_goes_on_bit_for_bit_wherever_its_values_lie(tmp_path: Path) -> None:
    """Kernels sum in another order where memory begins elsewhere: a file's, or that of a row of a larger tensor."""

    class Model(Block):
        outputs = {"y": "tensor"}

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * 1.1

    torch.manual_seed(0)
    graph = Graph("g")
    for name in ("a", "b"):
        graph.add_node(Model(), name, auto_connect=False)
    graph.add_edge("a.y", "b.x")
    graph.infer_exposed_ports()
    values = [torch.randn(60)[offset : offset + 8].view(2, 4) for offset in range(20)] + [torch.randn(4, 2).t()]
    with torch.no_grad():
        for number, x in enumerate(values):
            want = graph.run({"x": x})["y"]
            for node in ("a", "b"):
                loaded = Paused.load(graph.run_until({"x": x}, before=node).save(tmp_path / f"{number}{node}"))
                assert torch.equal(graph.resume(loaded)["y"], want), (number, node)
                if node == "a":
                    assert loaded.values["x"].data_ptr() % 64 == x.data_ptr() % 64
                    assert loaded.values["x"].stride() == x.stride()
            for _ in range(2):  # what is kept in a folder as well
                kept = NodeCache(directory=tmp_path / f"cache{number}")
                graph.run({"x": x}, outputs=["a.y"], cache=kept)
                assert torch.equal(graph.run({"x": x}, cache=kept)["y"], want)


def test_a_changed_bit_in_a_saved_run_is_found(tmp_path: Path) -> None:
    graph = chain(Scale(2.0), Scale(3.0))
    path = graph.run_until({"x": torch.ones(64)}, after="n0").save(tmp_path / "it")
    whole = path.read_bytes()
    assert torch.equal(graph.resume(Paused.load(path))["y"], torch.full((64,), 6.0))
    for at in (len(whole) - 1, len(whole) - 200, 60):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(StorageError, match="damaged"):
            Paused.load(path)
