"""What a checkpoint holds, without building any of it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wgtorch.core.checkpoint.io import MANIFEST, Source, open_source
from wgtorch.core.checkpoint.manifest import Manifest, StoredBlock, StoredFile, prove, read_manifest
from wgtorch.core.checkpoint.refs import is_unchanged, where_it_lies
from wgtorch.core.checkpoint.tensors import read_header
from wgtorch.core.config.resolve import resolve_environment
from wgtorch.core.errors import CheckpointError, ConfigError
from wgtorch.core.trust import from_file


@dataclass(frozen=True, slots=True)
class Inspection:
    """A checkpoint, looked at.

    Args:
        path: where it lies.
        archive: it is one zip.
        manifest: what it says of itself.
        tensors: number of tensors by block path; 0 where they lie outside.
        damage: what does not hold, in words; empty when every byte is what was saved.
    """

    path: Path
    archive: bool
    manifest: Manifest
    tensors: dict[str, int]
    damage: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Of all its files but the manifest."""
        return sum(file.bytes for file in self.manifest.files())

    def __str__(self) -> str:
        manifest = self.manifest
        form = "archive" if self.archive else "folder"
        versions = ", ".join(f"{name} {number}" for name, number in manifest.versions.items())
        lines = [
            f"{self.path}: {manifest.kind}, format {manifest.format_version} ({form}), written by {versions}",
            f"{_size(self.bytes)} in {len(manifest.files())} files, {len(manifest.blocks)} blocks",
            "",
            *_tree(manifest, self.tensors),
        ]
        shared = [block for block in manifest.blocks.values() if len(block.users) > 1]
        if shared:
            lines += ["", "shared:"]
            for block in shared:
                places = ", ".join(map(_shown, block.users[:8]))
                lines.append(f"  {_shown(block.path)}  at {len(block.users)} places: {places}")
        adapters = [(block, name, files) for block in manifest.blocks.values() for name, files in block.adapters.items()]
        if adapters:
            lines += ["", "adapters:"]
            lines += [f"  {name} on {_shown(block.path)}  {_size(sum(file.bytes for file in files))}" for block, name, files in adapters]
        if manifest.extra:
            lines += ["", "beside: " + ", ".join(f"{file.file} ({_size(file.bytes)})" for file in manifest.extra)]
        lines += ["", "hashes: every file is what was saved" if not self.damage else "DAMAGED:"]
        return "\n".join([*lines, *(f"  {words}" for words in self.damage)])


def inspect_checkpoint(path: str | os.PathLike[str]) -> Inspection:
    """Reads a checkpoint's manifest, the headers of its files, and every byte for its hash, of what lies outside too.

    Raises:
        CheckpointError: there is no checkpoint, or its manifest cannot be read.
    """
    with open_source(path) as source, from_file(path):
        manifest = read_manifest(source)
        damage = _damage(source, manifest.files())
        known = {MANIFEST, *(file.file for file in manifest.files())}
        damage += [f"{name}: is not in the manifest" for name in sorted(source.names() - known)]
        damage += [words for block in manifest.blocks.values() if (words := _outside(block)) is not None]
        tensors = {path: _count(source, block) for path, block in manifest.blocks.items()}
        return Inspection(Path(path), not source.path.is_dir(), manifest, tensors, tuple(damage))


def _damage(source: Source, files: Iterable[StoredFile]) -> list[str]:
    found = []
    for file in files:
        try:
            prove(source, file, True)
        except CheckpointError as error:
            found.append(str(error))
    return found


def _outside(block: StoredBlock) -> str | None:
    """What is wrong with the files that a block's ref names; None when they are those of the save, or when it has none."""
    if block.ref is None:
        return None
    try:
        ref = where_it_lies(resolve_environment({"ref": block.ref}, block.path)["ref"], block.outside)
        if is_unchanged(ref, block.outside, True):
            return None
    except (CheckpointError, ConfigError) as error:
        return f"{_shown(block.path)}: {error}"
    return f"{_shown(block.path)}: {ref} changed since the checkpoint was saved"


def _count(source: Source, block: StoredBlock) -> int:
    count = 0
    for file in block.files:
        try:
            buffer, start, length = source.map(file.file)
            count += len(read_header(buffer, start, length, source.where(file.file)).entries)
        except CheckpointError:
            continue  # told among the damage
    return count


def _tree(manifest: Manifest, tensors: dict[str, int]) -> list[str]:
    """Blocks under the first path they stand at, indented as they are nested."""
    lines: list[str] = []
    before: list[str] = []
    for path, block in manifest.blocks.items():
        parts = path.split(".")
        same = 0
        while same < min(len(parts), len(before)) - 1 and parts[same] == before[same]:
            same += 1
        lines += [f"{'  ' * depth}{parts[depth]}" for depth in range(same, len(parts) - 1)]
        held = f"{tensors.get(path, 0)} tensors, {_size(sum(file.bytes for file in block.files))}"
        where = held if block.ref is None else f"from {block.ref}"
        shards = f" in {len(block.files)} shards" if len(block.files) > 1 else ""
        lines.append(f"{'  ' * (len(parts) - 1)}{parts[-1]}  {block.block_type}  {where}{shards}")
        before = parts
    return lines


def _shown(path: str) -> str:
    return path.replace(".", "/")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} bytes"
