"""Buckets: the sizes that pictures of different shapes are brought to, so that a batch is of one size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from wgtorch.core.errors import ConfigError
from wgtorch.core.run.rng import key_to_seed
from wgtorch.train.data.base import Order

Size = tuple[int, int]
"""(height, width)."""
Draw = tuple[int, int, int, int]
"""(number of the picture, how often it has come before, height, width)."""

MUCH = 0.2
"""Share of a picture whose loss is worth a warning: with steps of an eighth of the size it is less for all shapes up to 2 to 1."""


def bucket_sizes(size: int, step: int, longest: float = 2.0) -> list[Size]:
    """Sizes of about ``size`` x ``size`` pixels in all shapes up to ``longest`` to 1, sides multiples of ``step``.

    As in SDXL's training (Podell et al. 2023, https://arxiv.org/abs/2307.01952, section 2.3): for every width the greatest height
    with at most that many pixels.
    """
    if size < step or size % step:
        raise ConfigError(f"data.size: found {size}; expected a multiple of data.step ({step}), at least that")
    found = {(size, size)}
    for width in range(step, int(size * math.sqrt(longest)) + step, step):
        height = size * size // width // step * step
        if height >= step and max(height / width, width / height) <= longest:
            found |= {(height, width)}
    return sorted(found)


def nearest(height: int, width: int, sizes: Sequence[Size]) -> Size:
    """The size whose shape is nearest to a picture's."""
    shape = math.log(height / width)
    return min(sizes, key=lambda size: (abs(math.log(size[0] / size[1]) - shape), -size[0] * size[1]))


def cut_off(height: int, width: int, size: Size) -> float:
    """The share of a picture that is lost where it is scaled to cover a size and cropped to it."""
    shape, wanted = height / width, size[0] / size[1]
    return 1 - min(shape / wanted, wanted / shape)


class BucketOrder(Order):
    """Which pictures an epoch's batches hold: each batch of one size, all pictures at least once, in an order of the seed's.

    The last batch of a size is smaller where pictures run out. Over several processes it is filled up with pictures of the same size
    until each has as many.

    Args:
        seed: of the training.
        sizes: of each picture of the set, by its number.
        repeats: how often each comes in an epoch.
        beside: numbers of pictures that come beside those in every batch, as many as there are of these; they are brought to the size
            of the batch (pictures of the class, in prior preservation).
    """

    def __init__(self, seed: int, sizes: Sequence[Size], repeats: Sequence[int], beside: Sequence[int] = ()) -> None:
        super().__init__(seed)
        self.sizes, self.repeats, self.beside = list(sizes), list(repeats), list(beside)

    def batches(self, count: int, size: int, world_size: int) -> int:
        return sum(-(-count // (size * world_size)) for count in self._counts().values())

    def rows(self, epoch: int, count: int, size: int, rank: int, world_size: int) -> list[Any]:
        generator = torch.Generator().manual_seed(key_to_seed(self.seed, "order", epoch))
        batches: list[tuple[Size, list[tuple[int, int]]]] = []
        for shape in self._counts():
            members = [
                (index, epoch * self.repeats[index] + again)
                for index, own in enumerate(self.sizes)
                if own == shape
                for again in range(self.repeats[index])
            ]
            members = [members[place] for place in torch.randperm(len(members), generator=generator).tolist()]
            for start in range(0, len(members), size * world_size):
                row = members[start : start + size * world_size]
                short = -len(row) % world_size
                row += [members[place % len(members)] for place in range(short)]
                batches.append((shape, row[rank::world_size]))
        order = torch.randperm(len(batches), generator=generator).tolist()
        taken = 0
        found = []
        for place in order:
            (height, width), row = batches[place]
            draws: list[Draw] = [(index, number, height, width) for index, number in row]
            if self.beside:
                start = taken * world_size + rank * len(row) + epoch * sum(self.repeats)
                draws += [(self.beside[(start + each) % len(self.beside)], epoch, height, width) for each in range(len(row))]
                taken += len(row)
            found.append(draws)
        return found

    def _counts(self) -> dict[Size, int]:
        counts: dict[Size, int] = {}
        for own, repeats in zip(self.sizes, self.repeats, strict=True):
            counts[own] = counts.get(own, 0) + repeats
        return dict(sorted(counts.items()))


def bucket_report(sizes: Iterable[Size]) -> str:
    """How many pictures each size has, in words."""
    counts: dict[Size, int] = {}
    for size in sizes:
        counts[size] = counts.get(size, 0) + 1
    return ", ".join(f"{count} of {width}x{height}" for (height, width), count in sorted(counts.items()))
