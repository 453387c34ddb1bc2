"""Lives of simulated worlds without pictures, for tests."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from wgtorch.blocks.simulation.checker import Passage
from wgtorch.blocks.simulation.episode import after, develop
from wgtorch.blocks.simulation.genesis import begun
from wgtorch.blocks.simulation.reading import Readers
from wgtorch.blocks.simulation.telling.teller import GrammarTeller


def world_of(seed: int, **options: Any) -> dict[str, Any]:
    """A content that has begun."""
    return begun({"traveller": "Storm"}, random.Random(f"{seed}/genesis"), **options)


def passages(
    seed: int, count: int, actions: Mapping[int, str] | None = None, *, told: bool = True, reader: str = "rules"
) -> Iterator[Passage]:
    """Episodes of a life, one after the other."""
    content, teller, reads = world_of(seed), GrammarTeller(), Readers.get(reader)()
    for index in range(count):
        action = (actions or {}).get(index)
        given = {content["traveller"]: action} if action else {}
        events = develop(content, given, reads, random.Random(f"{seed}/{index}"))
        changed = after(content, events)
        outcome = teller.outcome(content, changed, events, random.Random(f"{seed}/{index}/told")) if told else ""
        yield Passage(content, changed, events, outcome)
        content = changed
