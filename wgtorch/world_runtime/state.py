"""State: the slots that travel a world's cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.encoding import register_stored_type
from wgtorch.core.errors import StateError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.registry import Registry

CANONICAL_SLOTS = ("intent", "recipe", "artifacts", "description", "outcome")

Views: Registry[Callable[..., str]] = Registry("view in a notebook", group="wgtorch.views")
"""HTML of a thing by its kind; the report adds its own."""


class State(Mapping[str, Any]):
    """What travels the cycle: five slots, or those of a world's own schema. It never changes; ``replace`` gives a new one.

    ======  ===========  ==================================================
    number  slot         holds
    ======  ===========  ==================================================
    1       intent       what should happen next
    2       recipe       the configuration for generating artifacts
    3       artifacts    what was generated
    4       description  what is really in the artifacts
    5       outcome      what really happened
    ======  ===========  ==================================================

    Args:
        schema: names of the slots, in order.
        slots: values by slot; ``None`` leaves a slot empty.

    Example:
        >>> st = State(intent="a storm comes")
        >>> st[1], st.filled, st.complete
        ('a storm comes', ('intent',), False)
    """

    __slots__ = ("_schema", "_values")

    def __init__(self, *, schema: tuple[str, ...] = CANONICAL_SLOTS, **slots: Any) -> None:
        object.__setattr__(self, "_schema", tuple(schema))
        values = {**dict.fromkeys(self._schema), **slots}
        if len(values) > len(self._schema):
            wrong = next(name for name in slots if name not in self._schema)
            raise StateError(f"State has no slot {wrong!r}; {suggest(wrong, self._schema)}")
        object.__setattr__(self, "_values", values)

    @property
    def schema(self) -> tuple[str, ...]:
        """Names of the slots, in order."""
        return self._schema

    @property
    def filled(self) -> tuple[str, ...]:
        """Names of the slots that hold something."""
        return tuple([name for name, value in self._values.items() if holds_something(value)])

    @property
    def complete(self) -> bool:
        """True when every slot holds something."""
        return len(self.filled) == len(self._schema)

    def as_dict(self) -> dict[str, Any]:
        """Values by slot: what ``dict(state)`` gives, without asking for each."""
        return dict(self._values)

    def replace(self, **slots: Any) -> State:
        """A new State with some slots changed."""
        values = {**self._values, **slots}
        if len(values) > len(self._schema):
            return State(schema=self._schema, **values)  # says which slot there is not
        made = object.__new__(State)
        object.__setattr__(made, "_schema", self._schema)
        object.__setattr__(made, "_values", values)
        return made

    def slot_name(self, key: str | int) -> str:
        """The slot's name, from its name or its number from 1.

        Raises:
            StateError: there is no such slot.
        """
        if isinstance(key, int) and not isinstance(key, bool) and 1 <= key <= len(self._schema):
            return self._schema[key - 1]
        if isinstance(key, str) and key in self._values:
            return key
        raise StateError(f"State has no slot {key!r}; {suggest(key, self._schema)}, or numbers 1 to {len(self._schema)}")

    def __getitem__(self, key: str | int) -> Any:
        values = self._values
        return values[key] if type(key) is str and key in values else values[self.slot_name(key)]

    def __getattr__(self, name: str) -> Any:
        values = object.__getattribute__(self, "_values")
        if name in values:
            return values[name]
        raise AttributeError(f"State has no slot or attribute {name!r}; {suggest(name, values)}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise StateError(f"a State never changes; write state.replace({name}=...) and go on with what it returns")

    def __iter__(self) -> Iterator[str]:
        return iter(self._schema)

    def __len__(self) -> int:
        return len(self._schema)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __reduce__(self) -> tuple:
        return _rebuild, (self._schema, self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return self._schema == other._schema and _equal(self._values, other._values)

    def _repr_html_(self) -> str:
        shown: str = Views.get("state")(self)
        return shown

    def __repr__(self) -> str:
        return f"State({', '.join(f'{name}={describe(self._values[name])}' for name in self.filled)})"

    __hash__ = None  # type: ignore[assignment]


def _equal(first: Any, second: Any) -> bool:
    """True for equal values; tensors are equal bit for bit."""
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        both = isinstance(first, Tensor) and isinstance(second, Tensor)
        return both and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(first == second)


def _rebuild(schema: tuple[str, ...], values: dict[str, Any]) -> State:
    return State(schema=schema, **values)


def holds_something(value: Any) -> bool:
    """True unless the value is None or an empty text or container."""
    if value is None or type(value) is str:
        return bool(value)
    if isinstance(value, Tensor):
        return value.numel() > 0
    return len(value) > 0 if hasattr(value, "__len__") else True


def copied(value: Any) -> Any:
    """The value, with lists, dicts and tuples copied at all depths; tensors and other objects are what they were."""
    kind = type(value)
    if kind is list:
        return [copied(item) for item in value]
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    return tuple([copied(item) for item in value]) if kind is tuple else value


def look_up(value: Any, fields: list[str], where: str) -> Any:
    """The value at a path of fields inside a slot; None where the slot or a field is empty.

    Raises:
        StateError: a field is asked of something that has none.
    """
    for index, field in enumerate(fields):
        if value is None:
            return None
        if isinstance(value, Mapping):
            value = value.get(field)
        elif isinstance(value, (list, tuple)) and field.isdigit():
            value = value[int(field)] if int(field) < len(value) else None
        else:
            raise StateError(
                f"{where}: {'.'.join(fields[: index + 1])!r} asks a field of {describe(value)}; expected a mapping, or a list and a number"
            )
    return value


def changed_at(value: Any, fields: Sequence[str], change: Callable[[Any], Any]) -> Any:
    """A copy with ``change`` applied at a path of fields; the value itself where there is no such field, or no change."""
    if not fields:
        return change(value)
    if not isinstance(value, Mapping) or fields[0] not in value:
        return value
    inner = changed_at(value[fields[0]], fields[1:], change)
    return value if inner is value[fields[0]] else {**value, fields[0]: inner}


register_stored_type(
    "state",
    State,
    lambda state: {"schema": list(state.schema), "slots": {name: state[name] for name in state.schema}},
    lambda plain: State(schema=tuple(plain["schema"]), **plain["slots"]),
)
