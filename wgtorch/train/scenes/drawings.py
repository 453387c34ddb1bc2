"""Drawn scenes as datasets: drawn when asked for, or drawn once and kept in two memory-mapped files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import default_collate

from wgtorch.blocks.scenes.scene import ATTRIBUTES, Scene, labels_of
from wgtorch.train.data.made import MadeItems, StoredItems
from wgtorch.train.data.made import store as store_items

Sample = dict[str, Tensor]


class DrawnScenes(MadeItems):
    """Random scenes, drawn when they are asked for: 1 to 10 ms each on one core.

    Args:
        count: how many there are.
        seed: names the collection; a held-out one has a seed of its own.
        size: side of the pictures in pixels.
    """

    def __init__(self, count: int, *, seed: int | str = 0, size: int = 64) -> None:
        if count < 1 or size < 8:
            raise ValueError(f"DrawnScenes: found count {count} and size {size}, expected at least 1 and 8")
        super().__init__(count, seed=seed)
        self.size = size

    def __getitem__(self, index: int) -> Sample:
        """`image` uint8 [3, S, S]; `labels` int64 [7], -1 where an attribute does not apply."""
        from wgtorch.blocks.scenes.drawing import draw

        rng = self.rng(index)
        scene = Scene.sample(rng)
        picture = draw(scene, seed=rng.randrange(2**31), size=self.size)
        return {"image": torch.tensor(picture).permute(2, 0, 1), "labels": torch.tensor(labels_of(scene.attributes()))}


def store(scenes: DrawnScenes, root: Path, *, workers: int = 0) -> StoredItems:
    """Draws all scenes into a folder beneath `root`, or finds them there: 12 kB a picture of 64x64."""
    return store_items(scenes, root / f"scenes-{scenes.seed}_{scenes.count}x{scenes.size}", workers=workers)


def gather(samples: Sequence[Sample]) -> Sample:
    """A batch of samples: `image` float [B, 3, S, S] in [0, 1], `labels` int64 [B, 7]."""
    batch = default_collate(list(samples))
    return {**batch, "image": batch["image"].float() / 255}


def scene_of(labels: Sequence[int]) -> Scene:
    """The scene of its labels, -1 where an attribute does not apply."""
    return Scene(**{name: values[k] for k, (name, values) in zip(labels, ATTRIBUTES.items(), strict=True) if k >= 0})
