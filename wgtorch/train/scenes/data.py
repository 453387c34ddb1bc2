"""Data of the default models, by name: drawn scenes, captions, told episodes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from wgtorch.blocks.scenes.scene import VOCABULARY, Scene, caption, labels_of, parse, sentence
from wgtorch.train.data.base import AtLeastOne, Data
from wgtorch.train.registries import register_data
from wgtorch.train.scenes.drawings import DrawnScenes, Sample, StoredScenes, gather, scene_of, store
from wgtorch.train.scenes.episodes import Episodes

VALIDATION = "validation"


@register_data("scenes")
class Scenes(Data):
    """Drawn scenes: `image` [B, 3, 64, 64] in [0, 1], `labels` [B, 7] (-1 where an attribute does not apply), `prompt`, captions.

    Every picture is drawn when it is asked for and none comes twice, so nothing can be memorised; with `keep` there are
    `count` of them, drawn once.

    Args:
        count: pictures of an epoch.
        validation: pictures that are held out.
        batch_size: pictures of a batch.
        workers: processes that draw beside the training one.
        seed: of scenes and pictures.
        keep: folder that keeps the drawings; None draws for ever.
    """

    fresh = True

    def __init__(
        self,
        *,
        count: AtLeastOne = 100_000,
        validation: AtLeastOne = 512,
        batch_size: int = 64,
        workers: int = 0,
        seed: int = 0,
        keep: str | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.drawn, self.held_out = DrawnScenes(count, seed=seed), DrawnScenes(validation, seed=VALIDATION)
        self.keep = keep
        self.fresh = keep is None

    def train(self) -> Dataset[Any]:
        return _Captioned(self.drawn if self.keep is None else store(self.drawn, Path(self.keep), workers=self.workers))

    def validation(self) -> Dataset[Any]:
        return _Captioned(self.held_out)

    @staticmethod
    def collate(items: list[Any]) -> Any:
        return gather(items)


class _Captioned(Dataset[dict[str, Any]]):
    """Pictures with captions that belong to their number."""

    def __init__(self, pictures: DrawnScenes | StoredScenes) -> None:
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
class SceneCaptions(Data):
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

    fresh = True

    def __init__(
        self, *, count: AtLeastOne = 100_000, validation: AtLeastOne = 1000, batch_size: int = 128, workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.texts = _Texts(count, seed, plain=False)
        self.held_out = _Texts(validation, VALIDATION, plain=True)

    def train(self) -> Dataset[Any]:
        return self.texts

    def validation(self) -> Dataset[Any]:
        return self.held_out


class _Texts(Dataset[dict[str, Any]]):
    def __init__(self, count: int, seed: int | str, *, plain: bool) -> None:
        if count < 1:
            raise ValueError(f"scene_captions: found count {count}, expected at least 1")
        self.count, self.seed, self.plain = count, seed, plain

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = random.Random(f"{self.seed}/{index}")
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


@register_data("scene_episodes")
class SceneEpisodes(Data):
    """Episodes of the traveller's world: `prompt`, what was known, meant and seen, and `answer`, how the grammar tells it.

    Args:
        count: episodes of an epoch; none comes twice.
        validation: episodes that are held out.
        batch_size: episodes of a batch.
        workers: processes that make them.
        seed: of the episodes.
    """

    fresh = True

    def __init__(
        self, *, count: AtLeastOne = 100_000, validation: AtLeastOne = 256, batch_size: int = 32, workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers)
        self.episodes, self.held_out = Episodes(count, seed=seed), Episodes(validation, seed=VALIDATION)

    def train(self) -> Dataset[Any]:
        return self.episodes

    def validation(self) -> Dataset[Any]:
        return self.held_out
