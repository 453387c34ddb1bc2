"""``set_solver`` of a graph whose solver has its steps of itself, as that of the painter that ships."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wgtorch import BlockRegistry, Graph
from wgtorch.core.errors import ConfigError

PROMPT = {"prompt": "a castle at night"}


def test_the_shipped_painter_takes_another_solver_of_a_flow() -> None:
    painter, by_hand = (Graph.from_template("text_to_image", steps=2) for _ in range(2))
    euler = painter.run(PROMPT, seed=1)["image"]
    painter.set_solver("solver/flow_heun", num_steps=3)
    config = {**by_hand.nodes["solver"].config, "num_steps": 3}
    by_hand.replace_node("solver", BlockRegistry.build({"block_type": "solver/flow_heun", "config": config}))
    heun = painter.run(PROMPT, seed=1)["image"]
    assert torch.equal(heun, by_hand.run(PROMPT, seed=1)["image"])
    assert not torch.equal(heun, euler)
    painter.set_solver("solver/flow_euler", num_steps=2)
    assert torch.equal(painter.run(PROMPT, seed=1)["image"], euler)


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        ("solver/ddim", "text_to_image has no node schedule, so its solver has its steps of itself, .* known: 'solver/flow_euler'"),
        ("solver/flow_huen", "did you mean 'solver/flow_heun'"),
    ],
)
def test_one_that_walks_no_flow_is_refused_by_name(solver: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Graph.from_template("text_to_image", steps=2).set_solver(solver)
    with pytest.raises(ConfigError, match="empty has no node schedule, solver; expected both, or a solver/flow_... alone"):
        Graph("empty").set_solver(solver)


def test_a_scheduler_that_does_not_walk_what_the_model_predicts_is_refused_before_anything_changes(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from tests.integrations.diffusers import tiny

    painter = Graph.from_diffusers(tiny.stable_diffusion(tmp_path))
    film = Graph.from_diffusers(tiny.wan(), task="text_to_video")  # its settings have use_flow_sigmas, which DDIM's do not know
    for graph, solver, words in (
        (painter, "FlowMatchEulerDiscreteScheduler", "walks a flow and does not fit a model of diffusion"),
        (film, "DDIMScheduler", "does not fit a model that predicts a flow"),
        (film, "LCMScheduler", "does not fit a model that predicts a flow"),
    ):
        before = graph.nodes["solver"]
        with pytest.raises(ConfigError, match=rf"set_solver: {solver} {words}"):
            graph.set_solver(solver)
        assert graph.nodes["solver"] is before
    film.set_solver("solver/dpmpp_2m")
    painter.set_solver("EulerDiscreteScheduler")
