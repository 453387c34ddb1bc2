"""Memory of a world for its language models: retrieve, summarise and forget, by policies that have names."""

from wgtorch.blocks.memory.keep import Keep
from wgtorch.blocks.memory.meaning import by_meaning
from wgtorch.blocks.memory.policies import register_forget, register_retrieve, register_summarise
from wgtorch.blocks.memory.recall import Memory

__all__ = ["Keep", "Memory", "by_meaning", "register_forget", "register_retrieve", "register_summarise"]
