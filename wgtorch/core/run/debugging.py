"""What ``run(..., debug=True)`` looks for around each call: inputs changed in place, and outputs of a wrong kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wgtorch.core.errors import PortError
from wgtorch.core.kinds import describe
from wgtorch.core.port import Spec


class Snapshot:
    """Inputs of a call as they were before it: tensors by their version, containers by their content.

    Args:
        inputs: values by port.
    """

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self._before = {name: (value, _print_of(value)) for name, value in inputs.items()}

    def check(self, where: str, outputs: Mapping[str, Any], spec: Spec | None) -> None:
        """Compares after the call.

        Raises:
            PortError: an input is not what it was, or an output is not of its port's kind; names node and port.
        """
        for name, (value, before) in self._before.items():
            if _print_of(value) != before:
                raise PortError(
                    f"{where}.{name}: the block changed its input in place ({describe(value)}), which every reader of the value sees; "
                    "work on a copy (x = x.clone(), list(x), dict(x)) and return that"
                )
        for name, port in (spec or {}).items():
            if name in outputs:
                port.check(outputs[name], f"{where}.{name} (output)")


def _print_of(value: Any) -> Any:
    """What changes when a value is changed in place."""
    if isinstance(value, Tensor):
        return (id(value), value._version if not value.is_inference() else None, tuple(value.shape))
    if isinstance(value, Mapping):
        return (id(value), [(key, _print_of(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return (id(value), [_print_of(item) for item in value])
    if isinstance(value, set):
        return (id(value), sorted(map(repr, value)))
    return value if isinstance(value, (str, int, float, bool, bytes, type(None))) else id(value)
