"""What lies where in a checkpoint.

dir/
  manifest.json                    format, versions, and for each file its size, its hash and who uses it
  config.yaml                      structure (config.json when it is large)
  blocks/<path>.safetensors        weights of one unique block, under the first path it stands at
  blocks/<path>-00001-of-00003.safetensors    the same in shards
  adapters/<path>/<name>/          one adapter of one block, in the layout of the library that made it
  life/ ...                        what a level writes beside (a world's life)
  training/ ...                    what a training needs to go on

An archive is the same tree in one zip whose members are stored, not compressed, and whose tensors begin at multiples of
64 bytes, so that they are mapped where they lie.

The manifest is read without trust and carried forward from older formats; files are compared with what it says of them.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from wgtorch.core.checkpoint.io import MANIFEST, MAX_MANIFEST, Source, checked_name, digest, map_file, read
from wgtorch.core.checkpoint.shared_tensors import Ties
from wgtorch.core.checkpoint.tensors import Header, Shard, joined, pieces_of, read_header
from wgtorch.core.errors import CheckpointError, suggest
from wgtorch.core.json_text import read_json

FORMAT = "wgtorch-checkpoint"
FORMAT_VERSION = "1.2"
CONFIG_YAML, CONFIG_JSON = "config.yaml", "config.json"
BLOCKS, ADAPTERS = "blocks", "adapters"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_VALUES = 500_000
"""Values that a manifest may hold."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a checkpoint.

    Args:
        file: its name in the checkpoint, or a path outside.
        bytes: how long it is.
        sha256: of all its bytes.
        pieces: of its header and a piece of every tensor (see :class:`wgtorch.core.checkpoint.tensors.Pieces`); empty for files that
            are no weights, and in checkpoints of format 1.0.
    """

    file: str
    bytes: int
    sha256: str
    pieces: str = ""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """Weights of one unique block.

    Args:
        path: the first path it stands at.
        users: all paths it stands at.
        block_type: its registered name; empty when it has none.
        files: files with its weights, in order; empty when they are an outside file's.
        ref: the ``checkpoint_ref`` its weights come from, when they are not stored.
        outside: what the ref's files were when the checkpoint was written.
        adapters: files of each of its adapters, by name.
    """

    path: str
    users: tuple[str, ...] = ()
    block_type: str = ""
    files: tuple[StoredFile, ...] = ()
    ref: str | None = None
    outside: tuple[StoredFile, ...] = ()
    adapters: Mapping[str, tuple[StoredFile, ...]] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes stored for it."""
        return sum(file.bytes for file in self.files) + sum(file.bytes for files in self.adapters.values() for file in files)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a checkpoint holds.

    Args:
        kind: ``block``, ``graph``, ``pipeline``, ``stage`` or ``world``.
        config: the file with the structure.
        blocks: by first path.
        ties: tensors that several blocks hold, each as the (path, name) of every place that holds it.
        extra: files that the level wrote beside.
        versions: of ``wgtorch`` and ``torch``, when it was written.
        format_version: of the file that was read.
    """

    kind: str
    config: StoredFile
    blocks: Mapping[str, StoredBlock]
    ties: Ties = ()
    extra: tuple[StoredFile, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    format_version: str = FORMAT_VERSION

    def files(self) -> list[StoredFile]:
        """All files, each once."""
        found = {self.config.file: self.config} | {file.file: file for file in self.extra}
        for block in self.blocks.values():
            for file in (*block.files, *(file for files in block.adapters.values() for file in files)):
                found[file.file] = file
        return list(found.values())


MIGRATIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "1.0": lambda content: {**content, "format_version": "1.1"},  # which added ``pieces`` to files
    "1.1": lambda content: {**content, "format_version": "1.2"},  # which added ``ties``
}
"""For each older format version, what makes its manifest one of a newer version."""


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON, with a hash of itself."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": manifest.kind,
        **manifest.versions,
        "config": _file_dict(manifest.config),
        "blocks": {path: _block_dict(block) for path, block in manifest.blocks.items()},
        "extra": [_file_dict(file) for file in manifest.extra],
    }
    if manifest.ties:
        content["ties"] = [[list(name) for name in names] for names in manifest.ties]
    return (json.dumps({**content, "manifest_sha256": _own_hash(content)}, indent=1, ensure_ascii=False) + "\n").encode()


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """Reads a manifest.

    Raises:
        CheckpointError: it is foreign, of a version that is not known here, damaged, or names files outside.
    """
    content = read_json(raw, where, CheckpointError, max_values=MAX_VALUES)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{where}: no manifest of a wgtorch checkpoint (its 'format' is not {FORMAT!r})")
    version = content.get("format_version")
    if version != FORMAT_VERSION and (not isinstance(version, str) or version not in MIGRATIONS):
        known = ", ".join(repr(entry) for entry in (*MIGRATIONS, FORMAT_VERSION))
        raise CheckpointError(
            f"{where}: format_version {str(version)[:40]!r}; this version of wgtorch reads {known}. Update wgtorch to read it"
        )
    stated = content.pop("manifest_sha256", None)
    if stated != _own_hash(content):
        raise CheckpointError(f"{where}: is not the file that was written (its own hash differs); damaged or edited")
    content = {**content}
    while content["format_version"] != FORMAT_VERSION:
        content = MIGRATIONS[content["format_version"]](content)
    return _manifest(content, str(version), where)


def _own_hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _file_dict(file: StoredFile) -> dict[str, Any]:
    entry = {"file": file.file, "bytes": file.bytes, "sha256": file.sha256}
    return {**entry, "pieces": file.pieces} if file.pieces else entry


def _block_dict(block: StoredBlock) -> dict[str, Any]:
    entry: dict[str, Any] = {"block_type": block.block_type, "users": list(block.users)}
    if block.ref is not None:
        entry["ref"] = block.ref
        entry["outside"] = [_file_dict(file) for file in block.outside]
    entry["files"] = [_file_dict(file) for file in block.files]
    if block.adapters:
        entry["adapters"] = {name: [_file_dict(file) for file in files] for name, files in block.adapters.items()}
    return entry


def _manifest(content: dict[str, Any], version: str, where: str) -> Manifest:
    _closed(content, ("format", "format_version", "kind", "wgtorch", "torch", "config", "blocks", "ties", "extra"), where)
    ties = [_of(names, list, f"{where}: ties") for names in _of(content.get("ties", []), list, f"{where}: ties")]
    blocks = _of(content.get("blocks"), dict, f"{where}: blocks")
    return Manifest(
        kind=_of(content.get("kind"), str, f"{where}: kind"),
        config=_file(content.get("config"), f"{where}: config"),
        blocks={path: _block(path, entry, f"{where}: block {path[:200]!r}") for path, entry in blocks.items()},
        ties=tuple(tuple(_tied_name(name, f"{where}: ties") for name in names) for names in ties),
        extra=_files(content.get("extra", []), f"{where}: extra"),
        versions={name: _of(content.get(name, "unknown"), str, f"{where}: {name}") for name in ("wgtorch", "torch")},
        format_version=version,
    )


def _tied_name(entry: Any, where: str) -> tuple[str, str]:
    if len(_of(entry, list, where)) != 2:
        raise CheckpointError(f"{where}: got {len(entry)} words; expected a block's path and a tensor's name")
    return _of(entry[0], str, where), _of(entry[1], str, where)


def _block(path: str, entry: Any, where: str) -> StoredBlock:
    entry = _of(entry, dict, where)
    _closed(entry, ("block_type", "users", "files", "ref", "outside", "adapters"), where)
    ref = entry.get("ref")
    users = _of(entry.get("users", []), list, f"{where}: users")
    adapters = _of(entry.get("adapters", {}), dict, f"{where}: adapters")
    return StoredBlock(
        path=path,
        users=tuple(_of(user, str, f"{where}: users") for user in users),
        block_type=_of(entry.get("block_type", ""), str, f"{where}: block_type"),
        files=_files(entry.get("files", []), where),
        ref=None if ref is None else _of(ref, str, f"{where}: ref"),
        outside=_files(entry.get("outside", []), where, inside=False),
        adapters={name: _files(files, f"{where}: adapter {name[:80]!r}") for name, files in adapters.items()},
    )


def _files(entries: Any, where: str, *, inside: bool = True) -> tuple[StoredFile, ...]:
    return tuple(_file(entry, where, inside=inside) for entry in _of(entries, list, where))


def _file(entry: Any, where: str, *, inside: bool = True) -> StoredFile:
    entry = _of(entry, dict, where)
    _closed(entry, ("file", "bytes", "sha256", "pieces"), where)
    size = _of(entry.get("bytes"), int, f"{where}: bytes")
    if size < 0:
        raise CheckpointError(f"{where}: bytes is {size}")
    name = _of(entry.get("file"), str, f"{where}: file")
    hashes = [_of(entry.get(key, default), str, f"{where}: {key}") for key, default in (("sha256", None), ("pieces", ""))]
    return StoredFile(checked_name(name, where) if inside else name, size, *hashes)


def _of(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CheckpointError(f"{where}: got {type(value).__name__}; expected {kind.__name__}")
    return value


def _closed(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in entry:
        if name not in known:
            raise CheckpointError(f"{where}: unknown key {name[:80]!r}; {suggest(name[:80], known)}")


# --- what is stored, mapped and proved ----------------------------------------------------------------------------------


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

    def shards() -> Iterator[Shard]:
        for file in files:
            whole = _proved(source, file, verify)
            buffer, start, header = _header(source, file)
            if not whole and verify is None:
                _prove_pieces(source, file, header)
            yield source.where(file.file), buffer, start, header

    return joined(shards())


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
            raise CheckpointError(f"{path}: {length} bytes; truncated (copy or fetch it again), or no safetensors file")
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
