"""``wgtorch import``: what another program made, as a graph in a folder that ``wgtorch run`` and ``Graph.load`` take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from wgtorch.cli.target import ports_of
from wgtorch.core.errors import ConfigError


def command(args: argparse.Namespace) -> int:
    """Makes the graph, writes it, and says what it takes and how it differs."""
    from wgtorch.graph import Graph

    out = Path(args.out or Path(args.source).stem)
    given = {name: getattr(args, name) for name in ("models", "images", "config", "dtype", "task") if getattr(args, name) is not None}
    taken = {"comfy": {"models", "images", "config", "dtype"}, "diffusers": {"config", "dtype", "task"}}[args.kind]
    if strange := sorted(set(given) - taken):
        raise ConfigError(f"{args.kind} takes no --{', --'.join(strange)}; known: --{', --'.join(sorted(taken))}")
    if args.kind == "comfy" and "models" not in given:
        raise ConfigError("a workflow names files of models; give --models, the folder they lie in (ComfyUI's models)")
    make: Any = Graph.from_comfy if args.kind == "comfy" else Graph.from_diffusers
    graph = make(args.source, **given)
    graph.block_id = out.name or graph.block_id
    graph.save(out)
    ports = graph.get_input_spec()
    print(f"{out}: {len(graph.nodes)} nodes")
    print(ports_of(graph))
    for node, words in graph.metadata.get("differs", {}).items():
        print(f"{node} differs: {words}")
    needed = next((name for name, port in ports.items() if not port.optional), next(iter(ports)))
    print(f"next: wgtorch run {out} --input {needed}=...")
    return 0
