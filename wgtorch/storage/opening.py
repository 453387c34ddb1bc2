"""The storage of a folder, an address or a zip."""

from __future__ import annotations

import os
from pathlib import Path

from wgtorch.core.errors import StorageError
from wgtorch.storage.base import register_storage
from wgtorch.storage.directory import DirectoryStorage
from wgtorch.storage.remote import RemoteStorage


@register_storage("directory")
def open_storage(
    state_dir: str | os.PathLike[str], *, naming_template: str = "{step:05d}", max_snapshots: int | None = None
) -> DirectoryStorage | RemoteStorage:
    """The storage in a folder, or at an address that fsspec knows (``memory://valley``, ``s3://bucket/valley``).

    A zip (``valley.zip``) is read.

    Args:
        state_dir, naming_template, max_snapshots: as in :class:`DirectoryStorage`; an address has no folders to be named.

    Raises:
        StorageError: an option does not fit, or nobody knows the address's scheme.
    """
    address = os.path.expanduser(os.fspath(state_dir))
    if not address.strip():
        raise StorageError(f"state_dir is {address!r}; expected a folder, as state_dir='runs/valley', or an address")
    scheme, found, rest = address.partition("://")
    if found and scheme in ("file", "local"):
        address, found = rest, ""
    if scheme == "zip" and found and "::" not in rest:
        address = rest
    if address.endswith(".zip") and (Path(address).is_file() or scheme == "zip"):
        if not Path(address).is_file():
            raise StorageError(f"{address}: there is no such zip; a storage in a zip is only read")
        address, found = f"zip://::{address}", "://"
    if found:
        return RemoteStorage(address, max_snapshots=max_snapshots)
    return DirectoryStorage(address, naming_template=naming_template, max_snapshots=max_snapshots)
