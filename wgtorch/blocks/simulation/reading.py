"""Reading actions: words in, ``{verb, target, place, manner, negated, polite}`` out. Rules first; a trained reader where they end."""

from __future__ import annotations

import re
from dataclasses import replace

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import UNKNOWN_VERB, Action
from wgtorch.blocks.simulation.lexicon import DETERMINERS, MANNERS, named_in, words
from wgtorch.blocks.simulation.normalization import normalized
from wgtorch.blocks.simulation.phrases import FRAMES, IMPLIED, IMPOSSIBLE, LONGEST_PHRASE, PHRASES, POLITE, PREPOSITIONS
from wgtorch.blocks.simulation.quantities import MOST_ACTIONS, for_each

_QUESTION_WORDS = frozenset(["what", "where", "who", "whom", "whose", "why", "when", "which", "how"])
_AUXILIARIES = frozenset("is are am was were does do did has have will would can could should may might shall".split())
NEGATORS = frozenset("don't dont not never no won't wont can't cannot didn't isn't doesn't shouldn't wouldn't mustn't".split())
_SPEAKERS = frozenset(
    ("i", "we", "you", "he", "she", "it", "they", "there", "this", "that", "these", "those", "everybody", "nobody", "somebody")
)
_PRONOUNS = frozenset(("it", "them", "him", "her", "that", "this"))
_NOTHING = frozenset(("nothing", "nobody", "nowhere", "no one", "none", "no place"))
_LEADING = frozenset(
    ["with", "without", "in", "at", "after", "before", "for", "by", "as", "very", "so", "instead", "rather", "from", "on", "until", "like"]
)
_INTERJECTION = re.compile(
    r"^(?:no|nope|nah|yes|yeah|ok|okay|well|please|oh|ah|hey|hello|hi|right|fine|listen|wait a minute)\s*[,.!:;-]+\s*", re.IGNORECASE
)
_CONDITION = re.compile(
    r"^(?:should (?!i |we )|were |had |in the event )[^,]+,|(?:^|[\s,])(?:if(?! only)|unless|in case|provided|as soon as|as long as|suppose|when(?! is| was| will| does| do| did| are))\s"
)
_WISH = re.compile(
    r"^(?:would that|may it\b(?= )|if only|oh for|i (?:do )?wish(?! to\b)|i (?:do )?dream of|i hope(?! to\b)|may there be|let there be|how i wish)\b ?"
)
_EXCLUDED = re.compile(
    r"[\s,]+(?:but not|but|except for|except|other than|rather than|instead of|apart from|and not|(?<=,)\s*not)\s+((?:to |into |in |at |near )?.+)$"
)
_STATEMENT = re.compile(
    r"^(?:there|it|this|that|these|those|he|she|they|the [\w' -]+?|my [\w' -]+?|i|we|you|[\w']+) "
    r"(?:is|are|was|were|am|has been|have been|isn't|aren't|seems?|looks?|feels?|never|always|used to)\b"
)


def _place_alone(tokens: list[str]) -> Action | None:
    """Going there, where a line is a land or a building and nothing else: ``forest``, ``the old mill``."""
    said = lexicon.bare(" ".join(tokens))
    if said == "home":
        return Action("return", place="home")
    known = said in lexicon.TERRAINS or (said in lexicon.LANDMARKS and said not in PHRASES)
    return Action("go", place=said) if known and said not in PHRASES else None


class RuleReader:
    """Reads actions by rules over :mod:`~wgtorch.blocks.simulation.phrases`; what no rule knows has the verb ``unknown``."""

    def read(self, text: str) -> list[Action]:
        """One action for each clause of the line."""
        plain = re.sub(r"<[^<>]{0,200}>|[*_`#|\[\]{}\\~^]+", " ", text)
        letters = [char for char in plain if char.isalpha()]
        if not letters:
            return [Action(UNKNOWN_VERB, manner="there are no words in that", words=text)]
        if sum(char.isascii() or char in "éèêáàâäöüßñçåøæíóúœ" for char in letters) < 0.6 * len(letters):
            return [Action(UNKNOWN_VERB, manner="nobody in this land speaks that language", words=text)]
        if len(text) > 400 or max(map(len, plain.split())) > 60:
            return [Action(UNKNOWN_VERB, manner="that was too much to take in at once", words=text)]
        plain = _INTERJECTION.sub("", plain.strip()) or plain
        plain = re.sub(r"[,\s]+please\s*([.!?]*)\s*$", r"\1", plain, flags=re.IGNORECASE) or plain
        plain = normalized(plain)
        if _CONDITION.search(plain.lower()) and not plain.rstrip().endswith("?"):
            return [Action(UNKNOWN_VERB, manner="nobody can promise what hangs on an if", words=text)]
        read = [self.clause(clause) for clause in self._clauses(plain)]
        if read[0].verb == UNKNOWN_VERB and not read[0].negated:
            read = [action for action in read if action.verb != UNKNOWN_VERB][:1] or read
        first, *others = [action for action in read if action.verb != UNKNOWN_VERB] or read[:1]
        actions = [replace(first, words=text)]
        for action in others:
            actions.append(_referred(action, next((other for other in reversed(actions) if other.target), first)))
        return [single for action in actions for single in for_each(action)][:MOST_ACTIONS]

    def _clauses(self, text: str) -> list[str]:
        text = re.sub(
            r"\b(go|come|try|run) and (?=(?:see|find|get|take|fetch|look|talk|meet|visit|help|ask|build|buy|eat|sleep|rest|kill)\b)",
            "",
            text,
        )
        parts = re.split(r"(?:,? and then | and then |, then | then |; |\. (?=\w)|! (?=\w)| and (?=\w)|, (?=\w))", text.strip())
        clauses = [parts[0]]
        for part in parts[1:]:
            tokens = words(part)
            unread = self._verb(_stripped(words(clauses[-1]))[0])[0] is None and len(words(clauses[-1])) <= 4
            if len(tokens) == 1 and tokens[0] in lexicon.DIRECTIONS and named_in(clauses[-1], lexicon.DIRECTIONS):
                part, tokens = f"go {part}", ["go", *tokens]  # "go east, then west"
            if tokens and self._verb(_stripped(tokens)[0])[0] is not None and (unread or not _is_noun_first(tokens)):
                clauses.append(part)
            else:
                clauses[-1] = f"{clauses[-1]} and {part}" if part else clauses[-1]
        return clauses[:MOST_ACTIONS]

    def clause(self, text: str) -> Action:
        """The action of one clause."""
        plain, excluded = _without_excluded(text.lower().replace("’", "'"))
        tokens = [word for word, before in pairwise_back(words(plain)) if word != before]
        if not tokens:
            return Action(UNKNOWN_VERB, words=text)
        if len(tokens) <= 2 and named_in(tokens[-1], lexicon.DIRECTIONS):
            return Action("go", manner=named_in(tokens[-1], lexicon.DIRECTIONS), words=text)
        if PHRASES.get(" ".join(tokens)) == "again":
            return Action("again", words=text)
        if wished := _WISH.match(" ".join(tokens)):
            return Action("wish", target=" ".join(tokens)[wished.end() :] or None, words=text)
        rest, polite, negated = _stripped(["and" if word == "nor" else word for word in tokens if word != "neither"])
        negated = negated or "neither" in tokens
        if rest[:1] in (["stop"], ["quit"], ["cease"]) and len(rest) > 1 and rest[1].endswith("ing"):
            return Action("refrain", target=" ".join(rest[1:]), words=text)
        if rest[:1] == ["leave"] and rest[-1] in ("alone", "be") and len(rest) > 2:
            return Action("avoid", target=" ".join(rest[1:-1]), words=text)
        if not negated and (where := _place_alone(rest)) is not None:
            return replace(where, words=text)
        rest = self._from_verb(rest)
        is_asked = text.rstrip().endswith("?")
        if rest and rest[0] in _QUESTION_WORDS and not (rest[0] == "how" and len(rest) > 1 and rest[1] == "about"):
            return Action("ask", target=_topic(rest), words=text, polite=polite)
        rest = _joined(rest)
        if rest and rest[0] in ("am", "was", "are", "were", "have", "had") and rest != tokens and not (polite and rest[0] == "have"):
            return Action("remark", words=text)
        if (
            rest
            and not polite
            and rest[0] in _AUXILIARIES
            and (is_asked or rest[0] in ("is", "are", "am", "was", "were", "does", "did", "has"))
        ):
            return Action("ask", target=_topic(rest), words=text)
        verb, length = self._verb(rest)
        if rest and rest[0] == "set" and verb is None and rest[-1] in ("fire", "alight", "ablaze"):
            verb, length = "burn", 1
        if verb == "remark" or (verb is None and tokens[0] in _SPEAKERS):
            return Action("remark", words=text)
        if verb is None or (_STATEMENT.match(" ".join(tokens)) and not polite):
            if _STATEMENT.match(" ".join(tokens)) and not (verb is not None and rest != tokens):
                return Action("remark", words=text)
            if is_asked and len(rest) > 1:
                return Action("ask", target=_topic(rest), words=text)
        if verb is None:
            return Action(UNKNOWN_VERB, words=text, negated=negated, polite=polite)
        verb, rest = _by_what_follows(verb, rest)
        if rest[length : length + 1] == ["not"] and len(rest) > length + 1:  # "go not to the sea"
            rest, negated = [*rest[:length], *rest[length + 1 :]], not negated
        action = self._with_arguments(verb, " ".join(rest[:length]), rest[length:], negated, polite, text)
        if action.target in _NOTHING or action.place in _NOTHING or (action.target or "").startswith("no "):
            action = replace(
                action, negated=not negated, target=None if action.target in _NOTHING else (action.target or "").removeprefix("no ")
            )
        if excluded in ("here", "now", "today", "there") and FRAMES.get(verb) != "move":
            return replace(action, negated=True)
        return replace(action, manner=f"not {excluded}") if excluded else action

    def _from_verb(self, tokens: list[str]) -> list[str]:
        """The words from the verb on, where something of manner or time leads them: ``without haste go north``."""
        if not tokens or tokens[0] not in _LEADING or self._verb(tokens)[0] is not None:
            return tokens
        starts = [
            at for at in range(1, min(len(tokens), 7)) if self._verb(tokens[at:])[0] is not None and tokens[at - 1] not in DETERMINERS
        ]
        return tokens[starts[-1] :] if starts else tokens

    def _verb(self, tokens: list[str]) -> tuple[str | None, int]:
        for spelled in ([*tokens], [_infinitive(tokens[0]), *tokens[1:]] if tokens else []):
            for length in range(min(LONGEST_PHRASE, len(spelled)), 0, -1):
                if (verb := PHRASES.get(" ".join(spelled[:length]))) is not None:
                    return verb, length
        return None, 0

    def _with_arguments(self, verb: str, phrase: str, rest: list[str], negated: bool, polite: bool, text: str) -> Action:
        manner = [word for word in rest if word in MANNERS and word not in ("there", "here")]
        rest = [word for word in rest if word not in MANNERS or word in ("there", "here")]
        direction = next((word for word in rest if word in lexicon.DIRECTIONS), None)
        if phrase in IMPOSSIBLE:
            return Action("fly", target=" ".join(_split(rest)[0][1]) or None, manner=phrase, negated=negated, polite=polite, words=text)
        if phrase in IMPLIED and not _split(rest)[0][1]:
            rest = [IMPLIED[phrase][1], *rest]
        frame, parts = FRAMES.get(verb, "thing"), _split(rest)
        target: str | None = " ".join(parts[0][1]) or None
        place = receiver = None
        said: list[str] = []
        for preposition, phrase_words in parts[1:]:
            inner = " ".join(phrase_words)
            if not inner:
                continue
            if (frame == "hand" and preposition in ("to", "for") and receiver is None) or (
                frame == "get" and preposition in ("from", "off", "with") and receiver is None
            ):
                receiver = inner
            elif (frame == "person" and preposition in ("to", "with", "at", "for", "from") and target is None) or (
                frame == "topic" and target is None
            ):
                target = inner
            elif frame == "move" and preposition in (
                "to",
                "towards",
                "toward",
                "into",
                "in",
                "at",
                "for",
                "onto",
                "on",
                "from",
                "through",
                "inside",
                "by",
                "over",
                "across",
                "up",
                "down",
                "near",
                "around",
                "along",
                "past",
                "of",
            ):
                place = place or inner
            elif frame == "colour" and preposition in ("in", "with"):
                said.append(inner)
            elif preposition == "of" and target is not None:
                target = f"{target} of {inner}"
            elif (
                preposition
                in ("in", "at", "on", "over", "into", "near", "by", "under", "across", "to", "from", "behind", "inside", "through", "onto")
                and place is None
            ):
                place = inner
            else:
                said.append(f"{preposition} {inner}")
        if frame == "hand" and receiver is None and target is not None:
            receiver, target = _indirect(target)
        if frame == "person" and verb in ("talk", "teach") and target is not None:
            who, topic = _indirect(target)
            target, said = (who, [*said, str(topic)]) if who is not None else (target, said)
        if frame == "move" and direction is not None:
            if target is not None and words(target) and all(word in lexicon.DIRECTIONS or word in DETERMINERS for word in words(target)):
                target = None
            if place is not None and all(word in lexicon.DIRECTIONS or word in DETERMINERS for word in words(place)):
                place = None
            said.append(direction)
        if frame == "move" and place is None and target is not None:
            place, target = target, None
        if verb == "colour":
            target, colour = _coloured(phrase, target, said)
            said = [colour] if colour else said
        if verb in ("burn", "destroy", "harm") and target is not None:
            target = re.sub(r" (?:down|up|apart)$", "", target)
        joined = " ".join([*said, *(manner if verb not in ("colour",) else [])]) or None
        return Action(verb, target=target, place=place, manner=joined, negated=negated, polite=polite, receiver=receiver, words=text)


def pairwise_back(tokens: list[str]) -> list[tuple[str, str]]:
    """Each word with the one before it."""
    return list(zip(tokens, ["", *tokens], strict=False))


def _joined(tokens: list[str]) -> list[str]:
    """With the particle beside its verb: ``pick it up`` is ``pick up it``."""
    for at in range(2, min(len(tokens), 6)):
        if tokens[at] in ("up", "down", "away", "off", "out", "apart") and f"{tokens[0]} {tokens[at]}" in PHRASES:
            return [tokens[0], tokens[at], *tokens[1:at], *tokens[at + 1 :]]
    return tokens


def _infinitive(word: str) -> str:
    """``walking`` is ``walk``, ``taking`` is ``take``, ``running`` is ``run``; other words are as they are."""
    if not word.endswith("ing") or len(word) < 5:
        return word
    stem = word[:-3]
    doubled = stem[:-1] if len(stem) > 2 and stem[-1] == stem[-2] else ""
    return next((form for form in (stem, f"{stem}e", doubled) if form in PHRASES), word)


def _by_what_follows(verb: str, rest: list[str]) -> tuple[str, list[str]]:
    """Verbs whose meaning stands at the end: ``turn the moon red``, ``set the house on fire``."""
    if rest[0] == "move" and len(rest) > 1 and rest[1] in DETERMINERS:
        return "use", rest
    if (
        rest[0] in ("turn", "make", "colour", "color")
        and len(rest) > 2
        and rest[-1] in lexicon.COLOURS
        and verb in ("use", "wish", "craft")
    ):
        return "colour", [rest[0], *rest[1:]]
    if (rest[0] in ("set", "put") and rest[-2:] == ["on", "fire"]) or (rest[0] == "set" and rest[-1] in ("alight", "ablaze")):
        return "burn", rest[: -2 if rest[-1] == "fire" else -1]
    return verb, rest


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


def _stripped(tokens: list[str]) -> tuple[list[str], bool, bool]:
    """Tokens without politeness, the speaker and negation in front; whether it was polite, and whether negated."""
    polite, negated = False, False
    changed = True
    while tokens and changed:
        changed = False
        for phrase in POLITE:
            if tokens[: len(phrase)] == list(phrase) and len(tokens) > len(phrase):
                polite = polite or phrase[0] in ("please", "could", "can", "would", "may", "kindly")
                tokens, changed = tokens[len(phrase) :], True
        if tokens[:2] == ["never", "mind"]:
            break
        if len(tokens) > 1 and tokens[0] in ("start", "begin", "keep", "continue", "try") and _infinitive(tokens[1]) != tokens[1]:
            changed, tokens = True, tokens[1:]
        if tokens and tokens[0] in NEGATORS and len(tokens) > 1:
            negated, changed, tokens = True, True, tokens[1:]
        elif tokens[:2] in (["do", "not"], ["will", "not"], ["am", "not"], ["rather", "not"]) and len(tokens) > 2:
            negated, changed, tokens = True, True, tokens[2:]
        elif tokens and tokens[0] in MANNERS and len(tokens) > 1 and tokens[0] not in ("here", "there", "first"):
            changed, tokens = True, tokens[1:]
    if tokens and tokens[-1] == "please":
        polite, tokens = True, tokens[:-1]
    return tokens, polite, negated


def _split(rest: list[str]) -> list[tuple[str, list[str]]]:
    """The words after the verb, by the prepositions that lead them; what stands before any comes first."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for word in rest:
        if word in PREPOSITIONS:
            parts.append((word, []))
        else:
            parts[-1][1].append(word)
    return parts


def _topic(tokens: list[str]) -> str | None:
    """What a question is about."""
    small = (
        _QUESTION_WORDS
        | _AUXILIARIES
        | DETERMINERS
        | PREPOSITIONS
        | {"i", "you", "we", "me", "us", "there", "here", "does", "know", "tell", "called", "it"}
    )
    found = [word for word in tokens if word not in small]
    return " ".join(found) or None


def _indirect(target: str) -> tuple[str | None, str | None]:
    """``anna the ring`` -> (``anna``, ``the ring``): the receiver before the thing."""
    tokens = words(target)
    if len(tokens) > 1 and tokens[0] in ("him", "her", "them", "me", "us") and tokens[1] not in DETERMINERS:
        return tokens[0], " ".join(tokens[1:])
    for at, word in enumerate(tokens[1:], start=1):
        if word in DETERMINERS:
            return " ".join(tokens[:at]), " ".join(tokens[at:])
    return None, target


def _coloured(phrase: str, target: str | None, said: list[str]) -> tuple[str | None, str | None]:
    """The thing to be coloured, and the colour that stands behind it: ``the house black``."""
    tokens = words(target or "")
    if said and lexicon.colour_in(said[0]):
        return target, lexicon.colour_in(said[0])
    if tokens and tokens[-1] in lexicon.COLOURS and len(tokens) > 1:
        return " ".join(tokens[:-1]), lexicon.COLOURS[tokens[-1]]
    return target, None


def _is_noun_first(tokens: list[str]) -> bool:
    return tokens[0] in DETERMINERS
