"""Episodes of the traveller's world, told by the grammar: what the teller is trained on."""

from __future__ import annotations

import random
from dataclasses import dataclass

from wgtorch.blocks.grammar.story import intent_of, next_scene, outcome_of
from wgtorch.blocks.scenes.scene import Scene, parse, sentence
from wgtorch.blocks.scenes.teller import split
from wgtorch.train.data.made import MadeItems

_TRAVELLER = "the traveller"
_MISSED = 0.15  # how often a picture shows something else than was meant, per attribute
_NOTHING_THERE = 0.05


@dataclass(frozen=True)
class Episode:
    """What was known, meant and seen (`prompt`), and how the grammar tells it (`answer`)."""

    prompt: str
    answer: str

    @classmethod
    def sample(cls, rng: random.Random) -> Episode:
        """A random episode in which now and then something else is seen than was meant."""
        before = Scene.sample(rng).attributes()
        meant = next_scene(before, {}, {}, rng)
        intent = intent_of(meant, before, _TRAVELLER, rng.random() < 0.3, "", rng)
        noticed = {name: value for name, value in meant.items() if rng.random() > _MISSED}
        if rng.random() < _NOTHING_THERE:
            noticed = {name: value for name, value in noticed.items() if name not in ("color", "place")} | {"landmark": "none"}
        seen = Scene.complete(noticed, rng).attributes()
        return cls(
            prompt=f"Before: {sentence(before)} Meant: {intent} Seen: {sentence(seen)} Told:",
            answer=outcome_of(seen, parse(intent), before, _TRAVELLER),
        )


class Episodes(MadeItems):
    """Random episodes."""

    def __getitem__(self, index: int) -> dict[str, str]:
        """`prompt` and `answer`."""
        episode = Episode.sample(self.rng(index))
        return {"prompt": episode.prompt, "answer": episode.answer}


def story_words() -> list[str]:
    """Every word and mark in the wording of the episodes, sorted."""
    found: set[str] = set()
    episodes = Episodes(3000, seed="words")  # each word stands in dozens of them
    for index in range(len(episodes)):
        found.update(split(" ".join(episodes[index].values())))
    return sorted(found)
