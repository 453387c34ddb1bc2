"""Providers of models, by the names that configs use."""

from functools import partial
from importlib import import_module

from wgtorch.integrations.api.providers.base import Providers

Providers.provide(
    partial(import_module, "wgtorch.integrations.api.providers.openai"),
    "openai",
    "qwen",
    "ollama",
    "vllm",
    "llama_cpp",
    "transformers_serve",
)
Providers.provide(partial(import_module, "wgtorch.integrations.api.providers.anthropic"), "anthropic")
Providers.provide(partial(import_module, "wgtorch.integrations.api.providers.openai_responses"), "openai_responses")

__all__ = ["Providers"]
