"""Providers of models, by the names that configs use."""

from wgtorch.core.registry import provide_modules
from wgtorch.integrations.api.providers.base import Providers

provide_modules(
    "wgtorch.providers",
    {
        "wgtorch.integrations.api.providers.openai": ("openai", "qwen", "ollama", "vllm", "llama_cpp", "transformers_serve"),
        "wgtorch.integrations.api.providers.anthropic": ("anthropic",),
        "wgtorch.integrations.api.providers.openai_responses": ("openai_responses",),
    },
)

__all__ = ["Providers"]
