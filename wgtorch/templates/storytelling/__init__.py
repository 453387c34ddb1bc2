"""Worlds told by language models."""

from wgtorch.templates.storytelling.world import storytelling

__all__ = ["storytelling"]
