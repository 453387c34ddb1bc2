"""Words that a person may use for what there is in the world: kinds, lands, colours, directions, skies, verbs."""

from __future__ import annotations

import re
from collections.abc import Mapping

LANDMARK_WORDS = {
    "house": "house|cottage|hut|home|cabin|farm|farmhouse|building|hovel|lodge|barn|shed|school|church|temple hall|hall",
    "castle": "castle|fortress|palace|fort|citadel|keep|stronghold",
    "windmill": "windmill|mill",
    "tower": "tower|lighthouse|watchtower|spire",
    "tent": "tent|camp|campsite|shelter",
    "ship": "ship|sailboat|vessel|sailing ship|galleon",
    "bridge": "bridge|footbridge",
    "well": "well|fountain",
    "shrine": "shrine|temple|chapel|altar",
    "cave": "cave|cavern|grotto",
    "stones": "stones|standing stones|stone circle|menhir",
    "inn": "inn|tavern|pub|alehouse",
    "ruin": "ruin|ruins|rubble",
}
OBJECT_WORDS = {
    "lamp": "lamp|lantern|light|torch|candle", "ring": "ring", "apple": "apple", "bread": "bread|loaf", "key": "key", "book": "book",
    "sword": "sword|blade", "rope": "rope|cord", "spade": "spade|shovel", "axe": "axe|hatchet", "chest": "chest|box|trunk",
    "flute": "flute|pipe", "letter": "letter|message", "herb": "herb|herbs", "coin": "coin|coins|money|gold", "boat": "boat|raft|canoe",
    "fire": "fire|campfire|bonfire", "statue": "statue|sculpture", "fence": "fence|wall", "garden": "garden|orchard", "map": "map|chart",
    "cloak": "cloak|coat", "jar": "jar|pot|jug", "honey": "honey", "brush": "brush", "bow": "bow", "stick": "stick|staff|branch",
    "fish": "fish", "berries": "berries|berry", "shell": "shell|shells", "stone": "stone|rock|pebble", "wood": "wood|log|logs|timber|planks",
    "flower": "flower|flowers|rose", "mushroom": "mushroom|mushrooms", "reed": "reed|reeds", "feather": "feather", "clay": "clay",
    "wool": "wool", "basket": "basket", "table": "table", "chair": "chair|bench", "soup": "soup|stew", "cake": "cake|pie",
    "tunnel": "tunnel", "hole": "hole|pit|trench", "tree": "tree", "door": "door|gate", "sign": "sign|signpost", "song": "song",
    "net": "net", "doll": "doll|toy", "bell": "bell", "mask": "mask", "drum": "drum", "kite": "kite", "ladder": "ladder", "cart": "cart|wagon",
    "knife": "knife|dagger", "hat": "hat|cap", "bag": "bag|sack", "treasure": "treasure", "water": "water", "egg": "egg|eggs", "cheese": "cheese",
}  # fmt: skip
TERRAIN_WORDS = {
    "sea": "sea|seas|seaside|harbour|harbor|bay|beach|ocean|shore|coast",
    "river": "river|stream|brook|riverbank|riverside|creek",
    "meadow": "meadow|meadows|grassland|field|fields|plain|plains|pasture|prairie",
    "hills": "hill|hills|hillside|highlands|downs",
    "mountains": "mountain|mountains|peak|peaks|summit|cliff|cliffs",
    "desert": "desert|dune|dunes|sands|sand",
    "forest": "forest|forests|woods|woodland|jungle|grove|trees",
    "marsh": "marsh|marshes|swamp|bog|fen|moor|wetland",
}
WEATHER_WORDS = {
    "clear": "clear|sunny|sun|sunshine|sunlight|cloudless|fair weather|good weather|fine weather|blue sky",
    "cloudy": "cloudy|cloud|clouds|overcast",
    "rain": "rain|rainy|raining|drizzle|shower|showers|downpour",
    "snow": "snow|snowy|snowing|snowfall|blizzard",
    "fog": "fog|foggy|mist|misty|haze",
    "storm": "storm|stormy|thunderstorm|lightning|thunder|tempest",
}
HOUR_WORDS = {
    "dawn": (6, "dawn|morning|sunrise|daybreak|first light|sunup"),
    "day": (12, "day|noon|midday|daylight|afternoon|lunchtime"),
    "dusk": (19, "dusk|evening|sunset|nightfall|twilight|sundown"),
    "night": (0, "night|midnight|nighttime"),
}
COLOUR_WORDS = {
    "red": "red|crimson|scarlet", "blue": "blue|azure", "yellow": "yellow|golden", "white": "white|pale", "green": "green", "black": "black",
    "grey": "grey|gray", "brown": "brown", "orange": "orange", "purple": "purple|violet|pink",
}  # fmt: skip
BEAST_WORDS = {
    "wolf": "wolf|wolves", "horse": "horse|pony", "dog": "dog|hound", "bear": "bear", "goat": "goat", "raven": "raven|crow|bird",
    "dragon": "dragon", "cat": "cat", "cow": "cow", "sheep": "sheep|lamb", "pig": "pig", "deer": "deer", "fox": "fox",
}  # fmt: skip
MATERIALS = (
    "gold silver iron steel glass ice crystal diamond diamonds marble bronze copper ivory stone stones wood brick bricks "
    "straw mud clay bone paper cloth gingerbread chocolate"
).split()
DIRECTION_WORDS = {
    "north": "north|northward|northwards|up north|n", "east": "east|eastward|eastwards|e", "south": "south|southward|southwards|s",
    "west": "west|westward|westwards|w",
}  # fmt: skip
SKY_THINGS = (
    "moon",
    "sun",
    "sky",
    "stars",
    "star",
    "heaven",
    "heavens",
    "world",
    "earth",
    "universe",
    "time",
    "clouds",
    "mars",
    "planet",
    "space",
)
FOOD = ("apple", "bread", "honey", "fish", "berries", "mushroom", "herb", "soup", "cake", "egg", "cheese")
DETERMINERS = frozenset("the a an my your his her its our their this that these those some any another every each one".split())
MANNERS = frozenset(
    (
        "quickly slowly carefully quietly silently loudly gently secretly bravely boldly sadly happily gladly alone again now "
        "immediately once together softly angrily politely calmly fast straight away here there too also first finally suddenly "
        "simply just really instead tonight today anyway though reluctantly eagerly cautiously swiftly hastily noisily calmly patiently steadily onwards tomorrow nicely kindly"
    ).split()
)


def _index(table: Mapping[str, str]) -> dict[str, str]:
    return {phrase: kind for kind, phrases in table.items() for phrase in phrases.split("|")}


LANDMARKS = _index(LANDMARK_WORDS)
OBJECTS = _index(OBJECT_WORDS)
TERRAINS = _index(TERRAIN_WORDS)
WEATHERS = _index(WEATHER_WORDS)
COLOURS = _index(COLOUR_WORDS)
BEASTS = _index(BEAST_WORDS)
DIRECTIONS = _index(DIRECTION_WORDS)
HOURS = {phrase: (name, hour) for name, (hour, phrases) in HOUR_WORDS.items() for phrase in phrases.split("|")}


def words(text: str) -> list[str]:
    """The words of a text in lower case, apostrophes kept: ``don't``, ``miller's``."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower().replace("’", "'"))


def bare(phrase: str | None) -> str:
    """A phrase without articles and possessives in front."""
    tokens = words(phrase or "")
    while tokens and tokens[0] in DETERMINERS:
        tokens = tokens[1:]
    return " ".join(tokens)


ANYBODY = frozenset(
    ("somebody", "someone", "anyone", "anybody", "whoever", "people", "folk", "folks", "locals", "villagers", "them", "they", "him", "her", "everyone",
     "everybody", "those", "others", "all")
)  # fmt: skip
_NEARBY = frozenset(("the", "of", "you", "who", "is", "are", "here", "there", "in", "at", "around", "nearby", "by", "else"))


def means_anybody(phrase: str | None) -> bool:
    """True where a phrase names nobody in particular: it is empty, or ``whoever is here``, ``the people around``."""
    return set(words(phrase or "")) <= ANYBODY | _NEARBY


def named_in(phrase: str | None, table: Mapping[str, str]) -> str | None:
    """The kind that a phrase names, the last word of it leading: ``old red mill`` is a windmill; None where it names none."""
    tokens = words(phrase or "")
    for end in range(len(tokens), 0, -1):
        for start in range(max(0, end - 3), end):
            said = " ".join(tokens[start:end])
            if (kind := table.get(said) or (table.get(said[:-1]) if said.endswith("s") else None)) is not None:
                return kind
    return None


def colour_in(phrase: str | None) -> str | None:
    """The colour that a phrase names."""
    return next((COLOURS[word] for word in words(phrase or "") if word in COLOURS), None)


def with_article(noun: str) -> str:
    """``a house``, ``an inn``; ``stones``, ``bread`` and ``3 houses`` have none."""
    return (
        noun
        if is_plural(noun) or noun[:1].isdigit() or noun.split(" ")[-1].lower() in MASSES
        else f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
    )


def is_plural(noun: str) -> bool:
    """True for a noun of several things, told by its last word: ``old stones``, ``berries``."""
    return noun.split(" ")[-1].lower() in PLURALS


PLURALS = frozenset(
    "stones ruins berries herbs reeds mushrooms flowers coins logs planks shells eggs mountains hills woods clouds stars trees ways".split()
)
"""Nouns of several things."""
MASSES = frozenset(
    "bread honey water gold silver money wood firewood clay wool soup cheese fruit sand snow rain treasure food milk straw mud".split()
)
"""Nouns of what is not counted."""
_BEHIND_MASSES = ("", "at", "to", "from", "for", "of", "and", "that", "is", "was", "by", "in", "on", "changed")
_MANY = {"is": "are", "was": "were", "has": "have", "stands": "stand", "lies": "lie", "does": "do"}
_QUOTED = re.compile(r"(“[^”]*”)")
_ARTICLE = re.compile(r"\b([Aa])(n?) (?=([^\W\d_][\w'-]*)((?: [a-z][\w'-]*)?))")
_OWNED = re.compile(r"\b(?:[Aa]n?|[Nn]o) (?=[A-Z]\w*'s )")
_THERE = re.compile(rf"\b([Tt]here) (is|was) ((?:no |some )?(?:[a-z-]+ )?(?:{'|'.join(sorted(PLURALS))}))\b")
_AGREEING = re.compile(rf"\b({'|'.join(sorted(PLURALS))})((?: (?:at|of) [A-Z]\w+| to [a-z]+)?) ({'|'.join(_MANY)})\b")


def agreed(text: str) -> str:
    """A text whose articles fit the words behind them, and whose verbs fit nouns of several things; what is quoted stays as it is.

    >>> agreed("an long apple, a axe and a stones is there"), agreed("nobody has a Gustav's hat, there is no Gustav's stuff")
    ('a long apple, an axe and stones are there', "nobody has Gustav's hat, there is nothing like Gustav's stuff")
    """
    parts = _QUOTED.split(text)
    for at in range(0, len(parts), 2):
        part = _OWNED.sub(lambda found: "nothing like " if found[0][0] in "nN" else "", parts[at])
        part = _AGREEING.sub(lambda found: f"{found[1]}{found[2]} {_MANY[found[3]]}", _ARTICLE.sub(_article, part))
        parts[at] = _THERE.sub(lambda found: f"{found[1]} {_MANY[found[2]]} {found[3]}", part)
    return "".join(parts)


def _article(found: re.Match[str]) -> str:
    a, _, word, behind = found.groups()
    if (
        word.lower() in PLURALS
        or (word.lower() in MASSES and behind.strip() in _BEHIND_MASSES)
        or (word.lower() in COLOURS and behind.strip() in PLURALS)
    ):
        return ""
    vowel = word[:1].lower() in "aeio" or (word[:1].lower() == "u" and not re.match(r"(?i)(?:un[aeiou]|us[aeiu]|ut[aeiou])", word))
    vowel = (vowel and not re.match(r"(?i)(?:one|once|eu)", word)) or bool(re.match(r"(?i)(?:hour|honest|honou?r|heir)", word))
    return f"{a}{'n' if vowel else ''} "
