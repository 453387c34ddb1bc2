"""The safetensors format: headers read without trust, tensors mapped where they lie, files written in one pass.

[8 bytes: length of the header][header: JSON by tensor name][bytes of the tensors, one after the other]
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import CheckpointError
from wgtorch.core.json_text import count_values, loads, refuse_constant
from wgtorch.core.limits import check_limit

MAX_HEADER_VALUES = 200_000
"""Values that the header of one file of weights may hold."""


MAX_HEADER = 32 << 20
_MAX_RANK = 64
_MAX_COUNT = 2**62
_FIELDS = frozenset(("dtype", "shape", "data_offsets"))

_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    **{
        name: getattr(torch, attribute)
        for name, attribute in (
            ("U16", "uint16"),
            ("U32", "uint32"),
            ("U64", "uint64"),
            ("F8_E4M3", "float8_e4m3fn"),
            ("F8_E5M2", "float8_e5m2"),
        )
        if hasattr(torch, attribute)
    },
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies in its file, from the first byte after the header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself.

    Args:
        entries: tensors by name.
        metadata: text by key.
        size: bytes before the first tensor.
        raw: the header's bytes, as hashed into manifests.
    """

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    size: int
    raw: bytes


def read_header(buffer: Any, start: int, length: int, where: str) -> Header:
    """Reads and checks the header of a file that lies in ``buffer[start : start + length]``.

    Raises:
        CheckpointError: the file is truncated, foreign or contradicts itself; names it and says how.
    """
    if length < 8:
        raise CheckpointError(
            f"{where}: {length} bytes; a safetensors file has at least 8, so this is truncated or foreign; copy or fetch it again"
        )
    size = int.from_bytes(buffer[start : start + 8], "little")
    if size > min(MAX_HEADER, length - 8):
        raise CheckpointError(
            f"{where}: announces a header of {size} bytes in a file of {length}; truncated (copy or fetch it again), or no safetensors file"
            f"{next((f' (it looks like {words})' for first, words in _OTHERS if bytes(buffer[start : start + 8]).startswith(first)), '')}"
        )
    raw = bytes(buffer[start + 8 : start + 8 + size])
    count = count_values(raw)
    check_limit(count, MAX_HEADER_VALUES, "its header holds {} values", where, CheckpointError, "Spread the tensors over several files")
    try:
        content = loads(raw, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: the header is not JSON ({str(error)[:100]}); not a safetensors file, or damaged") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{where}: the header is a {type(content).__name__}; expected a mapping of tensors")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{where}: __metadata__ is not a mapping of texts")
    entries = {name: _entry(name, fields, where) for name, fields in content.items()}
    _check_cover(entries, length - 8 - size, where)
    return Header(entries, metadata, 8 + size, raw)


def _entry(name: str, fields: Any, where: str) -> Entry:
    if not isinstance(fields, dict) or fields.keys() != _FIELDS:
        raise _wrong(name, where, "expected dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise _wrong(name, where, f"dtype {str(dtype)[:40]!r}; expected one of {', '.join(_DTYPES)}")
    if not _counts(shape) or len(shape) > _MAX_RANK:
        raise _wrong(name, where, f"shape {str(shape)[:80]}; expected a list of numbers from 0")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _wrong(name, where, f"data_offsets {str(offsets)[:80]}; expected [begin, end]")
    needed = math.prod(shape) * _DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != needed:
        raise _wrong(name, where, f"{offsets[1] - offsets[0]} bytes for {dtype} {str(shape)[:80]}, which takes {str(needed)[:40]}")
    return Entry(name, _DTYPES[dtype], tuple(shape), offsets[0], offsets[1])


def _wrong(name: str, where: str, what: str) -> CheckpointError:
    return CheckpointError(f"{where}: tensor {name[:200]!r}: {what}")


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < _MAX_COUNT for value in values)


def _check_cover(entries: Mapping[str, Entry], length: int, where: str) -> None:
    """Every byte after the header belongs to exactly one tensor."""
    at = 0
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != at:
            begins = f"tensor {entry.name[:200]!r} begins at byte {entry.start}"
            raise CheckpointError(f"{where}: {begins}, expected {at}: tensors overlap or leave a gap")
        at = entry.end
    if at != length:
        what, mend = ("truncated", "; copy or fetch it again") if at > length else ("followed by bytes of no tensor", "")
        raise CheckpointError(f"{where}: {what}: its tensors take {at} bytes and there are {length}{mend}")


_OTHERS = (
    ((b"PK", b"\x80"), "a pickle or zip written by torch.save"),
    ((b"version ",), "a pointer of Git LFS: git lfs pull fetches the file"),
)
"""What other files begin with."""


def map_tensors(buffer: mmap.mmap, start: int, header: Header) -> dict[str, Tensor]:
    """The tensors of a file, each backed by the mapped pages; written to, a page becomes the process's own."""
    return {name: _map_one(buffer, start + header.size, entry) for name, entry in header.entries.items()}


Shard = tuple[str, mmap.mmap, int, Header]
"""(name of a file for messages, its mapping, where in that it begins, its header)."""


def joined(shards: Iterable[Shard]) -> dict[str, Tensor]:
    """The tensors of several files, mapped; a name that a file gives as another's (``alias:name``) is the same tensor.

    Raises:
        CheckpointError: two files hold a tensor of one name.
    """
    tensors: dict[str, Tensor] = {}
    for where, buffer, start, header in shards:
        mapped = map_tensors(buffer, start, header)
        if header.metadata.get(PACKED) == "int8":
            mapped = unpacked(mapped, where)
        if twice := [name for name in mapped if name in tensors]:
            raise CheckpointError(f"{where}: tensor {twice[0][:200]!r} is in another shard as well")
        tensors.update(mapped)
        for key, target in header.metadata.items():
            if key.startswith("alias:") and target in tensors:
                tensors[key.removeprefix("alias:")] = tensors[target]
    return tensors


PACKED = "packed"
"""In a file's metadata: its matrices are stored in 8 bits."""
_SCALE = ".scale"
_LEAST = 4096


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in half of half precision: each row of a matrix as whole numbers from -127 to 127 beside its scale; small ones as float16."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() < 2 or tensor.numel() < _LEAST or not tensor.is_floating_point():
            found[name] = tensor.half() if tensor.is_floating_point() else tensor
            continue
        rows = tensor.float().flatten(1)
        scale = (rows.abs().amax(dim=1) / 127).clamp(min=1e-7).to(torch.float32)
        found[name] = (rows / scale.unsqueeze(1)).round().to(torch.int8).view(tensor.shape)
        found[f"{name}{_SCALE}"] = scale
    return found


def unpacked(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors that :func:`packed` was given, to a 254th of the largest number of each row.

    Raises:
        CheckpointError: a matrix in 8 bits has no scale of its rows.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in tensors and tensors[name.removesuffix(_SCALE)].dtype == torch.int8:
            continue
        if tensor.dtype == torch.int8:
            scale = tensors.get(f"{name}{_SCALE}")
            if scale is None or scale.shape != tensor.shape[:1] or not scale.is_floating_point():
                raise CheckpointError(f"{where}: tensor {name[:200]!r} is in 8 bits and has no scale of its {tensor.shape[:1]} rows")
            tensor = tensor.float() * scale.float().view(-1, *[1] * (tensor.dim() - 1))
        found[name] = tensor
    return found


def _map_one(buffer: mmap.mmap, start: int, entry: Entry) -> Tensor:
    length = entry.end - entry.start
    if not length:
        return torch.empty(entry.shape, dtype=entry.dtype)
    begin, size = start + entry.start, entry.dtype.itemsize
    if begin % size:  # a foreign file; unaligned access is slow at best
        flat = torch.frombuffer(buffer, dtype=torch.uint8, count=length, offset=begin).clone().view(entry.dtype)
    else:
        flat = torch.frombuffer(buffer, dtype=entry.dtype, count=length // size, offset=begin)
    return flat.view(entry.shape)


# --- writing ----------------------------------------------------------------------------------------------------------


def can_store(dtype: torch.dtype) -> bool:
    """True for the dtypes that the format knows."""
    return dtype in _NAMES


def make_header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> tuple[bytes, list[Tensor], int]:
    """The first bytes of a file, its tensors in the order they are written, and the bytes of all.

    Tensors of large items come first, so that each begins at a multiple of its item's size.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    content: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name in order:
        tensor = tensors[name]
        end = at + tensor.numel() * tensor.dtype.itemsize
        content[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    raw = json.dumps(content, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % ALIGN_HEADER)
    return len(raw).to_bytes(8, "little") + raw, [tensors[name] for name in order], 8 + len(raw) + at


ALIGN_HEADER = 64


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, with the permissions that the umask says: the library's own ``save_file`` gives it to its owner alone."""
    header, order, _ = make_header(tensors, metadata)
    with path.open("wb") as file:
        file.write(header)
        file.writelines(bytes_of(order))


def bytes_of(tensors: Sequence[Tensor]) -> Iterator[memoryview]:
    """The bytes of tensors, one after the other; what lies elsewhere or is strided is copied one at a time."""
    for tensor in tensors:
        if tensor.numel():
            flat = tensor.detach().to("cpu").contiguous().view(-1)
            if flat.is_conj() or flat.is_neg():
                flat = flat.resolve_conj().resolve_neg()
            yield memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


# --- a hash of a little of a large file ---------------------------------------------------------------------------------


PIECE = 256
"""Bytes from the middle of each tensor."""


class Pieces:
    """Takes a header and then the bytes of one tensor after the other, in the order of the file; empty ones are left out."""

    def __init__(self, header: bytes) -> None:
        self._hash = hashlib.sha256(header)

    def add(self, part: bytes, start: int, length: int) -> None:
        """Takes what is of the middle of a tensor's ``length`` bytes in a part of them that begins at ``start``; parts come in order."""
        first, last = _middle(length)
        self.take(part[max(first - start, 0) : max(last - start, 0)])

    def take(self, piece: Any) -> None:
        """Takes the bytes of a piece."""
        self._hash.update(piece)

    def hexdigest(self) -> str:
        """The sha256 of all that was taken."""
        return self._hash.hexdigest()


def pieces_of(path: Path, start: int, header: Header) -> str:
    """The hash of the pieces of a safetensors file whose header was read and which begins at byte ``start`` of ``path``.

    They are read, not looked at in the mapping: that a page is mapped takes several times as long.
    """
    with path.open("rb", buffering=0) as handle:

        def read(at: int, length: int) -> bytes:
            handle.seek(start + at)
            return handle.read(length)

        pieces = Pieces(read(0, header.size))
        for entry in sorted(header.entries.values(), key=lambda entry: entry.start):
            first, last = _middle(entry.end - entry.start)
            pieces.take(read(header.size + entry.start + first, last - first))
    return pieces.hexdigest()


def _middle(length: int) -> tuple[int, int]:
    start = max(0, (length - PIECE) // 2)
    return start, min(start + PIECE, length)
