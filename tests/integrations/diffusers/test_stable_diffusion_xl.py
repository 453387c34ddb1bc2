"""Stable Diffusion XL: graphs equal to the pipelines of diffusers on the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, check_equal, half_mask, ours, picture, theirs
from wgtorch.core.errors import ConfigError
from wgtorch.graph import Graph

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of their code, about numpy 2
STEPS = 5


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.stable_diffusion_xl(tmp_path_factory.mktemp("xl"))


def as_task(pipeline: Any, task: str, schedule: str = "euler") -> Any:
    """The pipeline of a task on the same models."""
    import diffusers

    name = {"text_to_image": "", "image_to_image": "Img2Img", "inpaint": "Inpaint"}[task]
    parts = {**pipeline.components, "scheduler": tiny.scheduler(schedule)}
    return getattr(diffusers, f"StableDiffusionXL{name}Pipeline")(**parts, add_watermarker=False)


@pytest.mark.parametrize("schedule", ["ddim", "euler", "euler_ancestral", "heun", "dpmpp_2m", "unipc", "pndm"])
def test_text_to_image(pipeline: Any, schedule: str) -> None:
    same = as_task(pipeline, "text_to_image", schedule)
    graph = Graph.from_diffusers(same)
    check_equal(same, graph, prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS)


@pytest.mark.parametrize("batched", [True, False])
def test_without_a_negative_prompt_its_condition_is_zeros_and_with_an_empty_one_it_is_not(pipeline: Any, batched: bool) -> None:
    graph = Graph.from_diffusers(pipeline, batched=batched)
    without = check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=STEPS)
    empty = check_equal(pipeline, graph, prompt=PROMPT, negative_prompt="", num_inference_steps=STEPS)
    assert (without - empty).abs().max() > 1e-3
    check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=STEPS, guidance_scale=0.7)


def test_defaults_are_those_of_the_pipeline(pipeline: Any) -> None:
    check_equal(pipeline, Graph.from_diffusers(pipeline), prompt=PROMPT)


@pytest.mark.parametrize("batched", [True, False])
def test_second_prompts_and_sizes(pipeline: Any, batched: bool) -> None:
    graph = Graph.from_diffusers(pipeline, batched=batched)
    call = {"prompt": PROMPT, "prompt_2": "a hill", "negative_prompt": "x", "negative_prompt_2": "y", "num_inference_steps": STEPS}
    sizes = {"original_size": (64, 32), "crops_coords_top_left": (4, 0), "target_size": (24, 32), "height": 24, "width": 32}
    negative = {"negative_original_size": (8, 8), "negative_target_size": (9, 9), "negative_crops_coords_top_left": (1, 2)}
    plain = theirs(pipeline, **call, height=24, width=32)
    found = check_equal(pipeline, graph, **call, **sizes, **negative)
    assert (found - plain).abs().max() > 1e-3, "sizes matter"
    for left_out in negative:
        check_equal(pipeline, graph, **call, **sizes, **{name: size for name, size in negative.items() if name != left_out})


@pytest.mark.parametrize("task", ["text_to_image", "image_to_image", "inpaint"])
def test_guidance_rescale_and_timesteps_of_a_runs_own(pipeline: Any, task: str) -> None:
    same = as_task(pipeline, task)
    graph = Graph.from_diffusers(same, task=task)
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "guidance_rescale": 0.6, "timesteps": [900, 700, 400, 300, 50]}
    call |= {} if task == "text_to_image" else {"image": picture(tiny.PIXELS), "strength": 0.8}
    call |= {"mask_image": half_mask(tiny.PIXELS)} if task == "inpaint" else {}
    found = check_equal(same, graph, **call)
    assert (found - ours(graph, **{**call, "guidance_rescale": 0.0})).abs().max() > 1e-3


def test_several_prompts(pipeline: Any) -> None:
    graph = Graph.from_diffusers(pipeline)
    call = {"prompt": ["a", "b"], "negative_prompt": ["x", "y"], "num_images_per_prompt": 2}
    check_equal(pipeline, graph, **call, num_inference_steps=STEPS, original_size=(64, 32))


def test_clip_skip(pipeline: Any) -> None:
    check_equal(pipeline, Graph.from_diffusers(pipeline), prompt=PROMPT, num_inference_steps=STEPS, clip_skip=1)


@pytest.mark.parametrize("schedule", ["ddim", "euler", "euler_ancestral", "heun", "dpmpp_2m", "unipc", "pndm"])
def test_image_to_image(pipeline: Any, schedule: str) -> None:
    same = as_task(pipeline, "image_to_image", schedule)
    graph = Graph.from_diffusers(same, task="image_to_image")
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "image": picture(tiny.PIXELS)}
    check_equal(same, graph, strength=0.6, num_inference_steps=STEPS, **call)
    check_equal(same, graph, **call)


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("schedule", ["ddim", "heun", "dpmpp_2m", "unipc", "pndm"])
def test_inpainting_with_other_schedulers(pipeline: Any, schedule: str, strength: float) -> None:
    same = as_task(pipeline, "inpaint", schedule)
    call = {"prompt": PROMPT, "image": picture(tiny.PIXELS), "mask_image": half_mask(tiny.PIXELS), "num_inference_steps": STEPS}
    check_equal(same, Graph.from_diffusers(same, task="inpaint"), strength=strength, **call)


@pytest.mark.parametrize("in_channels", [4, 9])
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting(tmp_path: Path, in_channels: int, strength: float) -> None:
    same = as_task(tiny.stable_diffusion_xl(tmp_path, in_channels=in_channels), "inpaint")
    graph = Graph.from_diffusers(same, task="inpaint")
    call = {"prompt": PROMPT, "image": picture(tiny.PIXELS), "mask_image": half_mask(tiny.PIXELS), "num_inference_steps": STEPS}
    check_equal(same, graph, strength=strength, **call)


def test_a_folder_gives_what_its_pipeline_gives(pipeline: Any, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "xl")
    graph = Graph.from_diffusers(tmp_path / "xl")
    check_equal(pipeline, graph, prompt=PROMPT, num_inference_steps=STEPS)
    again = Graph.from_config(graph.to_config())
    call = {"prompt": PROMPT, "num_inference_steps": 2}
    assert torch.equal(ours(again, **call), ours(graph, **call))


def embeds(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_embeddings_are_given_by_their_path(pipeline: Any) -> None:
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    paths = ("text_encoders.embedding", "negative_text_encoders.embedding", "text_encoder_2.pooled", "negative_text_encoder_2.pooled")
    given = embeds((1, 16, 36), (1, 16, 36), (1, 12), (1, 12))
    expected = theirs(pipeline, num_inference_steps=STEPS, **dict(zip(names, given, strict=True)))
    graph = Graph.from_diffusers(pipeline)
    found = ours(graph, num_inference_steps=STEPS, negative_prompt="", **dict(zip(paths, given, strict=True)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("task", ["image_to_image", "inpaint"])
def test_crops_of_what_is_not_wanted_on_pictures(pipeline: Any, task: str) -> None:
    """Those pipelines take the crop of what is wanted for both."""
    same = as_task(pipeline, task)
    graph = Graph.from_diffusers(same, task=task)
    call = {"prompt": PROMPT, "negative_prompt": "x", "image": picture(tiny.PIXELS), "num_inference_steps": STEPS, "strength": 0.8}
    call |= {"mask_image": half_mask(tiny.PIXELS)} if task == "inpaint" else {}
    sizes = {"crops_coords_top_left": (4, 0), "negative_crops_coords_top_left": (99, 50), "negative_original_size": (8, 8)}
    check_equal(same, graph, **call, **sizes)


@pytest.fixture(scope="module")
def refiner(pipeline: Any) -> Any:
    from diffusers import StableDiffusionXLImg2ImgPipeline

    torch.manual_seed(1)
    sizes = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 12 + 5 * 4}
    parts = {**pipeline.components, "text_encoder": None, "tokenizer": None, "unet": tiny.unet(cross_attention_dim=20, **sizes)}
    more = {"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False, "add_watermarker": False}
    return StableDiffusionXLImg2ImgPipeline(**parts, **more)


@pytest.mark.parametrize("batched", [True, False])
def test_a_refiner(refiner: Any, batched: bool, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    graph = Graph.from_diffusers(refiner, task="image_to_image", batched=batched)
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "image": picture(tiny.PIXELS), "num_inference_steps": 10}
    found = check_equal(refiner, graph, **call)
    scores = {"aesthetic_score": 9.0, "negative_aesthetic_score": 1.0, "original_size": (64, 32), "negative_crops_coords_top_left": (3, 1)}
    assert (check_equal(refiner, graph, **call, **scores) - found).abs().max() > 1e-4
    check_equal(refiner, graph, prompt=["a", "b"], image=picture(tiny.PIXELS, batch=2), num_inference_steps=10)
    refiner.save_pretrained(tmp_path / "refiner")
    folder = Graph.from_diffusers(tmp_path / "refiner", task="image_to_image", batched=batched)
    check_equal(refiner, folder, **call)
    folder.to_diffusers(tmp_path / "out")
    without = {"text_encoder": None, "tokenizer": None}  # diffusers wants to be told
    again = DiffusionPipeline.from_pretrained(str(tmp_path / "out"), local_files_only=True, **without)
    check_equal(again, folder, **call, **scores)


def test_latents_that_are_normalised_channel_by_channel(pipeline: Any) -> None:
    parts = {**pipeline.components, "vae": tiny.autoencoder(latents_mean=[0.1, -0.3, 0.2, 0.5], latents_std=[1.2, 0.6, 0.9, 2.0])}
    call = {"prompt": PROMPT, "num_inference_steps": STEPS}
    same = type(pipeline)(**parts, add_watermarker=False)
    check_equal(same, Graph.from_diffusers(same), **call)
    edited = as_task(same, "image_to_image")
    check_equal(edited, Graph.from_diffusers(edited, task="image_to_image"), image=picture(tiny.PIXELS), strength=0.8, **call)
    with pytest.raises(ConfigError, match="autoencoder with latents_mean, with which diffusers encodes otherwise than it decodes"):
        Graph.from_diffusers(same, task="inpaint")


def test_a_refiner_wants_a_picture(refiner: Any) -> None:
    with pytest.raises(ConfigError, match="is a refiner, which starts from a picture; take task='image_to_image'"):
        Graph.from_diffusers(refiner)


@pytest.mark.parametrize("schedule", ["ddim", "euler", "euler_ancestral", "dpmpp_2m", "unipc", "pndm"])
def test_one_model_goes_on_where_another_leaves_off(pipeline: Any, refiner: Any, schedule: str) -> None:
    first, second = (type(each)(**{**each.components, "scheduler": tiny.scheduler(schedule)}) for each in (pipeline, refiner))
    second.register_to_config(**{name: refiner.config[name] for name in ("requires_aesthetics_score", "force_zeros_for_empty_prompt")})
    for each in (first, second):
        each.watermark = None
        each.set_progress_bar_config(disable=True)
    call = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": 8}
    torch.manual_seed(3)
    left = first(denoising_end=0.6, output_type="latent", **call).images
    expected = theirs(second, denoising_start=0.6, image=left, **call)

    torch.manual_seed(3)
    base, refining = Graph.from_diffusers(first), Graph.from_diffusers(second, task="image_to_image")
    turns: list[str] = []
    latent = base.run(
        {**call, "denoising_end": 0.6},
        outputs=["solver.next_latent"],
        callbacks=[lambda event: turns.append(event.path) if event.kind == "loop" else None],
    )["solver.next_latent"]
    assert 3 <= len(turns) < 8, "the walk ends before the data"
    found = ours(refining, **call, **{"denoising_start": 0.6, "encoder.latent": latent})
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    whole = ours(refining, **call, **{"strength": 0.4, "encoder.latent": latent})
    assert (whole - found).abs().max() > 1e-3, "no noise is added where the walk goes on"


def test_a_part_of_the_way(pipeline: Any) -> None:
    same = as_task(pipeline, "text_to_image", "heun")
    call = {"prompt": PROMPT, "num_inference_steps": STEPS, "denoising_end": 0.7}
    torch.manual_seed(3)
    left = same(output_type="latent", **call).images
    torch.manual_seed(3)
    mine = Graph.from_diffusers(same).run(call, outputs=["solver.next_latent"])["solver.next_latent"]
    torch.testing.assert_close(mine * (left.norm() / mine.norm()), left, rtol=0, atol=1e-4)  # theirs is mine / alpha
    edited = as_task(pipeline, "image_to_image", "ddim")
    editing = Graph.from_diffusers(edited, task="image_to_image")
    call = {"prompt": PROMPT, "num_inference_steps": 10, "encoder.latent": torch.randn(1, 4, tiny.SIDE, tiny.SIDE)}
    found = ours(editing, **call, denoising_start=0.3, denoising_end=0.8)
    expected = theirs(edited, prompt=PROMPT, num_inference_steps=10, image=call["encoder.latent"], denoising_start=0.3, denoising_end=0.8)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    for wrong, words in (
        ({"denoising_end": 1.5}, r"schedule/diffusion.end: found 1.5, expected a number between 0 and 1"),
        ({"denoising_end": 0.01}, r"no timestep at least 990 among .* take more steps"),
        ({"denoising_end": 0.3, "denoising_start": 0.3}, r"end: found 0.3 with a start of 0.3, expected a number above it"),
    ):
        with pytest.raises(ValueError, match=words):
            editing.run({**call, **wrong})


def test_a_scored_model_with_both_text_encoders_is_no_refiner(pipeline: Any) -> None:
    from diffusers import StableDiffusionXLImg2ImgPipeline

    torch.manual_seed(2)
    sizes = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 12 + 5 * 4}
    unet = tiny.unet(cross_attention_dim=36, **sizes)
    scored = StableDiffusionXLImg2ImgPipeline(
        **{**pipeline.components, "unet": unet}, requires_aesthetics_score=True, add_watermarker=False
    )
    graph = Graph.from_diffusers(scored, task="image_to_image")
    check_equal(scored, graph, prompt=PROMPT, image=picture(tiny.PIXELS), num_inference_steps=10)
