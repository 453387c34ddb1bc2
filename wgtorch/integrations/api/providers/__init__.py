"""Providers of models, by the names that configs use."""

from wgtorch.integrations.api.providers.base import Providers

__all__ = ["Providers"]
