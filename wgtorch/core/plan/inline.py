"""Levels written out in the plan around them: where a level is nothing but calls, a fast walk makes those calls itself.

a -> first -> b          of first: x -> y -> z                 a -> first/x -> first/y -> first/z -> b
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from wgtorch.core.plan.steps import FROZEN, LEVEL, RNG, STREAM, Call, Chain, Combine, Plan, Step

InlineLevel = tuple[int, str]
"""The number of the level around it, 0 for the one that is walked, and its key there."""


class Inliner:
    """Writes levels out.

    Args:
        plan_of: the plan of the level at a node; None where its call has to be made as it is.
        size: slots that are taken already.
    """

    def __init__(self, plan_of: Callable[[str], Plan | None], size: int) -> None:
        self.plan_of = plan_of
        self.size = size
        self.levels: list[InlineLevel] = []

    def written_out(self, steps: Sequence[Step]) -> list[Step]:
        """The steps, with those of levels below in place of calls of them."""
        return [each for step in steps for each in (self._steps_of(step) or [step])]

    def _steps_of(self, step: Step) -> list[Step] | None:
        """What stands in a call's place; None where it has to be made as it is."""
        if not isinstance(step, Call) or step.needs != LEVEL or (plan := self.plan_of(step.node)) is None:
            return None
        given = dict(step.inputs)
        if plan.fills or plan.units or any(required and name not in given for name, _, required in plan.inputs):
            return None
        inner = [each for part in plan.fast_steps for each in (part.calls if isinstance(part, Chain) else (part,))]
        if not all(isinstance(each, Combine) or (isinstance(each, Call) and not each.needs & ~(RNG | FROZEN | STREAM)) for each in inner):
            return None
        slots = {slot: given[name] for name, slot, _ in plan.inputs if name in given}
        stored = dict(step.store)
        for name, slot in plan.outputs:
            if name in stored and slots.setdefault(slot, stored[name]) != stored[name]:
                return None  # one value is read under two names
        first = len(self.levels) + 1  # 0 is the level that is walked
        self.levels += [(0, step.key), *[(first + above, key) for above, key in plan.inlined]]
        base = self.size
        self.size += plan.size
        slots = {slot: slots.get(slot, base + slot) for slot in range(plan.size)}
        return [_moved(each, step.node, first, slots) for each in inner]


def _moved(step: Step, above: str, level: int, slots: dict[int, int]) -> Step:
    """A step as the level above makes it, over that one's slots."""
    node = f"{above}/{step.node}"
    if isinstance(step, Combine):
        sources = tuple([slots[slot] for slot in step.sources])
        return replace(step, node=node, sources=sources, slot=slots[step.slot], outside=frozenset([slots[slot] for slot in step.outside]))
    assert isinstance(step, Call)
    return replace(
        step,
        node=node,
        level=level + step.level,
        inputs=tuple([(port, slots[slot]) for port, slot in step.inputs]),
        args=tuple([slots[slot] for slot in step.args]),
        kwargs=tuple([(port, slots[slot]) for port, slot in step.kwargs]),
        arg_slot=slots.get(step.arg_slot, step.arg_slot),
        store=tuple([(port, slots[slot]) for port, slot in step.store]),
        out_slot=slots.get(step.out_slot, step.out_slot),
    )
