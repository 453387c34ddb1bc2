"""The upscaler, and pictures that turn into what a prompt says."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from wgtorch.blocks.scenes.drawing import draw
from wgtorch.blocks.scenes.scene import Scene
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline


def drawn(scene: Scene, size: int) -> torch.Tensor:
    return torch.tensor(draw(scene, seed=1, size=size)).permute(2, 0, 1).unsqueeze(0).float() / 255


@pytest.fixture(scope="module")
def castle() -> Scene:
    return Scene(time="day", weather="clear", terrain="hills", landmark="castle", color="red", place="left", traveller="no")


def test_the_upscaler_beats_bicubic_enlargement() -> None:
    import random

    scenes = [Scene.sample(random.Random(f"upscale/{index}")) for index in range(8)]
    large = torch.cat([drawn(scene, 128) for scene in scenes])
    small = F.avg_pool2d(large, 2)
    found = Graph.from_template("upscale").run({"image": small})["image"]
    smooth = F.interpolate(small, scale_factor=2, mode="bicubic").clamp(0, 1)
    assert found.shape == large.shape
    assert F.mse_loss(found, large) < 0.8 * F.mse_loss(smooth, large)


def test_a_picture_turns_into_what_the_prompt_says(castle: Scene) -> None:
    picture = drawn(castle, 64)
    graph = Graph.from_template("image_to_video", frames=3)
    video = graph.run({"image": picture, "prompt": "at night in the snow"}, seed=1)["video"]
    assert video.shape == (1, 3, 3, 64, 64)
    look = Graph.from_template("caption")
    first, last = (look.run({"image": video[:, frame]})["attributes"] for frame in (0, -1))
    assert (first["time"], first["landmark"]) == ("day", "castle")
    assert (last["time"], last["weather"], last["landmark"]) == ("night", "snow", "castle")


def test_frames_start_from_one_noise(castle: Scene) -> None:
    graph = Graph.from_template("image_to_video", frames=3, steps=4)
    video = graph.run({"image": drawn(castle, 64), "prompt": ""}, seed=5)["video"]  # nothing is to change
    torch.testing.assert_close(video[:, 0], video[:, 2], rtol=0, atol=1e-4)
    assert graph.run({"image": drawn(castle, 64), "prompt": "", "num_frames": 2}, seed=5)["video"].shape[1] == 2


def test_text_to_video_is_three_graphs_on_one_set_of_models() -> None:
    pipeline = Pipeline.from_template("text_to_video", frames=2, steps=4)
    found = pipeline.run({"prompt": ["a red castle by day", "a tent in the desert"], "video_prompt": "at night"}, seed=2)
    assert found["image"].shape == (2, 3, 128, 128)
    assert found["video"].shape == (2, 2, 3, 128, 128)
    graphs = pipeline.nodes
    assert graphs["t2i"].nodes["backbone"] is graphs["i2v"].nodes["backbone"]
    assert graphs["upscale"].nodes["upscaler"] is graphs["i2v"].nodes["upscaler"]
    again = Pipeline.from_config(pipeline.to_config())
    assert torch.equal(
        again.run({"prompt": "a red castle by day"}, seed=2)["video"], pipeline.run({"prompt": "a red castle by day"}, seed=2)["video"]
    )
