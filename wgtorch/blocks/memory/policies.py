"""What is remembered of a world: policies by name, all deterministic, and open to more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from wgtorch.blocks.memory.counting import Count
from wgtorch.blocks.memory.notes import Note, sentences, shortened, stems
from wgtorch.core.registry import Registry

Retrieve = Callable[[Sequence[Note], str], Sequence[Note]]
"""``(notes, query) -> notes``, the most wanted first; what it leaves out is not recalled."""
Summarise = Callable[[Sequence[str], int, Count], str]
"""``(texts, limit, count) -> text`` of at most ``limit`` tokens; texts come oldest first."""
Forget = Callable[[Sequence[str], int, Mapping[str, str]], Collection[int]]
"""``(episodes, keep, glossary) -> places`` of those that are forgotten, so that ``keep`` stay; episodes come oldest first."""

RetrieveRegistry: Registry[Retrieve] = Registry("retrieve policy", group="wgtorch.retrieve")
SummariseRegistry: Registry[Summarise] = Registry("summarise policy", group="wgtorch.summarise")
ForgetRegistry: Registry[Forget] = Registry("forget policy", group="wgtorch.forget")


def register_retrieve(name: str) -> Callable[[Retrieve], Retrieve]:
    """Decorator: makes a function a policy by which notes are chosen for a prompt.

    Example:
        >>> @register_retrieve("glossary_first")
        ... def glossary_first(notes, query):
        ...     return sorted(notes, key=lambda note: note.section != "glossary")
    """
    return lambda policy: RetrieveRegistry.register(name, policy)


def register_summarise(name: str) -> Callable[[Summarise], Summarise]:
    """Decorator: makes a function a policy by which texts are made shorter."""
    return lambda policy: SummariseRegistry.register(name, policy)


def register_forget(name: str) -> Callable[[Forget], Forget]:
    """Decorator: makes a function a policy by which episodes are forgotten."""
    return lambda policy: ForgetRegistry.register(name, policy)


# --- retrieve ---------------------------------------------------------------------------------------------------------


@register_retrieve("recent")
def recent(notes: Sequence[Note], query: str) -> list[Note]:
    """The newest first."""
    return sorted(notes, key=lambda note: (note.age, note.section, -note.index))


@register_retrieve("relevant")
def relevant(notes: Sequence[Note], query: str) -> list[Note]:
    """Those that share the rarest words with the query first, by BM25; among equals the newest.

    Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with k1 = 1.2 and b = 0.75.
    """
    k1, b = 1.2, 0.75
    words = [Counter(stems(note.text)) for note in notes]
    mean = sum(map(Counter.total, words)) / max(1, len(words)) or 1.0
    score = dict.fromkeys(range(len(notes)), 0.0)
    for stem in dict.fromkeys(stems(query)):
        holding = [index for index, bag in enumerate(words) if stem in bag]
        rarity = math.log(1 + (len(notes) - len(holding) + 0.5) / (len(holding) + 0.5))
        for index in holding:
            often = words[index][stem]
            score[index] += rarity * often * (k1 + 1) / (often + k1 * (1 - b + b * words[index].total() / mean))
    order = sorted(range(len(notes)), key=lambda index: (-score[index], notes[index].age, index))
    return [notes[index] for index in order]


@register_retrieve("in_order")
def in_order(notes: Sequence[Note], query: str) -> list[Note]:
    """As the content has them."""
    return list(notes)


# --- summarise --------------------------------------------------------------------------------------------------------


@register_summarise("lead")
def lead(texts: Sequence[str], limit: int, count: Count) -> str:
    """The first sentence of each text; where that is too long, of each second, each third, ..., and always of the first."""
    first = [found[0] for text in texts if (found := sentences(text))]
    for step in range(1, len(first) + 1):
        whole = " ".join(first[::step])
        if count(whole) <= limit:
            return whole
    return shortened(first[0], limit, count) if first else ""


@register_summarise("newest")
def newest(texts: Sequence[str], limit: int, count: Count) -> str:
    """As many whole sentences from the end as fit."""
    tail: list[str] = []
    for sentence in reversed([sentence for text in texts for sentence in sentences(text)]):
        if count(" ".join([sentence, *tail])) > limit:
            break
        tail.insert(0, sentence)
    return " ".join(tail)


@register_summarise("nothing")
def nothing(texts: Sequence[str], limit: int, count: Count) -> str:
    """Nothing: what does not fit is not spoken of."""
    return ""


# --- forget -----------------------------------------------------------------------------------------------------------


@register_forget("oldest")
def oldest(episodes: Sequence[str], keep: int, glossary: Mapping[str, str]) -> range:
    """The oldest."""
    return range(max(0, len(episodes) - keep))


@register_forget("idle")
def idle(episodes: Sequence[str], keep: int, glossary: Mapping[str, str]) -> list[int]:
    """Of the older half those that speak of the fewest names in the glossary, the oldest first; the newer half stays."""
    spare = max(0, len(episodes) - keep)
    names = [set(stems(name)) for name in glossary]
    older = range(max(spare, len(episodes) - keep // 2))
    spoken = {index: sum(bool(name & set(stems(episodes[index]))) for name in names) for index in older}
    return sorted(sorted(older, key=lambda index: (spoken[index], index))[:spare])


@register_forget("never")
def never(episodes: Sequence[str], keep: int, glossary: Mapping[str, str]) -> list[int]:
    """Nothing."""
    return []
