"""Hashes of tensors, and the tensors by their hashes: what did not change is neither hashed nor written again."""

from __future__ import annotations

import weakref

from torch import Tensor

from wgtorch.core.encoding import check_tensor
from wgtorch.core.errors import StorageError
from wgtorch.core.kinds import describe
from wgtorch.storage.segment import digest_of
from wgtorch.storage.snapshot import TensorRef, version_of
from wgtorch.storage.tensor_blobs import blob_of

_LARGE = 4 << 20  # bytes of a tensor that is not copied while it waits to be written


class KnownTensors:
    """Remembers tensors for as long as somebody else holds them.

    A tensor is known again by what it is and by PyTorch's count of its changes in place. What is changed behind that count's back
    (through ``numpy()`` or ``.data``) is not seen; tensors made in inference mode have no count and are hashed every time.
    """

    def __init__(self) -> None:
        self._digests: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}
        self._tensors: dict[str, tuple[weakref.ref[Tensor], int]] = {}
        self._packed: dict[str, list[bytes | memoryview]] = {}  # blobs of tensors that were hashed and not written yet
        self.has_large = False
        """Something is to be written soon, since there is no copy of it."""

    def digest(self, tensor: Tensor, path: str, *, is_kept: bool = False) -> str:
        """The hash of a tensor's blob.

        Args:
            tensor: which.
            path: where it stands, for messages.
            is_kept: its bytes will be written, as they are now: they are copied, unless they are many.

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
        if is_kept and digest not in self._packed:
            is_large = not isinstance(parts[-1], bytes) and tensor.numel() * tensor.element_size() > _LARGE
            self.has_large = self.has_large or is_large
            if not is_large:  # packed already, or a view of the tensor
                self._packed[digest] = [part if isinstance(part, bytes) else bytes(part) for part in parts]
        if version is not None:
            key = id(tensor)
            self._digests[key] = (weakref.ref(tensor, lambda gone: self._forget(key, gone)), version, digest)
            self._tensors[digest] = (weakref.ref(tensor, lambda gone: self._forget_tensor(digest, gone)), version)
        return digest

    def blob(self, ref: TensorRef) -> list[bytes | memoryview]:
        """The blob of a tensor that was hashed.

        Raises:
            StorageError: it was changed in place since.
        """
        assert ref.digest is not None
        if ref.digest in self._packed:
            return self._packed[ref.digest]
        tensor = ref.tensor if ref.tensor is not None else self.find(ref.digest)
        assert tensor is not None
        parts = blob_of(tensor)
        if not ref.holds(tensor) and digest_of(*parts) != ref.digest:
            raise StorageError(f"a tensor {describe(tensor)} was changed in place after it was handed to the world; hand a copy of it")
        return parts

    def written(self) -> None:
        """Forgets the blobs that were kept to be written."""
        self._packed.clear()
        self.has_large = False

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
