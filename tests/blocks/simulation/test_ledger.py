"""The ledger's index of what last changed each fact, which goes on where an earlier one ended."""

from __future__ import annotations

import random
from typing import Any

from wgtorch.blocks.simulation.ledger import _MOST_KNOWN, last_changes


def test_the_index_of_any_past_is_that_of_all_its_events() -> None:
    """Of pasts that go on, fork, are cut, edited, or change in place."""
    rng = random.Random(3)

    def event(number: int) -> dict[str, Any]:
        return {"id": number, "effects": [{"path": ["places", str(rng.randrange(9))]} for _ in range(rng.randrange(3))]}

    pasts: list[list[dict[str, Any]]] = [[]]
    for _ in range(600):
        past = rng.choice(pasts[-2 * _MOST_KNOWN :])
        way = rng.randrange(7)
        if way == 0:
            past = past[: rng.randrange(len(past) + 1)]
        elif way == 1 and past:
            at = rng.randrange(len(past))
            past = [*past[:at], event(at + 1), *past[at + 1 :]]
        elif way == 2:
            past.append(event(len(past) + 1))
        elif way == 3 and past:
            past[rng.randrange(len(past))] = event(700)
        else:
            past = [*past, *(event(len(past) + 1 + more) for more in range(rng.randrange(4)))]
        pasts.append(past)
        found = last_changes(past)
        assert found == {tuple(effect["path"]): each["id"] for each in past for effect in each["effects"]}
        found["mine", "alone"] = 0
