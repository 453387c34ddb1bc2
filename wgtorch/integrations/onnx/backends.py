"""Backends that run exported networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.core.checkpoint.named import local_ref
from wgtorch.core.errors import CheckpointError
from wgtorch.integrations.models.backends import register_backend
from wgtorch.integrations.models.requests import Completion, TextRequest
from wgtorch.integrations.onnx.network import OnnxNetwork
from wgtorch.integrations.transformers.embedding import LocalEmbedder
from wgtorch.integrations.transformers.folder import read_json, read_tokenizer

FILE = "model.onnx"


@register_backend("embedder/onnx")
class OnnxEmbedder(LocalEmbedder):
    """An encoder that was exported: by :func:`~wgtorch.integrations.onnx.export.export_embedder`, or as folders of sentence-transformers
    hold it (``onnx/model.onnx``). Without gradients.

    Args:
        checkpoint_ref: the folder: ``model.onnx`` or ``onnx/model.onnx``, ``config.json`` and tokenizer.
        batch_size, pooling, normalize: as of the backend ``local``.
    """

    def __init__(self, *, checkpoint_ref: str, batch_size: int = 32, pooling: str | None = None, normalize: bool | None = None) -> None:
        folder = Path(local_ref(checkpoint_ref)).expanduser()
        self._network = OnnxNetwork(_file_in(folder, "embedder"))
        self._as_trained(folder, batch_size, pooling, normalize)
        self.tokenizer = read_tokenizer(folder, "embedder")
        self.model = None
        longest = [(read_json(folder / "config.json") or {}).get("max_position_embeddings"), self.tokenizer.model_max_length]
        self._limit = min((int(length) for length in longest if length and length < 1e9), default=None)

    def _longest(self) -> int | None:
        return self._limit

    def _hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        found = self._network({"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)})
        return found.get("last_hidden_state", next(iter(found.values())))


class _Reader(PixelSceneDescriber):
    """A describer of pixel scenes whose network was exported."""

    def __init__(self, network: OnnxNetwork) -> None:
        super().__init__(width=8, embedding_width=1)  # whose own weights are not used
        self.network = network

    def logits(self, image: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        groups: dict[str, dict[str, Tensor]] = {"setting": {}, "back": {}, "front": {}}
        for name, value in self.network({"image": self.fitted(image).float()}).items():
            group, _, attribute = name.partition("_")
            groups[group][attribute] = value.to(image.device)
        return groups["setting"], groups["back"], groups["front"]


@register_backend("vlm/onnx")
class OnnxDescriber:
    """The describer of pixel scenes, exported by :func:`~wgtorch.integrations.onnx.export.export_describer`.

    It answers no questions: the text is what it sees; with a schema, the attributes as JSON.

    Args:
        checkpoint_ref: the folder with ``model.onnx``.
    """

    is_async, model = False, None

    def __init__(self, *, checkpoint_ref: str) -> None:
        self._reader = _Reader(OnnxNetwork(_file_in(Path(local_ref(checkpoint_ref)).expanduser(), "vlm")))

    def complete(self, requests: Sequence[TextRequest], on_text: Callable[[int, str | None], None] | None = None) -> list[Completion]:
        """What is in the picture of each request."""
        found = []
        for index, request in enumerate(requests):
            seen = self._reader(next(image for message in request.messages for image in message.images))
            text = seen["text"] if request.schema is None else json.dumps(seen["attributes"])
            if on_text is not None:
                on_text(index, text)
            found.append(Completion(text, "stop", {}))
        return found


def _file_in(folder: Path, where: str) -> Path:
    found = next((path for path in (folder / FILE, folder / "onnx" / FILE) if path.is_file()), None)
    if found is None:
        raise CheckpointError(f"{where}.checkpoint_ref: {str(folder)!r} holds no {FILE}; export one, see wgtorch.integrations.onnx.export")
    return found
