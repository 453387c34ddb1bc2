"""Prompts as ComfyUI reads them: weights in brackets, and any length in sections."""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block, register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.tokenizers import CLIPTokens
from wgtorch.ports import LATENT

STRESS = 1.1  # of what stands in brackets without a number
_SHORT = 8  # tokens of which a piece is not divided among two sections


def weighted(text: str, weight: float = 1.0) -> list[tuple[str, float]]:
    """Pieces of a prompt with their weights: ``(a cat:1.3)`` has 1.3, ``(a cat)`` 1.1, each pair of brackets times 1.1 more."""
    found: list[tuple[str, float]] = []
    for piece in _brackets(text.replace("\\)", "\0\1").replace("\\(", "\0\2")):
        if len(piece) < 2 or (piece[0], piece[-1]) != ("(", ")"):
            found.append((piece.replace("\0\1", ")").replace("\0\2", "("), weight))
            continue
        inside, own = piece[1:-1], weight * STRESS
        words, colon, number = inside.rpartition(":")
        if colon and words:
            try:
                inside, own = words, float(number)
            except ValueError:
                inside = piece[1:-1]
        found += weighted(inside, own)
    return found


def _brackets(text: str) -> list[str]:
    """What stands in outermost brackets apart from the rest, brackets kept."""
    found: list[str] = []
    current, depth = "", 0
    for letter in text:
        if letter == "(" and depth == 0:
            found, current = [*found, current], ""
        current += letter
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and depth == 0:
            found, current = [*found, current], ""
    return [piece for piece in (*found, current) if piece]


@register_block("tokenizer/comfy")
class ComfyTokens(CLIPTokens):
    """CLIP's tokenizer as ComfyUI uses it: weighted pieces, in as many sections as the text is long, and an empty section behind them.

    Args:
        folder: with the tokenizer's files, as ``save_pretrained`` writes it.
    """

    inputs = {"beside": Port(dtype="text", description="the other encoder's text: there are at least as many sections as it has")}
    outputs = {"weights": Port(dtype="tensor", shape=("N", "L"), description="weight of each token")}

    def forward(self, text: str | list[str], beside: str | None = None) -> dict[str, Any]:
        """``tokens``, ``attention_mask`` [N + 1, L] of one text in N sections, and ``weights`` [N, L].

        Raises:
            PortError: it is no text, or names an embedding's file.
        """
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        room = self.tokenizer.model_max_length - 2
        sections = self._sections(text, room)
        sections += [[]] * (0 if beside is None else len(self._sections(beside, room)) - len(sections))
        rows = [[(begin, 1.0), *section, (end, 1.0)] for section in (*sections, [])]
        pads = [[(self.tokenizer.pad_token_id, 1.0)] * (room + 2 - len(row)) for row in rows]
        tokens = torch.tensor([[token for token, _ in (*row, *pad)] for row, pad in zip(rows, pads, strict=True)])
        weights = torch.tensor([[weight for _, weight in (*row, *pad)] for row, pad in zip(rows, pads, strict=True)])
        known = torch.tensor([[1] * len(row) + [0] * len(pad) for row, pad in zip(rows, pads, strict=True)])
        return {"tokens": tokens, "attention_mask": known, "weights": weights[:-1]}

    def _sections(self, text: str | list[str], room: int) -> list[list[tuple[int, float]]]:
        """Tokens of one text with their weights, as many in a section as there is room."""
        if not isinstance(text, str):
            raise PortError(f"{self.block_id}.text: got a {type(text).__name__}; expected one text")
        if "embedding:" in text:
            raise PortError(f"{self.block_id}.text: embedding:... is not supported; give the tokenizer the word (load_textual_inversion)")
        sections: list[list[tuple[int, float]]] = [[]]
        for words, weight in weighted(self._spread(text)):
            piece = [(token, weight) for token in self.tokenizer(words, verbose=False)["input_ids"][1:-1]]
            is_long = len(piece) >= _SHORT
            while piece:
                free = room - len(sections[-1])
                if len(piece) > free and (free == 0 or not is_long):
                    sections.append([])
                    is_long = is_long or len(piece) > room
                    continue
                sections[-1] += piece[:free]
                piece = piece[free:]
        return sections


@register_block("comfy/weighted")
class WeightedEmbedding(Block):
    """The embedding of weighted sections in one row: a token's is moved away from that of an empty text, or towards it."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", shape=("N + 1", "L", "D"), description="the embedded sections, the last of an empty text"),
        "weights": Port(dtype="tensor", shape=("N", "L"), description="weight of each token"),
        "pooled": Port(dtype="embedding", shape=("N + 1", "P"), description="the pooled sections, the last of an empty text"),
    }
    outputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", description="the weighted sections in one row [1, N L, D]"),
        "pooled": Port(dtype="embedding", description="the pooled first section [1, P]"),
    }

    def forward(self, embedding: Tensor, weights: Tensor, pooled: Tensor) -> dict[str, Any]:
        """``embedding`` [1, N L, D], and ``pooled`` [1, P] of the first section."""
        sections, empty = embedding[:-1], embedding[-1:]
        by = weights.to(embedding)[..., None]
        moved = torch.where(by == 1, sections, (sections - empty) * by + empty)
        return {"embedding": moved.flatten(0, 1)[None], "pooled": pooled[:1]}


@register_block("comfy/conditions")
class AlignedConditions(Block):
    """Two conditions of one length: each is repeated, which changes no attention to it."""

    uses_global_rng = False
    inputs: Mapping[str, Any] = {
        "positive": Port(dtype="embedding", description="the prompt's embedding [1, T, D]"),
        "negative": Port(dtype="embedding", description="the negative prompt's embedding [1, T', D]"),
        "latent": LATENT,
    }
    outputs: Mapping[str, Any] = {
        "positive": Port(dtype="embedding", description="the prompt's embedding, repeated to the common length"),
        "negative": Port(dtype="embedding", description="the negative prompt's embedding, repeated to the common length"),
        "rows": Port(dtype="number", description="B, rows of the latent"),
    }

    def forward(self, positive: Tensor, negative: Tensor, latent: Tensor) -> dict[str, Any]:
        """Both [1, T, D], and the ``rows`` B of a ``latent`` [B, C, h, w]."""
        length = lcm(positive.shape[1], negative.shape[1])
        both = [one.repeat(1, length // one.shape[1], 1) for one in (positive, negative)]
        return {"positive": both[0], "negative": both[1], "rows": latent.shape[0]}
