"""What lies where in a checkpoint.

dir/
  manifest.json                    format, versions, and for each file its size, its hash and who uses it
  config.yaml                      structure (config.json when it is large)
  blocks/<path>.safetensors        weights of one unique block, under the first path it stands at
  blocks/<path>-00001-of-00003.safetensors    the same in shards
  adapters/<path>/<name>/          one adapter of one block, in the layout of the library that made it
  life/ ...                        what a level writes beside (a world's life)
  training/ ...                    what a training needs to go on

An archive is the same tree in one zip whose members are stored, not compressed, and whose tensors begin at multiples of
64 bytes, so that they are mapped where they lie.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

from wgtorch.core.errors import CheckpointError

FORMAT = "wgtorch-checkpoint"
FORMAT_VERSION = "1.1"
MANIFEST, CONFIG_YAML, CONFIG_JSON = "manifest.json", "config.yaml", "config.json"
BLOCKS, ADAPTERS = "blocks", "adapters"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

MAX_MANIFEST = 32 << 20
"""Bytes of a manifest that is read."""
MAX_VALUES = 500_000
"""Values that a manifest may hold."""
MAX_HEADER_VALUES = 200_000
"""Values that the header of one file of weights may hold."""
DEEPEST_YAML = 64
"""A config that nests deeper is written as JSON: PyYAML recurses."""
YAML_VALUES = 40_000
"""Values that a config may hold as YAML; what is larger is saved as JSON."""
MAX_MEMBERS = 50_000
"""Files in one checkpoint."""
HASHED = 16 << 20
"""Bytes that one load hashes in full; of larger files it compares size, header and a piece of every tensor."""
LARGE_CONFIG = 64 << 10
"""A config longer than this is written as JSON, which is read a hundred times faster than YAML."""
SHARD = 4 << 30
"""Bytes of weights in one file."""
MAX_TENSORS = 10_000
"""Tensors that are written into one file; its header stays far below ``MAX_HEADER_VALUES``."""
ALIGNMENT = 64

_LONGEST = 120  # characters of a file's name; the longest that file systems take is 255


def file_stem(path: str) -> str:
    """A file's name, without its ending, for the block at a path (``creator.paint.t2i.backbone``)."""
    if len(path) <= _LONGEST:
        return path
    return f"{path[: _LONGEST - 17]}-{hashlib.sha256(path.encode()).hexdigest()[:16]}"


def checked_name(name: object, where: str) -> str:
    """A name inside a checkpoint, once it is known that it stays inside.

    Raises:
        CheckpointError: it is absolute, climbs with ``..``, or is no plain relative path.
    """
    if not isinstance(name, str) or not name or len(name) > 1024:
        raise CheckpointError(f"{where}: {str(name)[:80]!r} is no file name")
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and len(part) <= 255 for part in parts)
    if not plain or re.search(r"[\x00-\x1f\\:]", name) or PurePosixPath(name).is_absolute():
        raise CheckpointError(f"{where}: {name!r} leaves the checkpoint or is no plain path; expected one such as 'blocks/a.safetensors'")
    return name
