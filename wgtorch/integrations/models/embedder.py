"""An embedder: vectors for texts."""

from __future__ import annotations

import time
from typing import Any

import torch

from wgtorch.core.block import register_block
from wgtorch.core.port import Port
from wgtorch.integrations.models.model_block import ModelBlock, rows_of
from wgtorch.integrations.models.requests import EmbedRequest
from wgtorch.ports import TEXT, USAGE
from wgtorch.roles import Embedder


@register_block("embedder")
class TextEmbedder(ModelBlock, Embedder):
    """Embeds texts: ``embedding`` float32 [B, D], one row for each text of a list, one row for a single text.

    Example:
        >>> embedder = BlockRegistry.build({"block_type": "embedder", "config": {"model_id": "text-embedding-3-small"}})
        >>> embedder(text=["the sea", "the shore"])["embedding"].shape

    Args:
        backend: ``api``, ``local`` (an encoder of transformers), ``static`` (a table of vectors), or ``onnx`` (an exported encoder).
        dimensions: length of the vectors, for models that can shorten them.

    Raises:
        ApiError: the API gave no answer; its subclasses say why.
    """

    kind = "embedder"
    inputs = {"text": TEXT}
    outputs = {"embedding": Port(dtype="embedding", shape=("B", "D"), description="float32, one row for each text"), "usage": USAGE}

    def __init__(
        self,
        *,
        backend: str | None = None,
        provider: str | None = None,
        model_id: str | None = None,
        endpoint_url: str | None = None,
        checkpoint_ref: str | None = None,
        dimensions: int | None = None,
        **source: Any,
    ) -> None:
        super().__init__()
        if dimensions is not None and dimensions < 1:
            raise ValueError(f"{type(self).__name__}.dimensions: found {dimensions}, expected at least 1")
        self.dimensions = dimensions
        self._take(backend, provider, model_id=model_id, endpoint_url=endpoint_url, checkpoint_ref=checkpoint_ref, **source)

    def forward(self, text: str | list[str]) -> dict[str, Any]:
        """The vectors of one text or of a list."""
        texts, _ = rows_of(text)
        started = time.perf_counter()
        answer = self.backend.embed(EmbedRequest(tuple(texts), self.dimensions))
        return {"embedding": answer.embedding, "usage": {"latency": time.perf_counter() - started, **answer.usage}}

    def dry(self, **inputs: Any) -> dict[str, Any]:
        """Stand-ins for the outputs, for dry runs; the vectors' length is known only where the config states it."""
        return {"embedding": torch.zeros(len(rows_of(inputs.get("text", ""))[0]), self.dimensions or 1), "usage": {}}


@register_block("embedder/api")
class ApiEmbedder(TextEmbedder):
    """An embedder behind an API."""


@register_block("embedder/local")
class LocalEmbedder(TextEmbedder):
    """An embedder whose weights are here."""

    default_backend = "local"
