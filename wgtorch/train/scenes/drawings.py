"""Drawn scenes as datasets: drawn when asked for, or drawn once and kept in two memory-mapped files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from wgtorch.blocks.scenes.scene import ATTRIBUTES, Scene, labels_of

Sample = dict[str, Tensor]


class DrawnScenes(Dataset[Sample]):
    """Random scenes, drawn when they are asked for: 1 to 10 ms each on one core.

    Sample k of a seed is always the same picture; other seeds give other scenes and other pictures. There is a sample for
    every k, `count` only says how many are an epoch.

    Args:
        count: how many there are.
        seed: names the collection; a held-out one has a seed of its own.
        size: side of the pictures in pixels.
    """

    def __init__(self, count: int, *, seed: int | str = 0, size: int = 64) -> None:
        if count < 1 or size < 8:
            raise ValueError(f"DrawnScenes: found count {count} and size {size}, expected at least 1 and 8")
        self.count, self.seed, self.size = count, seed, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """`image` uint8 [3, S, S]; `labels` int64 [7], -1 where an attribute does not apply."""
        from wgtorch.blocks.scenes.drawing import draw

        rng = random.Random(f"{self.seed}/{index}")
        scene = Scene.sample(rng)
        picture = draw(scene, seed=rng.randrange(2**31), size=self.size)
        return {"image": torch.tensor(picture).permute(2, 0, 1), "labels": torch.tensor(labels_of(scene.attributes()))}


class StoredScenes(Dataset[Sample]):
    """The samples of :class:`DrawnScenes`, read from a folder that :func:`store` wrote."""

    def __init__(self, folder: Path) -> None:
        self.images = np.load(folder / "images.npy", mmap_mode="r")  # [N, 3, S, S]
        self.labels = np.load(folder / "labels.npy", mmap_mode="r")  # [N, 7]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return {"image": torch.tensor(self.images[index]), "labels": torch.tensor(self.labels[index], dtype=torch.long)}


def store(scenes: DrawnScenes, root: Path, *, workers: int = 0) -> StoredScenes:
    """Draws all scenes into a folder beneath `root`, or finds them there: 12 kB a picture of 64x64.

    The folder is named after seed, count and size, and has its name only when it is complete.
    """
    from rich.progress import track

    folder = root / f"seed-{scenes.seed}_{scenes.count}x{scenes.size}"
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(part / "images.npy", "w+", np.uint8, (len(scenes), 3, scenes.size, scenes.size))
        labels = np.lib.format.open_memmap(part / "labels.npy", "w+", np.int8, (len(scenes), len(ATTRIBUTES)))
        start = 0
        for batch in track(DataLoader(scenes, batch_size=250, num_workers=workers), f"drawing {len(scenes)} scenes"):
            stop = start + len(batch["labels"])
            images[start:stop], labels[start:stop] = batch["image"].numpy(), batch["labels"].numpy()
            start = stop
        images.flush()
        labels.flush()
        part.rename(folder)
    return StoredScenes(folder)


def gather(samples: Sequence[Sample]) -> Sample:
    """A batch of samples: `image` float [B, 3, S, S] in [0, 1], `labels` int64 [B, 7]."""
    batch = default_collate(list(samples))
    return {**batch, "image": batch["image"].float() / 255}


def scene_of(labels: Sequence[int]) -> Scene:
    """The scene of its labels, -1 where an attribute does not apply."""
    return Scene(**{name: values[k] for k, (name, values) in zip(labels, ATTRIBUTES.items(), strict=True) if k >= 0})
