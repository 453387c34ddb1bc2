"""Nodes that stand for what runs at another endpoint: one class for each level that a node may hold.

A remote child has the ports of what it stands for and no weights. Edges are checked against its contract, and a run gives
what it would give with the child here: the path of the place, the seed, and the turns of the loops around it go along.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from wgtorch.conditions import check_condition, unmet
from wgtorch.contract import StateContract
from wgtorch.core.block import Block
from wgtorch.core.checking import check_inputs
from wgtorch.core.errors import (
    ConfigError,
    EndpointError,
    Finding,
    MissingInputError,
    StateError,
    StructureError,
    UnknownNameError,
    suggest,
)
from wgtorch.core.kinds import get_kind
from wgtorch.core.nodes import Nodes
from wgtorch.core.plan import Plan
from wgtorch.core.port import Port, Spec
from wgtorch.core.registry import RemoteRegistry
from wgtorch.core.rng import Rng
from wgtorch.core.run import Event, Run
from wgtorch.core.signature import copy_plain
from wgtorch.core.structure import Exposed, Node
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.serving.borders import end_gradients
from wgtorch.serving.contracts import check_contract, port_from, spec_from
from wgtorch.serving.endpoint import Endpoint
from wgtorch.stage import Stage
from wgtorch.state import State

_OPTIONS = ("contract", "api_key_env", "timeout", "retries")


def remote_child(config: Mapping[str, Any], child_class: type[Any]) -> Any:
    """The remote child that a node's ``{"endpoint_url": ..., "endpoint": {...}}`` describes.

    Args:
        config: the URL; under ``endpoint`` its ``contract`` (else it is fetched now), ``api_key_env``, ``timeout`` and ``retries``.
        child_class: what may stand at the node.

    Raises:
        ConfigError: the entry is not valid, or the endpoint serves another level.
        EndpointError: the contract is to be fetched, and nobody answers.
    """
    options = dict(config.get("endpoint") or {})
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise ConfigError(f"endpoint {config['endpoint_url']}: unknown option {unknown[0]!r}; {suggest(unknown[0], _OPTIONS)}")
    contract = options.pop("contract", None)
    endpoint = Endpoint(config["endpoint_url"], **options)
    contract = endpoint.contract() if contract is None else contract
    contract = check_contract(contract, f"{endpoint.url}: contract", getattr(child_class, "level", "block"))
    remote_class = _CLASSES.get(contract["level"])
    if remote_class is None or not issubclass(remote_class, child_class):
        raise ConfigError(f"{endpoint.url}: serves a {contract['level']}; a {child_class.__name__} is needed here")
    return remote_class(endpoint, contract)


class _Elsewhere:
    """What remote children of all levels have in common."""

    waits: bool = True
    remote: ClassVar[bool] = True
    endpoint: Endpoint
    contract: dict[str, Any]

    def _stand_for(self, endpoint: Endpoint, contract: dict[str, Any]) -> None:
        self.endpoint = endpoint
        self.contract = contract
        self.role = contract.get("role", "")
        self.batched = bool(contract.get("batched", False))
        if "num_loop_steps" in contract:
            self.num_loop_steps = contract["num_loop_steps"]

    def to_config(self) -> dict[str, Any]:
        """``{"endpoint_url": ..., "endpoint": {...}}``, the contract among it, so that building again asks nobody."""
        return {"endpoint_url": self.endpoint.written, "endpoint": {"contract": copy_plain(self.contract), **self.endpoint.to_config()}}

    def saved_config(self) -> dict[str, Any]:
        """The same as :meth:`to_config`."""
        return self.to_config()

    def extra_repr(self) -> str:
        return f"{self.contract.get('id', '')!r} at {self.endpoint.url}"

    def dry(self, **inputs: Any) -> dict[str, Any]:
        """Stand-ins for what the endpoint would give, as far as its contract tells."""
        return {name: _stand_in(port, f"{self.contract.get('id')}.{name}") for name, port in self._outputs_there().items()}

    def _outputs_there(self) -> Spec:
        return spec_from(self.contract["outputs"], "out")

    def _ask(self, message: dict[str, Any], given: Any, run: Run | None, where: str) -> dict[str, Any]:
        """Sends a message for a place in a run, tells its callbacks, and gives the answer with tensors where those given are."""
        tell = None
        left = None
        if run is not None:
            left = None if run.deadline is None else run.deadline - time.monotonic()
            tell = partial(_tell, run) if run.callbacks else None
            message |= _place(run.path, run.seed, run.turns, run.sample)
            message |= {} if run.num_loop_steps is None else {"num_loop_steps": run.num_loop_steps}
            message |= {} if left is None else {"timeout": max(left, 0.001)}
        if "digest" in self.contract:
            message["contract"] = self.contract["digest"]
        answer = self.endpoint.call(message, where, tell=tell, timeout=left)
        device = next((value.device for value in tree_flatten(given)[0] if isinstance(value, Tensor)), None)
        if device is not None and device.type != "cpu":
            answer = tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, answer)
        return end_gradients(given, answer, f"{where} at {self.endpoint.url}")

    def _outputs_of(self, answer: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Values by output.

        Raises:
            EndpointError: they are not those of the contract.
        """
        found, spec = answer.get("outputs"), self._outputs_there()
        if not isinstance(found, dict):
            raise EndpointError(f"{where}: {self.endpoint.url} gave no outputs; its contract says {list(spec)}")
        wrong = [f"{name} is not in its contract" for name in found if name not in spec]
        wrong += [f"{name} is missing" for name, port in spec.items() if name not in found and not port.optional]
        wrong += [f"{name} is no {spec[name].dtype}" for name, value in found.items() if name in spec and not _is_of(value, spec[name])]
        if wrong:
            raise EndpointError(f"{where}: {self.endpoint.url} broke its contract: {'; '.join(wrong)}")
        return found


class RemoteBlock(_Elsewhere, Block):
    """A block that runs at another endpoint."""

    _takes_config = False
    draws = False

    def __init__(self, endpoint: Endpoint, contract: dict[str, Any]) -> None:
        Block.__init__(self)
        self._stand_for(endpoint, contract)
        self._block_id = contract.get("id")
        self.inputs = spec_from(contract["inputs"], "in")
        self.outputs = spec_from(contract["outputs"], "out")

    def forward(self, rng: Rng | None = None, **inputs: Any) -> dict[str, Any]:
        """Calls the endpoint; draws there are keyed by the place here."""
        message: dict[str, Any] = {"inputs": inputs}
        where = self.block_id
        if rng is not None and rng.keyed:
            seed, path, turns = rng.key
            where = str(path)
            message |= _place(where.split("/"), seed, turns, rng.sample)
        return self._outputs_of(self._ask(message, inputs, None, where), where)


class _ElsewhereLevel(_Elsewhere):
    """A level whose nodes are at another endpoint: it shows their ports, and none of them."""

    block_id: str
    metadata: dict[str, Any]

    def _stand_for(self, endpoint: Endpoint, contract: dict[str, Any]) -> None:
        super()._stand_for(endpoint, contract)
        self._modules["nodes"] = _NoNodes(endpoint.url)  # type: ignore[attr-defined]

    def add_child(self, child: Any, node_id: str | None = None, **place: Any) -> str:
        """Refused: what is at another endpoint is built there.

        Raises:
            StructureError: always.
        """
        raise StructureError(f"{self.block_id}: runs at {self.endpoint.url}; nodes are added there")

    def forward(self, *args: Any, **inputs: Any) -> dict[str, Any]:
        """Calls the endpoint."""
        run, inputs = self._positional(args, dict(inputs)) if args else (None, inputs)  # type: ignore[attr-defined]
        where = self.block_id if run is None else "/".join(run.path)
        inner = [] if run is None else [f"{'/'.join(path)}.{port}" for path, port in (*run.feeds, *(run.wanted or ())) if path]
        if inner:
            raise UnknownNameError(f"{where}: {inner} lie inside {self.endpoint.url}, which shows {list(self._outputs_there())}")
        check_inputs(inputs, self._specs_there()[0], where)
        return self._outputs_of(self._ask({"inputs": inputs}, inputs, run, where), where)

    def plan_for(self, run: Run) -> Plan:
        """What must be given; the walk itself is at the endpoint."""
        return self._current_plan()

    def _current_plan(self) -> Plan:
        inputs = enumerate(self._specs_there()[0].items())
        needed = tuple((name, slot, not port.optional) for slot, (name, port) in inputs)
        return Plan(size=len(needed), inputs=needed, feeds=(), outputs=(), steps=(), waits=True)

    def _own_specs(self) -> tuple[Spec, Spec]:
        return self._specs_there()

    def _specs_there(self) -> tuple[Spec, Spec]:
        return spec_from(self.contract["inputs"], "in"), spec_from(self.contract["outputs"], "out")

    def _findings(self) -> tuple[list[Finding], list[Finding]]:
        return [], []  # whoever serves it has validated it


class RemoteGraph(_ElsewhereLevel, Graph):
    """A graph that runs at another endpoint."""

    def __init__(self, endpoint: Endpoint, contract: dict[str, Any]) -> None:
        Graph.__init__(self, contract.get("id"))
        self._stand_for(endpoint, contract)


class RemotePipeline(_ElsewhereLevel, Pipeline):
    """A pipeline that runs at another endpoint."""

    def __init__(self, endpoint: Endpoint, contract: dict[str, Any]) -> None:
        Pipeline.__init__(self, contract.get("id"))
        self._stand_for(endpoint, contract)


class RemoteStage(_ElsewhereLevel, Stage):
    """A stage that runs at another endpoint. Its condition is looked at here, so that a stage that is skipped costs no call."""

    def __init__(self, endpoint: Endpoint, contract: dict[str, Any]) -> None:
        Stage.__init__(self, contract.get("id"))
        self._stand_for(endpoint, contract)
        where, stage = f"{endpoint.url}: contract", contract["stage"]
        try:
            self.role = stage["role"]
            self._ports_there = {
                way: {name: port_from(port).named(name.split(".")[1], "in" if way == "input" else "out") for name, port in ports.items()}
                for way, ports in stage["ports"].items()
            }
            for node_id, place in stage["nodes"].items():
                self._places[node_id] = Node(node_id, map=tuple(place["map"]), condition=check_condition(place["condition"], where))
            self._condition = check_condition(stage["execution_condition"], where)
            self._take_over(stage["state_contract"])
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ConfigError(f"{where}.stage: cannot be read: {error!r}; expected what GET /spec of a stage gives") from error

    def _take_over(self, config: Mapping[str, Any]) -> None:
        """The stage's contract over the State, joined to the ports over there."""
        writes = {slot: (ports,) if isinstance(ports, str) else tuple(ports) for slot, ports in config["mapping_output"].items()}
        self._contract = StateContract(
            tuple(config["inputs"]), tuple(config["outputs"]), config["mapping_input"], writes, config["merge"], config["new_state"]
        ).check(self.block_id)
        for direction, ports in (("input", self._contract.reads), ("output", [port for written in writes.values() for port in written])):
            for port in ports:
                self._port_at(port, direction)
        self._inputs = [_exposed(port, source) for port, source in self._contract.reads.items()]
        self._outputs = [_exposed(port, self._contract.written_as(slot, port)) for slot, ports in writes.items() for port in ports]

    def forward(self, *args: Any, state: State | None = None, action: Any = None, content: Mapping[str, Any] | None = None) -> State:  # type: ignore[override]
        """Calls the endpoint, unless the condition does not hold."""
        run = args[0] if args and isinstance(args[0], Run) else None
        given = [value for value in args if value is not run]
        state = given[0] if given else state
        if not isinstance(state, State):
            raise StateError(f"{self.block_id}: got {type(state).__name__}; expected a State, as stage(State(intent=...))")
        content = run.content if run is not None and content is None else content
        if unmet(self._condition, state) is not None:
            return state
        self._check_filled(state)
        where = self.block_id if run is None else "/".join(run.path)
        slots = {slot: state[slot] for slot in state.schema if state[slot] is not None}
        message: dict[str, Any] = {"state": slots, "state_schema": list(state.schema)}
        sources = {source.split(".")[0] for source in (*self._contract.reads.values(), *self._contract.writes)}
        message |= {"action": action} if "action" in sources and action is not None else {}
        message |= {"content": content} if "content" in sources and content is not None else {}
        answer = self._ask(message, [slots, message.get("action"), dict(message.get("content", {}))], run, where)
        changed, after = answer.get("state"), answer.get("content")
        writable = {slot.split(".")[0] for slot in self._contract.writes}
        writable |= set(state.schema) if self._contract.new_state else set()
        if not isinstance(changed, dict) or not set(changed) <= writable or (after is not None and "content" not in writable):
            raise EndpointError(f"{where}: {self.endpoint.url} broke its contract: wrote other slots than {sorted(writable)}")
        if after is not None and run is not None:
            run.content = after
        return state.replace(**changed)

    def _port(self, node_id: str, port_name: str, direction: str) -> Port:
        ports = self._ports_there[direction]
        if f"{node_id}.{port_name}" not in ports:
            raise UnknownNameError(f"{self.block_id}: no {direction} {node_id}.{port_name}; {suggest(f'{node_id}.{port_name}', ports)}")
        return ports[f"{node_id}.{port_name}"]


class _NoNodes(Nodes):
    """Nodes that are at another endpoint."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def __getitem__(self, node_id: str) -> Any:
        raise UnknownNameError(f"there is no node {node_id!r} here: its level runs at {self.url}, which shows only its ports")


_CLASSES: dict[str, type[Any]] = {"block": RemoteBlock, "graph": RemoteGraph, "pipeline": RemotePipeline, "stage": RemoteStage}


def _place(path: Any, seed: Any, turns: Any, sample: Any) -> dict[str, Any]:
    """Which place in which run a request is made for."""
    named = {"path": list(path), "seed": seed, "turns": list(turns), "sample": list(sample)}
    return {name: value for name, value in named.items() if value not in (None, [])}


def _exposed(port: str, name: str) -> Exposed:
    node_id, port_name = port.split(".")
    return Exposed(node_id, port_name, name)


def _tell(run: Run, entry: Mapping[str, Any]) -> None:
    """Hands an event of the endpoint on to the callbacks here; its path is that of the place here already."""
    fields = entry.get("event")
    if isinstance(fields, Mapping):
        told: dict[str, Any] = {
            name: fields.get(name) for name in ("kind", "path", "level", "step", "total", "elapsed", "reason", "outputs")
        }
        event = Event(**told)
        for callback in run.callbacks:
            callback(event)


def _is_of(value: Any, port: Port) -> bool:
    """True for a value of the port's kind; where tensors are, nothing else will do, so that no file is looked for."""
    if value is None:
        return port.optional
    kind = get_kind(port.dtype)
    items = value if isinstance(value, (list, tuple)) else [value]
    return (not kind.is_tensor or all(isinstance(item, Tensor) for item in items)) and kind.accepts(value)


def _stand_in(port: Port, where: str) -> Any:
    if get_kind(port.dtype).is_tensor:
        if port.shape is None or any(not isinstance(size, int) for size in port.shape):
            raise MissingInputError(f"{where}: its endpoint does not say of what shape it is")
        return torch.zeros(tuple(size for size in port.shape if isinstance(size, int)))
    return {"text": "", "number": 0.0, "dict": {}, "list": []}.get(port.dtype)


RemoteRegistry.register("http", remote_child)
