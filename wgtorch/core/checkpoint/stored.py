"""What is stored in an opened checkpoint: its manifest, and the tensors of its parts, mapped and proved."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from wgtorch.core.checkpoint.layout import MANIFEST, MAX_MANIFEST
from wgtorch.core.checkpoint.manifest import Manifest, StoredBlock, StoredFile, parse_manifest
from wgtorch.core.checkpoint.pieces import pieces_of
from wgtorch.core.checkpoint.source import Source, digest, map_file, read
from wgtorch.core.checkpoint.tensors import Header, map_tensors, read_header
from wgtorch.core.errors import CheckpointError, suggest


def read_manifest(source: Source) -> Manifest:
    """The manifest of a checkpoint."""
    return parse_manifest(read(source, MANIFEST, MAX_MANIFEST), source.where(MANIFEST))


def prove(source: Source, file: StoredFile, verify: bool | None) -> None:
    """Compares a file with what the manifest says of it.

    Args:
        verify: True reads every byte for its hash, False none; None as many as one load may (``HASHED``), and of weights
            that are larger the size, the header and a piece of every tensor.

    Raises:
        CheckpointError: it is missing, or not the file that was saved.
    """
    if not _proved(source, file, verify) and verify is None:
        _prove_pieces(source, file, _header(source, file)[2])


def _proved(source: Source, file: StoredFile, verify: bool | None) -> bool:
    """True once every byte is known to be what was saved, False when only the size is."""
    size = source.size(file.file)
    if size != file.bytes:
        what = "truncated" if size < file.bytes else "longer than what was saved"
        raise CheckpointError(f"{source.where(file.file)}: {what}: {size} bytes, expected {file.bytes}")
    if verify is None and (size <= source.unspent or not file.pieces):
        source.unspent -= min(size, source.unspent)
        verify = True
    if verify and digest(source, file.file) != file.sha256:
        raise CheckpointError(f"{source.where(file.file)}: is not the file that was saved (its hash differs); damaged or tampered with")
    return bool(verify)


def _prove_pieces(source: Source, file: StoredFile, header: Header) -> None:
    if pieces_of(*source.place(file.file), header) != file.pieces:
        raise CheckpointError(
            f"{source.where(file.file)}: is not the file that was saved (its header or a tensor differs); damaged, or another file"
        )


def _header(source: Source, file: StoredFile) -> tuple[mmap.mmap, int, Header]:
    """(mapping, where in it the file begins, its header)."""
    if file.bytes < 8:
        raise CheckpointError(f"{source.where(file.file)}: {file.bytes} bytes; no safetensors file")
    buffer, start, length = source.map(file.file)
    return buffer, start, read_header(buffer, start, length, source.where(file.file))


def stored_tensors_of(source: Source, files: Iterable[StoredFile], verify: bool | None = None) -> dict[str, Tensor]:
    """Tensors of a block's files, mapped where they lie.

    Raises:
        CheckpointError: a file is missing, truncated, foreign, or not the one that was saved.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        whole = _proved(source, file, verify)
        buffer, start, header = _header(source, file)
        if not whole and verify is None:
            _prove_pieces(source, file, header)
        mapped = map_tensors(buffer, start, header)
        for name in mapped:
            if name in tensors:
                raise CheckpointError(f"{source.where(file.file)}: tensor {name[:200]!r} is in another shard as well")
        tensors.update(mapped)
        for key, target in header.metadata.items():
            if key.startswith("alias:") and target in tensors:
                tensors[key.removeprefix("alias:")] = tensors[target]
    return tensors


def stored_file(path: Path, name: str) -> StoredFile:
    """What a manifest says of a file that lies at ``path``.

    Raises:
        CheckpointError: it is called a safetensors file and is none.
    """
    pieces = pieces_of(path, 0, map_header(path)[2]) if path.suffix == ".safetensors" else ""
    return StoredFile(name, path.stat().st_size, digest_of(path), pieces)


def digest_of(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def map_header(path: Path) -> tuple[mmap.mmap, int, Header]:
    """A safetensors file mapped, where it begins there, and its header.

    Raises:
        CheckpointError: it is truncated, foreign or damaged.
    """
    try:
        length = path.stat().st_size
        if length < 8:
            raise CheckpointError(f"{path}: {length} bytes; truncated, or no safetensors file")
        with path.open("rb") as handle:
            buffer = map_file(handle)
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return buffer, 0, read_header(buffer, 0, length, str(path))


def find_block(manifest: Manifest, path: str, where: str) -> StoredBlock:
    """The entry of the block that stands at a path.

    Raises:
        CheckpointError: no block stands there.
    """
    for entry in manifest.blocks.values():
        if path == entry.path or path in entry.users:
            return entry
    known = [user for entry in manifest.blocks.values() for user in entry.users]
    raise CheckpointError(f"{where}: no weights at {path!r}; {suggest(path, known)}")


def stored_part(source: Source, manifest: Manifest, part: str) -> dict[str, Tensor]:
    """The tensors of one block of a checkpoint, by its path (``creator/paint/t2i/backbone``)."""
    entry = find_block(manifest, part.strip("/").replace("/", "."), str(source.path))
    if not entry.files:
        raise CheckpointError(f"{source.path}: the weights at {part!r} are those of {entry.ref!r}; refer to that instead")
    return stored_tensors_of(source, entry.files)
