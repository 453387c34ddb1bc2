"""T5's tokenizer."""

from __future__ import annotations

from typing import Any

from wgtorch.core.block import register_block
from wgtorch.integrations.diffusers.blocks.foreign_tokenizer import ForeignTokenizer


@register_block("tokenizer/t5")
class T5Tokens(ForeignTokenizer):
    """``T5Tokenizer`` of transformers: text to ids, padded to one length.

    Args:
        folder: with the tokenizer's files, as ``save_pretrained`` writes it.
    """

    tokenizer_class = "T5TokenizerFast"
    length = 256

    def forward(self, text: str | list[str], max_sequence_length: int | None = None) -> dict[str, Any]:
        """``tokens`` and ``attention_mask`` [B, L] of one text or several; what does not fit is cut off, with a warning.

        Args:
            text: one or several.
            max_sequence_length: L, 256 where left out.
        """
        return self.ids(text, self.length if max_sequence_length is None else int(max_sequence_length))
