"""What a call of a node gave, by output name, and in the slots of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from wgtorch.core.plan import Call
from wgtorch.core.port import MISSING
from wgtorch.core.run.port_checks import named_outputs


def outputs_of(call: Call, result: Any, child: nn.Module) -> dict[str, Any]:
    """What a node gave, by output name."""
    if type(result) is dict:
        for port, _ in call.store:
            if port not in result:
                break
        else:
            return result
    elif call.out_port and not isinstance(result, Mapping):
        return {call.out_port: result}
    return named_outputs(result, tuple(child.get_output_spec().values()), call.node)  # type: ignore[operator]


def store_outputs(call: Call, result: Any, child: nn.Module, slots: list[Any]) -> None:
    """Puts what a node gave into the slots that are read."""
    named = {} if result is MISSING else outputs_of(call, result, child)  # it was skipped
    for port, slot in call.store:
        slots[slot] = named.get(port, MISSING)
