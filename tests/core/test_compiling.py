"""Loops that are compiled: the body once, alone by ``compile()`` or within a graph that torch.compile takes whole."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import EagerAndRecordGraphs

import wgtorch.catalogue  # noqa: F401
from tests.blocks_for_tests import Affine, as_pipeline, as_stage, chain, counter
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.graph import Graph
from wgtorch.roles import Backbone
from wgtorch.world import World

SOLVERS = ("ddim", "dpmpp_2m_sde", "heun", "unipc", "flow_euler")


class Net(Backbone):
    """A small convolutional backbone that knows the time."""

    uses_global_rng = False

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.enter, self.leave = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))

    def forward(self, latent: Tensor, timestep: float | Tensor, condition: Tensor | None = None) -> dict[str, Any]:
        time = torch.as_tensor(timestep, dtype=latent.dtype) / 1000
        return {"pred": self.leave(torch.tanh(self.enter(latent)) * (1 + time))}


def sampler(solver: str = "ddim", steps: int | None = None) -> Graph:
    """A schedule, a backbone and a solver; latents come from outside."""
    kind = "flow" if solver.startswith("flow") else "diffusion"
    graph = Graph("sampler")
    graph.add_node(f"schedule/{kind}", "schedule", config={"num_steps": steps or 4})
    graph.add_node(Net(), "net")
    graph.add_node(f"solver/{solver}", "solver")
    graph.expose_input("schedule", "num_steps")
    for node in ("net", "solver"):
        graph.expose_input(node, "latent")
    graph.expose_output("solver", "next_latent", "latent")
    return graph


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def latent() -> Tensor:
    return torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(7))


def sizes(graphs: list[torch.fx.GraphModule]) -> dict[str, int]:
    """Operations of graphs and of the graphs inside them, by name."""
    found: dict[str, int] = {}
    for index, graph in enumerate(graphs):
        for name, part in graph.named_modules():
            if isinstance(part, torch.fx.GraphModule):
                found[f"{index}{name}"] = sum(node.op in ("call_function", "call_method") for node in part.graph.nodes)
    return found


# --- compile() --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_body_is_compiled_once_for_all_turns_and_runs(solver: str, latent: Tensor) -> None:
    eager, graph, seen = sampler(solver), sampler(solver), EagerAndRecordGraphs()
    graph.compile(backend=seen, fullgraph=True)
    for steps in (4, 9):
        inputs = {"latent": latent * steps, "num_steps": steps}
        expected = eager.run(inputs, seed=3)["latent"]
        torch.testing.assert_close(graph.run(inputs, seed=3)["latent"], expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert len(seen.graphs) == 1


def test_twenty_steps_do_not_recompile(latent: Tensor) -> None:
    graph, seen = sampler("unipc"), EagerAndRecordGraphs()
    graph.compile(backend=seen, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        graph.run({"latent": latent, "num_steps": 20})
        graph.run({"latent": -latent, "num_steps": 7})
    assert len(seen.graphs) == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # that dynamo looks at
def test_call_and_run_use_it_and_gradients_pass(latent: Tensor) -> None:
    eager, graph, seen = sampler(), sampler(), EagerAndRecordGraphs()
    graph.compile(backend=seen, fullgraph=True)
    for each in (eager, graph):
        each(latent=latent)["latent"].square().sum().backward()
    assert seen.graphs
    for mine, theirs in zip(graph.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(graph.run({"latent": latent})["latent"], graph(latent=latent)["latent"])


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_with_checkpointing_too(latent: Tensor) -> None:
    eager, graph = sampler(), sampler().gradient_checkpointing()
    graph.compile(backend="aot_eager", fullgraph=True)
    for each in (eager, graph):
        each(latent=latent)["latent"].square().sum().backward()
    for mine, theirs in zip(graph.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_it_is_in_neither_config_nor_state_dict() -> None:
    graph = Graph.from_config(counter(3).to_config())
    names, config = list(graph.state_dict()), graph.to_config()
    graph.compile(backend="eager")
    graph(x=torch.ones(2))
    assert (list(graph.state_dict()), graph.to_config()) == (names, config)


def test_a_copy_compiles_for_itself(latent: Tensor) -> None:
    graph, seen = sampler(), EagerAndRecordGraphs()
    graph.compile(backend=seen)
    graph.run({"latent": latent})
    twin = copy.deepcopy(graph)
    with torch.no_grad():
        twin.nodes["net"].leave.bias.add_(1.0)
    expected = sampler()
    expected.load_state_dict(twin.state_dict())
    torch.testing.assert_close(twin.run({"latent": latent})["latent"], expected.run({"latent": latent})["latent"], rtol=1e-4, atol=1e-4)
    assert len(seen.graphs) == 2


def test_a_graph_that_can_be_compiled_can_be_pickled(latent: Tensor) -> None:
    graph = sampler()
    graph.compile(backend="eager")
    expected = graph.run({"latent": latent})["latent"]
    again = pickle.loads(pickle.dumps(graph))
    torch.testing.assert_close(again.run({"latent": latent})["latent"], expected)


def test_two_threads_at_once(latent: Tensor) -> None:
    eager, graph = sampler(), sampler()
    graph.compile(backend="eager")
    graph.run({"latent": latent})
    found: dict[int, Tensor] = {}
    threads = [
        threading.Thread(target=lambda k=k: found.update({k: graph.run({"latent": k * latent, "num_steps": 3 + k})["latent"]}))
        for k in (1, 2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in (1, 2, 3):
        expected = eager.run({"latent": k * latent, "num_steps": 3 + k})["latent"]
        torch.testing.assert_close(found[k], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_every_level_calls_down(latent: Tensor) -> None:
    graph, seen = counter(3), EagerAndRecordGraphs()
    world = World("w")
    world.add_stage(as_stage(graph), "stage")
    world.set_cycle(["stage"])
    world.compile(backend=seen, fullgraph=True)
    assert as_pipeline(graph).run({"x": torch.ones(2)})["y"].tolist() == [8.0, 8.0]
    assert len(seen.graphs) == 1


def test_without_a_loop_it_is_pytorchs_own() -> None:
    graph, seen = chain(Affine(4, seed=1), Affine(4, seed=2)), EagerAndRecordGraphs()
    expected = graph(x=torch.ones(2, 4))["y"]
    graph.compile(backend=seen, fullgraph=True)
    assert torch.equal(graph.run({"x": torch.ones(2, 4)})["y"], expected.detach())
    assert sizes(seen.graphs) == {"0": 2}


def test_a_change_of_structure_is_followed(latent: Tensor) -> None:
    graph, expected = sampler("ddim"), sampler("heun")
    graph.compile(backend="eager")
    before = graph.run({"latent": latent})["latent"]
    graph.replace_node("solver", BlockRegistry.build({"block_type": "solver/heun"}))
    after = graph.run({"latent": latent})["latent"]
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, expected.run({"latent": latent})["latent"], rtol=1e-4, atol=1e-3)


class Pump(Block):
    """Draws from the run's generator, in Python."""

    outputs = {"y": "tensor"}

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return x + (rng or GLOBAL_RNG).normal(x.shape)


class Stubborn(Block):
    """Cannot be traced, and says so."""

    outputs = {"y": "tensor"}
    compiles = False

    def forward(self, x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x * float(x.sum() > 0)


def test_nodes_that_cannot_be_compiled_stand_between_segments() -> None:
    def build() -> Graph:
        graph = Graph("g", metadata={"num_loop_steps": 3})
        for name, block in (("a", Affine(4, seed=1)), ("pump", Pump()), ("b", Affine(4, seed=2)), ("stubborn", Stubborn())):
            graph.add_node(block, name)
        for ends in ("a.y pump.x", "pump.y b.x", "b.y stubborn.x", "stubborn.y a.x"):
            graph.add_edge(*ends.split())
        graph.expose_input("a", "x")
        graph.expose_output("stubborn", "y")
        return graph

    x, graph, seen = torch.ones(2, 4), build(), EagerAndRecordGraphs()
    expected = build().run({"x": x}, seed=4)["y"]
    graph.compile(backend=seen, fullgraph=True)
    torch.testing.assert_close(graph.run({"x": x}, seed=4)["y"], expected)
    assert len(seen.graphs) == 2


def guided() -> Graph:
    """A sampler with guidance in the upper half of the timesteps, its scale exposed."""
    graph = sampler()
    graph.add_node(Net(width=8), "other", auto_connect=False)
    graph.add_node("guidance/cfg", "guidance", config={"interval": [400, 1000]}, auto_connect=False)
    graph.remove_edge("net.pred", "solver.pred")
    for source, port in (("schedule.timestep", "timestep"), ("solver.next_timestep", "timestep"), ("solver.next_latent", "latent")):
        graph.add_edge(source, f"other.{port}")
    for ends in ("net.pred guidance.pred_cond", "other.pred guidance.pred_uncond", "guidance.pred_guided solver.pred"):
        graph.add_edge(*ends.split())
    for source in ("schedule.timestep", "solver.next_timestep"):
        graph.add_edge(source, "guidance.timestep")
    graph.expose_input("other", "latent")
    graph.expose_input("guidance", "scale")
    return graph


@pytest.mark.parametrize("levels", [1, 2])
def test_a_level_that_draws_inside_a_compiled_loop_draws_what_it_did(levels: int) -> None:
    """What an inner level's blocks draw is keyed by their own places, however deep, whether the loop around them is compiled or not."""

    def looped() -> Graph:
        inner = chain(Pump(), Affine(4, seed=1))
        for depth in range(levels - 1):
            outer = Graph(f"outer{depth}")
            outer.add_node(inner, "inner")
            outer.infer_exposed_ports()
            inner = outer
        graph = Graph("g", metadata={"num_loop_steps": 3})
        graph.add_node(inner, "body", auto_connect=False)
        graph.add_node(Affine(4, seed=2), "after", auto_connect=False)
        graph.add_edge("body.y", "after.x")
        graph.add_edge("after.y", "body.x")
        graph.expose_input("body", "x", "x")
        graph.expose_output("after", "y", "y")
        return graph

    plain, compiled = looped(), looped()
    compiled.compile(backend="aot_eager")
    x = torch.zeros(2, 4)
    for seed in (7, [1, 2]):
        torch.testing.assert_close(compiled.run({"x": x}, seed=seed)["y"], plain.run({"x": x}, seed=seed)["y"])


def test_an_input_that_comes_and_goes(latent: Tensor) -> None:
    """What is absent in the first run is heard of in the second; the interval of guidance is told by a tensor."""
    eager, graph, seen = guided(), guided(), EagerAndRecordGraphs()
    graph.compile(backend=seen, fullgraph=True)
    for more in ({}, {"scale": 5.0}, {"scale": 1.5}, {}):
        expected = eager.run({"latent": latent, **more})["latent"]
        found = graph.run({"latent": latent, **more})["latent"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert len(seen.graphs) == 2, "one with a scale and one without"


def test_events_of_a_compiled_loop_are_its_turns(latent: Tensor) -> None:
    graph, steps = sampler(), []
    graph.compile(backend="eager")
    graph.run({"latent": latent}, callbacks=[lambda event: steps.append(event.step) if event.kind == "loop" else None])
    assert steps == [0, 1, 2, 3]


def test_a_dry_run_compiles_nothing(latent: Tensor) -> None:
    graph, seen = sampler(), EagerAndRecordGraphs()
    graph.compile(backend=seen)
    graph.run({"latent": latent}, dry_run=True)
    graph.run({"latent": latent}, dry_run="fake")
    assert not seen.graphs


def test_a_failing_backend_says_what_compiled(latent: Tensor) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler")

    graph = sampler()
    graph.compile(backend=broken)
    with pytest.raises(Exception, match="no compiler") as caught:
        graph.run({"latent": latent})
    assert "compile(backend='aot_eager')" in " ".join(caught.value.__notes__)


# --- torch.compile of the whole ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # PyTorch's own import, for gradients of a scan
@pytest.mark.parametrize(
    ("training", "solver"),
    [
        (False, "heun"),
        (True, "dpmpp_2m"),
        (True, "euler_ancestral"),
        *[pytest.param(*each, marks=pytest.mark.slow) for each in product((False, True), ("ddim", "unipc", "flow_euler"))],
    ],
)
def test_the_whole_holds_the_body_once(solver: str, training: bool, latent: Tensor) -> None:
    """With gradients and without, the graph is as large for sixteen steps as for fifty."""
    found = {}
    for steps in (16, 50):
        torch._dynamo.reset()
        graph, seen = sampler(solver, steps), EagerAndRecordGraphs()
        whole = torch.compile(graph, fullgraph=True, backend=seen)
        with torch.set_grad_enabled(training):
            got = whole(latent=latent)["latent"]
        if solver != "euler_ancestral":  # which draws
            expected = graph.run({"latent": latent})["latent"]
            torch.testing.assert_close(got.detach(), expected, rtol=1e-5, atol=1e-4 * float(expected.abs().max()))
        found[steps] = sizes(seen.graphs)
    assert found[16] == found[50]
    assert len(found[16]) == 2, "the whole, and the body in it"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("solver", ["ddim", pytest.param("unipc", marks=pytest.mark.slow)])
def test_gradients_of_the_whole(solver: str, latent: Tensor) -> None:
    graph = sampler(solver)
    graph(latent=latent)["latent"].square().sum().backward()
    expected = [p.grad.clone() for p in graph.parameters()]  # type: ignore[union-attr]
    graph.zero_grad()
    torch.compile(graph, fullgraph=True, backend="aot_eager")(latent=latent)["latent"].square().sum().backward()
    for mine, theirs in zip(graph.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.grad, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_noise_in_the_whole_is_drawn_anew_in_every_iteration() -> None:
    graph = Graph("g", metadata={"num_loop_steps": 4})
    graph.add_node(Pump(), "pump")
    graph.add_edge("pump.y", "pump.x")
    graph.expose_input("pump", "x")
    graph.expose_output("pump", "y")
    drawn = []
    with torch.no_grad():
        for steps in (3, 4):
            graph.metadata["num_loop_steps"] = steps
            torch._dynamo.reset()
            torch.manual_seed(1)
            drawn.append(torch.compile(graph, fullgraph=True, backend="eager")(x=torch.zeros(6))["y"])
    torch.manual_seed(1)
    noises = [torch.randn(6) for _ in range(4)]
    torch.testing.assert_close(drawn, [sum(noises[:3]), sum(noises)])


def rings(steps: int) -> Graph:
    """Two nodes in a loop without a solver, of which one gives more than what travels."""
    graph = Graph("g", metadata={"num_loop_steps": steps})
    for name, block in (("a", Affine(4, seed=1)), ("b", Affine(4, seed=2))):
        graph.add_node(block, name)
    graph.add_edge("a.y", "b.x")
    graph.add_edge("b.y", "a.x")
    graph.expose_input("a", "x")
    graph.expose_output("a", "y", "middle")
    graph.expose_output("b", "y")
    return graph


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("training", [False, True])
def test_a_loop_without_a_solver_is_one_operation_too(training: bool) -> None:
    x, found = torch.ones(2, 4), {}
    for steps in (1, 2, 3, 20, 40):
        torch._dynamo.reset()
        seen = EagerAndRecordGraphs()
        with torch.set_grad_enabled(training):
            got = torch.compile(rings(steps), fullgraph=True, backend=seen)(x=x)
        torch.testing.assert_close(got, dict(rings(steps)(x=x)))
        found[steps] = sizes(seen.graphs)
    assert found[3] == found[20] == found[40]
    assert len(found[1]) == 1 and len(found[20]) == 2


class Counting(Block):
    """Keeps a Python number, which is compiled in."""

    outputs = {"y": "tensor", "count": "any"}

    def forward(self, x: Tensor, count: Any = 0) -> dict[str, Any]:
        return {"y": x + count, "count": count + 1}


def test_numbers_travel_as_tensors() -> None:
    graph = Graph("g", metadata={"num_loop_steps": 12})
    graph.add_node(Counting(), "c")
    graph.add_edge("c.y", "c.x")
    graph.add_edge("c.count", "c.count")
    graph.expose_input("c", "x")
    graph.expose_output("c", "y")
    with torch.no_grad():
        found = torch.compile(graph, fullgraph=True, backend="eager")(x=torch.zeros(2))["y"]
    assert found.tolist() == [66.0, 66.0]


class Growing(Block):
    """Its output is longer than its input."""

    outputs = {"y": "tensor"}

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.sum(0, keepdim=True)])


def test_what_changes_its_shape_is_unrolled() -> None:
    graph = Graph("g", metadata={"num_loop_steps": 3})
    graph.add_node(Growing(), "grow")
    graph.add_edge("grow.y", "grow.x")
    graph.expose_input("grow", "x")
    graph.expose_output("grow", "y")
    found = torch.compile(graph, fullgraph=True, backend="eager")(x=torch.ones(1))["y"]
    assert found.tolist() == [1.0, 1.0, 2.0, 4.0]


def test_done_ends_the_whole_before_the_number_of_iterations_does(latent: Tensor) -> None:
    graph = sampler("ddim", 3)
    graph.metadata["num_loop_steps"] = 5
    with torch.no_grad():
        got = torch.compile(graph, fullgraph=True, backend="eager")(latent=latent)["latent"]
        with pytest.warns(UserWarning, match="num_loop_steps is 5, .*ended after 3, where its schedule does"):
            torch.testing.assert_close(got, graph(latent=latent)["latent"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # that dynamo looks at
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own import
def test_inductor_gives_the_same(latent: Tensor) -> None:
    graph = sampler()
    expected = graph(latent=latent)["latent"]
    expected.square().sum().backward()
    gradients = [p.grad.clone() for p in graph.parameters()]  # type: ignore[union-attr]
    for compiled in (torch.compile(graph, fullgraph=True), copy.deepcopy(graph)):
        compiled.zero_grad()
        if isinstance(compiled, Graph):
            compiled.compile()
        found = compiled(latent=latent)["latent"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        found.square().sum().backward()
        for mine, theirs in zip(compiled.parameters(), gradients, strict=True):
            torch.testing.assert_close(mine.grad, theirs, rtol=1e-4, atol=1e-3)
