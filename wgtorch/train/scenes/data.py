"""Data of the painted scenes' models, by name: drawn scenes, made when asked for or once and kept, and captions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from wgtorch.blocks.scenes.scene import ATTRIBUTES, VOCABULARY, Scene, caption, labels_of, parse, sentence
from wgtorch.train.data.base import AtLeastOne
from wgtorch.train.data.made import MadeData, MadeItems, StoredItems
from wgtorch.train.data.made import store as store_items
from wgtorch.train.registries import register_data

VALIDATION = "validation"
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


@register_data("scenes")
class Scenes(MadeData):
    """Drawn scenes: `image` [B, 3, S, S] in [0, 1], `labels` [B, 7] (-1 where an attribute does not apply), `prompt`, captions.

    Every picture is drawn when it is asked for and none comes twice, so nothing can be memorised; with `keep` there are
    `count` of them, drawn once.

    Args:
        count: pictures of an epoch.
        validation: pictures that are held out.
        batch_size: pictures of a batch.
        workers: processes that draw beside the training one.
        seed: of scenes and pictures.
        size: side of the pictures in pixels.
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
        size: int = 64,
        keep: str | None = None,
    ) -> None:
        self.drawn, self.keep, self.fresh = DrawnScenes(count, seed=seed, size=size), keep, keep is None
        held_out = _Captioned(DrawnScenes(validation, seed=VALIDATION, size=size))
        super().__init__(self.drawn, held_out, batch_size=batch_size, workers=workers)

    def train(self) -> Dataset[Any]:
        return _Captioned(self.drawn if self.keep is None else store(self.drawn, Path(self.keep), workers=self.workers))

    @staticmethod
    def collate(items: list[Any]) -> Any:
        return gather(items)


class _Captioned(Dataset[dict[str, Any]]):
    """Pictures with captions that belong to their number."""

    def __init__(self, pictures: DrawnScenes | StoredItems) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: Sample = self.pictures[index]
        scene = scene_of(sample["labels"].tolist())
        return {**sample, "prompt": caption(scene, random.Random(f"caption/{index}"))}


_FILLERS = (
    "the", "a", "of", "and", "in", "on", "it", "was", "then", "they", "into", "over", "slowly", "again", "old", "new", "city", "people",
    "story", "world", "wind", "light", "one", "who", "came",
)  # fmt: skip
_STRANGE = "qqq"  # stands for all words that the tokenizer does not know


@register_data("scene_captions")
class SceneCaptions(MadeData):
    """Texts about scenes and what they name: `text`, `labels` [B, 7] (-1 where an attribute is not named).

    Captions and plain sentences; and, because what a text names is read off it by a grammar and any text will do, soups of
    known and unknown words, and captions with other words between theirs.

    Args:
        count: texts of an epoch; none comes twice.
        validation: captions that are held out.
        batch_size: texts of a batch.
        workers: processes that make them.
        seed: of the texts.
    """

    def __init__(
        self, *, count: AtLeastOne = 100_000, validation: AtLeastOne = 1000, batch_size: int = 128, workers: int = 0, seed: int = 0
    ) -> None:
        texts, held_out = _Texts(count, seed, plain=False), _Texts(validation, VALIDATION, plain=True)
        super().__init__(texts, held_out, batch_size=batch_size, workers=workers)


class _Texts(MadeItems):
    def __init__(self, count: int, seed: int | str, *, plain: bool) -> None:
        super().__init__(count, seed=seed)
        self.plain = plain

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = self.rng(index)
        text = caption(Scene.sample(rng), rng) if self.plain else _any_text(rng)
        return {"text": text, "labels": torch.tensor(labels_of(parse(text)))}


def _any_text(rng: random.Random) -> str:
    """A caption, a part of a sentence, a soup of words, or a caption with other words between its own."""
    scene = Scene.sample(rng)
    kind = rng.random()
    if kind < 0.55:
        return caption(scene, rng)
    if kind < 0.65:
        return sentence({name: value for name, value in scene.attributes().items() if rng.random() < 0.85})
    pools = (VOCABULARY, _FILLERS, (_STRANGE,))
    if kind < 0.8:
        return " ".join(rng.choice(rng.choices(pools, (2, 3, 1))[0]) for _ in range(rng.randint(1, 16)))
    text = caption(scene, rng).split()
    for _ in range(rng.randint(1, 6)):
        text.insert(rng.randrange(len(text) + 1), rng.choice(rng.choice(pools)))
    return " ".join(text)
