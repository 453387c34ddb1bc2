"""Whether typed actions are read rightly: a list with what each means, that no reader is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from wgtorch.blocks.simulation.action import Action

TYPED_ACTIONS: tuple[tuple[str, str, bool], ...] = (
    ("go to the sea", "go", False), ("go north", "go", False), ("go back to where I started", "return", False),
    ("go west to the mill", "go", False), ("enter the castle", "enter", False), ("don't go to the sea", "go", True),
    ("leave the castle", "leave", False), ("forget about the sea", "avoid", False), ("run away", "flee", False),
    ("stay here", "stay", False), ("stay where I am", "stay", False), ("avoid the storm", "avoid", False),
    ("hide from the rain", "hide", False), ("there is never any snow in the desert", "remark", False), ("build a ship", "build", False),
    ("build a red bridge over the river", "build", False), ("build a house of gold", "build", False), ("dig a tunnel", "dig", False),
    ("destroy the tower", "destroy", False), ("burn the castle down", "burn", False), ("kill the king", "harm", False),
    ("paint the house black", "colour", False), ("talk to the miller", "talk", False), ("ask about the war", "ask", False),
    ("make friends with a wolf", "befriend", False), ("marry the miller's daughter", "court", False), ("give the ring to Anna", "give", False),
    ("take the lamp", "take", False), ("open the door", "open", False), ("eat the apple", "eat", False), ("look for treasure", "search", False),
    ("climb the tower and look around", "climb", False), ("light a fire", "light", False), ("sing a song", "perform", False),
    ("rest", "rest", False), ("wait one night", "wait", False), ("sleep until morning", "sleep", False), ("wait for snow", "wait", False),
    ("make it a sunny day", "wish", False), ("turn the moon red", "colour", False), ("fly to the moon", "fly", False),
    ("what is this place?", "ask", False), ("иди к морю и построй корабль", "unknown", False),
    ("I'd rather not go to the sea", "go", True), ("please don't burn the house", "burn", True), ("never enter the cave", "enter", True),
    ("you must not eat the apple", "eat", True), ("let's not wait", "wait", True), ("no, go north", "go", False),
    ("do not stay here", "stay", True), ("I refuse to go to the castle", "avoid", False), ("set the tent on fire", "burn", False),
    ("could you please walk to the old mill?", "go", False), ("offer the apple to the smith", "give", False), ("say sorry to Bruno", "reconcile", False),
    ("put out the fire", "extinguish", False), ("pick up the key", "take", False), ("go fishing", "gather", False),
    ("swap the lamp for a rope", "trade", False), ("is there a river nearby?", "ask", False), ("I am so tired", "remark", False),
    ("keep walking south", "go", False), ("tear down the mill", "destroy", False), ("mend the bridge", "repair", False),
    ("plant a tree", "plant", False), ("write a letter", "write", False), ("lock the door", "lock", False), ("swim in the river", "swim", False),
    ("insult the guard", "quarrel", False), ("invite Anna to come along", "invite", False), ("teleport home", "fly", False),
    ("blargh the fnord", "unknown", False), ("tkae the lamp", "take", False), ("biuld a house", "build", False), ("wlak to the forest", "go", False),
    ("repiar the bridge", "repair", False), ("atack the wolf", "harm", False), ("colect some wood", "gather", False),
    ("may I come in?", "enter", False), ("can you show me the way to the forest?", "ask", False), ("how many houses stand here?", "ask", False),
    ("excuse me, what's your name?", "ask", False), ("would that I could swim", "wish", False), ("if only the tower were still standing", "wish", False),
    ("I hope it snows soon", "wish", False), ("should the miller come, greet him", "unknown", False), ("when the sun rises, go north", "unknown", False),
    ("were I a bird, I would fly", "unknown", False), ("never build anything here", "build", True), ("go nowhere", "go", True), ("take nothing", "take", True),
    ("I won't go north", "go", True), ("nobody should enter the house", "enter", True), ("the ship is to be burnt by nobody", "burn", True),
    ("without going anywhere, look around", "look", False), ("not north, south", "go", False), ("quit bothering people", "refrain", False),
    ("leave the apple alone", "avoid", False), ("first rest, then go to the sea", "rest", False), ("before sleeping, light the lamp", "light", False),
    ("after resting, go south", "rest", False), ("go and see Cleopatra", "look", False), ("burn it down", "burn", False), ("do it again", "again", False),
    ("biuld a hosue", "build", False), ("go nroth", "go", False), ("lok around", "look", False), ("sleeep until mornign", "sleep", False), ("climp the hil", "climb", False),
    ("seach for tresure", "search", False), ("take 3 lamps", "take", False), ("build two houses", "build", False), ("build 1000 towers", "fly", False),
    ("eat a thousand apples", "fly", False), ("wait 3 days", "wait", False), ("visit the North Pole", "go", False), ("tell Sherlock the truth", "talk", False),
    ("bring the dead back to life", "fly", False), ("breathe under water", "fly", False), ("swallow the sun", "fly", False), ("turn into a dragon", "wish", False),
    ("repose a little", "rest", False), ("the house should be painted red", "colour", False), ("a bridge has to be built", "build", False),
    ("let the tower be destroyed", "destroy", False), ("may the lamp be given to someone", "give", False), ("I want to be led to the forest", "go", False),
    ("the house must not be burnt", "burn", True), ("would you be so kind as to light a fire?", "light", False), ("pretty please build me a hut", "build", False),
    ("if it's all right with you, I'll sleep", "sleep", False), ("restart", "fly", False), ("start again", "fly", False), ("rest a while by the river", "rest", False),
    ("take the rest of the apples", "take", False), ("forest", "go", False), ("meander along the coast", "go", False), ("restrain the dog", "unknown", False),
)  # fmt: skip
"""Lines, the verb of each, and whether it is negated: plain ones, misspelled ones, then kinds that are easily misread."""


class Reads(Protocol):
    """A reader of actions."""

    def read(self, text: str) -> Sequence[Action]:
        """The actions of a line."""


def understood(reader: Reads) -> dict[str, float]:
    """Share of :data:`TYPED_ACTIONS` that a reader gets right, and how many it turns round: done where it was not to be, or the reverse."""
    right, turned = 0, 0
    for text, verb, negated in TYPED_ACTIONS:
        first = reader.read(text)[0]
        right += (first.verb, first.negated) == (verb, negated)
        turned += first.verb == verb and first.negated is not negated
    return {"right": right / len(TYPED_ACTIONS), "turned_round": turned}
