"""How good the painter and the describer of pixel scenes are: what was asked for, and what the describer sees of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from scripts.scene_measures import pictures_from
from wgtorch.blocks.pixel_scenes.conditioner import FIELDS, FRONT_KINDS, encode_plan
from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.blocks.pixel_scenes.layout import any_look, any_plan
from wgtorch.blocks.simulation.scene_plan import BACK, BEASTS, FRONT, SLOTS, Look, ScenePlan, Thing
from wgtorch.graph import Graph
from wgtorch.train.pixel_scenes.data import HELD_OUT

ATTRIBUTES = (
    "time", "weather", "terrain", "landmark", "landmark colour", "landmark state", "object", "object colour", "object state",
    "beast", "beast coat", "person", "coat", "hat", "hair", "build", "nothing",
)  # fmt: skip
"""What is counted. ``nothing`` are the slots that are to be empty."""


_ALONE = ("landmark", "object", "person", "beast")


def plans_for(count: int, *, things: int | None = None, held_out: bool | None = None) -> list[ScenePlan]:
    """Plans with a seed of their own, that no model is trained on.

    Of one thing, landmarks, objects, people and beasts come in turns, but for beasts with a combination that is left out: there is none.
    """
    rng = random.Random(f"{HELD_OUT}/{things}/{held_out}")
    order = () if things != 1 else _ALONE[:3] if held_out else _ALONE
    found: list[ScenePlan] = []
    while len(found) < count:
        plan = any_plan(rng, held_out=held_out, things=things)
        if not order or order[len(found) % len(order)] == _sort(plan.things[0]):
            found.append(plan)
    return found


def _sort(thing: Thing) -> str:
    return thing.role if thing.role in ("landmark", "object") else "beast" if thing.kind in BEASTS else "person"


def paint(graph: Graph, plans: Sequence[ScenePlan], *, seed: int = 0) -> Tensor:
    """Pictures [N, 3, 64, 64] in [0, 1] that a graph `scene_to_image` makes of plans."""
    return pictures_from(graph, "scene", plans, output="small", seed=seed)


@torch.no_grad()
def agreement(describer: PixelSceneDescriber, pictures: Tensor, plans: Sequence[ScenePlan], *, batch: int = 250) -> dict[str, float]:
    """Share of what was asked for that the describer sees, by attribute; attributes that were never asked for are not in it.

    The colour, state and look of a thing count as seen only where the describer sees its kind.

    Args:
        describer: what judges.
        pictures: [N, 3, S, S] in [0, 1].
        plans: what they were painted by.
        batch: pictures that are read at once.
    """
    seen = torch.cat([describer.read(part)[0] for part in pictures.split(batch)])
    asked = torch.stack([encode_plan(plan) for plan in plans]).long()
    hits: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    for want, got in zip(asked.tolist(), seen.tolist(), strict=True):
        for k, name in enumerate(("time", "weather", "terrain")):
            hits[name].append(want[0][k] == got[0][k])
        for row in range(1, 1 + len(SLOTS)):
            _count(hits, want[row], got[row], back=row <= len(BACK))
    return {name: sum(values) / len(values) for name, values in hits.items() if values}


def _count(hits: dict[str, list[bool]], want: Sequence[int], got: Sequence[int], *, back: bool) -> None:
    kind = want[0]
    if not kind:
        hits["nothing"].append(not got[0])
        return
    same = kind == got[0]
    name = "landmark" if back else FRONT_KINDS[kind - 1]
    if name == "person":
        hits["person"].append(same)
        for label, field in (("coat", "colour"), ("hat", "hat"), ("hair", "hair"), ("build", "build")):
            hits[label].append(same and want[FIELDS.index(field)] == got[FIELDS.index(field)])
    elif name in BEASTS:
        hits["beast"].append(same)
        hits["beast coat"].append(same and want[1] == got[1])
    else:
        label = "landmark" if back else "object"
        hits[label].append(same)
        if want[1]:  # a thing that was given no colour may have any
            hits[f"{label} colour"].append(same and want[1] == got[1])
        hits[f"{label} state"].append(same and want[2] == got[2])


@torch.no_grad()
def same_character(graph: Graph, describer: PixelSceneDescriber, *, pairs: int = 200, seed: int = 0) -> float:
    """Share of trials in which a character is told from another by the describer's embedding of its slot.

    In a trial one character is painted in two pictures - other land, hour, weather, slot, company - and another, of another look, in a
    third. The trial is won where the first two are nearer (cosine) than the first and the third.
    """
    rng = random.Random("same character")
    plans: list[ScenePlan] = []
    slots: list[int] = []
    for _ in range(pairs):
        look = any_look(rng)
        other = look
        while other == look:
            other = any_look(rng)
        for seen_look in (look, look, other):
            plan, slot = _with_character(rng, seen_look)
            plans.append(plan)
            slots.append(slot)
    pictures = paint(graph, plans, seed=seed)
    front = torch.cat([describer.features(part)[2] for part in pictures.split(250)])  # [3 pairs, 5, E]
    logits = describer.front(front)
    look_of = torch.cat([logits[name].softmax(-1) for name in ("colour", "hat", "hair", "build")], dim=-1)  # the identity that it sees
    vectors = torch.nn.functional.normalize(look_of[torch.arange(len(plans)), slots], dim=-1).unflatten(0, (pairs, 3))
    near, far = (vectors[:, 0] * vectors[:, 1]).sum(-1), (vectors[:, 0] * vectors[:, 2]).sum(-1)
    return float((near > far).float().mean())


def _with_character(rng: random.Random, look: Look) -> tuple[ScenePlan, int]:
    plan = any_plan(rng, things=3)
    others = [thing for thing in plan.things if thing.role != "hero"]
    free = [slot for slot in FRONT if slot not in {thing.slot for thing in others}]
    slot = rng.choice(free)
    things = (*others, Thing("hero", "person", slot, look=look))
    return ScenePlan(plan.time, plan.weather, plan.terrain, things), FRONT.index(slot)
