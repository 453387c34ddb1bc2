"""Levels on disk: config, weights of each unique block, and a manifest.

dir/
  config.yaml              structure
  blocks/<path>.safetensors    weights of one unique block, under the first path it stands at
  manifest.json            format, versions, and for each file its hash, size and the places that use it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wgtorch.core.building import dump_config
from wgtorch.core.errors import CheckpointError, Finding, ValidationError
from wgtorch.core.resolve import read_config

FORMAT_VERSION = "1.0"


def save(level: Any, directory: str | os.PathLike[str]) -> Path:
    """Writes a level; see :meth:`wgtorch.core.level.Level.save`."""
    config = dump_config(level.to_config())

    def fill(folder: Path) -> None:
        (folder / "config.yaml").write_text(config, encoding="utf-8")
        manifest = {
            "format_version": FORMAT_VERSION,
            "kind": level.level,
            "torch": torch.__version__,
            "blocks": _write_blocks(level, folder),
        }
        level.write_extra(folder)
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")

    return write_folder(directory, fill)


def load(cls: type[Any], directory: str | os.PathLike[str]) -> Any:
    """Reads a level; see :meth:`wgtorch.core.level.Level.load`."""
    folder = Path(directory)
    manifest = _read_manifest(folder)
    level = cls.from_config(read_config(folder / "config.yaml"), base=folder)
    _read_blocks(level, folder, manifest)
    level.read_extra(folder)
    return level


def write_folder(directory: str | os.PathLike[str], fill: Callable[[Path], None]) -> Path:
    """Fills a new folder and puts it in place of the old one only when it is whole and on disk."""
    target = Path(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent))
    try:
        fill(fresh)
        for path in (*(path for path in fresh.rglob("*") if path.is_file()), fresh):
            sync(path)
        if target.exists():
            old = fresh.with_suffix(".old")
            target.rename(old)
            try:
                fresh.rename(target)
            except BaseException:
                old.rename(target)
                raise
            shutil.rmtree(old)
        else:
            fresh.rename(target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return target


def sync(path: Path) -> None:
    """Has a file or folder on disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unique_blocks(level: Any) -> dict[str, tuple[nn.Module, list[str]]]:
    """Leaf blocks by the first path they stand at, each with all its paths."""
    found: dict[int, tuple[nn.Module, list[str]]] = {}

    def walk(node: Any, prefix: str) -> None:
        for node_id, child in node.nodes.items():
            path = f"{prefix}{node_id}"
            if hasattr(child, "nodes"):
                walk(child, f"{path}.")
            else:
                found.setdefault(id(child), (child, []))[1].append(path)

    walk(level, "")
    return {paths[0]: (child, paths) for child, paths in found.values()}


def _write_blocks(level: Any, folder: Path) -> dict[str, Any]:
    from safetensors.torch import save_model

    entries: dict[str, Any] = {}
    for path, (block, users) in unique_blocks(level).items():
        if not block.state_dict():
            continue
        name = f"blocks/{path}.safetensors"
        (folder / "blocks").mkdir(exist_ok=True)
        save_model(block, str(folder / name))
        entries[path] = {"file": name, "users": users, "bytes": (folder / name).stat().st_size, "sha256": _hash(folder / name)}
    return entries


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: no manifest.json, so this is no saved level; expected a folder written by save()")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not readable: {error}") from error
    if manifest.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format_version {manifest.get('format_version')!r}; this version reads {FORMAT_VERSION!r}")
    return manifest


def _read_blocks(level: Any, folder: Path, manifest: dict[str, Any]) -> None:
    """Checks every file and every tensor's name and shape before the first weight is set."""
    from safetensors.torch import load_file, load_model

    blocks = {path: block for path, (block, _) in unique_blocks(level).items() if block.state_dict()}
    findings = [
        Finding(path, "its weights are missing", mend="Save the level again.") for path in blocks.keys() - manifest["blocks"].keys()
    ]
    findings += [Finding(path, "weights for a block that is not there") for path in manifest["blocks"].keys() - blocks.keys()]
    for path in blocks.keys() & manifest["blocks"].keys():
        file = folder / manifest["blocks"][path]["file"]
        if not file.resolve().is_relative_to(folder.resolve()):
            findings.append(Finding(path, f"file {manifest['blocks'][path]['file']!r} leaves the folder"))
        elif not file.is_file() or _hash(file) != manifest["blocks"][path]["sha256"]:
            findings.append(Finding(path, f"{file.name} is missing or not the file that was saved (its hash differs)"))
        else:
            have = {name: tuple(tensor.shape) for name, tensor in blocks[path].state_dict().items()}
            for name, tensor in load_file(file).items():
                if have.get(name) != tuple(tensor.shape):
                    findings.append(
                        Finding(
                            f"{path}.{name}", f"shape {list(tensor.shape)}", f"{list(have[name]) if name in have else 'no such tensor'}"
                        )
                    )
    if findings:
        raise CheckpointError(str(ValidationError(str(folder), findings)))
    for path, block in blocks.items():
        load_model(block, str(folder / manifest["blocks"][path]["file"]))


def _hash(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
