"""Code that a training's composed config names: modules to import, and classes by their dotted path.

Only what a person composed on the command line may do so. A level's config, and whatever a checkpoint holds, names registered types
alone; see :mod:`wgtorch.core.registry`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wgtorch.core.errors import ConfigError, WgtorchError, require, suggest

_BUILT = ("data", "objective")
_TARGET = "_target_"


def import_modules(names: Any, near: Iterable[Path]) -> None:
    """Imports modules, which register what they have.

    Args:
        names: dotted names, as ``my_package.data``.
        near: folders in which they are looked for beside those of Python.

    Raises:
        ConfigError: one cannot be imported.
    """
    wanted = [names] if isinstance(names, str) else names or []
    if not isinstance(wanted, (list, tuple)) or not all(isinstance(name, str) for name in wanted):
        raise ConfigError(f"imports: found {names!r}; expected names of modules, as [my_package.data]")
    for folder in near if wanted else ():
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    for name in wanted:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise ConfigError(
                    f"imports: there is no module {name!r}; expected one that is installed, or lies in {' or '.join(map(str, near))}"
                ) from error
            raise


def with_own_code(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A training's settings with objects in place of what names code: ``_target_``, and ``type`` with a dotted path.

    Where both are given ``_target_`` counts.

    Args:
        config: the composed config.
        folder: of the run: the ``save_dir`` of loggers that want one and say none.

    Raises:
        ConfigError: a path leads to nothing, or the arguments do not fit.
    """
    found = dict(config)
    for key in _BUILT:
        found[key] = _built(found.get(key), key)
    for key in ("callbacks", "logger"):
        if found.get(key):
            found[key] = [_built(each, where, folder) for where, each in _several(found[key], key)]
    trainer = found.get("trainer")
    if isinstance(trainer, Mapping) and isinstance(trainer.get("strategy"), Mapping):
        found["trainer"] = {**trainer, "strategy": _built(trainer["strategy"], "trainer.strategy")}
    optimizer = found.get("optimizer")
    if isinstance(optimizer, Mapping):
        optimizer = _typed(optimizer, "optimizer")
        if isinstance(optimizer.get("schedule"), Mapping):
            optimizer["schedule"] = _typed(optimizer["schedule"], "optimizer.schedule")
        nodes = optimizer.get("nodes") or {}
        if not isinstance(nodes, Mapping):
            raise ConfigError(f"optimizer.nodes: found {nodes!r}; expected settings by pattern, as {{'*backbone': {{'lr': 1e-5}}}}")
        optimizer["nodes"] = {
            pattern: {**own, "schedule": _typed(own["schedule"], f"optimizer.nodes[{pattern!r}].schedule")}
            if isinstance(own, Mapping) and isinstance(own.get("schedule"), Mapping)
            else own
            for pattern, own in nodes.items()
        }
        found["optimizer"] = optimizer
    return found


def located(path: str, where: str) -> Any:
    """The class or function at a dotted path.

    Raises:
        ConfigError: there is nothing there; names what there is.
    """
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{where}: {path!r}: there is no module {error.name!r}") from error
    if not hasattr(module, name):
        raise ConfigError(f"{where}: {module_name} has no {name!r}; {suggest(name, [each for each in dir(module) if each[0] != '_'])}")
    return getattr(module, name)


# --- private steps ----------------------------------------------------------------------------------------------------


def _built(settings: Any, where: str, folder: Path | None = None) -> Any:
    """An object for settings that name code; other settings as they are."""
    if not isinstance(settings, Mapping) or (_TARGET not in settings and "." not in str(settings.get("type", ""))):
        return settings
    arguments = {key: value for key, value in settings.items() if key not in (_TARGET, "type")}
    path = str(settings.get(_TARGET) or settings["type"])
    called = located(path, where)
    if folder is not None and "save_dir" in _parameters(called):
        arguments.setdefault("save_dir", str(folder))
    hydra: Any = require("hydra.utils", "train")
    try:
        return hydra.instantiate({_TARGET: path, **arguments}, _convert_="all")
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, WgtorchError):
            raise cause from None
        raise ConfigError(f"{where} ({path}): {cause}") from error


def _parameters(called: Any) -> Iterable[str]:
    try:
        return inspect.signature(called).parameters
    except (TypeError, ValueError):
        return ()


def _several(settings: Any, where: str) -> list[tuple[str, Any]]:
    """One setting, or a list or mapping of several, each with where it stands."""
    if isinstance(settings, (list, tuple)):
        return [(f"{where}[{index}]", each) for index, each in enumerate(settings)]
    if isinstance(settings, Mapping) and _TARGET not in settings and "type" not in settings:
        if any(not isinstance(each, Mapping) for each in settings.values()):
            raise ConfigError(f"{where}: found {sorted(settings)}; expected _target_ with arguments, or several of these")
        return [(f"{where}.{name}", each) for name, each in settings.items()]
    return [(where, settings)]


def _typed(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings whose type is called with more than they say: the type itself in place of its path."""
    found = dict(settings)
    path = found.pop(_TARGET, None) or found.get("type")
    if isinstance(path, str) and "." in path:
        found["type"] = located(path, where)
    return found
