"""Level: a block that holds other executables under node ids. Graph, Pipeline, Stage and World are levels."""

from __future__ import annotations

import asyncio
import copy
import os
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from wgtorch.core import adapter_hook
from wgtorch.core.adapter_hook import Adapter
from wgtorch.core.block import Block
from wgtorch.core.config.configured import Configured
from wgtorch.core.config.serialization import child_from
from wgtorch.core.drawing import Drawing, Link, draw
from wgtorch.core.drawing.summary import html_of, ports_of, summary_of
from wgtorch.core.errors import StructureError, UnknownNameError, ValidationError, ValidationResult, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.nodes import Nodes
from wgtorch.core.place import PLACE_FIELDS, check_place
from wgtorch.core.pool import now_building
from wgtorch.core.run import background
from wgtorch.core.run.events import Callback
from wgtorch.core.run.pausable import Pausable
from wgtorch.core.run.start_run import COMMON_OPTIONS, check_options, options_of
from wgtorch.core.run.thread_context import in_this_context
from wgtorch.core.structure import Node, check_node_id
from wgtorch.core.trained_places import TrainedPlaces
from wgtorch.core.tree import levels


class EditCount:
    """How many structural edits this process has made: while it stands still, nothing derived from a structure is out of date."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        """Counts one more."""
        with self._lock:
            self.value += 1


edits = EditCount()


class Level(Pausable, Configured, TrainedPlaces, Block):
    """Children under node ids, and all that does not depend on how they run.

    Args:
        level_id: the level's own id; its class name in lower case when left out.
        metadata: plain data that travels with the config (``num_loop_steps``, notes, ...).
    """

    level: ClassVar[str]
    id_key: ClassVar[str]
    child_class: ClassVar[type[Block]]
    _takes_config = False

    def __init__(self, level_id: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._block_id = check_node_id(level_id) if level_id is not None else self.level
        self._modules["nodes"] = Nodes()
        self._node_specs: dict[str, Node] = {}
        self._id_counts: dict[str, int] = {}
        if not isinstance(metadata, Mapping | None):
            raise StructureError(
                f"{self.block_id}: metadata is {describe(metadata)}; expected a mapping of plain data, such as {{'num_loop_steps': 20}}"
            )
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._version = 0

    # --- children -----------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> Nodes:
        """Children by node id."""
        return self._modules["nodes"]  # type: ignore[return-value]  # nn.Module.__getattr__ finds it too, at ten times the cost

    @property
    def node_specs(self) -> Mapping[str, Node]:
        """What is true of each node's place, by node id."""
        return self._node_specs

    def add_child(self, child: Any, node_id: str | None = None, **place: Any) -> str:
        """Adds a child at a new node; ``place`` are fields of :class:`~wgtorch.core.structure.Node`.

        Returns:
            The node's id: the one given, else one made from the child's own.

        Raises:
            StructureError: the id is taken or cannot be one, or the child is of another level.
        """
        child = self._as_child(child)
        if node_id is None:
            own_id = child.role if child.role and not isinstance(child, Level) else child.block_id
            node_id = self._free_id(own_id.rsplit("/", 1)[-1])
        elif check_node_id(node_id) in self._node_specs:
            raise StructureError(
                f"{self.block_id}: node id {node_id!r} is taken by {describe_child(self.nodes[node_id])}; "
                "choose another, or use replace_node"
            )
        node = self._node(node_id, child, place)
        self._set_child(node_id, child)
        self._node_specs[node_id] = node
        if (pool := now_building().pool) is not None:
            pool.note_place(self, node_id, child)
        self._changed()
        return node_id

    def replace_child(self, node_id: str, child: Any) -> Block:
        """Puts another child at a node, as one with the same ports, and returns the one that stood there; edges stay."""
        self._require_node(node_id)
        child = self._as_child(child)
        before = self.nodes[node_id]
        self._set_child(node_id, child)
        self._changed()
        return before

    def remove_node(self, node_id: str) -> Block:
        """Takes a node and all that joins it out, and returns its child."""
        self._require_node(node_id)
        child: Any = self.nodes.remove(node_id)
        del self._node_specs[node_id]
        self._changed()
        return child

    def clone_node(self, node_id: str) -> Block:
        """Gives this place a copy of its child, so that it trains apart from the other places; returns the copy."""
        self._require_node(node_id)
        clone = copy.deepcopy(self.nodes[node_id])
        self._set_child(node_id, clone)
        self.configure_node(node_id, reuse=False)
        return clone

    def configure_node(self, node_id: str, **place: Any) -> None:
        """Changes what is true of a node's place: ``inputs``, ``map``, ``timeout``, ``retry``, ``condition``, ``adapter``,
        ``trainable``."""
        self._require_node(node_id)
        current = {name: getattr(self._node_specs[node_id], name) for name in PLACE_FIELDS}
        self._node_specs[node_id] = self._node(node_id, self.nodes[node_id], {**current, **place})
        self._changed()

    def set_adapter(self, node_path: str, adapter: Adapter | None) -> None:
        """Says which adapter the child at a place uses there; a run that goes on meanwhile takes it from its next call of the node.

        Args:
            node_path: a node, here or below (``creator/paint/t2i/backbone``). What a level's place says holds for every block
                below that has it, whatever their own places say.
            adapter: a name; ``{name: weight}`` for several at once; a list with a name or None for each sample of the
                batch (for each item, where the node maps over a list); None for the base alone.

        Raises:
            UnknownNameError: there is no such node.
            StructureError: the child has no such adapter; the message has the nearest names.
        """
        above, _, node_id = node_path.rpartition("/")
        level: Any = self.find(above) if above else self
        if not isinstance(level, Level):
            raise UnknownNameError(f"{node_path!r}: {level.block_id} is a block and has no nodes, so no {node_id!r}")
        level._require_node(node_id)
        place = {name: getattr(level._node_specs[node_id], name) for name in PLACE_FIELDS}
        level._node_specs[node_id] = level._node(node_id, level.nodes[node_id], {**place, "adapter": adapter})
        for changed in levels(level):  # plans of what stood there before it had adapters hand values over alone
            changed.refresh_plan()

    def refresh_plan(self) -> None:
        """Told when blocks below were given adapters, or lost their last."""

    def find(self, path: str) -> Block:
        """The child at a path such as ``creator/paint/t2i``.

        Raises:
            UnknownNameError: a part of the path is no node; the message lists those there are.
        """
        found: Any = self
        for part in path.split("/"):
            if not isinstance(found, Level):
                raise UnknownNameError(f"{path!r}: {found.block_id} is a block and has no nodes, so no {part!r}")
            found = found.nodes[part]
        return found

    def _as_child(self, child: Any) -> Block:
        if isinstance(child, self.child_class):
            child.check_ports()
            return child
        if isinstance(child, (str, os.PathLike, Mapping)):
            return child_from(child, self.child_class)
        if isinstance(child, type):
            raise StructureError(
                f"{self.block_id}: got the class {child.__name__}; expected an instance: write {child.__name__}(...) with its arguments"
            )
        raise StructureError(
            f"{self.block_id}: got {describe_child(child)}; expected a {self.child_class.__name__}, its config, "
            "a path to one, or a template's name"
        )

    def _set_child(self, node_id: str, child: Block) -> None:
        """Puts a child at a node.

        Raises:
            StructureError: the child is this level, or holds it.
        """
        if any(module is self for module in child.modules()):
            what = "itself" if child is self else f"{describe_child(child)}, which holds it"
            raise StructureError(
                f"{self.block_id}/{node_id}: {self.block_id} cannot hold {what}; "
                "add what both need as a node of its own, or a copy (copy.deepcopy) of what is to stand inside"
            )
        self.nodes.put(node_id, child)

    def _node(self, node_id: str, child: Block, place: Mapping[str, Any]) -> Node:
        place = check_place(place, f"{self.block_id}/{node_id}")
        if "condition" in place:
            place["condition"] = self._node_condition(place["condition"], f"{self.block_id}/{node_id}")
        spec = child.get_input_spec() if place["map"] or place.get("inputs") else {}
        for name in [*place["map"], *place.get("inputs", {})]:
            if name not in spec:
                raise UnknownNameError(f"{self.block_id}/{node_id}: no input {name!r}; {suggest(name, spec)}")
        if "adapter" in place:  # what is being built gets its adapters with its weights; validate() and the run check them
            check = now_building().pool is None
            place["adapter"] = adapter_hook.hook.resolve(place["adapter"], child, f"{self.block_id}/{node_id}", check=check)
        return Node(node_id, **place)

    def _node_condition(self, condition: Any, where: str) -> Any:
        """A place's condition, checked; levels that have a State at hand when they run take one."""
        raise StructureError(
            f"{where}: condition={condition!r}; expected none, since a {self.level} has no State to ask. A stage and the pipelines in it "
            "have conditions (Stage.set_execution_condition); inside of a graph a block that names routes decides what runs"
        )

    def _free_id(self, wish: str) -> str:
        wish = (
            "".join(letter if (letter.isalnum() and letter.isascii()) or letter in "_-" else "_" for letter in wish)
            or self.child_class.__name__.lower()
        )
        node_id = wish
        while node_id in self._node_specs:
            self._id_counts[wish] = self._id_counts.get(wish, 1) + 1
            node_id = f"{wish}_{self._id_counts[wish]}"
        return node_id

    def _require_node(self, node_id: str) -> None:
        if node_id not in self._node_specs:
            raise UnknownNameError(f"{self.block_id}: there is no node {node_id!r}; {suggest(node_id, self._node_specs)}")

    def _changed(self) -> None:
        """Told after every change of structure."""
        self._version += 1
        self.__dict__["_frozen_keys"] = None
        edits.add()

    def refresh_below(self) -> None:
        """Drops what was derived from the structure when a level below, however deep, has changed since."""

    # --- running ------------------------------------------------------------------------------------------------------

    def check_options(self, options: Mapping[str, Any], method: str) -> tuple[Callback, ...] | None:
        """Refuses options of a run that no run of this level could have, before anything runs.

        Args:
            options: by name, as of :meth:`run`.
            method: what they were given to.

        Returns:
            Its callbacks as a tuple; None where none are named.

        Raises:
            TypeError: ``run`` has no such option, or it is of another kind.
            PortError: an option names what is not there.
        """
        self._refuse_unknown(options, method)
        return check_options(self.block_id, **{name: options[name] for name in COMMON_OPTIONS if name in options})[2]

    def _refuse_unknown(self, options: Collection[str], method: str = "run") -> None:
        kind: Any = type(self)
        known = options_of(kind)
        for name in options:
            if name not in known:
                raise TypeError(f"{self.block_id}: {method}() has no option {name!r}; {suggest(name, known)}")

    async def arun(self, *args: Any, **options: Any) -> Any:
        """``run`` for async code: the event loop goes on meanwhile, and cancelling the task stops the run."""
        self.check_options(options, "arun")
        stop = threading.Event()
        asked = options.pop("cancelled", None)
        run: Any = self.run
        work = in_this_context(lambda: run(*args, cancelled=lambda: stop.is_set() or bool(asked and asked()), **options))
        future = background.start(work)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            stop.set()
            raise

    def compile(self, *args: Any, **options: Any) -> None:
        """Compiles what repeats: each loop at this level and below has its body compiled as one, and called in every turn.

        Nodes outside of loops stay as they are. Where there is no loop at all this is ``nn.Module.compile``. It takes effect
        when the loop runs first, which then takes as long as compiling does; ``run`` and the plain call alike use it. Callbacks
        are told of turns and not of the nodes inside compiled bodies. Neither the config nor the ``state_dict`` knows of it.

        What is compiled as one draws from PyTorch's generator by the key of its first node, so such draws follow the seed and are others
        than without compiling; blocks that take ``rng``, and levels that hold one, are called as they are, and draw the same.

        Weights stay inputs of what is compiled, so what ``load_state_dict`` brings counts from the next turn on. Inductor's freezing
        makes constants of them: PyTorch 2.13 takes no notice of it in ``options``, only of ``torch._inductor.config.freezing`` when
        the loop first runs, without gradients. What is loaded after that is not seen, and nothing says so: call this once more.

        Compiled convolutions read their weights in channels-last, and bring them into it in every turn unless they lie so already.
        Where convolutions are much of the work saying so first takes 0.9 to 0.98 of the time on a CPU (``scripts/bench/denoise.py``).

        Example:
            >>> graph.to(memory_format=torch.channels_last).compile()

        Args:
            args: as for ``torch.compile``.
            options: likewise: ``backend``, ``mode``, ``fullgraph``, ``dynamic``, ...
        """
        if args or not self.compile_loops(options):
            super().compile(*args, **options)

    def compile_loops(self, options: Mapping[str, Any]) -> bool:
        """Has the loops below compiled, with options of ``torch.compile``; False when there are none."""
        return sum(child.compile_loops(options) for child in self.child_levels()) > 0  # all are asked

    # --- validation ---------------------------------------------------------------------------------------------------

    def validate(self, strict: bool = True, *, deep: bool = False) -> ValidationResult:
        """Looks for everything that would stop a run, and for what looks odd.

        Args:
            strict: raise when there are errors.
            deep: look into the children as well.

        Raises:
            ValidationError: strict, and there are errors; lists them all.
        """
        errors, warnings = self._findings()
        if deep:
            for node_id, child in self.nodes.items():
                if isinstance(child, Level):
                    below = child.validate(strict=False, deep=True)
                    errors += [replace(found, where=f"{self.block_id}/{node_id} > {found.where}") for found in below.errors]
                    warnings += [replace(found, where=f"{self.block_id}/{node_id} > {found.where}") for found in below.warnings]
        if strict and errors:
            raise ValidationError(self.block_id, errors)
        return ValidationResult(tuple(errors), tuple(warnings))

    def _findings(self) -> tuple[list, list]:
        """(errors, warnings) of this level alone."""
        return [], []

    def draw(self, format: str = "mermaid", *, times: Mapping[str, float] | None = None) -> Drawing:
        """The structure as text: ``mermaid``, ``dot`` or ``svg``; a notebook shows it as a picture.

        Args:
            format: which language.
            times: seconds by node path, to be written on the nodes.
        """
        return draw(self, format, times)

    def links(self) -> list[Link]:
        """What :meth:`draw` draws arrows for."""
        return []

    def run_order(self) -> tuple[str, ...]:
        """Nodes in the order they run, as far as that is known; loops once."""
        return ()

    def child_levels(self) -> Iterable[Level]:
        """Children that are levels themselves, each once however many places it stands at."""
        return {id(child): child for child in self.nodes.values() if isinstance(child, Level)}.values()

    def summary_facts(self) -> list[tuple[str, list[str]]]:
        """What stands above the nodes in the summary that ``repr`` gives: (head, words)."""
        return ports_of(self)

    def __repr__(self) -> str:
        return summary_of(self)

    def _repr_html_(self) -> str:
        return html_of(self)


def describe_child(child: object) -> str:
    """A child in words, for messages."""
    return f"{type(child).__name__} {child.block_id!r}" if isinstance(child, Block) else describe(child)
