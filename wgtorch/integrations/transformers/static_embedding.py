"""Static embeddings: one vector for each token, averaged. Thousands of texts a second on a processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core.checkpoint.named import local_ref
from wgtorch.core.checkpoint.refs import read_ref
from wgtorch.core.errors import CheckpointError, ConfigError, require
from wgtorch.core.pool import now_building
from wgtorch.integrations.models.backends import register_backend
from wgtorch.integrations.models.requests import Embedded, EmbedRequest
from wgtorch.integrations.transformers.folder import dtype_of

_NAMES = ("embedding.weight", "embeddings", "weight")  # WordLlama and sentence-transformers; model2vec; plain


class StaticEmbedding(nn.Module):
    """The mean of the vectors of a text's tokens, [D]; zeros for a text without any.

    Args:
        vectors: of all tokens, [V, D].
    """

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(vectors, freeze=False)

    def forward(self, ids: list[list[int]]) -> Tensor:
        """One vector for each list of ids, [B, D]."""
        weight = self.embedding.weight
        offsets = torch.tensor([0, *(len(row) for row in ids)], device=weight.device).cumsum(0)[:-1]
        flat = torch.tensor([entry for row in ids for entry in row], dtype=torch.long, device=weight.device)
        return nn.functional.embedding_bag(flat, weight, offsets, mode="mean")


@register_backend("embedder/static")
class StaticEmbedder:
    """Static embeddings from a folder of WordLlama, model2vec or sentence-transformers' ``StaticEmbedding``.

    Example:
        >>> embedder = BlockRegistry.build({"block_type": "embedder", "config": {"backend": "static", "checkpoint_ref": "wordllama"}})

    Args:
        checkpoint_ref: the folder: one safetensors file with one matrix [V, D], and ``tokenizer.json``; or ``wordllama``.
        dtype: of the weights: ``float32``, ``bfloat16``, ...; PyTorch's default dtype where left out.
        normalize: scale vectors to length 1.
    """

    is_async = False

    def __init__(self, *, checkpoint_ref: str, dtype: str | None = None, normalize: bool = True) -> None:
        folder = Path(local_ref(checkpoint_ref)).expanduser()
        tokenizer = folder / "tokenizer.json"
        if not tokenizer.is_file():
            raise CheckpointError(
                f"embedder.checkpoint_ref: {checkpoint_ref!r} has no tokenizer.json; expected a folder of static embeddings"
            )
        library: Any = require("tokenizers", "transformers")
        try:
            self.tokenizer = library.Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # what the library raises has no class of its own
            raise CheckpointError(f"{tokenizer} cannot be read: {error}") from error
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.normalize = normalize
        self.model = StaticEmbedding(_vectors(str(folder), dtype_of(dtype, "embedder")))

    def embed(self, request: EmbedRequest) -> Embedded:
        """One vector for each text, float32 [B, D]; gradients reach the weights. ``dimensions`` keeps the first of each."""
        length = self.model.embedding.weight.shape[1]
        if request.dimensions is not None and request.dimensions > length:
            raise ConfigError(f"embedder.dimensions: found {request.dimensions}; the vectors have {length}")
        ids = [entry.ids for entry in self.tokenizer.encode_batch(list(request.texts), add_special_tokens=False)]
        vectors = self.model(ids)[:, : request.dimensions].float()
        if self.normalize:
            vectors = nn.functional.normalize(vectors, dim=-1)
        return Embedded(vectors, {"prompt_tokens": sum(map(len, ids))})


def _vectors(folder: str, dtype: torch.dtype) -> Tensor:
    tensors, where = read_ref(folder)
    found = next((tensors[name] for name in _NAMES if name in tensors), None)
    if found is None or found.dim() != 2 or len(tensors) != 1:
        raise CheckpointError(f"{where}: expected one matrix named {' or '.join(_NAMES)}; found {sorted(tensors)}")
    if now_building().empty:  # whoever builds gives the weights
        return torch.zeros(found.shape, dtype=dtype)
    return found.to(dtype, copy=True)
