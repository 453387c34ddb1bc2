"""Results of nodes in a folder: one file each, written whole, shared by any number of processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from torch import Tensor

from wgtorch.core.encoding import decode, encode, laid_out, layout_of
from wgtorch.core.errors import StorageError
from wgtorch.core.json_text import read_json
from wgtorch.core.run.content_digest import bytes_of
from wgtorch.core.system_files import is_of_system

_SUFFIX = ".result"
_EVERY = 32  # writes between looks at how large the folder has become


class CacheFolder:
    """Files by key, the least recently used of which go when they are more than a budget.

    A file is put in place by a rename, so that who reads sees all of it or none, and it says what its content's digest is: what a crash
    has torn is no result. Two processes may write the same key; both write the same.

    Args:
        directory: is made if it is not there.
        max_bytes: of all files together; None keeps all.
    """

    def __init__(self, directory: str | os.PathLike[str], max_bytes: int | None) -> None:
        self.path = Path(directory).expanduser()
        self.max_bytes = max_bytes
        self._writes = 0
        self.path.mkdir(parents=True, exist_ok=True)
        if any(entry.suffix not in (_SUFFIX, ".json", ".new") and not is_of_system(entry.name) for entry in self.path.iterdir()):
            raise StorageError(f"{self.path}: holds other files than a cache's; choose a folder of its own")

    def read(self, key: str) -> tuple[Any, bool] | None:
        """A value, and whether it depends on draws; None where there is none that is whole."""
        from safetensors import SafetensorError, safe_open

        file = self.path / f"{key}{_SUFFIX}"
        try:
            with safe_open(file, framework="pt") as opened:
                about = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            entry = read_json(about["entry"].encode(), str(file), StorageError)
            if about["digest"] != digest_of_entry(about["entry"], tensors):
                raise ValueError("its digest is another")
            os.utime(file)
            placed = {name: laid_out(tensor, entry["laid"][name]) for name, tensor in tensors.items()}
            if any(str(tensor.device) != entry["laid"][name]["device"] for name, tensor in placed.items()):
                raise ValueError("it is for a device that is not here")
            return decode(entry["value"], placed), bool(entry["draws"])
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError):  # torn, or not for here
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
            return None

    def write(self, key: str, value: Any, draws: bool) -> bool:
        """Keeps a value; False where files cannot hold it."""
        from safetensors.torch import save

        tensors: dict[str, Tensor] = {}
        laid: dict[str, dict[str, Any]] = {}

        def keep(tensor: Tensor, path: str) -> Tensor:
            laid[path] = layout_of(tensor)
            return tensor.detach().to("cpu", copy=True).contiguous()

        try:
            encoded = encode(value, "value", tensors, keep=keep)
            entry = json.dumps({"value": encoded, "draws": draws, "laid": laid})
            content = save(tensors, {"entry": entry, "digest": digest_of_entry(entry, tensors)})
        except (StorageError, ValueError, TypeError, KeyError, RuntimeError):
            return False
        if self.max_bytes is not None and len(content) > self.max_bytes:
            return False
        self._put(self.path / f"{key}{_SUFFIX}", content)
        self._writes += 1
        if self.max_bytes is not None and self._writes % _EVERY == 1:
            self._shrink(self.max_bytes)
        return True

    def clear(self) -> None:
        """Takes all results away."""
        for file in self.path.glob(f"*{_SUFFIX}"):
            file.unlink(missing_ok=True)

    def _put(self, file: Path, content: bytes) -> None:
        fresh = self.path / f".{file.name}.{secrets.token_hex(6)}.new"
        try:
            fresh.write_bytes(content)
            os.replace(fresh, file)
        finally:
            fresh.unlink(missing_ok=True)

    def _shrink(self, max_bytes: int) -> None:
        """Takes the least recently used files away until the rest is within a budget; another process may do the same."""
        found = []
        for file in self.path.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                about = file.stat()
                found.append((about.st_mtime_ns, about.st_size, file))
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found, key=lambda entry: entry[:2]):
            if total <= max_bytes:
                break
            file.unlink(missing_ok=True)
            total -= size


def digest_of_entry(entry: str, tensors: dict[str, Tensor]) -> str:
    """What a file of tensors and JSON holds, as one hash, by which damage is found."""
    hashed = hashlib.blake2b(entry.encode("utf-8", "surrogatepass"), digest_size=16)
    for name in sorted(tensors):
        hashed.update(name.encode())
        hashed.update(bytes_of(tensors[name]))
    return hashed.hexdigest()
