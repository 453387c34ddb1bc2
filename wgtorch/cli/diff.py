"""``wgtorch diff``: how two levels differ, by node, edge and exposed port."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wgtorch.world_runtime.changes import Change

_SIGNS = {"added": "+", "removed": "-", "changed": "~", "grew": "~"}


def command(args: argparse.Namespace) -> int:
    """Prints a line for each difference; 1 when there is one, as ``diff`` does."""
    from wgtorch.cli.target import open_level, trust_in

    trust = trust_in(args.trust)
    found = differences(open_level(args.first, trust=trust).to_config(), open_level(args.second, trust=trust).to_config())
    for change in found:
        told = f"{change.before} -> {change.after}" if change.kind == "changed" else change.before + change.after
        print(f"{_SIGNS[change.kind]} {change.path}: {told}".rstrip(": "))
    if not found:
        print("no difference")
    return int(bool(found))


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Change]:
    """What differs between two configs of levels; the order of nodes, edges and exposed ports says nothing.

    Args:
        first, second: what ``to_config`` gave, of any level.

    Returns:
        Changes by path: ``nodes.solver.config.config.num_steps``, ``edges.a.y -> b.x``.
    """
    from wgtorch.world_runtime.changes import changes

    return changes(_by_name(first), _by_name(second))


def _by_name(value: Any, key: str = "") -> Any:
    """Lists whose entries have names of their own, as mappings by those."""
    if isinstance(value, Mapping):
        return {name: _by_name(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
        if all("node_id" in item and "port_name" not in item for item in value):
            return {item["node_id"]: {name: _by_name(inner, name) for name, inner in item.items() if name != "node_id"} for item in value}
        if key == "edges":
            return {f"{e['source_node']}.{e['source_port']} -> {e['target_node']}.{e['target_port']}": "" for e in value}
        if key in ("exposed_inputs", "exposed_outputs"):
            return {f"{item['name']} ({item['node_id']}.{item['port_name']})": "" for item in value}
    return value
