"""What travels between endpoints: one safetensors file, tensors raw, everything else as JSON in the entry ``__wgtorch__``.

    [8 bytes: length of the header][header: JSON by tensor name][bytes of the tensors, ``__wgtorch__`` among them]

Nothing in it can name code, and tensors are read where they lie in the body. In the JSON a tensor is ``{"$tensor": name}``;
tuples, numbers that JSON has no word for and keys that begin with ``$`` are written as in a world's storage.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.checkpoint.tensors import bytes_of, can_store, make_header, map_tensors, read_header
from wgtorch.core.errors import CheckpointError, Finding, PortError, RequestError, StorageError
from wgtorch.core.json_text import read_json
from wgtorch.core.kinds import describe
from wgtorch.storage.encoding import decode, encode

CONTENT_TYPE = "application/x-wgtorch"
STREAM_TYPE = "application/x-wgtorch-stream"
"""Several bodies one after the other, each with its length before it: 8 bytes, little endian."""
FORMAT = 1
_MESSAGE = "__wgtorch__"


def pack(message: Mapping[str, Any]) -> tuple[list[bytes | memoryview], int]:
    """The parts of a body, tensors among them without a copy where they lie on the CPU and contiguous, and its length.

    Raises:
        PortError: a value that cannot travel; names its path.
    """
    tensors: dict[str, Tensor] = {}
    try:
        content = {key: encode(value, key, tensors, keep=_as_it_is) for key, value in message.items()}
    except StorageError as error:
        raise PortError(str(error).replace("cannot be stored", "cannot be sent")) from None
    text = json.dumps({"format": FORMAT, **content}, ensure_ascii=True, allow_nan=False).encode()
    tensors[_MESSAGE] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    head, order, length = make_header(tensors)
    return [head, *bytes_of(order)], length


def body(message: Mapping[str, Any]) -> bytes:
    """A whole body."""
    return b"".join(pack(message)[0])


def frame(message: Mapping[str, Any]) -> bytes:
    """A body with its length before it, as streams hold them."""
    parts, length = pack(message)
    return b"".join([length.to_bytes(8, "little"), *parts])


def unpack(buffer: bytearray, where: str) -> dict[str, Any]:
    """What :func:`pack` was given; tensors share the buffer's memory.

    Args:
        buffer: a whole body.
        where: who sent it, for messages.

    Raises:
        RequestError: it is truncated, foreign, damaged or of another format.
    """
    try:
        header = read_header(buffer, 0, len(buffer), where)
        tensors = map_tensors(buffer, 0, header)  # type: ignore[arg-type]  # any writable buffer will do
        text = tensors.pop(_MESSAGE, None)
        if text is None or text.dtype is not torch.uint8 or text.dim() != 1:
            raise CheckpointError(f"{where}: no entry {_MESSAGE!r} of bytes that hold the JSON")
        content = read_json(bytes(text.numpy()), where, CheckpointError)
        if not isinstance(content, dict):
            raise CheckpointError(f"{where}: the JSON is {describe(content)}; expected a mapping")
        if content.pop("format", None) != FORMAT:
            raise CheckpointError(f"{where}: is of another format; this version speaks {FORMAT}")
        return {key: decode(value, tensors) for key, value in content.items()}
    except (CheckpointError, StorageError) as error:
        raise RequestError("the body cannot be read", [_found(str(error), where)]) from error
    except (ValueError, RecursionError, TypeError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise RequestError("the body cannot be read", [_found(f"its JSON is damaged: {reason}", where)]) from error


def unpack_json(text: bytes | bytearray, where: str) -> dict[str, Any]:
    """A message written as JSON, its tensors ``{"$tensor": {"dtype": ..., "shape": ..., "data": base64}}``.

    Raises:
        RequestError: it is none.
    """
    try:
        content = read_json(bytes(text), where, ValueError, is_sent=True)
        if not isinstance(content, dict):
            raise ValueError(f"it is {describe(content)}; expected a mapping")
        content.pop("format", None)
        tensors: dict[str, Tensor] = {}
        return {key: decode(named_tensors(value, tensors, f"{where}.{key}"), tensors) for key, value in content.items()}
    except RequestError:
        raise
    except (ValueError, RecursionError, TypeError, StorageError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise RequestError(
            "the body cannot be read", [Finding(where, f"no JSON: {reason}", "one JSON object; /docs shows its fields")]
        ) from error


def named_tensors(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """JSON data with the tensors that are written out in it put into ``tensors``, each under the path where it stood.

    Raises:
        RequestError: one is not what it says.
    """
    if isinstance(value, dict):
        if set(value) == {"$tensor"} and isinstance(value["$tensor"], dict):
            tensors[where] = _read_tensor(value["$tensor"], where)
            return {"$tensor": where}
        return {key: named_tensors(item, tensors, f"{where}.{key}") for key, item in value.items()}
    return [named_tensors(item, tensors, f"{where}.{index}") for index, item in enumerate(value)] if isinstance(value, list) else value


def _read_tensor(entry: Mapping[str, Any], where: str) -> Tensor:
    dtype: Any = getattr(torch, str(entry.get("dtype")), None)
    shape: Any = entry.get("shape")
    is_shape = isinstance(shape, list) and all(type(size) is int and 0 <= size < 2**40 for size in shape)
    try:
        if not isinstance(dtype, torch.dtype) or not can_store(dtype) or not is_shape or set(entry) != {"dtype", "shape", "data"}:
            raise ValueError("a dtype that safetensors has, a shape and data are needed, and nothing else")
        raw = base64.b64decode(entry["data"], validate=True)
        count = math.prod(shape)
        if len(raw) != count * dtype.itemsize:
            raise ValueError(f"{len(raw)} bytes of data for {count} values of {dtype.itemsize} bytes")
    except (ValueError, TypeError) as error:
        expected = '{"dtype": "float32", "shape": [2], "data": base64 of the little endian bytes}'
        raise RequestError("the body cannot be read", [Finding(where, str(error)[:200], expected)]) from None
    return torch.frombuffer(bytearray(raw), dtype=dtype).view(shape) if raw else torch.empty(shape, dtype=dtype)


def frames(chunks: Iterator[bytes], where: str) -> Iterator[dict[str, Any]]:
    """The messages of a stream as they arrive.

    Raises:
        RequestError: the stream ends in the middle of one, or one cannot be read.
    """
    held = bytearray()
    needed: int | None = None
    for chunk in chunks:
        held += chunk
        while True:
            if needed is None:
                if len(held) < 8:
                    break
                needed = int.from_bytes(held[:8], "little")
            if len(held) < 8 + needed:
                break
            yield unpack(held[8 : 8 + needed], where)
            del held[: 8 + needed]
            needed = None
    if held:
        raise RequestError("the stream cannot be read", [_found("it ends in the middle of a message", where)])


def _as_it_is(value: Tensor, path: str) -> Tensor:
    if value.layout is not torch.strided or value.is_meta or not can_store(value.dtype):
        what = f"{describe(value)}, {str(value.layout).removeprefix('torch.')} on {value.device.type},"
        raise StorageError(f"{path}: {what} cannot be sent; expected a dense tensor with data, of a dtype that safetensors has")
    return value


def _found(text: str, where: str) -> Finding:
    return Finding(where, text.removeprefix(f"{where}: "), f"one safetensors file with the JSON in {_MESSAGE!r}")
