"""World state: what a world's State should hold after some passes of its cycle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, suggest
from wgtorch.stage import Stage
from wgtorch.train.objective import Batch, Objective, Step
from wgtorch.train.objectives.reconstruction import distance_of
from wgtorch.train.recording import ActivationRecorder
from wgtorch.train.registries import register_objective
from wgtorch.world import World
from wgtorch.world_runtime.cycle import one_pass
from wgtorch.world_runtime.state import State


@register_objective("world_state")
class WorldState(Objective):
    """Distance between slots of the State and what the data says they should be, over several passes of a world (or stage).

    Tensors stay attached inside the State and the content, so gradients run back through the passes; with ``truncate`` no
    further than that many (Williams & Peng 1990). The world's life is not touched.

    Args:
        cycles: passes for each batch.
        truncate: passes that gradients run back through; all where left out.
        start: slot -> key of the batch that fills it before the first pass.
        action: key of the user's action; an action of shape [B, cycles, ...], or a list of that length, has one for each pass.
        slots: slot (or ``slot.field``) -> key of what it should be: a tensor [B, ...] like it, or [B, cycles, ...] with ``each``.
        ports: port inside by path -> key, likewise.
        each: compare after every pass, not only after the last.
        loss: ``mse``, ``l1`` or ``huber``.
    """

    def __init__(
        self,
        *,
        slots: dict[str, str] | None = None,
        ports: dict[str, str] | None = None,
        cycles: int = 1,
        truncate: int | None = None,
        start: dict[str, str] | None = None,
        action: str | None = None,
        each: bool = False,
        loss: str = "mse",
    ) -> None:
        super().__init__()
        if cycles < 1 or (truncate is not None and truncate < 1):
            raise ConfigError(f"world_state: found cycles {cycles} and truncate {truncate}; expected at least 1")
        if not slots and not ports:
            raise ConfigError("world_state: nothing to compare; give slots, as {artifacts: wanted}, or ports by path")
        self.slots, self.ports, self.start = dict(slots or {}), dict(ports or {}), dict(start or {})
        self.cycles, self.truncate, self.action, self.each = cycles, truncate, action, each
        self.distance = distance_of(loss, "world_state.loss")

    def needed(self) -> tuple[str, ...]:
        keys = [*self.slots.values(), *self.ports.values(), *self.start.values(), *([self.action] if self.action else [])]
        return tuple(dict.fromkeys(keys))

    def check(self, target: Block) -> None:
        schema = schema_of(target, "world_state")
        for slot in (*self.slots, *self.start):
            if slot.split(".")[0] not in schema:
                raise ConfigError(f"world_state: {target.block_id} has no slot {slot!r}; {suggest(slot, schema)}")

    def forward(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Tensor]:
        """``loss``: the mean over everything that is compared; and each distance by name."""
        terms: dict[str, list[Tensor]] = {}
        for index, state, seen in self.passes(target, batch):
            if not self.each and index < self.cycles - 1:
                continue
            for name, key in (*self.slots.items(), *self.ports.items()):
                found = seen[name] if name in self.ports else look_into(state, name)
                wanted = self.wanted(batch[key], index)
                if not isinstance(found, Tensor) or found.shape != wanted.shape:
                    shown = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                    raise ConfigError(f"world_state: {name} is {shown}; expected a tensor {list(wanted.shape)}, as batch[{key!r}]")
                terms.setdefault(name, []).append(self.distance(found.float(), wanted.float()))
        means = {name: torch.stack(values).mean() for name, values in terms.items()}
        return {**{name: value.detach() for name, value in means.items()}, "loss": torch.stack(list(means.values())).mean()}

    def samples(self, target: Block, batch: Batch, step: Step) -> Mapping[str, Any]:
        """Pictures that slots hold after the last pass, and what they should be."""
        *_, (index, state, _) = self.passes(target, batch)
        found = {name: (look_into(state, name), self.wanted(batch[key], index)) for name, key in self.slots.items()}
        pictures = {
            name: pair for name, pair in found.items() if all(isinstance(each, Tensor) and each.shape[1:2] == (3,) for each in pair)
        }
        named = ({name: shown, f"{name}_wanted": wanted} for name, (shown, wanted) in pictures.items())
        return {name: value for each in named for name, value in each.items() if value.dim() == 4}

    def passes(self, target: Block, batch: Batch) -> Any:
        """Runs the passes: (number, State after it, values of the watched ports in it)."""
        state = State(schema=schema_of(target, "world_state"), **{slot: batch[key] for slot, key in self.start.items()})
        content: Any = target.content if isinstance(target, World) else {}
        for index in range(self.cycles):
            if self.truncate is not None and index and index % self.truncate == 0:
                state, content = detached(state), detached(content)
            watch = ActivationRecorder(target.block_id, list(self.ports))
            run, action = watch.run(target.block_id), self.action_of(batch, index)
            if isinstance(target, World):
                state, content = one_pass(target, state, action, content, run)
            else:
                state = target(state, action=action, content=content, run_context=run)
                content = run.content or content
            yield index, state, {name: values[-1] for name, values in watch.values.items() if values}

    def wanted(self, value: Any, index: int) -> Any:
        """What is to be there after a pass."""
        if not self.each:
            return value
        if not isinstance(value, Tensor) or value.dim() < 2 or value.shape[1] != self.cycles:
            shown = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"world_state: {shown} is given to compare with; with each, expected [B, {self.cycles}, ...]")
        return value[:, index]

    def action_of(self, batch: Batch, index: int) -> Any:
        """What the user does in a pass."""
        value = batch[self.action] if self.action is not None else None
        if self.cycles > 1 and isinstance(value, Tensor):
            return value[:, index]
        return value[index] if self.cycles > 1 and isinstance(value, (list, tuple)) else value


def schema_of(target: Block, what: str) -> tuple[str, ...]:
    """Slots of the State that a world or stage works on.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(target, World):
        return target.state_schema
    if isinstance(target, Stage):
        return State().schema
    raise ConfigError(f"{what}: {target.block_id} is a {target.level}; expected a world or a stage, which work on a State")


def look_into(state: State, name: str) -> Any:
    """The value of ``slot`` or ``slot.field``."""
    slot, *fields = name.split(".")
    value = state[slot]
    for field in fields:
        value = value[field]
    return value


def detached(value: Any) -> Any:
    """The same value, cut off from the graph that made it."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, State):
        return value.replace(**{name: detached(value[name]) for name in value.schema})
    if isinstance(value, Mapping):
        return {key: detached(item) for key, item in value.items()}
    return type(value)(detached(item) for item in value) if type(value) in (list, tuple) else value
