"""Config files, refs to other files and values from the environment inside them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from wgtorch.core.config.yaml_text import MAX_DEPTH, MAX_VALUES, parse_yaml, write_yaml
from wgtorch.core.errors import ConfigError
from wgtorch.core.json_text import count_values, loads
from wgtorch.core.kinds import describe
from wgtorch.core.limits import check_limit
from wgtorch.core.trust import check_read

MAX_BYTES = 64 << 20
"""The largest config file that is read."""
_MAX_RESOLVED = 2_000_000  # values of a config once its refs are followed
_HOLDERS = (dict, list, tuple, Mapping)
_ONLY = r"only ${oc.env:NAME} is resolved here, and NAME must be set; a text that holds ${ itself has \${ in a config"
_OPENS = re.compile(r"(\\*)\$\{")


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
            check_limit(path.stat().st_size, MAX_BYTES, "{} bytes", str(path), ConfigError)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # no UTF-8, or a name with a NUL
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be read as a config: {error}") from error
    return parse_config(text, str(path), json_form=path.suffix == ".json")


def parse_config(text: str, where: str, *, json_form: bool = False, most_in_yaml: int | None = None) -> dict[str, Any]:
    """The mapping that a text of YAML or JSON holds; ``most_in_yaml`` is how many values it may hold as YAML.

    Raises:
        ConfigError: it holds something else, or nests deeper or grows larger than a config may.
    """
    if json_form:
        check_limit(count_values(text), MAX_VALUES, "holds {} values", where, ConfigError)
    try:
        content = loads(text) if json_form else parse_yaml(text, most_in_yaml)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{where}: not a valid config file: {reason}") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: holds {describe(content)}; expected a mapping")
    return dict(content)


def dump_config(config: Mapping[str, Any], *, json_form: bool = False) -> str:
    """A config as YAML or JSON text.

    Raises:
        ConfigError: it nests deeper than is read again.
    """
    nesting(config)
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n" if json_form else write_yaml(config)


_Path = tuple[Any, ...]  # (path of what holds it, key or index); written out only for messages


def path_text(path: _Path, root: str = "config") -> str:
    """A place in a config: ``config.nodes[0].config``."""
    text = ""
    while path:
        path, part = path
        text = f"[{part}]{text}" if isinstance(part, int) else f".{part}{text}"
    return f"{root}{text}"


def holders(value: Any) -> Iterator[tuple[_Path, Any]]:
    """Mappings and lists in plain data, with their places, from the outside in.

    Raises:
        ConfigError: they lie deeper in each other than a config may nest.
    """
    stack: list[tuple[_Path, Any, int]] = [((), value, 0)]
    while stack:
        path, value, depth = stack.pop()
        check_depth(depth, path)
        yield path, value
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        stack += reversed([((path, key), item, depth + 1) for key, item in items if isinstance(item, _HOLDERS)])


def _items(held: Any) -> Any:
    return held.values() if isinstance(held, Mapping) else held


def nesting(value: Any) -> int:
    """How deep mappings and lists lie in each other.

    Raises:
        ConfigError: deeper than a config may nest.
    """
    depth, layer = 0, [value]
    while layer := [item for held in layer for item in _items(held) if isinstance(item, _HOLDERS)]:
        depth += 1
        check_depth(depth, ())
    return depth


def check_depth(depth: int, path: _Path) -> None:
    """Refuses what lies deeper than a config may nest.

    Raises:
        ConfigError: it does.
    """
    if depth > MAX_DEPTH:
        check_limit(depth, MAX_DEPTH, "nested {} deep", path_text(path), ConfigError)


@dataclass(slots=True)
class _Open:
    """A value that is to be put where it belongs, once refs in it are followed."""

    into: Any
    key: Any
    value: Any
    path: _Path
    depth: int
    folder: Path
    files: tuple[Path, ...] = ()


def resolve_refs(config: Any, base: str | os.PathLike[str] | None = None, *, read: dict[int, str] | None = None) -> Any:
    """Puts the files that ``{"ref": "file.yaml"}`` names in place of the refs.

    Args:
        config: plain data.
        base: the folder that refs are relative to, and may not leave.
        read: is told the file of every mapping that a ref brought, by the mapping's ``id``.

    Raises:
        ConfigError: a ref names itself, leaves its folder, or cannot be read.
    """
    folder = Path(base or ".")
    whole = [config]
    stack = [_Open(whole, 0, config, (), 0, folder)]
    count = 0
    while stack:
        here = stack.pop()
        check_depth(here.depth, here.path)
        value, brought = here.value, None
        while isinstance(value, Mapping) and set(value) == {"ref"} and isinstance(value["ref"], str):
            file = _ref_file(value["ref"], here, folder)
            value, here.folder, here.files = read_config(file), file.parent, (*here.files, file)
            brought = brought or str(file)
        if not isinstance(value, _HOLDERS):
            continue
        count += 1 + len(value)  # refs followed, and aliases counted at every place
        if count > _MAX_RESOLVED:
            check_limit(count, _MAX_RESOLVED, "{} values, refs and aliases counted wherever they stand", path_text(here.path), ConfigError)
        made: Any = dict(value) if isinstance(value, Mapping) else list(value)
        here.into[here.key] = made
        if brought is not None and read is not None:
            read[id(made)] = brought
        items = made.items() if isinstance(made, dict) else enumerate(made)
        stack += reversed(
            [
                _Open(made, key, item, (here.path, key), here.depth + 1, here.folder, here.files)
                for key, item in items
                if isinstance(item, _HOLDERS)
            ]
        )
    return whole[0]


def _ref_file(ref: str, here: _Open, root: Path) -> Path:
    where = path_text(here.path)
    try:
        path = (here.folder / ref).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{where}: ref {ref[:200]!r} is no path: {error}") from error
    if not path.is_relative_to(root.resolve()):
        raise ConfigError(f"{where}: ref {ref!r} leaves the folder of the config; put the file inside it")
    if path in here.files:
        circle = " -> ".join(entry.name for entry in (*here.files[here.files.index(path) :], path))
        raise ConfigError(f"{where}: refs go in a circle: {circle}")
    return path


def resolve_environment(config: dict[str, Any], where: str) -> dict[str, Any]:
    """Puts values of the environment in place of ``${oc.env:NAME}`` and ``${oc.env:NAME,default}``.

    No other resolver is called, whoever registered it, nor one of that name.

    Raises:
        ConfigError: the variable is not set, a file may not read it, or the interpolation is of another sort.
    """
    if not any(isinstance(item, str) and "${" in item for _, held in holders(config) for item in _items(held)):
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


def escaped(value: Any) -> Any:
    """Plain data whose texts :func:`resolve_environment` gives back as they are: ``${name}`` of a template is ``\\${name}`` in a config."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    if not isinstance(value, str) or "${" not in value or "${oc.env:" in value:
        return value
    return _OPENS.sub(lambda found: found[1] * 2 + r"\${", value)


def refuse_refs(config: Any, where: str) -> None:
    """Refuses the config of a checkpoint that names other files: a saved one is whole.

    Raises:
        ConfigError: with the place and the file's name.
    """
    for path, held in holders(config):
        if isinstance(held, dict) and set(held) == {"ref"} and isinstance(held["ref"], str):
            raise ConfigError(
                f"{path_text(path, where)}: names another file, {held['ref'][:80]!r}; the config of a checkpoint holds everything itself"
            )
