"""What is stored in an opened checkpoint: its manifest, and the tensors of its parts, mapped and proved."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from wgtorch.core.checkpoint.layout import MANIFEST, MAX_MANIFEST, SMALL
from wgtorch.core.checkpoint.manifest import Manifest, StoredBlock, StoredFile, parse_manifest
from wgtorch.core.checkpoint.source import Source, digest, read
from wgtorch.core.checkpoint.tensors import map_tensors, read_header
from wgtorch.core.errors import CheckpointError, suggest


def read_manifest(source: Source) -> Manifest:
    """The manifest of a checkpoint."""
    return parse_manifest(read(source, MANIFEST, MAX_MANIFEST), source.where(MANIFEST))


def prove(source: Source, file: StoredFile, verify: bool | None) -> None:
    """Compares a file with what the manifest says of it.

    Args:
        verify: True reads every byte for its hash, False none; None those of small files, and of large ones the size alone.

    Raises:
        CheckpointError: it is missing, or not the file that was saved.
    """
    size = source.size(file.file)
    if size != file.bytes:
        what = "truncated" if size < file.bytes else "longer than what was saved"
        raise CheckpointError(f"{source.where(file.file)}: {what}: {size} bytes, expected {file.bytes}")
    if (verify or (verify is None and size <= SMALL)) and digest(source, file.file) != file.sha256:
        raise CheckpointError(f"{source.where(file.file)}: is not the file that was saved (its hash differs); damaged or tampered with")


def stored_tensors_of(source: Source, files: Iterable[StoredFile], verify: bool | None = None) -> dict[str, Tensor]:
    """Tensors of a block's files, mapped where they lie.

    Raises:
        CheckpointError: a file is missing, truncated, foreign, or not the one that was saved.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        prove(source, file, verify)
        if file.bytes < 8:
            raise CheckpointError(f"{source.where(file.file)}: {file.bytes} bytes; no safetensors file")
        buffer, start, length = source.map(file.file)
        header = read_header(buffer, start, length, source.where(file.file))
        mapped = map_tensors(buffer, start, header)
        for name in mapped:
            if name in tensors:
                raise CheckpointError(f"{source.where(file.file)}: tensor {name[:200]!r} is in another shard as well")
        tensors.update(mapped)
        for key, target in header.metadata.items():
            if key.startswith("alias:") and target in tensors:
                tensors[key.removeprefix("alias:")] = tensors[target]
    return tensors


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
