"""How a level of stages goes through time. Its life, its storage, and the passes of its cycle."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, Unpack, overload

import torch

from wgtorch.core.errors import Finding, PortError, PortTypeError, StateError, StorageError, StructureError, ValidationError
from wgtorch.core.kinds import describe
from wgtorch.core.level import Level
from wgtorch.core.run.context import RunContext, RunOptions
from wgtorch.core.run.dry_run import DryRun
from wgtorch.core.run.events import Callback
from wgtorch.core.run.paused import Paused, check_of
from wgtorch.core.run.profile import profiled
from wgtorch.core.run.rng import check_seed
from wgtorch.core.run.run_scope import RunScope
from wgtorch.core.run.start_run import LifeKeywords, new_run, shows_options
from wgtorch.core.run.stream import events_of, refuse_in_stream
from wgtorch.core.signature import copy_plain, ensure_plain
from wgtorch.core.trust import untrusted_file
from wgtorch.storage.base import History, Life, Storage, make_storage
from wgtorch.storage.life_files import read_life, write_life
from wgtorch.storage.memory import MemoryStorage
from wgtorch.world_runtime.cycle import WorldStep, advance, dry_run_of_cycle, one_pass
from wgtorch.world_runtime.paid_answers import PaidAnswers
from wgtorch.world_runtime.run_request import RunRequest, check_actions, check_passes, one_for_each
from wgtorch.world_runtime.state import CANONICAL_SLOTS, State
from wgtorch.world_runtime.storage_place import check_chosen_place, check_own_storage
from wgtorch.world_runtime.trace import StageTrace


class WorldRunner(Level):
    """Stages that run in a cycle over a State, with a content that grows and a history that is kept."""

    def __init__(self, level_id: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(level_id, metadata=metadata)
        self._cycle: tuple[str, ...] = ()
        self._schema: tuple[str, ...] = CANONICAL_SLOTS
        self._initial: dict[str, Any] = {}
        self._storage_config: dict[str, Any] | None = None
        self._storage: Storage = MemoryStorage()
        self._storage_file: str | None = None  # that said so, where it is not trusted
        self._life = Life()
        self._failed: RunRequest | None = None
        self._answers = PaidAnswers()

    @property
    def cycle(self) -> tuple[str, ...]:
        """Stage ids in the order they run."""
        return self._cycle

    @property
    def state_schema(self) -> tuple[str, ...]:
        """Names of the State's slots."""
        return self._schema

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def content(self) -> Mapping[str, Any]:
        """What the world is now."""
        return self._life.content

    @content.setter
    def content(self, content: Mapping[str, Any]) -> None:
        self._life.content = dict(self._mapping(content))

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

    def resume(  # type: ignore[override]
        self, paused: Paused | None = None, values: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Takes up the life that the storage kept last, as after a crash; :meth:`run` then goes on as if never stopped.

        Args:
            paused: goes on with a run of this life that ``run_until`` stopped inside a stage, and gives what :meth:`run` gives. In another
                process the life is taken up first: ``world.resume()``, then ``world.resume(Paused.load(path))``.
            values, options: as for every level, see :meth:`Level.resume`.

        Raises:
            PortError: the paused run is one of another life, or of another moment of this one.
            StorageError: the storage keeps no life.
        """
        if paused is not None:
            here = [self._life.id, self._life.passes, self._life.stage]
            if (found := check_of(paused, self).arguments.get("moment")) != here:
                raise PortError(f"{self.block_id}: the paused run is of life, pass and stage {found}; this world is at {here}")
            own = copy(paused)
            own.arguments = {name: value for name, value in paused.arguments.items() if name != "moment"}
            return super().resume(own, values, **options)
        life = self._storage.read_life()
        if life is None:
            raise StorageError(f"{self.block_id}: the storage keeps no life to resume; run the world first, or use World.load")
        self._life, self._failed = life, None
        return self

    def restart(self) -> Self:
        """Forgets the life so far: initial content, no State, no seed. States in a folder stay there; those in memory go."""
        self._life, self._failed = Life(content=copy_plain(self._initial)), None
        if isinstance(self._storage, MemoryStorage):
            self._storage = MemoryStorage()
        return self

    def set_initial_content(self, content: Mapping[str, Any]) -> None:
        """Says what the world is before its first pass.

        Raises:
            StateError: it is no mapping.
            ConfigError: it is not plain data.
            StructureError: the world already lives.
        """
        if not self._life.is_new:
            raise StructureError(f"{self.block_id}: it has lived {self._life.passes} passes; set world.content to change what it is now")
        self._initial = ensure_plain(self._mapping(content), f"{self.block_id}.initial_content")
        self._life.content = copy_plain(self._initial)

    def set_storage(self, storage: Mapping[str, Any] | Storage | None) -> None:
        """Says where complete states and the life in flight are kept.

        Args:
            storage: ``{"state_dir": folder, "naming_template": "{step:05d}", "max_snapshots": None}``, a storage object, or
                None for memory.
        """
        self._storage_file = untrusted_file()
        if storage is None:
            self._storage_config, self._storage = None, MemoryStorage()
        elif isinstance(storage, Mapping):
            self._storage = make_storage(storage)
            self._storage_config = ensure_plain(
                {key: str(value) if isinstance(value, os.PathLike) else value for key, value in storage.items()}, "storage"
            )
        else:
            self._storage_config, self._storage = None, storage

    def check_chosen_place(self) -> None:
        """Refuses a folder outside of the current one that a file names, unless this life is there already."""
        if self._storage_file is not None and self._storage_config is not None and "state_dir" in self._storage_config:
            state_dir = str(self._storage_config["state_dir"])
            check_chosen_place(self.block_id, self._storage, self._life, state_dir, self._storage_file)

    def check_own_storage(self) -> None:
        """Refuses to write over what the storage keeps of another life, or of this one further on."""
        check_own_storage(self.block_id, self._storage, self._life)

    # --- running ------------------------------------------------------------------------------------------------------

    def check_options(self, options: Mapping[str, Any], method: str) -> tuple[Callback, ...] | None:
        if "num_steps" in options:
            check_passes(options["num_steps"], self.block_id)
        if isinstance(seed := options.get("seed"), (list, tuple)):
            raise PortTypeError(f"{self.block_id}: seed is {describe(seed)}; a life has one seed, an int (WorldBatch lives one for each)")
        return super().check_options(options, method)

    def forward(self, state: State | None = None, action: Any = None, *, run_context: RunContext | None = None) -> State:
        """One pass of the cycle in the caller's grad mode and train or eval mode; the world's life is not touched.

        Args:
            state: where the pass starts; an empty State when left out.
            action: the user's action.
            run_context: the run that it is part of; given by the engine.

        Returns:
            The State after the pass, tensors attached to their graph.
        """
        start = State(schema=self._schema) if state is None else state
        return one_pass(self, start, action, self.content, run_context or RunContext(RunOptions(self.block_id)))[0]

    @overload  # type: ignore[override]
    def run(
        self,
        state: State | None = None,
        *,
        action: Any = None,
        num_steps: int = 1,
        seed: int | None = None,
        dry_run: Literal[False] = False,
        **options: Unpack[LifeKeywords],
    ) -> State: ...

    @overload
    def run(
        self,
        state: State | None = None,
        *,
        action: Any = None,
        num_steps: int = 1,
        seed: int | None = None,
        dry_run: Literal[True],
        **options: Unpack[LifeKeywords],
    ) -> DryRun: ...

    @shows_options(LifeKeywords)
    def run(
        self,
        state: State | None = None,
        *,
        action: Any = None,
        num_steps: int = 1,
        seed: int | None = None,
        dry_run: bool = False,
        **options: Any,
    ) -> Any:
        """Lives on for some passes of the cycle.

        Args:
            state: an episode to start from; what it holds decides which stages run. Left out, the life goes on where it
                is, in the middle of a pass too; so it does when a call that failed is made again with the same State.
            action: the user's action; a list holds one for each pass, anything else is given in every pass.
            num_steps: passes; the rest of one that was stopped counts as one.
            seed: root of all random draws; a life keeps its seed, and draws one when it is given none.
            dry_run: report order and API calls and run nothing.
            options: as in :meth:`Composite.run`: ``training``, ``callbacks``, ``timeout``, ``cancelled``, ``debug``, ``cache`` and
                ``profile``.

        Returns:
            The State after the last pass: slots 1-3 of the new episode, in the canonical cycle.
        """
        self._refuse_unknown(options)
        if not isinstance(dry_run, bool):
            raise PortTypeError(f"{self.block_id}: dry_run is {dry_run!r}; expected True or False: shapes depend on what a stage makes")
        if dry_run:
            self._require_cycle()
            return dry_run_of_cycle(self, new_run(self.block_id, seed=seed, dry_run=True, **options))
        if (profile := options.pop("profile", False)) is not False:
            told = options.pop("callbacks", None)
            run_it = partial(self.run, state, action=action, num_steps=num_steps, seed=seed, **options)
            return profiled(run_it, profile, told, self.block_id)
        for _ in self.stream(state, action=action, num_steps=num_steps, seed=seed, **options):
            pass
        return self._life.state

    def stream(
        self,
        state: State | None = None,
        *,
        action: Any = None,
        num_steps: int = 1,
        seed: int | None = None,
        events: bool = False,
        **options: Any,
    ) -> Generator[Any, None, None]:
        """:meth:`run`, telling after each stage and each pass.

        Between two steps ``world.state`` and ``world.content`` may be looked at and replaced. Leaving the loop stops the
        world there; the next ``run`` goes on from that stage.

        Args:
            state, action, num_steps, seed, options: as of :meth:`run`.
            events: tell also of what happens inside the stages, as ``stream`` of other levels does; the last event holds the ``state``.

        Yields:
            A :class:`~wgtorch.world_runtime.cycle.WorldStep` of kind ``stage`` after each stage, and of kind ``pass`` after each pass;
            with ``events``, between them every :class:`~wgtorch.core.run.events.Event`.
        """
        if not isinstance(events, bool):
            raise PortTypeError(f"{self.block_id}: events is {describe(events)}; expected True or False")
        refuse_in_stream(options, self.block_id)
        if options.pop("profile", False) is not False:
            raise TypeError(f"{self.block_id}: stream() has no option 'profile'; write run(profile=...)")
        options |= {"action": action, "num_steps": num_steps, "seed": seed}
        told, cancelled = self.check_options(options, "stream"), options.pop("cancelled", None)
        options.pop("callbacks", None)
        if not events:
            return self._steps(state, **options, callbacks=told, cancelled=cancelled)

        def run(callbacks: Sequence[Any], cancelled: Callable[[], bool]) -> State | None:
            for step in self._steps(state, **options, callbacks=callbacks, cancelled=cancelled):
                callbacks[-1](step)  # hands it over and waits until the next is asked for
            return self._life.state

        return events_of(run, self.level, self.block_id, told or (), cancelled)

    def _steps(
        self, state: State | None, *, action: Any, num_steps: int, seed: int | None, **options: Any
    ) -> Generator[WorldStep, None, None]:
        self._require_cycle()
        call = RunRequest(state, one_for_each(action, num_steps, self.block_id), self._life.passes)
        check_actions(call.actions, self.nodes.values(), self.block_id)
        run = new_run(self.block_id, seed=seed, **options)
        if self._failed is not None and self._failed.is_same(call):
            call = self._failed
        self.check_chosen_place()
        with self._storage.hold():
            self.check_own_storage()
            if call is not self._failed and call.state is None and call.actions:
                self._take_action(call.actions[0])
            self._start(call, seed)
            self._keep_life("start")
            self._answers.begin(self._life)
            if seed is None:
                run.key = check_seed(self._life.seed, self.block_id)
            try:
                for index in range(self._life.passes - call.begun, num_steps):
                    run.emit("loop", None, self.level, step=index, total=num_steps)
                    if run.options.pause is not None:
                        run.options.pause.arguments = {"action": call.actions[index:], "num_steps": num_steps - index}
                    yield from self._one_pass(call.actions[index], run, options.get("training"))
                run.check_end()  # what came too late is kept: the same call gives it
            except Exception:
                self._failed = call
                raise

    def _one_pass(self, action: Any, run: RunContext, training: bool | None) -> Iterator[WorldStep]:
        """What is left of a pass, stage by stage."""
        while (life := self._life).stage < len(self._cycle):  # looked up once: of a module that is as dear as a call
            stage_id = self._cycle[life.stage]
            stage = self.nodes[stage_id]
            trace = StageTrace(stage, stage_id, life, State(schema=self._schema) if life.state is None else life.state, action)
            if run.options.pause is not None:
                run.options.pause.arguments["moment"] = [life.id, life.passes, life.stage]
            answers = self._answers.of(life, self._storage) if stage.is_async else None
            try:
                with RunScope(self if run.options.training else stage, run, training):  # in eval, only what runs has to be looked at
                    try:
                        step = advance(self, life, action, trace.watched(run, answers))
                    finally:
                        if answers is not None:  # also of a stage that succeeds: it may be lived again in this pass
                            answers.end()
            except (Exception, KeyboardInterrupt) as error:
                for note in self._advice():
                    error.add_note(note)
                with suppress(OSError, StorageError):  # the error that stopped the stage is the one to tell of
                    self._keep_trace(trace.failed(error))
                raise
            self._keep_trace(trace.done(step))
            self._keep_life("stage", stage=step.stage, action=action, is_last=life.stage == len(self._cycle))
            yield step
            if self._life.state is not step.state or self._life.content is not step.content:  # edited meanwhile
                self._keep_life("edit")
        self._life.passes, self._life.stage = self._life.passes + 1, 0
        self._keep_life("pass")
        yield WorldStep("pass", self._life.passes - 1, None, self._life.state, self._life.content)

    def store(self, state: State, content: Mapping[str, Any]) -> str:
        """Keeps a complete state and the content after it, under the number of the pass."""
        return self._storage.store(self._life.passes, state, content)

    def _keep_life(self, kind: str, **cause: Any) -> None:
        life = self._life
        life.cause = {"kind": kind, **cause}
        self._storage.keep_life(life)

    def _keep_trace(self, entry: Mapping[str, Any]) -> None:
        keep = getattr(self._storage, "keep_trace", None)  # a storage of somebody's own may keep none
        if keep is not None:
            keep(entry)

    # --- files --------------------------------------------------------------------------------------------------------

    def write_extra(self, directory: Path) -> None:
        (directory / "life").mkdir()
        write_life(self._life, directory / "life")

    def read_extra(self, directory: Path) -> None:
        if (directory / "life").is_dir():
            self._life = read_life(directory / "life")

    # --- private steps ------------------------------------------------------------------------------------------------

    def _advice(self) -> tuple[str, ...]:
        """What a person may do about the stage that failed."""
        return ()

    def _take_action(self, action: Any) -> None:
        """Told the action of what is left of a pass before that runs."""

    def _cycle_findings(self) -> list[Finding]:
        if set(self._cycle) == set(self.nodes) and self._cycle:
            return []
        expected, mend = f"each of {list(self.nodes)} once", "Call set_cycle or set_canonical_cycle."
        return [Finding(self.block_id, f"the cycle is {list(self._cycle)}", expected, mend)]

    def _require_cycle(self) -> None:
        if findings := self._cycle_findings():
            raise ValidationError(self.block_id, findings)

    def _start(self, call: RunRequest, seed: int | None) -> None:
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

    def _mapping(self, content: Any) -> Mapping[str, Any]:
        if not isinstance(content, Mapping):
            raise StateError(f"{self.block_id}: its content is {describe(content)}; expected a mapping, as {{'story': '...'}}")
        return content

    def _own_state(self, state: Any) -> State:
        if not isinstance(state, State) or state.schema != self._schema:
            found = repr(state) if isinstance(state, State) else describe(state)
            raise StateError(f"{self.block_id}: got {found}; expected a State with slots {list(self._schema)}")
        return state
