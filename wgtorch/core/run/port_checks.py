"""What goes into a block and what comes out of it, checked against its ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wgtorch.core.errors import MissingInputError, PortError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.port import Port


def check_inputs(inputs: Mapping[str, Any], spec: Mapping[str, Port], where: str) -> dict[str, Any]:
    """Checks names and kinds of inputs and normalises the values.

    Raises:
        PortError: lists everything that is unknown, missing or of the wrong kind.
    """
    if not isinstance(inputs, Mapping):
        raise PortError(f"{where}: inputs are {describe(inputs)}; expected a mapping by port name, {suggest('', spec)}")
    for name in inputs:
        if name not in spec:
            raise PortError(f"{where}: unknown input {name!r}; {suggest(name, spec)}")
    missing = [name for name, port in spec.items() if not port.optional and name not in inputs]
    if missing:
        kinds = ", ".join(f"{name!r} ({spec[name].dtype})" for name in missing)
        raise MissingInputError(f"{where}: missing input {kinds}; given: {sorted(inputs) or 'nothing'}")
    return {name: spec[name].check(value, where, name) for name, value in inputs.items()}


def named_outputs(result: Any, ports: tuple[Port, ...], where: str) -> dict[str, Any]:
    """What ``forward`` returned as a mapping by output name.

    A mapping is always one by output name, whatever its ports hold; anything else is the value of the only output.

    Raises:
        PortError: a bare value where there are several outputs, an output missing or undeclared.
    """
    if isinstance(result, Mapping):
        unknown = [name for name in result if name not in {port.name for port in ports}]
        missing = [port.name for port in ports if port.name not in result and not port.optional]
        if unknown or missing:
            mend = ""
            if len(ports) == 1 and ports[0].name not in result:
                mend = f". A mapping is always one by output name; where it is the value itself, return {{{ports[0].name!r}: value}}"
            expected = [port.name for port in ports]
            raise PortError(f"{where}: forward returned {sorted(map(str, result))}; expected {expected}, as declared in outputs{mend}")
        return dict(result)
    if len(ports) != 1:
        raise PortError(f"{where}: forward returned {describe(result)}; expected a mapping with {[port.name for port in ports]}")
    return {ports[0].name: result}
