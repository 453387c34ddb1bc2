"""From a plan to numbers: one row for the setting, one for each slot."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.blocks.scenes.scene import Scene, parse
from wgtorch.blocks.simulation.scene_plan import (
    BEASTS,
    BUILDS,
    COLOURS,
    HAIRS,
    HATS,
    LANDMARKS,
    OBJECTS,
    SLOTS,
    STATES,
    TERRAINS,
    TIMES,
    WEATHERS,
    Look,
    ScenePlan,
    Thing,
)
from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import Rng
from wgtorch.roles import Conditioner

FRONT_KINDS = (*OBJECTS, *BEASTS, "person")
"""What may stand in the front row."""
FIELDS = ("kind", "colour", "state", "hat", "hair", "build")
"""Columns of a slot's row; a value's number counts from 1, and 0 says that there is none. For people and beasts the colour is the coat."""
ROWS = 1 + len(SLOTS)
TRAVELLER = Look("red", "hood", "brown", "middle")
"""The look of a traveller whom words alone name."""


@register_block("conditioner/pixel_scene")
class ScenePlanEncoder(Conditioner):
    """Writes plans of scenes as rows of numbers that the painter looks up.

    Row 0 of the embedding [B, 9, 6] is the setting: the indices of time, weather and terrain. Each other row is a slot in the
    order of :data:`~wgtorch.blocks.simulation.scene_plan.SLOTS`: kind, colour, state, hat, hair and build, counted from 1, with 0 for
    none. It has no weights.

    >>> encode = ScenePlanEncoder()
    >>> encode(scene={"time": "dusk", "weather": "rain", "terrain": "forest"})["embedding"].shape
    torch.Size([1, 9, 6])
    """

    inputs: Mapping[str, Any] = {
        "scene": Port(dtype="any", optional=True, description="data of a ScenePlan, a list of such, or rows [B, 9, 6]"),
        "prompt": Port(dtype="any", optional=True, description="words, or a list of them, where there is no plan"),
    }
    outputs: Mapping[str, Any] = {
        "embedding": Port(dtype="embedding", shape=("B", 9, 6), description="rows of plans: the setting, then one for each slot")
    }
    uses_global_rng = False

    def forward(self, scene: Any = None, prompt: Any = None, rng: Rng | None = None) -> dict[str, Tensor]:
        """``embedding`` [B, 9, 6] of one plan (B = 1) or of a list of B, each a :class:`ScenePlan` or its data; rows stay as they are.

        Where there is no plan, what the words of ``prompt`` name is planned (:func:`plan_of_words`), and the rest by chance.

        Raises:
            PortError: a plan that says what no picture can show, or neither a plan nor words.
        """
        if isinstance(scene, Tensor):
            if scene.dim() != 3 or tuple(scene.shape[1:]) != (ROWS, len(FIELDS)):
                raise PortError(f"{self.block_id}.scene: got rows of shape {list(scene.shape)}; expected [B, {ROWS}, {len(FIELDS)}]")
            return {"embedding": scene.float()}
        plans = plans_of(scene, prompt, rng or Rng(), self.block_id)
        return {"embedding": torch.stack([encode_plan(plan) for plan in plans])}


def plans_of(scene: Any, prompt: Any, rng: Rng, where: str) -> list[ScenePlan]:
    """Plans from what a block was given: a plan, its data, a list of such; or, where there is none, words or a list of them.

    Raises:
        PortError: there is neither, or a plan says what no picture can show.
    """
    if scene is None and prompt is None:
        raise PortError(f"{where}: neither scene nor prompt; expected the plan of a scene, or words")
    if scene is None:
        return [plan_of_words(str(text), rng.python(k)) for k, text in enumerate([prompt] if isinstance(prompt, str) else prompt)]
    given = [scene] if isinstance(scene, (Mapping, ScenePlan)) else list(scene)
    if not given:
        raise PortError(f"{where}.scene: an empty list; expected at least one plan")
    return [plan_of(plan, f"{where}.scene[{k}]") for k, plan in enumerate(given)]


def plan_of(scene: Any, where: str) -> ScenePlan:
    """A plan of its data.

    Raises:
        PortError: it is none.
    """
    if isinstance(scene, ScenePlan):
        return scene
    try:
        return ScenePlan.from_data(scene)
    except (ValueError, TypeError) as error:
        raise PortError(f"{where}: {error}") from error


def plan_of_words(text: str, rng: random.Random) -> ScenePlan:
    """A plan of what a text names - hour, weather, land, one landmark, a traveller - and of random other things.

    Args:
        text: read as :func:`wgtorch.blocks.scenes.scene.parse` reads it.
        rng: draws what it leaves open.
    """
    scene = Scene.complete(parse(text), rng)
    things = []
    if scene.landmark != "none":
        things.append(Thing("landmark", scene.landmark, f"back_{scene.place}", scene.color))
    if scene.traveller == "yes":
        things.append(Thing("hero", "person", "front_middle" if scene.place != "middle" else "front_right", look=TRAVELLER))
    return ScenePlan(scene.time, scene.weather, scene.terrain, tuple(things))


def encode_plan(plan: ScenePlan) -> Tensor:
    """The rows [9, 6] of a plan, float32."""
    rows = torch.zeros(ROWS, len(FIELDS))
    rows[0, :3] = torch.tensor([TIMES.index(plan.time), WEATHERS.index(plan.weather), TERRAINS.index(plan.terrain)])
    for thing in plan.things:
        rows[1 + SLOTS.index(thing.slot)] = torch.tensor(_fields(thing))
    return rows


def decode_rows(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """What rows [9, 6] say, in the keys of a plan's data; people are ``character``, since no picture says who is the hero."""
    time, weather, terrain = (int(value) for value in rows[0][:3])
    things: list[dict[str, Any]] = []
    for slot, row in zip(SLOTS, rows[1:], strict=True):
        kind, colour, state, hat, hair, build = (int(value) for value in row)
        if not kind:
            continue
        back = slot.startswith("back")
        name = (LANDMARKS if back else FRONT_KINDS)[kind - 1]
        thing: dict[str, Any] = {"role": "landmark" if back else "object", "kind": name, "slot": slot}
        if name == "person" or name in BEASTS:
            look = {"coat": COLOURS[colour - 1]}
            if name == "person":
                look |= {"hat": HATS[hat - 1], "hair": HAIRS[hair - 1], "build": BUILDS[build - 1]}
            thing |= {"role": "character", "state": "whole", "look": look}
        else:
            thing["state"] = STATES[state - 1]
            if colour:
                thing["colour"] = COLOURS[colour - 1]
        things.append(thing)
    return {"time": TIMES[time], "weather": WEATHERS[weather], "terrain": TERRAINS[terrain], "things": things}


def _fields(thing: Thing) -> list[int]:
    kinds = LANDMARKS if thing.role == "landmark" else FRONT_KINDS
    kind = 1 + kinds.index(thing.kind)
    if thing.look is None:
        colour = 0 if thing.colour is None else 1 + COLOURS.index(thing.colour)
        return [kind, colour, 1 + STATES.index(thing.state), 0, 0, 0]
    look: Look = thing.look
    coat = 1 + COLOURS.index(look.coat)
    if thing.kind != "person":
        return [kind, coat, 1, 0, 0, 0]
    return [kind, coat, 1, 1 + HATS.index(look.hat), 1 + HAIRS.index(look.hair), 1 + BUILDS.index(look.build)]
