"""What children that run at another endpoint have in common: how they ask it, and how they take its answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from wgtorch.core.errors import EndpointError, Finding, MissingInputError, StructureError, UnknownNameError
from wgtorch.core.kinds import get_kind
from wgtorch.core.nodes import Nodes
from wgtorch.core.plan import Plan
from wgtorch.core.port import Port, Spec
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.events import Event
from wgtorch.core.run.loop_steps import as_plain
from wgtorch.core.run.port_checks import check_inputs
from wgtorch.core.run.rng import Key
from wgtorch.core.run.run_values import by_position
from wgtorch.core.signature import copy_plain
from wgtorch.serving.contracts import spec_from
from wgtorch.serving.endpoint import Endpoint
from wgtorch.serving.gradient_barrier import end_gradients


class RemoteNode:
    """What remote children of all levels have in common."""

    is_async: bool = True
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

    def _ask(self, message: dict[str, Any], given: Any, run: RunContext | None, where: str) -> dict[str, Any]:
        """Sends a message for a place in a run, tells its callbacks, and gives the answer with tensors where those given are."""
        tell = None
        left = None
        if run is not None:
            deadline = run.options.deadline
            left = None if deadline is None else deadline - time.monotonic()
            tell = partial(_tell, run) if run.options.callbacks else None
            message |= place_of(run.path, run.key, run.iterations, run.sample)
            message |= {} if run.num_loop_steps is None else {"num_loop_steps": as_plain(run.num_loop_steps)}
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


class RemoteLevel(RemoteNode):
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

    def forward(self, *args: Any, run_context: RunContext | None = None, **inputs: Any) -> dict[str, Any]:
        """Calls the endpoint."""
        run = run_context
        inputs = by_position(self, args, dict(inputs)) if args else inputs  # type: ignore[attr-defined]
        where = self.block_id if run is None else "/".join(run.path)
        inner = [] if run is None else [f"{'/'.join(path)}.{port}" for path, port in (*(run.feeds or ()), *(run.wanted or ())) if path]
        if inner:
            raise UnknownNameError(f"{where}: {inner} lie inside {self.endpoint.url}, which shows {list(self._outputs_there())}")
        check_inputs(inputs, self._specs_there()[0], where)
        return self._outputs_of(self._ask({"inputs": inputs}, inputs, run, where), where)

    def plan_for(self, run: RunContext) -> Plan:
        """What must be given; the walk itself is at the endpoint."""
        return self.plan()

    def plan(self) -> Plan:
        """As :meth:`plan_for`."""
        inputs = enumerate(self._specs_there()[0].items())
        needed = tuple((name, slot, not port.optional) for slot, (name, port) in inputs)
        return Plan(size=len(needed), inputs=needed, feeds=(), outputs=(), steps=(), fast_steps=())

    def specs(self) -> tuple[Spec, Spec]:
        return self._specs_there()

    def _specs_there(self) -> tuple[Spec, Spec]:
        return spec_from(self.contract["inputs"], "in"), spec_from(self.contract["outputs"], "out")

    def _findings(self) -> tuple[list[Finding], list[Finding]]:
        return [], []  # whoever serves it has validated it


class _NoNodes(Nodes):
    """Nodes that are at another endpoint."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    def __getitem__(self, node_id: str) -> Any:
        raise UnknownNameError(f"there is no node {node_id!r} here: its level runs at {self.url}, which shows only its ports")


def place_of(path: Sequence[str], key: Key | None, iterations: Sequence[int], sample: Sequence[int]) -> dict[str, Any]:
    """Which place in which run a request is made for."""
    draws = [] if key is None else [key] if isinstance(key, int) else list(key)
    named = {"path": list(path), "draws": draws, "iterations": list(iterations), "sample": list(sample)}
    return {name: value for name, value in named.items() if value not in (None, [])}


def _tell(run: RunContext, entry: Mapping[str, Any]) -> None:
    """Hands an event of the endpoint on to the callbacks here; its path is that of the place here already."""
    fields = entry.get("event")
    if isinstance(fields, Mapping):
        told: dict[str, Any] = {
            name: fields.get(name) for name in ("kind", "path", "level", "step", "total", "elapsed", "reason", "outputs")
        }
        run.tell(Event(**told, root=run.options.root))


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
