"""Tensors that several names share: stored once within a block, and one tensor again across blocks after loading."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from wgtorch.core import adapter_hook
from wgtorch.core.errors import CheckpointError
from wgtorch.core.tree import UniqueBlock

Name = TypeVar("Name", bound=Hashable)
Ties = tuple[tuple[tuple[str, str], ...], ...]
"""Groups of (block's path, tensor's name) that are one tensor."""


def split_aliases(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, each memory once; the name stored for every other name of one)."""
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[Any, str] = {}
    for name, value in state.items():
        key = place_in_memory(value)
        if key in seen:
            aliases[name] = seen[key]
        else:
            seen[key] = name
            tensors[name] = value
    return tensors, aliases


def place_in_memory(tensor: Tensor) -> Hashable:
    """Equal for tensors that read the same bytes as the same numbers; a conjugate view reads them as others."""
    if not tensor.numel():
        return id(tensor)
    return (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device, tensor.is_conj(), tensor.is_neg())


def overlapping(parts: Mapping[str, UniqueBlock]) -> list[tuple[str, str]]:
    """Pairs of names whose tensors, one of them a parameter, lie in one memory and are two once loaded, as a weight and its transpose."""
    spans = []
    for path, part in parts.items():
        for name, value in adapter_hook.hook.base_state(part.block).items():
            reach = sum((size - 1) * step for size, step in zip(value.shape, value.stride(), strict=True)) + 1
            if value.numel():
                spans.append((str(value.device), value.data_ptr(), value.data_ptr() + reach * value.element_size(), path, name, value))
    found: list[tuple[str, str]] = []
    last: Any = None
    for span in sorted(spans, key=lambda span: span[:5]):
        if last is not None and span[0] == last[0] and span[1] < last[2]:
            one, other = span[5], last[5]
            learns = isinstance(one, nn.Parameter) or isinstance(other, nn.Parameter)
            if learns and one is not other and (span[3] != last[3] or place_in_memory(one) != place_in_memory(other)):
                found.append((f"{last[3]}.{last[4]}", f"{span[3]}.{span[4]}"))
            if span[2] <= last[2]:
                continue
        last = span
    return found


def shared_names(named: Iterable[tuple[Name, Any]]) -> list[list[Name]]:
    """Names that are one tensor, where there are several."""
    by_identity: dict[int, list[Name]] = {}
    for name, value in named:
        by_identity.setdefault(id(value), []).append(name)
    return [names for names in by_identity.values() if len(names) > 1]


def ties_of(parts: Mapping[str, UniqueBlock]) -> Ties:
    """Tensors that several blocks hold, as a head of a language model its embedding: by whoever joined them, which no config says."""
    states = {path: adapter_hook.hook.base_state(part.block) for path, part in parts.items()}
    found = shared_names(((path, name), value) for path, state in states.items() for name, value in state.items())
    return tuple(tuple(names) for names in found if len({path for path, _ in names}) > 1)


def tie(parts: Mapping[str, UniqueBlock], ties: Ties, where: str) -> None:
    """Makes one tensor again of what was one when it was saved; members whose block is not there are left out.

    Raises:
        CheckpointError: the members of a group are no equal tensors; nothing was tied then.
    """
    blocks = {
        user: part.holders[0][0].nodes[part.holders[0][1]] if part.holders else part.block for part in parts.values() for user in part.users
    }
    groups: list[list[tuple[nn.Module, Tensor]]] = []
    for names in ties:
        held = [(blocks[path], name, adapter_hook.hook.base_state(blocks[path]).get(name)) for path, name in names if path in blocks]
        first = held[0][2] if held else None
        group: list[tuple[nn.Module, Tensor]] = []
        for block, name, value in held:
            if not isinstance(value, Tensor) or not isinstance(first, Tensor) or (value.shape, value.dtype) != (first.shape, first.dtype):
                raise CheckpointError(
                    f"{where}: {name[:200]!r} of {block.block_id} is said to be one tensor with others, and does not fit them"
                )
            group.append((block, value))
        groups.append(group)
    for group in groups:
        for block, value in group[1:]:
            for module in block.modules():  # by identity: what has adapters holds it under another name
                tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
                for table in tables:
                    table.update({name: group[0][1] for name, tensor in table.items() if tensor is value})
