#!/usr/bin/env python
"""Whether many worlds that live at once are what each would be alone.

    python -m scripts.soak.worlds                              # 8 worlds, 5 passes; from the root of the repository
    python -m scripts.soak.worlds --worlds 64 --passes 50      # minutes
    python -m scripts.soak.worlds --exact                      # pictures bit for bit too

Texts, facts and statuses (all that is no tensor) must be equal, pictures within 1e-5 (bit for bit with ``--exact``). Ends with one line
of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from wgtorch import World, WorldBatch

CLOSE = 1e-5


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """What lies in nested mappings and lists, each with its path."""
    if isinstance(value, Mapping):
        for key in value:
            yield from leaves(value[key], f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}.{index}")
    else:
        yield path, value


def main() -> int:
    """Lives them together and one by one, and compares every stored state and every content."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=8)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--painter", choices=["pixels", "scenes"], default="pixels")
    parser.add_argument("--exact", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    world = World.from_template("default", larger=False, painter=given.painter)
    started = time.monotonic()
    worlds = WorldBatch(world, seeds=range(given.worlds), exact=given.exact)
    worlds.run(num_steps=given.passes)
    together = time.monotonic() - started
    found: dict[str, Any] = {"worlds": given.worlds, "passes": given.passes, "failed": len(worlds.errors), "values": 0, "different": 0}
    found |= {"pictures": 0, "largest": 0.0, "together_s": round(together, 1)}
    started = time.monotonic()
    for index, seed in enumerate(worlds.seeds):
        alone = world.fork()
        alone.life.seed = seed
        alone.run(num_steps=given.passes)
        pairs = [(dict(worlds[index].content), dict(alone.content)), *zip(worlds[index].history, alone.history, strict=True)]
        for mine, theirs in pairs:
            for (path, one), (other_path, other) in zip(leaves(mine), leaves(theirs), strict=True):
                if isinstance(one, Tensor):
                    found["pictures"] += 1
                    found["largest"] = max(found["largest"], float((one - other).abs().max()))
                else:
                    found["values"] += 1
                    if path != other_path or one != other:
                        found["different"] += 1
                        print(f"world {index}, {path}: {one!r:.200}; alone {other!r:.200}", file=sys.stderr)
    found["alone_s"] = round(time.monotonic() - started, 1)
    print(json.dumps(found))
    return int(bool(found["failed"] or found["different"] or found["largest"] > (0 if given.exact else CLOSE)))


if __name__ == "__main__":
    raise SystemExit(main())
