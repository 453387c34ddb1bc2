"""World: a cycle of stages that lives and develops."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from wgtorch.core.block import Block
from wgtorch.core.config import schema
from wgtorch.core.config.serialization import LevelRegistry
from wgtorch.core.drawing import Link
from wgtorch.core.errors import Finding, StateError, StructureError, ValidationResult
from wgtorch.core.registry import Registry
from wgtorch.core.run.joined_runs import check_items, seeds_of
from wgtorch.core.signature import copy_plain
from wgtorch.stage import Stage
from wgtorch.storage.commit import Commit
from wgtorch.world_runtime import past, stopped
from wgtorch.world_runtime.changes import Change
from wgtorch.world_runtime.contract import OUTSIDE
from wgtorch.world_runtime.runner import WorldRunner
from wgtorch.world_runtime.state import CANONICAL_SLOTS, State
from wgtorch.world_runtime.together import run_together

WorldReports: Registry[Callable[..., Any]] = Registry("report of worlds", group="wgtorch.world_reports")
"""What shows a world's history, by the form it has; the report adds its own."""
CANONICAL_CYCLE = ("philosopher", "author", "environment", "architect", "creator")


class World(WorldRunner):
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
    nodes_key: ClassVar[str] = "stages"
    config_properties: ClassVar[Mapping[str, Any]] = {
        "cycle": schema.TEXTS,
        "state_schema": schema.TEXTS,
        "storage": schema.one_of(schema.DATA, schema.NULL),
        "initial_content": schema.DATA,
    }

    def __init__(self, world_id: str | None = None, *, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(world_id, metadata=metadata)

    @property
    def world_id(self) -> str:
        """The world's id."""
        return self.block_id

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

    def batch(
        self, inputs: Sequence[State | None], *, seed: int | Sequence[int] | None = None, action: Any = None, **options: Any
    ) -> list[Any]:
        """Lives several futures of this world at once, each from where it is now; the world itself stays there.

        Item k gives what ``world.fork().run(inputs[k], seed=seed[k])`` gives, through as few calls of local models as these allow.
        :class:`~wgtorch.world_batch.WorldBatch` keeps such worlds.

        Args:
            inputs: for each item the State it starts from; None goes on with the one in flight.
            seed: one for all items, or a list with one for each; that of the world's life when left out.
            action: one for all items, or a list with one for each (which may be a list with one for each pass).
            options: ``num_steps``, ``callbacks``, ``timeout``, ``cancelled``, ``training``, ``debug`` and ``cache`` as of :meth:`run`.

        Returns:
            For each item the State after its last pass. **In the place of an item that failed stands its exception.**

        Example:
            >>> calm, storm = world.batch([None, None], seed=7, action=["wait", "call the storm"])
        """
        for name in ("dry_run", "profile"):
            if options.get(name):
                raise TypeError(f"{self.block_id}: batch() has no option {name!r}; write run({name}=True)")
        items = check_items(inputs, self.block_id)
        seeds = seeds_of(seed, len(items), self.block_id)
        for own in seeds or [None]:
            self.check_options({**options, "seed": own}, "batch")
        forks = [self.fork() for _ in items]
        for fork, own in zip(forks, seeds, strict=True):
            if own is not None:
                fork.life.seed = own
        return run_together(forks, items, action, self.block_id, **options)

    # --- the past -----------------------------------------------------------------------------------------------------

    @property
    def commits(self) -> list[Commit]:
        """The moments of the world's past, oldest first: one for each stage that ran, each edit and each pass."""
        return past.log_of(self).commits()

    def fork(
        self, step: int | None = None, *, commit: Commit | str | None = None, state_dir: str | os.PathLike[str] | None = None
    ) -> World:
        """A world that shares this one's past up to a moment, and owns its future: nothing done in it changes this one.

        The stages are the same modules, so weights exist once. With the same seed and actions it lives what this world lived.

        Args:
            step: number of a pass, as ``history.steps`` has them: the moment when that pass was done. The present when left out.
            commit: any other moment, inside a pass too: one of :attr:`commits`, or its id.
            state_dir: where the fork keeps its own log; in memory when left out. On one disk the past takes no room a second time,
                and the fork lives on when this world's folder is deleted.

        Raises:
            StorageError: there is no such moment, or ``state_dir`` holds something already.

        Example:
            >>> other = world.fork(step=3, state_dir="runs/b")
            >>> other.run(action="turn back")
        """
        return past.fork_of(self, step, commit, state_dir)

    def rewind(self, step: int | None = None, *, commit: Commit | str | None = None) -> Self:
        """Goes back to a moment of the past, and on from there. What came after stays in the log, off the world's chain.

        Args:
            step, commit: as in :meth:`fork`; one of them.

        Raises:
            StorageError: there is no such moment.
        """
        past.rewind_to(self, step, commit)
        return self

    def diff(self, first: int | Commit | str, second: int | Commit | str) -> list[Change]:
        """What differs between two stored steps, or two moments of the past.

        Returns:
            A :class:`~wgtorch.world_runtime.changes.Change` for each field, by its path: ``intent``, ``recipe.prompt``, ``content.story``.
        """
        return past.differences(self, first, second)

    def replay(self, step: int | None = None) -> past.Replay:
        """Runs the stages of a pass again, each from what the log says was before it, and compares bit for bit what comes out.

        Nothing of the world is changed. Stages at an API are asked, and paid for, unless a cassette answers.

        Args:
            step: number of the pass; all of the past when left out.

        Returns:
            A :class:`~wgtorch.world_runtime.past.Replay`, true where all came out the same; it names the first difference otherwise.
        """
        return past.lived_again(self, step)

    # --- a person's part ----------------------------------------------------------------------------------------------

    def edit(self, *, content: Mapping[str, Any] | None = None, **slots: Any) -> Self:
        """Changes slots of the State in flight, and fields of the content; :meth:`run` goes on with them.

        Where a stage of this episode has read what is changed - the architect an intent, the creator a recipe - the world goes back
        to it, and what was made from the old value is emptied. What is edited itself stays.

        Args:
            content: fields to set.
            slots: values by slot; None empties one.

        Raises:
            StateError: there is no such slot.

        Example:
            >>> world.edit(recipe={**world.state.recipe, "prompt": "a calm sea"}).run()
        """
        stopped.edit(self, content, slots)
        return self

    def skip(self) -> Self:
        """Goes on without the stage that is next, as one that failed; it does not run in this pass."""
        stopped.skip(self)
        return self

    def retry(self, *, seed: int | None = None, **options: Any) -> State | None:
        """Makes the call that failed again: it goes on at the stage that failed, and lives what was left of the call.

        Where nothing failed the last stage that ran is taken back and runs again, with other draws, and the pass is lived to its end.

        Args:
            seed: of the draws from here on; for a stage that failed, those it had are kept when left out.
            options: ``callbacks``, ``timeout``, ``cancelled``, ``training`` as in :meth:`run`.

        Returns:
            The State after the last pass.
        """
        state: State | None = stopped.retry(self, seed, options)
        return state

    def _advice(self) -> tuple[str, ...]:
        return stopped.advice(self, self._cycle[self._life.stage])

    def _take_action(self, action: Any) -> None:
        stopped.back_for_action(self, action)

    def report(self, path: str | os.PathLike[str] | None = None) -> Any:
        """A storyboard of what the world has lived through, on one HTML page that needs nothing else; a notebook shows it.

        Per episode: action, slots, pictures, what it changed of the content, and what every stage left - whether it ran
        and why not, what it read and wrote, its calls, its time.

        Args:
            path: the file to write; none is when left out.

        Returns:
            A :class:`~wgtorch.report.report.Report`.
        """
        made = WorldReports.get("html")(self)
        if path is not None:
            made.save(path)
        return made

    @classmethod
    def nodes_schema(cls, node: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
        place = schema.closed({name: schema.PLACE[name] for name in ("trainable", "adapter")})
        remote = schema.closed({**schema.ENDPOINT, "share": schema.TEXT}, ("endpoint_url",))
        stage = {"if": {"type": "object", "required": ["endpoint_url"]}, "then": remote, "else": child}
        return {
            cls.nodes_key: {"type": "object", "additionalProperties": stage},
            "places": {"type": "object", "additionalProperties": place},
        }

    @classmethod
    def nodes_in_config(cls, config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        stages, places = config.get(cls.nodes_key), config.get("places")
        for stage_id, stage in stages.items() if isinstance(stages, Mapping) else ():
            if isinstance(stage, Mapping):
                place = places.get(stage_id) if isinstance(places, Mapping) else None
                share = {"share": stage["share"]} if "share" in stage else {}
                yield f"{cls.nodes_key}.{stage_id}", {"node_id": stage_id, "config": stage, **share, **(place or {})}

    def nodes_to_config(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        stages: dict[str, Any] = {}
        places: dict[str, Any] = {}
        for entry in entries:
            place = dict(entry)
            stage = self.nodes[place.pop("node_id")]
            config: dict[str, Any] = {name: place.pop(name) for name in ("endpoint_url", "endpoint") if name in place}
            again = {"kind": stage.level, stage.id_key: stage.block_id, stage.nodes_key: []}  # one that was written before
            config |= place.pop("config", {} if config else again)
            config |= {"share": place.pop("share")} if "share" in place else {}
            stages[entry["node_id"]] = config
            places |= {entry["node_id"]: place} if place else {}
        return {self.nodes_key: stages, **({"places": places} if places else {})}

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

    def summary_facts(self) -> list[tuple[str, list[str]]]:
        life = self.life
        lived = [f"{life.passes} passes", *([] if life.seed is None else [f"seed {life.seed}"])]
        return [("slots", list(self.state_schema)), ("content", list(life.content)), ("lived", lived)]

    def run_order(self) -> tuple[str, ...]:
        return self._cycle

    def validate(self, strict: bool = True, *, deep: bool = True) -> ValidationResult:
        """As :meth:`Level.validate`; a world is valid only where its stages, and all in them, are."""
        return super().validate(strict, deep=deep)

    def links(self) -> list[Link]:
        following = [*self._cycle[1:], *self._cycle[:1]]
        return [Link(stage_id, "State", after, "State") for stage_id, after in zip(self._cycle, following, strict=True)]

    def _findings(self) -> tuple[list[Finding], list[Finding]]:
        errors = self._cycle_findings()
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


LevelRegistry.register("world", World)
