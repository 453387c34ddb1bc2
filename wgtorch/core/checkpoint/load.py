"""Checkpoints read without trust: everything is checked before the first weight is set, nothing is copied."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgtorch.core import adapter_hook
from wgtorch.core.checkpoint.assign import assign, copy_into, misfit_error, misfits
from wgtorch.core.checkpoint.io import Source, checked_name, is_mapped, open_source, read
from wgtorch.core.checkpoint.manifest import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG_JSON,
    CONFIG_YAML,
    Manifest,
    StoredBlock,
    prove,
    read_manifest,
    stored_tensors_of,
)
from wgtorch.core.checkpoint.own_weights import OWN, parts_of
from wgtorch.core.checkpoint.refs import is_packaged, is_unchanged, load_checkpoint, read_ref_for, ref_of, resolve_checkpoint, where_it_lies
from wgtorch.core.checkpoint.shared_tensors import Ties, tie
from wgtorch.core.config.resolve import MAX_BYTES, holders, parse_config, read_config, refuse_refs, resolve_environment
from wgtorch.core.errors import CheckpointError, ConfigError, Finding, UnknownNameError, WgtorchError
from wgtorch.core.pool import Pool, identity, now_building
from wgtorch.core.registry import LevelRegistry
from wgtorch.core.tree import UniqueBlock, dotted, walk

YAML_VALUES = 40_000
"""Values that a config may hold as YAML; what is larger is saved as JSON."""
HAS_NO_MEMORY = "what lies on the meta device has no memory that could hold weights"


@dataclass(slots=True)
class _Weights:
    """What one block is to be given: tensors of its own, or those of a ref; and adapters."""

    entry: StoredBlock | None
    tensors: dict[str, Tensor] | None = None
    ref: str | None = None
    adapters: dict[str, tuple[dict[str, Any], dict[str, Tensor]]] = field(default_factory=dict)


def load_checkpoint_of(
    cls: type[Any],
    path: str | os.PathLike[str],
    *,
    config_path: str | os.PathLike[str] | None = None,
    part: str | None = None,
    pool: Pool | None = None,
    strict: bool = True,
    device: torch.device | str | None = None,
    verify: bool | None = None,
) -> Any:
    """Reads a block or level; see :meth:`wgtorch.core.block.Block.load_from_checkpoint`."""
    if device is None and torch.get_default_device().type != "cpu":  # within torch.device: what a constructor computes is there too
        device = torch.get_default_device()
        if device.type == "meta":
            raise CheckpointError(
                f"{path}: {HAS_NO_MEMORY}; load it outside of torch.device('meta'), or say device='meta' where the structure alone is meant"
            )
    with open_source(path) as source:
        manifest = read_manifest(source)
        if not strict:
            with _building(source):
                target = cls.from_saved_config(_config(source, manifest, config_path, verify), empty=False)
            load_weights(target, path, part=part, strict=False, verify=verify)
            tie(parts_of(target), _ties(manifest, ""), str(source.path))
            return target
        with _building(source):
            target = _build(cls, source, manifest, config_path, part, verify)
        prefix = dotted(part) if part else ""
        _give(target, source, manifest, prefix, pool or now_building().pool, device, verify)
        if not prefix:
            _read_extra(target, source, manifest, verify)
    return target


def load_weights(
    target: Any,
    path: str | os.PathLike[str],
    *,
    part: str | None = None,
    strict: bool = True,
    verify: bool | None = None,
) -> tuple[Finding, ...]:
    """Copies weights into what is there; see :meth:`wgtorch.core.block.Block.load_weights`."""
    with open_source(path) as source:
        manifest = read_manifest(source)
        entries = _entries(manifest, dotted(part) if part else "", source)
        parts = parts_of(target)
        findings: list[Finding] = []
        found: list[tuple[UniqueBlock, dict[str, Tensor]]] = []
        adapters: list[tuple[UniqueBlock, str, dict[str, Tensor]]] = []
        for name, one in parts.items():
            entry = _entry_for(one, entries)
            if entry is None:
                findings += [Finding(name, "its weights are missing")] if adapter_hook.hook.base_state(one.block) else []
                continue
            tensors = _tensors_of(source, entry, verify, one.block)
            if any(value.is_meta for value in adapter_hook.hook.base_state(one.block).values()):
                raise CheckpointError(f"{path}: {name}: {HAS_NO_MEMORY}; give it some (to_empty(device='cpu')), or load a new one")
            wrong = misfits(one.block, tensors, name)
            findings += wrong
            bad = {item.where for item in wrong}
            found.append((one, {key: value for key, value in tensors.items() if f"{name}.{key}" not in bad}))
            stored = {adapter: _adapter(source, entry, adapter, verify)[1] for adapter in entry.adapters}
            wrong = adapter_hook.hook.misfits(one.block, stored, name)
            findings += wrong
            bad = {item.where for item in wrong}
            adapters += [(one, adapter, state) for adapter, state in stored.items() if f"{name}: adapter {adapter!r}" not in bad]
        users = {user for one in parts.values() for user in one.users}
        findings += _without_place(entries, users)
        if strict and findings:
            raise misfit_error(str(path), findings)
        for one, tensors in found:
            copy_into(one.block, tensors)
        for one, adapter, state in adapters:
            adapter_hook.hook.copy_into(one.block, adapter, state)
    return tuple(findings)


def stored_adapters(path: str | os.PathLike[str]) -> list[tuple[str, str, dict[str, Any], dict[str, Tensor]]]:
    """Adapters that a checkpoint holds: (path of the block, name, config, tensors), as ``AdapterHook.attach`` takes them."""
    with open_source(path) as source:
        manifest = read_manifest(source)
        return [(entry.path, name, *_adapter(source, entry, name, None)) for entry in manifest.blocks.values() for name in entry.adapters]


# --- building ---------------------------------------------------------------------------------------------------------


def _build(
    cls: type[Any], source: Source, manifest: Manifest, config_path: str | os.PathLike[str] | None, part: str | None, verify: bool | None
) -> Any:
    """The structure with blocks that hold no memory yet."""
    config = _config(source, manifest, config_path, verify)
    if config_path is not None:
        return cls.from_saved_config(config, base=Path(config_path).parent, empty=True)
    base = source.path if source.path.is_dir() else None
    if part is None:
        return cls.from_saved_config(config, base=base, empty=True)
    if manifest.kind not in LevelRegistry:
        raise CheckpointError(f"{source.path}: holds a {manifest.kind!r}, which has no part {part!r}")
    whole = LevelRegistry.get(manifest.kind).from_saved_config(config, base=base, empty=True)
    try:
        found = whole.find(part.strip("/").replace(".", "/"))
    except (UnknownNameError, AttributeError) as error:
        raise CheckpointError(f"{source.path}: no part {part!r}: {error}") from error
    if not isinstance(found, cls):
        raise CheckpointError(f"{source.path}: {part!r} is a {type(found).__name__}; {cls.__name__} cannot load it")
    return found


@contextmanager
def _building(source: Source) -> Iterator[None]:
    """What a block's constructor says of values that it cannot take becomes an error of the config."""
    try:
        yield
    except WgtorchError:
        raise
    except Exception as error:
        raise ConfigError(f"{source.path}: its config cannot be built: {type(error).__name__}: {str(error)[:500]}") from error


def _config(source: Source, manifest: Manifest, config_path: str | os.PathLike[str] | None, verify: bool | None) -> dict[str, Any]:
    if config_path is not None:
        return read_config(config_path)
    name = manifest.config.file
    if name not in (CONFIG_YAML, CONFIG_JSON):
        raise CheckpointError(f"{source.path}: its config is {name!r}; expected {CONFIG_YAML} or {CONFIG_JSON}")
    prove(source, manifest.config, verify)
    raw = read(source, name, MAX_BYTES)
    try:
        config = parse_config(raw.decode("utf-8"), source.where(name), json_form=name == CONFIG_JSON, most_in_yaml=YAML_VALUES)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source.where(name)}: is no text: {error}") from error
    refuse_refs(config, source.where(name))
    moved = {ref: lies for ref, lies in map(_refound, manifest.blocks.values()) if lies != ref}
    for _, held in holders(config) if moved else ():
        ref = held.get("checkpoint_ref") if isinstance(held, dict) else None
        if isinstance(ref, str):
            held["checkpoint_ref"] = moved.get(ref, ref)
    return config


def _refound(entry: StoredBlock) -> tuple[str, str]:
    """An entry's ref, and where it lies now; that it lies nowhere is said when its weights are read."""
    ref = entry.ref or ""
    if not entry.outside:
        return ref, ref
    try:
        now = str(resolve_environment({"ref": ref}, entry.path)["ref"])
        lies = where_it_lies(now, entry.outside)
    except WgtorchError:
        return ref, ref
    return ref, ref if lies == now else lies


# --- giving weights ---------------------------------------------------------------------------------------------------


def _give(
    target: Any, source: Source, manifest: Manifest, prefix: str, pool: Pool | None, device: torch.device | str | None, verify: bool | None
) -> None:
    """Finds and checks the weights of all blocks, then sets them."""
    entries = _entries(manifest, prefix, source)
    parts = parts_of(target)
    findings: list[Finding] = []
    plan: list[tuple[UniqueBlock, _Weights]] = []
    for path, part in parts.items():
        entry = _entry_for(part, entries)
        weights = _weights(source, entry, part, verify)
        if weights is None:
            findings += (
                [Finding(path, "its weights are missing", mend="Save the level again.")] if adapter_hook.hook.base_state(part.block) else []
            )
            continue
        if weights.tensors is not None:
            findings += misfits(part.block, weights.tensors, path)
        plan.append((part, weights))
    users = {user for part in parts.values() for user in part.users}
    findings += _without_place(entries, users)
    if findings:
        raise misfit_error(str(source.path), findings)
    shared = pool or Pool()
    for part, weights in plan:
        _finalize(part, weights, shared if _may_share(part, weights, pool) else None, source, device)
    for path, child, level in walk(target, repeats=0):
        if level is not None:
            shared.note_place(level, path.rpartition("/")[2], child)
    tie(parts, _ties(manifest, prefix), str(source.path))


def _finalize(part: UniqueBlock, weights: _Weights, pool: Pool | None, source: Source, device: torch.device | str | None) -> None:
    """Fills a block, or puts the pool's instance of the same model in its place."""

    def fill() -> Any:
        _fill(part.block, weights, source, device)
        return part.block

    ref = str(weights.ref or source.where(part.path))
    block = fill() if pool is None else pool.get(_identity(part, weights, source, device), fill, ref=ref)
    if any(adapter_hook.hook.differs(block, name, tensors) for name, (_, tensors) in weights.adapters.items()):
        block = fill()  # one base cannot hold two adapters of one name
    for name, (config, tensors) in weights.adapters.items():
        if name not in adapter_hook.hook.names(block):
            adapter_hook.hook.attach(block, name, config, tensors, str(source.path))
    for level, node_id in part.holders:
        if block is not part.block:
            level.replace_child(node_id, block)


def _fill(block: Any, weights: _Weights, source: Source, device: torch.device | str | None) -> None:
    if weights.tensors is not None:
        tensors = weights.tensors if device is None else {name: tensor.to(device) for name, tensor in weights.tensors.items()}
        assign(block, tensors)
    elif weights.ref is not None:
        load_checkpoint(block, weights.ref)
    if device is not None:
        block.to(device)


def _may_share(part: UniqueBlock, weights: _Weights, pool: Pool | None) -> bool:
    """Refs are shared within a load as when building; stored weights only where the caller gave a pool."""
    if any(not level.node_specs[node_id].reuse for level, node_id in part.holders) or not part.holders:
        return False
    return weights.ref is not None or (pool is not None and weights.tensors is not None)


def _identity(part: UniqueBlock, weights: _Weights, source: Source, device: torch.device | str | None) -> str:
    block = part.block
    config = resolve_environment(dict(getattr(block, "_config", {})), part.path)
    if weights.ref is not None:
        more = (*(() if device is None else (str(device),)), *(() if is_mapped.get() else ("copied",)))
        return identity(block.block_type, type(block), {**config, "checkpoint_ref": weights.ref}, *more)
    assert weights.entry is not None
    hashes = [file.sha256 for file in (*weights.entry.files, *weights.entry.outside)]
    config = {name: value for name, value in config.items() if name != "checkpoint_ref"}
    return identity(block.block_type, type(block), config, str(source.path.resolve()), part.path, hashes, str(device), is_mapped.get())


def _weights(source: Source, entry: StoredBlock | None, part: UniqueBlock, verify: bool | None) -> _Weights | None:
    if entry is None:
        ref = ref_of(part.block)
        return None if ref is None else _Weights(None, ref=ref)
    adapters = {name: _adapter(source, entry, name, verify) for name in entry.adapters}
    if entry.ref is None:
        return _Weights(entry, _tensors_of(source, entry, verify, part.block) if entry.files else None, adapters=adapters)
    if ref_of(part.block) is None:  # a base that only the manifest names
        return _Weights(entry, _tensors_of(source, entry, verify, part.block), adapters=adapters)
    return _Weights(entry, ref=_outside(source, entry, part, verify), adapters=adapters)


def _tensors_of(source: Source, entry: StoredBlock, verify: bool | None, block: Any) -> dict[str, Tensor]:
    if entry.ref is not None:
        return read_ref_for(block, _outside(source, entry, None, verify))
    return stored_tensors_of(source, entry.files, verify)


def _outside(source: Source, entry: StoredBlock, part: UniqueBlock | None, verify: bool | None) -> str:
    """The ref of a block whose weights lie outside, once its files are known to be those of the save.

    The files are looked for where the ref points now, and else where they lay then.
    """
    ref = (ref_of(part.block) if part is not None else None) or entry.ref
    assert ref is not None
    ref = where_it_lies(ref, entry.outside)
    if entry.outside and not is_unchanged(ref, entry.outside, verify):
        mend = (
            "these weights come with wgtorch, and this version has others: load_from_checkpoint(..., verify=False) goes on with those"
            if is_packaged(ref)
            else "bring the old file back, or save with self_contained=True"
        )
        raise CheckpointError(
            f"{source.path}: {entry.path}: {', '.join(map(str, resolve_checkpoint(ref)))} changed since the checkpoint was saved; {mend}"
        )
    return ref


def _adapter(source: Source, entry: StoredBlock, name: str, verify: bool | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    checked_name(name, str(source.path))
    files = {file.file.rsplit("/", 1)[-1]: file for file in entry.adapters[name]}
    if set(files) != {ADAPTER_CONFIG, ADAPTER_WEIGHTS}:
        raise CheckpointError(
            f"{source.path}: adapter {name!r} of {entry.path} has files {sorted(files)}; expected {ADAPTER_CONFIG}, {ADAPTER_WEIGHTS}"
        )
    prove(source, files[ADAPTER_CONFIG], True)
    text = read(source, files[ADAPTER_CONFIG].file, 1 << 20).decode("utf-8", "replace")
    config = parse_config(text, source.where(files[ADAPTER_CONFIG].file), json_form=True)
    return config, stored_tensors_of(source, [files[ADAPTER_WEIGHTS]], verify is not False)


# --- which entry is whose ---------------------------------------------------------------------------------------------


def _entries(manifest: Manifest, prefix: str, source: Source) -> dict[str, StoredBlock]:
    """Entries by every path they are used at, relative to the part that is loaded."""
    found: dict[str, StoredBlock] = {}
    for entry in manifest.blocks.values():
        for user in {entry.path, *entry.users}:
            if not prefix:
                found[user] = entry
            elif user == prefix:
                found["block"] = entry
            elif user.startswith(f"{prefix}."):
                found[user.removeprefix(f"{prefix}.")] = entry
    if prefix and not found and manifest.blocks:
        raise CheckpointError(f"{source.path}: no weights under {prefix!r}; there are {sorted(manifest.blocks)[:8]}")
    return found


def _ties(manifest: Manifest, prefix: str) -> Ties:
    """Groups of tensors that are one, by paths relative to the part that is loaded."""
    if not prefix:
        return manifest.ties
    below = f"{prefix}."
    return tuple(tuple((path.removeprefix(below), name) for path, name in names if path.startswith(below)) for names in manifest.ties)


def _entry_for(part: UniqueBlock, entries: Mapping[str, StoredBlock]) -> StoredBlock | None:
    return next((entries[user] for user in part.users if user in entries), None)


def _without_place(entries: Mapping[str, StoredBlock], users: set[str]) -> list[Finding]:
    unused = {entry.path: entry for user, entry in entries.items() if user not in users}
    own = "tensors that a subclass of the level holds itself; load it by that class"
    return [Finding(path, own if path == OWN else "weights for a block that is not there") for path in unused]


def _read_extra(target: Any, source: Source, manifest: Manifest, verify: bool | None) -> None:
    """Hands what the level wrote beside to the level, proved."""
    known = {file.file for file in manifest.files()}
    for name in source.names():
        if "/" in name and name not in known:
            raise CheckpointError(f"{source.where(name)}: is not in the manifest, so nobody saved it here")
    for file in manifest.extra:
        prove(source, file, verify)
    if source.path.is_dir():
        target.read_extra(source.path)
        return
    if not manifest.extra:
        return
    with tempfile.TemporaryDirectory() as name:
        for file in manifest.extra:
            place = Path(name, checked_name(file.file, str(source.path)))
            place.parent.mkdir(parents=True, exist_ok=True)
            buffer, start, length = source.map(file.file) if file.bytes else (b"", 0, 0)
            place.write_bytes(memoryview(buffer)[start : start + length])
        target.read_extra(Path(name))
