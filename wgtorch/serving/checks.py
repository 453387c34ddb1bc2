"""What comes in with a request, checked: names, kinds, and nothing that would have a file of this machine opened."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from wgtorch.core.errors import Finding, PortError, RequestError, suggest
from wgtorch.core.kinds import describe, get_kind
from wgtorch.core.port import Port
from wgtorch.stage import Stage
from wgtorch.world_runtime.state import State, changed_at


def check_values(inputs: Mapping[str, Any], spec: Mapping[str, Port], where: str) -> dict[str, Any]:
    """Values by input, normalised.

    Raises:
        RequestError: lists everything that is unknown, missing or of the wrong kind.
    """
    findings = [Finding(f"{where}.{name}", "unknown input", mend=suggest(name, spec)) for name in inputs if name not in spec]
    values = {}
    for name, port in spec.items():
        if name not in inputs:
            if not port.optional:
                findings.append(Finding(f"{where}.{name}", "missing", get_kind(port.dtype).expects))
            continue
        try:
            values[name] = port.check(inputs[name], where, name)
        except PortError as error:
            text = str(error).removeprefix(f"{where}.{name}: ")
            found, _, expected = text.partition("; expected ")
            findings.append(Finding(f"{where}.{name}", found, expected))
    if findings:
        raise RequestError("the inputs do not fit", findings)
    return values


def refuse_paths(inputs: Mapping[str, Any], spec: Mapping[str, Port], where: str) -> None:
    """Refuses texts where tensors are expected: a picture may be given as a file's path, and whose files would that read?

    Raises:
        RequestError: there is one.
    """
    for name, value in inputs.items():
        if name in spec and get_kind(spec[name].dtype).is_tensor and _holds_text(value):
            raise RequestError(
                "the inputs do not fit", [Finding(f"{where}.{name}", describe(value), "a tensor: files are not opened here")]
            )


def refuse_path_slots(stage: Stage, state: State) -> None:
    """As :func:`refuse_paths`, for the slots that a stage reads pictures from."""
    for entry in stage.exposed_inputs:
        root, *fields = entry.name.split(".")
        if root in state and get_kind(stage._port(entry.node_id, entry.port_name, "input").dtype).is_tensor:
            changed_at(state[root], fields, partial(_refuse_text, where=f"{stage.block_id}: {entry.name}"))


def _refuse_text(value: Any, where: str) -> Any:
    if _holds_text(value):
        raise RequestError("the state does not fit", [Finding(where, describe(value), "tensors: files are not opened here")])
    return value


def _holds_text(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_text, value))
    if isinstance(value, Mapping):
        return any(map(_holds_text, value.values()))
    return isinstance(value, str)
