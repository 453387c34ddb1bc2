"""Verbs: the rules by which actions are tried against the facts of a simulated world."""

from wgtorch.blocks.simulation.verbs import being, looking, making, people, things, travel
from wgtorch.blocks.simulation.verbs.rules import TIMELESS, VerbRule, Verbs, verb

__all__ = ["TIMELESS", "VerbRule", "Verbs", "being", "looking", "making", "people", "things", "travel", "verb"]
