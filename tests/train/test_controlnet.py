"""A ControlNet that is trained here is diffusers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

pytest.importorskip("lightning")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from tests.train.toys import QUIET
from wgtorch.cli.train import target_from
from wgtorch.core.errors import ConfigError
from wgtorch.train.data.image_folder import ImageFolder
from wgtorch.train.fitting import fit

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def squares(folder: Path, size: int = tiny.PIXELS) -> dict[str, Any]:
    """Settings of two pictures with a square each, which the control pictures show in white."""
    for name in ("pictures", "controls"):
        (folder / name).mkdir()
        for index in range(2):
            picture = Image.new("RGB", (size, size), "blue" if name == "pictures" else "black")
            ImageDraw.Draw(picture).rectangle((index * 8, 4, index * 8 + 6, 10), fill="red" if name == "pictures" else "white")
            picture.save(folder / name / f"{index}.png")
    return {"folder": str(folder / "pictures"), "controls": str(folder / "controls"), "prompt": "a", "size": size, "step": 2}


def test_diffusers_loads_what_was_trained(tmp_path: Path) -> None:
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    pipeline = tiny.stable_diffusion(tmp_path / "words")
    pipeline.save_pretrained(tmp_path / "model")
    graph = target_from({"graph": {"folder": str(tmp_path / "model"), "controlnet": "new"}})
    noise = torch.randn(1, 4, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(0))
    sizes = {"num_inference_steps": 2, "guidance_scale": 2.0, "height": tiny.PIXELS, "width": tiny.PIXELS}
    data = squares(tmp_path)
    control = ImageFolder(**data).train()[0]["control_image"][None]
    call = {"prompt": "a", "latents": noise, "control_image": control, **sizes}
    before = graph.run(call)["image"]
    settings = {
        "data": {"type": "image_folder", **data}, "objective": "denoising", "train_only": ["controlnet"],
        "optimizer": {"type": "adamw", "lr": 0.02}, "export": {"format": "model", "name": "controlnet"},
        "trainer": {**QUIET, "max_steps": 6},
    }  # fmt: skip
    trained = fit(graph, settings, tmp_path / "run")
    assert {name.split(".")[2] for name in trained.trained_names()} == {"controlnet"}
    model = ControlNetModel.from_pretrained(tmp_path / "run/controlnet")
    theirs: Any = StableDiffusionControlNetPipeline(**pipeline.components, controlnet=model, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs("a", image=control, latents=noise, output_type="pt", **sizes).images
    graph.eval()
    after = graph.run(call)["image"]
    assert (after - before).abs().max() > 1e-3, "it began without an effect, and has one now"
    torch.testing.assert_close(after, expected, atol=2e-4, rtol=1e-3)
    assert "ControlNetModel.from_pretrained" in (tmp_path / "run/controlnet/README.md").read_text()


def test_control_pictures_are_cropped_and_mirrored_with_theirs(tmp_path: Path) -> None:
    data = squares(tmp_path, 24)
    rows = ImageFolder(**{**data, "size": 16}, crop="random", mirror=0.5).train()
    for number in range(6):
        item = rows[(0, number, 16, 16)]
        is_red = item["image"][0] > 0.5
        assert torch.equal(is_red, item["control_image"][0] > 0.5)
    (tmp_path / "controls/1.png").unlink()
    with pytest.raises(ConfigError, match=r"data.controls: .*holds no picture for 1.png"):
        ImageFolder(**data)
    with pytest.raises(ConfigError, match=r"export.name: there is no model .* at 'contrlnet'"):
        pipeline = tiny.stable_diffusion(tmp_path / "words")
        pipeline.save_pretrained(tmp_path / "model")
        graph = target_from({"graph": {"folder": str(tmp_path / "model")}})
        settings = {"data": {"type": "image_folder", **data, "controls": None}, "objective": "denoising"}
        fit(graph, {**settings, "export": {"format": "model", "name": "contrlnet"}}, tmp_path / "run")


@pytest.mark.parametrize("kind", ["stable_diffusion", "stable_diffusion_xl"])
def test_a_step_calls_it_once(kind: str, tmp_path: Path) -> None:
    getattr(tiny, kind)(tmp_path / "words").save_pretrained(tmp_path / "model")
    graph = target_from({"graph": {"folder": str(tmp_path / "model"), "controlnet": "new"}})
    calls = dict.fromkeys(("controlnet", "backbone"), 0)

    def counted(name: str) -> None:
        calls[name] += 1

    for name in calls:
        graph.nodes[name].register_forward_hook(lambda *ignored, name=name: counted(name))
    settings = {
        "data": {"type": "image_folder", **squares(tmp_path)}, "objective": "denoising", "train_only": ["controlnet"],
        "optimizer": {"type": "adamw", "lr": 0.02}, "trainer": {**QUIET, "max_steps": 3}, "cache": None,
    }  # fmt: skip
    fit(graph, settings, tmp_path / "run")
    assert calls == {"controlnet": 3, "backbone": 3}, "and not a whole loop of sampling for each prediction"
