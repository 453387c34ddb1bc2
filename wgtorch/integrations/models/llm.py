"""A language model: one completion."""

from __future__ import annotations

from typing import Any

from wgtorch.core.block import register_block
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.models.model_block import rows_of
from wgtorch.integrations.models.requests import TextRequest
from wgtorch.integrations.models.text import TextModel, takes_options
from wgtorch.roles import LanguageModel


@register_block("llm")
class LLM(TextModel, LanguageModel):
    """Completes a prompt.

    Example:
        >>> llm = BlockRegistry.build({"block_type": "llm", "config": {"provider": "openai", "model_id": "gpt-5-mini"}})
        >>> llm(prompt="Name a colour of the sea.")["text"]
    """

    __doc__ += TextModel.__doc__.split("\n", 1)[1]  # type: ignore[operator, union-attr]
    kind = "llm"

    @takes_options
    def forward(self, prompt: str | list[str], *, stream: Any = None, answer: Any = None, **options: Any) -> dict[str, Any]:
        """One answer for a prompt, or a list of them for a list of prompts; or how likely given ones are."""
        return self._outputs(self._requests(prompt=prompt, **options), isinstance(prompt, (list, tuple)), stream, answer)

    def _requests(self, *, prompt: Any, rng: Rng | None = None, **options: Any) -> list[TextRequest]:
        prompts, _ = rows_of(prompt)
        rows = self._rows(options, len(prompts))
        return [self._request(text, (), row, rng, index) for index, (text, row) in enumerate(zip(prompts, rows, strict=True))]

    def dry(self, **inputs: Any) -> dict[str, Any]:
        """Stand-ins for the outputs, for dry runs."""
        prompts, listed = rows_of(inputs.get("prompt", ""))
        return self._stand_ins(len(prompts), listed, inputs.get("answer"))


@register_block("llm/api")
class ApiLLM(LLM):
    """A language model behind an API."""


@register_block("llm/openai")
class OpenAILLM(LLM):
    """A language model behind an API that speaks OpenAI's protocol."""

    default_provider = "openai"


@register_block("llm/anthropic")
class AnthropicLLM(LLM):
    """A language model of Anthropic's."""

    default_provider = "anthropic"


@register_block("llm/local")
class LocalLLM(LLM):
    """A language model whose weights are here."""

    default_backend = "local"
