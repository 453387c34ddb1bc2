"""Checkpoints written whole or not at all, in a folder or in one archive."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch.core import adapter_hook
from wgtorch.core.block_registry import BlockRegistry
from wgtorch.core.checkpoint.assign import build_empty, check_storable, misfits
from wgtorch.core.checkpoint.atomic import write_file, write_folder
from wgtorch.core.checkpoint.io import MANIFEST, ArchiveSink, FolderSink, Sink
from wgtorch.core.checkpoint.manifest import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    ADAPTERS,
    BLOCKS,
    CONFIG_JSON,
    CONFIG_YAML,
    Manifest,
    StoredBlock,
    StoredFile,
    dump_manifest,
    parse_manifest,
    stored_file,
)
from wgtorch.core.checkpoint.own_weights import check_levels, parts_of
from wgtorch.core.checkpoint.refs import holds, is_as_referred, outside_files, ref_of
from wgtorch.core.checkpoint.shared_tensors import overlapping, split_aliases, ties_of
from wgtorch.core.checkpoint.tensors import Pieces, bytes_of, make_header
from wgtorch.core.config.resolve import dump_config, holders, nesting, parse_config, refuse_refs, resolve_environment
from wgtorch.core.config.schema import check_block_config, check_level_config
from wgtorch.core.errors import CheckpointError, ConfigError, RebuiltOtherwiseWarning
from wgtorch.core.pool import building
from wgtorch.core.registry import LevelRegistry
from wgtorch.core.signature import takes_argument
from wgtorch.core.system_files import is_of_system
from wgtorch.core.tree import UniqueBlock, unique_blocks

LARGE_CONFIG = 64 << 10
"""A config longer than this is written as JSON, which is read a hundred times faster than YAML."""
DEEPEST_YAML = 64
"""A config that nests deeper is written as JSON: PyYAML recurses."""
SHARD = 4 << 30
"""Bytes of weights in one file."""
COPIED = 8 << 20
"""Bytes of a tensor that are copied at once to be written."""
MAX_TENSORS = 10_000
"""Tensors that are written into one file; its header stays far below ``MAX_HEADER_VALUES``."""
_LONGEST = 120  # characters of a file's name; the longest that file systems take is 255


_OURS = frozenset((MANIFEST, CONFIG_YAML, CONFIG_JSON, BLOCKS, ADAPTERS, "life", "training"))
FORMATS = ("dir", "archive")


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is stored and what is only named."""

    self_contained: bool
    base: str | None
    shard_bytes: int


def save_checkpoint(
    target: Any,
    path: str | os.PathLike[str],
    *,
    format: str = "dir",
    self_contained: bool = False,
    base: str | os.PathLike[str] | None = None,
    shard_bytes: int = SHARD,
    beside: Callable[[Path], None] | None = None,
) -> Path:
    """Writes a block or level; see :meth:`wgtorch.core.block.Block.save_checkpoint`.

    ``beside`` writes more into the folder, as the state of a training: it is in the manifest, and in place with the rest.
    """
    path = Path(path)
    if format not in FORMATS:
        raise CheckpointError(f"save_checkpoint: format {format!r}; expected 'dir' or 'archive'")
    if shard_bytes < 1:
        raise CheckpointError(f"save_checkpoint: shard_bytes {shard_bytes}; expected a number of bytes")
    _check_target(path, format)
    if base is not None and Path(base).resolve() == path.resolve():
        raise CheckpointError(f"save_checkpoint: {path} cannot be its own base")
    if self_contained and base is not None:
        raise CheckpointError("save_checkpoint: self_contained stores everything, and base names what is not stored; give one of them")
    config = target.saved_config()
    check_loads(config, target)
    check_levels(target)
    parts = parts_of(target)
    for name, part in parts.items():
        check_storable(adapter_hook.hook.base_state(part.block), name)
    for one, other in overlapping(parts):
        warnings.warn(
            f"{one} and {other} are views of one memory; loaded, they are two tensors, and what changes one leaves the other as it is. "
            "Give both one nn.Parameter, or make the view of it in forward",
            RebuiltOtherwiseWarning,
            stacklevel=3,
        )
    _warn_of_changed(target)
    if self_contained:
        _remove_refs(config, target)
    choose = _Choice(self_contained, None if base is None else str(Path(base).resolve()), shard_bytes)

    def fill_folder(folder: Path) -> None:
        target.write_extra(folder)
        if beside is not None:
            beside(folder)
        extra = [_hashed(file, folder) for file in sorted(folder.rglob("*")) if file.is_file()]
        _write(target, config, FolderSink(folder), tuple(extra), choose)

    def fill_archive(file: Path) -> None:
        with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            folder = Path(name)
            target.write_extra(folder)
            sink = ArchiveSink(archive)
            stored = [_put_file(sink, entry, folder) for entry in sorted(folder.rglob("*")) if entry.is_file()]
            _write(target, config, sink, tuple(stored), choose)

    return write_folder(path, fill_folder) if format == "dir" else write_file(path, fill_archive)


def check_loads(config: dict[str, Any], target: Any) -> None:
    """Refuses a config that no load would take, as of a block that was built with ``True`` where its annotation says ``int``.

    Raises:
        ConfigError: lists what does not fit, each with its path.
    """
    try:
        refuse_refs(config, "its config")
        if config.get("kind") in LevelRegistry:
            check_level_config(config, LevelRegistry.get(config["kind"]), BlockRegistry.get)
        elif config.get("kind") == "block" and "${" not in str(config["config"]):
            check_block_config(type(target), config["config"], target.block_type)
    except ConfigError as error:
        raise ConfigError(f"{target.block_id} was not saved, since it could not be loaded: {error}") from error


def _warn_of_changed(target: Any) -> None:
    """Warns of blocks that were changed after they were built (a parametrization, pruning, a layer put in by hand): no config says so."""
    built: dict[str, nn.Module | None] = {}
    for path, part in unique_blocks(target).items():
        state = adapter_hook.hook.base_state(part.block)
        if not state or not getattr(part.block, "block_type", "") or takes_argument(type(part.block), "checkpoint_ref"):
            continue
        entry = part.block.to_config()
        entry["config"].pop("checkpoint_ref", None)
        key = json.dumps(entry, sort_keys=True)
        if key not in built:
            with building(empty=True), suppress(Exception):  # a config that does not build says so when it is loaded
                built[key] = BlockRegistry.build(entry)
        found = [] if (fresh := built.get(key)) is None else misfits(fresh, state, path)
        if found:
            warnings.warn(
                f"{path}: was changed after it was built, and load() builds what its config says, which these do not fit: "
                f"{'; '.join(map(str, found[:4]))}{' ...' if len(found) > 4 else ''}. They are saved; load_weights() takes them into "
                "a block that was changed alike. Make the change in the block's __init__, or undo it before saving "
                "(remove_parametrizations, prune.remove)",
                RebuiltOtherwiseWarning,
                stacklevel=4,
            )


def _remove_refs(config: dict[str, Any], target: Any) -> None:
    """Takes refs out of a config whose weights are stored all.

    A block that reads more than weights from its ref (a model's own config, a tokenizer) cannot be built without, and keeps it.
    """
    classes = {unique.block.block_type: type(unique.block) for unique in unique_blocks(target).values()}
    for _, held in holders(config):
        if isinstance(held, dict) and held.get("block_type") in classes and "checkpoint_ref" in (held.get("config") or {}):
            without = {name: value for name, value in held["config"].items() if name != "checkpoint_ref"}
            if not _needs_ref(classes[held["block_type"]], without):
                held["config"] = without


def _needs_ref(block_class: type[Any], config: Mapping[str, Any]) -> bool:
    if not takes_argument(block_class, "checkpoint_ref"):
        return False
    try:
        build_empty(lambda: block_class.from_config(resolve_environment(dict(config), block_class.block_type)))
    except Exception:  # whatever it is that it cannot do without
        return True
    return False


def _check_target(path: Path, format: str) -> None:
    """Refuses to put a checkpoint in place of anything but a checkpoint."""
    if format == "archive" and path.is_dir():
        raise CheckpointError(f"{path}: is a folder; an archive is one file, so name one, as {str(path / 'model.wgt')!r}")
    if format == "dir" and path.exists():
        if not path.is_dir():
            raise CheckpointError(f"{path}: is a file; give the name of a folder, or format='archive'")
        held = {entry.name for entry in path.iterdir() if not is_of_system(entry.name)}
        if held and MANIFEST not in held:
            raise CheckpointError(f"{path}: is a folder that holds {sorted(held)[:5]} and no checkpoint; choose a new or empty one")
        foreign = sorted(held - _OURS)
        if foreign:
            raise CheckpointError(f"{path}: beside a checkpoint this folder holds {foreign[:5]}, which saving would remove; choose another")


def _write(target: Any, config: dict[str, Any], sink: Sink, extra: tuple[StoredFile, ...], choose: _Choice) -> None:
    try:
        raw = dump_config(config, json_form=True).encode()
        parse_config(raw.decode(), "the config", json_form=True)  # what no load would take is not saved
    except ConfigError as error:
        raise CheckpointError(f"{error}. Keep many numbers in buffers, which are stored as tensors") from error
    name = CONFIG_JSON
    if len(raw) <= LARGE_CONFIG and nesting(config) <= DEEPEST_YAML:
        name, raw = CONFIG_YAML, dump_config(config).encode()
    stored_config = _put(sink, name, [raw], len(raw))
    blocks = {}
    parts = parts_of(target)
    for path, part in parts.items():
        entry = _write_block(part, sink, choose)
        if entry is not None:
            blocks[path] = entry
    manifest = Manifest(
        kind=target.level,
        config=stored_config,
        blocks=blocks,
        ties=ties_of(parts),
        extra=extra,
        versions={"wgtorch": _own_version(), "torch": torch.__version__},
    )
    raw = dump_manifest(manifest)
    parse_manifest(raw, MANIFEST)  # what no load would take is not saved
    sink.put(MANIFEST, [raw], len(raw))


def _write_block(part: UniqueBlock, sink: Sink, choose: _Choice) -> StoredBlock | None:
    block, path = part.block, part.path
    adapters = {}
    for name, (adapter_config, state) in adapter_hook.hook.stored(block).items():
        folder = f"{ADAPTERS}/{file_stem(path)}/{name}"
        raw = adapter_config.encode()
        files = [_put(sink, f"{folder}/{ADAPTER_CONFIG}", [raw], len(raw))]
        adapters[name] = (*files, _put_tensors(sink, f"{folder}/{ADAPTER_WEIGHTS}", state, {"format": "pt"}))
    state = adapter_hook.hook.base_state(block)
    if not state and not adapters:
        return None
    entry = StoredBlock(path, users=tuple(part.users), block_type=getattr(block, "block_type", ""), adapters=adapters)
    ref = ref_of(block)
    if ref is not None and not choose.self_contained and is_as_referred(block, ref, state):
        return replace(entry, ref=block.config["checkpoint_ref"], outside=outside_files(ref))
    if choose.base is not None and ref is None and holds(f"{choose.base}#{path}", state):
        return replace(entry, ref=f"{choose.base}#{path}", outside=outside_files(f"{choose.base}#{path}"))
    tensors, aliases = split_aliases(state)
    metadata = {"format": "pt", **{f"alias:{name}": target for name, target in aliases.items()}}
    shards = list(_shards(tensors, choose.shard_bytes))
    files = []
    for number, shard in enumerate(shards, start=1):
        suffix = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        known = {key: value for key, value in metadata.items() if not key.startswith("alias:") or value in shard}
        files.append(_put_tensors(sink, f"{BLOCKS}/{file_stem(path)}{suffix}.safetensors", shard, known))
    return replace(entry, files=tuple(files))


def _shards(tensors: Mapping[str, Tensor], shard_bytes: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        length = tensor.numel() * tensor.element_size()
        if shard and (size + length > shard_bytes or len(shard) == MAX_TENSORS):
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += length
    if shard:
        yield shard


def _put_tensors(sink: Sink, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> StoredFile:
    header, order, size = make_header(tensors, metadata)
    pieces = Pieces(header)
    return replace(_put(sink, name, _chunks(header, order, pieces), size), pieces=pieces.hexdigest())


def _chunks(header: bytes, order: list[Tensor], pieces: Pieces) -> Iterator[Any]:
    yield header
    for tensor in bytes_of(order):
        for start in range(0, len(tensor), COPIED):
            part = bytes(tensor[start : start + COPIED])  # what is hashed is what is written, also while another thread trains
            pieces.add(part, start, len(tensor))
            yield part


def _put(sink: Sink, name: str, chunks: Iterable[Any], size: int) -> StoredFile:
    return StoredFile(name, size, sink.put(name, chunks, size))


def _put_file(sink: Sink, file: Path, folder: Path) -> StoredFile:
    stored = _hashed(file, folder)
    sink.put(stored.file, [file.read_bytes()], stored.bytes)
    return stored


def _hashed(file: Path, folder: Path) -> StoredFile:
    return stored_file(file, file.relative_to(folder).as_posix())


def _own_version() -> str:
    try:
        return version("wgtorch")
    except PackageNotFoundError:  # used from a source tree that is not installed
        return "unknown"


def file_stem(path: str) -> str:
    """A file's name, without its ending, for the block at a path (``creator.paint.t2i.backbone``)."""
    if len(path) <= _LONGEST:
        return path
    return f"{path[: _LONGEST - 17]}-{hashlib.sha256(path.encode()).hexdigest()[:16]}"
