"""Stable Diffusion 3: graphs equal to the pipeline of diffusers on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, check_equal, ours
from wgtorch.core.errors import ConfigError, PortError
from wgtorch.graph import Graph

STEPS = 5
LENGTH = {"max_sequence_length": 32}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.stable_diffusion_3(tmp_path_factory.mktemp("sd3"))


@pytest.mark.parametrize("batched", [True, False])
def test_text_to_image(pipeline: Any, batched: bool) -> None:
    graph = Graph.from_diffusers(pipeline, batched=batched)
    assert graph.nodes["solver"].block_type == "solver/flow_euler"
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, **LENGTH}
    check_equal(pipeline, graph, **call)
    check_equal(pipeline, graph, **call, guidance_scale=1.0)


def test_defaults_are_those_of_the_pipeline(pipeline: Any) -> None:
    check_equal(pipeline, Graph.from_diffusers(pipeline), prompt=PROMPT)


def test_without_t5_and_with_other_prompts_for_the_other_encoders(pipeline: Any, tmp_path: Path) -> None:
    call = {"prompt": "a", "prompt_2": "b", "negative_prompt": "x", "negative_prompt_2": "y", "num_inference_steps": STEPS}
    without = tiny.stable_diffusion_3(tmp_path, t5=False, shift=1.0)
    check_equal(without, Graph.from_diffusers(without), **call, **LENGTH)
    graph = Graph.from_diffusers(pipeline)
    found = check_equal(pipeline, graph, **call, prompt_3="c", negative_prompt_3="z", clip_skip=1, height=16, width=32, **LENGTH)
    assert found.shape == (1, 3, 16, 32)
    several = {"prompt": ["a", "b"], "num_images_per_prompt": 2, "num_inference_steps": STEPS}
    check_equal(pipeline, graph, **several, negative_prompt=["x", "y"], **LENGTH)


def test_a_folder_gives_what_its_pipeline_gives(pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "sd3")
    graph = Graph.from_diffusers(tmp_path / "sd3")
    check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=STEPS, **LENGTH)
    again = Graph.from_config(graph.to_config())
    call = {"prompt": PROMPT, "num_inference_steps": 2, **LENGTH}
    assert torch.equal(ours(again, **call), ours(graph, **call))


def test_what_is_not_supported_says_so(pipeline: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="inpaint of StableDiffusion3Pipeline is not supported; supported: text_to_image"):
        Graph.from_diffusers(pipeline, task="inpaint")
    graph = Graph.from_diffusers(pipeline)
    with pytest.raises(ConfigError, match="Stable Diffusion 3 is not supported yet"):
        graph.to_diffusers(tmp_path / "out")
    with pytest.raises(PortError, match=r"got shape \[2, 4, 7, 8\]; expected \[B, 4, H, W\] with sides that are multiples of 2"):
        graph.run({"prompt": "a", "height": 14, "num_inference_steps": 1})
