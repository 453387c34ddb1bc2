"""Vectors for texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import ConfigError
from wgtorch.integrations.models.backends import register_backend
from wgtorch.integrations.models.requests import Embedded, EmbedRequest
from wgtorch.integrations.transformers.conversation import context_length
from wgtorch.integrations.transformers.folder import dtype_of, model_folder, read_json, read_model, read_tokenizer

_POOLINGS = ("mean", "cls", "last")
_FLAGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}


@register_backend("embedder/local")
class LocalEmbedder:
    """An encoder from a folder of transformers or sentence-transformers, and the pooling that it was trained with.

    Args:
        checkpoint_ref: the folder: ``config.json``, safetensors and tokenizer.
        dtype: of the weights: ``float32``, ``bfloat16``, ...; PyTorch's default dtype where left out.
        device: where the weights go (``cuda:0``); a level's ``.to`` moves them as well.
        batch_size: most texts that are read at once.
        pooling: ``mean`` of the token vectors, that of the first token (``cls``), or of the ``last``; what the folder's
            ``1_Pooling`` says where left out, ``mean`` where there is none.
        normalize: scale vectors to length 1; where left out, as the folder's ``modules.json`` says, and yes where there is none.
    """

    is_async = False

    def __init__(
        self,
        *,
        checkpoint_ref: str,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int = 32,
        pooling: str | None = None,
        normalize: bool | None = None,
    ) -> None:
        folder = model_folder(checkpoint_ref, "embedder")
        self._as_trained(folder, batch_size, pooling, normalize)
        self.tokenizer = read_tokenizer(folder, "embedder")
        self.model: Any = read_model(folder, ("AutoModel",), dtype=dtype_of(dtype, "embedder"), device=device, where="embedder")

    def _as_trained(self, folder: Path, batch_size: int, pooling: str | None, normalize: bool | None) -> None:
        """How vectors are made of what the model gives, as the folder says where the config does not."""
        modules = read_json(folder / "modules.json")
        said = read_json(folder / "1_Pooling" / "config.json") or {}
        self.pooling = pooling or said.get("pooling_mode") or next((_FLAGS[flag] for flag in _FLAGS if said.get(flag)), "mean")
        if self.pooling not in _POOLINGS:
            raise ConfigError(f"embedder.pooling: found {self.pooling!r}, expected one of {', '.join(_POOLINGS)}")
        if batch_size < 1:
            raise ConfigError(f"embedder.batch_size: found {batch_size}, expected at least 1")
        in_folder = modules is None or any(str(entry.get("type", "")).endswith("Normalize") for entry in modules)
        self.normalize = in_folder if normalize is None else normalize
        self.batch_size = batch_size

    def embed(self, request: EmbedRequest) -> Embedded:
        """One vector for each text, float32 [B, D]; gradients reach the weights. What is longer than the model reads is left out.

        ``dimensions`` keeps the first of each vector, for models that were trained for it (Kusupati et al. 2022,
        https://arxiv.org/abs/2205.13147).
        """
        limit = self._longest()
        options = {} if limit is None else {"truncation": True, "max_length": limit}
        ids = [self.tokenizer.encode(text, **options) or [self.tokenizer.pad_token_id or 0] for text in request.texts]
        parts = [self._vectors(ids[at : at + self.batch_size]) for at in range(0, len(ids), self.batch_size)]
        vectors = torch.cat(parts)[:, : request.dimensions].float()
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return Embedded(vectors, {"prompt_tokens": sum(map(len, ids))})

    def _vectors(self, rows: list[list[int]]) -> Tensor:
        longest, padding = max(map(len, rows)), self.tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        hidden = self._hidden(ids, mask)  # [B, L, D]
        mask, device = mask.to(hidden.device), hidden.device
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            return hidden[torch.arange(len(rows), device=device), mask.sum(-1) - 1]
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)

    def _longest(self) -> int | None:
        """Most tokens that the model reads."""
        return context_length(self.model, self.tokenizer)

    def _hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """What the model makes of ids [B, L], [B, L, D]."""
        device = self.model.device
        found: Tensor = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        return found
