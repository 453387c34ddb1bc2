"""Models beyond memory: which of a pool's models are in the memory they compute in, and which wait elsewhere.

    block(x) --> before: is it in? else the least recently used that nobody uses go out, and it comes in --> forward --> after: may go

Where they wait is one of two stores:

``DeviceStore``  the device computes, host memory holds what waits; page-locked for CUDA, so that copies are quick and go on beside work
``MappedStore``  the CPU computes, files hold what waits: pages of weights are given back to the system, and read again when used

A module's parameters stay the objects that they are: what moves is their memory. So optimizers, tied weights, ``state_dict`` and
adapters need to know nothing of it.

After diffusers' ``ComponentsManager`` and accelerate's hooks, for models that calls share: one that is in use is never moved.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from inspect import iscoroutine
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from wgtorch.core.device_store import DeviceStore, Store
from wgtorch.core.errors import ModelMemoryError


@dataclass(eq=False, slots=True)
class Managed:
    """What is known of one module whose memory is managed.

    Args:
        module: weakly.
        uses: calls of it that go on, and graphs of gradients that go through it.
        used: when it was used last, as a count of uses.
        is_in: it is in, as far as is known.
        coming: what to wait for where it was brought ahead.
        follower: what was used next the last time.
    """

    module: weakref.ref[nn.Module]
    uses: int = 0
    used: int = 0
    is_in: bool = False
    coming: Any = None
    follower: Managed | None = None


_chain: ContextVar[tuple[Managed, ...]] = ContextVar("wgtorch_models_in_use", default=())
"""Managed modules whose calls are around this one, in whatever thread it is."""


class ModelMemory:
    """Keeps the modules of a pool within a budget of bytes.

    Args:
        store: where they compute and wait.
        max_bytes: of their parameters and buffers that are in; None is no limit.
    """

    def __init__(self, store: Store, max_bytes: int | None) -> None:
        self.store, self.max_bytes = store, max_bytes
        self._managed: weakref.WeakKeyDictionary[nn.Module, Managed] = weakref.WeakKeyDictionary()
        self._free = threading.Condition()  # of a lock that its thread may take again: a garbage collection may end a graph inside
        self._count = itertools.count(1)
        self._last: Managed | None = None
        self._active = self._blocked = 0
        self.moves = 0
        """How often a model came in."""

    def manage(self, module: nn.Module) -> None:
        """Takes charge of a module: its calls bring it in, and keep it in while they go on."""
        with self._free:
            if module not in self._managed and next(_tensors_of(module, ()), None) is not None:
                Guard(self).watch(module)
                self._make_room((), ())

    def adopt(self, module: nn.Module) -> Managed:
        """What is known of a module, from now on."""
        with self._free:
            return self._managed.setdefault(module, Managed(weakref.ref(module)))

    def is_managed(self, module: nn.Module) -> bool:
        """True for a module that this memory takes care of."""
        return module in self._managed

    def is_in(self, module: nn.Module) -> bool:
        """False for a module that waits elsewhere."""
        known = self._managed.get(module)
        return known is None or known.is_in

    @property
    def bytes(self) -> int:
        """Bytes that are in now."""
        with self._free:
            return self.store.size_in({id(tensor): tensor for module in list(self._managed) for tensor in self._own(module)}.values())

    def enter(self, module: nn.Module) -> None:
        """A call of a module begins: brings it in, and waits for memory where others use it.

        Raises:
            ModelMemoryError: it does not fit beside what the calls around it use, or at all.
        """
        own, chain = self._managed[module], _chain.get()
        with self._free:
            if own.uses == 0 and not (own.is_in and self._is_still_in(module)):
                self._bring(own, module, chain)
            if own.coming is not None:
                self.store.wait(own.coming, self._own(module))
                own.coming = None
            own.uses += 1
            own.used = next(self._count)
            self._active += 1
            before, self._last = self._last, own
            if before is not own:
                if before is not None:
                    before.follower = own
                self._look_ahead(own)
        _chain.set((*chain, own))

    def leave(self, own: Managed, result: Any = None) -> None:
        """A call is through; what its result has to compute gradients with stays in until that is gone."""
        if not self.store.keeps_addresses:
            for node in {id(node): node for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and (node := leaf.grad_fn)}.values():
                token = _Graph()
                node.register_hook(lambda *_, token=token: None)  # lives as long as the graph
                with self._free:
                    own.uses += 1
                weakref.finalize(token, self._release, own, 0)
        self._release(own, 1)

    def _release(self, own: Managed, calls: int) -> None:
        with self._free:
            own.uses -= 1
            self._active -= calls
            self._free.notify_all()

    # --- private steps ------------------------------------------------------------------------------------------------

    def _own(self, module: nn.Module) -> list[Tensor]:
        return list(_tensors_of(module, self._managed))

    def _is_still_in(self, module: nn.Module) -> bool:
        first = next(_tensors_of(module, self._managed), None)
        return first is None or first.device.type == self.store.device.type

    def _bring(self, own: Managed, module: nn.Module, chain: tuple[Managed, ...]) -> None:
        tensors = self._own(module)
        while not self._make_room(tensors, {own, *chain}):
            if not self._can_wait(chain):
                raise ModelMemoryError(self._what_is_full(module, tensors, chain))
            self._blocked += len(chain)
            try:
                self._free.wait()
            finally:
                self._blocked -= len(chain)
            if own.uses:  # another thread has brought it in meanwhile
                return
        self.store.bring(tensors)
        own.is_in, self.moves = True, self.moves + 1

    def _can_wait(self, chain: tuple[Managed, ...]) -> bool:
        """True when some call goes on that waits for nothing, and so will end."""
        return self._active > self._blocked + len(chain)

    def _make_room(self, tensors: Sequence[Tensor], keep: Collection[Managed]) -> bool:
        """Sends out what nobody uses, the least recently used first, until tensors fit; False where they do not."""
        if self.max_bytes is None:
            return True
        others = [known for known in list(self._managed.values()) if known.module() is not None and known not in keep]
        others.sort(key=lambda known: known.used)
        protected = {id(tensor): tensor for tensor in tensors}
        for known in [*keep, *(known for known in others if known.uses)]:
            protected.update((id(tensor), tensor) for tensor in self._of(known))
        size = sum([tensor.nbytes for tensor in protected.values()])
        going: list[tuple[Managed, list[Tensor], int]] = []
        for known in others:
            own = [] if known.uses else [tensor for tensor in self._of(known) if id(tensor) not in protected]
            protected.update((id(tensor), tensor) for tensor in own)
            # All of a model that is in, whether its pages were touched yet or not; and what is left of one that went.
            going.append((known, own, sum([tensor.nbytes for tensor in own]) if known.is_in else self.store.size_in(own)))
            size += going[-1][2]
        for known, own, before in going:
            if size <= self.max_bytes:
                break
            if not own or any(tensor.grad is not None for tensor in own):  # an optimizer is about to step
                continue
            self.store.drop(own)
            known.is_in = False
            size -= before - self.store.size_in(own)
        return size <= self.max_bytes

    def _of(self, known: Managed) -> list[Tensor]:
        module = known.module()
        return [] if module is None else self._own(module)

    def _look_ahead(self, own: Managed) -> None:
        """Begins to bring in what was used after this one the last time, where there is room for it."""
        following = own.follower
        if following is None or following.is_in or not self.store.brings_ahead or (module := following.module()) is None:
            return
        tensors = self._own(module)
        if self.store.keeps_addresses:
            self.store.bring(tensors, ahead=True)
        elif self._make_room(tensors, {own, following}):
            following.coming = self.store.bring(tensors, ahead=True)
            following.is_in = True

    def _what_is_full(self, module: nn.Module, tensors: Sequence[Tensor], chain: tuple[Managed, ...]) -> str:
        needed = sum([tensor.nbytes for tensor in tensors])
        held = self.bytes - self.store.size_in(tensors)
        around = [_name(model) for known in chain if (model := known.module()) is not None]
        mend = f"give the pool max_bytes={needed + held} or more"
        if needed > (self.max_bytes or 0):
            return f"{_name(module)} has {needed} bytes, and the pool's max_bytes is {self.max_bytes}; {mend}"
        why = f"calls around it use {around}" if around else "they are in use, or have gradients for an optimizer"
        return f"{_name(module)} has {needed} bytes, {held} of other models stay in ({why}), and max_bytes is {self.max_bytes}; {mend}"


class _Graph:
    """Lives as long as a graph of gradients."""


class Guard:
    """The hooks of one module. A copy of the module gets a guard of its own, and what is pickled none.

    Args:
        memory: that manages it; None does nothing.
    """

    def __init__(self, memory: ModelMemory | None = None) -> None:
        self.memory = memory
        self.module: weakref.ref[nn.Module] | None = None

    def watch(self, module: nn.Module) -> None:
        """Puts the hooks on."""
        self._adopt(module)
        module.register_forward_pre_hook(self.before, prepend=True, with_kwargs=True)
        module.register_forward_hook(self.after, always_call=True)

    def _adopt(self, module: nn.Module) -> None:
        assert self.memory is not None
        self.module = weakref.ref(module)
        self.memory.adopt(module)
        module.__dict__[GUARD] = self

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """A call begins."""
        if not self.enter(module):
            return None
        assert self.memory is not None
        device = self.memory.store.device
        if device.type == "cpu":
            return None
        return tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, (args, kwargs))

    def enter(self, module: nn.Module) -> bool:
        """Brings the module in; False where there is nothing to do."""
        if torch.compiler.is_compiling() or self.memory is None:
            return False
        if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None:
            return False
        if self.module is None:  # a copy
            self._adopt(module)
        if self.module is None or self.module() is not module:  # a detached twin, whose caller keeps the original in
            return False
        self.memory.enter(module)
        return True

    def after(self, module: nn.Module, args: Any, result: Any) -> Any:
        """A call is through, or failed."""
        if torch.compiler.is_compiling() or not (chain := _chain.get()) or chain[-1].module() is not module:
            return None  # what went before it failed
        assert self.memory is not None
        _chain.set(chain[:-1])
        if iscoroutine(result):
            return _until_done(result, partial(self.memory.leave, chain[-1]))
        self.memory.leave(chain[-1], result)
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> Guard:
        memo[id(self)] = copy = Guard(self.memory)
        return copy

    def __reduce__(self) -> tuple[type[Guard], tuple[()]]:
        return Guard, ()


GUARD = "_memory_guard"
"""Under which a module that a pool manages has its guard."""


@contextmanager
def in_use(modules: Iterable[nn.Module]) -> Iterator[list[Any]]:
    """Brings modules in that a pool manages, and keeps them in: for what uses their weights other than by calling them.

    Yields:
        A list to put what was computed with them into.
    """
    results: list[Any] = []
    entered: list[tuple[Guard, nn.Module]] = []
    try:
        for module in modules:
            if (guard := module.__dict__.get(GUARD)) is not None and guard.enter(module):
                entered.append((guard, module))
        yield results
    finally:
        for guard, module in reversed(entered):
            guard.after(module, (), results)


def invariants_of(block: Any, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a block makes of inputs that a loop does not change (:meth:`~wgtorch.core.block.Block.precompute_invariants`)."""
    if GUARD not in block.__dict__:
        return block.precompute_invariants(**values)
    with in_use((block,)) as results:
        results.append(made := block.precompute_invariants(**values))
        return made


async def _until_done(coroutine: Any, release: Callable[[], None]) -> Any:
    try:
        return await coroutine
    finally:
        release()


def _tensors_of(module: nn.Module, managed: Collection[nn.Module]) -> Iterator[Tensor]:
    """Parameters and buffers of a module, each once, without those of modules inside that are managed themselves."""
    todo, seen = [module], {id(module)}
    told: set[int] = set()
    while todo:
        part = todo.pop()
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            if tensor is not None and id(tensor) not in told and not tensor.is_meta:
                told.add(id(tensor))
                yield tensor
        for child in part._modules.values():
            if child is not None and id(child) not in seen and child not in managed:
                seen.add(id(child))
                todo.append(child)


def _name(module: Any) -> str:
    return str(getattr(module, "block_id", type(module).__name__))


def memory_of(device: Any, max_bytes: int | None, offload: str | None) -> ModelMemory | None:
    """What takes care of the memory of a pool's models, as a pool was told; None where nothing is to be done.

    Raises:
        ValueError: the options do not go together.
    """
    if device is None and max_bytes is None and offload is None:
        return None
    found = torch.device("cpu" if device is None else device)
    if max_bytes is not None and (isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1):
        raise ValueError(f"Pool: max_bytes is {max_bytes!r}; expected a number of bytes, such as 8 * 2**30")
    if offload not in (None, "cpu", "disk"):
        raise ValueError(f"Pool: offload is {offload!r}; expected 'cpu' (host memory) or 'disk' (files of mapped weights)")
    if (max_bytes is None) != (offload is None):
        given, other = ("offload", "max_bytes") if max_bytes is None else ("max_bytes", "offload")
        raise ValueError(f"Pool: {given}= alone says nothing; give {other}= beside it")
    fits = {"cpu": found.type != "cpu", "disk": found.type == "cpu", None: True}[offload]
    if not fits:
        where = "device='cpu' goes with offload='disk'" if found.type == "cpu" else f"device={str(found)!r} goes with offload='cpu'"
        raise ValueError(f"Pool: models on {found} cannot wait in offload={offload!r}; {where}")
    if offload == "disk":
        from wgtorch.core.mapped_pages import MappedStore

        return ModelMemory(MappedStore(), max_bytes)
    return ModelMemory(DeviceStore(found), max_bytes)
