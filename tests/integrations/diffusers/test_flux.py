"""FLUX.1: graphs equal to the pipelines of diffusers on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, check_equal, half_mask, ours, picture, theirs
from wgtorch.core.errors import ConfigError, PortError, PromptTruncatedWarning
from wgtorch.graph import Graph

pytestmark = [  # of their code
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
CALL = {"prompt": PROMPT, "num_inference_steps": 5, "max_sequence_length": 16, "height": 16, "width": 24}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.flux(tmp_path_factory.mktemp("flux"))


def as_task(pipeline: Any, task: str, schedule: str = "flow_dynamic") -> Any:
    """The pipeline of a task on the same models."""
    import diffusers

    name = {"text_to_image": "", "image_to_image": "Img2Img", "inpaint": "Inpaint"}[task]
    return getattr(diffusers, f"Flux{name}Pipeline")(**{**pipeline.components, "scheduler": tiny.flow_scheduler(schedule)})


@pytest.mark.parametrize(
    "schedule", ["flow_dynamic", "flow_euler", "flow_karras", "flow_linear", "flow_unipc", "flow_unipc_dynamic", "flow_stochastic"]
)
def test_text_to_image(pipeline: Any, schedule: str) -> None:
    """Heun takes no sigmas and DPM-Solver++ no shift of its own, which their pipeline gives."""
    same = as_task(pipeline, "text_to_image", schedule)
    graph = Graph.from_diffusers(same)
    wrapped = schedule in ("flow_linear", "flow_unipc_dynamic", "flow_stochastic", "flow_lcm")
    native = "solver/unipc" if schedule == "flow_unipc" else "solver/flow_euler"
    assert graph.nodes["solver"].block_type == ("solver/diffusers" if wrapped else native)
    found = check_equal(same, graph, **CALL)
    assert found.shape == (1, 3, 16, 24)
    more = check_equal(same, graph, **CALL, guidance_scale=9.0)
    assert (more - found).abs().max() > 1e-4, "the model sees its guidance scale"


@pytest.mark.parametrize("batched", [True, False])
def test_guidance_without_the_prompt_wants_a_negative_prompt_and_a_scale(pipeline: Any, batched: bool) -> None:
    graph = Graph.from_diffusers(pipeline, batched=batched)
    plain = check_equal(pipeline, graph, **CALL, true_cfg_scale=4.0)
    assert torch.equal(plain, check_equal(pipeline, graph, **CALL, negative_prompt=NEGATIVE))
    guided = check_equal(pipeline, graph, **CALL, negative_prompt=NEGATIVE, true_cfg_scale=4.0)
    assert (guided - plain).abs().max() > 1e-3
    others = {"negative_prompt_2": "z", "prompt_2": "y"}
    check_equal(pipeline, graph, **CALL, negative_prompt=NEGATIVE, true_cfg_scale=4.0, **others)


def test_several_prompts_and_a_model_that_takes_no_scale(tmp_path: Path) -> None:
    same = tiny.flux(tmp_path, guided=False, schedule="flow_euler")
    call = {**CALL, "prompt": ["a", "b"], "num_images_per_prompt": 2, "guidance_scale": 0.0}
    assert check_equal(same, Graph.from_diffusers(same), **call).shape == (4, 3, 16, 24)


@pytest.mark.parametrize("task", ["text_to_image", "image_to_image"])
@pytest.mark.parametrize("schedule", ["flow_dynamic", "flow_euler", "flow_linear"])
def test_sigmas_of_a_runs_own(pipeline: Any, schedule: str, task: str) -> None:
    same = as_task(pipeline, task, schedule)
    graph = Graph.from_diffusers(same, task=task)
    call = {**CALL, "sigmas": [1.0, 0.8, 0.65, 0.3, 0.1]}
    check_equal(same, graph, **call, **({} if task == "text_to_image" else {"image": picture(20)}))


def test_embeddings_are_given_by_their_path(pipeline: Any) -> None:
    generator = torch.Generator().manual_seed(8)
    given = [torch.randn(shape, generator=generator) for shape in ((1, 16, 24), (1, 16, 24), (1, 16), (1, 16))]
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    paths = ("text_encoder_2.embedding", "negative_text_encoder_2.embedding", "text_encoder.pooled", "negative_text_encoder.pooled")
    call = {name: value for name, value in CALL.items() if name not in ("prompt", "max_sequence_length")} | {"true_cfg_scale": 3.0}
    expected = theirs(pipeline, **call, **dict(zip(names, given, strict=True)))
    found = ours(Graph.from_diffusers(pipeline), **call, negative_prompt="", **dict(zip(paths, given, strict=True)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_seed_holds_for_a_scheduler_that_draws_from_the_global_generator(pipeline: Any) -> None:
    graph = Graph.from_diffusers(as_task(pipeline, "text_to_image", "flow_stochastic"))
    found = graph.run(CALL, seed=1)["image"]
    assert torch.equal(graph.run(CALL, seed=1)["image"], found)
    assert (graph.run(CALL, seed=2)["image"] - found).abs().max() > 1e-3


def test_latents_come_as_patches_or_as_a_picture(pipeline: Any) -> None:
    graph = Graph.from_diffusers(pipeline)
    latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    patches = pipeline._pack_latents(latents, 1, 4, 8, 12)
    found = check_equal(pipeline, graph, **CALL, latents=patches)
    assert torch.equal(ours(graph, **CALL, latents=latents), found)
    unsaid = {name: value for name, value in CALL.items() if name not in ("height", "width")}
    assert torch.equal(ours(graph, **unsaid, latents=latents), found)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("schedule", ["flow_dynamic", "flow_euler", "flow_linear"])
def test_image_to_image(pipeline: Any, schedule: str, strength: float) -> None:
    same = as_task(pipeline, "image_to_image", schedule)
    graph = Graph.from_diffusers(same, task="image_to_image")
    found = check_equal(same, graph, **CALL, image=picture(20), strength=strength)
    assert found.shape == (1, 3, 16, 24)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("schedule", ["flow_dynamic", "flow_euler", "flow_linear"])
def test_inpainting(pipeline: Any, schedule: str, strength: float) -> None:
    same = as_task(pipeline, "inpaint", schedule)
    graph = Graph.from_diffusers(same, task="inpaint")
    call = {"image": picture(20), "mask_image": half_mask(20), "strength": strength}
    check_equal(same, graph, **CALL, **call, negative_prompt=NEGATIVE, true_cfg_scale=2.0)


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("schedule", ["flow_dynamic", "flow_euler"])
def test_fill(tmp_path: Path, schedule: str, strength: float) -> None:
    from diffusers import DiffusionPipeline

    fill = tiny.flux(tmp_path, fill=True, schedule=schedule)
    graph = Graph.from_diffusers(fill, task="inpaint")
    assert "blend" not in graph.nodes and "negative_prompt" not in graph.get_input_spec()
    call = {**CALL, "image": picture(24), "mask_image": half_mask(24), "height": 24, "width": 24, "strength": strength}
    found = check_equal(fill, graph, **call)
    assert (ours(graph, **{**call, "mask_image": 1 - half_mask(24)}) - found).abs().max() > 1e-3, "the mask matters"
    graph.to_diffusers(tmp_path / "out")
    again = DiffusionPipeline.from_pretrained(str(tmp_path / "out"), local_files_only=True)
    assert type(again) is type(fill)
    torch.testing.assert_close(theirs(again, **call), found, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="text_to_image of FluxFillPipeline is not supported; supported: inpaint; take task=.inpaint"):
        Graph.from_diffusers(fill)


def test_defaults_are_those_of_the_pipeline(pipeline: Any) -> None:
    """But for the size, which is too large for a test."""
    call = {name: value for name, value in CALL.items() if name != "num_inference_steps"}
    check_equal(pipeline, Graph.from_diffusers(pipeline), **call)
    images = {"image": picture(16), "mask_image": half_mask(16)}
    for task in ("image_to_image", "inpaint"):
        graph = Graph.from_diffusers(pipeline, task=task)
        given = images if task == "inpaint" else {"image": images["image"]}
        check_equal(as_task(pipeline, task), graph, **call, **given)
        size = {name: graph.nodes["picture"].config[name] for name in ("height", "width")}
        assert size == {"height": 256, "width": 256}, "128 latents at two pixels each"
    assert graph.nodes["text_encoder_2"].run({"tokens": torch.ones(1, 3, dtype=torch.long)})["embedding"].shape == (1, 3, 24)
    assert graph.nodes["tokenizer_2"].run({"text": "a"})["tokens"].shape == (1, 512)


def test_a_folder_gives_what_its_pipeline_gives(pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "flux")
    graph = Graph.from_diffusers(tmp_path / "flux")
    check_equal(pipeline, graph, **CALL)
    again = Graph.from_config(graph.to_config())
    assert torch.equal(ours(again, **CALL), ours(graph, **CALL))


def test_bad_input(pipeline: Any) -> None:
    graph = Graph.from_diffusers(pipeline)
    with pytest.raises(PortError, match="height: got 14 pixels; expected a multiple of 4"):
        graph.run({**CALL, "height": 14})
    with pytest.raises(PortError, match=r"latents: got shape \[1, 4, 8, 8\]; expected \[1, 4, 8, 12\]"):
        graph.run({**CALL, "latents": torch.randn(1, 4, 8, 8)})
    with pytest.raises(PortError, match=r"latents: got shape \[1, 23, 16\]; expected \[1, 4, 8, 12\]"):
        graph.run({**CALL, "latents": torch.randn(1, 23, 16)})
    backbone = graph.nodes["backbone"]
    given = {"latent": torch.zeros(1, 4, 8, 8), "timestep": 1.0, "condition": torch.zeros(1, 3, 24), "text_embeds": torch.zeros(1, 16)}
    with pytest.raises(PortError, match="distilled with a guidance scale; feed one"):
        backbone.run(given)
    with pytest.raises(PortError, match=r"got shape \[1, 4, 8, 7\]; expected \[B, 4, H, W\] with sides that are multiples of 2"):
        backbone.run({**given, "latent": torch.zeros(1, 4, 8, 7)})
    with pytest.raises(PortError, match="got 1 rows for 2 latents; expected as many"):
        backbone.run({**given, "latent": torch.zeros(2, 4, 8, 8)})
    with pytest.warns(PromptTruncatedWarning, match="tokens and the text encoder reads 8; cut off: 'g h i j'"):
        graph.run({**CALL, "prompt": "a", "prompt_2": "abcdefg h i j", "max_sequence_length": 8, "num_inference_steps": 1})
    pipeline.transformer.register_to_config(in_channels=96)
    try:
        with pytest.raises(
            ConfigError, match="transformer of 24 channels over latents of 4; text_to_image expects as many .Depth, Canny and Kontext"
        ):
            Graph.from_diffusers(pipeline)
    finally:
        pipeline.transformer.register_to_config(in_channels=16)


@pytest.mark.parametrize("batched", [True, False])
def test_kontext_changes_a_picture(pipeline: Any, batched: bool, tmp_path: Path) -> None:
    """The picture's patches stand behind those that are painted; sizes are of an area, and of training unless told otherwise."""
    from diffusers import DiffusionPipeline, FluxKontextPipeline

    kontext = FluxKontextPipeline(**pipeline.components)
    graph = Graph.from_diffusers(kontext, task="image_to_image", batched=batched)
    call = {"prompt": PROMPT, "image": picture(20), "num_inference_steps": 3, "max_sequence_length": 16, "_auto_resize": False}
    found = check_equal(kontext, graph, **call, height=16, width=16, max_area=256)
    other = {**call, "image": picture(20, seed=6)}
    assert (check_equal(kontext, graph, **other, height=16, width=16, max_area=256) - found).abs().max() > 1e-3
    guided = {"negative_prompt": NEGATIVE, "true_cfg_scale": 3.0, "guidance_scale": 2.0}
    check_equal(kontext, graph, **call, height=16, width=32, max_area=512, **guided)
    again = DiffusionPipeline.from_pretrained(str(graph.to_diffusers(tmp_path / "out")), local_files_only=True)
    assert type(again).__name__ == "FluxKontextPipeline"
    check_equal(again, graph, **call, height=16, width=16, max_area=256)
    with pytest.raises(ConfigError, match="text_to_image of FluxKontextPipeline is not supported; supported: image_to_image"):
        Graph.from_diffusers(kontext)


# --- ControlNet -------------------------------------------------------------------------------------------------------


def with_controlnet(pipeline: Any, **settings: Any) -> Any:
    from diffusers import FluxControlNetModel, FluxControlNetPipeline

    torch.manual_seed(9)
    model = FluxControlNetModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=24, pooled_projection_dim=16, axes_dims_rope=(2, 2, 4), **settings,
    ).eval()  # fmt: skip
    for part in (*model.controlnet_blocks, *model.controlnet_single_blocks, model.controlnet_x_embedder):
        torch.nn.init.normal_(part.weight, std=0.3)
    return FluxControlNetPipeline(**pipeline.components, controlnet=model)


@pytest.mark.parametrize("batched", [True, False])
def test_a_controlnet(pipeline: Any, batched: bool, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline
    from PIL import Image

    same = with_controlnet(pipeline, guidance_embeds=True)
    graph = Graph.from_diffusers(same, batched=batched)
    shown = (picture(16)[0] * 255).round().to(torch.uint8)
    their = {"control_image": Image.fromarray(shown.permute(1, 2, 0).numpy())}
    call = {"prompt": "the cat", "num_inference_steps": 4, "height": 16, "width": 16, "max_sequence_length": 16}
    own = {"control_image": shown[None] / 255}

    def check(**more: Any) -> torch.Tensor:
        found = ours(graph, **call, **own, **more)
        torch.testing.assert_close(found, theirs(same, **call, **their, **more), rtol=0, atol=1e-4)
        return found

    plain = check()
    assert (ours(Graph.from_diffusers(pipeline), **call, guidance_scale=7.0) - plain).abs().max() > 1e-3
    assert (check(controlnet_conditioning_scale=0.4) - plain).abs().max() > 1e-3
    check(negative_prompt="a dog", true_cfg_scale=3.0, num_images_per_prompt=2)
    assert (check(control_guidance_start=0.3, control_guidance_end=0.8) - plain).abs().max() > 1e-3
    graph.to_diffusers(tmp_path / "out")
    again = DiffusionPipeline.from_pretrained(str(tmp_path / "out"), local_files_only=True)
    torch.testing.assert_close(theirs(again, **call, **their), plain, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours(Graph.from_diffusers(tmp_path / "out"), **call, **own), plain, rtol=0, atol=1e-4)


def test_a_union_of_controlnets_is_told_its_mode(pipeline: Any) -> None:
    from PIL import Image

    same = with_controlnet(pipeline, num_mode=3)
    graph = Graph.from_diffusers(same)
    shown = (picture(16)[0] * 255).round().to(torch.uint8)
    call = {"prompt": "the cat", "num_inference_steps": 3, "height": 16, "width": 16, "max_sequence_length": 16}
    expected = theirs(same, **call, control_image=Image.fromarray(shown.permute(1, 2, 0).numpy()), control_mode=2)
    torch.testing.assert_close(ours(graph, **call, control_image=shown[None] / 255, control_mode=2), expected, rtol=0, atol=1e-4)
    with pytest.raises(PortError, match="control_mode: this is a union of 3 ControlNets; say which, from 0 on"):
        graph.run({**call, "control_image": shown[None] / 255})
