"""World: a cycle of stages that lives and develops."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from wgtorch.contract import OUTSIDE
from wgtorch.core.block import Block
from wgtorch.core.building import LevelRegistry
from wgtorch.core.dryrun import DryRun, dry_run_of
from wgtorch.core.errors import Finding, StateError, StorageError, StructureError, ValidationError
from wgtorch.core.kinds import describe
from wgtorch.core.level import Level
from wgtorch.core.modes import mode_for_run
from wgtorch.core.run import Callback, Run, located, new_run
from wgtorch.core.signature import copy_plain, ensure_plain
from wgtorch.cycle import Call, WorldStep, advance, one_pass
from wgtorch.stage import Stage
from wgtorch.state import CANONICAL_SLOTS, State
from wgtorch.storage.base import History, Life, Storage, make_storage
from wgtorch.storage.directory import read_life, write_life
from wgtorch.storage.memory import MemoryStorage

CANONICAL_CYCLE = ("philosopher", "author", "environment", "architect", "creator")


class World(Level):
    """A cycle of stages over a State, with a content that grows.

    ``philosopher -> author -> environment -> architect -> creator -> (again)``; worlds with another cycle or other
    slots are built the same way. What the world has become - its content, the State in flight, how far it is - is
    its life: it is not part of ``state_dict``, and goes along with :meth:`save`.

    Example:
        >>> world = World.from_template("default")
        >>> state = world.run(num_steps=3, action="go to the sea", seed=7)
        >>> world.content["story"], state.artifacts
    """

    level: ClassVar[str] = "world"
    id_key: ClassVar[str] = "world_id"
    child_class: ClassVar[type[Block]] = Stage

    def __init__(self, world_id: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(world_id, metadata=metadata)
        self._cycle: tuple[str, ...] = ()
        self._schema: tuple[str, ...] = CANONICAL_SLOTS
        self._initial: dict[str, Any] = {}
        self._storage_config: dict[str, Any] | None = None
        self._storage: Storage = MemoryStorage()
        self._life = Life()
        self._failed: Call | None = None

    # --- building -----------------------------------------------------------------------------------------------------

    @property
    def world_id(self) -> str:
        """The world's id."""
        return self.block_id

    @property
    def cycle(self) -> tuple[str, ...]:
        """Stage ids in the order they run."""
        return self._cycle

    @property
    def state_schema(self) -> tuple[str, ...]:
        """Names of the State's slots."""
        return self._schema

    def add_stage(self, stage: Stage | Mapping[str, Any] | str | os.PathLike[str], stage_id: str | None = None, **place: Any) -> str:
        """Adds a stage, its config, a path to one, or a template's name.

        Returns:
            The stage's id in this world.
        """
        return self.add_child(stage, stage_id, **place)

    def set_cycle(self, cycle: Sequence[str]) -> None:
        """Says in which order the stages run; every stage exactly once.

        Raises:
            StructureError: a stage is missing, unknown or named twice.
        """
        missing = [stage_id for stage_id in self.nodes if stage_id not in cycle]
        unknown = [stage_id for stage_id in cycle if stage_id not in self.nodes]
        twice = sorted({stage_id for stage_id in cycle if list(cycle).count(stage_id) > 1})
        wrong = [f"{words} {names}" for words, names in (("missing", missing), ("unknown", unknown), ("named twice", twice)) if names]
        if wrong:
            raise StructureError(f"{self.block_id}: cycle {list(cycle)}: {'; '.join(wrong)}; expected each of {list(self.nodes)} once")
        self._cycle = tuple(cycle)

    def set_canonical_cycle(self) -> None:
        """philosopher -> author -> environment -> architect -> creator, found by the stages' roles."""
        by_role: dict[str, list[str]] = {}
        for stage_id, stage in self.nodes.items():
            by_role.setdefault(stage.role, []).append(stage_id)
        wrong = {role: found for role in CANONICAL_CYCLE if len(found := by_role.get(role, [])) != 1}
        if wrong:
            raise StructureError(
                f"{self.block_id}: the canonical cycle needs one stage of each role {list(CANONICAL_CYCLE)}; found {wrong}"
            )
        self.set_cycle([by_role[role][0] for role in CANONICAL_CYCLE])

    def set_state_schema(self, slots: Sequence[str]) -> None:
        """Names the State's slots, in order; the canonical five by default.

        Raises:
            StateError: there is none, one comes twice, or a name is none that can be typed (``action`` and ``content``
                are what a stage reads beside the slots).
        """
        wrong = [name for name in slots if not str(name).isidentifier() or name in (*OUTSIDE, "schema")]
        if wrong:
            raise StateError(f"{self.block_id}: {wrong[0]!r} cannot name a slot; expected a Python name, none of {[*OUTSIDE, 'schema']}")
        if len(set(slots)) != len(slots) or not slots:
            raise StateError(f"{self.block_id}: schema {list(slots)}; expected different names, at least one")
        self._schema = tuple(slots)

    def set_storage(self, storage: Mapping[str, Any] | Storage | None) -> None:
        """Says where complete states and the life in flight are kept.

        Args:
            storage: ``{"state_dir": folder, "naming_template": "{step:05d}", "max_snapshots": None}``, a storage object, or
                None for memory.
        """
        if storage is None:
            self._storage_config, self._storage = None, MemoryStorage()
        elif isinstance(storage, Mapping):
            self._storage = make_storage(storage)
            self._storage_config = ensure_plain(
                {key: str(value) if isinstance(value, os.PathLike) else value for key, value in storage.items()}, "storage"
            )
        else:
            self._storage_config, self._storage = None, storage

    def set_initial_content(self, content: Mapping[str, Any]) -> None:
        """Says what the world is before its first pass.

        Raises:
            StructureError: the world already lives.
        """
        if not self._life.is_new:
            raise StructureError(f"{self.block_id}: it has lived {self._life.passes} passes; set world.content to change what it is now")
        self._initial = ensure_plain(content, f"{self.block_id}.initial_content")
        self._life.content = copy_plain(self._initial)

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def content(self) -> Mapping[str, Any]:
        """What the world is now."""
        return self._life.content

    @content.setter
    def content(self, content: Mapping[str, Any]) -> None:
        self._life.content = dict(content)

    @property
    def state(self) -> State | None:
        """The State in flight; may be replaced between two stages of a :meth:`stream`."""
        return self._life.state

    @state.setter
    def state(self, state: State | None) -> None:
        self._life.state = None if state is None else self._own_state(state)

    @property
    def life(self) -> Life:
        """Content, State in flight, passes so far, next stage, seed."""
        return self._life

    @property
    def history(self) -> History:
        """The stored states, oldest first."""
        return History(self._storage)

    def resume(self) -> World:
        """Takes up the life that the storage kept last, as after a crash; :meth:`run` then goes on as if never stopped.

        Raises:
            StorageError: the storage keeps no life.
        """
        life = self._storage.read_life()
        if life is None:
            raise StorageError(f"{self.block_id}: the storage keeps no life to resume; run the world first, or use World.load")
        self._life, self._failed = life, None
        return self

    def restart(self) -> World:
        """Forgets the life so far: initial content, no State, no seed. States in a folder stay there; those in memory go."""
        self._life, self._failed = Life(content=copy_plain(self._initial)), None
        if isinstance(self._storage, MemoryStorage):
            self._storage = MemoryStorage()
        return self

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, state: State | None = None, action: Any = None) -> State:
        """One pass of the cycle in the caller's grad mode and train or eval mode; the world's life is not touched.

        Args:
            state: where the pass starts; an empty State when left out.
            action: the user's action.

        Returns:
            The State after the pass, tensors attached to their graph.
        """
        run = args[0] if args and isinstance(args[0], Run) else None
        given = [value for value in args if value is not run]
        state = given[0] if given else state
        start = State(schema=self._schema) if state is None else state
        return one_pass(self, start, action, self.content, run or Run((self.block_id,)))[0]

    def run(  # type: ignore[override]
        self,
        state: State | None = None,
        *,
        action: Any = None,
        num_steps: int = 1,
        seed: int | None = None,
        training: bool = False,
        callbacks: Iterable[Callback] = (),
        dry_run: bool | str = False,
        timeout: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Any:
        """Lives on for some passes of the cycle.

        Args:
            state: an episode to start from; what it holds decides which stages run. Left out, the life goes on where it
                is, in the middle of a pass too; so it does when a call that failed is made again with the same State.
            action: the user's action; a list holds one for each pass, anything else is given in every pass.
            num_steps: passes; the rest of one that was stopped counts as one.
            seed: root of all random draws; a life keeps its seed, and draws one when it is given none.
            training, callbacks, timeout, cancelled: as in :meth:`Composite.run`.
            dry_run: report order and API calls and run nothing.

        Returns:
            The State after the last pass: slots 1-3 of the new episode, in the canonical cycle.
        """
        options = {"action": action, "num_steps": num_steps, "seed": seed, "training": training, "callbacks": callbacks}
        if dry_run:
            return self._dry_run(new_run(self.block_id, seed, callbacks, None, timeout, cancelled))
        for _ in self.stream(state, **options, timeout=timeout, cancelled=cancelled):
            pass
        return self._life.state

    def stream(
        self,
        state: State | None = None,
        *,
        action: Any = None,
        num_steps: int = 1,
        seed: int | None = None,
        training: bool = False,
        callbacks: Iterable[Callback] = (),
        timeout: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Generator[WorldStep, None, None]:
        """:meth:`run`, telling after each stage and each pass.

        Between two steps ``world.state`` and ``world.content`` may be looked at and replaced. Leaving the loop stops the
        world there; the next ``run`` goes on from that stage.

        Yields:
            A :class:`~wgtorch.cycle.WorldStep` of kind ``stage`` after each stage, and of kind ``pass`` after each pass.
        """
        self._require_cycle()
        call = Call(state, self._actions(action, num_steps), self._life.passes)
        if self._failed is not None and self._failed.is_same(call):
            call = self._failed
        with self._storage.hold():
            self._start(call, seed)
            self._storage.keep_life(self._life)
            run = new_run(self.block_id, self._life.seed, callbacks, None, timeout, cancelled)
            try:
                for index in range(self._life.passes - call.begun, num_steps):
                    run.emit("loop", None, self.level, step=index, total=num_steps)
                    yield from self._one_pass(call.actions[index], run, training)
            except Exception:
                self._failed = call
                raise

    def _one_pass(self, action: Any, run: Run, training: bool) -> Iterator[WorldStep]:
        """What is left of a pass, stage by stage."""
        while self._life.stage < len(self._cycle):
            with located(self.block_id), torch.set_grad_enabled(training), mode_for_run(self, training):
                step = advance(self, self._life, action, run)
            self._storage.keep_life(self._life)
            yield step
            if self._life.state is not step.state or self._life.content is not step.content:  # edited meanwhile
                self._storage.keep_life(self._life)
        self._life.passes, self._life.stage = self._life.passes + 1, 0
        self._storage.keep_life(self._life)
        yield WorldStep("pass", self._life.passes - 1, None, self._life.state, self._life.content)

    def store(self, state: State, content: Mapping[str, Any]) -> str:
        """Keeps a complete state and the content after it, under the number of the pass."""
        return self._storage.store(self._life.passes, state, content)

    # --- config and files ---------------------------------------------------------------------------------------------

    def own_config(self) -> dict[str, Any]:
        return {
            "cycle": list(self._cycle),
            "state_schema": list(self._schema),
            "storage": self._storage_config,
            "initial_content": copy_plain(self._initial),
        }

    def apply_config(self, config: Mapping[str, Any]) -> None:
        self.set_state_schema(config.get("state_schema", CANONICAL_SLOTS))
        if config.get("cycle"):
            self.set_cycle(config["cycle"])
        self.set_storage(config.get("storage"))
        self.set_initial_content(config.get("initial_content", {}))

    def write_extra(self, directory: Path) -> None:
        (directory / "life").mkdir()
        write_life(self._life, directory / "life")

    def read_extra(self, directory: Path) -> None:
        if (directory / "life").is_dir():
            self._life = read_life(directory / "life")

    def links(self) -> list[tuple[str, str, str]]:
        following = [*self._cycle[1:], *self._cycle[:1]]
        return [(stage_id, after, "State") for stage_id, after in zip(self._cycle, following, strict=True)]

    # --- private steps ------------------------------------------------------------------------------------------------

    def _findings(self) -> tuple[list[Finding], list[Finding]]:
        errors: list[Finding] = []
        if set(self._cycle) != set(self.nodes) or not self._cycle:
            errors.append(
                Finding(
                    self.block_id,
                    f"the cycle is {list(self._cycle)}",
                    f"each of {list(self.nodes)} once",
                    "Call set_cycle or set_canonical_cycle.",
                )
            )
        filled: set[str] = set()
        for stage in self.nodes.values():
            errors += stage.slot_findings(self._schema)
            filled |= {slot.split(".")[0] for slot in stage.state_contract.writes}
        for stage_id, stage in self.nodes.items():
            for slot in stage.state_contract.inputs:
                if slot in self._schema and slot not in filled:
                    errors.append(
                        Finding(
                            f"{self.block_id}/{stage_id}",
                            f"needs slot {slot!r}, which no stage fills",
                            f"a stage that writes {slot!r}",
                            "Add one, or take the slot out of the contract's inputs.",
                        )
                    )
        warnings = [
            Finding(f"{self.block_id}: slot {slot}", "no stage fills it", "all slots filled, so that states are complete and stored")
            for slot in self._schema
            if slot not in filled
        ]
        return errors, warnings

    def _require_cycle(self) -> None:
        errors = [found for found in self._findings()[0] if "the cycle is" in found.found]
        if errors:
            raise ValidationError(self.block_id, errors)

    def _start(self, call: Call, seed: int | None) -> None:
        self._check_storage()
        if call.state is not None and call is not self._failed:
            state = self._own_state(call.state)
            for stage in self.nodes.values():
                state = stage.normalised(state)
            self._life.state, self._life.stage = state, 0
        self._failed = None
        if seed is not None:
            self._life.seed = seed
        elif self._life.seed is None:
            self._life.seed = int(torch.randint(2**62, ()).item())

    def _check_storage(self) -> None:
        """Refuses to write over what the storage keeps of another life, or of this one further on."""
        kept = self._storage.read_life()
        if kept is None or (kept.id == self._life.id and (kept.passes, kept.stage) <= (self._life.passes, self._life.stage)):
            return
        if kept.id == self._life.id:
            here = f"this world is at pass {self._life.passes}, stage {self._life.stage}"
            found = f"this life up to pass {kept.passes}, stage {kept.stage}; {here}"
        else:
            found = f"the history of another life, up to pass {kept.passes}"
        raise StorageError(
            f"{self.block_id}: the storage holds {found}. Call world.resume() to go on with it, or choose another state_dir."
        )

    def _own_state(self, state: Any) -> State:
        if not isinstance(state, State) or state.schema != self._schema:
            found = repr(state) if isinstance(state, State) else describe(state)
            raise StateError(f"{self.block_id}: got {found}; expected a State with slots {list(self._schema)}")
        return state

    def _actions(self, action: Any, num_steps: int) -> list[Any]:
        if num_steps < 0:
            raise StateError(f"{self.block_id}: num_steps is {num_steps}; expected 0 or more")
        if not isinstance(action, (list, tuple)):
            return [action] * num_steps
        if len(action) != num_steps:
            raise StateError(
                f"{self.block_id}: {len(action)} actions for {num_steps} passes; "
                "give one for each (None where there is none), or a single one"
            )
        return list(action)

    def _dry_run(self, run: Run) -> DryRun:
        self._require_cycle()
        reports = []
        for stage_id in self._cycle:
            stage = self.nodes[stage_id]
            values = dict.fromkeys(stage.get_input_spec())
            reports.append(dry_run_of(stage, values, run.child(stage_id), fake=False))
        return DryRun(
            order=tuple(
                f"{self.block_id}/{stage_id}/{path.split('/', 1)[1]}"
                for stage_id, report in zip(self._cycle, reports, strict=True)
                for path in report.order
            ),
            findings=tuple(found for report in reports for found in report.findings),
            api_calls=sum(report.api_calls for report in reports),
            weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*self.parameters(), *self.buffers())),
        )


LevelRegistry.register("world", World)
