"""The contract of a level as plain data: what ``GET /spec`` answers, and what a remote node is checked against."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from wgtorch.core.config.schema import config_error
from wgtorch.core.errors import ConfigError, Finding, StateError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.port import Port, Spec, make_spec
from wgtorch.serving.wire import FORMAT
from wgtorch.stage import Stage
from wgtorch.world import World

LEVELS = ("block", "graph", "pipeline", "stage", "world")
_KNOWN = ("format", "level", "id", "role", "inputs", "outputs", "batched", "num_loop_steps", "stage", "state_schema", "cycle", "digest")
_PORT = ("dtype", "optional", "aggregation", "shape", "description")


def contract_of(level: Any) -> dict[str, Any]:
    """What others must know of a level to call it: its ports, and of a stage its contract over the State.

    Raises:
        StateError: a stage's condition is a bare function, which nobody else could look at.
    """
    contract: dict[str, Any] = {"format": FORMAT, "level": level.level, "id": level.block_id}
    if isinstance(level, World):
        contract |= {"state_schema": list(level.state_schema), "cycle": list(level.cycle)}
    else:
        contract |= {"inputs": _ports(level.get_input_spec()), "outputs": _ports(level.get_output_spec())}
        if level.role:
            contract["role"] = level.role
        if level.batched:
            contract["batched"] = True
        if isinstance(getattr(level, "num_loop_steps", None), int):
            contract["num_loop_steps"] = level.num_loop_steps
    if isinstance(level, Stage):
        contract["stage"] = _stage(level)
    return {**contract, "digest": digest(contract)}


def digest(contract: Mapping[str, Any]) -> str:
    """Tells one contract from another."""
    plain = {name: value for name, value in contract.items() if name != "digest"}
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=12).hexdigest()


def check_contract(contract: Any, where: str, level: str) -> dict[str, Any]:
    """A contract, given by hand or fetched, with its level filled in.

    Raises:
        ConfigError: lists everything that is wrong with it.
    """
    if not isinstance(contract, Mapping):
        raise ConfigError(f"{where}: the contract is {describe(contract)}; expected a mapping with inputs and outputs")
    findings = [Finding(f"{where}.{name}", "unknown key", mend=suggest(name, _KNOWN)) for name in contract if name not in _KNOWN]
    level = contract.get("level", level)
    if level not in LEVELS:
        findings.append(Finding(f"{where}.level", describe(level), f"one of {list(LEVELS)}"))
    for direction in ("inputs", "outputs") if level != "world" else ():
        ports = contract.get(direction)
        if not isinstance(ports, Mapping):
            findings.append(
                Finding(f"{where}.{direction}", "missing" if ports is None else describe(ports), "a mapping name -> kind or port")
            )
            continue
        findings += [found for name, port in ports.items() if (found := _port_finding(port, f"{where}.{direction}.{name}"))]
    if level == "stage" and not isinstance(contract.get("stage"), Mapping):
        findings.append(Finding(f"{where}.stage", "missing", "the stage's contract over the State, as GET /spec of its endpoint gives it"))
    if findings:
        raise config_error("contract of an endpoint", findings)
    return {**contract, "level": level}


def spec_from(ports: Mapping[str, Any], direction: Literal["in", "out"]) -> Spec:
    """Ports from plain data."""
    return make_spec({name: port_from(port) for name, port in ports.items()}, direction)


def port_from(port: str | Mapping[str, Any]) -> Port:
    """One port from plain data: the name of a kind, or its fields."""
    if isinstance(port, str):
        return Port(dtype=port)
    shape = port.get("shape")
    return Port(**{**port, "shape": None if shape is None else tuple(shape)})


def port_data(port: Port) -> dict[str, Any]:
    """A port as plain data, what is as usual left out."""
    usual = Port()
    data = {name: getattr(port, name) for name in _PORT if name == "dtype" or getattr(port, name) != getattr(usual, name)}
    return {**data, "shape": list(port.shape)} if port.shape is not None else data


def _ports(spec: Spec) -> dict[str, Any]:
    return {name: port_data(port) for name, port in spec.items()}


def _stage(stage: Stage) -> dict[str, Any]:
    """The stage's contract, its conditions, and the ports of its pipelines that slots are joined to."""
    nodes: dict[str, Any] = {}
    for node_id, place in stage.node_specs.items():
        nodes[node_id] = {"map": list(place.map), "condition": place.condition}
        if callable(place.condition):
            raise StateError(
                f"{stage.block_id}/{node_id}: the condition is a bare function; register it with register_condition and name it"
            )
    config = stage.own_config()  # refuses a bare function as the stage's own condition
    contract = stage.state_contract
    writing = [port for ports in contract.writes.values() for port in ports]
    return {
        "role": stage.role,
        "state_contract": contract.to_config(),
        "execution_condition": config.get("execution_condition"),
        "nodes": nodes,
        "ports": {
            direction: {port: port_data(stage._port_at(port, direction)) for port in ports}
            for direction, ports in (("input", contract.reads), ("output", writing))
        },
    }


def _port_finding(port: Any, where: str) -> Finding | None:
    if not isinstance(port, (str, Mapping)):
        return Finding(where, describe(port), "the name of a kind, or a mapping with dtype")
    unknown = [name for name in port if name not in _PORT] if isinstance(port, Mapping) else []
    if unknown:
        return Finding(f"{where}.{unknown[0]}", "unknown key", mend=suggest(unknown[0], _PORT))
    try:
        port_from(port)
    except (ValueError, KeyError, TypeError) as error:
        return Finding(where, str(error))
    return None
