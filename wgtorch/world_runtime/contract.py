"""A stage's contract over the State: which slots it reads and writes, and through which ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from wgtorch.core.config.schema import TEXT, TEXTS, closed, one_of
from wgtorch.core.errors import Finding, StateError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.registry import Registry
from wgtorch.world_runtime.state import State, copied, holds_something, look_up

OUTSIDE = ("action", "content")
"""Sources beside the slots: the user's action and the world's content. A stage may also write ``content``."""

CONTRACT_SCHEMA = closed(
    {
        "inputs": TEXTS,
        "outputs": TEXTS,
        "mapping_input": {"type": "object", "additionalProperties": TEXT},
        "mapping_output": {"type": "object", "additionalProperties": one_of(TEXT, TEXTS)},
        "merge": {"type": "object", "additionalProperties": TEXT},
        "new_state": {"type": "boolean"},
    }
)
"""The JSON Schema of :meth:`StateContract.to_config`."""

MergeRegistry: Registry[Callable[[Any, Any], Any]] = Registry("merge rule", group="wgtorch.merges")
MergeRegistry.register("replace", lambda before, value: value)
MergeRegistry.register("append", lambda before, value: [*(before or []), *(value if isinstance(value, (list, tuple)) else [value])])


def register_merge(name: str) -> Callable[[Callable[[Any, Any], Any]], Callable[[Any, Any], Any]]:
    """Decorator: names a rule ``(before, value) -> after`` by which several writers of one slot are merged."""
    return partial(MergeRegistry.register, name)


@dataclass(frozen=True, slots=True)
class StateContract:
    """Which slots a stage reads and writes, and through which ports.

    Args:
        inputs: slots that must be filled before.
        outputs: slots that are filled after.
        reads: source (slot, ``recipe.prompt``, ``action``, ``content.style``) by ``node.port``.
        writes: ports ``node.port`` by slot, by field of a slot, or by ``content``.
        merge: name of a merge rule by slot.
        new_state: start from an empty State instead of the one given.
        sources: each source that is read, as (source, slot or ``action`` or ``content``, fields inside of it).
        writes_content: the world's content is among what is written.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    reads: Mapping[str, str] = field(default_factory=dict)
    writes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    merge: Mapping[str, str] = field(default_factory=dict)
    new_state: bool = False
    sources: tuple[tuple[str, str, list[str]], ...] = field(init=False, repr=False, compare=False)
    writes_content: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        split = [(source, *source.split(".")) for source in dict.fromkeys(self.reads.values())]
        object.__setattr__(self, "sources", tuple([(source, root, fields) for source, root, *fields in split]))
        object.__setattr__(self, "writes_content", "content" in map(_root, self.writes))

    def to_config(self) -> dict[str, Any]:
        """The contract as arguments of :meth:`wgtorch.stage.Stage.set_state_contract`."""
        return {
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "mapping_input": dict(self.reads),
            "mapping_output": {slot: ports[0] if len(ports) == 1 else list(ports) for slot, ports in self.writes.items()},
            "merge": dict(self.merge),
            "new_state": self.new_state,
        }

    def check(self, where: str) -> StateContract:
        """Returns the contract, or says what is wrong with it.

        Raises:
            StateError: a malformed port, a slot with several writers and no rule, an unknown rule, an output slot that
                nothing feeds, or ``action`` or ``content`` among the slots that are read.
        """
        for port in [*self.reads, *(port for ports in self.writes.values() for port in ports)]:
            if port.count(".") != 1:
                raise StateError(f"{where}: port {port!r} in the mapping; expected 'node.port'")
        for slot, ports in self.writes.items():
            if len(ports) > 1 and slot not in self.merge:
                raise StateError(
                    f"{where}: {list(ports)} all write {slot!r} and no rule says how; add merge={{{slot!r}: 'append'}} or 'replace'"
                )
        for slot, rule in self.merge.items():
            if rule not in MergeRegistry:
                raise StateError(f"{where}: unknown merge rule {rule!r} for {slot!r}; {suggest(rule, MergeRegistry.names())}")
        for slot in self.outputs:
            if slot not in {_root(written) for written in self.writes}:
                raise StateError(f"{where}: output slot {slot!r} is fed by no port; add it to mapping_output")
        for slot in self.inputs:
            if slot in OUTSIDE:
                raise StateError(f"{where}: {slot!r} is no slot; map a port to it in mapping_input and leave it out of inputs")
        return self

    def written_as(self, slot: str, port: str) -> str:
        """The name under which the port that writes a slot is exposed."""
        return slot if len(self.writes[slot]) == 1 else f"{slot} from {port}"

    def read(self, state: State, action: Any, content: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
        """Values by source, lists and dicts copied, so that no block holds the State's own; none that holds nothing."""
        values = {}
        outside = {"action": action, "content": content}
        for source, root, fields in self.sources:
            value = outside[root] if root in outside else state[root]
            if fields:
                value = look_up(value, fields, f"{where}: {source}")
            if holds_something(value):
                values[source] = value if root in outside else copied(value)
        return values

    def write(self, state: State, outputs: Mapping[str, Any], content: Mapping[str, Any] | None) -> tuple[State, Mapping[str, Any] | None]:
        """The State and the content after; what a skipped pipeline did not give stays as it was.

        Raises:
            StateError: what was written as the content is no mapping.
        """
        before = State(schema=state.schema) if self.new_state else state
        roots: dict[str, Any] = {}
        for slot, ports in self.writes.items():
            if len(ports) == 1 and slot not in self.merge and "." not in slot:
                if slot in outputs:
                    roots[slot] = outputs[slot]
                continue
            names = [name for name in [self.written_as(slot, port) for port in ports] if name in outputs]
            if not names:
                continue
            root, *fields = slot.split(".")
            whole = roots.get(root, content if root == "content" else before[root])
            rule = MergeRegistry.get(self.merge.get(slot, "replace"))
            value = look_up(whole, fields, slot) if isinstance(whole, Mapping) or not fields else None
            for name in names:
                value = rule(value, outputs[name])
            roots[root] = _with_field(whole, fields, value)
        if "content" in roots:
            written = roots.pop("content")
            if not isinstance(written, Mapping):
                raise StateError(f"{list(self.writes['content'])} wrote {describe(written)} as the content; expected a mapping")
            content = dict(written)  # one of its own, by which the world sees that it was written
        return before.replace(**roots), content

    def slot_findings(self, schema: Sequence[str], where: str) -> list[Finding]:
        """Slots that the contract names and the schema does not have."""
        named = {_root(name) for name in (*self.inputs, *self.outputs, *self.reads.values(), *self.writes)}
        return [
            Finding(f"{where}: state contract", f"slot {name!r} is not in the schema", f"one of {list(schema)}")
            for name in sorted(named - set(OUTSIDE) - set(schema))
        ]


def matching_reads(sources: Sequence[str], ports: Sequence[str], where: str) -> dict[str, str]:
    """Joins slots, ``action`` and ``content`` to open input ports of the same name.

    Raises:
        StateError: a name matches several ports.
    """
    reads: dict[str, str] = {}
    for source in [*sources, *OUTSIDE]:
        found = [port for port in ports if port.split(".")[1] == source]
        if len(found) > 1:
            raise StateError(f"{where}: {source!r} matches several ports, {found}; say which in mapping_input")
        reads |= dict.fromkeys(found, source)
    if len(ports) == 1 and len(sources) == 1 and not reads:
        reads[ports[0]] = sources[0]
    return reads


def matching_writes(slots: Sequence[str], ports: Sequence[str], where: str) -> dict[str, tuple[str, ...]]:
    """Joins output ports that nothing reads to slots of the same name.

    Raises:
        StateError: a slot matches no port, or several.
    """
    writes: dict[str, tuple[str, ...]] = {}
    for slot in slots:
        found = [port for port in ports if port.split(".")[1] == slot]
        if not found and len(ports) == 1 and len(slots) == 1:
            found = list(ports)
        if len(found) != 1:
            reason = f"matches several ports, {found}" if found else f"matches no port; there are {list(ports)}"
            raise StateError(f"{where}: output slot {slot!r} {reason}; say which in mapping_output")
        writes[slot] = (found[0],)
    return writes


def _root(name: str) -> str:
    return name.split(".")[0]


def _with_field(target: Any, fields: Sequence[str], value: Any) -> Any:
    """A copy of a mapping with one field, however deep, changed; the value itself when there are no fields."""
    if not fields:
        return value
    base = dict(target) if isinstance(target, Mapping) else {}
    base[fields[0]] = _with_field(base.get(fields[0]), fields[1:], value)
    return base
