"""T5's text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel
from wgtorch.ports import TOKENS
from wgtorch.roles import Conditioner


@register_block("conditioner/t5_text")
class T5Text(ForeignModel, Conditioner):
    """``T5EncoderModel`` of transformers: ids to embeddings."""

    library = "transformers"
    model_class = "T5EncoderModel"
    uses_global_rng = False
    rows_are_samples = True
    inputs: Mapping[str, Any] = {"tokens": TOKENS}

    def forward(self, tokens: Tensor) -> dict[str, Any]:
        """``embedding`` [B, L, D] of ``tokens`` [B, L]; padding is read as well, as diffusion models were trained."""
        return {"embedding": self.model(tokens.to(self.model.device), return_dict=False)[0]}
