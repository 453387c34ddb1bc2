"""Values that go into a run and come out of it, by name: exposed ports, and ports inside by their paths.

Functions of the level that runs; what goes in is checked here once, at the border of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.errors import MissingInputError, PortError, PortTypeError, UnknownNameError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.port import Port
from wgtorch.core.registry import Registry
from wgtorch.core.run.context import RunContext
from wgtorch.core.run.rng import GeneratorRng, Rng
from wgtorch.core.tree import split_path

InputHints: Registry[Callable[[str], str]] = Registry("hint at inputs", group="wgtorch.input_hints")
"""What to do in place of an input that a level does not have, by the entry of its metadata that says where it comes from."""


def taken_in(level: Any, inputs: Mapping[str, Any], device: torch.device | str | None) -> tuple[dict[str, Any], dict[Any, Any]]:
    """Checks and normalises what comes in: (values by input, values by path and port of what is given inside)."""
    spec, where = level.specs()[0], level.block_id
    if not isinstance(inputs, Mapping):
        name = next(iter(spec), "x")
        raise PortTypeError(f"{where}: inputs are {describe(inputs)}; expected a mapping by name, as run({{{name!r}: value}})")
    values, feeds = {}, {}
    aliases = level.metadata.get("input_aliases") or {}  # names of ports inside, as importers write them
    for name, value in inputs.items():
        if device is not None and isinstance(value, Tensor):
            value = value.to(device)
        if value is not None and (target := aliases.get(name)) is not None:
            path, port_name = split_path(target)
            feeds[path, port_name] = inner_port(level, path, port_name, target).check(value, f"{where}/{name}")
        if (port := spec.get(name)) is not None:
            values[name] = port.check(value, where, name)
        elif name in aliases:
            continue
        elif "." in name:
            path, port_name = split_path(name)
            feeds[path, port_name] = inner_port(level, path, port_name, name).check(value, f"{where}/{name}")
        else:
            raise PortError(f"{where}: unknown input {name!r}; {_hint(level, name) or suggest(name, [*spec, *aliases])}")
    return values, feeds


def inner_port(level: Any, path: Sequence[str], port: str, name: str) -> Port:
    """The output port of a node inside, of which users write the path and the port as ``name``."""
    child = level.find("/".join(path)) if path else level
    spec = child.get_output_spec()
    if port not in spec:
        raise UnknownNameError(f"{level.block_id}: {name!r} names no output; {'/'.join(path)} has {list(spec)}")
    return spec[port]


def by_position(level: Any, values: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs by name, the unnamed ones taken in the order of the spec."""
    names = list(level.get_input_spec())
    if len(values) > len(names):
        raise PortError(f"{level.block_id}: {len(values)} unnamed inputs; it has {names}")
    for name, value in zip(names, values, strict=False):
        if name in inputs:
            raise PortError(f"{level.block_id}: input {name!r} is given twice, unnamed and by name")
        inputs[name] = value
    return inputs


def check_names(level: Any, inputs: Mapping[str, Any]) -> None:
    """Refuses inputs that the level does not have."""
    known = level.specs()[0]
    for name in inputs:
        if name not in known:
            raise PortError(f"{level.block_id}: unknown input {name!r}; {_hint(level, name) or suggest(name, known)}")


def _hint(level: Any, name: str) -> str:
    """What those who made a level say of an input that it does not have."""
    origins = [origin for origin in level.metadata if origin in InputHints]
    return next((hint for origin in origins if (hint := InputHints.get(origin)(name))), "")


def owned_generators(level: Any, inputs: Any, seed: Any, cache: Any) -> tuple[Any, Rng | None]:
    """Inputs without a ``generator`` that a graph of another library's pipeline is given, and draws from it."""
    if not level.metadata.get("takes_generator") or not isinstance(inputs, Mapping) or inputs.get("generator") is None:
        return inputs, None
    if seed is not None or cache is not None:
        other = "a seed" if seed is not None else "a cache, which keeps draws by their seed,"
        raise PortError(f"{level.block_id}: got {other} and a generator; expected one of them")
    return {name: value for name, value in inputs.items() if name != "generator"}, GeneratorRng(inputs["generator"])


def paths_of(level: Any, outputs: Sequence[str]) -> tuple[frozenset[tuple[tuple[str, ...], str]], tuple[str, ...]]:
    """Outputs that are asked for: those inside by path and port, and the exposed ones by name."""
    spec = level.specs()[1]
    inner, exposed = [], []
    for name in outputs:
        if name in spec:
            exposed.append(name)
            continue
        path, port = split_path(name)
        if not path:
            raise UnknownNameError(
                f"{level.block_id}: unknown output {name!r}; {suggest(name, spec)}. Ports inside are asked for by path, as 'node.port'."
            )
        inner_port(level, path, port, name)
        inner.append((path, port))
    return frozenset(inner), tuple(exposed)


def given_out(level: Any, run: RunContext, outputs: dict[str, Any]) -> dict[str, Any]:
    """Keeps values wanted from inside for whoever asked, and returns the exposed ones."""
    exposed, found = level.specs()[1], {}
    for name, value in outputs.items():
        if name in exposed:
            found[name] = value
        else:
            path, port = split_path(name)
            assert run.options.taken is not None
            run.options.taken[(*run.path, *path), port] = value
    return found


def value_of(level: Any, name: str, found: Mapping[str, Any], run: RunContext) -> Any:
    """The value of an output that was asked for, exposed or inside."""
    if name in found:
        return found[name]
    path, port = split_path(name)
    taken = run.options.taken or {}
    if (run.path + path, port) in taken:
        return taken[run.path + path, port]
    raise MissingInputError(f"{level.block_id}: output {name!r} has no value: its node was skipped or left it out")
