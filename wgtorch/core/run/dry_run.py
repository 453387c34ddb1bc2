"""Dry runs: what a run would do, without doing it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from wgtorch.core.errors import Finding, MissingInputError, WgtorchError
from wgtorch.core.plan import Call, Loop, Plan, calls_of
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.events import Event
from wgtorch.core.run.loop_steps import loop_steps
from wgtorch.core.tree import is_level


@dataclass(slots=True)
class DryRun:
    """What a run would do.

    Args:
        order: paths of the nodes in the order they would run.
        findings: why the run would fail; empty when it would not.
        api_calls: how many calls it would make that wait on a network.
        shapes: shape of every tensor output by ``path.port`` (fake runs).
        weight_bytes: bytes of all parameters and buffers, each once.
        peak_bytes: estimate of the most bytes that values of nodes hold at once, without what happens inside a block
            (fake runs).
    """

    order: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    api_calls: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    weight_bytes: int = 0
    peak_bytes: int = 0

    @property
    def is_valid(self) -> bool:
        """True when nothing would stop the run."""
        return not self.findings

    def __str__(self) -> str:
        rows = [f"{index + 1:3}. {path}" for index, path in enumerate(self.order)]
        rows += [f"     {name}: {list(shape)}" for name, shape in self.shapes.items()]
        rows.append(f"weights {_megabytes(self.weight_bytes)}, values at most {_megabytes(self.peak_bytes)}, API calls {self.api_calls}")
        return "\n".join(rows + [f"would fail: {finding}" for finding in self.findings])


def dry_run_of(
    composite: Any, values: Mapping[str, Any], run: RunContext, *, fake: bool, forward: Callable[..., Any] | None = None
) -> DryRun:
    """A dry run; see ``dry_run`` of :meth:`wgtorch.core.composite.Composite.run`.

    Args:
        composite: what would run.
        values: by exposed input.
        run: its context.
        fake: call it with fake tensors as well.
        forward: how it is called with values by exposed input, where that is not its own call.
    """
    report = DryRun(order=(), weight_bytes=sum(tensor.nbytes for tensor in (*composite.parameters(), *composite.buffers())))
    try:
        plan = composite.plan_for(run)
    except WgtorchError as error:
        report.findings = tuple(getattr(error, "findings", ())) or (Finding(composite.block_id, str(error)),)
        return report
    missing = [name for name, _, required in plan.inputs if required and name not in values]
    report.findings = tuple(Finding(f"{composite.block_id}.{name}", "missing input") for name in missing)
    if composite.remote:
        report.order, report.api_calls = ("/".join(run.path) or composite.block_id,), 1
    else:
        report.order, report.api_calls = _walk(composite, plan, "/".join(run.path), run, values)
    if fake and not missing:
        _run_fake(composite, values, run, report, forward or composite)
    return report


def _walk(composite: Any, plan: Plan, prefix: str, run: RunContext, values: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """Paths in order, and how many calls wait on a network; ``values`` are the composite's inputs as far as known."""
    order: list[str] = []
    waiting = 0
    for call, loop in calls_of(plan.steps):
        child, path = composite.nodes[call.node], f"{prefix}/{call.node}".lstrip("/")
        inner, calls = (path,), int(child.is_async)
        if is_level(child) and not child.remote:
            below = run.child(call.node, exposed=tuple(port for port, _ in call.store))
            inner, calls = _walk(child, child.plan_for(below), path, below, {})  # type: ignore[assignment]
        order += inner
        waiting += calls * _items(composite, call, values) * (1 if loop is None else _steps_or_one(composite, loop, run))
    return tuple(order), waiting


def _items(composite: Any, step: Call, values: Mapping[str, Any]) -> int:
    """How often a node is called: once for each item of a list that is there, once where none is known."""
    mapped = composite.node_specs[step.node].map
    names = [entry.name for entry in composite.exposed_inputs if entry.node_id == step.node and entry.port_name in mapped]
    lists = [values[name] for name in names if isinstance(values.get(name), (list, tuple))]
    return len(lists[0]) if lists else 1


def _steps_or_one(composite: Any, loop: Loop, run: RunContext) -> int:
    try:
        return loop_steps(composite, loop, run) or 1
    except WgtorchError:
        return 1


def _run_fake(composite: Any, values: Mapping[str, Any], run: RunContext, report: DryRun, forward: Callable[..., Any]) -> None:
    """Runs with fake tensors, which have a shape and no data."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

    meter = _Meter(report)
    run.options.callbacks = (*run.options.callbacks, meter)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fake_values = tree_map(lambda value: mode.from_tensor(value) if isinstance(value, Tensor) else value, dict(values))
    try:
        with mode, torch.no_grad():
            forward(run_context=run, **fake_values)
    except DataDependentOutputException as error:
        where = getattr(error, "node_path", composite.block_id)
        report.findings += (Finding(f"{composite.block_id}/{where}", "shapes depend on data from here on, so the rest was not looked at"),)
    except MissingInputError as error:
        report.findings += (Finding(composite.block_id, str(error)),)


class _Meter:
    """A callback that notes shapes and how many bytes of outputs are alive."""

    def __init__(self, report: DryRun) -> None:
        self.report = report
        self.alive: dict[int, tuple[weakref.ref, int]] = {}

    def __call__(self, event: Event) -> None:
        if event.kind != "end" or event.outputs is None:
            return
        for port, value in event.outputs.items():
            if isinstance(value, Tensor):
                self.report.shapes[f"{event.path}.{port}"] = tuple(value.shape)
        for tensor in tree_flatten((dict(event.inputs or {}), dict(event.outputs)))[0]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (weakref.ref(tensor), storage.nbytes())
        self.alive = {key: (ref, size) for key, (ref, size) in self.alive.items() if ref() is not None}
        self.report.peak_bytes = max(self.report.peak_bytes, sum(size for _, size in self.alive.values()))


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
