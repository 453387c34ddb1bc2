"""A typed line in its clauses: what is to be done, one after the other, without what only says why, when or for what."""

from __future__ import annotations

import re

from wgtorch.blocks.simulation import lexicon
from wgtorch.blocks.simulation.cast import NAMES, ROLES
from wgtorch.blocks.simulation.leads import HERO, NO, PAIRED, all_lead, is_gerund, led, verb_at
from wgtorch.blocks.simulation.lexicon import DETERMINERS, words

PEOPLE = "|".join((*NAMES, *(f"(?:the )?{role}" for role in ROLES)))
_OTHERS = (
    rf"(?:{PEOPLE}|(?:my|the|an?|some|this|that|your) (?!{'|'.join(sorted(HERO))})\w+|they|everybody|everyone|people|somebody|someone|you)"
)
_SAYS = r"(?:says?|said|(?:shout|whisper|call|yell|warn|answer|ask|mutter|repl)(?:s|ed|ies|ied)|cries|cried|tells me|told me)"
_WHO = r"(?:i|we|you|he|she|it|they|there|nobody|everybody|somebody|anybody|anyone|everyone|someone)\b"
_GOES_ON = r"(?!(?:in|at|on|under|behind|near|by|with|to|from|and|or|then|again|now|here|there|everywhere|all|too|please)\b)\w"
"""What a pronoun is the subject of: ``for it is cold``, not ``run for it``."""
_QUOTED = re.compile(r"[\"“”„«]([^\"“”„«»]{1,300})[\"“”«»]")
_SPEECH = re.compile(r"^\W*[\"“„«][^\"“”„«»]+[\"”“»]\W*$")
_REPORTED = re.compile(
    rf"(?i)^\W*[\"“„«][^\"“”„«»]+[\"“”»]\W*(?:{_SAYS} {_OTHERS}|{_OTHERS} {_SAYS})\b|^\W*{_OTHERS} {_SAYS}[^\w\"“„«]*[\"“„«]"
)
"""Another's words, and who says them."""
_CLEFT = re.compile(
    r"(?i)^(?:what|all|the (?:only |one )?thing)(?: that)? (?:i|we)(?: would| will| really| do| now| just| am| are)* "
    r"(?:like|want|wish|need|love|intend|mean|ask|asking|asking for|saying|wanting)(?: to do)?(?: now| most)? (?:is|would be)(?: to| that)? "
)
_ORDERLY = (
    (re.compile(r"(?i)\b(?:i|we)(?: have)? change(?:d|s)? (?:my|our) minds? (?:about|on) (?=\w+ing\b)"), "i avoid "),
    (re.compile(r"(?i),? i (?:repeat|say again)\b(?=,)"), ""),
    (re.compile(r"(?i)^(?:everyone|everybody|all|they all) (?:but|except|save) (?:me|us)\b.*"), "it is said"),
    (
        re.compile(
            r"(?i)^the (?:very )?last thing (?:i|we) (?:would |will |really )*(?:want|wanted|need|needed)(?: to do)? (?:now )?is (?:to )?"
        ),
        "do not ",
    ),
    (re.compile(r"(?i)\bput (?!back\b)((?:\w+ ){1,4})(?:back )?on(?: again)?(?=\W*$)"), r"put on \1"),
    (re.compile(r"(?i)\bin (?:the )?direction of\b"), "to"),
    (re.compile(r"(?i)\bin (?:the|another|a|that|this) (?:(?:opposite|other|different|same|right|wrong) )?direction\b"), "further"),
    (re.compile(r"(?i)\bthe time has come\b"), "it is time"),
    (re.compile(r"(?i)\bcan not not\b"), "must"),
    (re.compile(r"(?i)\bdo not (?:you )?(?:dare )?(?:think|believe|imagine|suppose)(?: that)? (?:i|we) (?:will|would|shall) not\b"), "i will"),
    (re.compile(r"(?i)\bhide and seek\b"), "tag"),
    (re.compile(r"(?i)\b(?:do|does|did|will|would|should|could) not not\b"), ""),
    (re.compile(r"(?i)\bi am (?:afraid|sorry)(?: that|,? but)? (?=(?:i|we|you)\b)"), ""),
    (re.compile(r"(?i)\b(?:for free|free of charge)\b"), ""),
    (
        re.compile(
            r"(?i)\b(?:can|could) (?:not|never|hardly|barely) (?:ever )?(?:bring|get|make|force) (?:myself|ourselves) (?:to )?(?=\w)"
        ),
        "refuse to ",
    ),
    (
        re.compile(
            r"(?i)\b(?:(?:have|take|give it|make) (?:a|another) (?:go|try|stab|shot|crack|attempt) at|try (?:my|our) (?:hand|luck) at) (?=\w+ing\b)"
        ),
        "try ",
    ),
    (
        re.compile(
            r"(?i),? (?:when|while) (?:nobody|no one)(?: else)?(?: is|'s| was) (?:watching|looking|around|about|there|near|here|awake)\b"
        ),
        "",
    ),
    (re.compile(r"(?i)\bi am (?:off|out of here|gone)(?=\W*$)"), "i leave"),
    (re.compile(r"(?i)\bover my dead body\b(?: (?:will|would|shall|do) (?:i|we|you))?"), "i will never"),
    (
        re.compile(
            r"(?i)\b(?:(?:i|we) (?:can |could )?(?:see|have|find)|there (?:is|would be)) (?:no|nothing) (?:harm|objections?|problems?|wrong|against|qualms?)"
            r"(?: (?:in|to|with|about|against))*(?= \w+ing\b)"
        ),
        "i consider",
    ),
    (
        re.compile(
            r"(?i)^(?:i|we) (?:know (?:i|we) )?(?:really |probably )?(?:should|ought|must|could|would|can)(?: to)? not,? but (?=(?:i|we)\b)"
        ),
        "",
    ),
    (
        re.compile(r"(?i)\b(?:i (?:am|was) (?:just )?wondering|i wonder(?:ed)?) (?:if|whether) (?:you|we) (?:could|would|can|might)\b"),
        "could you",
    ),
    (re.compile(r"(?i),\s*(?:from |in |on |at )?(?:which|where|who|whose|whom) (?!are you\b|am i\b)[^,?]*(?=,|$)"), ""),
    (re.compile(r"(?i)\buntil (?:i|you|we|they) (?:reach|get to|come to|arrive at|arrive in|find|see)\b"), "to"),
)
_INTERJECTION = re.compile(
    r"^(?:(?:no|nope|nah|yes|yeah|yep|ok|okay|well|please|oh|ah|aha|hey|hello|hi|right|fine|listen|sure|alright|all right|wow|hm+|er|um|sorry|thanks|thank you|actually|"
    r"excuse me|pardon me|my bad|my mistake|oops|wait a minute|look here|come on|no problem|no thanks|good|great|hurry|quick|alas)\s*[,.!:;-]+\s*)+",
    re.IGNORECASE,
)
_FILLERS = re.compile(
    r"(?i)\b(?:at last|at once|right (?:away|now|here)|of course|in fact|by all means|for now|after all|as well|first of all|to begin with|no doubt|without (?:further ado|delay|hesitation|"
    r"hurry|haste|doubt|a word|a sound)|(?:as (?:\w+) as (?:possible|i can|we can|you can))|thank you(?: very much| so much)?|thanks(?: a lot)?|if (?:you|i|we) (?:please|can|could|may|might|like|will|"
    r"want|don't mind|do not mind|would|would not mind|wouldn't mind|would like|ask me|remember (?:rightly|correctly|right))|if possible|if need be|if necessary|if (?:it|that) (?:is|is not|would be)(?: not)?"
    r"(?: too much| any| a| possible| all right| okay| ok| fine)?(?: trouble| bother| to ask)?(?: with you| by you)?|the way i see it|unless i am (?:mistaken|wrong)|will you|would you|i beg you|do me a favou?r and|be (?:a dear|an angel|nice|kind|"
    r"a good \w+) and|for (?:me|us|goodness' sake|heaven's sake|old times' sake)(?= *[,.!?]|$)|step by step|once and for all|more or less|whatever happens|no matter what|whatever (?:you|i|we) do|never ever"
    r"|(?:as )?if (?:nothing|anything)\b[^,]*)(?: *(?=[,.!?]|$))|\b(?:at last|at once|right away|of course|in fact|by all means|first of all|to begin with|without further ado|no doubt|be (?:a dear|an angel|nice|kind|"
    r"a good \w+) and|do me a favou?r and|once and for all|if you (?:please|will)|(?:if you )?(?:would|could|will) (?:just )?be (?:so|very) (?:good|kind|nice|sweet)(?: as to)?|be (?:so|very) (?:good|kind|nice|sweet) as to)\b"
)
_CORRECTED = re.compile(
    r"(?i)^\W*(?:\w+\W+){1,5}?(?<=\?) ?(?:no|nope|nah)\b(?! thank)[\s,.:;!-]+(?=\w)|^.*\b(?:no,? wait|wait,? no|scratch that|i mean|i meant|on second thoughts?|correction|or rather|make that|changed? my mind(?! about| on))\b[,.:;!\s-]*(?=\w)"
)
_CONDITION = re.compile(
    r"(?i)^(?:should (?!i |we |you )|were |had |in the event )[^,]+,|(?:^|[\s,])(?:if|unless|provided|on (?:the )?condition(?: that)?|as soon as|as long as|suppose(?= \w+ \w+ \w+,)|assuming|whenever|once (?=(?:i|we|you|he|she|it|they|the) )|"
    r"when(?! is| was| will| does| do| did| are| can| should| shall))\s|^in case\b"
)
_WHETHER = re.compile(
    r"(?i)\b(?:ask|asks|see|check|wonder|wonders|know|knows|tell|find out|say|remember|look|test|sure|learn|hear|determine|decide|figure out|verify|confirm|discover|listen|judge|guess|and|as|even)\b(?: \w+){0,3} if\b|\bwhat if\b|^\W*(?:oh,? )?if only\b"
)
_ASKED_IF = re.compile(
    r"(?i)\b((?:would|will|should) (?:be|love|like|appreciate|prefer)\b[^,]*?)\bif\b(?= (?:i|we|you|somebody|someone)\b)|\bhow (?:would it be )if\b"
)
_ASIDE = re.compile(
    rf"(?i)(?:^|,? )\b(?:because|although|though|even though|even if|while|whilst|whereas|so that|so as to|in order to|in order that|lest|now that|given that|seeing as|seeing that|for fear|as if|as though|"
    rf"so (?:i|we|he|she|they|it|nobody|no one) (?:can|could|may|might|finds?|sees?)|(?:since|as|for|before|after)(?= {_WHO} {_GOES_ON})|(?:since|as|after|before)(?= (?:the )?\w+ (?:is|are|was|were|has|have|had|gets?|\w+[^us]s) ?))\b"
    r"(?:(?! and then | then ).)*?(?=,|$| and then | then )|(?<=\w),? \bin case\b[^,]*"
)
_STATE = re.compile(
    r"(?i)^(?:too \w+ to|unable to|not (?:\w+ )?\w+ing|having (?:no|nothing|nobody|nowhere)|with (?:no|nothing|nobody)|being|feeling)\b[^,]*, *(?=(?:i|we|you|she|he|let us|the)\b)"
)
"""What one is in: ``too tired to go on, I lie down``; it denies no act."""
_BEFOREHAND = re.compile(r"(?i)^(?:after|having|once (?:i|we) have) (?=\w+(?:ing|ed|en)\b)([^,]*),\s*")
_AFTERWARDS = re.compile(r"(?i)^before (\w+ing\b[^,]*),\s*(.+)$")
_BEHIND = re.compile(r"(?i)^(.+?),? after ((?:having )?\w+ing\b[^,]*)$")
_INSTEAD = re.compile(r"(?i)^(?:rather than \w+|instead of \w+ing)\b[^,]*? (?=(?:i|we) \w)|(?:^|,? )(?:without|instead of|rather than) (?:even )?\w+ing\b[^,]*?(?:, *(?=\w)|$)|^rather than \w+[^,]*, *")
_ALL = frozenset("anything everything anywhere everywhere anyone anybody everyone".split())
_TELLING = frozenset("tell say ask let know promise swear warn remind inform convince persuade write".split())
_AGAINST = re.compile(r"(?i)\b(?:decided?s?|am|is) against (?:it|that)\b|\bthinks? better of it\b|\bthought better of it\b")
_NO_DEAL = (
    r"(?:never|no|nope|nah|no way|no thanks?(?: you)?|not me|not i|not today|not now|no chance|forget it|not a chance|certainly not|of course not|not happening|"
    r"i think not|i do not think so|as if|what nonsense|not on my watch|never in my life|(?:i|we) (?:would|could|will) (?:never|not)|"
    r"are you (?:mad|crazy|insane|serious|kidding|joking|out of your mind)|you must be (?:mad|joking|kidding))"
)
_NEVER = re.compile(
    rf"(?i)\?\W*(?:(?:me|us|now|here|really|seriously)\W+)?{_NO_DEAL}\W*$|,? (?:but|yet|however,?) (?:i|we|she|he) "
    r"(?:will|do|does|did|can|could|shall|should|would|must|dare) not(?: do (?:it|so|that))?\W*$"
)
_MOCKED = re.compile(
    r"(?i)^\W*(?:(?:oh|yeah|yes|sure|right|ok|okay)\W+)*(?:(?:sure|right)\W+(?:let me just|i will just|because (?:i|we) would)|"
    r"(?:like(?: hell)?|as if|as though) (?:i|we) (?:would|will|am|are|want))\b"
    r"(?: ever| really| gladly| going(?= to\b))*(?: to)?"
)
_MOCKERY = re.compile(r"(?i)[\s,.!?-]+(?:what could (?:possibly |ever )*go wrong|said no one ever)\W*$")
_JOKE = re.compile(r"(?i)[\s,.!-]+(?:(?:only|just) )?(?:kidding|joking)\W*$")
_BEGINS = (["let"], ["i"], ["we"], ["can"], ["could"], ["please"])
_STOPS = re.compile(r"(?i)(?:please |now )*(?:stop|quit|cease)\b")
_BREAK = re.compile(
    r"(,? and then |,? then |,? after that,? |,? afterwards,? |,? finally,? |; |,? but |,? however,? |,? and |,? or else |,? or |,? nor |, so |,? before (?=\w+ing\b)|, )",
    re.IGNORECASE,
)


def clauses(text: str) -> list[str] | None:
    """The clauses of a line in the order in which they are to be done; None of a line that hangs on an if.

    >>> clauses("before sleeping, light the lamp because it is dark")
    ['light the lamp', 'sleeping']
    >>> clauses("if it rains, eat the apple") is None
    True
    """
    if _SPEECH.match(text):
        return ["hello"]
    if _REPORTED.match(text) or _MOCKERY.search(text):
        return ["it is said"]
    text = _QUOTED.sub(lambda said: said[1] if len(words(said[1])) < 3 else " ", text)
    if never := _NEVER.search(text):
        text = f"do not {text[: never.start()]}"  # "steal? never!"
    if _MOCKED.match(text) or _JOKE.search(text):
        text = f"do not {_JOKE.sub('', _MOCKED.sub('', text)).strip(' .!')}"  # "oh sure, let me just burn it", "burn it... just kidding"
    text = _CORRECTED.sub("", re.sub(r"(?<=\w)\s*\([^()]*\)", "", text))
    found: list[str] = []
    for sentence in re.findall(r"[^.!?;:\n]+(?:[.!?;:]+(?!\w)|\n|$)|[^.!?;:\n]*[.!?;:]\w[^.!?\n]*[.!?]*", text):
        said = _sentence(sentence.strip())
        if said is None:
            return None
        found += said
    return found


def _sentence(text: str) -> list[str] | None:
    asks = "?" if text.endswith("?") else ""
    text = re.sub(r"(?i)(?<=\w)[,\s]+please$", "", _INTERJECTION.sub("", text.rstrip(" .!?;:")) or text)
    for said, plain in _ORDERLY:
        text = said.sub(plain, text)
    text = _CLEFT.sub("", text)
    text = re.sub(r" +([,])", r"\1", _FILLERS.sub(" ", text)).strip(" ,") or text
    text = _ASKED_IF.sub(r"\1", text)
    if not asks and _CONDITION.search(_WHETHER.sub(" ", text)):
        return None
    text = _STATE.sub("", _INSTEAD.sub(" ", _ASIDE.sub(" ", text)).strip(" ,")) or text
    later = ""
    if moved := _AFTERWARDS.match(text):
        later, text = moved[1], moved[2]
    text = _BEFOREHAND.sub(r"\1, then ", text)
    if moved := _BEHIND.match(text):
        text = f"{moved[2]}, then {moved[1]}"
    found = _parts(text)
    return [f"{said}{asks}" for said in ([*found, later] if later else found)]


def _parts(text: str) -> list[str]:
    """The clauses of a sentence: it is parted where a verb follows; a part that is all lead belongs to the next, and one that leads none to the last."""
    pieces = _BREAK.split(text)
    found: list[str] = []
    front, ahead = "", ""
    denied = False
    for at in range(0, len(pieces), 2):
        joint, piece = (pieces[at - 1] if at else ""), pieces[at].strip()
        tokens = words(piece)
        if not tokens:
            continue
        is_last = at + 2 >= len(pieces)
        is_state = tokens[:2] in (["i", "am"], ["we", "are"]) and not is_last and words(pieces[at + 2])[:1] in _BEGINS
        if not is_last and not is_state and all_lead(tokens) and _is_open(tokens) and ("," in pieces[at + 1] or "but" in pieces[at + 1]):
            ahead = f"{ahead} {piece} {'but' if 'but' in pieces[at + 1] else ''}".strip()
            continue
        said = f"{ahead} {piece}".strip()
        if not found and not is_last and _accompanies(tokens, words(pieces[at + 2])):
            continue
        if tokens[-1] in PAIRED and pieces[at + 1 : at + 2] == [" and "] and all_lead(tokens[:-1]):
            ahead = f"{said} and"
            continue
        if found and _AGAINST.search(piece) and (first := led(words(found[-1]))) is not None:
            found[-1] = f"do not {' '.join(first.rest)}"  # "considers burning it, but decides against it"
            continue
        if (
            found
            and (HERO | {"she", "he", "i", "we", "they"}) & set(words(found[-1])[:3])
            and led(tokens) is None
            and led(["hero", *tokens]) is not None
        ):
            said, tokens = f"hero {piece}", ["hero", *tokens]  # "sat down and fell asleep"
        if (
            (lead := leads(words(said), alone=not found)) is not None
            and not _is_told_of(found, joint)
            and not _goes_on(found, joint, tokens)
        ):
            is_denied_too = denied and not lead and joint.strip(" ,").lower() in ("and", "or") and "," not in joint
            if is_denied_too or (joint.strip(" ,").lower() == "nor" and lead != "no"):
                act = led(words(said))
                said = f"do not {' '.join(act.rest) if act is not None else said}"
            elif joint.strip(" ,").lower() == "or":
                break
            if joint.strip(" ,").lower() == "but" and front and words(front)[-1:] and words(front)[-1] in _ALL:
                said = f"do not {said}"  # "anything but dig"
            denied = lead == "no" and not _STOPS.match(said)
            if joint.strip(" ,").lower() in ("but", "however") and found and _is_unreal(found[-1]):
                found.pop()
            found.append(_pointed(said, front) if front and _points(said) else said)
            front = ""
        elif found:
            found[-1] = f"{found[-1]}{joint if joint.strip(' ,') else ' and '}{piece}"
        else:
            front, denied = f"{front}{joint}{piece}" if front else piece, denied or not NO.isdisjoint(tokens)
            continue
        ahead = ""
    return found or [text]


def leads(tokens: list[str], *, alone: bool = True) -> str | None:
    """``no`` or ``yes`` for a clause with a lead before its verb, empty without one; None of words that lead to no verb."""
    if not tokens or (tokens[0] in DETERMINERS and not HERO & set(tokens[1:2])):
        return None
    if len(tokens) == 1 and tokens[0] in lexicon.DIRECTIONS:
        return ""
    lead = led(tokens)
    if lead is None or (not alone and not lead.words and _is_thing(tokens)):
        return None
    return "no" if lead.negated else "yes" if lead.words else ""


def _is_open(tokens: list[str]) -> bool:
    lead = led(tokens)
    return lead is None or lead.verb == "remark"


def _is_thing(tokens: list[str]) -> bool:
    """True where a noun that is a verb too stands alone: ``bread and fish``."""
    return tokens[0] in lexicon.OBJECTS and len(tokens) < 3 and tokens[-1] not in ("it", "them", "him", "her")  # "light it"


def _accompanies(tokens: list[str], following: list[str]) -> bool:
    """True for ``whistling a tune`` before ``I stroll along``: it says how, and is no act of its own."""
    lead = led(tokens)
    is_how = lead is not None and any(map(is_gerund, tokens[: len(lead.words) + 1])) and {"i", "we", "let"}.isdisjoint(lead.words)
    return is_how and following[:1] != [] and following[0] in ("i", "we", "she", "he", "the") and led(following) is not None


def _is_told_of(found: list[str], joint: str) -> bool:
    """Whether what stands before tells of what somebody says: its ``and`` goes on with that."""
    return bool(found) and " that " in found[-1] and joint.strip(" ,").lower() == "and" and not _TELLING.isdisjoint(words(found[-1])[:4])


def _goes_on(found: list[str], joint: str, tokens: list[str]) -> bool:
    """Whether a noun that may be a verb too goes on with what stands before it: ``look for tools and supplies``, ``scream in rage and defeat``."""
    if not found or joint.strip(" ,").lower() not in ("and", "or", "") or (first := verb_at(words(found[-1]))) is None:
        return False
    other = verb_at(tokens)
    is_plural = other is not None and first[2] == "base" and (other[2] == "s" or (other[2] == "ing" and len(tokens) == 1))
    return is_plural or (len(tokens) == 1 and re.search(r"\b(?:in|with|of) [a-z]+$", found[-1]) is not None and first[2] == "base")


def _is_unreal(said: str) -> bool:
    return not {"could", "might", "would", "wanted", "tempted", "supposed", "should"}.isdisjoint(words(said))


def _points(said: str) -> bool:
    return not {"it", "them", "him", "her", "there"}.isdisjoint(words(said))


def _pointed(said: str, what: str) -> str:
    """A clause whose ``it`` is what stands before it: ``the lamp, take it``."""
    tokens = words(what)
    named = next((word for word in tokens if word in lexicon.OBJECTS or word in lexicon.LANDMARKS or word in lexicon.TERRAINS), None)
    if named is not None and (tokens[0] not in DETERMINERS or len(tokens) > 3):
        what = f"the {named}"
    elif tokens[0] not in DETERMINERS or len(tokens) > 3:
        return said
    return re.sub(r"(?i)\b(?:it|them|him|her|there)\b", lambda _: what, said, count=1)
