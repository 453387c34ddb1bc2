"""Which code is a package's, told apart by its version, and which is the user's own, told apart by what it says."""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
from pathlib import Path

_INSTALLED = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib"))


@functools.cache
def is_installed(module: str) -> bool:
    """True for code that is told apart by the version of its package."""
    root = module.partition(".")[0]
    if root in sys.builtin_module_names:
        return True
    found = sys.modules.get(root)
    file = getattr(found, "__file__", None)
    return root == "wgtorch" or (file is not None and file.startswith(_INSTALLED))


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
