"""Words for what lines are about: places, things, people and beasts, of the world and beyond it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.cast import NAMES, ROLES
from wgtorch.train.simulation import phrasing

MARKS = (
    "misty distant lonely golden-leaved windy forgotten mossy sunlit frosty humming drowsy steep muddy ancient silver narrow weathered "
    "hidden wide famous battered gloomy cheerful haunted sleepy crooked dusty shiny rusty tiny heavy rotten dark little nearest"
).split()
"""Every short line holds one of these or has one of the tails behind it, so that none is a plain line as people type it in tests."""
_LAND, _KIND, _THING, _BEAST = (list(table) for table in (lexicon.TERRAINS, lexicon.LANDMARKS, lexicon.OBJECTS, lexicon.BEASTS))
PLACES = (
    "village town city market marketplace square road path crossroads valley island lake pond waterfall garden cellar attic kitchen dungeon graveyard "
    "crypt library smithy bakery harbour docks pier pier's-end farm orchard vineyard quarry mine pass ridge glade clearing camp border north-gate bridge "
    "fountain barn stable courtyard hilltop seashore outskirts countryside wilderness unknown hall chamber corridor stairs next-room outside"
).split()
_MORE_KINDS = "treehouse hut mansion bridge chapel wall raft cottage dam lighthouse bakery stable shop gate tomb crypt palace fortress den lair barn school".split()
_MORE_THINGS = (
    "crown necklace lantern goblet mirror scroll potion shield spear hammer bucket blanket ribbon candle parchment diamond pearl helmet boots gloves "
    "scarf saddle whistle lute violin harp pendant amulet bracelet purse wallet ticket painting vase clock pillow carpet bottle barrel crate wheel hook "
    "chain anchor sail oar broom pan spoon fork plate cup kettle stool bench cradle ladder banner flag horn trumpet feather bone skull tooth pebble marble "
    "coin jewel gem toy ball kite doll pouch dagger bow arrow quiver staff wand cape robe shirt dress stocking wig belt buckle needle thread"
).split()
_PEOPLE = (
    "king queen prince princess knight wizard witch merchant priest monk soldier captain farmer maid widow thief beggar stranger traveller child boy girl "
    "baby woman man lady gentleman neighbour friend brother sister mother father uncle aunt grandmother cousin servant cook doctor teacher judge mayor "
    "sheriff bard minstrel blacksmith butcher cobbler tailor barber peddler pilgrim nun bandit pirate giant troll goblin elf dwarf ghost spirit fairy "
    "villagers guards soldiers children people crowd others twins"
).split()
_CREATURES = "lion tiger snake spider rat bat eagle owl boar badger rabbit hare squirrel swan goose duck hen donkey mule ox bull calf puppy kitten doggy bunny monster beast".split()
_FOODS = "apple pear plum berries bread loaf soup stew cake pie tart cheese honey fish trout meat roast sausage egg eggs porridge rice beans carrot turnip mushroom wine ale beer mead milk tea water cider broth pancake biscuit nuts grapes dumplings supper breakfast".split()
_STUFF = "berries mushrooms herbs flowers roses wood firewood sticks branches stones pebbles shells reeds clay wool water apples nuts acorns feathers honey eggs grain wheat leaves moss roots sand straw hay daisies wildflowers fruit kindling cherries".split()
_SUBJECTS = "war|king|treasure|weather|way home|dragon|harvest|news|law|old days|legend|secret|plague|rumours|festival|ghost|murder|meaning of life|past|future|truth|missing child|price of bread|taxes|noise|map|prophecy".split(
    "|"
)
_DOORS = "door|front door|gate|window|chest|box|trunk|drawer|cupboard|bottle|jar|lid|trapdoor|shutters|cage|safe|wardrobe|curtains|hatch|old book|letter|bag|back door|cell".split(
    "|"
)
_TREES = "tree|oak|old oak|apple tree|pine|willow|birch|elm|cherry tree|bush|rose bush|hedge|vine|saplings|trees".split("|")
_LAMPS = "lamp|lantern|candle|torch|fire|campfire|stove|hearth|candles|light|lights|bonfire|oil lamp|match|beacon".split("|")
_BOOKS = "book|letter|sign|note|scroll|map|inscription|diary|newspaper|poem|runes|old book|plaque|message|writing on the wall|instructions|contract|tombstone".split(
    "|"
)
_HOLES = "hole|a well|tunnel|pit|grave|trench|ditch|moat|cellar|way out".split("|")
_LETTERS = "letter|note|poem|story|book|song|message|report|will|diary entry|love letter|contract|few lines|postcard|map".split("|")
_HOURS = "morning|dawn|sunrise|noon|evening|nightfall|sunset|dusk|midnight|tomorrow|spring|the morning|daybreak|dark".split("|")
_WEATHER = "rain|storm|snow|wind|fog|mist|sun|heat|thunder|cold|hail|lightning".split("|")
_DIRECTIONS = "north|south|east|west|north|south|east|west|northward|southward|eastward|westward|northwards|eastwards|up|down|straight ahead|inland|north-east|upstream|downhill|onward".split(
    "|"
)
_ELSEWHERE = ("there", "somewhere else", "another place", "the other side", "where the light is", "home", "anywhere else")
_SOMETHING = (
    "it",
    "it",
    "this",
    "that",
    "everything",
    "something",
    "one of these",
    "all of it",
    "what is left",
    "my things",
    "the other one",
)
_PRONOUN_PEOPLE = ("him", "her", "them")
_SYLLABLES = "thorn ember crow galt ivy gorse amber stone wolf raven mar dun kel tor bryn holl fen oak ash silver winter mist black white high long green river sal ver dor".split()
_ENDINGS = "a o is en ric wyn dor mir ek us in na ra the ka la".split()
_TOWNS = "brook mouth wood holt tor reach ford ton bury dale field haven moor fell stead vale port gate by wick".split()
RARE = frozenset((*MARKS, *_MORE_KINDS, *_MORE_THINGS, *_CREATURES, *(root + end for root in _SYLLABLES for end in (*_TOWNS, *_ENDINGS))))
"""What no plain line of the world holds."""


_CHOSEN: dict[str, Sequence[str]] = {
    "f2": _FOODS, "g2": _STUFF, "c": list(lexicon.COLOURS), "d": _DIRECTIONS, "h": _HOURS, "weather": _WEATHER,
    "past": phrasing.PAST.split("|"), "kin": phrasing.KIN.split("|"), "adj": phrasing.FEELINGS.split("|"),
    "remark_long": phrasing.REMARKS_LONG.split("|"), "remark_then": ("the sun rises", "it is dark", "nobody looks"),
    "remark": ("all is well", "the king is dead", "it will rain"),
}  # fmt: skip
"""Places of a frame for one of some words."""
_NAMED: dict[str, tuple[list[str], float]] = {
    "f": (_FOODS, 0.4), "g": (_STUFF, 0.4), "door": (_DOORS, 0.55), "tree": (_TREES, 0.3), "lamp": (_LAMPS, 0.3), "book": (_BOOKS, 0.4),
    "letter": (_LETTERS, 0.3),
}  # fmt: skip
"""Places of a frame for one of some nouns with an article, and how often an adjective stands between them."""


class Nouns:
    """Makes noun phrases from a generator of numbers.

    Args:
        rng: where all choices come from.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def np(self, slot: str) -> str:
        """Words for a place of a frame."""
        if slot in _CHOSEN:
            return self.rng.choice(_CHOSEN[slot])
        if slot in _NAMED:
            return self._named(*_NAMED[slot])
        make: Callable[[], str] = getattr(self, f"_{slot}")
        return make()

    def name(self) -> str:
        said = self.rng.choice(NAMES) if self.rng.random() < 0.8 else self.rng.choice(_SYLLABLES).capitalize() + self.rng.choice(_ENDINGS)
        return said if self.rng.random() < 0.75 else said.lower()

    def _named(self, table: list[str], share: float = 0.55) -> str:
        noun = self.rng.choice(table)
        marked = f"{self.rng.choice(MARKS)} " if self.rng.random() < share else ""
        return f"{self.rng.choice(('the', 'the', 'the', 'a', 'my', 'that', 'this', 'some', 'his', 'your', 'an old', 'the old', ''))} {marked}{noun}".strip()

    def _p(self) -> str:
        chance = self.rng.random()
        if chance < 0.25:
            said = self.rng.choice(_SYLLABLES).capitalize() + self.rng.choice(_TOWNS)
            return said if self.rng.random() < 0.7 else said.lower()
        if chance < 0.6:
            return self._named(_LAND)
        if chance < 0.95:
            return self._named(PLACES) if chance < 0.75 else self._named(_KIND)
        return self.rng.choice(_ELSEWHERE)

    def _k(self) -> str:
        chance = self.rng.random()
        return "it" if chance < 0.06 else self._named(_KIND) if chance < 0.75 else self._named(_MORE_KINDS)

    def _kind(self) -> str:
        return self.rng.choice((*_KIND, *_THING))

    def _t(self) -> str:
        chance = self.rng.random()
        if chance < 0.1:
            return self.rng.choice(_SOMETHING)
        return (
            self._named(_THING)
            if chance < 0.65
            else self._named(_MORE_THINGS)
            if chance < 0.95
            else f"the {self.rng.choice(_THING)} of {self._w()}"
        )

    _t2 = _t

    def _w(self) -> str:
        chance = self.rng.random()
        if chance < 0.45:
            return self.name()
        if chance < 0.57:
            return self.rng.choice(_PRONOUN_PEOPLE)
        return self._named(list(ROLES)) if chance < 0.75 else self._named(_PEOPLE, 0.3)

    _r = _w

    def _b(self) -> str:
        chance = self.rng.random()
        return self._w() if chance < 0.4 else self._named(_BEAST) if chance < 0.8 else self._named(_CREATURES)

    def _x(self) -> str:
        return self.rng.choice((self._w, self._t, self._k, self._p, self._subject))()

    def _subject(self) -> str:
        return f"the {self.rng.choice(_SUBJECTS)}"

    def _hole(self) -> str:
        return f"a {self.rng.choice(_HOLES)}"

    def _o(self) -> str:
        """Somebody who is not the one who types."""
        chance = self.rng.random()
        if chance < 0.4:
            return self.name()
        if chance < 0.6:
            return f"the {self.rng.choice((*ROLES, *_PEOPLE))}"
        if chance < 0.72:
            return f"my {self.rng.choice(phrasing.KIN.split('|'))}"
        return self.rng.choice(phrasing.WHO_ELSE.split("|"))

    def _name(self) -> str:
        return self.name()


def tag_of(slot: str, verb: str, kind: str) -> str:
    """What stands at a place of a frame is part of."""
    if slot in ("weather", "h", "x", "f", "g", "f2", "g2", "door", "tree", "lamp", "book", "hole", "letter"):
        return "target"
    if slot in ("c", "d", "vp"):
        return "manner"
    if slot in ("name", "kind", "remark", "remark_then"):
        return "target" if slot == "kind" and verb != "remark" else "other"
    if slot == "r":
        return "receiver"
    if slot == "t2":
        return "place" if verb == "drop" else "manner"
    if kind == "move":
        return "place"
    if slot == "p" and kind not in ("topic",):
        return "place"
    return "target"
