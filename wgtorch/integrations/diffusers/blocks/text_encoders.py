"""Text encoders of transformers: CLIP, T5 and UMT5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from torch import Tensor

from wgtorch.core.block import register_block
from wgtorch.core.errors import ConfigError, require, suggest
from wgtorch.core.port import Port
from wgtorch.integrations.diffusers.blocks.foreign import ForeignModel, ModelSource
from wgtorch.ports import ATTENTION_MASK, POOLED, TOKENS
from wgtorch.roles import Conditioner

LAYERS = ("last", "penultimate")


@register_block("conditioner/clip_text")
class CLIPText(ForeignModel, Conditioner):
    """``CLIPTextModel`` of transformers, or ``CLIPTextModelWithProjection``: ids to embeddings.

    Args:
        projection: True for the model with a projection, whose output ``pooled`` is projected.
        layer: ``last`` takes the last layer, normalised (Stable Diffusion 1 and 2); ``penultimate`` the one before as it is (XL).
    """

    library = "transformers"
    rows_are_samples = True
    inputs: Mapping[str, Any] = {
        "tokens": TOKENS,
        "attention_mask": ATTENTION_MASK,
        "clip_skip": Port(dtype="number", description="layers left out before the one that is taken"),
    }
    outputs: Mapping[str, Any] = {"pooled": POOLED}

    def __init__(self, *, projection: bool = False, layer: str = "last", **source: Unpack[ModelSource]) -> None:
        if layer not in LAYERS:
            raise ValueError(f"CLIPText.layer: found {layer!r}, expected one of {', '.join(LAYERS)}")
        super().__init__(**source)
        self.projection = projection
        self.layer = layer

    @classmethod
    def _class(cls, **config: Any) -> Any:
        library: Any = require(cls.library, "diffusers")
        return library.CLIPTextModelWithProjection if config.get("projection") else library.CLIPTextModel

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None, clip_skip: int | None = None) -> dict[str, Any]:
        """``embedding`` [B, L, D] and ``pooled`` [B, P]."""
        tokens = tokens.to(self.model.device)
        used = getattr(self.model.config, "use_attention_mask", False)
        hidden = bool(clip_skip) or self.layer == "penultimate"
        found = self.model(tokens, attention_mask=attention_mask if used else None, output_hidden_states=hidden)
        pooled = found.text_embeds if self.projection else found.pooler_output
        if not hidden:
            return {"embedding": found.last_hidden_state, "pooled": pooled}
        depth = int(clip_skip or 0) + (2 if self.layer == "penultimate" else 1)
        embedding = found.hidden_states[-depth]
        if self.layer == "last":
            embedding = getattr(self.model, "text_model", self.model).final_layer_norm(embedding)
        return {"embedding": embedding, "pooled": pooled}


@register_block("conditioner/t5_text")
class T5Text(ForeignModel, Conditioner):
    """``T5EncoderModel`` of transformers: ids to embeddings."""

    library = "transformers"
    model_class = "T5EncoderModel"
    rows_are_samples = True
    inputs: Mapping[str, Any] = {"tokens": TOKENS}

    def forward(self, tokens: Tensor) -> dict[str, Any]:
        """``embedding`` [B, L, D] of ``tokens`` [B, L]; padding is read as well, as diffusion models were trained."""
        return {"embedding": self.model(tokens.to(self.model.device), return_dict=False)[0]}


KINDS = ("UMT5EncoderModel", "T5EncoderModel")


@register_block("conditioner/umt5_text")
class UMT5Text(ForeignModel, Conditioner):
    """``UMT5EncoderModel`` of transformers, or ``T5EncoderModel``: ids to embeddings, zeros where the text is at its end.

    Args:
        kind: class of the model.
    """

    library = "transformers"
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
