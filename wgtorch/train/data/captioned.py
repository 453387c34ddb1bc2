"""Pictures with captions, from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from wgtorch.core.errors import ConfigError
from wgtorch.core.run.rng import key_to_seed
from wgtorch.train.data.base import Data
from wgtorch.train.data.captions import captions_of, pictures_in
from wgtorch.train.data.pictures import as_tensor, open_picture
from wgtorch.train.registries import register_data


@register_data("captioned_images")
class CaptionedImages(Data):
    """A folder of pictures, each with its caption in a text file of the same name, or all captions in ``metadata.jsonl``.

    ``metadata.jsonl`` has a line ``{"file_name": "a.png", "text": "a castle"}`` for each picture, as other training programs
    read it. Items are ``image`` [3, S, S] in [0, 1] - scaled so that the shorter side is S, and cut in the middle - and ``prompt``.

    Args:
        folder: with the pictures; those in folders below it are taken too.
        size: S.
        mirror: share of the pictures that are shown mirrored, the same ones in every epoch.
        prompt: of pictures without a caption; without it they are an error.
        held_out: pictures that are for validation, every n-th; a share of all where it is below 1.
        seed: of the mirroring.
        batch_size: of each process.
        workers: processes that read pictures.
    """

    def __init__(
        self,
        *,
        folder: str,
        size: int = 64,
        mirror: float = 0.0,
        prompt: str | None = None,
        held_out: float = 0.0,
        seed: int = 0,
        batch_size: int = 8,
        workers: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        if size < 1 or not 0 <= mirror <= 1 or held_out < 0:
            raise ConfigError(
                f"data: found size {size}, mirror {mirror}, held_out {held_out}; expected positive sizes and shares in [0, 1]"
            )
        self.size, self.mirror, self.seed = size, mirror, seed
        self.pairs = captions_in(Path(folder), prompt)
        held_back = int(held_out) if held_out >= 1 else int(held_out * len(self.pairs))
        if held_back >= len(self.pairs):
            raise ConfigError(f"data.held_out: found {held_out} of {len(self.pairs)} pictures; expected fewer than all of them")
        self.held = set(range(0, len(self.pairs), len(self.pairs) // held_back)[:held_back]) if held_back else set()

    def train(self) -> Dataset[Any]:
        return _Pictures([pair for index, pair in enumerate(self.pairs) if index not in self.held], self.size, self.mirror, self.seed)

    def validation(self) -> Dataset[Any] | None:
        pictures = _Pictures(self.pairs, self.size, 0.0, self.seed)
        return Subset(pictures, sorted(self.held)) if self.held else None


def captions_in(folder: Path, prompt: str | None) -> list[tuple[Path, str]]:
    """Pictures in a folder with their captions, in the order of names.

    Raises:
        ConfigError: there are no pictures, or one has no caption.
    """
    pictures = pictures_in(folder)
    return list(zip(pictures, captions_of(folder, pictures, prompt), strict=True))


class _Pictures(Dataset[Any]):
    def __init__(self, pairs: list[tuple[Path, str]], size: int, mirror: float, seed: int) -> None:
        self.pairs, self.size, self.mirror, self.seed = pairs, size, mirror, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, caption = self.pairs[index]
        image = read_picture(path, self.size)
        generator = torch.Generator().manual_seed(key_to_seed(self.seed, "mirror", index))
        if self.mirror and float(torch.rand((), generator=generator)) < self.mirror:
            image = image.flip(-1)
        return {"image": image, "prompt": caption}


def read_picture(path: Path, size: int) -> Tensor:
    """A picture [3, size, size] in [0, 1]: the shorter side scaled to ``size``, cut in the middle."""
    from PIL import Image, ImageOps

    return as_tensor(ImageOps.fit(open_picture(path)[0], (size, size), Image.Resampling.LANCZOS))
