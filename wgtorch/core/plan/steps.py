"""What a plan is made of: steps over numbered slots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

NONE = -1
"""The slot number that stands for no slot."""


LEVEL, FROZEN, RNG, SURROUNDED, UNSURE, STREAM = 1, 2, 4, 8, 16, 32
"""What the call of a node needs beside values: the run's context, where the child is a level; a detached twin, where gradients are
recorded; a source of random draws; more than that (map, adapter, condition, another thread); a look at whether required values came;
a function that tells callbacks of parts of its outputs."""


@dataclass(frozen=True, slots=True)
class Call:
    """Runs one node.

    Args:
        node: its id, and ``key``, what its child is called in the module that holds the children.
        inputs: (port, slot) of every fed input.
        args: slots passed by position, which are sure to be filled, then ``kwargs`` as (port, slot), without those that are not.
        arg_slot: the slot of the only argument when there is just one, by position.
        store: (port, slot) of every output that is read.
        out_slot: the slot of the output when the node declares just one, and its name in ``out_port``.
        needs: bits that say what the call needs beside values; 0 where handing them over is all.
        required: inputs that must be there.
        unsure: slots of those that may turn out empty.
        is_async: the call waits on a network.
        frees: slots nobody reads after this step.
        behind: required inputs that only arrive where routes are taken, and those, as (node, output).
        routes: outputs of its own of which one call gives only some.
        level: where the call of a level below is written out in its place (:mod:`wgtorch.core.plan.inline`): which one, from 1.
    """

    node: str
    key: str
    inputs: tuple[tuple[str, int], ...]
    args: tuple[int, ...]
    kwargs: tuple[tuple[str, int], ...]
    arg_slot: int
    store: tuple[tuple[str, int], ...]
    out_slot: int
    out_port: str
    needs: int
    required: tuple[str, ...]
    unsure: tuple[int, ...]
    is_async: bool
    frees: tuple[int, ...] = ()
    behind: tuple[tuple[str, frozenset[tuple[str, str]]], ...] = ()
    routes: tuple[str, ...] = ()
    level: int = 0

    @property
    def reads(self) -> tuple[int, ...]:
        """Slots this step reads."""
        return tuple([slot for _, slot in self.inputs])

    @property
    def writes(self) -> tuple[int, ...]:
        """Slots this step fills."""
        return tuple([slot for _, slot in self.store])

    @property
    def passes_on(self) -> bool:
        """True where one value goes in by position, which nobody reads after, perhaps others that stay, and one that is read comes out;
        the place may be frozen."""
        alone = not self.needs & ~(FROZEN | STREAM) and not self.kwargs and len(self.store) == 1
        return alone and len(self.frees) == 1 and self.frees == self.args[:1] and self.args[0] not in self.args[1:]


@dataclass(frozen=True, slots=True)
class Chain:
    """Calls that pass one value on, each to the next and to nobody else.

    Args:
        calls: in order.
        arg_slot: the slot of the first one's first argument.
        out_slot: the slot of the last one's output.
    """

    calls: tuple[Call, ...]
    arg_slot: int
    out_slot: int


@dataclass(frozen=True, slots=True)
class Combine:
    """Combines several sources of one port.

    Args:
        node, port: what is fed.
        how: the port's aggregation.
        sources: slots, and ``keys``, their names.
        slot: where the result goes.
        outside: sources that are inputs of the composite; where the port combines to a list or mapping they may bring one.
    """

    node: str
    port: str
    how: str
    sources: tuple[int, ...]
    keys: tuple[str, ...]
    slot: int
    outside: frozenset[int] = frozenset()
    frees: tuple[int, ...] = ()
    is_async: bool = False

    @property
    def reads(self) -> tuple[int, ...]:
        """Slots this step reads."""
        return self.sources

    @property
    def writes(self) -> tuple[int, ...]:
        """Slots this step fills."""
        return (self.slot,)


@dataclass(frozen=True, slots=True)
class Hoisted:
    """Lets a node of a loop make something, before the loop, of inputs that stay the same in it.

    Args:
        node, key: as of a :class:`Call`.
        inputs: (port, slot) of those inputs.
        store: (port, slot) of what the node is called with in their place.
    """

    node: str
    key: str
    inputs: tuple[tuple[str, int], ...]
    store: tuple[tuple[str, int], ...]
    frees: tuple[int, ...] = ()
    is_async: bool = False

    @property
    def reads(self) -> tuple[int, ...]:
        """Slots this step reads."""
        return tuple(slot for _, slot in self.inputs)

    @property
    def writes(self) -> tuple[int, ...]:
        """Slots this step fills."""
        return tuple(slot for _, slot in self.store)


@dataclass(frozen=True, slots=True)
class Carry:
    """A value that a loop hands from one iteration to the next, to all ``ports`` that start with it and are fed back the same.

    ``slot`` starts as ``start`` and then takes ``feedback``.
    """

    slot: int
    start: int
    feedback: int
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """Repeats ``body``; ``done`` are slots of boolean outputs that end it early, ``iteration_frees`` are emptied each time.

    ``behind`` are slots without which the loop is not entered, since a route was not taken, and the nodes' names for it.
    ``fast_body`` is the body as a walk takes it that nobody watches; ``units`` are its parts where some of its nodes are async.
    """

    nodes: tuple[str, ...]
    body: tuple[Step, ...]
    carries: tuple[Carry, ...]
    done: tuple[int, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    iteration_frees: tuple[int, ...] = ()
    fast_body: tuple[Step | Chain, ...] = ()
    units: tuple[Unit, ...] = ()
    frees: tuple[int, ...] = ()
    is_async: bool = False
    behind: tuple[tuple[int, str], ...] = ()

    @property
    def node(self) -> str:
        """The first node of the loop, for messages."""
        return self.nodes[0]


Step = Call | Combine | Loop | Hoisted


@dataclass(frozen=True, slots=True)
class Unit:
    """Part of a plan with async nodes: one async call, or steps that are all ready once the same async calls have returned.

    Args:
        steps: what it walks; a single call where it is async.
        fast_steps: the same for a walk that nobody watches.
        call: the async call.
        waits_for: how many units come before it.
        then: numbers of the units that wait for it.
        crossing: slots it reads that other units read too; emptied by the last of them.
    """

    steps: tuple[Step, ...]
    fast_steps: tuple[Step | Chain, ...]
    call: Call | None
    waits_for: int
    then: tuple[int, ...]
    crossing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run walks.

    Args:
        size: how many slots a run needs.
        inputs: (name, slot, required) of exposed inputs that are read.
        feeds: (node, port, slot) of outputs whose value is given instead of computed.
        outputs: (name, slot).
        steps: the walk.
        fast_steps: the same for a run that nobody watches, with chains of calls joined, and levels below written out.
        inlined: those levels, from 1: the number of the one around it, 0 for the level whose plan this is, and its key there.
        fills: (node, port, slot) of inputs whose value the node itself holds.
        units: parts of the plan that wait for different async calls; empty where no node is async.
        unread: exposed inputs that this plan has no use for.
    """

    size: int
    inputs: tuple[tuple[str, int, bool], ...]
    feeds: tuple[tuple[str, str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    steps: tuple[Step, ...]
    fast_steps: tuple[Step | Chain, ...]
    fills: tuple[tuple[str, str, int], ...] = ()
    units: tuple[Unit, ...] = ()
    unread: frozenset[str] = frozenset()
    inlined: tuple[tuple[int, str], ...] = ()

    def order(self) -> tuple[str, ...]:
        """Node ids in the order they run, loops unrolled once."""
        return tuple([call.node for call, _ in calls_of(self.steps)])


def calls_of(steps: Iterable[Step], loop: Loop | None = None) -> Iterator[tuple[Call, Loop | None]]:
    """All calls of a plan's steps in order, each with the loop that it stands in."""
    for step in steps:
        if isinstance(step, Loop):
            yield from calls_of(step.body, step)
        elif isinstance(step, Call):
            yield step, loop
