"""Drawn pixel scenes: what the painter and the describer of pixel scenes learn from."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from wgtorch.blocks.pixel_scenes.conditioner import encode_plan
from wgtorch.blocks.pixel_scenes.drawing.materials import FIRST, Hand
from wgtorch.blocks.pixel_scenes.drawing.picture import draw
from wgtorch.blocks.pixel_scenes.layout import BACK_ROWS, BACK_WIDTH, CELL, COLUMNS, FRONT_ROWS, FRONT_WIDTH, SIZE, any_plan
from wgtorch.blocks.pixel_scenes.palette import PALETTE, nearest
from wgtorch.blocks.simulation.scene_plan import BACK, SLOTS, ScenePlan
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.train.data.base import AtLeastOne
from wgtorch.train.data.made import MadeData, MadeItems, StoredItems
from wgtorch.train.data.made import store as store_items
from wgtorch.train.registries import register_data

HANDS = {"first": None, "others": Hand.other, "judge": Hand.judge}
_LINES = torch.tensor([1.0, 0.6]).repeat(SIZE // 2).view(1, 1, SIZE, 1)
STYLES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "inverted": (lambda x: 1 - x, lambda x: 1 - x),
    "turned": (lambda x: x[:, [1, 2, 0]], lambda x: x[:, [2, 0, 1]]),
    "screen": (lambda x: x * _LINES, lambda x: (x / _LINES).clamp(0, 1)),
}
"""(a style, the way back) of pictures [B, 3, 64, 64] in [0, 1]: inverted colours, colours a third of the wheel on, a screen's lines."""
HELD_OUT = "held out"
"""Seed of plans and drawings that no model is trained on."""

Sample = dict[str, Tensor]


class DrawnPixelScenes(MadeItems):
    """Plans by chance and their drawings, made when they are asked for: 3 ms each on one core.

    Args:
        count: how many there are.
        seed: names the collection.
        hand: ``first``, that of the painter's pictures; ``others`` or ``judge``, another hand for each picture.
        held_out: True for plans with a combination that training leaves out, False for others, None for either.
        things: how many things a picture holds, 0 to 5, or the numbers to choose from; by chance where left out.
        objects: share of objects among what is neither landmark nor hero.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int | str = 0,
        hand: str = "first",
        held_out: bool | None = None,
        things: int | Sequence[int] | None = None,
        objects: float = 0.5,
    ) -> None:
        super().__init__(count, seed=seed)
        if hand not in HANDS:
            raise ConfigError(f"pixel_scenes.hand: found {hand!r}, expected one of {', '.join(HANDS)}")
        if not 0 <= objects <= 1:
            raise ConfigError(f"pixel_scenes.objects: found {objects}, expected a share from 0 to 1")
        numbers = () if things is None else (things,) if isinstance(things, int) else tuple(things)
        if (things is not None and not numbers) or any(type(number) is not int or not 0 <= number <= 5 for number in numbers):
            raise ConfigError(f"pixel_scenes.things: found {things!r}, expected numbers from 0 to 5, as in [1, 1, 4]")
        self.hand, self.held_out, self.things, self.objects = hand, held_out, things, objects

    def __getitem__(self, index: int) -> Sample:
        """`colors` uint8 [64, 64], numbers in the palette, and the plan's `rows` int8 [9, 6]."""
        plan, rng = self._begin(index)
        other = HANDS[self.hand]
        hand = FIRST if other is None else other(rng)
        picture = torch.tensor(draw(plan, rng.randrange(2**31), hand)).permute(2, 0, 1)
        return {"colors": nearest(picture / 255).to(torch.uint8), "rows": encode_plan(plan).to(torch.int8)}

    def plan(self, index: int) -> ScenePlan:
        """What a sample shows."""
        return self._begin(index)[0]

    def _begin(self, index: int) -> tuple[ScenePlan, random.Random]:
        rng = self.rng(index)
        return any_plan(rng, held_out=self.held_out, things=self.things, objects=self.objects), rng


def store(scenes: DrawnPixelScenes, root: Path, *, workers: int = 0) -> StoredItems:
    """Draws all scenes into a folder beneath `root`, or finds them there: 4 kB a picture."""
    things = scenes.things if scenes.things is None or isinstance(scenes.things, int) else "".join(map(str, scenes.things))
    name = f"pixel-{scenes.seed}-{scenes.hand}-{scenes.held_out}-{things}-{scenes.objects}_{scenes.count}"
    return store_items(scenes, root / name, workers=workers)


def pictures_of(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Pictures [B, 3, 64, 64] in [0, 1], and rows [B, 9, 6] (int64)."""
    palette = torch.tensor(PALETTE) / 255
    image = palette[torch.stack([sample["colors"] for sample in samples]).long()].permute(0, 3, 1, 2)
    return image.contiguous(), torch.stack([sample["rows"] for sample in samples]).long()


class _Weighted(Dataset[Sample]):
    """Samples, each with what its pixels count (``mask`` [1, 64, 64])."""

    def __init__(self, scenes: Dataset[Sample], weight: float) -> None:
        self.scenes, self.weight = scenes, weight

    def __len__(self) -> int:
        return len(cast(Sized, self.scenes))

    def __getitem__(self, index: int) -> Sample:
        sample = self.scenes[index]
        return {**sample, "mask": weights_of(sample["rows"], self.weight)}


def weights_of(rows: Tensor, things: float) -> Tensor:
    """What each pixel counts [1, 64, 64]: `things` where something stands in the front row, half as much behind, elsewhere 1.

    Args:
        rows: [9, 6] of a plan.
        things: at least 1.
    """
    weights = torch.ones(1, SIZE, SIZE)
    for kind, slot in zip(rows[1:, 0].tolist(), SLOTS, strict=True):
        if kind:
            (top, bottom), width, weight = (BACK_ROWS, BACK_WIDTH, things / 2) if slot in BACK else (FRONT_ROWS, FRONT_WIDTH, things)
            box = weights[:, top * CELL : bottom * CELL, COLUMNS[slot] * CELL : (COLUMNS[slot] + width) * CELL]
            box.clamp_(min=weight)
    return weights


@register_data("pixel_scenes")
class PixelScenes(MadeData):
    """Drawn pixel scenes: `image` [B, 3, 64, 64] in [0, 1], `latent`, the same in [-1, 1], and `scene`, rows [B, 9, 6] of the plans.

    Combinations that :func:`~wgtorch.blocks.pixel_scenes.layout.is_held_out` names are left out when the first hand draws. Every
    picture is drawn when it is asked for and none comes twice; with `keep` there are `count` of them, drawn once.

    Args:
        count: pictures of an epoch.
        validation: pictures that are held out.
        batch_size: pictures of a batch.
        workers: processes that draw beside the training one.
        seed: of plans and pictures.
        hand: ``first`` for the painter, ``others`` for the describer, ``judge`` for the judge of both.
        things: numbers of things that a picture may hold, one named twice being twice as likely, as in ``[1, 1, 2, 3, 4, 5]``; None for
            the usual ones.
        objects: share of objects among what is neither landmark nor hero.
        weight: what a pixel counts where something stands, against 1 elsewhere (``mask``), for objectives that weigh pixels: things are
            few pixels, and what matters is in them.
        style: one of :data:`STYLES` that the pictures are brought to; None leaves them as they are drawn.
        keep: folder that keeps the drawings; None draws for ever.
    """

    def __init__(
        self,
        *,
        count: AtLeastOne = 100_000,
        validation: AtLeastOne = 512,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
        hand: str = "first",
        things: Sequence[int] | None = None,
        objects: float = 0.5,
        weight: float = 1.0,
        style: str | None = None,
        keep: str | None = None,
    ) -> None:
        if style is not None and style not in STYLES:
            raise ConfigError(f"pixel_scenes.style: found {style!r}; {suggest(style, STYLES)}")
        self.style = style
        if weight < 1:
            raise ConfigError(f"pixel_scenes.weight: found {weight}, expected at least 1")
        held_out = False if hand == "first" else None
        self.weight = weight
        self.drawn = DrawnPixelScenes(count, seed=seed, hand=hand, held_out=held_out, things=things, objects=objects)
        held_out_scenes = DrawnPixelScenes(validation, seed=HELD_OUT, hand="first", held_out=held_out)
        super().__init__(self.drawn, held_out_scenes, batch_size=batch_size, workers=workers)
        self.keep, self.fresh = keep, keep is None

    def train(self) -> Dataset[Any]:
        return self._weighted(self.drawn if self.keep is None else store(self.drawn, Path(self.keep), workers=self.workers))

    def validation(self) -> Dataset[Any]:
        return self._weighted(self.held_out)

    def _weighted(self, scenes: Dataset[Sample]) -> Dataset[Sample]:
        return scenes if self.weight == 1 else _Weighted(scenes, self.weight)

    def collate(self, items: list[Any]) -> Any:  # type: ignore[override]
        image, rows = pictures_of(items)
        image = image if self.style is None else STYLES[self.style][0](image)
        masks = {"mask": torch.stack([item["mask"] for item in items])} if "mask" in items[0] else {}
        return {"image": image, "latent": image * 2 - 1, "scene": rows, **masks}
