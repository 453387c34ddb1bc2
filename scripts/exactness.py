#!/usr/bin/env python
"""What keeps a world bit for bit, and what does not: another process, threads, batches, devices. Prints a table in Markdown.

    python scripts/exactness.py                 # some minutes on two cores
    python scripts/exactness.py --passes 5

Each row is compared with the same world that lived alone, in one process, with one thread: texts, facts and everything that is no tensor,
and the pictures. docs/exactness.md holds what it printed.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.soak.worlds import leaves
from wgtorch import World, WorldBatch

SEED = 7


def told(world: World) -> tuple[dict[str, Any], list[Tensor]]:
    """All that is no tensor, by its path, and the pictures."""
    held = [
        ("content", dict(world.content)),
        ("state", dict(world.state or {})),
        *((str(i), dict(one)) for i, one in enumerate(world.history)),
    ]
    found = [pair for name, value in held for pair in leaves(value, name)]
    plain = {path: value for path, value in found if not isinstance(value, Tensor)}
    return plain, [value.float().cpu() for _, value in found if isinstance(value, Tensor)]


def lived(painter: str, passes: int, *, threads: int = 1, device: str = "cpu") -> World:
    """A world of the default template after some passes."""
    torch.set_num_threads(threads)
    world = World.from_template("default", larger=False, painter=painter).to(device)
    world.run(num_steps=passes, seed=SEED)
    torch.set_num_threads(1)
    return world


def resumed(painter: str, passes: int) -> World:
    """The same in a folder, each pass in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"""
import torch; from wgtorch import World; from wgtorch.storage import open_storage
torch.set_num_threads(1)
world = World.from_template("default", larger=False, painter={painter!r})
world.set_storage({{"state_dir": {folder!r}}})
world = world.resume() if open_storage({folder!r}).read_life() else world
world.run(seed={SEED})
"""
        for _ in range(passes):
            subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])
        world = World.from_template("default", larger=False, painter=painter)
        world.set_storage({"state_dir": folder})
        world.resume()
        kept = world.fork()  # into memory, so that the folder may go
        told(kept)
        return kept


def batched(painter: str, passes: int, *, exact: bool) -> World:
    """The same as one of eight that live at once."""
    worlds = WorldBatch(World.from_template("default", larger=False, painter=painter), seeds=[SEED, *range(100, 107)], exact=exact)
    worlds.run(num_steps=passes)
    return worlds[0]


def row(name: str, live: Callable[[str, int], World], passes: int, alone: dict[str, Any]) -> str:
    """A line of the table."""
    cells = []
    for painter, (plain, pictures) in alone.items():
        other, others = told(live(painter, passes))
        same = sum(other.get(path) != value for path, value in plain.items()) + len(other.keys() ^ plain.keys())
        texts = "same" if not same else f"{same} differ"
        largest = max((float((one - two).abs().max()) for one, two in zip(pictures, others, strict=True)), default=0.0)
        cells += [texts, "bit for bit" if all(map(torch.equal, pictures, others)) else f"within {largest:.1g}"]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, default=3)
    passes = parser.parse_args().passes
    painters = ("pixels", "scenes")
    alone = {painter: told(lived(painter, passes)) for painter in painters}
    ways: dict[str, Callable[[str, int], World]] = {
        "run again": lived,
        "each pass in a process of its own, from a folder": resumed,
        "2 threads": lambda painter, passes: lived(painter, passes, threads=2),
        "4 threads": lambda painter, passes: lived(painter, passes, threads=4),
        "one of 8 in a `WorldBatch`": lambda painter, passes: batched(painter, passes, exact=False),
        "one of 8, `exact=True`": lambda painter, passes: batched(painter, passes, exact=True),
    }
    if torch.cuda.is_available():
        ways["on the GPU"] = lambda painter, passes: lived(painter, passes, device="cuda")
    print(f"{passes} passes, seed {SEED}, torch {torch.__version__}, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}\n")
    print("| against one thread, alone | " + " | ".join(f"{painter}: facts and texts | pictures" for painter in painters) + " |")
    print("| --- |" + " --- | --- |" * len(painters))
    for name, live in ways.items():
        print(row(name, live, passes, alone), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
