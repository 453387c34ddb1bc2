"""The pool: one instance of a model wherever it is asked for, and the context of what is being built now."""

from __future__ import annotations

import hashlib
import inspect
import json
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import nn

from wgtorch.core.checkpoint.refs import identity_of
from wgtorch.core.model_memory import memory_of
from wgtorch.core.tree import is_level

_NAMING = ("checkpoint_ref", "model_id")
"""Config entries that name a model; a block without one is nobody else's."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One model in a pool.

    Args:
        block_type: its registered name.
        ref: what names it.
        bytes: memory of its parameters and buffers.
        dtype, device: of its parameters; of its buffers when it has none.
        places: paths it stands at, in the levels that are alive (``my_world/creator/paint/t2i/backbone``).
        is_in: False while it waits elsewhere than where it computes.
    """

    block_type: str
    ref: str
    bytes: int
    dtype: str
    device: str
    places: tuple[str, ...]
    is_in: bool = True


class Pool:
    """Hands out one instance per identity: block type, canonical config, resolved ref with its revision, dtype, device.

    A pool keeps nothing alive: a model that no level holds any more is freed. It may be asked from several threads; one
    loads and the others wait. Blocks without ``checkpoint_ref`` (or ``model_id``) are not pooled, since nothing says that
    two of them are the same model.

    Example:
        >>> pool = Pool()
        >>> one = World.from_yaml("one.yaml", pool=pool)
        >>> two = World.from_yaml("two.yaml", pool=pool)        # models that both name exist once
        >>> with pool:                                          # the same for what is built by hand
        ...     graph.add_node("backbone/scene", config={"checkpoint_ref": "wgtorch:scene_painter"})
        >>> print(pool.report())

    With a budget it moves whole models in and out between calls, across every level that takes its models from it: those least recently
    used go first, and what was used next the last time is fetched meanwhile. A model in use by any run is never moved. Blocks without a
    ref that are put into levels while the pool is in charge count and move as well.

    * ``Pool(device="cuda", max_bytes=8 * 2**30, offload="cpu")``: models compute on the device and wait in page-locked host memory.
      Changed weights are changed there too; parameters stay the objects that optimizers hold. What gradients are still to be computed
      with, or has gradients for an optimizer, stays in.
    * ``Pool(max_bytes=8 * 2**30, offload="disk")``: models compute on the CPU. Weights that are mapped from their files are given back to
      the system and read again; what was changed or converted goes to a temporary file first. Linux alone.

    A model that a level was compiled together with as a whole (``torch.compile(graph)``) does not ask; one in a compiled loop does.

    Args:
        device: where models compute; the CPU where left out.
        max_bytes: of parameters and buffers that may be there at once.
        offload: where the others wait, ``"cpu"`` or ``"disk"``.

    Raises:
        ValueError: the options do not go together.
        ModelMemoryError: in a call of a model that does not fit, alone or beside those that its own call is inside of. What others use is
            waited for.
    """

    _shared: ClassVar[Pool | None] = None
    _shared_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self, *, device: torch.device | str | None = None, max_bytes: int | None = None, offload: Literal["cpu", "disk"] | None = None
    ) -> None:
        self.memory = memory_of(device, max_bytes, offload)
        self._lock = threading.Lock()
        self._loading: dict[str, tuple[threading.RLock, int]] = {}
        self._blocks: weakref.WeakValueDictionary[str, nn.Module] = weakref.WeakValueDictionary()
        self._notes: weakref.WeakKeyDictionary[nn.Module, _Note] = weakref.WeakKeyDictionary()
        self._places: list[tuple[weakref.ref[Any], str, weakref.ref[Any]]] = []

    @classmethod
    def default(cls) -> Pool:
        """One pool for the whole process; nothing uses it unless it is handed over."""
        with cls._shared_lock:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    def get(self, key: str, load: Callable[[], Any], *, ref: str = "") -> Any:
        """The block of an identity: the one that is alive, else what ``load`` gives; threads that ask meanwhile wait for it.

        A block whose dtype or device was changed since is another load, and is not handed out again.
        """
        with self._key_lock(key):
            block = self._blocks.get(key)
            if block is not None and self._is_as_loaded(block):
                return block
            block = load()
            if self.memory is not None:
                self.memory.manage(block)
            with self._lock:
                self._blocks[key] = block
                self._notes[block] = _Note(ref, _placed(block))
            return block

    def holds(self, block: nn.Module) -> bool:
        """True for a block that this pool hands out."""
        return block in self._notes

    def _is_as_loaded(self, block: nn.Module) -> bool:
        dtype, device = _placed(block)
        known = self._notes[block].placed
        return known[0] == dtype and (known[1] == device or (self.memory is not None and self.memory.is_managed(block)))

    @property
    def max_bytes(self) -> int | None:
        """Bytes of models that may be where they compute at once; None is no limit."""
        return None if self.memory is None else self.memory.max_bytes

    @property
    def resident_bytes(self) -> int:
        """Bytes of models that are where they compute; what ``max_bytes`` is a limit of.

        On the CPU it is what the system has in memory of them now.
        """
        return self.report().bytes if self.memory is None else self.memory.bytes

    def note_place(self, level: Any, node_id: str, child: Any) -> None:
        """Remembers, weakly, that a child stands at a place, for :meth:`report`."""
        if self.memory is not None and not is_level(child):
            self.memory.manage(child)
        with self._lock:
            self._places.append((weakref.ref(level), node_id, weakref.ref(child)))
            if len(self._places) % 1024 == 0:
                self._places = [entry for entry in self._places if entry[0]() is not None and entry[2]() is not None]

    def report(self) -> Report:
        """What is loaded, where it is used and how large it is."""
        with self._lock:
            blocks = list(self._blocks.values())
            places = [(level(), node_id, child()) for level, node_id, child in self._places]
        above: dict[int, list[tuple[Any, str]]] = {}
        for level, node_id, child in places:
            if level is not None and child is not None and node_id in level.nodes and level.nodes[node_id] is child:
                holders = above.setdefault(id(child), [])
                if all(other is not level or name != node_id for other, name in holders):
                    holders.append((level, node_id))
        return Report(tuple(self._loaded(block, above) for block in blocks))

    def _loaded(self, block: Any, above: Mapping[int, list[tuple[Any, str]]]) -> Loaded:
        dtype, device = _placed(block)
        tensors = {id(tensor): tensor for tensor in (*block.parameters(), *block.buffers())}.values()
        return Loaded(
            getattr(block, "block_type", ""),
            self._notes[block].ref,
            sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            dtype,
            device,
            tuple(sorted(set(_paths(block, above)))),
            self.memory is None or self.memory.is_in(block),
        )

    @contextmanager
    def _key_lock(self, key: str) -> Iterator[None]:
        with self._lock:
            lock, waiting = self._loading.get(key, (threading.RLock(), 0))
            self._loading[key] = (lock, waiting + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                _, waiting = self._loading[key]
                if waiting == 1:
                    del self._loading[key]
                else:
                    self._loading[key] = (lock, waiting - 1)

    def __enter__(self) -> Self:
        _around.set((*_around.get(), _current.get()))
        _current.set(Building(self))
        return self

    def __exit__(self, *exception: object) -> None:
        *outer, before = _around.get()  # of this thread and task: others may be inside the same pool
        _around.set(tuple(outer))
        _current.set(before)

    def __len__(self) -> int:
        return len(self._blocks)

    def __bool__(self) -> bool:
        return True

    def __deepcopy__(self, memo: dict) -> Pool:
        return self

    def __repr__(self) -> str:
        return f"Pool of {len(self)} models"


@dataclass(frozen=True, slots=True)
class _Note:
    ref: str
    placed: tuple[str, str]


@dataclass(frozen=True)
class Report:
    """What a pool holds, as data and, printed, as a table."""

    models: tuple[Loaded, ...]

    @property
    def bytes(self) -> int:
        """Memory of all models."""
        return sum(model.bytes for model in self.models)

    def __iter__(self) -> Iterator[Loaded]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __str__(self) -> str:
        if not self.models:
            return "no models are loaded"
        lines = []
        for model in sorted(self.models, key=lambda model: -model.bytes):
            where = f"{model.dtype} on {model.device}{'' if model.is_in else ', waits'}"
            lines.append(f"{model.block_type}  {model.ref}  {model.bytes / 1e6:.1f} MB  {where}")
            lines += [f"    {place}" for place in model.places]
        return "\n".join([*lines, f"{len(self.models)} models, {self.bytes / 1e6:.1f} MB"])


# --- what is being built ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Building:
    """What holds for everything that is built now, however deep.

    Args:
        pool: where models are looked for; None makes each anew.
        empty: weights hold no memory, and refs are not read: the caller gives the weights.
    """

    pool: Pool | None = None
    empty: bool = False


_NOTHING = Building()
_current: ContextVar[Building] = ContextVar("wgtorch_building", default=_NOTHING)
_around: ContextVar[tuple[Building, ...]] = ContextVar("wgtorch_building_around", default=())
"""What was being built before each ``with pool:`` that is open."""


def now_building() -> Building:
    """What is being built around the caller; nothing, outside :func:`building`."""
    return _current.get()


@contextmanager
def building(pool: Pool | None = None, *, empty: bool = False) -> Iterator[Building]:
    """Says what holds while something is built: the pool given, else that of what is built around, else a fresh one."""
    around = _current.get()
    token = _current.set(Building(pool or around.pool or Pool(), empty or (pool is None and around.empty)))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


# --- identity ---------------------------------------------------------------------------------------------------------


def names_a_model(config: Mapping[str, Any]) -> bool:
    """True when a config says which model it is, so that another like it is the same one."""
    return any(config.get(name) is not None for name in _NAMING)


def identity(block_type: str, block_class: type, config: Mapping[str, Any], *more: Any) -> str:
    """The identity of a model: its type, its config with defaults filled in, its ref resolved to files, dtype and device.

    Args:
        block_type: its registered name.
        block_class: its class, whose constructor has the defaults.
        config: plain data, with values of the environment in place.
        more: what tells it apart further.
    """
    canonical = {**_defaults(block_class), **config}
    ref = canonical.pop("checkpoint_ref", None)
    content = [
        block_type,
        canonical,
        None if ref is None else identity_of(ref),
        str(torch.get_default_dtype()),
        str(torch.get_default_device()),
        more,
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _defaults(block_class: type) -> dict[str, Any]:
    try:
        parameters = inspect.signature(block_class).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def _placed(block: nn.Module) -> tuple[str, str]:
    tensor = next((tensor for tensor in (*block.parameters(), *block.buffers())), None)
    return ("", "") if tensor is None else (str(tensor.dtype).removeprefix("torch."), str(tensor.device))


def _paths(child: Any, above: Mapping[int, list[tuple[Any, str]]], depth: int = 0) -> Iterator[str]:
    """Paths from the outermost levels down to a child."""
    for level, node_id in above.get(id(child), []):
        outer = list(_paths(level, above, depth + 1)) if depth < 32 else []
        for path in outer or [level.block_id]:
            yield f"{path}/{node_id}"
