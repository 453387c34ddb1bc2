"""Execution conditions: when a stage, or a pipeline inside it, runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from wgtorch.core.errors import Finding, StateError, suggest
from wgtorch.core.registry import Registry
from wgtorch.world_runtime.state import State

Condition = str | list[str | int] | tuple[str | int, ...] | Callable[[State], bool]

ConditionRegistry: Registry[Any] = Registry("condition", group="wgtorch.world_runtime.conditions")


def register_condition(name: str) -> Callable[[Callable[[State], bool]], Callable[[State], bool]]:
    """Decorator: names a condition, so that configs may hold it.

    Example:
        >>> @register_condition("is_night")
        ... def is_night(state): return "night" in (state.intent or "")
    """
    return partial(ConditionRegistry.register, name)


for _name, _slots in {
    "always": [],
    "philosopher": ["intent", "recipe", "artifacts", "!description"],
    "author": ["intent", "recipe", "artifacts", "description", "!outcome"],
    "architect": ["intent"],
    "creator": ["recipe"],
}.items():
    ConditionRegistry.register(_name, _slots)


@register_condition("complete")
def _complete(state: State) -> bool:
    return state.complete


def unmet(condition: Condition | None, state: State) -> str | None:
    """Why a condition does not hold, or None when it does.

    A list holds slots that must be filled, by name or by number from 1; ``!slot`` must be empty.
    """
    if condition is None:
        return None
    if callable(condition):
        return None if condition(state) else f"{getattr(condition, '__name__', 'its condition')} does not hold"
    if isinstance(condition, str):
        registered = ConditionRegistry.get(condition)
        if callable(registered):
            return None if registered(state) else f"{condition!r} does not hold"
        return unmet(registered, state)
    filled = set(state.filled)
    empty = [name for entry in condition if not _negated(entry) and (name := state.slot_name(entry)) not in filled]
    full = [name for entry in condition if _negated(entry) and (name := state.slot_name(_slot(str(entry)[1:]))) in filled]
    reasons = [f"{', '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty"] if empty else []
    reasons += [f"{', '.join(full)} {'is' if len(full) == 1 else 'are'} filled"] if full else []
    return " and ".join(reasons) or None


def _slot(word: str) -> str | int:
    return int(word) if word.isdigit() else word


def _negated(entry: str | int) -> bool:
    return isinstance(entry, str) and entry.startswith("!")


def check_condition(condition: Condition | None, where: str) -> Condition | None:
    """Returns the condition, or says why it is none.

    Raises:
        StateError: it is neither slots, a registered name nor a callable.
    """
    if condition is None or callable(condition):
        return condition
    if isinstance(condition, str):
        if condition not in ConditionRegistry:
            raise StateError(
                f"{where}: unknown condition {condition!r}; {suggest(condition, ConditionRegistry.names())}. "
                f"A list names slots that must be filled: [{condition!r}]"
            )
        return condition
    if isinstance(condition, Iterable) and all(isinstance(entry, (str, int)) for entry in condition):
        return list(condition)
    raise StateError(f"{where}: condition {condition!r}; expected a list of slots, a registered name, or a callable state -> bool")


def slot_findings(condition: Condition | None, schema: Iterable[str], where: str) -> list[Finding]:
    """Slots in a condition, or in the registered one it names, that the schema does not have."""
    if isinstance(condition, str):
        condition = ConditionRegistry.get(condition)
    if not isinstance(condition, (list, tuple)):
        return []
    schema = tuple(schema)
    return [
        Finding(where, f"condition on slot {entry!r}, which is not in the schema", f"one of {list(schema)}")
        for entry in condition
        if _slot(str(entry).removeprefix("!")) not in (*range(1, len(schema) + 1), *schema)
    ]
