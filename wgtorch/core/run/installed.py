"""Which code is a package's, told apart by its version, and which is the user's own, told apart by what it says."""

from __future__ import annotations

import functools
import gc
import hashlib
import sys
import sysconfig
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

_INSTALLED = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib"))


@functools.cache
def is_installed(module: str) -> bool:
    """True for code that is told apart by the version of its package."""
    root = module.partition(".")[0]
    if root in sys.builtin_module_names:
        return True
    file = file_of(sys.modules.get(root))
    return root == "wgtorch" or (file is not None and file.startswith(_INSTALLED))


def file_of(module: Any) -> str | None:
    """Where a module comes from; one that is loaded when something of it is asked for is not loaded for this."""
    file = entries_of(module).get("__file__")
    if file is None and not issubclass(type(module), types.ModuleType):
        with suppress(Exception):  # whatever an object raises that somebody put in a module's place
            file = module.__file__
    return file if isinstance(file, str) else None


def entries_of(value: Any) -> dict[str, Any]:
    """What a module, an object or a class holds, whatever its class does when it is asked."""
    if issubclass(type(value), type):
        return gc.get_referents(_DICT_OF_CLASS(value))[0]
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:  # it has none
        return {}


def module_of(kind: type) -> Any:
    """The name of a class's module, whatever its metaclass does when it is asked."""
    return type.__dict__["__module__"].__get__(kind)


_DICT_OF_CLASS = type.__dict__["__dict__"].__get__


@functools.cache
def version_of(package: str) -> str:
    """The version of an installed package; of this one, what its files hold."""
    from importlib.metadata import PackageNotFoundError, version

    if package == "wgtorch":  # it may be a checkout that changes under the same version
        root = Path(sys.modules["wgtorch"].__file__ or "").parent
        return hashlib.sha256(b"\0".join([file.read_bytes() for file in sorted(root.rglob("*.py"))])).hexdigest()
    try:
        return version(package)
    except PackageNotFoundError:
        return sys.version
