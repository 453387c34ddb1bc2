"""Reading actions: words in, ``{verb, target, place, manner, negated, polite}`` out. Rules first; a trained reader where they end."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import UNKNOWN_VERB, Action
from wgtorch.blocks.simulation.arguments import AUXILIARIES, SPEAKERS, by_what_follows, with_arguments, without_purpose, without_relative
from wgtorch.blocks.simulation.cast import NAMES, ROLES
from wgtorch.blocks.simulation.clauses import PEOPLE, clauses
from wgtorch.blocks.simulation.leads import HERO, NO, SELF, Lead, all_lead, led, verb_at
from wgtorch.blocks.simulation.lexicon import DETERMINERS, MANNERS, named_in, words
from wgtorch.blocks.simulation.normalization import active, normalized
from wgtorch.blocks.simulation.phrases import FRAMES, PHRASES, PREPOSITIONS
from wgtorch.blocks.simulation.quantities import MOST_ACTIONS, for_each

_QUESTION_WORDS = frozenset("what where who whom whose why when which how".split())
_MEANT = frozenset(["not", "do", "use", "be"])
_OFFERS = frozenset("will can could would may might shall do".split())
NEGATORS = frozenset("don't dont not never no won't wont can't cannot didn't isn't doesn't shouldn't wouldn't mustn't".split())
THOUGHT = "and no more"
"""Manner of a remark that is none by its verb: what is only thought of, or told."""
DENIERS = NEGATORS | NO
_PRONOUNS = frozenset(("it", "them", "him", "her", "that", "this"))
_NOTHING = frozenset(("nothing", "nobody", "nowhere", "no one", "none", "no place"))
_WISH = re.compile(
    r"^(?:would that|may it\b(?= )|if only|oh for|i (?:do )?wish(?! (?:to|for)\b)|i (?:do )?dream of|i hope(?! to\b)|may there be|let there be|how i wish)\b ?"
)
_EXCLUDED = re.compile(
    r"[\s,]+(?:and just not|just not|only not|but not|but|except for|except|other than|rather than|instead of|apart from|and not|(?<=,)\s*not)\s+((?:to |into |in |at |near )?.+)$"
)
_RATHER = re.compile(
    r"^(?P<first>.*?)\b(?:do |does |will |can )?(?P<no>not|never) (?P<what>.+?),? but (?:rather |instead )?(?P<other>.+?)(?: instead)?$"
)
_STATEMENT = re.compile(
    r"^(?:there|it|this|that|these|those|he|she|they|everything|the [\w' -]+?|my [\w' -]+?|i|we|you|[\w']+) "
    r"(?:is|are|was|were|am|has been|have been|seems?|looks? (?=\w+$)|feels? (?=\w+$)|never|always|used to)\b"
)
_SUGGESTED = re.compile(
    r"^(?:(?:can|could|will|would|should|shall|might) not (?:we|you|i)|how about|what about|why not|why do not (?:we|you|i)|what if we|what do you say we|what say we|do not (?:you|we) think (?:that )?(?:we|i) (?:should|could|ought to|had better)|is not it (?:high |about )?(?:time|better|best|wiser) (?:to|for us to|that we|we)|would not it be \w+ (?:to|if we)|how would you like to|how do you feel about|do you fancy)\b ?"
)
_JUDGED = re.compile(r"^(?P<what>(?:\w+ing|to \w+) .+?) (?:is|are|would be|seems|sounds|looks|feels)(?: like)? (?P<how>.+)$")
_TREAT = re.compile(
    r"^(?:how about|what about|(?:\w+ \w+ )?(?:it is |now )?(?:high |about )?time for|i (?:could|can) (?:do with|use)|i (?:feel like|fancy|want|need)|i am (?:ready|up) for|"
    r"anyone for|who is up for|fancy) (?P<what>(?:a|an|another) .+)$"
)
_TREATS = frozenset("sleep rest swim eat go wander perform look talk".split())
_ENOUGH = re.compile(r"^(?:that is )?enough (?:of )?(?:all )?(?:this |that |the |your |my )?(?P<what>\w+ing\b.*|\w+)$")
_HANDS_OFF = re.compile(r"^(?:keep (?:your|my|our) )?(?:hands|paws|fingers) off (?P<what>.+)$")
_SAID = re.compile(
    r"^(?:\w+ing (?:is|was|can be|may be)\b|i (?:would|should) be lying\b|it is said\b|i (?:mean|meant|intend|intended) no \w+|(?:just|exactly) what (?:i|we) (?:always )?(?:need|needed|want|wanted)\b|there (?:is|was) (?:nothing|nobody|no \w+) (?:left )?to (?!do but|be done but)\w+|the (?:very |mere |whole )?(?:idea|thought|prospect|notion) of \w+ing\b(?!.*\b(?:appeals|delights|pleases|thrills)\b)"
    r"|(?:the|my|that|this|our) [\w' -]+? (?:is|are|was|were|has been|have been) (?:already |now |just )?\w+(?:ed|en|nt|own|ung)$)"
)
"""What is only said, whatever verb it holds."""
_UNREAL = re.compile(
    r"^(?:in (?:my|a|the|this|that) (?:\w+ )?(?:dream|nightmare|story|tale|song|legend)|(?:one|some) ?day (?=(?:\w+ )?(?:i|we)\b)|let us (?:say|suppose|pretend|imagine)|suppose|"
    r"(?:just )?imagine (?:(?:if|that) )?(?:i|we|me|us)|hypothetically|in theory|theoretically|(?:yesterday|before (?:an|one|two|some) (?:hours?|days?|weeks?)|long ago|years ago|last (?:night|week|month|year|summer|winter)) (?:i|we)|"
    r"(?:i|we) (?:very )?(?:nearly|almost|accidentally)|(?:maybe |perhaps )?(?:i|we) (?:would|could|might|should) have (?!to\b)\w+(?:ed|en|nt|ne|t|d)\b|(?:i |we )?(?:only |just )?pretend to(?! be)|(?:i|we) had (?:always |once )?(?:meant|intended|wanted|planned|hoped|thought)"
    r"|(?:i|we) (?:am|was|are|were) (?:only |just )?(?:thinking|dreaming) (?:to|of|about) .* not sure"
    r"|(?:i|we) (?:do |can |could |still |often |always |well |now )*(?:remember|recall|regret|miss|enjoy|love|like|hate) (?:once )?\w+ing|(?:just |only )?imagine \w+ing)\b|^(?:i|we) \w+ .*\b(?:yesterday|last night|years ago|a while ago|long ago)$"
)
"""What belongs to the past, to a dream, to a day to come, to a supposition."""
_OUT_OF = re.compile(r"\b(?:out of the question|not allowed|off limits|no option|not an option)\b")
_LEFT_ALONE = re.compile(
    r"^(?P<lead>.*\b)?(?:leave|let) (?P<what>(?!me\b|us\b).+?) (?:alone|be|where (?:it|he|she) is|where they are|as (?:it|he|she) is|in peace)$"
)
_LET_KNOW = re.compile(r"^(?:please )?let (?P<who>(?!me\b|us\b)(?:the )?\w+) (?:know|hear)(?: that| of| about)? ?(?P<what>.*)$")
_LET_GO = re.compile(r"^.*\blet (?P<who>(?!me\b|us\b)(?:the |that |this )?\w+) (?:go|free|loose)(?: free| please| now)*$")
_SOONER = re.compile(r"^(?P<first>.*\b(?:sooner|rather) .+) than (?P<other>.+)$")
_COMES = frozenset("come join follow accompany go".split())
_CALLED = re.compile(rf"(?i)^(?:(?:hey|oh|dear|hello|hi|my dear|good \w+),? )?(?P<who>{PEOPLE})\s*[,:!;]+\s*(?P<what>.+?)(?P<end>[.!?]*)$")
_CALLED_LAST = re.compile(rf"(?i)^(?P<what>.+?),\s*(?:dear |my dear |good |my friend )?(?P<who>{PEOPLE})(?P<end>[.!?]*)$")
_SHORT = {
    "l": "look",
    "i": "inventory",
    "inv": "inventory",
    "z": "wait",
    "g": "again",
    "n": "go north",
    "e": "go east",
    "s": "go south",
    "w": "go west",
}


def _place_alone(tokens: list[str]) -> Action | None:
    """Going there, where a line is a land or a building and nothing else: ``forest``, ``straight to the old mill``."""
    while tokens and (tokens[0] in MANNERS or tokens[0] in ("to", "into", "towards", "onwards", "on", "off", "now", "then")):
        tokens = tokens[1:]
    said = lexicon.bare(" ".join(tokens))
    if said == "home":
        return Action("return", place="home")
    known = said in lexicon.TERRAINS or (said in lexicon.LANDMARKS and said not in PHRASES)
    return Action("go", place=said) if known and said not in PHRASES else None


def without_markup(text: str) -> str:
    """A line without tags, stars, prompts and points within numbers."""
    plain = re.sub(r"(?<=\d)[.,](?=\d)", "", unicodedata.normalize("NFKC", text))
    return re.sub(r"<[^<>]{0,200}>|[*_`#|\[\]{}\\~^]+|^\s*[>/$]+\s*(?:me\b)?", " ", plain)


class RuleReader:
    """Reads actions by rules over :mod:`~wgtorch.blocks.simulation.phrases`; what no rule knows has the verb ``unknown``."""

    def read(self, text: str) -> list[Action]:
        """One action for each clause of the line."""
        plain = without_markup(text)
        letters = [char for char in plain if char.isalpha()]
        if not letters:
            return [Action(UNKNOWN_VERB, manner="there are no words in that", words=text)]
        if sum(char.isascii() or char in "éèêáàâäöüßñçåøæíóúœ" for char in letters) < 0.6 * len(letters):
            return [Action(UNKNOWN_VERB, manner="nobody in this land speaks that language", words=text)]
        if len(text) > 400 or max(map(len, plain.split())) > 60:
            return [Action(UNKNOWN_VERB, manner="that was too much to take in at once", words=text)]
        plain = normalized(plain)
        called = _CALLED.match(plain.strip()) or _CALLED_LAST.match(plain.strip())
        said = clauses(called["what"] + called["end"] if called else plain)
        if said is None:
            return [Action(UNKNOWN_VERB, manner="nobody can promise what hangs on an if", words=text)]
        read = [self.clause(clause) for clause in said]
        if called:
            read = [_asked_of(called["who"], action, clause) for action, clause in zip(read, said, strict=True)]
        denied = {action.verb for action in read if action.negated}
        read = [
            action
            for action, clause in zip(read, said, strict=True)
            if action.negated or action.verb not in denied or not clause.endswith("?")  # "sit? I can't sit"
        ]
        read = (
            [action for action in read if action.verb not in (UNKNOWN_VERB, "remark")]
            or [action for action in read if action.verb != UNKNOWN_VERB][:1]
            or read[:1]
        )
        if any(not action.negated for action in read):  # "don't stay, go north" needs no two goes
            read = [action for action in read if not (action.negated and action.verb in ("stay", "wait"))]
        first, *others = read
        actions = [replace(first, words=text)]
        for action in others:
            actions.append(_referred(action, next((other for other in reversed(actions) if other.target), first)))
        return [single for action in actions for single in for_each(action)][:MOST_ACTIONS]

    def clause(self, text: str) -> Action:
        """The action of one clause."""
        plain = re.sub(r"\bno one\b", "nobody", active(text.lower()))
        is_asked = text.endswith("?")
        if turned := _RATHER.match(plain.rstrip("?")):
            plain = self._instead(**turned.groupdict()) or plain
        plain, excluded = _without_excluded(plain)
        tokens = [word for word, before in pairwise_back(words(plain)) if word != before]
        joined = " ".join(tokens)
        tokens = words(_SHORT.get(joined, joined))
        if tokens[:1] == ["x"] and len(tokens) > 1:
            tokens = ["examine", *tokens[1:]]
        if not tokens:
            return Action(UNKNOWN_VERB, words=text)
        if len(tokens) <= 2 and named_in(tokens[-1], lexicon.DIRECTIONS) and (verb_at(tokens) or ("go",))[0] == "go":
            return Action("go", manner=named_in(tokens[-1], lexicon.DIRECTIONS), negated=tokens[0] in NO, words=text)
        if PHRASES.get(joined) == "again":
            return Action("again", words=text)
        if (idiom := self._idiom(tokens, text, excluded)) is not None:
            return idiom
        if self._is_question(tokens, is_asked):
            return Action("ask", target=_topic(tokens), words=text)
        lead = self._led(tokens)
        if lead is not None and lead.rest[0] == "know" and {"to", "let"}.isdisjoint(lead.words):
            lead = None  # "I know the way"
        if lead is None or lead.verb == "remark":
            called = lead is not None and next((word for word in lead.rest[1:] if word.capitalize() in NAMES or word in ROLES), None)
            if called and named_in(joined, _GREETINGS):
                return Action("reconcile" if "sorry" in tokens else "greet", target=called, words=text)
            is_said = tokens[0] in SPEAKERS or lead is not None or _STATEMENT.match(joined)
            if is_said and not is_asked:
                return Action("remark", words=text)
            if is_asked and len(tokens) > 1:
                return Action("ask", target=_topic(tokens), words=text)
            return Action(UNKNOWN_VERB, words=text)
        return self._act(lead, text, excluded)

    def _idiom(self, tokens: list[str], text: str, excluded: str) -> Action | None:
        """A clause whose meaning is not at its verb: a wish, a verdict on an act, a suggestion, a place alone, what is left alone."""
        joined = " ".join(tokens)
        if wished := _WISH.match(joined):
            return Action("wish", target=joined[wished.end() :] or None, words=text)
        if _SAID.match(joined) or _UNREAL.match(joined):
            return Action("remark", manner=THOUGHT, words=text)
        if (treat := _TREAT.match(joined)) and (lead := led(["have", *words(treat["what"])])) is not None and lead.verb in _TREATS:
            return self._act(lead, text, excluded, polite=True)  # "how about a swim"
        if enough := _ENOUGH.match(joined):
            return Action("refrain", target=enough["what"], words=text)
        if hands := _HANDS_OFF.match(joined):
            return Action("avoid", target=hands["what"], words=text)
        if (judged := _JUDGED.match(joined)) and (lead := led(words(judged["what"]))) is not None and lead.words in ((), ("to",)):
            return self._judged(lead, judged["how"], text) if not text.endswith("?") else Action("ask", target=_topic(tokens), words=text)
        suggested = _SUGGESTED.match(joined)
        if suggested is not None and (lead := led(tokens[len(words(suggested[0])) :])) is not None:
            return self._act(lead, text, excluded, polite=True)
        if (where := _place_alone(tokens)) is not None:
            return replace(where, words=text)
        if tokens[0] in ("stop", "quit", "cease") and len(tokens) > 1 and tokens[1].endswith("ing"):
            return Action("refrain", target=" ".join(tokens[1:]), words=text)
        if left := _LEFT_ALONE.match(joined):
            return Action("avoid", target=left["what"], words=text)
        if known := _LET_KNOW.match(joined):
            return Action("talk", target=known["who"], manner=known["what"] or None, words=text)
        if freed := _LET_GO.match(joined):
            return Action("help", target=freed["who"], words=text, negated="not" in tokens)
        if than := _SOONER.match(joined):
            first, other = led(words(than["first"])), led(words(than["other"]))
            if other is not None and "sooner" in tokens:  # "I would sooner eat my boots than go there"
                return replace(self._act(other, text, excluded), negated=True)
            if first is not None:
                return self._act(first, text, than["other"] if other is None else "")
            if other is not None:
                return replace(self._act(other, text, excluded), negated=True)
        return None

    def _led(self, tokens: list[str]) -> Lead | None:
        """The lead of a clause, or of its end where something of time, place or manner stands in front of who acts."""
        tokens = _without_names(tokens)
        if (lead := led(tokens)) is not None:
            return lead
        if tokens[0] not in PREPOSITIONS | _FRONTS and not tokens[0].endswith("ly"):
            return None
        for at in range(1, len(tokens)):
            is_start = (
                tokens[at] in SELF
                or tokens[at] in ("she", "he", "please")
                or (tokens[at] == "the" and tokens[at + 1 : at + 2] and tokens[at + 1] in HERO)
            )
            if is_start and (lead := led(tokens[at:])) is not None:
                if len(lead.rest) == lead.length and tokens[0] in PREPOSITIONS:  # "to the sea I walk"
                    lead = replace(lead, rest=(*lead.rest, *tokens[:at]))
                return lead if DENIERS.isdisjoint(tokens[:at]) else None
        starts = [at for at in range(1, min(len(tokens), 7)) if verb_at(tokens[at:]) is not None and tokens[at - 1] not in DETERMINERS]
        return led(tokens[starts[-1] :]) if starts and DENIERS.isdisjoint(tokens[: starts[-1]]) else None

    def _is_question(self, tokens: list[str], is_asked: bool) -> bool:
        if tokens[0] in _QUESTION_WORDS or (is_asked and tokens[0] in ("it", "this", "there") and tokens[1:2] == ["is"]):
            return True
        if is_asked and tokens[0] in PREPOSITIONS and tokens[1:2] and tokens[1] in _QUESTION_WORDS:
            return True  # "with whom can I speak?"
        if tokens[0] not in AUXILIARIES or len(tokens) < 2 or tokens[1] == "not":
            return False
        if tokens[0] in _OFFERS and tokens[1] in ("i", "you", "we", "somebody", "someone", "one", "the"):
            return led(tokens) is None or (tokens[0] == "do" and is_asked)
        if tokens[0] in ("can", "could", "would") and len(tokens) > 2 and tokens[1] not in _MEANT and led(tokens) is None:
            return True  # "can wolves swim"
        if tokens[0] in ("do", "have", "will", "might", "may"):
            return is_asked and led(tokens) is None
        return is_asked or tokens[0] in ("is", "are", "am", "was", "were", "does", "did", "has", "should")

    def _judged(self, lead: Lead, how: str, text: str) -> Action:
        """Doing something, as what it is called: ``entering the cave is a bad idea``."""
        told = led([*words(how), "to", "go"]) or led([*words(how), "go"])
        if _OUT_OF.search(how):
            return replace(self._act(lead, text, ""), negated=True)
        return replace(self._act(lead, text, ""), negated=told.negated) if told is not None else Action("remark", words=text)

    def _instead(self, first: str, no: str, what: str, other: str) -> str | None:
        """``not go north but south`` is ``go south``; None where what follows the ``but`` has a verb of its own."""
        if led(words(other)) is not None and words(other)[0] not in lexicon.DIRECTIONS:
            return None
        head = led(words(what))
        if head is None and led(words(first)) is None and not all_lead(words(first)):
            return None
        verb = " ".join(words(what)[: len(head.words) + head.length]) if head is not None else ""
        return " ".join(filter(None, (first.strip(), verb, other)))

    def _act(self, lead: Lead, text: str, excluded: str, *, polite: bool = False) -> Action:
        """What a clause with a verb names."""
        rest, length, negated, polite = list(lead.rest), lead.length, lead.negated, polite or lead.polite
        if negated and "until" in rest[length:]:
            rest = rest[: rest.index("until")]
        verb, rest = by_what_follows(lead.verb, rest)
        if "please" in rest[1:]:  # "make fire please you", as some say
            rest, polite = words(re.sub(r" please(?: you)?\b", "", " ".join(rest))), True
        if rest[length : length + 1] == ["not"] and len(rest) > length + 1:  # "go not to the sea"
            rest, negated = [*rest[:length], *rest[length + 1 :]], not negated
        if "neither" in rest[length:]:  # "take neither the apple nor the bread"
            rest, negated = [word for word in rest if word != "neither"], True
        if (told := self._told_to(verb, rest[length:], text)) is not None:
            return replace(told, negated=negated, polite=polite)
        said = without_purpose(without_relative(verb, rest[length:]))
        action = with_arguments(verb, " ".join(rest[:length]), said, negated, polite, text)
        if action.target in _NOTHING or action.place in _NOTHING or (action.target or "").startswith("no "):
            action = replace(action, negated=True, target=None if action.target in _NOTHING else (action.target or "").removeprefix("no "))
        if excluded in ("here", "now", "today", "there") and FRAMES.get(verb) != "move":
            return replace(action, negated=True)
        return replace(action, manner=f"not {excluded}") if excluded else action

    def _told_to(self, verb: str, rest: list[str], text: str) -> Action | None:
        """What somebody is asked or told to do: to come along, to hand something over, or else it is talk."""
        if "to" not in rest[1:]:
            return None
        at = rest.index("to", 1)
        who, what = " ".join(rest[:at]), rest[at + 1 :]
        if rest[at - 1] in _QUESTION_WORDS:
            return None  # "explain to me how to come there"
        if verb not in ("ask", "talk", "beg") and (
            verb not in ("take", "wish", "greet", "help")
            or not (rest[0].capitalize() in NAMES or {rest[at - 1], rest[at - 1].removesuffix("s")} & {*ROLES, *lexicon.BEASTS})
        ):
            return None
        order = led(what)
        if order is None or any(word in PREPOSITIONS for word in rest[:at]):
            return None
        return _asked_of(who, replace(self._act(order, text, ""), words=text), " ".join(what))


def pairwise_back(tokens: list[str]) -> list[tuple[str, str]]:
    """Each word with the one before it."""
    return list(zip(tokens, ["", *tokens], strict=False))


def _without_names(tokens: list[str]) -> list[str]:
    """Without the one who is called first and does not act: the traveller's own words need no name."""
    return tokens[1:] if len(tokens) > 1 and tokens[0] in ("everyone", "everybody", "guys", "folks") else tokens


def _asked_of(who: str, action: Action, said: str) -> Action:
    """What it is to say something to somebody: what they are asked for, told of, or what one wants to do with them."""
    is_own = {"i", "we"} & set(words(said)[:2]) or words(said)[:2] in (["let", "us"], ["let", "me"])
    if is_own and action.verb not in ("remark", "ask", "beg", UNKNOWN_VERB):
        if FRAMES.get(action.verb) == "person" and action.target in (None, "you"):
            return replace(action, target=who)
        is_for_them = action.receiver == "you" or (action.verb in ("give", "trade") and not action.receiver)
        return replace(action, receiver=who) if is_for_them else action
    if action.verb in ("follow", "invite") or (
        words(said)[:1] and words(said)[0] in _COMES and {"me", "us", "with", "along"} & set(words(said))
    ):
        return Action("invite", target=who, words=action.words)
    if action.verb in ("give", "trade", "take") and {"me", "us"} & set(words(said)):
        thing = action.target if action.target not in ("me", "us") else None
        return Action("beg", target=thing, receiver=who, words=action.words)
    if action.verb == "ask":
        return replace(action, target=who, manner=f"about {action.target}" if action.target else None)
    if action.verb in ("greet", "reconcile") or (action.verb == "remark" and named_in(said, _GREETINGS)):
        return Action("reconcile" if "sorry" in said else "greet", target=who, words=action.words)
    return Action("talk", target=who, manner=f"to {said}", words=action.words)


_FRONTS = frozenset("as since while like now instead rather out having being all every each one together".split())
_GREETINGS = {
    phrase: phrase
    for phrase, verb in PHRASES.items()
    if verb == "remark" and phrase not in ("like", "need", "own", "believe", "prefer", "well")
}


def _without_excluded(text: str) -> tuple[str, str]:
    """A clause without what it leaves out, and that: ``go anywhere but the sea`` is ``go anywhere``, and ``the sea``."""
    found = _EXCLUDED.search(text)
    if found is None or not text[: found.start()].strip():
        return text, ""
    return text[: found.start()], found[1].strip()


def _referred(action: Action, first: Action) -> Action:
    """A later action whose ``it`` is what the first was about."""
    what = first.target or first.place
    target, place = (what if what and said in _PRONOUNS else said for said in (action.target, action.place))
    return replace(action, target=target, place=place)


def _topic(tokens: list[str]) -> str | None:
    """What a question is about."""
    small = (
        _QUESTION_WORDS
        | AUXILIARIES
        | DETERMINERS
        | PREPOSITIONS
        | {"i", "you", "we", "me", "us", "there", "here", "does", "know", "tell", "called", "it", "go", "get", "come", "find", "reach"}
    )
    found = [word for word in tokens if word not in small]
    return " ".join(found) or None
