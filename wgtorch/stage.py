"""Stage: a graph of pipelines with a contract over a world's State."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from operator import is_
from typing import Any, ClassVar, Literal, Unpack, overload

from wgtorch.core.block import Block
from wgtorch.core.composite import Composite
from wgtorch.core.config import schema
from wgtorch.core.config.serialization import LevelRegistry
from wgtorch.core.edge_index import ExposedPorts
from wgtorch.core.errors import Finding, PortTypeError, StateError
from wgtorch.core.kinds import describe
from wgtorch.core.port import Port, Spec
from wgtorch.core.run.context import RunContext, RunOptions
from wgtorch.core.run.dry_run import DryRun, dry_run_of
from wgtorch.core.run.events import Callback
from wgtorch.core.run.profile import profiled
from wgtorch.core.run.result_cache import keeps_results
from wgtorch.core.run.run_scope import RunScope
from wgtorch.core.run.start_run import RunKeywords, new_run, shows_options
from wgtorch.core.structure import Exposed, Node
from wgtorch.pipeline import Pipeline
from wgtorch.world_runtime.conditions import Condition, check_condition, slot_findings, unmet
from wgtorch.world_runtime.contract import CONTRACT_SCHEMA, OUTSIDE, StateContract, matching_reads, matching_writes
from wgtorch.world_runtime.state import CANONICAL_SLOTS, State, changed_at, holds_something


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
    config_properties: ClassVar[Mapping[str, Any]] = {
        **Composite.config_properties,
        "role": schema.TEXT,
        "share": schema.TEXT,
        "state_contract": CONTRACT_SCHEMA,
        "execution_condition": schema.one_of(schema.CONDITION, schema.NULL),
    }

    def __init__(self, stage_id: str | None = None, *, role: str | None = None, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(stage_id, metadata=metadata)
        self.role = role or self.block_id
        self._contract = StateContract()
        self._condition: Condition | None = None
        self._slot_ports: list[tuple[str, list[str], str, Port, bool]] | None = None

    @property
    def stage_id(self) -> str:
        """The stage's id."""
        return self.block_id

    @property
    def execution_condition(self) -> Condition | None:
        """When the stage runs; None always."""
        return self._condition

    @property
    def state_contract(self) -> StateContract:
        """Which slots the stage reads and writes, and through which ports."""
        return self._contract

    def add_pipeline(
        self, pipeline: Pipeline | Mapping[str, Any] | str | os.PathLike[str], node_id: str | None = None, **place: Any
    ) -> str:
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
        fed = {(edge.target_node, edge.target_port) for edge in self._edges}
        read = {(edge.source_node, edge.source_port) for edge in self._edges}
        free = [
            f"{node_id}.{port}" for node_id, child in self.nodes.items() for port in child.get_input_spec() if (node_id, port) not in fed
        ]
        loose = [
            f"{node_id}.{port}" for node_id, child in self.nodes.items() for port in child.get_output_spec() if (node_id, port) not in read
        ]
        writes = {slot: (ports,) if isinstance(ports, str) else tuple(ports) for slot, ports in (mapping_output or {}).items()}
        contract = StateContract(
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            reads=dict(mapping_input) if mapping_input is not None else matching_reads(inputs, free, self.block_id),
            writes=writes if mapping_output is not None else matching_writes(outputs, loose, self.block_id),
            merge=dict(merge or {}),
            new_state=new_state,
        ).check(self.block_id)
        for port in contract.reads:
            self._port_at(port, "input")
        for port in (port for ports in contract.writes.values() for port in ports):
            self._port_at(port, "output")
        self._contract, self._inputs, self._outputs = contract, ExposedPorts(), ExposedPorts()
        self._changed()
        for port, source in contract.reads.items():
            node_id, name = port.split(".")
            self.expose_input(node_id, name, source)
        for slot, ports in contract.writes.items():
            for port in ports:
                node_id, name = port.split(".")
                self.expose_output(node_id, name, contract.written_as(slot, port))

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
        return {slot: {port: self._port_at(port, "output") for port in ports} for slot, ports in self._contract.writes.items()}

    def node_facts(self) -> list[str]:
        contract = self._contract
        reads = ", ".join(dict.fromkeys(contract.reads.values())) or "nothing"
        return [f"{reads} -> {', '.join(contract.writes) or 'nothing'}", *([f"when {self._condition}"] if self._condition else [])]

    # --- running ------------------------------------------------------------------------------------------------------

    def forward(  # type: ignore[override]
        self,
        state: State,
        *,
        action: Any = None,
        content: Mapping[str, Any] | None = None,
        run_context: RunContext | None = None,
    ) -> State:
        """The computation itself, in the grad mode and train or eval mode that the caller has set.

        Args:
            state: is never changed.
            action: the user's action, for ports mapped to it.
            content: the world's content, for ports mapped to it.
            run_context: the run that it is part of; given by the engine, and told the content after the stage.

        Returns:
            A new State; the one given where the condition does not hold.
        """
        if not isinstance(state, State):
            raise StateError(f"{self.block_id}: got {type(state).__name__}; expected a State, as stage(State(intent=...))")
        if unmet(self._condition, state) is None:
            state, content = self.step(state, action, content, run_context or RunContext(RunOptions(self.block_id)))
        if run_context is not None:
            run_context.content = content
        return state

    def step(self, state: State, action: Any, content: Mapping[str, Any] | None, run: RunContext) -> tuple[State, Mapping[str, Any] | None]:
        """The State and the content after the stage, whose condition holds."""
        run.state = state
        self._check_filled(state)
        outputs = super().forward(run_context=run, **self._contract.read(state, action, content, self.block_id))
        return self._contract.write(state, outputs, content)

    @overload  # type: ignore[override]
    def run(
        self,
        state: State,
        *,
        action: Any = None,
        content: Mapping[str, Any] | None = None,
        dry_run: Literal[False] = False,
        **options: Unpack[RunKeywords],
    ) -> State: ...

    @overload
    def run(
        self,
        state: State,
        *,
        action: Any = None,
        content: Mapping[str, Any] | None = None,
        dry_run: Literal[True, "fake"],
        **options: Unpack[RunKeywords],
    ) -> DryRun: ...

    @shows_options(RunKeywords)
    def run(
        self,
        state: State,
        *,
        action: Any = None,
        content: Mapping[str, Any] | None = None,
        dry_run: bool | str = False,
        **options: Any,
    ) -> Any:
        """Runs the stage over a State.

        Args:
            state: is never changed.
            action: the user's action, for ports mapped to it.
            content: the world's content, for ports mapped to it.
            dry_run, options: as in :meth:`Composite.run`: ``training``, ``seed``, ``num_loop_steps``, ``callbacks``, ``timeout``,
                ``cancelled``, ``debug``, ``cache`` and ``profile``.

        Returns:
            A new State. If the condition fails the stage is skipped, callbacks are told, and the state passes unchanged.
        """
        if not isinstance(state, State):
            raise StateError(f"{self.block_id}: got {type(state).__name__}; expected a State, as stage.run(State(intent=...))")
        self._refuse_unknown(options)
        if (profile := options.pop("profile", False)) is not False:
            told = options.pop("callbacks", None)
            run_it = partial(self.run, state, action=action, content=content, dry_run=dry_run, **options)
            return profiled(run_it, profile, told, self.block_id)
        self._check_content(content)
        run = new_run(self.block_id, dry_run=dry_run, **options)
        self._check_loop_steps(run.num_loop_steps)
        run.state = state
        if run.options.pause is not None:
            run.options.pause.arguments = {"state": state, "action": action, "content": content}
        if dry_run:
            values = self._contract.read(state, action, content, self.block_id)
            return dry_run_of(self, values, run, fake=dry_run == "fake", forward=super().forward)
        if (reason := unmet(self._condition, state)) is not None:
            run.emit("skip", None, self.level, reason=reason)
            return state
        state = self.normalised(state, strict=True)
        with RunScope(self, run, options.get("training")), keeps_results(self, run):
            after: State = self(state, action=action, content=content, run_context=run)
            run.check_end()
        return after

    def check_options(self, options: Mapping[str, Any], method: str) -> tuple[Callback, ...] | None:
        self._check_content(options.get("content"))
        return super().check_options(options, method)

    def normalised(self, state: State, *, strict: bool = False) -> State:
        """The State with values in the form that the ports see: a picture from a file or of PIL as a tensor.

        Raises:
            PortTypeError: strict, and a slot holds something else than the port that reads it takes.
        """
        values, changed = state.as_dict(), {}
        for root, fields, source, port, is_mapped in self._ports_of_slots():
            before = values.get(root)
            if before is not None:
                own = partial(self._normalised, source, port, is_mapped, strict)
                value = changed_at(before, fields, own) if fields else own(before)
                if value is not before:
                    values[root] = changed[root] = value
        return state.replace(**changed) if changed else state

    def why_skipped(self, state: State) -> str | None:
        """Why the stage would be skipped for this state, or None."""
        return unmet(self._condition, state)

    def _node_condition(self, condition: Any, where: str) -> Any:
        return check_condition(condition, where)

    def skip_reason(self, node: Node, run: RunContext | None) -> str | None:
        if node.condition is None or run is None or run.state is None:
            return None
        return unmet(node.condition, run.state)

    # --- config -------------------------------------------------------------------------------------------------------

    def own_config(self) -> dict[str, Any]:
        config = {"role": self.role, "edges": super().own_config()["edges"]}
        if self._contract != StateContract():
            config["state_contract"] = self._contract.to_config()
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

    def _check_content(self, content: Any) -> None:
        if content is not None and not isinstance(content, Mapping):
            raise PortTypeError(f"{self.block_id}: content is {describe(content)}; expected a mapping by field, or None")

    def _invalidate_plan(self) -> None:
        super()._invalidate_plan()
        self.__dict__.update(_slot_ports=None)

    def _ports_of_slots(self) -> list[tuple[str, list[str], str, Port, bool]]:
        """Of every port that reads a slot: the slot, the fields inside of it, both as one, the port, and whether it takes a list item by
        item."""
        self.refresh_below()
        found = self._slot_ports
        if found is None:
            found = []
            for entry in self._inputs:
                root, *fields = entry.name.split(".")
                if root not in OUTSIDE:
                    port = self._port(entry.node_id, entry.port_name, "input")
                    found.append((root, fields, entry.name, port, self._is_mapped(entry)))
            self._slot_ports = found
        return found

    def _is_mapped(self, entry: Exposed) -> bool:
        return entry.port_name in self._node_specs[entry.node_id].map

    def _normalised(self, source: str, port: Port, is_mapped: bool, strict: bool, value: Any) -> Any:
        if not holds_something(value) or (is_mapped and not isinstance(value, (list, tuple))):
            return value
        where = f"{self.block_id}: {source}"
        try:
            if not is_mapped:
                return port.check(value, where)
            checked = [port.check(item, where) for item in value]
        except PortTypeError:
            if strict:
                raise
            return value
        return value if all(map(is_, checked, value)) else checked

    def ports_of(self, source: str) -> list[Port]:
        """The ports that read ``action``, ``content``, a slot, or a field of one, as a whole and not item by item."""
        return [
            self._port(entry.node_id, entry.port_name, "input")
            for entry in self.exposed_inputs
            if entry.name == source and not self._is_mapped(entry)
        ]

    def _port_at(self, port: str, direction: str) -> Port:
        node_id, name = port.split(".")
        return self._port(node_id, name, direction)

    def _check_filled(self, state: State) -> None:
        values = state.as_dict()
        empty = [slot for slot in self._contract.inputs if not holds_something(values.get(slot))]
        if empty and self._condition is None:
            raise StateError(
                f"{self.block_id}: its contract needs {empty} filled; the state has {list(state.filled)}. "
                "Fill them, or set an execution condition."
            )

    def _findings(self) -> tuple[list[Finding], list[Finding]]:
        errors, warnings = super()._findings()
        if not self._contract.writes and self.nodes:
            errors = [found for found in errors if "no output is exposed" not in found.found]
            errors.append(
                Finding(
                    self.block_id,
                    "no state contract: nothing is written to any slot",
                    mend="Call set_state_contract(inputs=..., outputs=...).",
                )
            )
        return errors, warnings

    def slot_findings(self, schema: Sequence[str] = CANONICAL_SLOTS) -> list[Finding]:
        """Slots that the contract or the conditions name and the schema does not have."""
        findings = self._contract.slot_findings(schema, self.block_id)
        findings += slot_findings(self._condition, schema, self.block_id)
        for node_id, node in self._node_specs.items():
            findings += slot_findings(node.condition, schema, f"{self.block_id}/{node_id}")
        return findings


LevelRegistry.register("stage", Stage)
