"""Stage: a graph of pipelines with a contract over a world's State."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from wgtorch.conditions import Condition, check_condition, slot_findings, unmet
from wgtorch.core.block import Block
from wgtorch.core.building import LevelRegistry
from wgtorch.core.composite import Composite
from wgtorch.core.dryrun import dry_run_of
from wgtorch.core.errors import Finding, StateError, suggest
from wgtorch.core.modes import mode_for_run
from wgtorch.core.port import Spec
from wgtorch.core.registry import Registry
from wgtorch.core.run import Callback, Run, new_run
from wgtorch.core.signature import copy_plain
from wgtorch.core.structure import Node
from wgtorch.pipeline import Pipeline
from wgtorch.state import CANONICAL_SLOTS, State, holds_something, look_up

OUTSIDE = ("action", "content")
"""Sources beside the slots: the user's action and the world's content. A stage may also write ``content``."""

MergeRegistry: Registry[Callable[[Any, Any], Any]] = Registry("merge rule", group="wgtorch.merges")
MergeRegistry.register("replace", lambda before, value: value)
MergeRegistry.register("append", lambda before, value: [*(before or []), *(value if isinstance(value, (list, tuple)) else [value])])


def register_merge(name: str) -> Callable[[Callable[[Any, Any], Any]], Callable[[Any, Any], Any]]:
    """Decorator: names a rule ``(before, value) -> after`` by which several writers of one slot are merged."""

    def decorate(rule: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        return MergeRegistry.register(name, rule)

    return decorate


class Stage(Composite):
    """One role in a world's cycle, as a DAG of pipelines that reads and writes slots of a State.

    Example:
        >>> s = Stage("architect", role="architect")
        >>> s.add_pipeline(p, "plan")
        >>> s.set_state_contract(inputs=["intent"], outputs=["recipe"],
        ...                      mapping_input={"plan.text": "intent"}, mapping_output={"recipe": "plan.recipe"})
        >>> s.set_execution_condition(["intent"])
        >>> s.run(State(intent="a storm comes"))
    """

    level: ClassVar[str] = "stage"
    id_key: ClassVar[str] = "stage_id"
    child_class: ClassVar[type[Block]] = Pipeline

    def __init__(self, stage_id: str | None = None, *, role: str | None = None, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(stage_id, metadata=metadata)
        self.role = role or self.block_id
        self._contract: dict[str, Any] = {"inputs": [], "outputs": []}
        self._writes: list[tuple[str, str]] = []  # (slot, exposed output)
        self._condition: Condition | None = None

    @property
    def stage_id(self) -> str:
        """The stage's id."""
        return self.block_id

    @property
    def execution_condition(self) -> Condition | None:
        """When the stage runs; None always."""
        return self._condition

    @property
    def state_contract(self) -> dict[str, Any]:
        """What :meth:`set_state_contract` was given, names that match filled in."""
        return copy_plain(self._contract)

    @property
    def writes_content(self) -> bool:
        """True when the stage updates the world's content."""
        return any(slot.split(".")[0] == "content" for slot, _ in self._writes)

    def add_pipeline(self, pipeline: Pipeline | Mapping[str, Any] | str | os.PathLike[str], node_id: str | None = None, **place: Any) -> str:
        """Adds a pipeline, its config, a path to one, or a template's name; ``place`` as in :meth:`Pipeline.add_graph`.

        Returns:
            The node's id.
        """
        return self.add_child(pipeline, node_id, **place)

    def set_state_contract(
        self,
        inputs: Sequence[str],
        outputs: Sequence[str],
        mapping_input: Mapping[str, str] | None = None,
        mapping_output: Mapping[str, str | Sequence[str]] | None = None,
        *,
        merge: Mapping[str, str] | None = None,
        new_state: bool = False,
    ) -> None:
        """Says which slots the stage reads and writes, and through which ports.

        Args:
            inputs: slots that must be filled before.
            outputs: slots that are filled after.
            mapping_input: ``"node.port"`` <- a slot, a field inside one (``recipe.prompt``), ``action``, ``content`` or
                ``content.style``. Without it, ports named as a source are joined to it.
            mapping_output: slot (or ``content``) <- ``"node.port"``, or several of them with a rule in ``merge``. Without
                it, ports named as an output slot are joined to it.
            merge: rule by slot: ``replace``, ``append`` or a registered one.
            new_state: start from an empty State instead of the one given; how an episode ends and another begins.

        Raises:
            StateError: a name matches several ports, a port or rule does not exist, or a slot has several writers and
                no rule.
        """
        reads = dict(mapping_input) if mapping_input is not None else self._matching_inputs(inputs)
        found = dict(mapping_output) if mapping_output is not None else self._matching_outputs(outputs)
        writes = {slot: [ports] if isinstance(ports, str) else list(ports) for slot, ports in found.items()}
        merge = dict(merge or {})
        self._check_contract(inputs, outputs, reads, writes, merge)
        self._inputs, self._outputs, self._writes = [], [], []
        for port, source in reads.items():
            self.expose_input(*port.split("."), source)
        for slot, ports in writes.items():
            for port in ports:
                name = slot if len(ports) == 1 else f"{slot} from {port}"
                self.expose_output(*port.split("."), name)
                self._writes.append((slot, name))
        self._contract = {
            "inputs": list(inputs),
            "outputs": list(outputs),
            "mapping_input": reads,
            "mapping_output": {slot: ports[0] if len(ports) == 1 else ports for slot, ports in writes.items()},
            "merge": merge,
            "new_state": new_state,
        }

    def set_execution_condition(self, condition: Condition | None, node_id: str | None = None) -> None:
        """Says when the stage, or one pipeline inside it, runs.

        Args:
            condition: slots that must be filled (``!slot``: empty), a preset (``always``, ``complete``, ``philosopher``,
                ``author``, ``architect``, ``creator``) or another registered name, or a callable ``state -> bool``.
            node_id: the pipeline; the stage as a whole when left out.
        """
        where = self.block_id if node_id is None else f"{self.block_id}/{node_id}"
        condition = check_condition(condition, where)
        if node_id is None:
            self._condition = condition
        else:
            self.configure_node(node_id, condition=condition)

    def get_state_input_spec(self) -> dict[str, Spec]:
        """For each source the stage reads, the ports it feeds."""
        spec: dict[str, Spec] = {}
        for entry in self._inputs:
            spec.setdefault(entry.name, {})[f"{entry.node_id}.{entry.port_name}"] = self._port(entry.node_id, entry.port_name, "input")
        return spec

    def get_state_output_spec(self) -> dict[str, Spec]:
        """For each slot the stage writes, the ports that feed it."""
        spec: dict[str, Spec] = {}
        entries = {entry.name: entry for entry in self._outputs}
        for slot, name in self._writes:
            entry = entries[name]
            spec.setdefault(slot, {})[f"{entry.node_id}.{entry.port_name}"] = self._port(entry.node_id, entry.port_name, "output")
        return spec

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, state: State | None = None, action: Any = None, content: Mapping[str, Any] | None = None) -> State:  # type: ignore[override]
        """The computation itself, in the grad mode and train or eval mode that the caller has set.

        Returns:
            A new State; the one given where the condition does not hold.
        """
        run = args[0] if args and isinstance(args[0], Run) else None
        given = [value for value in args if value is not run]
        state = given[0] if given else state
        if not isinstance(state, State):
            raise StateError(f"{self.block_id}: got {type(state).__name__}; expected a State, as stage(State(intent=...))")
        run = run or Run((self.block_id,))
        run.state = state
        content = run.content if content is None else content
        if unmet(self._condition, state) is not None:
            return state
        self._check_filled(state)
        outputs = super().forward(run, **self._read(state, action, content))
        return self._write(state, outputs, run, content)

    def run(  # type: ignore[override]
        self,
        state: State,
        *,
        action: Any = None,
        content: Mapping[str, Any] | None = None,
        training: bool = False,
        seed: int | None = None,
        num_loop_steps: int | None = None,
        callbacks: Iterable[Callback] = (),
        dry_run: bool | str = False,
        timeout: float | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Any:
        """Runs the stage over a State.

        Args:
            state: is never changed.
            action: the user's action, for ports mapped to it.
            content: the world's content, for ports mapped to it.
            training, seed, num_loop_steps, callbacks, dry_run, timeout, cancelled: as in :meth:`Composite.run`.

        Returns:
            A new State. If the condition fails the stage is skipped, callbacks are told, and the state passes unchanged.
        """
        if not isinstance(state, State):
            raise StateError(f"{self.block_id}: got {type(state).__name__}; expected a State, as stage.run(State(intent=...))")
        run = new_run(self.block_id, seed, callbacks, num_loop_steps, timeout, cancelled)
        run.content, run.state = content, state
        if dry_run:
            return dry_run_of(self, self._read(state, action, content), run, fake=dry_run == "fake")
        if (reason := unmet(self._condition, state)) is not None:
            run.emit("skip", None, self.level, reason=reason)
            return state
        with torch.set_grad_enabled(training), mode_for_run(self, training):
            return self(run, state, action=action, content=content)

    def why_skipped(self, state: State) -> str | None:
        """Why the stage would be skipped for this state, or None."""
        return unmet(self._condition, state)

    def skip_reason(self, node: Node, run: Run | None) -> str | None:
        if node.condition is None or run is None or run.state is None:
            return None
        return unmet(node.condition, run.state)

    # --- config -------------------------------------------------------------------------------------------------------

    def own_config(self) -> dict[str, Any]:
        config = {"role": self.role, "edges": super().own_config()["edges"], "state_contract": self.state_contract}
        if self._condition is not None:
            if callable(self._condition):
                raise StateError(f"{self.block_id}: the condition is a bare function; register it with register_condition and name it")
            config["execution_condition"] = self._condition
        return config

    def apply_config(self, config: Mapping[str, Any]) -> None:
        super().apply_config(config)
        self.role = config.get("role", self.block_id)
        if "state_contract" in config:
            contract = config["state_contract"]
            options = {name: contract[name] for name in ("mapping_input", "mapping_output", "merge", "new_state") if name in contract}
            self.set_state_contract(contract.get("inputs", []), contract.get("outputs", []), **options)
        self.set_execution_condition(config.get("execution_condition"))

    # --- private steps ------------------------------------------------------------------------------------------------

    def _read(self, state: State, action: Any, content: Mapping[str, Any] | None) -> dict[str, Any]:
        """Values by exposed input; a source that holds nothing is left out."""
        values = {}
        for name in dict.fromkeys(entry.name for entry in self._inputs):
            root, *fields = name.split(".")
            outside = {"action": action, "content": content}
            value = outside[root] if root in outside else state[root]
            value = look_up(value, fields, f"{self.block_id}: {name}")
            if holds_something(value):
                values[name] = value
        return values

    def _write(self, state: State, outputs: Mapping[str, Any], run: Run, content: Mapping[str, Any] | None) -> State:
        before = State(schema=state.schema) if self._contract.get("new_state") else state
        written: dict[str, Any] = {}
        fresh: dict[str, Any] = {}
        for slot, name in self._writes:
            if name in outputs:
                rule = MergeRegistry.get(self._contract["merge"].get(slot, "replace"))
                start = before[slot] if slot in before else None
                fresh[slot] = rule(fresh.get(slot, start), outputs[name])
        for slot, value in fresh.items():
            root, *fields = slot.split(".")
            target = written.get(root, content if root == "content" else before[root])
            written[root] = _with_field(target, fields, value)
        if "content" in written:
            run.content = written.pop("content")
        return before.replace(**written)

    def _check_filled(self, state: State) -> None:
        empty = [slot for slot in self._contract["inputs"] if slot not in OUTSIDE and slot not in state.filled]
        if empty and self._condition is None:
            raise StateError(f"{self.block_id}: its contract needs {empty} filled; the state has {list(state.filled)}. Fill them, or set an execution condition.")

    def _matching_inputs(self, inputs: Sequence[str]) -> dict[str, str]:
        free = self._open_inputs()
        reads: dict[str, str] = {}
        for source in [*inputs, *OUTSIDE]:
            found = [port for port in free if port.split(".")[1] == source]
            if len(found) > 1:
                raise StateError(f"{self.block_id}: {source!r} matches several ports, {found}; say which in mapping_input")
            reads |= dict.fromkeys(found, source)
        if len(free) == 1 and len(inputs) == 1 and not reads:
            reads[free[0]] = inputs[0]
        return reads

    def _matching_outputs(self, outputs: Sequence[str]) -> dict[str, str]:
        read = {(edge.source_node, edge.source_port) for edge in self._edges}
        loose = [f"{node_id}.{port}" for node_id, child in self.nodes.items() for port in child.get_output_spec() if (node_id, port) not in read]
        writes: dict[str, str] = {}
        for slot in outputs:
            found = [port for port in loose if port.split(".")[1] == slot]
            if not found and len(loose) == 1 and len(outputs) == 1:
                found = loose
            if len(found) != 1:
                reason = f"matches several ports, {found}" if found else f"matches no port; there are {loose}"
                raise StateError(f"{self.block_id}: output slot {slot!r} {reason}; say which in mapping_output")
            writes[slot] = found[0]
        return writes

    def _open_inputs(self) -> list[str]:
        fed = {(edge.target_node, edge.target_port) for edge in self._edges}
        return [f"{node_id}.{port}" for node_id, child in self.nodes.items() for port in child.get_input_spec() if (node_id, port) not in fed]

    def _check_contract(
        self,
        inputs: Sequence[str],
        outputs: Sequence[str],
        reads: Mapping[str, str],
        writes: Mapping[str, Sequence[str]],
        merge: Mapping[str, str],
    ) -> None:
        for port in [*reads, *(port for ports in writes.values() for port in ports)]:
            if port.count(".") != 1:
                raise StateError(f"{self.block_id}: port {port!r} in the mapping; expected 'node.port'")
        for slot, ports in writes.items():
            if len(ports) > 1 and slot not in merge:
                raise StateError(f"{self.block_id}: {list(ports)} all write {slot!r} and no rule says how; add merge={{{slot!r}: 'append'}} or 'replace'")
        for slot, rule in merge.items():
            if rule not in MergeRegistry:
                raise StateError(f"{self.block_id}: unknown merge rule {rule!r} for {slot!r}; {suggest(rule, MergeRegistry.names())}")
        roots = {slot.split(".")[0] for slot in writes}
        for slot in outputs:
            if slot not in roots:
                raise StateError(f"{self.block_id}: output slot {slot!r} is fed by no port; add it to mapping_output")
        for slot in inputs:
            if slot in OUTSIDE:
                raise StateError(f"{self.block_id}: {slot!r} is no slot; map a port to it in mapping_input and leave it out of inputs")

    def _findings(self) -> tuple[list[Finding], list[Finding]]:
        errors, warnings = super()._findings()
        if not self._writes and self.nodes:
            errors = [found for found in errors if "no output is exposed" not in found.found]
            errors.append(Finding(self.block_id, "no state contract: nothing is written to any slot", mend="Call set_state_contract(inputs=..., outputs=...)."))
        return errors, warnings

    def slot_findings(self, schema: Sequence[str] = CANONICAL_SLOTS) -> list[Finding]:
        """Slots that the contract or the conditions name and the schema does not have."""
        names = {entry.name for entry in self._inputs} | {slot for slot, _ in self._writes} | set(self._contract["inputs"]) | set(self._contract["outputs"])
        roots = sorted({name.split(".")[0] for name in names} - set(OUTSIDE) - set(schema))
        findings = [Finding(f"{self.block_id}: state contract", f"slot {root!r} is not in the schema", f"one of {list(schema)}") for root in roots]
        findings += slot_findings(self._condition, schema, self.block_id)
        for node_id, node in self._places.items():
            findings += slot_findings(node.condition, schema, f"{self.block_id}/{node_id}")
        return findings


def _with_field(target: Any, fields: Sequence[str], value: Any) -> Any:
    """A copy of a mapping with one field, however deep, changed; the value itself when there are no fields."""
    if not fields:
        return value
    base = dict(target) if isinstance(target, Mapping) else {}
    base[fields[0]] = _with_field(base.get(fields[0]), fields[1:], value)
    return base


LevelRegistry.register("stage", Stage)
