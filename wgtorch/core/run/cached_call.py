"""Calls through a :class:`~wgtorch.core.run.node_cache.NodeCache`: of a node, of a level, of a loop as a whole.

key    = digest(what is called, its inputs, the surroundings)          says whether the result depends on draws
result = kept under key, or under digest(key, key of the draws)
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext

from wgtorch.core import adapter_hook
from wgtorch.core.plan import Call, Combine, Loop
from wgtorch.core.run.autocast import surroundings
from wgtorch.core.run.content_digest import NoDigest, digest_of
from wgtorch.core.run.fingerprint import changed_by_call
from wgtorch.core.run.global_hooks import has_global_hooks
from wgtorch.core.run.installed import is_installed
from wgtorch.core.run.node_cache import NodeCache, apart
from wgtorch.core.run.rng import Key, Rng
from wgtorch.core.tree import is_level, levels, unique_blocks


class Noted:
    """What was noticed while something was computed whose result may be kept.

    Args:
        draws: it drew from the run's key.
        reason: why its result cannot be kept; empty where it can.
    """

    __slots__ = ("draws", "reason")

    def __init__(self) -> None:
        self.draws, self.reason = False, ""


_noted: ContextVar[Noted | None] = ContextVar("what is noted of the call that may be kept", default=None)


def note_draw() -> None:
    """Told when a call draws from the run's key, or would if there were one."""
    if (noted := _noted.get()) is not None:
        noted.draws = True


def note_own_generator() -> None:
    """Told when an operator draws from a generator that it is given, which may be one of the block's own."""
    if (noted := _noted.get()) is not None and not noted.draws:
        noted.reason = noted.reason or "it draws from a generator of its own"


class NotedRng(Rng):
    """A source of draws that tells when it is used."""

    __slots__ = ("_key", "_told")

    _key: Key | None
    _told: Noted | None

    @classmethod
    def of_rng(cls, rng: Rng) -> NotedRng:
        """The same draws, watched."""
        made = cls.__new__(cls)
        made._key, made.sample, made._told = rng.key, rng.sample, _noted.get()
        return made

    @property
    def key(self) -> Key | None:  # type: ignore[override]
        """What draws are keyed by."""
        if self._told is not None:
            self._told.draws = True
        return self._key


@dataclass(frozen=True, slots=True)
class CachedRun:
    """A cache as one run uses it.

    Args:
        cache: where results are.
        in_loop: inside a loop, which is kept as a whole: only calls over a network are looked for.
    """

    cache: NodeCache
    in_loop: bool = False

    @property
    def is_on(self) -> bool:
        """False where gradients are recorded, which a kept result has none of, or something stands around every operator."""
        return not torch.is_grad_enabled() and self.is_plain

    @property
    def is_plain(self) -> bool:
        """False where something stands around every operator."""
        return not torch.compiler.is_compiling() and not _is_changed_from_outside()

    def call(
        self,
        where: str,
        target: Target,
        values: Mapping[str, Any],
        key: Any,
        make: Callable[[], dict[str, Any]],
        *,
        sets_eval: bool = False,
    ) -> dict[str, Any]:
        """The outputs of a call: those that are kept, else what ``make`` gives, which is kept where it can be.

        Args:
            where: path, for the cache's statistics.
            target: what is called.
            values: inputs by name.
            key: of its draws; None where draws do not follow a key.
            make: makes the call.
            sets_eval: ``make`` puts all into eval for as long as it takes.
        """
        outer, fingerprints = _noted.get(), self.cache.fingerprints
        try:
            replaced = fingerprints.replaced()
            told = [fingerprints.of(block) for block in target.blocks]
            modes = () if sets_eval else [fingerprints.modes(block) for block in target.blocks]
            rest = [target.about, *modes, surroundings(), self.cache.digests.of(target.extra), repr(replaced).encode()]
            base = digest_of(*[digest for _, digest in told], *rest, *self._inputs(values))
        except (NoDigest, RecursionError) as error:  # the latter of what lies inside of itself
            self.refuse(where, str(error))
            return make()
        entry = self.cache.find(base)
        if entry is not None and entry.value is None:
            entry = None if key is None else self.cache.find(_with_draws(base, key))
        if entry is not None and entry.value is not None:
            self.cache.count(hit=True)
            if outer is not None and entry.draws:
                outer.draws = True
            return apart(entry.value)
        self.cache.count(hit=False)
        noted = Noted()
        token, others = _noted.set(noted), _other_generators()
        try:
            value = make()
        finally:
            _noted.reset(token)
        try:
            for block, (before, _) in zip(target.blocks, told, strict=True):
                if not noted.reason and (changed := changed_by_call(before, fingerprints.of(block)[0])):
                    noted.reason = f"its call changes {', '.join(changed)} of {block.block_id}, which may change what the next one gives"
            if not noted.reason and fingerprints.replaced() != replaced:
                noted.reason = "its call replaces functions of installed packages"
        except (NoDigest, RecursionError) as error:
            noted.reason = noted.reason or str(error)
        if not noted.reason and _other_generators() != others:
            noted.reason = "it draws from Python's or NumPy's global generator"
        if not noted.reason and noted.draws and key is None:
            noted.reason = "it draws, and the run has no seed"
        try:
            if not noted.reason:
                self.cache.keep(_with_draws(base, key) if noted.draws else base, apart(value), noted.draws)
        except (NoDigest, RecursionError) as error:
            noted.reason = str(error)
        if noted.reason:
            self.refuse(where, noted.reason)
        elif noted.draws:
            self.cache.keep(base, None, True)
            if outer is not None:
                outer.draws = True
        return value

    def _inputs(self, values: Mapping[str, Any]) -> Iterable[bytes]:
        for name, value in values.items():
            yield name.encode()
            yield self.cache.digests.of(value.values if isinstance(value, Deferred) else value)

    def refuse(self, where: str, reason: str) -> None:
        """Notes that a call is not repeatable, for itself and all that it is part of."""
        self.cache.refuse(where, reason)
        if (outer := _noted.get()) is not None:
            outer.reason = outer.reason or f"{where}: {reason}"


@dataclass(frozen=True, slots=True)
class Target:
    """What is called.

    Args:
        blocks: all blocks that compute.
        about: a digest of how they are joined.
        extra: what else the result depends on: adapters, iterations, values that places hold.
    """

    blocks: tuple[Any, ...]
    about: bytes
    extra: Any


class Deferred:
    """Stands for what a node makes of inputs before a loop, until the loop is known to run.

    Args:
        step: of the plan, that makes it.
        port: the input.
        values: what the step was given.
    """

    __slots__ = ("port", "step", "values")

    def __init__(self, step: Any, port: str, values: dict[str, Any]) -> None:
        self.step, self.port, self.values = step, port, values


def _with_draws(base: bytes, key: Any) -> bytes:
    return digest_of(base, repr(key).encode())


def _is_changed_from_outside() -> bool:
    """True where hooks of all modules, a mode, or a transform of ``torch.func`` stand around operators."""
    if has_global_hooks() or torch._C._len_torch_dispatch_stack() or forward_ad._current_level >= 0:
        return True
    if torch._C._functorch.maybe_current_level() is not None:
        return True
    return any(type(torch._C._get_function_stack_at(index)) is not DeviceContext for index in range(torch._C._len_torch_function_stack()))


def _other_generators() -> Any:
    """The state of global generators that the engine does not serve."""
    numpy: Any = sys.modules.get("numpy.random")
    state = None if numpy is None else numpy.get_state(legacy=False)["state"]
    return random.getstate(), None if state is None else (state["pos"], state["key"].tobytes())


# --- what is called ---------------------------------------------------------------------------------------------------


def why_not(child: Any) -> str:
    """Why a block's results are not kept; empty where they are."""
    if not child.cacheable:
        return f"{type(child).__name__} says cacheable = False"
    return f"{child.block_id} runs at another endpoint" if child.remote else ""


def of_node(node: Any, child: Any) -> Target:
    """A block at a place."""
    return Target((child,), b"block", (_adapters(), repr(node.adapter)))


def of_level(level: Any, node: Any, num_loop_steps: Any) -> Target | None:
    """A level as a whole, at a place or by itself; None where its result depends on what lies outside of it."""
    about = _about(level)
    if about is None:
        return None
    extra = (_adapters(), None if node is None else repr(node.adapter), num_loop_steps, _places(about.levels))
    return Target(about.blocks, about.digest, extra)


def of_loop(composite: Any, loop: Loop, total: int | None) -> Target | None:
    """A loop of a composite as a whole; None where its result depends on what lies outside of it."""
    blocks: list[Any] = []
    below: list[Any] = [_canonical(loop)]
    for call in loop.body:
        if not isinstance(call, Call):
            continue
        child, node = composite.nodes._modules[call.key], composite.node_specs[call.node]
        if node.condition is not None or why_not(child):
            return None
        below.append((call.node, repr(node.adapter), list(node.map), dict(node.inputs)))
        if is_level(child):
            about = _about(child)
            if about is None:
                return None
            blocks += about.blocks
            below += [about.digest, _places(about.levels)]
        else:
            blocks.append(child)
    compiled = composite.loop_compiler is not None
    return Target(tuple(dict.fromkeys(blocks)), b"loop", (_adapters(), total, compiled, below))


def _adapters() -> str:
    return repr(adapter_hook.hook.active())


def _places(found: Iterable[Any]) -> list[Any]:
    """What places of levels say, beside how they are joined."""
    return [
        [(node.node_id, repr(node.adapter), list(node.map), dict(node.inputs)) for node in level.node_specs.values()]
        + [repr(sorted(level.metadata.items(), key=lambda item: str(item[0]))), level.__dict__.get("loop_compiler") is not None]
        for level in found
    ]


@dataclass(frozen=True, slots=True)
class _About:
    """How a level and all levels below it are joined, as long as none of them changes.

    Args:
        levels: the outermost first.
        blocks: below, each once.
        digest: of how they are joined.
    """

    levels: tuple[Any, ...]
    blocks: tuple[Any, ...]
    digest: bytes

    @classmethod
    def of(cls, level: Any) -> _About:
        """That of a level, which has it until it is changed."""
        level.refresh_below()
        if (known := level.__dict__.get("_about")) is not None:
            return known
        found = levels(level)
        joined = [
            (type(each).__qualname__, each.level, list(each.nodes), each.own_config() if hasattr(each, "own_config") else None)
            for each in found
        ]
        blocks = tuple([unique.block for unique in unique_blocks(level).values()])
        made = level.__dict__["_about"] = cls(tuple(found), blocks, digest_of(repr(joined).encode()))
        return made


def _about(level: Any) -> _About | None:
    """How a level is joined; None where its outputs depend on more than its inputs: conditions over a State, other endpoints."""
    about = _About.of(level)
    for each in about.levels:
        if each.remote or not each.cacheable or any(node.condition is not None for node in each.node_specs.values()):
            return None
        if not _is_plain(each):
            return None
    return None if any(why_not(block) for block in about.blocks) else about


def _is_plain(level: Any) -> bool:
    """False where the call of a level is more than its plan: it has hooks, a forward of its own, or is compiled."""
    own = level.__dict__
    if own["_forward_hooks"] or own["_forward_pre_hooks"] or own.get("_compiled_call_impl") is not None:
        return False
    return own.get("forward") is own.get("_signed") and is_installed(type(level).__module__)


def _canonical(loop: Loop) -> Any:
    """A loop's body with its slots numbered as they come, whatever else the plan holds."""
    numbers: dict[int, int] = {}

    def number(slot: int) -> int:
        return slot if slot < 0 else numbers.setdefault(slot, len(numbers))

    body: list[Any] = []
    for step in loop.body:
        if isinstance(step, Call):
            body.append((step.node, [(p, number(s)) for p, s in step.inputs], [(p, number(s)) for p, s in step.store]))
        elif isinstance(step, Combine):
            body.append((step.node, step.port, step.how, [number(s) for s in step.sources], list(step.keys), number(step.slot)))
    carries = [(number(carry.slot), number(carry.start), number(carry.feedback)) for carry in loop.carries]
    return [body, carries, [number(slot) for slot in loop.done]]


def slots_of(loop: Loop, slots: list[Any]) -> dict[str, Any]:
    """What a loop reads, named by where it stands in it and not by its slots."""
    order = dict.fromkeys([*loop.reads, *[carry.start for carry in loop.carries if carry.start >= 0]])
    wanted: list[tuple[str, int]] = []
    for step in loop.body:
        named = (
            step.inputs
            if isinstance(step, Call)
            else [(key, slot) for key, slot in zip(step.keys, step.sources, strict=True)]
            if isinstance(step, Combine)
            else []
        )
        wanted += [(f"{step.node}.{port}", slot) for port, slot in named if slot in order]
    wanted += [(f"start {' '.join(carry.ports)}", carry.start) for carry in loop.carries if carry.start >= 0]
    return {f"{index} {name}": slots[slot] for index, (name, slot) in enumerate(wanted)}


def written_by(loop: Loop) -> list[int]:
    """Slots that a loop fills, in an order that follows from its body alone."""
    order: dict[int, None] = {}
    for step in loop.body:
        order.update(dict.fromkeys(step.writes))
    return [slot for slot in order if slot in loop.writes]
