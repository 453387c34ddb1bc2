"""Every place where a picture or a sound enters reads it as people see and hear it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from wgtorch import Block, Graph
from wgtorch.core.errors import PortTypeError
from wgtorch.core.kinds import image_to_tensor
from wgtorch.storage.encoding import images_in, write_png
from wgtorch.storage.media import wav_bytes


def of_path(file: Path) -> Tensor:
    return image_to_tensor(str(file))


def of_port(file: Path) -> Tensor:
    def passed(x: Any) -> Tensor:
        return x

    graph = Graph("g")
    graph.add_node(Block.wrap(passed, inputs={"x": "image"}, outputs={"y": "image"}), "n")
    graph.infer_exposed_ports()
    return graph.run({"x": file})["y"]


def of_bytes(file: Path) -> Tensor:
    from wgtorch.integrations.api.media import image_of

    return image_of(file.read_bytes())


def of_training(file: Path) -> Tensor:
    from wgtorch.train.data.pictures import as_tensor, open_picture

    return as_tensor(open_picture(file)[0])


def of_diffusers(file: Path) -> Tensor:
    pytest.importorskip("diffusers")
    from wgtorch.integrations.diffusers.blocks.pictures import batch_of, size_of

    batch = batch_of(file, "here")
    assert tuple(batch.shape[2:]) == size_of(file)
    return batch[0]


READERS = [of_path, of_port, of_bytes, of_training, of_diffusers]


def turned(file: Path) -> tuple[Path, list[float]]:
    """Three pixels high and one wide as it is seen, red at the top, stored on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.array([[[0, 0, 255], [0, 0, 255], [255, 0, 0]]], dtype=np.uint8)[:, ::-1]
    Image.fromarray(pixels.copy()).save(file, exif=exif)
    return file, [1.0, 0.0, 0.0]


def deep(file: Path) -> tuple[Path, list[float]]:
    Image.fromarray(np.full((3, 1), 0x8080, dtype=np.uint16)).save(file)
    return file, [128 / 255] * 3


def transparent(file: Path) -> tuple[Path, list[float]]:
    Image.new("RGBA", (1, 3), (255, 0, 0, 0)).save(file)
    return file, [1.0, 1.0, 1.0]


def transparent_palette(file: Path) -> tuple[Path, list[float]]:
    picture = Image.new("P", (1, 3), 0)
    picture.putpalette([255, 0, 0] + [0] * 765)
    picture.save(file, transparency=0)
    return file, [1.0, 1.0, 1.0]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("make", [turned, deep, transparent, transparent_palette])
def test_files_are_upright_and_of_the_colours_that_are_seen(read: Any, make: Any, tmp_path: Path) -> None:
    file, expected = make(tmp_path / "a.png")
    seen = read(file)
    assert list(seen.shape) == [3, 3, 1]
    torch.testing.assert_close(seen[:, 0, 0], torch.tensor(expected))


GREY = 128 / 255
LEVELS = [
    (torch.full((3, 2, 2), 128, dtype=torch.uint8), GREY),
    (torch.full((3, 2, 2), 0x8080, dtype=torch.int32).to(torch.uint16), GREY),
    (torch.ones(3, 2, 2, dtype=torch.bool), 1.0),
    (torch.full((3, 2, 2), GREY, dtype=torch.float64), GREY),
]


def written(value: Tensor) -> Tensor:
    held = io.BytesIO()
    write_png(value, held)
    return torch.from_numpy(np.array(Image.open(held))).movedim(-1, 0) / 255


def filmed(value: Tensor) -> Tensor:
    from wgtorch.storage.media import video_bytes

    with Image.open(io.BytesIO(video_bytes(torch.stack([value, value]), "webp"))) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).movedim(-1, 0) / 255


@pytest.mark.parametrize("read", [image_to_tensor, written, filmed])
@pytest.mark.parametrize(("value", "expected"), LEVELS, ids=lambda value: str(getattr(value, "dtype", "")))
def test_the_range_of_pixels_is_that_of_their_dtype(read: Any, value: Tensor, expected: float) -> None:
    assert read(value).double().flatten()[0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_pixels_that_do_not_say_what_is_white_are_refused(kind: str) -> None:
    block = Block.wrap(lambda x: x, inputs={"x": kind}, outputs={"y": "any"})
    with pytest.raises(PortTypeError, match=r"x: pixels of int64, which does not say what is white; expected .*uint8"):
        block.run({"x": torch.full((1, 3, 2, 2), 128)})
    with pytest.raises(PortTypeError, match="pixels of int32"):
        write_png(torch.full((3, 2, 2), 128, dtype=torch.int32), io.BytesIO())
    with pytest.raises(PortTypeError, match="mode 'F', whose range it does not say"):
        image_to_tensor(Image.new("F", (2, 2), 0.5))
    assert not list(images_in(torch.zeros(3, 8, 8, dtype=torch.int64), "tokens")), "a map of numbers is no picture"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.full((1, 1, 8), 16384, dtype=torch.int16), 0.5),
        (torch.full((1, 1, 8), 2**30, dtype=torch.int32), 0.5),
        (torch.full((1, 1, 8), 192, dtype=torch.uint8), 0.5),
        (torch.full((1, 1, 8), 0.5), 0.5),
    ],
)
def test_the_range_of_samples_is_that_of_their_dtype(value: Tensor, expected: float) -> None:
    block = Block.wrap(lambda x: x, inputs={"x": "audio"}, outputs={"y": "any"})
    assert block.run({"x": value})["y"].flatten()[0] == expected
    assert wav_bytes(value[0], 8000) == wav_bytes(torch.full((1, 8), 0.5), 8000)
    with pytest.raises(PortTypeError, match=r"x: samples of int64, whose range it does not say"):
        block.run({"x": value.to(torch.int64)})
