"""Lines as people type them, made from the frames and leads of :mod:`.phrasing`, with what each word of them is."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

from wgtorch.blocks.simulation import wordings
from wgtorch.blocks.simulation.action import UNKNOWN_VERB
from wgtorch.blocks.simulation.inflection import inflected
from wgtorch.blocks.simulation.normalization import written_out
from wgtorch.blocks.simulation.phrases import FRAMES, PHRASES, VERBS
from wgtorch.blocks.simulation.readers import MOODS, TAGS, tokenized
from wgtorch.train.simulation import phrasing, tongues
from wgtorch.train.simulation.misspelling import misspelled
from wgtorch.train.simulation.nouns import MARKS, PLACES, RARE, Nouns, tag_of
from wgtorch.train.simulation.readings import foreign_line

LONGEST = 40
"""Words of a line."""


def _rows(text: str) -> list[str]:
    return [said for row in written_out(text).strip().splitlines() for said in row.split("|") if said]


def _table(text: str) -> dict[str, list[str]]:
    rows = (row.split(" | ", 1) for row in written_out(text).strip().splitlines())
    return {verb: said.split("|") for verb, said in rows}


def _turns() -> list[tuple[str, str]]:
    """Frames out of :data:`tongues.TURNS`: what stands there as an example becomes a place for others of its kind."""
    slots = {"{t}": "lamp ring key book apple", "{w}": "miller smith fisher Anna Bruno", "{k}": "castle house tower windmill bridge inn"}
    found = []
    for (verb, *_), said in tongues.english_phrases():
        for turn in map(written_out, said):
            for slot, names in slots.items():
                turn = re.sub(rf"\b(?:the |a |an )?(?:{'|'.join(names.split())})\b(?!')", slot, turn)
            if (
                verb in VERBS
                and verb not in ("remark", UNKNOWN_VERB)
                and turn.startswith("i ")
                and "'s" not in turn
                and not turn.startswith(("i do", "i am", "i have"))
            ):
                found.append((verb, turn[2:].replace("{w}", "{r}") if verb in ("give", "steal", "trade") else turn[2:]))
    return found


_FRAMES, _WHOLE = _table(wordings.FRAMES), [(verb, said) for verb, rows in _table(phrasing.WHOLE).items() for said in rows]
_TURNS = _turns()
_PASSIVE, _INVERTED = (
    [(mood, said) for mood, text in pairs for said in written_out(text).split("|")]
    for pairs in (
        (("do", phrasing.PASSIVE_DO), ("not", phrasing.PASSIVE_NOT)),
        (("do", phrasing.INVERTED_DO), ("not", phrasing.INVERTED_NOT)),
    )
)
_OBJECTS = [
    (verb, frame)
    for verb, rows in _FRAMES.items()
    for frame in rows
    if re.fullmatch(r"\w+ \{\w+\}", frame) and not frame.endswith(("{d}", "{r}"))
]
_PHRASED = frozenset("perform cook gather dig light extinguish eat look write craft plant read wait pray wish".split())
_DO, _NOT, _UNREAL, _ASKS, _REMARKS, _FRONTS, _TAILS = map(
    _rows, (phrasing.DO, phrasing.NOT, phrasing.UNREAL, phrasing.ASKS, phrasing.REMARKS, phrasing.FRONTS, phrasing.TAILS)
)
_AFFIRMED, _DENIED, _HYPOTHETICAL, _OTHERS, _CONSIDERED, _BOTH = map(
    _rows, (phrasing.AFFIRMED, phrasing.DENIED, phrasing.HYPOTHETICAL, phrasing.OTHERS, phrasing.CONSIDERED, phrasing.BOTH)
)
_MARKED = {"": None, "!": "not", "?": "unreal", "-": "told"}
_VERB = re.compile(r"\{([bidsB])([!?-]?)\}")
_PLAIN = "{b}|{b}|{b}|{b}|i {b}|i {b}|please {b}|let us {b}|we {b}|i will {b}|i want to {b}|i am going to {b}|can we {b}|can i {b}|i {d}|she {d}|he {s}".split(
    "|"
)
_PLAIN_NOT = "do not {b}|do not {b}|i will not {b}|never {b}|i do not {b}|i do not want to {b}|let us not {b}|please do not {b}|i did not {b}|stop {i}".split(
    "|"
)
_UNHEARD = _rows(phrasing.UNHEARD)
_NARRATED = [lead for lead in _DO if lead.endswith(("{d}", "{s}")) or lead in ("i {b}", "we {b}", "i will {b}", "let us {b}")]
_PURPOSES = " to | to | in order to | so that i can | so i can | so as to | and so | where i can | for i want to ".split("|")
_RELATIVES = _rows(phrasing.RELATIVES)
_JOINS, _IFS, _EXCLUDED = phrasing.JOINS.split("|"), phrasing.IFS.split("|"), phrasing.EXCLUDED.split("|")
_BEHIND = {"move": ("to {p}", "{d}", "towards {p}"), "hand": ("{t} to {r}", "{r} {t}"), "get": ("{t}", "{t} from {r}"), "person": ("{w}",),
           "topic": ("{x}",), "colour": ("{k} {c}",), "thing": ("{t}",)}  # fmt: skip
_SMALL = frozenset("i we my the a an to is , o let please so be would could may of has you your it and".split())


@dataclass
class Said:
    """Words with what they are: the tag of each, the verb that it is the head of, its mood, and whether a clause begins with it."""

    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    moods: list[str] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)

    def add(self, text: str, tag: str = "other", verb: str = "", mood: str = "do") -> Said:
        """Puts words behind; of a verb the first is its head."""
        for at, word in enumerate(tokenized(text)):
            self.words.append(word)
            self.tags.append(tag)
            self.heads.append(verb if not at else "")
            self.moods.append(mood)
            self.starts.append(False)
        return self

    def join(self, other: Said, *, starts: bool = False) -> Said:
        """Puts another behind, as a clause of its own or not."""
        begin = len(self.words)
        for name in ("words", "tags", "heads", "moods", "starts"):
            getattr(self, name).extend(getattr(other, name))
        if starts and begin < len(self.words):
            self.starts[begin] = True
        return self

    def without(self, small: frozenset[str]) -> Said:
        """The same without some words, as in haste: ``take lamp``."""
        chosen = [at for at, word in enumerate(self.words) if word not in small or self.heads[at]] or [0]
        return Said(*([getattr(self, name)[at] for at in chosen] for name in ("words", "tags", "heads", "moods", "starts")))

    def told(self) -> Said:
        """The same words, of which none is an act: what is only said of something."""
        blank = len(self.words)
        return Said(list(self.words), ["other"] * blank, [""] * blank, ["do"] * blank, [False] * blank)


class Grammar(Nouns):
    """Makes lines from a generator of numbers."""

    def line(self) -> Said:
        """One line of one to three clauses."""
        chance = self.rng.random()
        if chance < 0.05:
            return self.unheard()
        if chance < 0.11:
            return self.question()
        if chance < 0.15:
            return self.remark()
        if chance < 0.22:
            return self.told("remark", self.rng.choice(_OTHERS))
        if chance < 0.27:
            return self.told("ask", self.rng.choice(_CONSIDERED))
        if chance < 0.39:
            return self.unreal()
        if chance < 0.70:
            return self.fronted(self.clause())
        if chance < 0.78:
            return self.fronted(self.led(self.rng.choice(_BOTH), "do", tail=self.rng.random() < 0.3))
        return self.several()

    # --- lines of a kind -------------------------------------------------------------------------------------------
    def unheard(self) -> Said:
        """What nobody here does, another language, and words that are no words."""
        way = self.rng.random()
        if way < 0.4:
            lead = self.rng.choice((*_PLAIN, *_PLAIN, self.rng.choice(_DO)))
            found = self.led(lead, "do", of=(UNKNOWN_VERB, self.rng.choice(_UNHEARD)))
            return found.told()
        if way < 0.75:
            return Said().add(foreign_line(self.rng)).told()
        letters = "abcdefghijklmnopqrstuvwxyz"
        said = ("".join(self.rng.choices(letters, k=self.rng.randint(2, 9))) for _ in range(self.rng.randint(1, 6)))
        lead = self.rng.choice(("", "", "i ", "please ", "the ", "go ", "do the "))
        return Said().add(lead + " ".join(said))

    def question(self) -> Said:
        said = self.filled(f" {self.rng.choice(_ASKS)}", "ask")
        return said.add("?") if self.rng.random() < 0.6 else said

    def remark(self) -> Said:
        said = self.filled(self.rng.choice(_REMARKS), "remark").told()
        if self.rng.random() < 0.3:
            said.add(self.rng.choice((", and ", ". ", ", but ", "! "))).join(self.filled(self.rng.choice(_REMARKS), "remark").told())
        said.heads[0] = "remark"
        return said

    def told(self, verb: str, lead: str) -> Said:
        """What holds verbs and names no act: a remark, or a question."""
        said = self.led(lead, "do", tail=False)
        if self.rng.random() < 0.25:
            said.join(self.filled(self.rng.choice(_TAILS), "remark").told())
        said.heads[0] = verb
        if verb == "ask":
            return said.add("?") if self.rng.random() < 0.75 else said
        return said.add(self.rng.choice((".", ".", "!", "..."))) if self.rng.random() < 0.3 else said

    def unreal(self) -> Said:
        lead = self.rng.choice(_UNREAL if self.rng.random() < 0.5 else _HYPOTHETICAL)
        said = self.led(lead, "unreal")
        if lead.split()[0] in _ASKING and not lead.startswith(("what if", "what would", "what happens")):
            said = said.told()
            said.heads[0] = "ask"
        return said.add("?") if self.rng.random() < 0.2 or said.words[0] == "what" else said

    def several(self) -> Said:
        """Two or three acts; one instead of another; one after another; a remark and an act."""
        kind = self.rng.random()
        if kind < 0.5:
            lead = self.rng.choice(_NARRATED if self.rng.random() < 0.35 else _DO)
            form = re.findall(r"\{[bids]\}", lead)[-1]
            said = self.clause(lead)
            for _ in range(1 if self.rng.random() < 0.8 else 2):
                join = self.rng.choice(_JOINS)
                if join.strip() == "before":
                    return said.add(join).join(self.clause("{i}"), starts=True)
                said.add(join).join(self.clause(form if self.rng.random() < 0.75 else None), starts=True)
            return said
        if kind < 0.62:
            rest = self.clause() if self.rng.random() < 0.6 else self.led(self.denied(), "not")
            told = self.filled(self.rng.choice(_REMARKS), "remark").told()
            return told.add(self.rng.choice((", so ", ", ", " so ", ". ", " and ", ", but ", "! ", " ", ", now "))).join(rest, starts=True)
        if kind < 0.72:
            return self.contrast()
        if kind < 0.75:
            return self.led("{i}", "do", tail=False).told().add(", ").join(self.clause(self.rng.choice(_NARRATED)), starts=True)
        if kind < 0.82:
            front, mood = self.rng.choice((("after ", "do"), ("before ", "later"), ("having ", "do"), ("on ", "do")))
            first = self.led("{d}" if front == "having " and self.rng.random() < 0.3 else "{i}", mood)
            return Said().add(front).join(first).add(", ").join(self.clause(), starts=True)
        if kind < 0.9:
            denied = self.led(self.denied(), "not")
            join = self.rng.choice((", but ", " but ", ", just ", ", instead ", "; ", ". ", " and ", " - ", ", "))
            return denied.add(join).join(self.clause("{b}" if self.rng.random() < 0.5 else None), starts=True)
        if kind < 0.95:
            denied = self.led(self.denied(), "not")
            return denied.add(self.rng.choice((" or ", " nor ", " and don't "))).join(self.led("{b}", "not", tail=False), starts=True)
        said = self.clause(tail=False)
        return said.join(self.filled(self.rng.choice(_EXCLUDED), "remark").told())

    def contrast(self) -> Said:
        """``instead of X, Y`` and its like: of two acts one is only named."""
        first, other = self.led("{i}", "unreal", tail=False).told(), self.clause()
        base = self.led("{b}", "unreal", tail=False).told()
        rng = self.rng
        way = rng.randrange(6)
        if way == 0:
            return Said().add(rng.choice(("instead of ", "rather than "))).join(first).add(", ").join(other, starts=True)
        if way == 1:
            return other.add(rng.choice((" instead of ", " rather than ", ", instead of "))).join(first)
        if way == 2:
            return Said().add("rather than ").join(base).add(", ").join(other, starts=True)
        if way == 3:
            return (
                self.led(rng.choice(("i'd rather {b}", "i would rather {b}", "i'd sooner {b}", "better to {b}")), "do", tail=False)
                .add(" than ")
                .join(base)
            )
        if way == 4:
            return (
                self.led(
                    rng.choice(("i thought of {i}", "i was going to {b}", "i wanted to {b}", "i considered {i}", "i could {b}")),
                    "unreal",
                    tail=False,
                )
                .add(rng.choice((", but instead ", ", but ", " but instead ")))
                .join(self.clause(), starts=True)
            )
        return (
            Said()
            .add(rng.choice(("not to ", "not ")))
            .join(base)
            .add(rng.choice((" but to ", ", but to ")))
            .join(self.led("{b}", "do"), starts=True)
        )

    # --- clauses ---------------------------------------------------------------------------------------------------
    def clause(self, lead: str | None = None, *, tail: bool = True) -> Said:
        """One act with its lead; now and then one that is not to be done."""
        if lead is None and (chance := self.rng.random()) < 0.45:
            return self.led(self.denied(), "not", tail=tail) if chance < 0.25 else self.phrased("do")
        chance = self.rng.random()
        return self.led(lead or self.rng.choice(_DO if chance < 0.5 else _AFFIRMED if chance < 0.72 else _PLAIN), "do", tail=tail)

    def denied(self) -> str:
        chance = self.rng.random()
        return self.rng.choice(_NOT if chance < 0.42 else _DENIED if chance < 0.8 else _PLAIN_NOT)

    def phrased(self, mood: str) -> Said:
        """A clause without a lead: whole, in the passive voice, or with what it is about in front."""
        way = self.rng.random()
        if way < 0.6:
            verb, said = self.rng.choice(_WHOLE)
            return self.filled(f" {said}", verb, mood=mood)
        mood, said = self.rng.choice(_PASSIVE if way < 0.8 else _INVERTED)
        verb, frame = self.rng.choice(_OBJECTS)
        base, slot = frame.split()
        found = Said()
        for piece in re.split(r"(\{\w\})", said):
            if piece == "{x}":
                found.add(self.np(slot[1:-1]), tag_of(slot[1:-1], verb, FRAMES.get(verb, "thing")))
            elif piece in ("{b}", "{p}"):
                found.add(inflected(base, piece[1]), "verb", verb, mood)
            else:
                found.add(piece)
        return found

    def led(self, lead: str | None, mood: str, *, tail: bool = True, of: tuple[str, str] | None = None) -> Said:
        """A lead with its verb in the form that it asks for."""
        if lead is None:
            return self.phrased(mood)
        verb, frame = of or self.frame()
        said = Said()
        starts = False
        for piece in re.split(r"(\{\w+[!?-]?\}|/ )", lead):
            if form := _VERB.fullmatch(piece):
                mood_here = _MARKED[form[2]] or mood
                if said.heads and (any(said.heads) or form[2]) and of is None:
                    verb, frame = self.frame()
                if re.match(r"(?:.* )?(?:he|she|hero|heroine|traveller|character) ", lead) and self.rng.random() < 0.7:
                    own = "his" if " he " in f" {lead} " else "her"
                    frame = re.sub(r"\bmy\b", own, re.sub(r"\bmyself\b", f"{'him' if own == 'his' else 'her'}self", frame))
                act = self.filled(frame, verb, form[1].lower(), "do" if mood_here == "told" else mood_here)
                said.join(act.told() if mood_here == "told" else act, starts=starts)
                starts = False
                if mood_here == "told":
                    continue
                if tail and (chance := self.rng.random()) < 0.28:
                    said.add(self.rng.choice(("", "", ", "))).join(self.filled(self.rng.choice(_TAILS), "remark").told())
                elif tail and chance < 0.33:
                    said.add(self.rng.choice(_PURPOSES)).join(self.led("{b}", "do", tail=False).told())
            elif piece == "{remark}":
                said.join(self.filled(self.rng.choice(_REMARKS), "remark").told())
            elif piece == "{if}":
                said.add(f"{self.rng.choice(_IFS)} ").join(self.filled(self.rng.choice(_REMARKS), "remark").told())
            elif piece == "/ ":
                starts = True
            elif piece.startswith("{"):
                said.add(self.np(piece[1:-1]))
            elif piece:
                begin = len(said.words)
                said.add(piece)
                if starts and begin < len(said.words):
                    said.starts[begin], starts = True, False
        return said

    def frame(self) -> tuple[str, str]:
        if self.rng.random() < 0.25:
            phrase = self.rng.choice(_PHRASES)
            verb, last = PHRASES[phrase], phrase.split()[-1]
            kind = FRAMES.get(verb, "thing")
            behind = self.rng.choice(_BEHIND[kind]) if self.rng.random() < 0.8 else ""
            if last in ("to", "with", "from", "for", "about", "at", "of", "on", "into", "away", "the", "a", "an"):
                behind = {"move": "{p}", "hand": "{t}"}.get(kind, behind)
            return verb, f"{phrase} {behind}".strip()
        if self.rng.random() < 0.1:
            return self.rng.choice(_TURNS)
        verb = self.rng.choice(_WEIGHTED)
        return verb, self.rng.choice(_FRAMES[verb])

    def _vp(self) -> str:
        """What somebody else is to do."""
        verb, frame = self.frame()
        return " ".join(self.filled(frame if "{vp}" not in frame else "rest", verb).words)

    def fronted(self, said: Said) -> Said:
        """Now and then with something in front: an adverbial, somebody's name, a sigh."""
        if self.rng.random() < 0.16:
            front = self.rng.choice(_FRONTS)
            said = Said().add(front + self.rng.choice((", ", ", ", " "))).join(said)
        if self.rng.random() < 0.3:
            said.add(self.rng.choice((".", "!", "?" if said.words[0] in _ASKING else ".", "...", "!!")))
        return said

    def filled(self, frame: str, verb: str, form: str = "b", mood: str = "do") -> Said:
        """A frame with words for its places; the first word of a verb's is bent as asked."""
        said = Said()
        kind = FRAMES.get(verb, "thing")
        if frame.startswith(" "):
            frame = frame[1:]
        elif verb != "remark":
            first, _, frame = frame.partition(" ")
            said.add(inflected(first, form), "verb", verb, mood)
        for piece in re.split(r"(\{\w+\})", frame):
            if piece.startswith("{"):
                said.add(self.np(piece[1:-1]), tag_of(piece[1:-1], verb, kind))
                if self.rng.random() < 0.04 and verb != "remark":
                    said.join(self.filled(self.rng.choice(_RELATIVES), "remark").told())
            elif (
                verb in _PHRASED
                and "{" not in frame
                and (noun := re.search(r"(?:^| )((?:the|a|an|some|my) \w+(?: \w+)?)$", piece)) is not None
            ):
                said.add(piece[: noun.start(1)]).add(noun[1], "target")
            else:
                said.add(piece)
        if verb != "remark" and said.words and not any(said.heads):  # a whole clause: the first word that is no thing or person of it
            acts = (at for at, tag in enumerate(said.tags) if tag == "other" and said.words[at] not in _SMALL and verb != "ask")
            at = next(acts, 0)
            said.heads[at], said.moods[at] = verb, mood
        return said


_PHRASES = sorted(phrase for phrase, verb in PHRASES.items() if phrase.isascii() and verb in _FRAMES)
_WEIGHTED = [verb for verb, said in _FRAMES.items() for _ in range(max(1, round(len(said) ** 0.5)))]
_ASKING = frozenset("shall should why how what could can would will may might do is who when where did does have".split())
_ENDS = (
    "before anybody notices|as the song says|for old times' sake|with all my might|like in the old days|one more time for luck|for the fun of it|as grandmother would|"
    "to everyone's surprise|out of sheer curiosity|with a heavy sigh|as best one can|like a true wanderer|at long last|my friend of old|and nothing else"
).split("|")


def line(rng: random.Random) -> dict[str, list[int] | list[str]]:
    """One line of the grammar, spelled as people do: its words, and by word tag, verb (0 for none), mood and whether a clause begins."""
    said = Grammar(rng).line()
    if len(said.words) < 9 and RARE.isdisjoint(map(str.lower, said.words)):
        said.add(rng.choice(_ENDS) if rng.random() < 0.5 else f"in the {rng.choice(MARKS)} {rng.choice(PLACES)}")
    sloppy = rng.choice((0.0, 0.0, 0.0, 0.0, 0.15, 0.35))
    if rng.random() < 0.07:
        said = said.without(frozenset(("the", "a", "an", "my")))
    words = [misspelled(word, rng, sloppy) for word in said.words]
    if rng.random() < 0.4 and words:
        words[0] = words[0].capitalize()
    return {
        "words": words[:LONGEST],
        "tags": [TAGS.index(tag) for tag in said.tags[:LONGEST]],
        "heads": [1 + VERBS.index(verb) if verb else 0 for verb in said.heads[:LONGEST]],
        "moods": [MOODS.index(mood) for mood in said.moods[:LONGEST]],
        "starts": [int(start) for start in said.starts[:LONGEST]],
    }
