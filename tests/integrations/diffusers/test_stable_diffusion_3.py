"""Stable Diffusion 3: graphs equal to the pipeline of diffusers on the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, check_equal, half_mask, ours, picture, theirs
from wgtorch.blocks.diffusion.guidance import PerturbedAttention
from wgtorch.core.errors import ConfigError, PortError
from wgtorch.graph import Graph

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of their code, about numpy 2
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


def as_task(pipeline: Any, task: str, schedule: str = "flow_euler") -> Any:
    """The pipeline of a task on the same models."""
    import diffusers

    name = {"text_to_image": "", "image_to_image": "Img2Img", "inpaint": "Inpaint"}[task]
    parts = {**pipeline.components, "scheduler": tiny.flow_scheduler(schedule)}
    return getattr(diffusers, f"StableDiffusion3{name}Pipeline")(**parts)


@pytest.mark.parametrize("schedule", list(tiny.FLOWS))
def test_every_scheduler_of_flows(pipeline: Any, schedule: str) -> None:
    same = as_task(pipeline, "text_to_image", schedule)
    graph = Graph.from_diffusers(same)
    native = {"flow_unipc": "solver/unipc", "flow_dpmpp_2m": "solver/dpmpp_2m", "flow_heun": "solver/flow_heun"}
    wrapped = dict.fromkeys(("flow_linear", "flow_unipc_dynamic", "flow_stochastic", "flow_lcm"), "solver/diffusers")
    assert graph.nodes["solver"].block_type == {**native, **wrapped}.get(schedule, "solver/flow_euler")
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, **LENGTH}
    found = check_equal(same, graph, **call)
    if "tokens" in graph.nodes:
        larger = check_equal(same, graph, **call, height=32, width=24)
        assert larger.shape == (1, 3, 32, 24)
        other = check_equal(same, graph, **call, mu=1.7)
        assert (other - found).abs().max() > 1e-3


@pytest.mark.parametrize("strength", [0.5, 0.6, 1.0])
@pytest.mark.parametrize("schedule", ["flow_euler", "flow_dynamic", "flow_karras", "flow_linear", "flow_heun"])
def test_image_to_image(pipeline: Any, schedule: str, strength: float) -> None:
    same = as_task(pipeline, "image_to_image", schedule)
    graph = Graph.from_diffusers(same, task="image_to_image")
    call = {"prompt": PROMPT, "image": picture(20), "num_inference_steps": STEPS, **LENGTH}
    found = check_equal(same, graph, strength=strength, **call)
    assert found.shape == (1, 3, 16, 16)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Their inpainting pipeline wants sixteen channels."""
    return tiny.stable_diffusion_3(tmp_path_factory.mktemp("wide"), t5=False, channels=16)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("schedule", ["flow_euler", "flow_dynamic", "flow_linear", "flow_heun"])
def test_inpainting_with_a_model_that_knows_no_masks(wide: Any, schedule: str, strength: float) -> None:
    same = as_task(wide, "inpaint", schedule)
    graph = Graph.from_diffusers(same, task="inpaint")
    call = {"prompt": PROMPT, "image": picture(16), "mask_image": half_mask(16), "num_inference_steps": STEPS, **LENGTH}
    check_equal(same, graph, strength=strength, **call)


def test_defaults_of_the_tasks_on_images(wide: Any) -> None:
    call = {"prompt": ["a", "b"], "image": picture(16), **LENGTH}
    check_equal(as_task(wide, "image_to_image"), Graph.from_diffusers(wide, task="image_to_image"), **call)
    call["mask_image"] = half_mask(16)
    check_equal(as_task(wide, "inpaint"), Graph.from_diffusers(wide, task="inpaint", batched=False), **call)


@pytest.mark.parametrize("batched", [True, False])
def test_inpainting_with_a_model_that_was_trained_to(tmp_path: Path, batched: bool) -> None:
    same = as_task(tiny.stable_diffusion_3(tmp_path, t5=False, channels=16, in_channels=33), "inpaint")
    graph = Graph.from_diffusers(same, task="inpaint", batched=batched)
    assert "blend" not in graph.nodes
    call = {"prompt": PROMPT, "image": picture(16), "mask_image": half_mask(16), "num_inference_steps": STEPS, "strength": 1.0, **LENGTH}
    graph.expose_input("masked_encoder", "noise", "posterior")
    torch.manual_seed(3)
    given = {name: torch.randn(1, 16, 8, 8) for name in ("latents", "posterior")}
    torch.testing.assert_close(ours(graph, **call, **given), theirs(same, **call), rtol=0, atol=1e-4)


@pytest.mark.parametrize("task", ["text_to_image", "image_to_image"])
@pytest.mark.parametrize("schedule", ["flow_euler", "flow_dynamic", "flow_karras", "flow_linear"])
def test_sigmas_of_a_runs_own(pipeline: Any, schedule: str, task: str) -> None:
    same = as_task(pipeline, task, schedule)
    graph = Graph.from_diffusers(same, task=task)
    call = {"prompt": PROMPT, "sigmas": [1.0, 0.8, 0.65, 0.3, 0.1], **LENGTH}
    check_equal(same, graph, **call, **({} if task == "text_to_image" else {"image": picture(16)}))


def test_embeddings_are_given_by_their_path(pipeline: Any) -> None:
    generator = torch.Generator().manual_seed(8)
    given = [torch.randn(shape, generator=generator) for shape in ((1, 20, 40), (1, 20, 40), (1, 24), (1, 24))]
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    paths = ("text_encoders.embedding", "negative_text_encoders.embedding", "text_encoders.pooled", "negative_text_encoders.pooled")
    expected = theirs(pipeline, num_inference_steps=STEPS, **dict(zip(names, given, strict=True)))
    found = ours(Graph.from_diffusers(pipeline), num_inference_steps=STEPS, **dict(zip(paths, given, strict=True)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_given_latents(pipeline: Any) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    check_equal(pipeline, Graph.from_diffusers(pipeline), prompt=PROMPT, latents=latents, num_inference_steps=STEPS, **LENGTH)


def test_what_does_not_fit(pipeline: Any, tmp_path: Path) -> None:
    graph = Graph.from_diffusers(pipeline)
    with pytest.raises(PortError, match="height: got 14 pixels; expected a multiple of 4"):
        graph.run({"prompt": "a", "height": 14, "num_inference_steps": 1})
    with pytest.raises(PortError, match=r"latents: got shape \[1, 3, 8, 8\]; expected \[1, 4, 8, 8\]"):
        graph.run({"prompt": "a", "latents": torch.randn(1, 3, 8, 8)})
    with pytest.raises(PortError, match=r"got shape \[2, 4, 7, 8\]; expected \[B, 4, H, W\] with sides that are multiples of 2"):
        graph.run({"prompt": "a", "latents": torch.randn(1, 4, 7, 8), "num_inference_steps": 1})
    with pytest.raises(PortError, match="strength: got 0; expected a number above 0, at most 1"):
        Graph.from_diffusers(pipeline, task="image_to_image").run({"prompt": "a", "image": picture(16), "strength": 0.0})
    pipeline.save_pretrained(tmp_path / "sd3")
    config = tmp_path / "sd3" / "scheduler" / "scheduler_config.json"
    for scheduler, message in (
        ({"_class_name": "DDIMScheduler"}, "DDIMScheduler does not fit a model that predicts a flow; expected FlowMatchEulerDiscrete"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "flow_predictio"}, "did you mean 'flow_pr"),
    ):
        config.write_text(json.dumps(scheduler))
        index = json.loads((tmp_path / "sd3" / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", scheduler["_class_name"]]
        (tmp_path / "sd3" / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(ConfigError, match=message):
            Graph.from_diffusers(tmp_path / "sd3")
    with pytest.raises(ConfigError, match="transformer of 33 input channels over latents of 16; .*expects 16; .*task='inpaint'"):
        Graph.from_diffusers(tiny.stable_diffusion_3(tmp_path, t5=False, channels=16, in_channels=33))


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("prompt", [PROMPT, ["a", "the cat"]], ids=["one", "two"])
def test_guidance_that_skips_layers(pipeline: Any, prompt: Any, batched: bool) -> None:
    graph = Graph.from_diffusers(pipeline, batched=batched)
    negative = NEGATIVE if isinstance(prompt, str) else [NEGATIVE, "x"]
    call = {"prompt": prompt, "negative_prompt": negative, "num_inference_steps": 6, **LENGTH}
    plain = ours(graph, **call)
    timesteps = pipeline.scheduler
    timesteps.set_timesteps(6)
    first, last = timesteps.timesteps[1].item(), timesteps.timesteps[2].item()  # steps 1 and 2: above 0.06 and below 3
    graph.replace_node("guidance", PerturbedAttention(perturbed_scale=2.8, perturbed_interval=[last, first]))
    graph.add_node(graph.nodes["backbone"], "skipping", auto_connect=False, inputs={"skip_layers": [0]})
    for edge in graph.edges:
        if edge.target_node == "backbone":
            graph.add_edge(edge.source_node, edge.source_port, "skipping", edge.target_port)
    graph.add_edge("skipping.pred", "guidance.pred_perturbed")
    found = ours(graph, **call)
    expected = theirs(pipeline, skip_guidance_layers=[0], skip_layer_guidance_stop=0.5, **call)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found - plain).abs().max() > 1e-3
    graph.configure_node("skipping", inputs={"skip_layers": [9]})
    with pytest.raises(PortError, match=r"skip_layers: got \[9\]; expected numbers from 0 to 1"):
        graph.run(call)
    with pytest.raises(ValueError, match=r"PerturbedAttention.perturbed_interval: found \[3, 1\], expected \[low, high\]"):
        PerturbedAttention(perturbed_interval=[3, 1])
