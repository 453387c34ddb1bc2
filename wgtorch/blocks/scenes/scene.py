"""The small world that the default models know: its attributes, its captions, and how captions are read back.

Nothing here needs torch: a :class:`Scene` is plain data, :func:`caption` words it, :func:`parse` is the exact inverse.

>>> import random
>>> scene = Scene("night", "clear", "sea", "ship", "red", "left", "no")
>>> parse("A red ship on the left of a calm sea, at night.")
{'time': 'night', 'terrain': 'sea', 'landmark': 'ship', 'color': 'red', 'place': 'left'}
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "time": ("dawn", "day", "dusk", "night"),
    "weather": ("clear", "cloudy", "rain", "snow", "fog", "storm"),
    "terrain": ("sea", "meadow", "hills", "mountains", "desert", "forest"),
    "landmark": ("none", "house", "castle", "windmill", "tower", "tent", "ship"),
    "color": ("red", "blue", "yellow", "white"),
    "place": ("left", "middle", "right"),
    "traveller": ("no", "yes"),
}
"""Every attribute with its values, in the order of the heads and tokens of the models."""


@dataclass(frozen=True)
class Scene:
    """One scene. `color` and `place` are those of the landmark, and None exactly where there is no landmark.

    Raises:
        ValueError: for a value that the attribute does not have, a landmark without colour or place, a ship on land.
    """

    time: str
    weather: str
    terrain: str
    landmark: str = "none"
    color: str | None = None
    place: str | None = None
    traveller: str = "no"

    def __post_init__(self) -> None:
        bare = self.landmark == "none"
        for name, values in ATTRIBUTES.items():
            value = getattr(self, name)
            if name in ("color", "place") and bare:
                if value is not None:
                    raise ValueError(f"Scene.{name}: found {value!r} with landmark 'none'; write {name}=None")
            elif value not in values:
                raise ValueError(f"Scene.{name}: found {value!r}, expected one of {', '.join(values)}")
        if self.landmark == "ship" and self.terrain != "sea":
            raise ValueError(f"Scene.landmark: found 'ship' with terrain {self.terrain!r}; a ship needs terrain 'sea'")

    @classmethod
    def sample(cls, generator: random.Random) -> Scene:
        """A random scene: uniform over the values, except that a third of the landmarks at sea are ships."""
        terrain = generator.choice(ATTRIBUTES["terrain"])
        landmark = generator.choice(ATTRIBUTES["landmark"][:-1])
        if terrain == "sea" and generator.random() < 1 / 3:
            landmark = "ship"
        bare = landmark == "none"
        return cls(
            time=generator.choice(ATTRIBUTES["time"]),
            weather=generator.choice(ATTRIBUTES["weather"]),
            terrain=terrain,
            landmark=landmark,
            color=None if bare else generator.choice(ATTRIBUTES["color"]),
            place=None if bare else generator.choice(ATTRIBUTES["place"]),
            traveller="yes" if generator.random() < 0.4 else "no",
        )

    @classmethod
    def complete(cls, named: Mapping[str, str], generator: random.Random) -> Scene:
        """A scene that has the named attributes and random others; what contradicts (a ship on land) gives way."""
        base = asdict(cls.sample(generator)) | {k: v for k, v in named.items() if k in ATTRIBUTES}
        if base["landmark"] == "ship":
            if "terrain" not in named:
                base["terrain"] = "sea"
            elif base["terrain"] != "sea":
                base["landmark"] = "house"
        bare = base["landmark"] == "none"
        if bare and "landmark" not in named and ("color" in named or "place" in named):
            base["landmark"], bare = generator.choice(ATTRIBUTES["landmark"][1:-1]), False
        for name in ("color", "place"):
            base[name] = None if bare else base[name] or generator.choice(ATTRIBUTES[name])
        return cls(**base)

    def attributes(self) -> dict[str, str]:
        """The attributes that apply (no colour and place without a landmark)."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def labels_of(attributes: Mapping[str, str]) -> list[int]:
    """Indices of the values in the order of :data:`ATTRIBUTES`; -1 where an attribute is not named.

    >>> labels_of({"time": "night", "landmark": "none"})
    [3, -1, -1, 0, -1, -1, -1]
    """
    return [values.index(attributes[name]) if name in attributes else -1 for name, values in ATTRIBUTES.items()]


# --- wording -----------------------------------------------------------------------------------------------------------

_TIME = {
    "dawn": ("at dawn", "at sunrise", "in the early morning", "at daybreak"),
    "day": ("by day", "at noon", "in the afternoon", "in daylight"),
    "dusk": ("at dusk", "at sunset", "in the evening", "at twilight"),
    "night": ("at night", "at midnight", "by moonlight", "in the night"),
}
_WEATHER = {
    "clear": ("under a clear sky", "in clear weather", "in fine weather", "under a cloudless sky"),
    "cloudy": ("under a cloudy sky", "under clouds", "in cloudy weather", "under an overcast sky"),
    "rain": ("in the rain", "in rainy weather", "while it is raining", "as rain falls"),
    "snow": ("in the snow", "in snowy weather", "while it is snowing", "as snow falls"),
    "fog": ("in the fog", "in foggy weather", "in thick mist", "wrapped in fog"),
    "storm": ("in a storm", "in a thunderstorm", "in stormy weather", "as lightning strikes"),
}
_TERRAIN = {
    "sea": ("the sea", "the open sea", "the ocean", "calm water"),
    "meadow": ("a meadow", "a green meadow", "wide grassland", "the fields"),
    "hills": ("rolling hills", "the hills", "soft hills", "a hillside"),
    "mountains": ("the mountains", "high mountains", "mountain peaks", "steep peaks"),
    "desert": ("the desert", "a wide desert", "sand dunes", "dunes"),
    "forest": ("the forest", "a dark forest", "the woods", "a pine forest"),
}
_LANDMARK = {
    "house": ("house", "cottage", "small house"),
    "castle": ("castle", "fortress", "old castle"),
    "windmill": ("windmill", "mill", "old windmill"),
    "tower": ("tower", "tall tower", "lonely tower"),
    "tent": ("tent", "small tent", "lonely tent"),
    "ship": ("ship", "sailing ship", "sailboat"),
}
_NO_LANDMARK = ("with no building", "without any building", "empty of buildings", "with nothing built")
_PLACE = {
    "left": ("on the left", "on the left side", "to the left"),
    "middle": ("in the middle", "in the center", "at the center"),
    "right": ("on the right", "on the right side", "to the right"),
}
_COLOR = {"red": ("red",), "blue": ("blue",), "yellow": ("yellow", "golden"), "white": ("white",)}
_TRAVELLER = {
    "yes": ("a traveller stands there", "with a traveller", "and a wanderer", "a hooded figure passes by", "with a lonely wanderer"),
    "no": ("nobody is there", "with no one in sight", "without a traveller", "no traveller in sight"),
}


def caption(scene: Scene, rng: random.Random, named: Collection[str] | None = None) -> str:
    """Words a scene. Names exactly the attributes in `named`; by default a random choice, each with probability 0.8.

    `parse(caption(scene, rng, named))` is `{name: scene's value for name in named}`, without colour and place where there
    is no landmark. Naming nothing gives the empty text.
    """
    have = scene.attributes()
    if named is None:
        named = [name for name in have if rng.random() < 0.8]
    elif unknown := sorted(set(named) - set(ATTRIBUTES)):
        raise ValueError(f"caption: unknown attributes {unknown}; there are {', '.join(ATTRIBUTES)}")
    have = {name: value for name, value in have.items() if name in named}

    thing = _thing(have, rng)
    ground = rng.choice(_TERRAIN[have["terrain"]]) if "terrain" in have else ""
    if thing and ground:
        core = rng.choice((f"{thing} in {ground}", f"{ground} with {thing}", f"{ground} and {thing}", f"{thing} near {ground}"))
        core = core if not thing.startswith(("with", "empty")) else f"{ground} {thing}"
    else:
        core = thing or ground
    parts = [core] if core else []
    circumstances = []
    if "time" in have:
        circumstances.append(rng.choice(_TIME[have["time"]]))
    if "weather" in have:
        circumstances.append(rng.choice(_WEATHER[have["weather"]]))
    rng.shuffle(circumstances)
    if "traveller" in have:
        circumstances.insert(rng.randrange(len(circumstances) + 1), rng.choice(_TRAVELLER[have["traveller"]]))
    if rng.random() < 0.25:
        parts = circumstances + parts
    else:
        parts += circumstances
    text = rng.choice((", ", " ", ", ")).join(parts)
    if text and rng.random() < 0.2:
        text = rng.choice(("a picture of ", "there is ", "we see ")) + text
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:] + ("." if text else "")
    return text


def _thing(have: Mapping[str, str], rng: random.Random) -> str:
    landmark, color, place = have.get("landmark"), have.get("color"), have.get("place")
    if landmark == "none":
        return rng.choice(_NO_LANDMARK)
    if not (landmark or color or place):
        return ""
    noun = rng.choice(_LANDMARK[landmark]) if landmark else "building"
    if color:
        word = rng.choice(_COLOR[color])
        tail = {"windmill": "sails", "ship": "sails", "tent": "cloth"}.get(landmark or "", "roof")
        noun = rng.choice(
            (f"{word} {noun}", f"{word} {noun}", f"{noun} with a {word} {tail}" if tail != "sails" else f"{noun} with {word} sails")
        )
    article = "an" if noun[0] in "aeiou" else "a"
    where = f" {rng.choice(_PLACE[place])}" if place else ""
    return f"{article} {noun}{where}"


def sentence(attributes: Mapping[str, str]) -> str:
    """The one plain sentence for some attributes, always the same; :func:`parse` gives them back.

    >>> sentence({"time": "dusk", "weather": "clear", "terrain": "hills", "landmark": "castle", "color": "red", "place": "left"})
    'Rolling hills and a red castle on the left, at dusk, under a clear sky.'
    """
    first = _First()
    have = {name: attributes[name] for name in ATTRIBUTES if name in attributes}
    ground = _TERRAIN[have["terrain"]][0] if "terrain" in have else ""
    thing = _thing(have, first)
    parts = [(" " if thing == _NO_LANDMARK[0] else " and ").join(filter(None, (ground, thing)))]
    parts += [table[have[name]][0] for name, table in (("time", _TIME), ("weather", _WEATHER)) if name in have]
    if "traveller" in have:
        parts.append({"yes": "with a traveller", "no": "nobody is there"}[have["traveller"]])
    text = ", ".join(filter(None, parts))
    return text and text[:1].upper() + text[1:] + "."


class _First(random.Random):
    """Chooses the first of everything."""

    def choice(self, seq):  # type: ignore[no-untyped-def, override]
        return seq[0]


# --- reading -----------------------------------------------------------------------------------------------------------

# Words and phrases that name a value. Longer phrases win over shorter ones.
_SYNONYMS: dict[str, dict[str, str]] = {
    "time": {
        "dawn": "dawn|sunrise|daybreak|morning|mornings|rising sun|early morning|first light",
        "day": "day|daytime|daylight|noon|midday|afternoon",
        "dusk": "dusk|sunset|evening|twilight|nightfall|sundown|setting sun",
        "night": "night|nights|middle of the night|midnight|moonlight|moonlit|nighttime|moon|starlight|starry|stars",
    },
    "weather": {
        "clear": "clear|sunny|cloudless|fine weather|sunshine|bright sky",
        "cloudy": "cloudy|cloud|clouds|overcast",
        "rain": "rain|rainy|raining|rains|rainfall|drizzle|shower|showers|downpour",
        "snow": "snow|snowy|snowing|snows|snowfall|snowflakes|blizzard",
        "fog": "fog|foggy|mist|misty|haze|hazy|mists",
        "storm": "storm|storms|stormy|thunderstorm|lightning|thunder|tempest",
    },
    "terrain": {
        "sea": "sea|seas|seaside|harbor|harbour|bay|beach|ocean|water|waters|waves|shore|coast|lake|island",
        "meadow": "meadow|meadows|grassland|field|fields|plain|plains|grass|pasture|prairie|steppe",
        "hills": "hill|hills|hillside|valley|highlands",
        "mountains": "mountain|mountains|peak|peaks|summit|cliff|cliffs",
        "desert": "desert|dune|dunes|sand|sands|sandy|cactus|cacti",
        "forest": "forest|forests|wood|woods|woodland|tree|trees|pine|pines|jungle|grove",
    },
    "landmark": {
        "none": "nothing built|wilderness|uninhabited|empty of buildings",
        "house": "house|houses|cottage|home|hut|cabin|farmhouse|farm",
        "castle": "castle|castles|fortress|palace|fort|citadel",
        "windmill": "windmill|windmills|mill",
        "tower": "tower|towers|lighthouse",
        "tent": "tent|tents|camp|campsite",
        "ship": "ship|ships|boat|boats|sailboat|vessel|sailing ship",
    },
    "color": {
        "red": "red|crimson|scarlet",
        "blue": "blue|azure",
        "yellow": "yellow|golden|gold",
        "white": "white|pale",
    },
    "place": {
        "left": "on the left|to the left|at the left|on its left|left side|left of|far left",
        "middle": "middle|center|centre",
        "right": "on the right|to the right|at the right|on its right|right side|right of|far right",
    },
    "traveller": {
        "yes": "traveller|traveler|travellers|travelers|wanderer|wanderers|figure|pilgrim|walker|stranger|hooded",
        "no": "nobody|no one|noone|no people|not a soul",
    },
}
# Phrases in which such a word means something else.
_IDIOMS = ("one day", "some day", "every day", "day after day", "right of way", "clear that", "made clear")
_NEGATIONS = ("no", "without", "not", "never")
_BETWEEN_NEGATION = ("a", "any", "an", "single", "the", "more", "longer")
_COLOURED = ("roof", "roofs", "sail", "sails", "cloth", "walls", "building", "buildings", "flag")
_BUILDINGS = ("building", "buildings")
_STRONGER_WEATHER = ("storm", "snow", "fog", "rain", "cloudy", "clear")
_REACH_OF_COLOR = 3  # words from a colour to what it colours

_PHRASES: dict[tuple[str, ...], tuple[str, str]] = {
    tuple(phrase.split()): (name, value)
    for name, values in _SYNONYMS.items()
    for value, phrases in values.items()
    for phrase in phrases.split("|")
}
_IGNORED = frozenset(tuple(idiom.split()) for idiom in _IDIOMS)
_LONGEST = max(len(phrase) for phrase in (*_PHRASES, *_IGNORED))


def words(text: str) -> list[str]:
    """The lower-case words of a text, punctuation dropped."""
    return re.findall(r"[a-z]+", text.lower())


def parse(text: str) -> dict[str, str]:
    """The attributes that a text names, in the order of :data:`ATTRIBUTES`; words it does not know are passed over.

    The exact inverse of :func:`caption`, and a reader of free text: synonyms, negation ("no traveller", "without rain"),
    a colour only where it colours a landmark or a part of one, the strongest weather, and the first mention of the rest.
    """
    tokens = words(text)
    found: dict[str, list[str]] = {name: [] for name in ATTRIBUTES}
    at = 0
    while at < len(tokens):
        phrase = next((tuple(tokens[at : at + n]) for n in range(_LONGEST, 0, -1) if _known(tokens, at, n)), None)
        if phrase is None or phrase in _IGNORED:
            if tokens[at] in _BUILDINGS and _negated(tokens, at):
                found["landmark"].append("none")
            at += len(phrase or (at,))
            continue
        name, value = _PHRASES[phrase]
        if name == "color" and not _colours_a_landmark(tokens, at):
            pass
        elif not _negated(tokens, at) or value in ("no", "none"):
            found[name].append(value)
        elif name == "traveller":
            found[name].append("no")
        at += len(phrase)
    named = {name: values[0] for name, values in found.items() if values}
    if "weather" in named:
        named["weather"] = min(found["weather"], key=_STRONGER_WEATHER.index)
    if named.get("landmark") == "none":
        named.pop("color", None)
        named.pop("place", None)
    return named


def _known(tokens: list[str], at: int, length: int) -> bool:
    phrase = tuple(tokens[at : at + length])
    return len(phrase) == length and (phrase in _PHRASES or phrase in _IGNORED)


def _negated(tokens: list[str], at: int) -> bool:
    before = at - 1
    while before >= 0 and tokens[before] in _BETWEEN_NEGATION:
        before -= 1
    return before >= 0 and tokens[before] in _NEGATIONS


def _colours_a_landmark(tokens: list[str], at: int) -> bool:
    after = tokens[at + 1 : at + 1 + _REACH_OF_COLOR]
    landmarks = (word for word in after if word in _COLOURED or _PHRASES.get((word,), ("",))[0] == "landmark")
    return next(landmarks, None) is not None


def _all_words() -> tuple[str, ...]:
    tables = (_TIME, _WEATHER, _TERRAIN, _LANDMARK, _PLACE, _COLOR, _TRAVELLER)
    texts = [text for table in tables for choices in table.values() for text in choices]
    texts += [*_NO_LANDMARK, *_IDIOMS, *_NEGATIONS, *_BETWEEN_NEGATION, *_COLOURED, *(" ".join(p) for p in _PHRASES)]
    texts += ["a picture of there is we see in near with and"]
    return tuple(sorted({word for text in texts for word in words(text)}))


VOCABULARY: tuple[str, ...] = _all_words()
"""Every word that :func:`caption` writes or :func:`parse` knows, sorted: the vocabulary of the tokenizer."""
