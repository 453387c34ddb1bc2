"""Families that start from pictures, or make videos of Stable Diffusion's parts: the same as the pipeline's own call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from PIL import Image
from torch import Tensor

from tests.integrations.diffusers import tiny, tiny_prompted
from tests.integrations.diffusers.comparing import CLOSE, NEGATIVE, PROMPT, check_equal, ours, theirs
from tests.matrix import thinned
from wgtorch import lora
from wgtorch.core.errors import ConfigError, PortError
from wgtorch.graph import Graph

pytestmark = [  # of their code, about numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


def shown(height: int, width: int, seed: int = 5) -> tuple[Any, Tensor]:
    """A picture as a file holds it, for a pipeline and [1, 3, H, W] for a graph."""
    pixels = (torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy()), pixels[None] / 255


def check_same(pipeline: Any, graph: Graph, pictures: dict[str, Any], **call: Any) -> Tensor:
    """As check_equal, with pictures that the two take in different form: pairs of theirs and ours."""
    expected = theirs(pipeline, **call, **{name: pair[0] for name, pair in pictures.items()})
    found = ours(graph, **call, **{name: pair[1] for name, pair in pictures.items()})
    assert expected.std() > 0.03, "a flat picture proves nothing"
    torch.testing.assert_close(found, expected, rtol=0, atol=CLOSE)
    return found


def check_folder(pipeline: Any, graph: Graph, folder: Path, pictures: dict[str, Any], task: str, **call: Any) -> None:
    """To a folder and back, by diffusers and by us."""
    graph.to_diffusers(folder)
    again = diffusers.DiffusionPipeline.from_pretrained(str(folder), local_files_only=True)
    assert type(again) is type(pipeline)
    read = Graph.from_diffusers(folder, task=task)
    check_same(again, read, pictures, **call)
    check_same(pipeline, Graph.from_config(read.to_config()), pictures, **call)


# --- Stable Diffusion 3 with a ControlNet -----------------------------------------------------------------------------


def sd3_controlnet(folder: Path, **settings: Any) -> Any:
    pipeline = tiny.stable_diffusion_3(folder)
    torch.manual_seed(9)
    own = {
        "sample_size": tiny.SIDE, "patch_size": 2, "in_channels": 4, "num_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2,
        "joint_attention_dim": 40, "caption_projection_dim": 16, "pooled_projection_dim": 24, "out_channels": 4, "pos_embed_max_size": 16,
    }  # fmt: skip
    model = diffusers.SD3ControlNetModel(**{**own, **settings}).eval()
    for part in (*model.controlnet_blocks, model.pos_embed_input.proj):
        torch.nn.init.normal_(part.weight, std=0.3)
    return diffusers.StableDiffusion3ControlNetPipeline(**pipeline.components, controlnet=model)


@pytest.mark.parametrize("zeros", [False, True])
def test_a_controlnet_of_stable_diffusion_3(zeros: bool, tmp_path: Path) -> None:
    pipeline = sd3_controlnet(tmp_path / "words", force_zeros_for_pooled_projection=zeros)
    graph = Graph.from_diffusers(pipeline)
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": 3, "height": 16, "width": 16, "max_sequence_length": 16}
    pictures = {"control_image": shown(16, 16)}
    plain = check_same(pipeline, graph, pictures, **call)
    assert (check_same(pipeline, graph, pictures, **call, controlnet_conditioning_scale=0.2) - plain).abs().max() > 1e-3
    check_same(pipeline, graph, pictures, **call, control_guidance_start=0.3, control_guidance_end=0.8)
    check_same(pipeline, graph, pictures, **{**call, "guidance_scale": 1.0, "num_images_per_prompt": 2})
    own = {name: value for name, value in call.items() if name not in ("height", "width")}
    seen = shown(8, 16)[1]  # tensors say the size themselves, and count from -1 there
    assert check_same(pipeline, graph, {"control_image": (seen * 2 - 1, seen)}, **own).shape[2:] == (8, 16)
    if zeros:
        check_folder(pipeline, graph, tmp_path / "out", pictures, "text_to_image", **call)


def test_what_of_controlnets_is_not_supported_is_named(tmp_path: Path) -> None:
    pipeline = sd3_controlnet(tmp_path / "words")
    with pytest.raises(ConfigError, match="batched=False is not supported with a ControlNet of Stable Diffusion 3"):
        Graph.from_diffusers(pipeline, batched=False)
    pipeline.controlnet.register_to_config(use_pos_embed=False)
    with pytest.raises(ConfigError, match="shares pos_embed with the transformer"):
        Graph.from_diffusers(pipeline)


# --- AnimateDiff ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batched", [True, False])
def test_animatediff(batched: bool, tmp_path: Path) -> None:
    parts = tiny.stable_diffusion(tmp_path).components
    torch.manual_seed(3)
    adapter = diffusers.MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=4, motion_num_attention_heads=2,
        motion_max_seq_length=8, use_motion_mid_block=False,
    )  # fmt: skip
    for name, parameter in adapter.named_parameters():
        if "proj_out" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    own = {name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    pipeline = diffusers.AnimateDiffPipeline(**own, motion_adapter=adapter.eval())
    graph = Graph.from_diffusers(pipeline, task="text_to_video", batched=batched)
    call = {"prompt": PROMPT, "num_frames": 3, "num_inference_steps": 3}
    plain = check_equal(pipeline, graph, **call)
    assert (check_equal(pipeline, graph, **call, negative_prompt=NEGATIVE, guidance_scale=2.0) - plain).abs().max() > 1e-3
    check_equal(pipeline, graph, **{**call, "prompt": ["a", "the cat a dog"], "height": 8, "width": 16, "decode_chunk_size": 2})
    check_equal(pipeline, graph, **{**call, "guidance_scale": 1.0})  # (with transformers 5 their clip_skip fails)
    if batched:
        check_folder(pipeline, graph, tmp_path / "out", {}, "text_to_video", **call)
        lora.add(graph, "mine", rank=2, alpha=3, nodes="backbone", target_modules=["to_q", "to_v"])  # PEFT's fail at proj_in
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, parameter in graph.named_parameters():
                if ".lora_" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        found = ours(graph, **call)
        assert (found - plain).abs().max() > 1e-3
        lora.save(graph, tmp_path / "lora", "mine", format="diffusers")
        lora.remove(graph, "mine")
        pipeline.load_lora_weights(tmp_path / "lora")
        torch.testing.assert_close(theirs(pipeline, **call), found, rtol=0, atol=CLOSE)


def test_what_is_switched_on_in_a_pipeline_and_other_animatediffs_are_refused(tmp_path: Path) -> None:
    parts = tiny.stable_diffusion(tmp_path).components
    own = {name: parts[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    adapter = diffusers.MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=4, motion_num_attention_heads=2,
        motion_max_seq_length=8, use_motion_mid_block=True,
    )  # fmt: skip
    pipeline = diffusers.AnimateDiffPipeline(**own, motion_adapter=adapter)
    for switch, arguments in (("free_init", {"num_iters": 2}), ("free_noise", {"context_length": 2, "context_stride": 1})):
        getattr(pipeline, f"enable_{switch}")(**arguments)
        with pytest.raises(ConfigError, match=f"enable_{switch} is on in the pipeline"):
            Graph.from_diffusers(pipeline, task="text_to_video")
        getattr(pipeline, f"disable_{switch}")()
    Graph.from_diffusers(pipeline, task="text_to_video")
    for kind in ("AnimateDiffSDXLPipeline", "AnimateDiffControlNetPipeline", "AnimateDiffVideoToVideoPipeline"):
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": kind, "unet": ["diffusers", "UNetMotionModel"]}))
        with pytest.raises(ConfigError, match=r"from a prompt over a Stable Diffusion 1 is here \(AnimateDiffPipeline\)"):
            Graph.from_diffusers(tmp_path, task="text_to_video")


def test_schedulers_that_draw_frame_by_frame_are_refused() -> None:
    pipeline = tiny_prompted.cogvideox()
    pipeline.scheduler = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
    with pytest.raises(ConfigError, match="DDPMScheduler draws in each step, and in the pipeline of CogVideoX frame by frame"):
        Graph.from_diffusers(pipeline, task="text_to_video")


# --- Stable Video Diffusion -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moving() -> Any:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    unet = diffusers.UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=8, in_channels=8, out_channels=4, cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"), num_attention_heads=(2, 4), num_frames=2,
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), projection_class_embeddings_input_dim=24,
        addition_time_embed_dim=8,
    ).eval()  # fmt: skip
    vae = diffusers.AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4, layers_per_block=1
    ).eval()
    vision = CLIPVisionConfig(
        hidden_size=16, projection_dim=16, num_hidden_layers=2, num_attention_heads=2, image_size=224, intermediate_size=16, patch_size=112
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction", timestep_type="continuous",
        use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0, timestep_spacing="leading", steps_offset=1, interpolation_type="linear",
    )  # fmt: skip
    return diffusers.StableVideoDiffusionPipeline(
        vae=vae, unet=unet, scheduler=scheduler, image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        feature_extractor=CLIPImageProcessor(crop_size=224, size={"shortest_edge": 224}),
    )  # fmt: skip


@pytest.mark.parametrize("batched", [True, False])
def test_stable_video_diffusion(moving: Any, batched: bool, tmp_path: Path) -> None:
    graph = Graph.from_diffusers(moving, task="image_to_video", batched=batched)
    pictures = {"image": shown(32, 32)}
    call = {"height": 32, "width": 32, "num_inference_steps": 2}
    plain = check_same(moving, graph, pictures, **call)
    assert (check_same(moving, graph, pictures, **call, noise_aug_strength=0.5, fps=3, motion_bucket_id=9) - plain).abs().max() > 1e-4
    check_same(moving, graph, pictures, **call, num_frames=3, min_guidance_scale=1.5, max_guidance_scale=4.0, decode_chunk_size=2)
    check_same(moving, graph, pictures, **call, max_guidance_scale=1.0, num_videos_per_prompt=2)
    if batched:
        check_folder(moving, graph, tmp_path / "out", pictures, "image_to_video", **call)


def with_scheduler(pipeline: Any, name: str, **config: Any) -> Any:
    scheduler = getattr(diffusers, name).from_config({**pipeline.scheduler.config, **config})
    return diffusers.StableVideoDiffusionPipeline(**{**pipeline.components, "scheduler": scheduler})


@pytest.mark.parametrize("name", thinned(["HeunDiscrete", "DPMSolverMultistep", "KDPM2Discrete", "DEISMultistep"]))
def test_stable_video_diffusion_with_sigmas_that_the_scheduler_reaches(moving: Any, name: str) -> None:
    pipeline = with_scheduler(moving, f"{name}Scheduler", sigma_min=0.05, sigma_max=9.0)
    graph = Graph.from_diffusers(pipeline, task="image_to_video")
    check_same(pipeline, graph, {"image": shown(32, 32)}, height=32, width=32, num_inference_steps=3)


def test_a_scheduler_whose_steps_fail_or_draw_is_refused(moving: Any) -> None:
    heun = with_scheduler(moving, "HeunDiscreteScheduler")  # its sigmas begin at 700, of which it knows no timesteps
    with pytest.raises(IndexError):
        theirs(heun, image=shown(32, 32)[0], height=32, width=32, num_inference_steps=3)
    with pytest.raises(ConfigError, match="HeunDiscreteScheduler fails in its own steps .* sigma_max beyond what it was trained for"):
        Graph.from_diffusers(heun, task="image_to_video")
    for name in ("TCD", "SASolver", "LCM", "EulerAncestralDiscrete"):
        with pytest.raises(ConfigError, match=f"{name}Scheduler draws in each step, and in the pipeline of Stable Video Diffusion frame"):
            Graph.from_diffusers(with_scheduler(moving, f"{name}Scheduler", use_karras_sigmas=False), task="image_to_video")


# --- FLUX.2 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flux2_klein", "flux2"])
def test_flux2_from_pictures(kind: str, tmp_path: Path) -> None:
    pipeline = getattr(tiny_prompted, kind)()
    graph = Graph.from_diffusers(pipeline, task="image_to_image")
    first, second = shown(68, 72), shown(64, 128, seed=6)
    call: dict[str, Any] = {"num_inference_steps": 2}
    if kind == "flux2":
        call["prompt_embeds"] = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(2))
    else:
        call |= {"prompt": PROMPT, "max_sequence_length": 64, "text_encoder_out_layers": (1, 2, 3)}
    plain = check_same(pipeline, graph, {"image": first}, **call)
    both = {"image": ([first[0], second[0]], [first[1], second[1]])}
    assert plain.shape[2:] == (68, 72)
    found = check_same(pipeline, graph, both, **call, height=16, width=32)
    assert found.shape[2:] == (16, 32)
    if kind == "flux2_klein":
        check_folder(pipeline, graph, tmp_path / "out", {"image": first}, "image_to_image", **call)
    with pytest.raises(PortError, match=r"pictures.image: Image too small: 32×64"):
        ours(graph, **call, image=shown(64, 32)[1])
