"""Language by grammar: exact, small and honest blocks that write about a traveller's world. No model, no learning."""

from wgtorch.blocks.grammar.blocks import GrammarArchitect, GrammarAuthor, GrammarDevelopment, GrammarWorldUpdate

__all__ = ["GrammarArchitect", "GrammarAuthor", "GrammarDevelopment", "GrammarWorldUpdate"]
