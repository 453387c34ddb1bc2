"""HashedEmbedder: features of a text without a model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.ports import TEXT
from wgtorch.roles import Embedder


@register_block("embedder/hashed")
class HashedEmbedder(Embedder):
    """Counts the words of a text, and runs of them, in D columns that their hashes choose (Weinberger et al. 2009,
    https://arxiv.org/abs/0902.2206).

    It knows nothing of meanings, needs no weights and no network, and is always the same: enough for a head over answers that
    differ in their words.

    Args:
        dimensions: D.
        longest: words of the longest run that is counted.
    """

    inputs: Mapping[str, Any] = {"text": TEXT}
    outputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", shape=("B", "D"), description="of length 1; zeros for a text without words")
    }
    uses_global_rng = False

    def __init__(self, *, dimensions: int = 256, longest: int = 2) -> None:
        super().__init__()
        if dimensions < 1 or longest < 1:
            raise ValueError(f"HashedEmbedder: found dimensions {dimensions} and longest {longest}; expected at least 1 each")
        self.dimensions, self.longest = dimensions, longest

    def forward(self, text: str | list[str]) -> dict[str, Any]:
        """The features of one text or of a list."""
        texts = [text] if isinstance(text, str) else list(text)
        counts = torch.zeros(len(texts), self.dimensions)
        for row, each in enumerate(texts):
            for run in self._runs(each):
                number = int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "little")
                counts[row, number // 2 % self.dimensions] += 1 if number % 2 else -1  # signs: columns that clash cancel on average
        return {"embedding": torch.nn.functional.normalize(counts, dim=1)}

    def _runs(self, text: str) -> Iterator[str]:
        words = re.findall(r"\w+", text.lower())
        for length in range(1, self.longest + 1):
            yield from (" ".join(words[start : start + length]) for start in range(len(words) - length + 1))
