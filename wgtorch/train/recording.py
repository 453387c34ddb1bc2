"""Values of any port of a target by path, at any level: computed on demand, or recorded while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wgtorch.core.block import Block
from wgtorch.core.composite import Composite
from wgtorch.core.errors import UnknownNameError, suggest
from wgtorch.core.run.context import RunContext, RunOptions
from wgtorch.core.run.events import Event
from wgtorch.core.tree import split_path


def forward_outputs(target: Block, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
    """Runs a block, graph or pipeline in the mode it is in, with gradients where they are on.

    Args:
        target: what to run.
        inputs: values by input; by path (``"a.y"``) in place of what a node inside would compute.
        outputs: outputs, or ports inside by path (``"first/a.y"``); only what they need is run.

    Returns:
        Values by the names asked for.

    Raises:
        UnknownNameError, PortError: there is no such port.
    """
    if isinstance(target, Composite):
        import torch

        return target.run(inputs, outputs=list(outputs), training=target.training and torch.is_grad_enabled())
    found = target.run(inputs)
    for name in outputs:
        if name not in found:
            raise UnknownNameError(f"{target.block_id}: no output {name!r}; {suggest(name, found)}")
    return {name: found[name] for name in outputs}


class ActivationRecorder:
    """A callback that keeps the values of some ports of a world or stage while it runs, one for each time they came.

    Args:
        root: id of the level that runs.
        ports: by path below it, as ``creator/paint/t2i/backbone.pred``.
    """

    def __init__(self, root: str, ports: Sequence[str]) -> None:
        self.values: dict[str, list[Any]] = {port: [] for port in ports}
        self._wanted: dict[str, list[tuple[str, str]]] = {}
        for name in ports:
            path, port = split_path(name)
            self._wanted.setdefault("/".join(path), []).append((name, port))

    def __call__(self, event: Event) -> None:
        if event.kind == "end" and event.path in self._wanted and event.outputs is not None:
            for name, port in self._wanted[event.path]:
                if port in event.outputs:
                    self.values[name].append(event.outputs[port])

    def run(self, root: str) -> RunContext:
        """A run that tells this watch."""
        return RunContext(RunOptions(root, (self,) if self._wanted else ()))
