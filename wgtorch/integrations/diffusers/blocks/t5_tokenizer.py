"""T5's tokenizer."""

from __future__ import annotations

import html
import importlib.util
import re
from collections.abc import Mapping
from typing import Any

from wgtorch.core.block import register_block
from wgtorch.integrations.diffusers.blocks.foreign_tokenizer import ForeignTokenizer
from wgtorch.ports import MAX_SEQUENCE_LENGTH


def cleaned(text: str) -> str:
    """A prompt as Wan's pipeline cleans it; broken letters are mended too where ``ftfy`` is installed."""
    if importlib.util.find_spec("ftfy") is not None:
        text = importlib.import_module("ftfy").fix_text(text)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text)).strip()).strip()


@register_block("tokenizer/t5")
class T5Tokens(ForeignTokenizer):
    """``T5Tokenizer`` of transformers: text to ids, padded to one length.

    Args:
        folder: with the tokenizer's files, as ``save_pretrained`` writes it.
        length: tokens, where the input ``max_sequence_length`` is not fed.
        clean: texts are cleaned first, as for Wan: entities of HTML are what they stand for, runs of whitespace are one space.
    """

    inputs: Mapping[str, Any] = {"max_sequence_length": MAX_SEQUENCE_LENGTH}

    tokenizer_class = "T5TokenizerFast"

    def __init__(self, *, folder: str, length: int = 256, clean: bool = False) -> None:
        if length < 1:
            raise ValueError(f"T5Tokens.length: found {length}, expected a whole number of at least 1")
        super().__init__(folder=folder)

    @property
    def length(self) -> int:
        """Tokens, where a call says nothing."""
        return self._config["length"]

    def forward(self, text: str | list[str], max_sequence_length: int | None = None) -> dict[str, Any]:
        """``tokens`` and ``attention_mask`` [B, L] of one text or several; what does not fit is cut off, with a warning."""
        if self._config["clean"]:
            text = cleaned(text) if isinstance(text, str) else [cleaned(one) for one in text]
        return self.ids(text, self.length if max_sequence_length is None else int(max_sequence_length))
