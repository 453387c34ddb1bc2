"""Where a world's history is kept."""

from wgtorch.storage.base import Storage, StorageRegistry, make_storage, register_storage
from wgtorch.storage.directory import DirectoryStorage
from wgtorch.storage.memory import MemoryStorage
from wgtorch.storage.opening import open_storage

__all__ = ["DirectoryStorage", "MemoryStorage", "Storage", "StorageRegistry", "make_storage", "open_storage", "register_storage"]
