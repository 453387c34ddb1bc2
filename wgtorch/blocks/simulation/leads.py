"""What stands before the verb of a clause: who acts, modals, courtesy, wanting and refusing; and whether it turns the verb round.

A lead is made of words, not of phrases: ``i have no intention of``, ``it would be unwise to``, ``would you be so kind as to``. Words of
:data:`NO` deny what follows once, however many there are; words of :data:`TURNS` turn it round, each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from wgtorch.blocks.simulation.action import IMPOSSIBLE_VERB
from wgtorch.blocks.simulation.inflection import forms
from wgtorch.blocks.simulation.lexicon import BEASTS, DETERMINERS, LANDMARKS, MANNERS, OBJECTS, WEATHERS
from wgtorch.blocks.simulation.phrases import FRAMES, LONGEST_PHRASE, PHRASES, PREPOSITIONS
from wgtorch.blocks.simulation.wordings import begun, heads, idioms

NO = frozenset("not never no neither nor nobody nothing nowhere none hardly barely without".split())
"""What denies; several in a lead deny once."""
TURNS = frozenset(
    (
        "refuse avoid stop quit cease hate dislike decline forbid forbidden prohibited resist fail forget neglect refrain dread "
        "prevent abstain loathe detest object oppose opposed bad foolish unwise wrong dangerous silly stupid mad crazy unwilling "
        "reluctant unable afraid scared terrified pointless useless worst last loath hesitant hesitate impossible pretend "
        "shame pity mistake unthinkable folly risky tired sick done finished less"
    ).split()
)
"""Each of these turns what follows round: ``refuse to``, ``it is unwise to``."""
_CANCEL = frozenset(["mind", "but", "than", "except", "wait", "help"])
"""After a word of :data:`NO` these leave what follows as it is: ``nothing but``, ``don't mind``, ``can't wait to``."""
SELF = frozenset(["i", "we", "me", "us", "myself", "let"])
HERO = frozenset(["traveller", "hero", "heroine", "wanderer", "adventurer", "protagonist", "player", "character"])
_THEY = frozenset(["it", "there", "this", "that", "these", "those", "they"])
_SUBJECTS = SELF | HERO | _THEY | frozenset("you he she one somebody someone anybody anyone everybody everyone".split())
_NARRATED = frozenset("i we he she they".split())
_TOLD = frozenset(
    "have has had having was were is are am be been will would could can should may might must ever always never often once already not if what how who why when where that".split()
)
_BEFELL = frozenset("find lose see hear forget meet get win".split())
"""Verbs that tell in the past what came about, and not what one did."""
_ANYONE = frozenset("one somebody someone anybody anyone everybody everyone".split())
_BE = frozenset(["is", "are", "am", "was", "were", "be", "been", "being"])
_MODALS = frozenset(
    ("do does did has have had having will would can could shall should may might must ought better rather sooner used ok okay").split()
)
_NOUNS = frozenset(
    (
        "idea thing plan time moment way point choice decision turn job duty wish desire intention need mood urge goal aim chance "
        "opportunity reason right use sense harm favour favor kindness honour pleasure heart mind intentions plans account "
        "circumstances circumstance condition conditions means case price event order orders bit lot task mission hour day week part "
        "while next option alternative temptation impulse courage strength guts nerve imagination pretty please goodness sake thought minute second dream"
    ).split()
)
_ADJECTIVES = frozenset(
    (
        "good great best wise nice lovely clever smart fine fun high about possible necessary important happy glad ready eager "
        "willing determined able allowed supposed sure keen free tempted inclined delighted grateful pleased kind dear bound busy "
        "prepared hoping planning off only sensible prudent wonderful safer safest careful certain set most such same fair anxious "
        "curious cool big huge whole angel sweet little capable confident advisable enough interested far high least slightest faintest remotest happier gladder safest "
        "better"
    ).split()
)
_ADVERBS = MANNERS | frozenset(
    (
        "quite very really so just maybe perhaps probably possibly surely certainly definitely absolutely actually honestly frankly "
        "finally eventually then next first instead also still already ever soon later meanwhile therefore thus hence anyway here "
        "somehow simply even only yet however otherwise apparently obviously clearly please kindly always usually often both either "
        "and as all right up at of to in on for by with about if how what why any more longer much half well oh ah hey hello hi yes "
        "yeah dare best earnestly hereby today tonight tomorrow further whatsoever secondly lastly firstly literally basically "
        "especially too to go be get going from over yourself"
    ).split()
)
FIRSTS = frozenset(phrase.split()[0] for phrase in PHRASES)
LEADING = PREPOSITIONS | NO | TURNS | _CANCEL | _SUBJECTS | _BE | _MODALS | _NOUNS | _ADJECTIVES | _ADVERBS
_GOVERNS = TURNS | frozenset(
    (
        "want wish like love need try attempt decide plan intend hope mean prefer choose begin start continue keep manage dare get "
        "agree promise resolve aim long yearn proceed volunteer remember think consider suggest recommend propose advise say guess "
        "suppose believe feel reckon fancy see ask beg order command urge tell expect require wait let help make end make_sure going "
        "spend swear mind enjoy care desire find hurry prepare force allow permit bother long risk vow bring trouble know please seem appear insist demand request dream"
    ).split()
)
"""Verbs that are leads where another verb hangs on them: ``want to go``, ``stop going``, ``think we should go``."""
_SUPPOSING = frozenset(
    (
        "think say guess suppose believe feel reckon suggest propose recommend see promise swear make expect hope decide seem appear insist demand "
        "request like want prefer need ask urge"
    ).split()
)
_BARE = frozenset("let help go come dare make run want need try prefer like wish".split())
PAIRED = frozenset(["go", "come", "try", "run", "hurry", "get", "be", "dare"])
_OBJECTS = frozenset("you me us him her them yourself myself not that everyone everybody sure certain it".split())
_BETWEEN = (_OBJECTS | _ADVERBS | _ADJECTIVES | NO | TURNS | {"than", "less", "against", "from"}) - {"to"}
_LIGHT = {"take", "have", "give", "pay", "do", "go for", "get"}
_OWN = dict.fromkeys(("his", "her", "our", "your", "their", "its"), "my") | dict.fromkeys(
    ("himself", "herself", "ourselves", "yourself"), "myself"
)
_WEAK = frozenset(("remark", "wish", "beg", "pray", "look", "unknown", "again"))
_IDIOMS = idioms(PHRASES)
_HEADS = {
    word: verb
    for word, verb in heads(PHRASES).items()
    if not any(word in other for other in (LEADING, _GOVERNS, OBJECTS, LANDMARKS, BEASTS, WEATHERS))
}
_FOR_ME = frozenset("make build cook bake brew light draw dig craft paint fix catch plant".split())
COURTESY = frozenset("please kindly could can would may might will shall".split())


@dataclass(frozen=True, slots=True)
class Lead:
    """The verb that a clause is led to.

    Args:
        verb: the resolver's verb.
        length: words of its phrase, at the beginning of ``rest``.
        rest: the words from the verb on.
        words: the words before it.
        negated: they deny it.
    """

    verb: str
    length: int
    rest: tuple[str, ...]
    words: tuple[str, ...]
    negated: bool

    @property
    def polite(self) -> bool:
        """Asked for rather than told."""
        return self.words[:1] != () and (self.words[0] in COURTESY or "please" in self.words or "kindly" in self.words)


def led(tokens: list[str]) -> Lead | None:
    """The verb of a clause, where all that stands before it is lead; None where it is not.

    >>> led("i have no intention of going north".split()).negated, led("don't hesitate to take it".replace("don't", "do not").split()).negated
    (True, False)
    """
    return _led(tuple(tokens), 0)


def all_lead(tokens: list[str]) -> bool:
    """True for words that are nothing but lead: ``do not``, ``under any circumstances``."""
    return all(word in LEADING or word in DETERMINERS for word in tokens)


@lru_cache(maxsize=4096)
def _led(said: tuple[str, ...], at: int) -> Lead | None:
    tokens = list(said)
    while at < len(tokens):
        word, before = tokens[at], tokens[at - 1] if at else ""
        if not at and word in PREPOSITIONS | {"instead"} and word != "to" and tokens[1:2] not in (["no"], ["any"]):
            return None  # "with trembling hands" is no lead
        is_noun = before in DETERMINERS and (word in _NOUNS or word in _ADJECTIVES or word in TURNS)
        found = None if is_noun else verb_at(tokens[at:])
        if before == "no" and found is not None and found[2] == "base":
            found, is_noun = None, True  # "by no stretch of the imagination"
        if found is not None:
            verb, length, form, rest = found
            if word in LEADING and verb in _WEAK and length == 1 and (deep := _led(said, at + 1)) is not None:
                return deep
            inner = _inner(tokens, at, form) if length < 3 else None
            if inner is not None and (deep := _led(said, inner)) is not None:
                return deep
            if not _may_act(tokens[:at], form) or (form == "past" and rest[0] in _BEFELL and HERO.isdisjoint(tokens[:at])):
                return None
            return Lead(verb, length, tuple(rest), tuple(tokens[:at]), _denied(tokens[:at]))
        if word in ("too", "so") and (tokens[at + 2 : at + 3] == ["to"] or tokens[at + 2 : at + 4] == ["as", "to"]):
            at += 1  # "too tired to", "so bold as to"
        elif word in DETERMINERS and word not in _SUBJECTS:
            following = tokens[at + 1] if at + 1 < len(tokens) else ""
            if following not in _NOUNS | _ADJECTIVES | TURNS | HERO:
                return None
        elif not is_noun and _base(word) in _GOVERNS and word not in LEADING:
            if (inner := _inner(tokens, at, "base")) is None:
                return None
            return _led(said, inner)
        elif not is_noun and word not in LEADING and _base(word) not in LEADING and not (word.endswith("ly") and len(word) > 5):
            return None
        at += 1
    return None


def _base(word: str) -> str:
    return next((base for base, _ in forms(word) if base in _GOVERNS), word)


def _inner(tokens: list[str], at: int, form: str) -> int | None:
    """Where the lead of the verb that hangs on the one at ``at`` begins; None where none does."""
    word, end = _base(tokens[at]), len(tokens)
    if word == "find" and not {"myself", "yourself", "it", "that"} & set(tokens[at + 1 : at + 2]):
        return None  # "find dining chairs"
    if word not in _GOVERNS | _BARE | PAIRED or (word == "dream" and NO.isdisjoint(tokens[:at])):
        return None
    if word in PAIRED and tokens[at + 1 : at + 2] == ["and"]:
        return at + 2
    if word in _BARE:
        to = at + 1 + (tokens[at + 1 : at + 2] in (["me"], ["us"], ["him"], ["her"], ["to"]) and word in ("let", "help", "make"))
        if to < end and tokens[to] in ("not", "never"):
            to += 1
        hung = verb_at(tokens[to:])
        if hung is not None and hung[2] == "base" and tokens[to] not in OBJECTS and tokens[to] not in LANDMARKS:
            return at + 1
    if word not in _GOVERNS or (word == "let" and tokens[at + 1 : at + 2] not in (["me"], ["us"])):
        return None
    to = at + 1
    while to < end and (tokens[to] in _BETWEEN or _is_lead_noun(tokens, to)) and not is_gerund(tokens[to]):
        to += 1
    if word == "spend":
        to = next((k for k in range(at + 1, min(end, at + 6)) if is_gerund(tokens[k])), end)
        return to if to < end else None
    if to < end and (tokens[to] == "to" or is_gerund(tokens[to])):
        return at + 1
    if word in _SUPPOSING and any(token in ("i", "we", "you", "it", "the", "my", "our") for token in tokens[at + 1 : at + 5]):
        return at + 1
    return None


def _is_lead_noun(tokens: list[str], at: int) -> bool:
    """``the temptation`` in ``resist the temptation to``."""
    return tokens[at] in _NOUNS or (tokens[at] in DETERMINERS and tokens[at + 1 : at + 2] != [] and tokens[at + 1] in _NOUNS)


def is_gerund(word: str) -> bool:
    """True for ``walking``, and for ``wanting``."""
    return word.endswith("ing") and any(form == "ing" and (base in FIRSTS or base in _GOVERNS) for base, form in forms(word))


def _may_act(lead: list[str], form: str) -> bool:
    """Whether a verb of this form is an act after these words, and no statement about what is or was."""
    subjects = [word for word in lead if word in _SUBJECTS]
    who = subjects[-1] if subjects else ""
    is_told = who in ("he", "she") or who in HERO
    if ({"nobody", "none"} & set(lead) or who in _ANYONE) and {"will", "would", "can", "could", "has"} & set(lead) and lead[-1] != "to":
        return "if" in lead  # what others do is told
    infinitive = bool(lead) and (lead[-1] == "to" or (lead[-1] in NO and lead[-2:-1] == ["to"]))
    if who in _THEY and not infinitive and not (_BE & set(lead) and form == "ing" and {"time"} & set(lead)):
        return "time" in lead or (bool(set(lead) & (NO - {"not"})) and form in ("base", "ing"))
    if form == "s":
        return is_told or not who
    if form == "past":
        return who in HERO or "time" in lead or (who in _NARRATED and _TOLD.isdisjoint(lead))
    if form == "ing":
        if {"been"} & set(lead) or ({"was", "were"} & set(lead) and who not in HERO):
            return False
        return not lead or bool(set(lead) - _SUBJECTS)
    return infinitive or {"had", "has", "having"}.isdisjoint(lead) or not {"better", "rather"}.isdisjoint(lead)


def _denied(lead: list[str]) -> bool:
    pure = [at for at, word in enumerate(lead) if word in NO and lead[0] != "why"]
    is_no_reason = len(pure) > 1 and not {"why", "reason"}.isdisjoint(lead[pure[0] :])
    denied = bool(pure) and not is_no_reason and not any(word in _CANCEL for word in lead[pure[0] :])
    turned = sum(_turns(lead, at) for at in range(len(lead)))
    return denied is not bool(turned % 2)


def _turns(lead: list[str], at: int) -> bool:
    word, before, behind = lead[at], lead[at - 1] if at else "", lead[at + 1 : at + 3]
    if word in ("from", "against"):
        return at > 0 and not _turns(lead, at - 1)
    if word == "too":
        return behind[1:] == ["to"] and not _turns(lead, at + 1)  # "too weak to"
    if (word == "last" and before == "at") or (_base(word) == "stop" and behind[:1] == ["to"]):
        return False  # "stops to listen"
    if word in ("tired", "sick", "done", "finished"):
        return behind[:1] in (["of"], ["with"]) or (
            word in ("done", "finished") and at == len(lead) - 1
        )  # "tired of waiting", "done waiting"
    return word in TURNS or _base(word) in TURNS


def verb_at(tokens: list[str]) -> tuple[str, int, str, list[str]] | None:
    """The verb whose phrase begins the tokens: the resolver's verb, how many words, in which form, and the tokens with its base form."""
    if not tokens:
        return None
    if len(tokens) > 2 and tokens[1] in MANNERS - {"there", "here", "away", "straight", "first"}:
        tokens = [tokens[0], *tokens[2:], tokens[1]]  # "slip quietly out"
    if tokens[1:2] in (["me"], ["us"], ["myself"]) and tokens[2:3] and tokens[2] in DETERMINERS and tokens[0] in _FOR_ME:
        tokens = [tokens[0], *tokens[2:]]  # "make me a fire"
    own = [_OWN.get(word, word) for word in tokens[1:]]
    tokens = _joined(tokens)
    if tokens[0] in ("set", "setting") and tokens[-1] in ("fire", "alight", "ablaze"):
        return "burn", 1, "base" if tokens[0] == "set" else "ing", ["set", *tokens[1:]]
    for base, form in [(tokens[0], "base"), *forms(tokens[0])]:
        if (idiom := begun(_IDIOMS.get(base, ()), [base, *own])) is not None:
            return idiom[0], idiom[1], form, idiom[2]
    light = _light(tokens)
    if light is not None:
        return light
    others = [_OWN.get(word, word) for word in tokens[1:LONGEST_PHRASE]]
    if tokens[0] == "be" and tokens[1:2] != [] and tokens[1] in _ADJECTIVES:
        return verb_at(["be", *tokens[2:]])  # "be good friends"
    for length in range(min(LONGEST_PHRASE, len(tokens)), 0, -1):
        for base, form in [(tokens[0], "base"), *forms(tokens[0])]:
            if (verb := PHRASES.get(" ".join([base, *others[: length - 1]]))) is not None:
                return verb, length, form, [base, *tokens[1:]]
    for base, form in [(tokens[0], "base"), *forms(tokens[0])]:
        if base in _HEADS:
            return _HEADS[base], 1, form, [base, *tokens[1:]]
    return None


def _joined(tokens: list[str]) -> list[str]:
    """With the particle beside its verb: ``pick it up`` is ``pick up it``; not where a phrase has it there, as ``put my hands up``."""
    own = [tokens[0], *[_OWN.get(word, word) for word in tokens[1:LONGEST_PHRASE]]]
    for at in range(2, min(len(tokens), 6)):
        if " ".join(own[: at + 1]) in PHRASES:
            return tokens
        if (
            tokens[at] in ("up", "down", "away", "off", "out", "apart")
            and tokens[at - 1] not in PREPOSITIONS
            and {"to", "and"}.isdisjoint(tokens[1:at])  # "take the rope to climb down"
            and f"{tokens[0]} {tokens[at]}" in PHRASES
        ):
            return [tokens[0], tokens[at], *tokens[1:at], *tokens[at + 1 :]]
    return tokens


def _light(tokens: list[str]) -> tuple[str, int, str, list[str]] | None:
    """Verbs of a noun: ``take a quick nap`` is ``nap``, ``give Anna a hug`` is ``hug Anna``, ``go for a swim`` is ``swim``."""
    first = next((base for base, _ in [(tokens[0], ""), *forms(tokens[0])] if base in _LIGHT), tokens[0])
    start = 1
    if first == "go" and tokens[1:2] == ["for"]:
        start = 2
    elif first not in _LIGHT | {"make"}:
        return None
    for at in range(start, min(len(tokens) - 1, start + 4)):
        if tokens[at] not in ("a", "an", "some", "another", "one"):
            continue
        for noun in range(at + 1, min(len(tokens), at + 3)):
            word = next((base for base, _ in [(tokens[noun], ""), *forms(tokens[noun])] if base in PHRASES), None)
            is_thing = tokens[noun] in OBJECTS or tokens[noun] in LANDMARKS
            if word is None or is_thing or PHRASES[word] == IMPOSSIBLE_VERB or " ".join([first, *tokens[1 : noun + 1]]) in PHRASES:
                continue
            verb, whom = PHRASES[word], tokens[start:at]
            behind = tokens[noun + 1 :]
            if whom and (first not in ("give", "pay") or FRAMES.get(verb, "thing") in ("move", "hand")):
                continue
            if first == "make" and verb not in ("go", "rest", "swim", "look", "sleep", "talk", "return"):
                continue
            if behind[:1] and first == "give" and behind[0] == "to":
                behind = behind[1:]
            return verb, 1, "base", [word, *whom, *behind]
    return None
