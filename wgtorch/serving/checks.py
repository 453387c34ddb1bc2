"""What comes in with a request, checked: names, kinds, and nothing that would have a file of this machine opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from wgtorch.core.errors import Finding, PortError, RequestError, StateError, suggest
from wgtorch.core.kinds import describe, get_kind
from wgtorch.core.port import Port
from wgtorch.stage import Stage
from wgtorch.world import World
from wgtorch.world_runtime.run_request import one_for_each
from wgtorch.world_runtime.state import changed_at


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


def refuse_path_slots(stages: Iterable[Stage], values: Mapping[str, Any]) -> None:
    """As :func:`refuse_paths`, for what stages read pictures from: slots, the action, the content."""
    for stage in stages:
        for entry in stage.exposed_inputs:
            root, *fields = entry.name.split(".")
            if root in values and get_kind(stage._port(entry.node_id, entry.port_name, "input").dtype).is_tensor:
                changed_at(values[root], fields, partial(_refuse_text, where=f"{stage.block_id}: {entry.name}"))


def check_action(action: Any, num_steps: int, world: World) -> None:
    """Refuses what is no action: text, texts by who acts, or what a port that reads it says; a list holds one for each pass.

    Raises:
        RequestError: it is none of these (422).
    """
    kinds = [get_kind(port.dtype) for stage in world.nodes.values() for port in stage.ports_of("action")]
    kinds = [kind for kind in kinds if kind.name != "any"]
    try:
        actions = one_for_each(action, num_steps, world.block_id)
    except StateError as error:
        raise RequestError(str(error), status=422) from None
    for given in actions:
        fits = all(kind.accepts(given) for kind in kinds) if kinds else _is_text_or_typed(given)
        if given is not None and not fits:
            expected = " and ".join(kind.expects for kind in kinds) or 'a text, or texts by who acts: {"Anna": "rest"}'
            raise RequestError("the action does not fit", [Finding("request.action", describe(given), expected)], status=422)


def _is_text_or_typed(action: Any) -> bool:
    if isinstance(action, Mapping):
        return all(said is None or isinstance(said, str) for said in action.values())
    return isinstance(action, str)


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
