"""Solvers as blocks: in graphs, from several threads, with seeds and gradients, compiled; and what they refuse."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from wgtorch.blocks.diffusion.noise_level import DATA, NoiseLevel, vp_level
from wgtorch.blocks.diffusion.schedules import DiffusionSchedule, FlowSchedule, SamplerState, TimeGrid, shifted_sigmas
from wgtorch.blocks.diffusion.solvers import DDIM, Euler, FlowEuler, GridSolver, StochasticSolver
from wgtorch.core.block import Block, BlockRegistry, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.run.context import RunContext, RunOptions
from wgtorch.core.run.rng import Rng, check_seed
from wgtorch.graph import Graph
from wgtorch.roles import Backbone, Codec, Conditioner, Encoder, Tokenizer

SHAPE = [2, 3, 3]
DIFFUSION = {"kind": "diffusion", "num_steps": 6}
FLOW = {"kind": "flow", "num_steps": 6, "shift": 2.0}
TYPES = (
    "ddim", "ddpm", "dpmpp_2m", "dpmpp_2m_sde", "euler", "euler_ancestral", "flow_euler", "flow_heun", "heun", "lcm", "unipc",
)  # fmt: skip
NOISY = ("ddpm", "dpmpp_2m_sde", "euler_ancestral", "lcm")


def draws_of(seed: int, node: str, *iterations: int) -> Rng:
    """Draws of a node of a seeded run."""
    run = RunContext(RunOptions("g"), key=check_seed(seed, "g"))
    for index in iterations:
        run = run.iteration(index)
    return run.rng(node)


def build(block_type: str, **config: Any) -> Any:
    return BlockRegistry.build({"block_type": block_type, "config": config})


def settings_of(name: str) -> dict[str, Any]:
    return FLOW if name.startswith("flow") else DIFFUSION


class Words(Tokenizer):
    """A token for each character."""

    def forward(self, text: str) -> dict[str, Any]:
        return {"tokens": torch.tensor([[ord(letter) for letter in text]])}


class Mean(Conditioner):
    """Tokens as numbers."""

    def forward(self, tokens: Tensor) -> dict[str, Any]:
        return {"embedding": tokens.float().unsqueeze(-1) / 100}


@register_block("test_solvers/field")
class Field(Backbone):
    """A smooth made-up model with one weight."""

    uses_global_rng = False

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.4))

    def forward(self, latent: Tensor, timestep: float | Tensor, condition: Tensor | None = None) -> dict[str, Any]:
        shift = 0.0 if condition is None else condition.mean(dim=list(range(1, condition.dim()))).view(-1, 1, 1, 1)
        return {"pred": torch.tanh(latent * self.weight + float(timestep) / 900 + shift)}


class Pixels(Codec):
    """Shows the latent as it is."""

    def forward(self, latent: Tensor) -> dict[str, Any]:
        return {"image": latent}


def six_nodes(solver: str, schedule: dict[str, Any] | None = None, **config: Any) -> Graph:
    """Text to image by hand: five nodes and noise."""
    graph = Graph("text_to_image")
    graph.add_node(Words(), "tokenizer")
    graph.add_node(Mean(), "conditioner")
    graph.add_node("test_solvers/field", "backbone")
    graph.add_node("noise/gaussian", "noise", config={"shape": SHAPE, "schedule": schedule or settings_of(solver)})
    graph.add_node(f"solver/{solver}", "solver", config=config)
    graph.add_node(Pixels(), "codec")
    graph.expose_input("tokenizer", "text", "prompt")
    graph.expose_output("codec", "image")
    return graph


def walked(solver: GridSolver, progress: SamplerState, latent: Tensor, backbone: Block, condition: Tensor, noises: Any = None) -> Tensor:
    """The loop by hand."""
    timestep, done = progress.timestep, False
    while not done:
        pred = backbone(latent, timestep, condition)["pred"]
        more = {"noise": next(noises)} if noises is not None else {}
        found = solver(latent, timestep, pred, progress=progress, **more)
        latent, timestep, progress, done = (found[name] for name in ("next_latent", "next_timestep", "progress", "done"))
    return latent


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TYPES)
def test_text_to_image_is_five_nodes_and_noise(name: str) -> None:
    graph = six_nodes(name)
    assert graph.validate().is_valid
    found = graph.run({"prompt": "a"}, seed=3, outputs=["image", "noise.latent", "conditioner.embedding"])
    solver, schedule = graph.nodes["solver"], graph.nodes["noise"].schedule
    noises = None
    if isinstance(solver, StochasticSolver):
        noises = iter(draws_of(3, "solver", turn).normal((1, *SHAPE)) for turn in range(6))
    with torch.no_grad():
        progress = schedule()["progress"]
        expected = walked(solver, progress, found["noise.latent"], graph.nodes["backbone"], found["conditioner.embedding"], noises)
    assert torch.equal(found["image"], expected)
    assert float(expected.abs().max()) < 1e3


@pytest.mark.parametrize("name", sorted(set(TYPES) - set(NOISY)))
def test_the_engine_hands_over_values_alone(name: str) -> None:
    """Every turn of a solver without noise takes the short way through the executor: its inputs are sure to be there."""
    (loop,) = [step for step in six_nodes(name).plan().steps if hasattr(step, "body")]
    assert not any(step.needs for step in loop.body)


def test_the_number_of_steps_may_be_an_input() -> None:
    graph = six_nodes("dpmpp_2m")
    graph.expose_input("noise", "num_steps", "num_inference_steps")
    turns: list[int] = []
    for steps in (3, 9):
        graph.run({"prompt": "a", "num_inference_steps": steps}, seed=0, callbacks=[lambda e: turns.append(e.kind == "loop")])
        assert sum(turns) == steps
        turns.clear()
    whole = six_nodes("dpmpp_2m", {**DIFFUSION, "num_steps": 9})
    assert torch.equal(graph.run({"prompt": "a", "num_inference_steps": 9}, seed=0)["image"], whole.run({"prompt": "a"}, seed=0)["image"])


def test_a_schedule_node_feeds_noise_backbone_guidance_and_solver() -> None:
    graph = Graph("text_to_image")
    graph.add_node(Words(), "tokenizer")
    graph.add_node(Mean(), "conditioner")
    graph.add_node("test_solvers/field", "backbone")
    graph.add_node("schedule/diffusion", "schedule", config={"num_steps": 6})
    graph.add_node("noise/gaussian", "noise", config={"shape": SHAPE})
    graph.add_node("solver/unipc", "solver")
    graph.add_node(Pixels(), "codec")
    graph.expose_input("tokenizer", "text", "prompt")
    graph.expose_output("codec", "image")
    assert graph.validate().is_valid
    expected = six_nodes("unipc").run({"prompt": "a"}, seed=3)["image"]
    assert torch.equal(graph.run({"prompt": "a"}, seed=3)["image"], expected)
    graph.expose_input("schedule", "num_steps")
    other = six_nodes("unipc", {**DIFFUSION, "num_steps": 9}).run({"prompt": "a"}, seed=3)["image"]
    assert torch.equal(graph.run({"prompt": "a", "num_steps": 9}, seed=3)["image"], other)


def test_another_solver_needs_no_other_word() -> None:
    graph = six_nodes("ddim")
    for name in ("unipc", "heun", "euler_ancestral", "ddpm"):
        assert graph.replace_node("solver", build(f"solver/{name}")) == []
        assert torch.equal(graph.run({"prompt": "a"}, seed=3)["image"], six_nodes(name).run({"prompt": "a"}, seed=3)["image"])


@pytest.mark.parametrize(("name", "made"), [("ddim", 6), ("heun", 11)])
def test_iterations_that_are_not_the_schedules_are_warned_of(name: str, made: int) -> None:
    graph = six_nodes(name)
    whole = graph.run({"prompt": "a"}, seed=3)["image"]
    assert torch.equal(graph.run({"prompt": "a"}, seed=3, num_loop_steps=made)["image"], whole)
    with pytest.warns(UserWarning, match=r"num_loop_steps is 2, .*cut before its schedule's end.* set num_steps of the schedule or the"):
        assert not torch.equal(graph.run({"prompt": "a"}, seed=3, num_loop_steps={"solver": 2})["image"], whole)
    with pytest.warns(UserWarning, match=f"num_loop_steps is 60, .*ended after {made}, where its schedule does"):
        assert torch.equal(graph.run({"prompt": "a"}, seed=3, num_loop_steps=60)["image"], whole)
    graph.metadata["num_loop_steps"] = 5
    with pytest.warns(UserWarning, match="num_loop_steps is 5"):
        graph.run({"prompt": "a"}, seed=3)
    paused = graph.run_until({"prompt": "a"}, before="solver", iteration=2, seed=3, num_loop_steps=made)
    assert torch.equal(graph.resume(paused)["image"], whole)


@pytest.mark.parametrize("name", TYPES)
def test_five_nodes_start_from_latents(name: str) -> None:
    """Without a noise node the solver walks a grid of its own, and the loop turns as often as it says."""
    graph = Graph("text_to_image")
    graph.add_node("test_solvers/field", "backbone")
    schedule = {key: value for key, value in settings_of(name).items() if key not in ("kind", "num_steps")}
    graph.add_node(f"solver/{name}", "solver", config={"num_steps": 4, "schedule": schedule})
    graph.expose_input("backbone", "latent")
    graph.expose_input("solver", "latent")
    graph.expose_input("backbone", "timestep")
    graph.expose_input("solver", "timestep")
    graph.expose_output("solver", "next_latent", "latent")
    solver: GridSolver = graph.nodes["solver"]
    grid, latent = solver.own_grid, torch.randn(2, *SHAPE)
    steps: list[tuple[int, int]] = []
    found = graph.run(
        {"latent": latent, "timestep": grid.timesteps[0]},
        seed=1,
        callbacks=[lambda event: steps.append((event.step, event.total)) if event.kind == "loop" else None],
    )["latent"]
    turns = 7 if "heun" in name else 4
    assert steps == [(turn, turns) for turn in range(turns)] and solver.num_loop_steps == turns
    noises = None
    if isinstance(solver, StochasticSolver):
        noises = iter(draws_of(1, "solver", turn).normal((2, *SHAPE)) for turn in range(4))
    with torch.no_grad():
        expected = walked(solver, SamplerState(grid), latent, graph.nodes["backbone"], torch.zeros(2, 1), noises)
    torch.testing.assert_close(found, expected)


def test_image_to_image_from_parts() -> None:
    class Same(Encoder):
        def forward(self, image: Tensor) -> dict[str, Any]:
            return {"latent": image * 2 - 1}

    graph = Graph("image_to_image")
    graph.add_node(Same(), "encoder")
    graph.add_node("noise/image", "noise", config={"schedule": DIFFUSION, "strength": 0.5})
    graph.add_node("test_solvers/field", "backbone")
    graph.add_node("solver/dpmpp_2m", "solver")
    graph.add_node(Pixels(), "codec")
    graph.expose_input("encoder", "image")
    graph.expose_input("noise", "strength")
    graph.expose_output("codec", "image")
    assert graph.validate().is_valid
    image = torch.rand(1, 3, 4, 4)
    turns: list[bool] = []
    found = graph.run({"image": image}, seed=0, outputs=["image", "noise.latent"], callbacks=[lambda e: turns.append(e.kind == "loop")])
    assert sum(turns) == 3
    grid = DiffusionSchedule(num_steps=6).grid().slice(3)
    noise = draws_of(0, "noise").normal((1, 3, 4, 4))
    torch.testing.assert_close(found["noise.latent"], grid.levels[0].alpha * (image * 2 - 1) + grid.levels[0].sigma * noise)
    with torch.no_grad():
        expected = walked(graph.nodes["solver"], SamplerState(grid), found["noise.latent"], graph.nodes["backbone"], torch.zeros(1, 1))
    assert torch.equal(found["image"], expected)
    assert not torch.equal(graph.run({"image": image, "strength": 1.0}, seed=0)["image"], expected)


def test_a_saved_graph_paints_the_same(tmp_path) -> None:
    graph = six_nodes("dpmpp_2m_sde", {**DIFFUSION, "convention": "dpm_solver", "sigmas": "karras"}, variant="heun")
    graph.remove_node("tokenizer")
    graph.remove_node("conditioner")
    graph.expose_input("noise", "condition")
    graph.remove_node("codec")
    graph.expose_output("solver", "next_latent", "latent")
    graph.save(tmp_path / "saved")
    condition = {"condition": torch.zeros(2, 1)}
    assert torch.equal(Graph.load(tmp_path / "saved").run(condition, seed=4)["latent"], graph.run(condition, seed=4)["latent"])


def test_inferred_ports_of_text_to_image_are_its_text_and_its_image() -> None:
    graph = Graph("text_to_image")
    for node_id, block in (("tokenizer", Words()), ("conditioner", Mean()), ("backbone", Field()), ("solver", DDIM()), ("codec", Pixels())):
        graph.add_node(block, node_id)
    graph.infer_exposed_ports()
    assert sorted(graph.get_input_spec()) == ["latent", "text", "timestep"]
    assert list(graph.get_output_spec()) == ["image"]


# --- nothing is kept --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TYPES)
def test_two_threads_share_a_graph(name: str) -> None:
    graph = six_nodes(name)
    prompts = [letter * 3 for letter in "abcdefgh"]
    alone = [graph.run({"prompt": prompt}, seed=index)["image"] for index, prompt in enumerate(prompts)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda job: graph.run({"prompt": job[1]}, seed=job[0])["image"], enumerate(prompts)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("name", TYPES)
def test_a_turn_can_be_made_again(name: str) -> None:
    """The block, the grid and what was remembered are as before, so the same turn gives the same."""
    solver = build(f"solver/{name}")
    progress = (FlowSchedule if name.startswith("flow") else DiffusionSchedule)(num_steps=6)()["progress"]
    latent, timestep = torch.randn(1, *SHAPE), progress.timestep
    more = {"noise": torch.randn(1, *SHAPE)} if isinstance(solver, StochasticSolver) else {}
    for _ in range(3):
        inputs = {"latent": latent, "pred": torch.randn(1, *SHAPE), **more}
        kept = {key: value.clone() for key, value in inputs.items()} | {
            "history": [m if m is None else m.clone() for m in progress.history]
        }
        first = solver(timestep=timestep, progress=progress, **inputs)
        again = solver(timestep=timestep, progress=progress, **inputs)
        assert torch.equal(first["next_latent"], again["next_latent"]) and first["next_timestep"] == again["next_timestep"]
        assert all(torch.equal(inputs[key], kept[key]) for key in inputs)
        pairs = zip(progress.history, kept["history"], strict=True)
        assert all(a is b if b is None else torch.equal(a, b) for a, b in pairs)
        latent, timestep, progress = first["next_latent"], first["next_timestep"], first["progress"]


@pytest.mark.parametrize("name", TYPES)
def test_solvers_are_their_config(name: str) -> None:
    solver = build(f"solver/{name}", num_steps=3)
    for again in (type(solver).from_config(solver.config), copy.deepcopy(solver), pickle.loads(pickle.dumps(solver))):
        assert again.config == solver.config and again.num_loop_steps == solver.num_loop_steps
        tables = [each.coefficients_over(each.own_grid, torch.zeros(1)).table for each in (again, solver)]
        assert torch.equal(*tables)
    assert solver.state_dict() == {} and solver.role == "solver"
    assert list(solver.get_input_spec())[:4] == ["latent", "timestep", "pred", "progress"]
    assert list(solver.get_output_spec()) == ["next_latent", "next_timestep", "progress", "done"]


def test_solvers_of_other_settings_keep_apart_what_they_make_of_a_grid() -> None:
    grid, latent, pred = DiffusionSchedule(num_steps=4).grid(), torch.randn(1, *SHAPE), torch.randn(1, *SHAPE)
    ends = [
        solver(latent, 999, pred, progress=SamplerState(grid))["next_latent"]
        for solver in (DDIM(), DDIM(prediction="sample"), Euler(), DDIM())
    ]
    assert torch.equal(ends[0], ends[3]) and not torch.allclose(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])  # on one grid, deterministic DDIM is Euler's method


# --- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOISY)
def test_noise_belongs_to_its_sample_and_turn(name: str) -> None:
    solver = build(f"solver/{name}")
    progress = DiffusionSchedule(num_steps=6)()["progress"]
    latent, pred = torch.zeros(3, *SHAPE), torch.zeros(3, *SHAPE)
    three = solver(latent, 999, pred, progress=progress, rng=Rng(1, "solver", (0,)))["next_latent"]
    one = solver(latent[:1], 999, pred[:1], progress=progress, rng=Rng(1, "solver", (0,)))["next_latent"]
    other = solver(latent, 999, pred, progress=progress, rng=Rng(1, "solver", (1,)))["next_latent"]
    assert torch.equal(three[:1], one) and not torch.equal(three[0], three[1]) and not torch.equal(three, other)
    given = solver(latent, 999, pred, progress=progress, noise=Rng(1, "solver", (0,)).normal((3, *SHAPE)))["next_latent"]
    assert torch.equal(given, three)


@pytest.mark.parametrize("name", [*NOISY, "ddim"])
def test_nothing_is_drawn_where_noise_has_no_weight(name: str) -> None:
    """At the end, and in DDIM without eta throughout."""
    solver = build(f"solver/{name}")
    grid = DiffusionSchedule(num_steps=6, timestep_spacing="leading").grid()
    turn, memory = len(grid) - 1, tuple(torch.randn(solver.memory, 1, *SHAPE))
    before = torch.get_rng_state()
    solver(torch.zeros(1, *SHAPE), 0, torch.zeros(1, *SHAPE), progress=SamplerState(grid, turn, memory))
    after = torch.get_rng_state()
    assert torch.equal(before, after)
    assert build("solver/ddim").wants_rng is False and build("solver/ddim", eta=0.5).wants_rng is True


def test_without_a_seed_noise_is_pytorchs() -> None:
    solver, progress = build("solver/ddpm"), DiffusionSchedule(num_steps=6)()["progress"]
    latent = torch.zeros(2, *SHAPE)
    torch.manual_seed(5)
    drawn = solver(latent, 999, latent, progress=progress)["next_latent"]
    torch.manual_seed(5)
    assert torch.equal(drawn, solver(latent, 999, latent, progress=progress, noise=torch.randn(2, *SHAPE))["next_latent"])


# --- gradients, precision, compiling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TYPES)
def test_gradients_reach_the_model_and_the_noise(name: str) -> None:
    graph = six_nodes(name)
    graph(prompt="ab")["image"].sum().backward()
    assert float(graph.nodes["backbone"].weight.grad.abs()) > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", TYPES)
def test_latents_keep_their_dtype(name: str, dtype: torch.dtype) -> None:
    solver = build(f"solver/{name}", num_steps=4, threshold={"ratio": 0.9, "max": 2.0}, prediction="v_prediction")
    latent = torch.randn(1, *SHAPE, dtype=dtype)
    found = solver(latent, solver.own_grid.timesteps[0], torch.randn_like(latent))
    assert found["next_latent"].dtype == dtype and all(t.dtype == dtype for t in found["progress"].history if t is not None)


@pytest.mark.parametrize("name", TYPES)
def test_an_iteration_told_by_a_tensor_is_the_same(name: str) -> None:
    """What a compiled loop is: its counter is a tensor, which says where in the table of coefficients to look."""
    solver = build(f"solver/{name}")
    progress = (FlowSchedule if name.startswith("flow") else DiffusionSchedule)(num_steps=5)()["progress"]
    latent, timestep, done = torch.randn(1, *SHAPE, dtype=torch.float64), progress.timestep, False
    more = {"noise": torch.randn_like(latent)} if isinstance(solver, StochasticSolver) else {}
    traced = solver.initial_state(latent, timestep, progress)
    while not done:
        inputs = {"latent": latent, "timestep": timestep, "pred": torch.randn_like(latent), **more}
        found = solver(**inputs, progress=progress)
        again = solver(**inputs, progress=traced._replace(iteration=torch.tensor(traced.iteration)))
        for port in ("next_latent", "next_timestep", "done"):
            torch.testing.assert_close(again[port], torch.as_tensor(found[port], dtype=again[port].dtype), rtol=0, atol=0)
        latent, timestep, progress, done = (found[key] for key in ("next_latent", "next_timestep", "progress", "done"))
        traced = again["progress"]._replace(iteration=int(again["progress"].iteration))


@pytest.mark.parametrize("name", ["ddim", "unipc", "heun", "flow_euler"])
def test_the_block_itself_compiles_without_a_break(name: str) -> None:
    torch.compiler.reset()
    solver = build(f"solver/{name}")
    progress = (FlowSchedule if name.startswith("flow") else DiffusionSchedule)(num_steps=3)()["progress"]

    def loop(latent: Tensor) -> Tensor:
        step, timestep, done = progress, progress.timestep, False
        while not done:
            found = solver(latent, timestep, torch.tanh(latent), progress=step)
            latent, timestep, step, done = (found[key] for key in ("next_latent", "next_timestep", "progress", "done"))
        return latent

    latent = torch.randn(1, *SHAPE)
    torch.testing.assert_close(torch.compile(loop, fullgraph=True, backend="eager")(latent), loop(latent))


# --- flows, for the painter -------------------------------------------------------------------------------------------


def test_a_painter_of_data_takes_the_formula_as_it_is_written() -> None:
    """x + (s' - s) ((x - x0) / s)."""
    solver = FlowEuler(num_steps=12, prediction="x0")
    latent = torch.randn(2, *SHAPE)
    expected, progress, sigmas = latent, None, shifted_sigmas(12)
    for turn in range(12):
        pred = torch.sin(latent)
        found = solver(latent, sigmas[turn], pred, progress=progress)
        expected = expected + (sigmas[turn + 1] - sigmas[turn]) * ((expected - pred) / sigmas[turn])
        latent, progress = found["next_latent"], found["progress"]
        torch.testing.assert_close(latent, expected, rtol=1e-6, atol=1e-6)
        assert found["next_timestep"] == sigmas[turn + 1] and found["done"] is (turn == 11)


def test_a_last_step_may_lead_nowhere() -> None:
    """A grid that ends where its last step starts."""
    progress = FlowSchedule(num_steps=3, num_train_timesteps=1, final_sigmas_type="sigma_min")()["progress"]
    latent, pred = torch.randn(2, 1, *SHAPE)
    for prediction in ("sample", "flow"):
        last = SamplerState(progress.grid, 2)
        assert torch.equal(FlowEuler(prediction=prediction)(latent, 1 / 3, pred, progress=last)["next_latent"], latent)


def test_a_loop_may_start_in_the_middle() -> None:
    solver = FlowEuler(num_steps=4)
    latent, pred = torch.randn(2, 1, *SHAPE)
    found = solver(latent, torch.tensor(0.5), pred)
    assert found["next_timestep"] == 0.25 and not found["done"]
    torch.testing.assert_close(found["next_latent"], latent - 0.25 * pred)


# --- what they refuse -------------------------------------------------------------------------------------------------


def test_a_timestep_that_is_not_on_the_grid() -> None:
    words = r"solver/ddim\.timestep: found 1, expected one of this solver's own 20 timesteps 999, 949, .*Start the loop at 999, or feed"
    with pytest.raises(PortError, match=words):
        DDIM()(torch.zeros(1, *SHAPE), 1.0, torch.zeros(1, *SHAPE))


def test_one_turn_too_many() -> None:
    solver, zeros = FlowEuler(num_steps=1), torch.zeros(1, *SHAPE)
    found = solver(zeros, 1.0, zeros)
    assert found["done"] is True
    with pytest.raises(PortError, match="the grid of 1 iterations is walked to its end; expected the loop to stop at `done`"):
        solver(zeros, 0.0, zeros, progress=found["progress"])


def test_two_numbers_of_steps() -> None:
    graph = six_nodes("ddim", num_steps=4)
    with pytest.raises(PortError, match="told num_steps = 4, but progress brings a grid of 6 steps; leave num_steps out of one"):
        graph.run({"prompt": "a"}, seed=0)
    assert six_nodes("ddim", num_steps=6).run({"prompt": "a"}, seed=0)["image"].isfinite().all()


@pytest.mark.parametrize("name", ["ddim", "unipc", "flow_euler"])
def test_a_prediction_of_another_shape(name: str) -> None:
    solver = build(f"solver/{name}", num_steps=4)
    with pytest.raises(
        PortError, match=r"pred: found shape \[1, 4, 3, 3\] for a latent of \[1, 2, 3, 3\]; expected the same.*learned_range"
    ):
        solver(torch.zeros(1, *SHAPE), solver.own_grid.timesteps[0], torch.zeros(1, 4, 3, 3))
    with pytest.raises(PortError, match=r"found shape \[1, 2, 3, 3\] for a latent of \[5, 2, 3, 3\]"):
        solver(torch.zeros(5, *SHAPE), solver.own_grid.timesteps[0], torch.zeros(1, *SHAPE))


def test_a_learned_variance_needs_twice_the_channels() -> None:
    solver = build("solver/ddpm", num_steps=4, variance="learned_range")
    with pytest.raises(
        PortError, match=r"found shape \[1, 2, 3, 3\] for a latent of \[1, 2, 3, 3\]; expected \[1, 4, 3, 3\], of which the second half"
    ):
        solver(torch.zeros(1, *SHAPE), 999, torch.zeros(1, *SHAPE))


@pytest.mark.parametrize("name", ["flow_euler", "flow_heun"])
def test_a_flow_solver_on_a_diffusion_grid(name: str) -> None:
    progress, zeros = DiffusionSchedule(num_steps=4)()["progress"], torch.zeros(1, *SHAPE)
    with pytest.raises(ValueError, match=r"which no flow has \(alpha \+ sigma = 1\); expected a grid of schedule/flow"):
        build(f"solver/{name}")(zeros, 999, zeros, progress=progress)


@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "heun"])
def test_a_solver_in_sigma_on_a_grid_of_pure_noise(name: str) -> None:
    progress, zeros = FlowSchedule(num_steps=4)()["progress"], torch.zeros(1, *SHAPE)
    with pytest.raises(ValueError, match=r"the grid starts at pure noise \(alpha = 0\).*solver/flow_euler"):
        build(f"solver/{name}", prediction="flow")(zeros, 1000, zeros, progress=progress)


def test_a_model_of_noise_on_a_grid_of_pure_noise() -> None:
    progress = DiffusionSchedule(num_steps=4, rescale_betas_zero_snr=True)()["progress"]
    zeros = torch.zeros(1, *SHAPE)
    with pytest.raises(ValueError, match="prediction 'epsilon' at alpha = 0.*use a v_prediction model"):
        DDIM()(zeros, 999, zeros, progress=progress)
    assert DDIM(prediction="v_prediction")(zeros, 999, zeros, progress=progress)["next_timestep"] == 749


@pytest.mark.parametrize(
    ("solver", "config", "words"),
    [
        ("ddim", {"eta": 1.5}, "DDIM.eta: found 1.5, expected a number from 0 to 1"),
        ("ddim", {"clip": 0.0}, "DDIM.clip: found 0.0, expected a number above 0"),
        ("ddpm", {"threshold": {"ratio": 0.9}}, r"DDPM.threshold: found {'ratio': 0.9}, expected {'ratio': ..., 'max': ...}"),
        ("ddpm", {"variance": "fixed"}, "DDPM.variance: found 'fixed', expected one of fixed_small, fixed_large, learned_range"),
        ("dpmpp_2m", {"variant": "bh2"}, "DPMpp2M.variant: found 'bh2', expected one of midpoint, heun"),
        ("unipc", {"order": 4}, "UniPC.order: found 4, expected 1, 2 or 3"),
        ("unipc", {"variant": "midpoint"}, "UniPC.variant: found 'midpoint', expected one of bh1, bh2"),
        ("euler", {"prediction": "nois"}, "Euler.prediction: found 'nois', expected one of epsilon, sample, v_prediction, flow"),
        ("heun", {"num_steps": 0}, "num_steps: found 0, expected a whole number of at least 1"),
    ],
)
def test_settings_that_make_no_sense(solver: str, config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(f"solver/{solver}", **config)


# --- starts -----------------------------------------------------------------------------------------------------------


def test_noise_is_scaled_as_the_grid_asks() -> None:
    noise = build("noise/gaussian", shape=SHAPE, schedule={**DIFFUSION, "convention": "euler", "timestep_spacing": "linspace"})
    found = noise(condition=torch.zeros(2, 1), rng=Rng(1))
    scale = found["progress"].grid.start_scale
    assert scale == found["progress"].grid.levels[0].sigma < 1
    torch.testing.assert_close(found["latent"], Rng(1).normal((2, *SHAPE)) * scale)
    assert found["timestep"] == 999.0


def test_starts_that_contradict_themselves() -> None:
    with pytest.raises(ValueError, match="got a timestep and a schedule, which has its own; leave timestep out"):
        build("noise/gaussian", shape=SHAPE, timestep=1.0, schedule=DIFFUSION)
    with pytest.raises(PortError, match="got num_steps, but has no schedule of its own; give it one"):
        build("noise/gaussian", shape=SHAPE)(condition=torch.zeros(1, 1), num_steps=4)
    with pytest.raises(PortError, match="nothing says where the loop starts; give it a schedule, or add a schedule node"):
        build("noise/image")(image_latent=torch.zeros(1, *SHAPE))
    with pytest.raises(PortError, match="got strength, but has no schedule of its own"):
        build("noise/image")(
            image_latent=torch.zeros(1, *SHAPE), strength=0.5, progress=SamplerState(TimeGrid((1.0,), (vp_level(1.0), DATA)))
        )


def test_an_image_start_beside_a_schedule_node() -> None:
    progress = SamplerState(TimeGrid((1.0,), (NoiseLevel(0.6, 0.8), DATA)))
    image, noise = torch.randn(2, 1, *SHAPE)
    found = build("noise/image")(image_latent=image, progress=progress, noise=noise)
    torch.testing.assert_close(found["latent"], 0.6 * image + 0.8 * noise)
    assert found["timestep"] == 1.0 and "progress" not in found
