"""UMT5's text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import ConfigError, require, suggest
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel, ModelSource
from wgtorch.ports import ATTENTION_MASK, TOKENS
from wgtorch.roles import Conditioner

KINDS = ("UMT5EncoderModel", "T5EncoderModel")


@register_block("conditioner/umt5_text")
class UMT5Text(ForeignModel, Conditioner):
    """``UMT5EncoderModel`` of transformers, or ``T5EncoderModel``: ids to embeddings, zeros where the text is at its end.

    Args:
        kind: class of the model.
    """

    library = "transformers"
    uses_global_rng = False
    inputs: Mapping[str, Any] = {"tokens": TOKENS, "attention_mask": ATTENTION_MASK}

    def __init__(self, *, kind: str = "UMT5EncoderModel", **source: Unpack[ModelSource]) -> None:
        if kind not in KINDS:
            raise ConfigError(f"UMT5Text.kind: found {kind!r}; {suggest(kind, KINDS)}")
        super().__init__(**source)

    @classmethod
    def _class(cls, **config: Any) -> Any:
        return getattr(require(cls.library, "diffusers"), config.get("kind", KINDS[0]))

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> dict[str, Any]:
        """``embedding`` [B, L, D]."""
        tokens = tokens.to(self.model.device)
        if attention_mask is None:
            return {"embedding": self.model(tokens, return_dict=False)[0]}
        mask = attention_mask.to(tokens.device)
        embedding = self.model(tokens, mask, return_dict=False)[0]
        return {"embedding": embedding.masked_fill(mask.unsqueeze(-1) == 0, 0)}
