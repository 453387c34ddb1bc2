"""Recall by recency, importance and meaning, with vectors of a static embedding that needs no network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from wgtorch.blocks.memory.notes import Note, stems
from wgtorch.blocks.memory.policies import register_retrieve
from wgtorch.core.block import Block, BlockRegistry

EMBEDDING = "wordllama"
"""Static vectors by which meaning is compared; ``wgtorch models add wordllama`` installs them."""
_DECAY = 0.995  # per note


@register_retrieve("meaning")
def by_meaning(notes: Sequence[Note], query: str) -> list[Note]:
    """Those first that are new, stand out and mean what the query means, as Park et al. 2023 weigh memories
    (Generative Agents, https://arxiv.org/abs/2304.03442): the sum of the three, each scaled to [0, 1] over the notes.

    Recency falls by 0.5% a note; importance is how rare a note's words are among the notes; meaning is the cosine of vectors.

    Raises:
        CheckpointError: the vectors (:data:`EMBEDDING`) are not installed.
    """
    if not notes:
        return []
    words = [set(stems(note.text)) for note in notes]
    holding = Counter(stem for bag in words for stem in bag)
    rarity = [sum(math.log(len(notes) / holding[stem]) for stem in bag) / max(1, len(bag)) for bag in words]
    parts = ([_DECAY**note.age for note in notes], rarity, likeness(query, [note.text for note in notes]))
    scores = [sum(entry) for entry in zip(*map(_scaled, parts), strict=True)]
    order = sorted(range(len(notes)), key=lambda index: (-scores[index], notes[index].age, index))
    return [notes[index] for index in order]


def likeness(query: str, texts: Sequence[str]) -> list[float]:
    """Cosines, -1 to 1, between what a query and each text mean."""
    if not query.strip() or not texts:
        return [0.0] * len(texts)
    vectors = _embedder()(text=[query, *texts])["embedding"].detach()  # [1 + N, D], of length 1
    return [float(value) for value in vectors[1:] @ vectors[0]]


def _scaled(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


@lru_cache(maxsize=1)
def _embedder() -> Block:
    return BlockRegistry.build({"block_type": "embedder", "config": {"backend": "static", "checkpoint_ref": EMBEDDING}}).eval()
