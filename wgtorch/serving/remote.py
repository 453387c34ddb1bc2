"""Nodes that stand for what runs at another endpoint: one class for each level that a node may hold.

A remote child has the ports of what it stands for and no weights. Edges are checked against its contract, and a run gives
what it would give with the child here: the path of the place, the seed, and the turns of the loops around it go along.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.block import Block
from wgtorch.core.edge_index import ExposedPorts
from wgtorch.core.errors import (
    ConfigError,
    EndpointError,
    UnknownNameError,
    suggest,
)
from wgtorch.core.port import Port
from wgtorch.core.registry import RemoteRegistry
from wgtorch.core.run.active_call import active_call
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.rng import Rng
from wgtorch.core.structure import Exposed, Node
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.serving.contracts import check_contract, port_from, spec_from
from wgtorch.serving.endpoint import Endpoint
from wgtorch.serving.remote_node import RemoteLevel, RemoteNode, place_of
from wgtorch.stage import Stage
from wgtorch.world_runtime.conditions import check_condition
from wgtorch.world_runtime.contract import StateContract
from wgtorch.world_runtime.state import State

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
    contract = check_contract(contract, f"{endpoint.url}: contract", child_class.level)
    remote_class = _CLASSES.get(contract["level"])
    if remote_class is None or not issubclass(remote_class, child_class):
        raise ConfigError(f"{endpoint.url}: serves a {contract['level']}; a {child_class.__name__} is needed here")
    return remote_class(endpoint, contract)


class RemoteBlock(RemoteNode, Block):
    """A block that runs at another endpoint."""

    _takes_config = False
    uses_global_rng = False

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
        if (outer := active_call()) is not None:
            where = outer.where()
            message |= place_of(where.split("/"), None if rng is None else rng.key, outer.run.iterations, () if rng is None else rng.sample)
        return self._outputs_of(self._ask(message, inputs, None, where), where)


class RemoteGraph(RemoteLevel, Graph):
    """A graph that runs at another endpoint."""

    def __init__(self, endpoint: Endpoint, contract: dict[str, Any]) -> None:
        Graph.__init__(self, contract.get("id"))
        self._stand_for(endpoint, contract)


class RemotePipeline(RemoteLevel, Pipeline):
    """A pipeline that runs at another endpoint."""

    def __init__(self, endpoint: Endpoint, contract: dict[str, Any]) -> None:
        Pipeline.__init__(self, contract.get("id"))
        self._stand_for(endpoint, contract)


class RemoteStage(RemoteLevel, Stage):  # type: ignore[misc]
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
                self._node_specs[node_id] = Node(node_id, map=tuple(place["map"]), condition=check_condition(place["condition"], where))
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
        self._inputs = ExposedPorts(_exposed(port, source) for port, source in self._contract.reads.items())
        self._outputs = ExposedPorts(
            _exposed(port, self._contract.written_as(slot, port)) for slot, ports in writes.items() for port in ports
        )

    forward = Stage.forward  # type: ignore[assignment]

    def step(self, state: State, action: Any, content: Mapping[str, Any] | None, run: RunContext) -> tuple[State, Mapping[str, Any] | None]:
        """Calls the endpoint."""
        self._check_filled(state)
        where = "/".join(run.path) or self.block_id
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
        return state.replace(**changed), content if after is None else after

    def _port(self, node_id: str, port_name: str, direction: str) -> Port:
        ports = self._ports_there[direction]
        if f"{node_id}.{port_name}" not in ports:
            raise UnknownNameError(f"{self.block_id}: no {direction} {node_id}.{port_name}; {suggest(f'{node_id}.{port_name}', ports)}")
        return ports[f"{node_id}.{port_name}"]


_CLASSES: dict[str, type[Any]] = {"block": RemoteBlock, "graph": RemoteGraph, "pipeline": RemotePipeline, "stage": RemoteStage}


def _exposed(port: str, name: str) -> Exposed:
    node_id, port_name = port.split(".")
    return Exposed(node_id, port_name, name)


RemoteRegistry.register("http", remote_child)
