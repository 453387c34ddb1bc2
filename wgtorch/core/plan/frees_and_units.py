"""When slots are emptied, which calls only pass a value on, and which steps wait for the same async calls: steps as a walk takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from wgtorch.core.plan.steps import Call, Chain, Loop, Step, Unit


def with_frees(steps: Sequence[Step], keep: set[int]) -> tuple[Step, ...]:
    """Adds to each step the slots that nobody reads after it; ``keep`` are read after the last."""
    freed: list[Step] = []
    alive = set(keep)
    for step in reversed(steps):
        touched = {*step.reads, *step.writes}
        frees = tuple(sorted(touched - alive))
        if isinstance(step, Loop):
            step = _free_in_iterations(step, alive)
        alive |= set(step.reads)
        freed.append(replace(step, frees=frees))
    return tuple(reversed(freed))


def _free_in_iterations(loop: Loop, alive_after: set[int]) -> Loop:
    """Frees inside a loop's body: values of this iteration that neither the next one nor anybody after the loop reads."""
    fed_back = {carry.feedback for carry in loop.carries}
    body = with_frees(loop.body, set(loop.reads) | fed_back | set(loop.done) | (set(loop.writes) & alive_after))
    own = (fed_back | set(loop.done)) & set(loop.writes)
    live = set(loop.reads) | set(loop.writes) | fed_back
    return replace(loop, body=body, fast_body=joined(body), units=units_of(body, live), iteration_frees=tuple(sorted(own - alive_after)))


def joined(steps: Iterable[Step]) -> tuple[Step | Chain, ...]:
    """Steps with the calls that only pass a value on joined to chains."""
    parts: list[Step | list[Call]] = []
    for step in steps:
        if not (isinstance(step, Call) and step.passes_on):
            parts.append(step)
        elif parts and isinstance(parts[-1], list) and parts[-1][-1].writes == step.args[:1]:
            parts[-1].append(step)
        else:
            parts.append([step])
    return tuple([Chain(tuple(part), part[0].args[0], part[-1].writes[0]) if isinstance(part, list) else part for part in parts])


def units_of(steps: Sequence[Step], keep: set[int]) -> tuple[Unit, ...]:
    """Steps grouped by the async calls that come before and after them; none where no call is async.

    Steps of a group are ready together and go on one after the other; async calls whose values are there run meanwhile.
    """
    numbers = {
        index: 1 << count for count, index in enumerate(i for i, step in enumerate(steps) if isinstance(step, Call) and step.is_async)
    }
    if not numbers:
        return ()
    writer = {slot: index for index, step in enumerate(steps) for slot in step.writes}
    needs = [{writer[slot] for slot in step.reads if slot in writer and writer[slot] != index} for index, step in enumerate(steps)]
    before, after = [0] * len(steps), [0] * len(steps)
    for index in range(len(steps)):
        for source in needs[index]:
            before[index] |= before[source] | numbers.get(source, 0)
    for index in reversed(range(len(steps))):
        for source in needs[index]:
            after[source] |= after[index] | numbers.get(index, 0)
    groups: dict[tuple[int, int, int], list[int]] = {}
    for index in range(len(steps)):
        groups.setdefault((before[index], after[index], numbers.get(index, 0)), []).append(index)
    unit_of = {index: number for number, group in enumerate(groups.values()) for index in group}
    reads = [{slot for index in group for slot in steps[index].reads} for group in groups.values()]
    readers: dict[int, int] = {}
    for group_reads in reads:
        for slot in group_reads:
            readers[slot] = readers.get(slot, 0) + 1
    waits_for = [{unit_of[source] for index in group for source in needs[index]} - {number} for number, group in enumerate(groups.values())]
    then: list[list[int]] = [[] for _ in groups]
    for other, sources in enumerate(waits_for):
        for source in sources:
            then[source].append(other)
    units = []
    for number, group in enumerate(groups.values()):
        own = [steps[index] for index in group]
        touched = {slot for step in own for slot in (*step.reads, *step.writes)}
        parts = with_frees(own, {slot for slot in touched if slot in keep or readers.get(slot, 0) > (slot in reads[number])})
        units.append(
            Unit(
                steps=parts,
                fast_steps=joined(parts),
                call=parts[0] if group[0] in numbers and isinstance(parts[0], Call) else None,
                waits_for=len(waits_for[number]),
                then=tuple(then[number]),
                crossing=tuple(sorted(slot for slot in reads[number] if readers[slot] > 1 and slot not in keep)),
            )
        )
    return tuple(units)
