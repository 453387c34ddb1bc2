"""What slots say, for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.kinds import describe


def words(value: Any) -> str:
    """A slot's value for people to read: texts as they are, the prompts of a recipe, anything else in short."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        for name in ("prompts", "prompt", "text"):
            if value.get(name):
                return words(value[name])
        return "; ".join(f"{name}: {words(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return "\n".join(dict.fromkeys(words(item) for item in value))
    return describe(value) if isinstance(value, Tensor) else str(value)


def cut(text: str, letters: int) -> str:
    """A text, or its beginning where it is longer."""
    return text if len(text) <= letters else f"{text[:letters]}..."


def rows(slots: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, words) of the slots that say something to people; pictures speak for themselves."""
    said = []
    for slot, value in slots.items():
        text = "" if _is_pictures(value) else words(value)
        if text:
            said.append(("prompt" if isinstance(value, Mapping) and {"prompts", "prompt"} & set(value) else slot, text))
    return said


def _is_pictures(value: Any) -> bool:
    """True for pictures, and for what :func:`wgtorch.world_runtime.trace.plain` makes of them."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_pictures(item) for item in value)
    return isinstance(value, Tensor) or (isinstance(value, Mapping) and set(value) == {"tensor"})
