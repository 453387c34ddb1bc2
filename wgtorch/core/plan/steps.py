"""What a plan is made of: steps over numbered slots."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NONE = -1
"""The slot number that stands for no slot."""


@dataclass(frozen=True, slots=True)
class Call:
    """Runs one node.

    Args:
        node: its id, and ``key``, what its child is called in the module that holds the children.
        inputs: (port, slot) of every fed input.
        args: slots passed by position, which are sure to be filled, then ``kwargs`` as (port, slot), without those that are not.
        one: the slot of the only argument when there is just one, by position.
        store: (port, slot) of every output that is read.
        only: the slot of the output when the node declares just one, and its name in ``only_port``.
        plain: nothing but values to hand over; all that must be there are sure to be.
        draws: likewise, and the generator.
        required: inputs that must be there.
        is_async: the call waits on a network.
        frees: slots nobody reads after this step.
    """

    node: str
    key: str
    inputs: tuple[tuple[str, int], ...]
    args: tuple[int, ...]
    kwargs: tuple[tuple[str, int], ...]
    one: int
    store: tuple[tuple[str, int], ...]
    only: int
    only_port: str
    plain: bool
    draws: bool
    required: tuple[str, ...]
    is_async: bool
    frees: tuple[int, ...] = ()

    @property
    def reads(self) -> tuple[int, ...]:
        """Slots this step reads."""
        return tuple(slot for _, slot in self.inputs)

    @property
    def writes(self) -> tuple[int, ...]:
        """Slots this step fills."""
        return tuple(slot for _, slot in self.store)

    @property
    def passes_on(self) -> bool:
        """True where it is plain, takes one value, which nobody reads after, and gives one."""
        return self.plain and self.only != NONE and self.frees == (self.one,)


@dataclass(frozen=True, slots=True)
class Chain:
    """Calls that pass one value on, each to the next and to nobody else; for a walk that nobody watches.

    Args:
        calls: in order.
        one: the slot of the first one's argument.
        only: the slot of the last one's output.
    """

    calls: tuple[Call, ...]
    one: int
    only: int
    plain: bool = False


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
    plain: bool = False
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
class Prepare:
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
    plain: bool = False
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
    """A value that a loop hands from one turn to the next, to all ``ports`` that start with it and are fed back the same.

    ``slot`` starts as ``start`` and then takes ``feedback``.
    """

    slot: int
    start: int
    feedback: int
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """Repeats ``body``; ``done`` are slots of boolean outputs that end it early, ``turn_frees`` are emptied each turn.

    ``quick`` is the body as a walk takes it that nobody watches.
    """

    nodes: tuple[str, ...]
    body: tuple[Step, ...]
    carries: tuple[Carry, ...]
    done: tuple[int, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    turn_frees: tuple[int, ...] = ()
    quick: tuple[Step | Chain, ...] = ()
    frees: tuple[int, ...] = ()
    plain: bool = False
    is_async: bool = False

    @property
    def node(self) -> str:
        """The first node of the loop, for messages."""
        return self.nodes[0]


Step = Call | Combine | Loop | Prepare


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run walks.

    Args:
        size: how many slots a run needs.
        inputs: (name, slot, required) of exposed inputs that are read.
        feeds: (node, port, slot) of outputs whose value is given instead of computed.
        outputs: (name, slot).
        steps: the walk.
        quick: the same for a run that nobody watches, with chains of calls joined.
        is_async: some node waits on a network.
        unread: exposed inputs that this plan has no use for.
    """

    size: int
    inputs: tuple[tuple[str, int, bool], ...]
    feeds: tuple[tuple[str, str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    steps: tuple[Step, ...]
    quick: tuple[Step | Chain, ...]
    is_async: bool
    unread: frozenset[str] = frozenset()

    def order(self) -> tuple[str, ...]:
        """Node ids in the order they run, loops unrolled once."""

        def walk(steps: Iterable[Step]) -> Iterable[str]:
            for step in steps:
                if isinstance(step, Loop):
                    yield from walk(step.body)
                elif isinstance(step, Call):
                    yield step.node

        return tuple(walk(self.steps))
