"""Templates that change a painted scene: what they share with text-to-image, what they keep of the picture, and where they differ."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline

PROMPT = "a lighthouse on a cliff at night"


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def scene(noise: Tensor) -> Tensor:
    return Graph.from_template("text_to_image").run({"prompt": "a red castle in a desert at noon", "noise.latent": noise})["image"]


def distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().mean())


def test_a_picture_that_may_change_wholly_is_painted_as_from_text(scene: Tensor, noise: Tensor) -> None:
    from_text = Graph.from_template("text_to_image")
    from_text.remove_node("complete")  # a picture says itself what the prompt leaves open
    from_text.add_edge("conditioner.embedding", "backbone.condition")
    expected = from_text.run({"prompt": PROMPT, "noise.latent": noise})["image"]
    found = Graph.from_template("image_to_image").run({"prompt": PROMPT, "image": scene, "latents": noise, "strength": 1.0})["image"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_stronger_the_farther_from_the_picture(scene: Tensor, noise: Tensor) -> None:
    graph = Graph.from_template("image_to_image")
    call = {"prompt": PROMPT, "image": scene, "latents": noise}
    far = [distance(graph.run({**call, "strength": strength})["image"], scene) for strength in (0.2, 0.5, 1.0)]
    assert far == sorted(far) and far[0] < 0.5 * far[-1]
    assert graph.run({**call, "image": scene[0, :, :40, :50]})["image"].shape == scene.shape


@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_inpainting_keeps_what_is_not_masked(scene: Tensor, noise: Tensor, strength: float) -> None:
    graph = Graph.from_template("inpaint")
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    found = graph.run({"prompt": PROMPT, "image": scene, "mask_image": mask, "latents": noise, "strength": strength})["image"]
    torch.testing.assert_close(found[..., :32], scene[..., :32], rtol=0, atol=1e-6)
    assert distance(found[..., 32:], scene[..., 32:]) > 0.02
    whole = {"prompt": PROMPT, "image": scene, "latents": noise, "strength": strength}
    everywhere = graph.run({**whole, "mask_image": torch.ones(1, 64, 64)})["image"]
    repainted = Graph.from_template("image_to_image").run(whole)["image"]
    torch.testing.assert_close(everywhere, repainted, rtol=0, atol=1e-5)


def test_refining_goes_over_the_picture_with_the_same_painter() -> None:
    pipeline = Pipeline.from_template("text_to_image_refine")
    assert pipeline.find("t2i/backbone") is pipeline.find("refine/backbone")
    found = pipeline.run({"prompt": PROMPT}, seed=4, outputs=["t2i.image", "image"])
    change = distance(found["t2i.image"], found["image"])
    assert 0 < change < 0.2
    gentle = pipeline.run({"prompt": PROMPT, "strength": 0.1}, seed=4, outputs=["t2i.image", "image"])
    assert torch.equal(gentle["t2i.image"], found["t2i.image"])
    assert distance(gentle["t2i.image"], gentle["image"]) < change


@pytest.mark.parametrize("name", ["image_to_image", "inpaint"])
def test_configs_build_the_same_graph(name: str, scene: Tensor) -> None:
    graph = Graph.from_template(name, steps=3)
    again = Graph.from_config(graph.to_config())
    assert again.to_config() == graph.to_config()
    call = {"prompt": PROMPT, "image": scene} | ({"mask_image": torch.ones(1, 64, 64)} if name == "inpaint" else {})
    assert torch.equal(again.run(call, seed=1)["image"], graph.run(call, seed=1)["image"])
