"""Hashes of tensors, and the tensors by their hashes: what did not change is neither hashed nor written again."""

from __future__ import annotations

import weakref

from torch import Tensor

from wgtorch.core.encoding import check_tensor
from wgtorch.storage.segment import digest_of
from wgtorch.storage.snapshot import version_of
from wgtorch.storage.tensor_blobs import blob_of


class KnownTensors:
    """Remembers tensors for as long as somebody else holds them.

    A tensor is known again by what it is and by PyTorch's count of its changes in place. What is changed behind that count's back
    (through ``numpy()`` or ``.data``) is not seen; tensors made in inference mode have no count and are hashed every time.
    """

    def __init__(self) -> None:
        self._digests: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}
        self._tensors: dict[str, tuple[weakref.ref[Tensor], int]] = {}
        self._packed: dict[str, list[bytes | memoryview]] = {}  # blobs of tensors that were hashed and not written yet

    def digest(self, tensor: Tensor, path: str) -> str:
        """The hash of a tensor's blob.

        Raises:
            StorageError: it cannot be stored.
        """
        known = self._digests.get(id(tensor))
        version = version_of(tensor)
        if known is not None and known[0]() is tensor and known[1] == version:
            return known[2]
        check_tensor(tensor, path)
        parts = blob_of(tensor)
        digest = digest_of(*parts)
        if isinstance(parts[-1], bytes):  # packed: others are views of the tensor, and cost nothing to make again
            self._packed[digest] = parts
        if version is not None:
            key = id(tensor)
            self._digests[key] = (weakref.ref(tensor, lambda gone: self._forget(key, gone)), version, digest)
            self._tensors[digest] = (weakref.ref(tensor, lambda gone: self._forget_tensor(digest, gone)), version)
        return digest

    def blob(self, tensor: Tensor, digest: str) -> list[bytes | memoryview]:
        """The blob of a tensor that was hashed."""
        return self._packed.get(digest) or blob_of(tensor)

    def written(self) -> None:
        """Forgets the blobs that were kept to be written."""
        self._packed.clear()

    def find(self, digest: str) -> Tensor | None:
        """A tensor in memory that has this hash."""
        known = self._tensors.get(digest)
        tensor = None if known is None else known[0]()
        return tensor if tensor is not None and known is not None and known[1] == version_of(tensor) else None

    def _forget(self, key: int, gone: weakref.ref[Tensor]) -> None:
        if key in self._digests and self._digests[key][0] is gone:
            del self._digests[key]

    def _forget_tensor(self, digest: str, gone: weakref.ref[Tensor]) -> None:
        if digest in self._tensors and self._tensors[digest][0] is gone:
            del self._tensors[digest]
