"""The episodes of a played world as the page shows them: texts as data, pictures as addresses."""

from __future__ import annotations

import io
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from torch import Tensor

from wgtorch.blocks.pixel_scenes.motion import motions_of
from wgtorch.blocks.simulation.scene_plan import ScenePlan
from wgtorch.report.words import words
from wgtorch.storage.encoding import images_in, write_png
from wgtorch.storage.media import SMALLEST
from wgtorch.world import World
from wgtorch.world_runtime.state import State, holds_something

_KEPT_PICTURES = 64
IN_FLIGHT = "now"


class Episodes:
    """What the page shows of a world's past and of the episode in flight. Stored states are read once.

    Attributes:
        past: names the stored episodes: as long as it is the same, those that were told stay as they are, and more come after them.

    Args:
        world: whose episodes.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.version, self.past = 1, token_hex(6)
        self._lock = threading.Lock()
        self._told: dict[int, dict[str, Any]] = {}
        self._pictures: OrderedDict[tuple[int, str, int], bytes] = OrderedDict()

    def changed(self) -> None:
        """The episode in flight is another now."""
        with self._lock:
            self.version += 1

    def forget(self) -> None:
        """The past is another now."""
        with self._lock:
            self.version, self.past = self.version + 1, token_hex(6)
            self._told.clear()
            self._pictures.clear()

    def told(self, past: str | None = None, after: int = -1) -> dict[str, Any]:
        """The `episodes`, oldest first, the last of which may be in flight, and what a page needs to ask for those that come later.

        Args:
            past: :attr:`past` as it was when the episodes up to a step were told; they are left out if it is still the same.
            after: that step.

        Returns:
            `past`, `after` (-1 where none is left out), `oldest`, the first stored step, and `episodes`.
        """
        with self._lock:
            history, life = self.world.history, self.world.life
            steps = history.steps
            after = after if past == self.past else -1
            begins = any(stage.state_contract.new_state for stage in self.world.nodes.values())
            traces = history.traces
            began = {int(entry["pass"]): entry.get("action") for entry in traces if entry.get("begins")}
            actions = began if begins else {int(entry["pass"]): entry.get("action") for entry in traces}
            found = []
            for index, step in enumerate(steps):
                if step <= after:
                    continue
                if step not in self._told:
                    self._told[step] = self._entry(history[index], str(step))
                number = step if begins else step + 1
                found.append({**self._told[step], "number": number, "step": step, "action": words(actions.get(number - 1))})
            state = life.state
            if state is not None and state.filled and not (steps and state == history[len(steps) - 1]):
                number = life.passes + (1 if life.stage else 0)
                if begins and number - 1 not in began:
                    number -= 1  # what is in flight began in the pass before
                found.append({**self._entry(state, IN_FLIGHT), "number": number, "step": None, "action": words(actions.get(number - 1))})
            return {"past": self.past, "after": after, "oldest": steps[0] if steps else 0, "episodes": found}

    def picture(self, step: str, index: int) -> bytes | None:
        """A picture of a stored step or of the episode in flight as PNG; None where there is none."""
        with self._lock:
            key = (self.version if step == IN_FLIGHT else 0, step, index)
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
            images = images_of(self._state(step))
            if not 0 <= index < len(images):
                return None
            held = io.BytesIO()
            write_png(images[index], held, scale=max(1, SMALLEST // max(images[index].shape[-2:])))
            self._pictures[key] = held.getvalue()
            while len(self._pictures) > _KEPT_PICTURES:
                self._pictures.popitem(last=False)
            return self._pictures[key]

    def state(self, step: str) -> State | None:
        """The state of a stored step, or the one in flight; None where there is none."""
        with self._lock:
            return self._state(step)

    def _state(self, step: str) -> State | None:
        if step == IN_FLIGHT:
            return self.world.life.state
        steps = self.world.history.steps
        return self.world.history[steps.index(int(step))] if step.isdecimal() and int(step) in steps else None

    def _entry(self, state: State, where: str) -> dict[str, Any]:
        version = self.version if where == IN_FLIGHT else self.past
        images = images_of(state)
        scene = scene_of(state)
        return {
            "where": where,
            "texts": {slot: text for slot in state.schema if slot != "recipe" and (text := words_of(state[slot]))},
            "resolution": _resolution(state),
            "pictures": [f"{where}/{index}.png?v={version}" for index in range(len(images))],
            "alt": words_of(state["description"]) if "description" in state else "",
            "scene": None if scene is None else scene.to_data(),
            "moves": scene is not None and bool(motions_of(scene)) and all(side % 64 == 0 for image in images for side in image.shape[-2:]),
        }


def images_of(state: State | None) -> list[Tensor]:
    """The pictures of a state, slot by slot."""
    return [] if state is None else [image for slot in state.schema for _, image in images_in(state[slot], slot)]


def scene_of(state: State | None) -> ScenePlan | None:
    """The plan that a state's pictures were painted by; None where the recipe holds none, or something else under its name."""
    recipe = state["recipe"] if state is not None and "recipe" in state else None
    scene = recipe.get("scene") if isinstance(recipe, Mapping) else None
    if not isinstance(scene, Mapping):
        return None
    try:
        return ScenePlan.from_data(scene)
    except (ValueError, TypeError):  # a recipe of another kind
        return None


def words_of(value: Any) -> str:
    """A slot for people to read: the text where it has one, nothing for pictures."""
    if not holds_something(value) or any(True for _ in images_in(value, "")):
        return ""
    return words(value)


def slot_text(value: Any) -> str | None:
    """A slot as text that can be edited: texts as they are, data as JSON; None for what is neither."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, indent=1, ensure_ascii=False)
    except (TypeError, ValueError):
        return None


def _resolution(state: State) -> dict[str, str] | None:
    """How the action of an episode went, where the world says it: status and reason."""
    intent = state.get("intent")
    found = intent.get("resolution") if isinstance(intent, Mapping) else None
    if isinstance(found, (list, tuple)):
        found = found[0] if found else None
    if not isinstance(found, Mapping) or "status" not in found:
        return None
    return {"status": str(found["status"]), "because": words(found.get("because"))}
