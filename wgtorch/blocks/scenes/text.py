"""Text to condition: the words of a prompt, the distribution over every attribute of a scene that they give, and what they leave open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.blocks.scenes.scene import ATTRIBUTES, VOCABULARY, Scene, words
from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.core.run.rng import Rng
from wgtorch.ports import TOKENS
from wgtorch.roles import Conditioner, Tokenizer

PAD, UNKNOWN = 0, 1
_AS_SAID = -2
CONDITION_WIDTH = 1 + max(len(values) for values in ATTRIBUTES.values())
"""Width of a condition token: the values of the largest attribute, and "unspecified"."""


@register_block("tokenizer/scene")
class SceneTokenizer(Tokenizer):
    """Splits text into words and looks them up.

    The vocabulary is fixed: padding (0), the unknown word (1), then :data:`~wgtorch.blocks.scenes.scene.VOCABULARY`.

    >>> SceneTokenizer(max_length=4)("a castle at night")["tokens"].shape
    torch.Size([1, 4])

    Args:
        max_length: words that are read, the rest is cut; tokens are padded to this length.
    """

    outputs = {"tokens": "tokens"}
    uses_global_rng = False

    def __init__(self, *, max_length: int = 48):
        super().__init__()
        if max_length < 1:
            raise ValueError(f"SceneTokenizer.max_length: found {max_length}, expected at least 1")
        self.max_length = max_length
        self._index = {word: index for index, word in enumerate(VOCABULARY, start=2)}

    @property
    def vocabulary_size(self) -> int:
        return len(self._index) + 2

    def forward(self, text: str | list[str]) -> dict:
        """Tokens [B, max_length] (int64) of one text (B = 1) or of a list."""
        texts = [text] if isinstance(text, str) else list(text)
        rows = [[self._index.get(word, UNKNOWN) for word in words(line)[: self.max_length]] for line in texts]
        return {"tokens": torch.tensor([row + [PAD] * (self.max_length - len(row)) for row in rows], dtype=torch.long)}


@register_block("conditioner/scene")
class SceneTextEncoder(Conditioner):
    """Reads a tokenized prompt and gives, for every attribute of a scene, a distribution over its values.

    The embedding [B, 7, 8] has one token per attribute in the order of :data:`~wgtorch.blocks.scenes.scene.ATTRIBUTES`:
    probabilities of its values, then of "unspecified", then zeros. It is a condition that a person can read and write, so
    the backbone can be trained without this encoder (from labels) and this encoder without the backbone (from text).

    Empty text gives "unspecified" with probability 1 everywhere, exactly: the unconditional branch of classifier-free
    guidance (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598).

    Args:
        vocabulary_size: of the tokenizer.
        width: of the word vectors.
        depth: of the stack of convolutions over words, each of which sees three words.
    """

    inputs: Mapping[str, Any] = {"tokens": TOKENS}
    outputs = {
        "embedding": Port(
            dtype="embedding", shape=("B", 7, 8), description='for each attribute, probabilities of its values, then of "unspecified"'
        )
    }
    uses_global_rng = False
    rows_are_samples = True

    def __init__(self, *, vocabulary_size: int = len(VOCABULARY) + 2, width: int = 96, depth: int = 3):
        super().__init__()
        if min(vocabulary_size, width, depth) < 1:
            raise ValueError(
                f"SceneTextEncoder: vocabulary_size, width and depth must be positive, found {vocabulary_size}, {width}, {depth}"
            )
        self.sizes = [len(values) + 1 for values in ATTRIBUTES.values()]
        self.words = nn.Embedding(vocabulary_size, width, padding_idx=PAD)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.attention = nn.Linear(width, len(self.sizes))
        self.heads = nn.ModuleList(nn.Linear(2 * width, size) for size in self.sizes)

    def logits(self, tokens: Tensor) -> list[Tensor]:
        """Per attribute, logits [B, values + 1] (the last is "unspecified") of tokens [B, L]."""
        present = (tokens != PAD).unsqueeze(-1)  # [B, L, 1]
        h = self.words(tokens)  # [B, L, width]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = h + nn.functional.gelu(convolution((norm(h) * present).mT).mT)
        h = h * present
        scores = self.attention(h).masked_fill(~present, -1e4).softmax(dim=1)  # [B, L, attributes]
        attended = scores.mT @ h  # [B, attributes, width]
        largest = h.masked_fill(~present, -1e4).amax(dim=1).clamp(min=-10)  # [B, width]
        return [head(torch.cat([attended[:, k], largest], dim=-1)) for k, head in enumerate(self.heads)]

    def forward(self, tokens: Tensor) -> dict:
        """Embedding [B, 7, 8] of tokens [B, L]."""
        empty = (tokens == PAD).all(dim=1, keepdim=True)  # [B, 1]
        rows = []
        for size, logits in zip(self.sizes, self.logits(tokens), strict=True):
            unspecified = torch.zeros_like(logits)
            unspecified[:, -1] = 1
            probabilities = torch.where(empty, unspecified, logits.softmax(dim=-1))
            rows.append(nn.functional.pad(probabilities, (0, CONDITION_WIDTH - size)))
        return {"embedding": torch.stack(rows, dim=1)}


@register_block("conditioner/scene_complete")
class SceneCompletion(Block):
    """Decides what a prompt leaves open, so that the painter need not: "a castle" gets an hour, a weather, a place.

    Every "unspecified" token of the embedding becomes a value drawn as :meth:`Scene.complete` draws; what the prompt says
    stays as it is, except for what cannot be (a ship on land becomes a house). Goes between text encoder and backbone, on
    the conditional branch.

    Args:
        keep_empty: leave an embedding that says nothing at all as it is, as guidance's unconditional branch needs.
    """

    inputs = {
        "embedding": Port(dtype="embedding", shape=("B", 7, 8), description="a scene, for each attribute probabilities of its values")
    }
    outputs = {
        "embedding": Port(dtype="embedding", shape=("B", 7, 8), description="the scene with a value for each attribute that applies")
    }

    def __init__(self, *, keep_empty: bool = True):
        super().__init__()
        self.keep_empty = keep_empty

    def forward(self, embedding: Tensor, rng: Rng | None = None) -> dict:
        """Embedding [B, 7, 8] in which each attribute that applies has a value. Gradients pass through what was said."""
        rng = rng or Rng()
        sizes = [len(values) for values in ATTRIBUTES.values()]
        rows = []
        for index, row in enumerate(embedding.detach().cpu()):
            said = {
                name: ATTRIBUTES[name][int(row[k, :size].argmax())]
                for k, (name, size) in enumerate(zip(ATTRIBUTES, sizes, strict=True))
                if row[k, size] < 0.5
            }
            scene = Scene.complete(said, rng.python(index)).attributes() if said or not self.keep_empty else {}
            rows.append([self._choice(name, said, scene) for name in ATTRIBUTES])
        labels = torch.tensor(rows, device=embedding.device)
        drawn = condition_from_labels(labels).to(embedding.dtype)
        return {"embedding": torch.where((labels == _AS_SAID).unsqueeze(-1), embedding, drawn)}

    @staticmethod
    def _choice(name: str, said: dict[str, str], scene: dict[str, str]) -> int:
        if name not in scene:
            return -1
        return _AS_SAID if said.get(name) == scene[name] else ATTRIBUTES[name].index(scene[name])


def condition_from_labels(labels: Tensor) -> Tensor:
    """The embedding [B, 7, 8] that says exactly `labels` [B, 7] (indices of values; -1 is unspecified)."""
    sizes = torch.tensor([len(values) for values in ATTRIBUTES.values()], device=labels.device)
    return nn.functional.one_hot(torch.where(labels < 0, sizes, labels), CONDITION_WIDTH).float()


@register_block("conditioner/scene_rest")
class SceneRest(Block):
    """Fills what one embedding leaves open with what another says: "at night" of a picture of a castle by day is the castle at night.

    The probability of "unspecified" in each token is spread as the same token of ``rest`` is, so gradients pass through both.
    """

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", shape=("B", 7, 8), description="the scene that leaves something open"),
        "rest": Port(dtype="embedding", description="the scene that says what is left open [B or 1, 7, 8]"),
    }
    outputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", shape=("B", 7, 8), description="the first scene, what it left open filled from the second")
    }

    def forward(self, embedding: Tensor, rest: Tensor) -> Tensor:
        """``embedding`` [B, 7, 8] of ``embedding`` and ``rest``, each [B or 1, 7, 8]."""
        places = torch.tensor([len(values) for values in ATTRIBUTES.values()], device=embedding.device).view(1, -1, 1)
        open_share = embedding.gather(-1, places.expand(embedding.shape[0], -1, -1))
        said = torch.scatter(embedding, -1, places.expand(embedding.shape[0], -1, -1), 0.0)
        return said + open_share * rest
