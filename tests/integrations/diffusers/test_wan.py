"""Wan: graphs equal to the pipelines of diffusers on the same weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.integrations.diffusers.comparing import NEGATIVE, PROMPT, check_equal, ours, picture, theirs
from wgtorch.core.errors import ConfigError, PortError, PromptTruncatedWarning
from wgtorch.graph import Graph

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of their code, about numpy 2
SIZE = {"num_frames": 5, "height": 16, "width": 32}
CALL = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": 4, "max_sequence_length": 16, **SIZE}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny.wan()


@pytest.fixture(scope="module")
def from_image() -> Any:
    pytest.importorskip("ftfy")  # their pipeline asks for it
    return tiny.wan(from_image=True)


def with_scheduler(pipeline: Any, schedule: str) -> Any:
    return type(pipeline)(**{**pipeline.components, "scheduler": tiny.flow_scheduler(schedule)})


@pytest.mark.parametrize("schedule", ["flow_unipc", "flow_euler", "flow_karras", "flow_dpmpp_2m"])
def test_text_to_video(pipeline: Any, schedule: str) -> None:
    same = with_scheduler(pipeline, schedule)
    graph = Graph.from_diffusers(same, task="text_to_video")
    assert graph.nodes["solver"].block_type == {"flow_unipc": "solver/unipc", "flow_dpmpp_2m": "solver/dpmpp_2m"}.get(
        schedule, "solver/flow_euler"
    )
    found = check_equal(same, graph, **CALL)
    assert found.shape == (1, 5, 3, 16, 32)
    check_equal(same, graph, **CALL, guidance_scale=1.0)


def test_several_prompts_and_videos_for_each_in_two_calls(pipeline: Any) -> None:
    graph = Graph.from_diffusers(pipeline, task="text_to_video", batched=False)
    call = {**CALL, "prompt": ["a  &amp; b", "the cat"], "negative_prompt": ["x", "y"], "num_videos_per_prompt": 2}
    assert check_equal(pipeline, graph, **call).shape == (4, 5, 3, 16, 32)


def test_given_latents_and_the_pipelines_defaults(pipeline: Any) -> None:
    """But for the size, which is too large for a test."""
    graph = Graph.from_diffusers(pipeline, task="text_to_video")
    latents = torch.randn(1, 4, 2, 4, 8, generator=torch.Generator().manual_seed(1))
    found = check_equal(pipeline, graph, prompt=PROMPT, latents=latents, **SIZE)
    assert torch.equal(ours(graph, prompt=PROMPT, latents=latents), found)
    assert {name: graph.nodes["noise"].config[name] for name in SIZE} == {"num_frames": 81, "height": 480, "width": 832}


@pytest.mark.parametrize("schedule", ["flow_unipc", "flow_euler"])
@pytest.mark.parametrize("batched", [True, False])
def test_image_to_video(from_image: Any, schedule: str, batched: bool) -> None:
    same = with_scheduler(from_image, schedule)
    graph = Graph.from_diffusers(same, task="image_to_video", batched=batched)
    found = check_equal(same, graph, **CALL, image=picture(24))
    other = check_equal(same, graph, **CALL, image=picture(24, seed=6))
    assert (found - other).abs().max() > 1e-3, "the picture matters"
    call = {**CALL, "prompt": ["a", "b"], "negative_prompt": ["x", "y"]}
    both = check_equal(same, graph, **call, image=picture(24), last_image=picture(24, seed=7))
    assert both.shape == (2, 5, 3, 16, 32)


def pil(image: torch.Tensor) -> Any:
    """A picture [1, 3, H, W] of 8 bits, as a file has it: the pipeline's own way in for CLIP."""
    from PIL import Image

    return Image.fromarray((image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def eight_bit(seed: int) -> torch.Tensor:
    image = torch.rand(1, 3, SIZE["height"], SIZE["width"], generator=torch.Generator().manual_seed(seed))
    return (image * 255).round() / 255


@pytest.mark.parametrize("both_ends", [False, True])
def test_a_picture_that_clip_sees_too(both_ends: bool, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    pytest.importorskip("ftfy")  # their pipeline asks for it
    same = tiny.wan(from_image=True, clip=True, both_ends=both_ends)
    same.save_pretrained(tmp_path / "wan")
    images = {"image": eight_bit(1)} | ({"last_image": eight_bit(2)} if both_ends else {})
    call = {**CALL, "prompt": ["a", "b"], "negative_prompt": ["x", "y"]}
    expected = theirs(same, **call, **{name: pil(image) for name, image in images.items()})
    graph = Graph.from_diffusers(same, task="image_to_video")
    for other in (graph, Graph.from_diffusers(tmp_path / "wan", task="image_to_video", batched=False)):
        torch.testing.assert_close(ours(other, **call, **images), expected, rtol=0, atol=1e-4)
    seen = graph.nodes["image_encoder"].run({"image": eight_bit(1)})["embedding"]
    assert not torch.equal(seen, graph.nodes["image_encoder"].run({"image": eight_bit(2)})["embedding"])
    graph.to_diffusers(tmp_path / "out")
    again = DiffusionPipeline.from_pretrained(str(tmp_path / "out"), local_files_only=True)
    torch.testing.assert_close(theirs(again, **call, **{n: pil(i) for n, i in images.items()}), expected, rtol=0, atol=1e-5)
    if both_ends:
        with pytest.raises(PortError, match="got 5 tokens; expected 10, those of the first picture and of the last: feed last_image too"):
            graph.run({**call, "image": eight_bit(1)})


def test_a_folder_gives_what_its_pipeline_gives(pipeline: Any, from_image: Any, tmp_path: Path) -> None:
    for same, task, more in ((pipeline, "text_to_video", {}), (from_image, "image_to_video", {"image": picture(16)})):
        same.save_pretrained(tmp_path / task)
        graph = Graph.from_diffusers(tmp_path / task, task=task)
        check_equal(same, graph, **CALL, **more)
        again = Graph.from_config(graph.to_config())
        assert torch.equal(ours(again, **CALL, **more), ours(graph, **CALL, **more))


def test_diffusers_loads_what_was_written(pipeline: Any, from_image: Any, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    for same, task, more in ((pipeline, "text_to_video", {}), (from_image, "image_to_video", {"image": picture(16)})):
        graph = Graph.from_diffusers(same, task=task)
        graph.to_diffusers(tmp_path / task)
        again = DiffusionPipeline.from_pretrained(str(tmp_path / task), local_files_only=True)
        assert type(again) is type(same)
        check_equal(again, graph, **CALL, **more)


def test_runs_in_several_threads_do_not_touch_each_other(from_image: Any) -> None:
    """The autoencoder keeps frames in itself while it works."""
    graph = Graph.from_diffusers(from_image, task="image_to_video")
    calls = [{**CALL, "num_inference_steps": 1, "image": picture(16, seed=seed)} for seed in range(3)]
    expected = [graph.run(call, seed=1)["video"] for call in calls]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda call: graph.run(call, seed=1)["video"], calls * 3))
    for index, video in enumerate(found):
        torch.testing.assert_close(video, expected[index % len(calls)], rtol=0, atol=1e-6)


def of_two_stages(pipeline: Any, channels: int, boundary: float) -> Any:
    torch.manual_seed(8)
    parts = {**pipeline.components, "transformer_2": tiny.video_transformer(channels)}
    return type(pipeline)(**parts, boundary_ratio=boundary)


@pytest.mark.parametrize("task", ["text_to_video", "image_to_video"])
@pytest.mark.parametrize("batched", [True, False])
def test_two_stages(pipeline: Any, from_image: Any, task: str, batched: bool, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    same, more = (pipeline, {}) if task == "text_to_video" else (from_image, {"image": picture(16)})
    two = of_two_stages(same, 4 if task == "text_to_video" else 12, 0.8)
    graph = Graph.from_diffusers(two, task=task, batched=batched)
    found = check_equal(two, graph, **CALL, **more)
    assert (found - ours(Graph.from_diffusers(same, task=task), **CALL, **more)).abs().max() > 1e-3, "the second is called"
    other = check_equal(two, graph, **CALL, **more, guidance_scale=4.0, guidance_scale_2=2.0)
    assert (found - other).abs().max() > 1e-3
    check_equal(two, graph, **CALL, **more, guidance_scale=1.0)
    graph.to_diffusers(tmp_path / "out")
    again = DiffusionPipeline.from_pretrained(str(tmp_path / "out"), local_files_only=True)
    assert again.config.boundary_ratio == 0.8
    check_equal(again, Graph.from_diffusers(tmp_path / "out", task=task), **CALL, **more)


@pytest.mark.parametrize("boundary", [0.0, 1.1])
def test_a_boundary_that_one_stage_never_reaches(pipeline: Any, boundary: float) -> None:
    two = of_two_stages(pipeline, 4, boundary)
    check_equal(two, Graph.from_diffusers(two, task="text_to_video"), **CALL)


@pytest.mark.parametrize("batched", [True, False])
def test_a_timestep_for_each_patch(pipeline: Any, batched: bool, tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline, WanImageToVideoPipeline

    told = type(pipeline)(**pipeline.components, expand_timesteps=True)
    check_equal(told, Graph.from_diffusers(told, task="text_to_video", batched=batched), **CALL)
    pytest.importorskip("ftfy")  # their pipeline asks for it
    parts = {
        name: part for name, part in pipeline.components.items() if name in ("vae", "text_encoder", "tokenizer", "scheduler", "transformer")
    }
    shown = WanImageToVideoPipeline(**parts, expand_timesteps=True)
    graph = Graph.from_diffusers(shown, task="image_to_video", batched=batched)
    found = check_equal(shown, graph, **CALL, image=picture(16))
    assert (found - check_equal(shown, graph, **CALL, image=picture(16, seed=6))).abs().max() > 1e-3
    check_equal(shown, graph, **{**CALL, "prompt": ["a", "b"], "negative_prompt": ["x", "y"]}, image=picture(16))
    graph.to_diffusers(tmp_path / "out")
    check_equal(DiffusionPipeline.from_pretrained(str(tmp_path / "out"), local_files_only=True), graph, **CALL, image=picture(16))


def test_bad_input(pipeline: Any, from_image: Any) -> None:
    graph = Graph.from_diffusers(pipeline, task="text_to_video")
    with pytest.raises(PortError, match=r"num_frames: got 7; expected 1 \+ a multiple of 4, such as 5 or 9"):
        graph.run({**CALL, "num_frames": 7})
    with pytest.raises(PortError, match="width: got 12 pixels; expected a multiple of 8"):
        graph.run({**CALL, "width": 12})
    with pytest.raises(PortError, match=r"latents: got shape \[1, 4, 2, 4, 4\]; expected \[1, 4, 2, 4, 8\] for 1 prompts"):
        graph.run({**CALL, "latents": torch.zeros(1, 4, 2, 4, 4)})
    with pytest.warns(PromptTruncatedWarning, match="tokens and the text encoder reads 4; cut off"):
        graph.run({**CALL, "prompt": "abcdefgh", "max_sequence_length": 4, "num_inference_steps": 1})
    with pytest.raises(ConfigError, match="text_to_image of WanPipeline is not supported; supported: text_to_video, image_to_video"):
        Graph.from_diffusers(pipeline)
    with pytest.raises(ConfigError, match="12 input channels over latents of 4; text_to_video expects 4; take task='image_to_video'"):
        Graph.from_diffusers(from_image, task="text_to_video")
    with pytest.raises(ConfigError, match="DDIMScheduler does not fit a model that predicts a flow"):
        Graph.from_diffusers(type(pipeline)(**{**pipeline.components, "scheduler": tiny.scheduler("ddim")}), task="text_to_video")
    with pytest.raises(ConfigError, match="shifts by the size of the picture, which the pipeline of Wan 2.1 and 2.2 does not tell it"):
        Graph.from_diffusers(with_scheduler(pipeline, "flow_dynamic"), task="text_to_video")
    two = type(pipeline)(**pipeline.components, boundary_ratio=0.5)
    with pytest.raises(ConfigError, match="has transformer and a boundary_ratio of 0.5; expected a boundary and both"):
        Graph.from_diffusers(two, task="text_to_video")


def test_blocks(pipeline: Any) -> None:
    graph = Graph.from_diffusers(pipeline, task="text_to_video")
    codec, backbone = graph.nodes["codec"], graph.nodes["backbone"]
    latent, condition = torch.randn(2, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.ones(2, 3, 24)
    with torch.no_grad():
        expected = backbone.model(latent, torch.tensor([7.0, 7.0]), condition).sample
        assert torch.equal(backbone.run({"latent": latent, "timestep": 7.0, "condition": condition})["pred"], expected)
        video = codec.run({"latent": latent})["video"]
        again = codec.run({"video": video})["latent"]
    assert video.shape == (2, 5, 3, 16, 16) and again.shape == latent.shape
    with pytest.raises(PortError, match=r"latent: got shape \[2, 4, 2, 4, 3\]; expected \[B, 4, T, H, W\] with sides .* \(1, 2, 2\)"):
        backbone.run({"latent": latent[..., :3], "timestep": 7.0, "condition": condition})
    with pytest.raises(PortError, match="got 1 rows for 2 latents"):
        backbone.run({"latent": latent, "timestep": 7.0, "condition": condition[:1]})
    with pytest.raises(PortError, match=r"video: got shape \[2, 4, 3, 16, 16\]; expected .* F is 1 \+ n times 4"):
        codec.run({"video": video[:, :4]})
    with pytest.raises(PortError, match=r"latent: got shape \[2, 3, 2, 4, 4\]; expected \[B, 4, T, h, w\]"):
        codec.run({"latent": latent[:, :3]})
    with pytest.raises(PortError, match="got both latent and video; expected one of them"):
        codec.run({"latent": latent, "video": video})
