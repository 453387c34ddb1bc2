"""What a command's first argument names: a template, a config file or a saved folder."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from wgtorch.core.checkpoint.io import MANIFEST, open_source
from wgtorch.core.checkpoint.manifest import read_manifest
from wgtorch.core.config.resolve import read_config
from wgtorch.core.config.serialization import LevelRegistry
from wgtorch.core.config.template import TemplateRegistry, build_template
from wgtorch.core.errors import CheckpointError, ConfigError, UnknownNameError, WgtorchError, suggest
from wgtorch.core.json_text import DuplicateKeyError, loads
from wgtorch.core.level import Level
from wgtorch.core.trust import Trust, from_file

_ORDER = ("world", "graph", "pipeline", "stage")
"""Where a template's bare name is looked for."""


class CommandError(WgtorchError, ValueError):
    """The options of a command do not go together."""


def open_level(target: str, params: Mapping[str, Any] | None = None, *, trust: Trust | None = None) -> Level:
    """The level that a command is about.

    Args:
        target: a template's name, bare or as ``graph/text_to_image``, a YAML or JSON config, or a folder written by ``save``.
        params: parameters of the template.
        trust: what a file may do beyond being data.

    Raises:
        UnknownNameError: there is nothing of that name.
        ConfigError, CheckpointError: it does not describe a level.
        CommandError: parameters for something that is no template.
    """
    key = template_key(target)
    path = Path(target)
    if key is None and not path.exists():
        known = dict.fromkeys(name if "/" in target else name.split("/", 1)[-1] for name in TemplateRegistry.names())
        near = suggest(target, known)
        raise UnknownNameError(
            f"there is no template and no file {target!r}; {near}{'' if near.endswith('?') else '.'} See: wgtorch templates"
        )
    if key is None and params:
        raise CommandError(f"{target}: is no template, so it has no parameter {next(iter(params))!r}; change the config itself")
    try:
        if key is not None:
            level, name = key.split("/", 1)
            return build_template(level, name, params or {})
        with from_file(path, trust):
            if path.is_dir() or zipfile.is_zipfile(path):
                return _saved(path)
            return level_from(read_config(path), base=path.parent, where=str(path))
    except WgtorchError:
        raise
    except ValueError as error:  # what a block's constructor says of a value it cannot take
        raise ConfigError(f"{target}: {error}") from error


def name_of(target: str) -> str:
    """What people call a target: the template's name, or that of the folder or file."""
    key, path = template_key(target), Path(target).resolve()
    return key.split("/", 1)[1] if key is not None else path.name if path.is_dir() else path.stem


def template_key(name: str) -> str | None:
    """The full name of a template that is named bare or in full (``graph/text_to_image``); None where there is none."""
    return next((key for key in (name, *(f"{level}/{name}" for level in _ORDER)) if key in TemplateRegistry), None)


def level_from(config: Mapping[str, Any], *, base: str | Path | None = None, where: str = "config") -> Level:
    """The level that a config describes: a canonical config, or ``{"template": name, "params": {...}}``.

    A config names a template of a world, unless ``level`` says otherwise.

    Raises:
        ConfigError: it is neither.
    """
    if "template" in config:
        unknown = [name for name in config if name not in ("template", "level", "params")]
        if unknown:
            raise ConfigError(f"{where}: unknown key {unknown[0]!r} beside 'template'; {suggest(unknown[0], ('level', 'params'))}")
        return build_template(config.get("level", "world"), config["template"], config.get("params") or {})
    if config.get("kind") not in LevelRegistry.names():
        raise ConfigError(f"{where}: kind is {config.get('kind')!r}; expected one of {LevelRegistry.names()}, or a 'template'")
    return LevelRegistry.get(config["kind"]).from_config(config, base=base)


def ports_of(level: Level) -> str:
    """The inputs, those that have to be given with a star, and the outputs, a line each."""
    inputs = [f"{name}*" if not port.optional else name for name, port in level.get_input_spec().items()]
    has_star = any(name.endswith("*") for name in inputs)
    return f"inputs: {', '.join(inputs) or 'none'}{'  (* has to be given)' * has_star}\noutputs: {', '.join(level.get_output_spec())}"


def trust_in(allowed: Iterable[str]) -> Trust:
    """What ``--trust`` allows: addresses, and names of variables of the environment."""
    addresses = [entry for entry in allowed if "://" in entry]
    return Trust(tuple(entry for entry in allowed if entry not in addresses), tuple(addresses))


def values(pairs: Iterable[tuple[str, str]], *, texts: Collection[str] = ()) -> dict[str, Any]:
    """Values by name, each read as JSON where it is JSON (``8``, ``true``, ``[1, 2]``), else as text; those of ``texts`` as they are.

    Raises:
        CommandError: a name, or a key of a mapping, is there twice.
    """
    found: dict[str, Any] = {}
    for name, text in pairs:
        if name in found:
            raise CommandError(f"{name}={text}: {name} is given twice; say it once")
        found[name] = text if name in texts else _value(name, text)
    return found


def _value(name: str, text: str) -> Any:
    try:
        return loads(text)
    except DuplicateKeyError as error:
        raise CommandError(f"{name}={text}: {error}") from error
    except ValueError:
        return text


def _saved(path: Path) -> Level:
    if (path / "episodes.json").is_file() and not (path / MANIFEST).exists():
        raise CheckpointError(
            f"{path}: is the folder of an earlier run, and does not say what ran. To go on name what did, with --out {path} --resume; "
            f"to look at it: wgtorch report {path}"
        )
    with open_source(path) as source:
        kind = read_manifest(source).kind
    if kind not in LevelRegistry:
        raise CheckpointError(f"{path}: holds a {kind}; expected one of {LevelRegistry.names()}")
    return LevelRegistry.get(kind).load_from_checkpoint(path)
