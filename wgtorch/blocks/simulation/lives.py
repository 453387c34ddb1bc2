"""Lives of simulated worlds without pictures: for tests and measures, thousands of passes in a minute."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from wgtorch.blocks.simulation.checker import Passage
from wgtorch.blocks.simulation.episode import after, develop
from wgtorch.blocks.simulation.genesis import begun
from wgtorch.blocks.simulation.readers import RuleActionReader
from wgtorch.blocks.simulation.telling.teller import GrammarTeller


def world_of(seed: int, *, traveller: str = "the traveller", **options: Any) -> dict[str, Any]:
    """The content of a world that has just begun.

    Args:
        seed: of the map and the cast.
        traveller: name of the traveller.
        options: as of :func:`~wgtorch.blocks.simulation.genesis.begun`.
    """
    return begun({"traveller": traveller}, random.Random(f"{seed}/genesis"), **options)


def live(
    seed: int,
    passes: int,
    actions: Mapping[int, str] | None = None,
    *,
    content: Mapping[str, Any] | None = None,
    reader: RuleActionReader | None = None,
    told: bool = True,
) -> Iterator[Passage]:
    """Episodes of a life, one after the other.

    >>> [passage.after["episodes"] for passage in live(7, 2)]
    [1, 2]

    Args:
        seed: of everything.
        passes: how many.
        actions: what the traveller is told to do, by number of the pass from 0.
        content: the world it goes on from; a new one when left out.
        reader: reads the actions; rules when left out.
        told: word the outcomes, which takes most of the time.
    """
    now: Mapping[str, Any] = content if content is not None else world_of(seed)
    teller, reads = GrammarTeller(), reader or RuleActionReader()
    for index in range(passes):
        action = (actions or {}).get(index)
        events = develop(now, {"": reads.read(action)} if action else {}, random.Random(f"{seed}/{index}"))
        changed = after(now, events)
        changed["episodes"] = now["episodes"] + 1
        outcome = teller.outcome(now, changed, events, random.Random(f"{seed}/{index}/told")) if told else ""
        yield Passage(now, changed, events, outcome)
        now = changed
