"""The language of a world's content, for prompts to name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wgtorch.blocks.prompt.tongue import language_of
from wgtorch.core.block import Block, register_block
from wgtorch.core.port import Port
from wgtorch.ports import FIRST_CONTENT


@register_block("prompt/language")
class ContentLanguage(Block):
    """Says in which language to write: what the content declares in ``language``, else what it is written in.

    Example:
        >>> ContentLanguage()(content={"story": "Смотритель маяка зажигает лампу."})["language"]
        'Russian'

    Args:
        fields: of the content, which are looked at one after another until one tells.
        otherwise: what is said where none does.
    """

    inputs: Mapping[str, Any] = {"content": FIRST_CONTENT}
    outputs: Mapping[str, Any] = {"language": Port(dtype="text", description="the language's English name")}
    uses_global_rng = False

    def __init__(
        self,
        *,
        fields: Sequence[str] = ("story", "summary", "chronicle", "rules", "glossary", "style"),
        otherwise: str = "the language of the world's own texts",
    ) -> None:
        super().__init__()
        self.fields = tuple(fields)
        self.otherwise = otherwise

    def forward(self, content: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """``language`` by its English name."""
        content = content or {}
        if declared := str(content.get("language") or "").strip():
            return {"language": declared}
        found = (language_of(_text(content[name])) for name in self.fields if content.get(name))
        return {"language": next((language for language in found if language), self.otherwise)}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {_text(entry)}" for name, entry in value.items())
    return " ".join(map(_text, value)) if isinstance(value, (list, tuple)) else str(value)
