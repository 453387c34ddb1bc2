"""One call of one node, with everything that its place and the run may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from inspect import iscoroutine
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from wgtorch.core import adapter_hook
from wgtorch.core.block import Block
from wgtorch.core.errors import MissingInputError, PortError
from wgtorch.core.kinds import describe
from wgtorch.core.plan import Call
from wgtorch.core.port import ABSENT
from wgtorch.core.run import background
from wgtorch.core.run.context import Run, in_this_context
from wgtorch.core.run.detached import call_frozen
from wgtorch.core.run.port_checks import named_outputs
from wgtorch.core.run.rng import GLOBAL_RNG, seeded_global
from wgtorch.core.structure import Edge, Exposed, Node
from wgtorch.core.tree import is_level


class Walked(Protocol):
    """What the executor needs of a composite."""

    level: ClassVar[str]
    _modules: dict[str, nn.Module | None]
    metadata: dict[str, Any]
    loop_compiler: Any
    """Compiles loops, where that was asked for."""

    @property
    def nodes(self) -> Any:
        """Children by node id."""

    @property
    def places(self) -> Mapping[str, Node]:
        """What is true of each node's place."""

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Edges between nodes."""

    @property
    def exposed_inputs(self) -> tuple[Exposed, ...]:
        """Inputs from outside."""

    def skip_reason(self, node: Node, run: Run | None) -> str | None:
        """Why a node is to be skipped now, or None."""


def call_node(composite: Walked, step: Call, slots: list[Any], run: Run | None) -> Any:
    """Calls a node with everything that a place or a run may ask for; ABSENT when it was skipped."""
    child = composite.nodes._modules[step.key]
    if run is None and step.draws:
        values = {name: slots[slot] for name, slot in step.kwargs if slots[slot] is not ABSENT}
        return child(*[slots[slot] for slot in step.args], **values, rng=GLOBAL_RNG)
    node = composite.places[step.node]
    if run is not None:
        run.check(step.node)
    if node.condition is not None and (reason := composite.skip_reason(node, run)) is not None:
        if run is not None and run.callbacks:
            run.emit("skip", step.node, _level(child), reason=reason)
        return ABSENT
    values = _gather(composite, node, step, slots)
    if run is None or not run.callbacks:
        return _invoke(node, child, step, values, run)
    return run.watch(step.node, _level(child), values, lambda: outputs_of(step, _invoke(node, child, step, values, run), child))


def _gather(composite: Walked, node: Node, step: Call, slots: list[Any]) -> dict[str, Any]:
    values = {name: slots[slot] for name, slot in step.inputs if slots[slot] is not ABSENT}
    for name, value in node.inputs.items():
        values.setdefault(name, value)
    for name in step.required:
        if name not in values:
            raise MissingInputError(f"{step.node}.{name}: required, but no value arrived from {_sources(composite, step.node, name)}")
    return values


def _sources(composite: Walked, node_id: str, port: str) -> str:
    names = [
        f"{e.source_node}.{e.source_port} (skipped, or gave no such output)"
        for e in composite.edges
        if (e.target_node, e.target_port) == (node_id, port)
    ]
    names += [f"input {e.name!r} (not given)" for e in composite.exposed_inputs if (e.node_id, e.port_name) == (node_id, port)]
    return " or ".join(names) or "anywhere"


def _invoke(node: Node, child: nn.Module, step: Call, values: dict[str, Any], run: Run | None) -> Any:
    """One call of a child, or one for each item of a mapped list."""
    if not node.map:
        return _one(node, child, step, values, run, None)
    lists = {name: values[name] for name in node.map if name in values}
    for name, items in lists.items():
        if not isinstance(items, (list, tuple)):
            raise PortError(f"{node.node_id}.{name}: got {describe(items)}; expected a list, since the node maps over {list(node.map)}")
    lengths = {name: len(items) for name, items in lists.items()}
    if len(set(lengths.values())) > 1:
        raise PortError(f"{node.node_id}: the mapped inputs differ in length: {lengths}")
    count = next(iter(lengths.values()), 0)
    if getattr(child, "batched", False):
        return _in_items(outputs_of(step, _one(node, child, step, values, run, None), child), count, node.node_id)
    items_of = [{**values, **{name: items[index] for name, items in lists.items()}} for index in range(count)]
    calls = [lambda index=index, item=item: _one(node, child, step, item, run, index) for index, item in enumerate(items_of)]
    results = _together(calls) if step.is_async else [call() for call in calls]
    ports = tuple(child.get_output_spec().values())  # type: ignore[operator]
    named = [named_outputs(result, ports, f"{node.node_id}[{index}]") for index, result in enumerate(results)]
    return {port.name: [result.get(port.name) for result in named] for port in ports}


def _in_items(outputs: Mapping[str, Any], count: int, where: str) -> dict[str, list[Any]]:
    """What one call gave for a whole list, item by item; a tensor [count, ...] is cut into [1, ...]."""
    items = {name: list(value.split(1)) if isinstance(value, Tensor) else value for name, value in outputs.items()}
    for name, value in items.items():
        if not isinstance(value, (list, tuple)) or len(value) != count:
            raise PortError(f"{where}.{name}: a batched call over {count} items gave {describe(value)}; expected one output for each item")
    return {name: list(value) for name, value in items.items()}


def _together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Results of calls made at once. When one fails the others are still heard, so that what they bring is kept."""
    futures = [background.start(in_this_context(call)) for call in calls]
    wait(futures)
    return [future.result() for future in futures]


def _one(node: Node, child: nn.Module, step: Call, values: dict[str, Any], run: Run | None, item: int | None) -> Any:
    if run is not None and run.dry and hasattr(child, "dry"):
        return child.dry(**values)  # type: ignore[operator]
    if run is None or run.kept is None or not step.is_async or is_level(child) or torch.is_grad_enabled():
        return _called(node, child, step, values, run, item)
    key = (run.seed, *run.path, node.node_id, run.turns, run.sample, item)
    known = run.kept.find(key, child, values)
    if known is ABSENT:
        known = _called(node, child, step, values, run, item)
        run.kept.keep(key, child, values, known)
    return known


def _called(node: Node, child: nn.Module, step: Call, values: dict[str, Any], run: Run | None, item: int | None) -> Any:
    args: tuple[Any, ...] = ()
    if is_level(child):
        if run is not None:
            args = (run.child(node.node_id, item=item, exposed=tuple(port for port, _ in step.store)),)
        return _answer(node, child, args, values, item)
    # By position what the walk passes by position, so that hooks are told the same however a level is called.
    first = step.inputs[: len(step.args)]
    try:
        args = tuple([values[name] for name, _ in first])
    except KeyError:  # one of them has no value: all go by name
        pass
    else:
        named = {name for name, _ in first}
        values = {} if len(values) == len(first) else {name: value for name, value in values.items() if name not in named}
    if run is not None and getattr(child, "wants_stream", False):
        values = {**values, "stream": run.emitter(node.node_id)}
    if getattr(child, "wants_rng", False):
        values = {**values, "rng": (run or _NO_RUN).rng(node.node_id, item=item)}
    elif run is not None and run.seed is not None and isinstance(child, Block) and child.uses_global_rng and not child.is_async:
        with seeded_global(run.rng(node.node_id, item=item)):
            return _answer(node, child, args, values, item)
    return _answer(node, child, args, values, item)


def _answer(node: Node, child: nn.Module, args: tuple[Any, ...], values: Mapping[str, Any], item: int | None) -> Any:
    context = adapter_hook.hook.context(node.adapter, child, node.node_id, item)
    if context is None:
        return _result(node, child, args, values)
    with context:
        return _result(node, child, args, values)


def _result(node: Node, child: nn.Module, args: tuple[Any, ...], values: Mapping[str, Any]) -> Any:
    if node.trainable or not torch.is_grad_enabled():
        result = child(*args, **values)
    else:
        result = call_frozen(child, args, values)
    return background.submit(result).result() if iscoroutine(result) else result


_NO_RUN = Run(())


def _level(child: nn.Module) -> str:
    return str(child.level) if is_level(child) else "block"


def outputs_of(step: Call, result: Any, child: nn.Module) -> dict[str, Any]:
    """What a node gave, by output name."""
    if type(result) is dict:
        for port, _ in step.store:
            if port not in result:
                break
        else:
            return result
    elif step.only_port and not isinstance(result, Mapping):
        return {step.only_port: result}
    return named_outputs(result, tuple(child.get_output_spec().values()), step.node)  # type: ignore[operator]
