"""What happens when nobody acts: the cast pursues what it wants, skies change, mishaps happen, strangers come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from wgtorch.blocks.simulation.action import Action
from wgtorch.blocks.simulation.ledger import Draft
from wgtorch.blocks.simulation.mishaps import mishap
from wgtorch.blocks.simulation.resolver import Resolver
from wgtorch.blocks.simulation.threads import DONE, ThreadKinds, Wish, wishes
from wgtorch.blocks.simulation.verbs.rules import spend
from wgtorch.core.registry import Registry


class Drama(Protocol):
    """What moves the world on: adds events to the draft."""

    def __call__(self, draft: Draft, resolver: Resolver, *, acted: Sequence[str], scheduling: str) -> None:
        """Adds what the others do and what befalls them, after those who acted by a person's wish."""


Dramas: Registry[Drama] = Registry("drama", group="wgtorch.dramas")
Schedules: Registry[Callable[[Draft, list[str]], list[str]]] = Registry("scheduling", group="wgtorch.schedulings")
"""``(draft, candidates) -> who acts in this pass``, in their order."""


def by_turns(draft: Draft, names: list[str]) -> list[str]:
    """One after the other, one in a pass."""
    return [names[len(draft.content.get("chronicle", ())) % len(names)]] if names else []


def all_at_once(draft: Draft, names: list[str]) -> list[str]:
    """Everybody in every pass."""
    return names


def by_initiative(draft: Draft, names: list[str]) -> list[str]:
    """One or two: who is near the traveller, and who wants something, comes sooner."""
    place = draft.place_of(draft.hero)
    weights = [1.0 + 3.0 * (draft.place_of(name) == place) + 1.5 * (draft.characters[name]["goal"] is not None) for name in names]
    count = min(len(names), draft.rng.choice((1, 1, 2)))
    chosen: list[str] = []
    while len(chosen) < count:
        name = draft.rng.choices(names, weights)[0]
        if name not in chosen:
            chosen.append(name)
    return chosen


for _name, _schedule in (("turns", by_turns), ("all", all_at_once), ("initiative", by_initiative)):
    Schedules.register(_name, _schedule)


def by_threads(draft: Draft, resolver: Resolver, *, acted: Sequence[str] = (), scheduling: str = "initiative") -> None:
    """Everybody follows their thread; who has none finds one in what has happened.

    In a pass in which a person acts, the others keep to what does not touch it: they walk and talk.
    """
    if draft.hero not in acted:
        take_turn(draft, draft.hero, resolver)
    others = [name for name, who in draft.characters.items() if name != draft.hero and name not in acted and who["present"]]
    for name in Schedules.get(scheduling)(draft, others):
        take_turn(draft, name, resolver, quiet=bool(acted))
    if not acted:
        mishap(draft)


Dramas.register("threads", by_threads)
QUIET = frozenset(("go", "wander", "rest"))
"""What others do while a person acts."""


def take_turn(draft: Draft, who: str, resolver: Resolver, *, quiet: bool = False) -> None:
    """One step of somebody's life."""
    goal = draft.characters[who]["goal"]
    if goal is None or goal not in draft.threads:
        if quiet or not open_thread(draft, who) or who != draft.hero:
            return
        goal = draft.characters[who]["goal"]
    thread = draft.threads[goal]
    step = ThreadKinds.get(thread["kind"])(draft, who, thread["what"])
    if isinstance(step, Action):
        if quiet and (step.verb not in QUIET):
            return
        if step.verb != "go":  # the act itself rests on the wish; every step of the way need not say so again
            draft.rests_on("threads", goal)
        event = resolver(draft, who, step)
        if not event["effects"] and not quiet:  # refused, or it was so already and the thread does not see it
            close_thread(draft, who, goal, "failed", because=event["because"], cause=event["id"])
        return
    if not quiet:
        close_thread(draft, who, goal, "done" if step == DONE else "failed")


def open_thread(draft: Draft, who: str) -> bool:
    """Somebody comes to want something: what presses most, and what they have not wanted lately, first.

    Returns:
        Whether there was anything to want.
    """
    found = list(wishes(draft, who))
    recent = [thread["kind"] for thread in list(draft.threads.values())[-12:]]
    mine = [thread["what"].get("words") for thread in draft.threads.values() if thread["who"] == who][-8:]
    weights = [wish.weight * 0.6 ** recent.count(wish.kind) * (0.05 if wish.what["words"] in mine else 1.0) for wish in found]
    if not found or sum(weights) <= 0:
        return False
    wish: Wish = draft.rng.choices(found, weights)[0]
    for path in wish.because:
        draft.rests_on(*path)
    name = f"t{len(draft.threads) + 1}"
    thread: dict[str, Any] = {
        "who": who, "kind": wish.kind, "what": wish.what, "why": [], "status": "open", "opened": draft.next_id, "closed": None,
    }  # fmt: skip
    causes = draft.causes()
    draft.change({**thread, "why": causes}, "threads", name)
    draft.change(name, "characters", who, "goal")
    draft.close(who, Action("want", target=name), "done", thread=name, wish=wish.what["words"], wanted=wish.kind)
    return True


def close_thread(draft: Draft, who: str, name: str, status: str, *, because: str = "", cause: int | None = None) -> None:
    """Somebody has what they wanted, or gives it up."""
    thread = draft.threads[name]
    draft.rests_on("threads", name)
    for path in _decided_by(thread):
        draft.rests_on(*path)
    draft.change({**thread, "status": status, "closed": draft.next_id}, "threads", name)
    draft.change(None, "characters", who, "goal")
    draft.mood(who, "proud" if status == "done" else "sad")
    spend(draft, who, 1)
    verb = "finish" if status == "done" else "give_up"
    why = because or ("" if status == "done" else "it cannot be had any more")
    draft.close(
        who,
        Action(verb, target=name),
        "done",
        why,
        causes=[cause] if cause else [],
        thread=name,
        wish=thread["what"]["words"],
        wanted=thread["kind"],
    )


def _decided_by(thread: dict[str, Any]) -> list[tuple[str, ...]]:
    """The facts that tell whether a thread is at its end."""
    what, who = thread["what"], thread["who"]
    found: list[tuple[str, ...]] = []
    if "object" in what:
        found.append(("objects", what["object"], "bearer"))
    if thread["kind"] in ("mend", "raise"):
        found.append(("places", what["place"], "state"))
    if "person" in what:
        found.append(("characters", what["person"], "remembers", who))
    return found
