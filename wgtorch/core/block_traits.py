"""What a block says of itself, by which the engine treats it: attributes of the class that a subclass sets to other values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class BlockTraits:
    """Traits of blocks with what holds where nothing is said."""

    role: str = ""
    ref_module: ClassVar[str] = ""
    """The submodule whose weights ``checkpoint_ref`` names; the block itself when empty."""
    is_async: bool = False
    """True when ``forward`` spends its time waiting, as a call over a network does."""
    batched: bool = False
    """True when a mapped port may be given the whole list in one call; outputs are then lists of the same length."""
    rows_are_samples: bool = False
    """True promises that dimension 0 of all tensors that go in and come out is the batch, that a sample's outputs depend on its own
    row alone, and that as many rows come out as went in. ``batch`` then makes one call for several items."""
    cacheable: bool = True
    """False says that outputs depend on more than code, attributes, weights, inputs and draws - a clock, files, a memory of its own - or
    that calls do something beside: a :class:`~wgtorch.core.run.node_cache.NodeCache` keeps no result of it."""
    remote: ClassVar[bool] = False
    """True when the block stands for one that runs at another endpoint."""
    uses_global_rng: bool = True
    """False promises that ``forward`` never touches PyTorch's global random generator."""
    routes: Sequence[str] = ()
    """Outputs of which one call gives only some, at least one: what lies behind the others is skipped. They are optional outputs."""
    invariant_ports: tuple[str, ...] = ()
    """Inputs of which :meth:`precompute_invariants` makes something, where a loop does not change them."""
    num_loop_steps: int | None = None
    """How often a loop through the block is to turn, where the block knows that."""
    walks_schedule: ClassVar[bool] = False
    """True when ``done`` comes at the end of a schedule of so many steps, so that a loop of another number of iterations is half done."""
    compiles: bool = True
    """False keeps the block out of the bodies of compiled loops: its ``forward`` cannot be traced, or not once for all turns."""

    wants_rng: bool = False
    """True when ``forward`` has a parameter ``rng``; derived."""
    wants_stream: bool = False
    """True when ``forward`` has a parameter ``stream``; derived."""
