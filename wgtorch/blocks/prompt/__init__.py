"""Prompts for language models: templates with values, and the language to write in."""

from wgtorch.blocks.prompt.language import ContentLanguage
from wgtorch.blocks.prompt.template import Prompt

__all__ = ["ContentLanguage", "Prompt"]
