"""Reading actions: words in, ``{verb, target, place, manner, negated, polite}`` out. Rules first; a trained reader where they end."""

from __future__ import annotations

import re
from typing import Protocol

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.action import UNKNOWN_VERB, Action
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.lexicon import DETERMINERS, MANNERS, words
from wgtorch.blocks.simulation.phrases import FRAMES, IMPOSSIBLE, LONGEST_PHRASE, PHRASES, POLITE, PREPOSITIONS
from wgtorch.core.registry import Registry


class ActionReader(Protocol):
    """What reads actions."""

    def read(self, text: str, draft: Draft | None = None, actor: str = "") -> list[Action]:
        """The actions that a line names, in order; at least one.

        Args:
            text: the line.
            draft: the facts, so that names in them are known as names.
            actor: who would act.
        """


_QUESTION_WORDS = frozenset(["what", "where", "who", "whom", "whose", "why", "when", "which", "how"])
_AUXILIARIES = frozenset(
    [
        "is",
        "are",
        "am",
        "was",
        "were",
        "does",
        "do",
        "did",
        "has",
        "have",
        "will",
        "would",
        "can",
        "could",
        "should",
        "may",
        "might",
        "shall",
    ]
)
_NEGATORS = frozenset(
    [
        "don't",
        "dont",
        "not",
        "never",
        "no",
        "won't",
        "wont",
        "can't",
        "cannot",
        "didn't",
        "isn't",
        "doesn't",
        "shouldn't",
        "wouldn't",
        "mustn't",
    ]
)
_STATEMENT = re.compile(
    r"^(?:there|it|this|that|these|those|he|she|they|the [\w' -]+?|my [\w' -]+?|i|we|you|[\w']+) "
    r"(?:is|are|was|were|am|has been|have been|isn't|aren't|seems?|looks?|feels?|never|always|used to)\b"
)


class RuleReader:
    """Reads actions by rules over :mod:`~wgtorch.blocks.simulation.phrases`; what no rule knows has the verb ``unknown``."""

    def read(self, text: str, draft: Draft | None = None, actor: str = "") -> list[Action]:
        """One action for each clause of the line."""
        plain = re.sub(r"<[^<>]{0,200}>|[*_`#|\[\]{}\\~^]+", " ", text)
        letters = [char for char in plain if char.isalpha()]
        if not letters:
            return [Action(UNKNOWN_VERB, manner="there are no words in that", words=text)]
        if sum(char.isascii() or char in "éèêáàâäöüßñçåøæíóúœ" for char in letters) < 0.6 * len(letters):
            return [Action(UNKNOWN_VERB, manner="nobody in this land speaks that language", words=text)]
        if len(text) > 400 or max(map(len, plain.split())) > 60:
            return [Action(UNKNOWN_VERB, manner="that was too much to take in at once", words=text)]
        clauses = self._clauses(plain)
        read = [self.clause(clause) for clause in clauses]
        known = [action for action in read if action.verb != UNKNOWN_VERB] if read[0].verb != UNKNOWN_VERB else read[:1]
        return known or read[:1]

    def _clauses(self, text: str) -> list[str]:
        parts = re.split(r"(?:,? and then | and then |, then | then |; |\. (?=\w)|! (?=\w)| and (?=\w)|, (?=\w))", text.strip())
        clauses = [parts[0]]
        for part in parts[1:]:
            tokens = words(part)
            if tokens and self._verb(_stripped(tokens)[0])[0] is not None and not _is_noun_first(tokens):
                clauses.append(part)
            else:
                clauses[-1] = f"{clauses[-1]} and {part}" if part else clauses[-1]
        return clauses[:3]

    def clause(self, text: str) -> Action:
        """The action of one clause."""
        tokens = words(text)
        if not tokens:
            return Action(UNKNOWN_VERB, words=text)
        rest, polite, negated = _stripped(tokens)
        is_asked = text.rstrip().endswith("?")
        if rest and rest[0] in _QUESTION_WORDS and not (rest[0] == "how" and len(rest) > 1 and rest[1] == "about"):
            return Action("ask", target=_topic(rest), words=text, polite=polite)
        if (
            rest
            and not polite
            and rest[0] in _AUXILIARIES
            and (is_asked or rest[0] in ("is", "are", "am", "was", "were", "does", "did", "has"))
        ):
            return Action("ask", target=_topic(rest), words=text)
        verb, length = self._verb(rest)
        if verb is None or (_STATEMENT.match(" ".join(tokens)) and not polite):
            if _STATEMENT.match(" ".join(tokens)) and not (verb is not None and rest != tokens):
                return Action("remark", words=text)
            if is_asked and len(rest) > 1:
                return Action("ask", target=_topic(rest), words=text)
        if verb is None:
            return Action(UNKNOWN_VERB, words=text, negated=negated, polite=polite)
        return self._with_arguments(verb, " ".join(rest[:length]), rest[length:], negated, polite, text)

    def _verb(self, tokens: list[str]) -> tuple[str | None, int]:
        for length in range(min(LONGEST_PHRASE, len(tokens)), 0, -1):
            if (verb := PHRASES.get(" ".join(tokens[:length]))) is not None:
                return verb, length
        return None, 0

    def _with_arguments(self, verb: str, phrase: str, rest: list[str], negated: bool, polite: bool, text: str) -> Action:
        manner = [word for word in rest if word in MANNERS and word not in ("there", "here")]
        rest = [word for word in rest if word not in MANNERS or word in ("there", "here")]
        direction = next((word for word in rest if word in lexicon.DIRECTIONS), None)
        if phrase in IMPOSSIBLE:
            return Action("fly", target=" ".join(_split(rest)[0][1]) or None, manner=phrase, negated=negated, polite=polite, words=text)
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
        if tokens and tokens[0] in _NEGATORS and len(tokens) > 1:
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


Readers: Registry[type[ActionReader]] = Registry("action reader", group="wgtorch.action_readers")
Readers.register("rules", RuleReader)
