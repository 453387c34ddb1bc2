"""What ``run(..., debug=True)`` looks for around each call: inputs changed in place, and values of a wrong kind on either side."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import PortError
from wgtorch.core.kinds import describe
from wgtorch.core.port import Port, Spec
from wgtorch.core.run.content_digest import ContentDigests, NoDigest, is_readable


class Snapshot:
    """Inputs of a call as they were before it, by their content; it reads all of them.

    Args:
        where: the node's path.
        inputs: values by port.
        spec: the node's input ports.
        mapped: those that get one value after the other from a list.

    Raises:
        PortError: an input is not of its port's kind; names node and port.
    """

    def __init__(self, where: str, inputs: Mapping[str, Any], spec: Spec, mapped: Collection[str] = ()) -> None:
        self._where, self._mapped = where, mapped
        for name, value in inputs.items():
            if name in spec:
                _check(spec[name], value, f"{where}.{name}", is_mapped=name in mapped)
        self._before = {name: (value, _content(value)) for name, value in inputs.items()}

    def check(self, outputs: Mapping[str, Any], spec: Spec) -> None:
        """Compares after the call.

        Raises:
            PortError: an input is not what it was, or an output is not of its port's kind; names node and port.
        """
        for name, (value, before) in self._before.items():
            if _content(value) != before:
                raise PortError(
                    f"{self._where}.{name}: the block changed its input in place ({describe(value)}), which every reader of the value "
                    "sees; work on a copy (x = x.clone(), list(x), dict(x)) and return that"
                )
        for name, port in spec.items():
            if name in outputs:
                _check(port, outputs[name], f"{self._where}.{name} (output)", is_mapped=bool(self._mapped))


def _check(port: Port, value: Any, where: str, *, is_mapped: bool) -> None:
    for item in value if is_mapped and isinstance(value, (list, tuple)) else (value,):
        if item is not None or not (port.optional or is_mapped):
            port.check(item, where)


def _content(value: Any) -> Any:
    """What changes when a value is changed in place."""
    if isinstance(value, Tensor):
        version = None if value.is_inference() else value._version
        return (version, ContentDigests().read(value) if is_readable(value) else _digest(value))
    if isinstance(value, Mapping):
        return [(key, _content(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_content(item) for item in value]
    return id(value) if isinstance(value, torch.Generator) else _digest(value)  # one that is drawn from goes on


def _digest(value: Any) -> Any:
    try:
        return ContentDigests().of(value)  # one that remembers nothing
    except NoDigest:
        return id(value)
