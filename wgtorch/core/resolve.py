"""Refs to other files and values from the environment, inside configs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wgtorch.core.errors import ConfigError
from wgtorch.core.kinds import describe

_MAX_DEPTH = 64


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a YAML or JSON file that holds a mapping; no tags, so nothing in it can name code.

    Raises:
        ConfigError: the file is not there, is not YAML, or holds something else than a mapping.
    """
    import yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a config: {error}") from error
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a valid config file: {error}") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: holds {describe(content)}; expected a mapping")
    return dict(content)


def resolve_refs(config: Any, base: str | os.PathLike[str] | None = None, *, root: Path | None = None) -> Any:
    """Puts the files that ``{"ref": "file.yaml"}`` names in place of the refs.

    Args:
        config: plain data.
        base: the folder that refs are relative to.
        root: the folder that no ref may leave; ``base`` by default.

    Raises:
        ConfigError: a ref names itself, leaves its folder, or cannot be read.
    """
    folder = Path(base or ".").resolve()
    return _resolve(config, folder, (root or folder).resolve(), (), "config")


def _resolve(value: Any, folder: Path, root: Path, stack: tuple[Path, ...], where: str, depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        raise ConfigError(f"{where}: nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        if set(value) == {"ref"} and isinstance(value["ref"], str):
            return _follow(value["ref"], folder, root, stack, where, depth)
        return {key: _resolve(item, folder, root, stack, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolve(item, folder, root, stack, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    return value


def _follow(ref: str, folder: Path, root: Path, stack: tuple[Path, ...], where: str, depth: int) -> Any:
    path = (folder / ref).resolve()
    if not path.is_relative_to(root):
        raise ConfigError(f"{where}: ref {ref!r} leaves the folder of the config; put the file inside it")
    if path in stack:
        circle = " -> ".join(entry.name for entry in (*stack[stack.index(path) :], path))
        raise ConfigError(f"{where}: refs go in a circle: {circle}")
    return _resolve(read_config(path), path.parent, root, (*stack, path), where, depth + 1)


def resolve_environment(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Puts values of the environment in place of ``${oc.env:NAME}``.

    Raises:
        ConfigError: the variable is not set, or the interpolation is of another sort.
    """
    if not _mentions(config, "${"):
        return config
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        resolved = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}; only ${{oc.env:NAME}} is resolved here, and NAME must be set") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _mentions(value: Any, mark: str) -> bool:
    if isinstance(value, str):
        return mark in value
    if isinstance(value, Mapping):
        return any(_mentions(item, mark) for item in value.values())
    return isinstance(value, (list, tuple)) and any(_mentions(item, mark) for item in value)
