"""Hashes of tensors, and the tensors by their hashes: what did not change is neither hashed nor written again."""

from __future__ import annotations

import weakref

from torch import Tensor

from wgtorch.core.checkpoint.tensors import bytes_of, make_header, map_tensors, read_header
from wgtorch.core.encoding import check_tensor
from wgtorch.core.errors import CheckpointError, StorageError
from wgtorch.storage.segment import digest_of
from wgtorch.storage.snapshot import version_of

_NAME = "tensor"


class KnownTensors:
    """Remembers tensors for as long as somebody else holds them.

    A tensor is known again by what it is and by PyTorch's count of its changes in place. What is changed behind that count's back
    (through ``numpy()`` or ``.data``) is not seen; tensors made in inference mode have no count and are hashed every time.
    """

    def __init__(self) -> None:
        self._digests: dict[int, tuple[weakref.ref[Tensor], int, str]] = {}
        self._tensors: dict[str, tuple[weakref.ref[Tensor], int]] = {}

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
        digest = digest_of(*blob_of(tensor))
        if version is not None:
            key = id(tensor)
            self._digests[key] = (weakref.ref(tensor, lambda gone: self._forget(key, gone)), version, digest)
            self._tensors[digest] = (weakref.ref(tensor, lambda gone: self._forget_tensor(digest, gone)), version)
        return digest

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


def blob_of(tensor: Tensor) -> list[bytes | memoryview]:
    """A tensor as a safetensors file, in parts."""
    header, order, _ = make_header({_NAME: tensor})
    return [header, *bytes_of(order)]


def blob_length(tensor: Tensor) -> int:
    """Bytes of :func:`blob_of`."""
    return make_header({_NAME: tensor})[2]


def tensor_of(raw: bytes, where: str) -> Tensor:
    """The tensor of a blob.

    Raises:
        StorageError: it holds something else.
    """
    buffer = bytearray(raw)
    try:
        header = read_header(buffer, 0, len(buffer), where)
        (tensor,) = map_tensors(buffer, 0, header).values()  # type: ignore[arg-type]  # any writable buffer will do
    except (CheckpointError, ValueError) as error:
        raise StorageError(f"{where}: no tensor: {error}") from error
    return tensor
