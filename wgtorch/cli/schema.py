"""``wgtorch schema``: the JSON Schema of a level's configs, or of a block type's."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from wgtorch.cli.options import LEVELS


def command(args: argparse.Namespace) -> int:
    """Prints the schema, or writes it to ``--out``."""
    text = json.dumps(schema_of(args.name), indent=2) + "\n"
    if args.out is None:
        print(text, end="")
        return 0
    path = Path(args.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(path)
    return 0


def schema_of(name: str) -> dict[str, Any]:
    """The schema of a level's configs, with that of every known block type's config in it, or of one block type's.

    An editor is told of it by the first line of a YAML file, ``# yaml-language-server: $schema=graph.schema.json``.

    Raises:
        UnknownNameError: there is no such level and no such type.
    """
    from wgtorch.core.block import BlockRegistry
    from wgtorch.core.config.schema import block_schema, level_schema
    from wgtorch.core.errors import UnknownNameError, suggest

    if name not in LEVELS:
        if name not in BlockRegistry:
            raise UnknownNameError(f"there is no level and no block type {name!r}; {suggest(name, [*LEVELS, *BlockRegistry.names()])}")
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": f"config of {name}",
            **block_schema(BlockRegistry.get(name)),  # type: ignore[arg-type]
        }
    schema = level_schema(name)
    return {**schema, "$defs": {**schema["$defs"], "graph_node": _node_with_types(schema["$defs"]["graph_node"])}}


def _node_with_types(node: dict[str, Any]) -> dict[str, Any]:
    """What a graph's node may hold, with the names of the types, and for each what its config is."""
    from wgtorch.cli.pages import tell_faults
    from wgtorch.core.block import BlockRegistry
    from wgtorch.core.config.schema import block_schema

    tell_faults(BlockRegistry)
    classes = {name: BlockRegistry.get(name) for name in BlockRegistry.names()}
    named = {"anyOf": [{"enum": list(classes)}, {"type": "string"}]}  # a type of a package that is not installed here is none to refuse
    per_type = [
        {
            "if": {"properties": {"block_type": {"const": name}}, "required": ["block_type"]},
            "then": {"properties": {"config": _or_interpolated(block_schema(block_class))}},  # type: ignore[arg-type]
        }
        for name, block_class in classes.items()
    ]
    return {**node, "properties": {**node["properties"], "block_type": named}, "allOf": per_type}


def _or_interpolated(schema: dict[str, Any]) -> dict[str, Any]:
    """Values may be written ``${oc.env:NAME}``, whatever their type will be."""
    written = {"type": "string", "pattern": r"\$\{"}
    return {**schema, "properties": {name: {"anyOf": [entry, written]} if entry else {} for name, entry in schema["properties"].items()}}
