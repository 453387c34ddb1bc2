"""CLIP's tokenizer."""

from __future__ import annotations

from typing import Any

from wgtorch.core.block import register_block
from wgtorch.integrations.diffusers.blocks.foreign_tokenizer import ForeignTokenizer


@register_block("tokenizer/clip")
class CLIPTokens(ForeignTokenizer):
    """``CLIPTokenizer`` of transformers: text to ids, padded to the length that the text encoder reads.

    Args:
        folder: with the tokenizer's files, as ``save_pretrained`` writes it.
    """

    tokenizer_class = "CLIPTokenizer"

    def forward(self, text: str | list[str]) -> dict[str, Any]:
        """``tokens`` and ``attention_mask`` [B, L] of one text or several; what does not fit is cut off, with a warning."""
        return self.ids(text, self.tokenizer.model_max_length)
