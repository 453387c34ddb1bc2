"""Data of the default models, by name: drawn scenes, captions."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from wgtorch.blocks.scenes.scene import VOCABULARY, Scene, caption, labels_of, parse, sentence
from wgtorch.train.data.base import AtLeastOne
from wgtorch.train.data.made import MadeData, MadeItems, StoredItems
from wgtorch.train.registries import register_data
from wgtorch.train.scenes.drawings import DrawnScenes, Sample, gather, scene_of, store

VALIDATION = "validation"


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
