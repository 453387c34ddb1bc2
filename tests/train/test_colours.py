"""An adapter that begins with the colours of a style: the drawing is the base's, its colours are those of the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("lightning")
pytest.importorskip("peft")

from scripts.pixel_measures import paint
from tests.train.toys import QUIET
from wgtorch.core.errors import ConfigError, TrainingError
from wgtorch.graph import Graph
from wgtorch.train.colours import colour_map
from wgtorch.train.fitting import fit
from wgtorch.train.pixel_scenes.data import HELD_OUT, STYLES, DrawnPixelScenes, PixelScenes

ENDS = {"target_modules": ["merge"], "modules_to_save": ["enter", "leave"], "nodes": "backbone", "freeze_base": True}
PLANS = [DrawnPixelScenes(4, seed=HELD_OUT).plan(index) for index in range(4)]


def begun(folder: Path, lora: dict[str, Any], style: str | None = "inverted") -> Graph:
    """The painter after a training whose learning rate is so small that only its beginning is seen."""
    graph = Graph.from_template("scene_to_image", scale=1, steps=3)
    data = {"type": "pixel_scenes", "count": 8, "validation": 2, "batch_size": 8, "style": style}
    optimizer = {"type": "sgd", "lr": 1e-9}
    trainer = {**QUIET, "max_steps": 1, "limit_val_batches": 0}
    fit(graph, {"data": data, "objective": "denoising", "lora": lora, "optimizer": optimizer, "trainer": trainer}, folder)
    return graph.eval()


def squares(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(pictures, 16)


def test_the_map_is_the_one_that_colours_went_through() -> None:
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    matrix, offset = torch.tensor([[0.0, 1.0, 0.2], [-1.0, 0.5, 0.0], [0.0, 0.0, -0.7]]), torch.tensor([0.1, -0.2, 0.3])
    wanted = torch.einsum("cd,bdhw->bchw", matrix, x) + offset.view(1, 3, 1, 1)
    found, shift = colour_map(x, wanted)
    torch.testing.assert_close(found, matrix, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shift, offset, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="do not tell three colours apart"):
        colour_map(x, x.mean(1, keepdim=True).expand_as(x))


def test_the_pictures_begin_in_the_colours_of_the_data(tmp_path: Path) -> None:
    base = paint(Graph.from_template("scene_to_image", scale=1, steps=3), PLANS)
    styled = paint(begun(tmp_path / "with", {**ENDS, "colours": 8}), PLANS)
    without = paint(begun(tmp_path / "without", ENDS), PLANS)
    inverted = squares(1 - base)
    far = float((squares(without) - inverted).abs().mean())
    near = float((squares(styled) - inverted).abs().mean())
    torch.testing.assert_close(without, base, atol=1e-4, rtol=0)
    assert near < 0.25 * far, (near, far)


def test_what_cannot_begin_so_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"lora.colours: no painter .* expected lora.modules_to_save=\[enter, leave\]"):
        begun(tmp_path, {"target_modules": ["qkv"], "nodes": "backbone", "freeze_base": True, "colours": 4})
    for wrong in (True, -1, "many", {"no": 1}):
        with pytest.raises(ConfigError, match=r"lora.colours: found .*; expected of how many samples"):
            begun(tmp_path, {**ENDS, "colours": wrong})


def test_styles_have_a_way_back() -> None:
    plain = PixelScenes(count=2, validation=2)
    items = [plain.held_out[index] for index in range(2)]
    image = plain.collate(items)["image"]
    for name, (style, back) in STYLES.items():
        batch = PixelScenes(count=2, validation=2, style=name).collate(items)
        torch.testing.assert_close(batch["image"], style(image))
        torch.testing.assert_close(back(batch["image"]), image)
        torch.testing.assert_close(batch["latent"], batch["image"] * 2 - 1)
    with pytest.raises(ConfigError, match=r"pixel_scenes.style: found 'invertd'; did you mean 'inverted'"):
        PixelScenes(style="invertd")
