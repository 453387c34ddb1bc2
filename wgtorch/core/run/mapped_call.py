"""The calls of a node that maps over a list: one for each item, at once where they wait, or one for all where the block takes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from functools import partial
from typing import Any

from torch import nn

from wgtorch.core.errors import PortError
from wgtorch.core.kinds import describe
from wgtorch.core.plan import Call
from wgtorch.core.run import background
from wgtorch.core.run.active_call import ActiveCall
from wgtorch.core.run.call_outputs import outputs_of
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.joined_inputs import items_of
from wgtorch.core.run.pause import Stopped
from wgtorch.core.run.port_checks import named_outputs
from wgtorch.core.run.thread_context import in_this_context
from wgtorch.core.structure import Node


def call_mapped(
    make: Callable[..., Any], node: Node, child: nn.Module, call: Call, values: dict[str, Any], run: RunContext | None
) -> dict[str, Any]:
    """One call of a child for each item of a mapped list, or one for the whole list where the child takes it.

    Args:
        make: makes one call, of (node, child, call, values, run, number of the item).
        node: the place that maps.
        child: what stands there.
        call: of the plan.
        values: inputs by name, lists where the node maps over them.
        run: what it is part of, where it is.

    Returns:
        Lists by output.
    """
    lists = {name: values[name] for name in node.map if name in values}
    for name, items in lists.items():
        if not isinstance(items, (list, tuple)):
            raise PortError(f"{node.node_id}.{name}: got {describe(items)}; expected a list, since the node maps over {list(node.map)}")
    lengths = {name: len(items) for name, items in lists.items()}
    if len(set(lengths.values())) > 1:
        raise PortError(f"{node.node_id}: the mapped inputs differ in length: {lengths}")
    count = next(iter(lengths.values()), 0)
    if getattr(child, "batched", False):
        outputs = outputs_of(call, make(node, child, call, values, run, None), child)
        items = items_of(outputs, count, node.node_id)
        return {name: [item[name] for item in items] for name in outputs}
    own_values = [{**values, **{name: items[index] for name, items in lists.items()}} for index in range(count)]
    calls = [partial(make, node, child, call, item, run, index) for index, item in enumerate(own_values)]
    if run is not None and run.options.pause is not None:
        results = _until_stopped(calls, run)
    else:
        results = _together(calls, call, run) if call.is_async else [one() for one in calls]
    ports = tuple(child.get_output_spec().values())  # type: ignore[operator]
    named = [named_outputs(result, ports, f"{node.node_id}[{index}]") for index, result in enumerate(results)]
    return {port.name: [result.get(port.name) for result in named] for port in ports}


def _until_stopped(calls: Sequence[Callable[[], Any]], run: RunContext) -> list[Any]:
    """Results of calls one after the other, in a run that may stop inside of one, or has stopped there and goes on."""
    results = run.options.pause.results_of(run.path)  # type: ignore[union-attr]
    try:
        for one in calls[len(results) :]:
            results.append(one())
    except Stopped as stop:
        stop.results = results
        raise
    return results


def _together(calls: Sequence[Callable[[], Any]], call: Call, run: RunContext | None) -> list[Any]:
    """Results of calls made at once. When one fails the others are still heard, so that what they bring is kept."""
    active = [None if run is None else ActiveCall(run, call, index) for index in range(len(calls))]
    futures = [background.start(in_this_context(one, here)) for one, here in zip(calls, active, strict=True)]
    wait(futures)
    return [future.result() for future in futures]
