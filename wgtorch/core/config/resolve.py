"""Config files, refs to other files and values from the environment inside them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from wgtorch.core.config.yaml_text import MAX_DEPTH, parse_yaml
from wgtorch.core.errors import ConfigError
from wgtorch.core.kinds import describe
from wgtorch.core.trust import check_read

MAX_BYTES = 64 << 20
"""The largest config file that is read."""
MAX_NODES = 8_000
"""Nodes that one config may hold."""
MAX_VALUES = 500_000
"""Values that a JSON config may hold."""
_HOLDERS = (dict, list, tuple, Mapping)
_ONLY = "only ${oc.env:NAME} is resolved here, and NAME must be set"


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a YAML or JSON file that holds a mapping; no tags, so nothing in it can name code.

    Raises:
        ConfigError: the file is not there, is neither YAML nor JSON, is too large, or holds something else than a mapping.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: is no file; expected a YAML or JSON file")
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes; expected at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a config: {error}") from error
    return parse_config(text, str(path), json_form=path.suffix == ".json")


def parse_config(text: str, where: str, *, json_form: bool = False) -> dict[str, Any]:
    """The mapping that a text of YAML or JSON holds.

    Raises:
        ConfigError: it holds something else, or nests deeper or grows larger than a config may.
    """
    if json_form and count_values(text) > MAX_VALUES:
        raise ConfigError(f"{where}: holds more than {MAX_VALUES} values, which no config needs")
    try:
        content = json.loads(text) if json_form else parse_yaml(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{where}: not a valid config file: {reason}") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: holds {describe(content)}; expected a mapping")
    return dict(content)


def count_values(text: str | bytes) -> int:
    """At most so many values a JSON text holds; counted before any is made, since a few bytes give an object of a hundred."""
    marks: tuple[Any, ...] = (b"[", b"{", b",") if isinstance(text, bytes) else ("[", "{", ",")
    return 1 + sum(text.count(mark) for mark in marks)


def dump_config(config: Mapping[str, Any], *, json_form: bool = False) -> str:
    """A config as YAML or JSON text."""
    import yaml

    if json_form:
        return json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(dict(config), Dumper=dumper, sort_keys=False, allow_unicode=True, width=120)


class _Budget:
    """Values that one config may still hold, refs followed and aliases counted at every place."""

    def __init__(self, read: dict[int, str]) -> None:
        self.values = 2_000_000
        self.nodes = MAX_NODES
        self.read = read

    def spend(self, value: Mapping[str, Any] | list | tuple, where: str) -> None:
        self.values -= 1 + len(value)
        if "node_id" in value:
            self.nodes -= 1
        if self.nodes < 0:
            raise ConfigError(f"{where}: the config holds more than {MAX_NODES} nodes")
        if self.values < 0:
            raise ConfigError(f"{where}: the config holds more values than can be meant; is something repeated without end?")


def resolve_refs(
    config: Any, base: str | os.PathLike[str] | None = None, *, root: Path | None = None, read: dict[int, str] | None = None
) -> Any:
    """Puts the files that ``{"ref": "file.yaml"}`` names in place of the refs.

    Args:
        config: plain data.
        base: the folder that refs are relative to.
        root: the folder that no ref may leave; ``base`` by default.
        read: is told the file of every mapping that a ref brought, by the mapping's ``id``.

    Raises:
        ConfigError: a ref names itself, leaves its folder, or cannot be read.
    """
    folder = Path(base or ".")
    return _resolve(config, folder, root or folder, (), "config", 0, _Budget({} if read is None else read))


def _resolve(value: Any, folder: Path, root: Path, stack: tuple[Path, ...], where: str, depth: int, budget: _Budget) -> Any:
    if depth > MAX_DEPTH:
        raise ConfigError(f"{where[:200]}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        budget.spend(value, where)
        if set(value) == {"ref"} and isinstance(value["ref"], str):
            return _follow(value["ref"], folder, root, stack, where, depth, budget)
        return {
            key: _resolve(item, folder, root, stack, f"{where}.{key}", depth + 1, budget) if isinstance(item, _HOLDERS) else item
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        budget.spend(value, where)
        return [
            _resolve(item, folder, root, stack, f"{where}[{index}]", depth + 1, budget) if isinstance(item, _HOLDERS) else item
            for index, item in enumerate(value)
        ]
    return value


def _follow(ref: str, folder: Path, root: Path, stack: tuple[Path, ...], where: str, depth: int, budget: _Budget) -> Any:
    try:
        path = (folder / ref).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{where}: ref {ref[:200]!r} is no path: {error}") from error
    if not path.is_relative_to(root.resolve()):
        raise ConfigError(f"{where}: ref {ref!r} leaves the folder of the config; put the file inside it")
    if path in stack:
        circle = " -> ".join(entry.name for entry in (*stack[stack.index(path) :], path))
        raise ConfigError(f"{where}: refs go in a circle: {circle}")
    brought = _resolve(read_config(path), path.parent, root, (*stack, path), where, depth + 1, budget)
    budget.read[id(brought)] = str(path)
    return brought


def resolve_environment(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Puts values of the environment in place of ``${oc.env:NAME}`` and ``${oc.env:NAME,default}``.

    No other resolver is called, whoever registered it, nor one of that name.

    Raises:
        ConfigError: the variable is not set, a file may not read it, or the interpolation is of another sort.
    """
    if not _mentions(config, "${"):
        return config
    return {str(key): _interpolated(value, f"{where}: {key}") for key, value in config.items()}


def _interpolated(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _interpolated(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_interpolated(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    from omegaconf.errors import OmegaConfBaseException
    from omegaconf.grammar_parser import parse
    from omegaconf.grammar_visitor import GrammarVisitor

    def refuse(key: str, memo: object = None) -> NoReturn:
        raise ConfigError(f"{where}: ${{{key}}} is not resolved; {_ONLY}")

    def environment(name: str, args: tuple[Any, ...], args_str: tuple[str, ...]) -> str | None:
        if name != "oc.env" or len(args) not in (1, 2) or not isinstance(args[0], str):
            refuse(f"{name}:{','.join(args_str)}"[:200])
        variable, *default = args
        check_read(variable, where)
        if variable in os.environ:
            return os.environ[variable]
        if not default:
            raise ConfigError(f"{where}: environment variable {variable!r} not found; {_ONLY}")
        return None if default[0] is None else str(default[0])

    visitor = GrammarVisitor(node_interpolation_callback=refuse, resolver_interpolation_callback=environment, memo=set())
    try:
        return visitor.visit(parse(value))
    except ConfigError:
        raise
    except (OmegaConfBaseException, RecursionError, TypeError, ValueError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error).split("\n", 1)[0][:500]
        raise ConfigError(f"{where}: {reason}; {_ONLY}") from error


def _mentions(value: Any, mark: str) -> bool:
    if isinstance(value, str):
        return mark in value
    if isinstance(value, Mapping):
        return any(_mentions(item, mark) for item in value.values())
    return isinstance(value, (list, tuple)) and any(_mentions(item, mark) for item in value)
