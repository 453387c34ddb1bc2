"""Loads damaged and forged checkpoints for as long as it is told, and counts them.

    python scripts/fuzz_checkpoint.py --seconds 600 [--seed 0]

Each must be refused with one of wgtorch's errors within a second, in bounded memory, or load as what was saved; a forged
one (its hashes made true again) may load as what it says. The seed of whatever does not hold is printed.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.checkpoints.blocks import rich_graph
from tests.checkpoints.hostile import Count, attempt
from tests.checkpoints.mutations import PLAIN, SEALED, read_tree
from wgtorch.graph import Graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    count, draw, wrong = Count(), random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        tree = read_tree(rich_graph().save(Path(name) / "good"))
        Graph.load(Path(name) / "good")  # imports are no file's doing
        at_start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            sealed, archive, seed = draw.random() < 0.6, draw.random() < 0.4, draw.randrange(2**62)
            mutation = draw.choice(sorted(SEALED if sealed else PLAIN))
            with tempfile.TemporaryDirectory(dir=name) as folder:
                try:
                    attempt(tree, Path(folder), mutation, seed, sealed=sealed, archive=archive, count=count)
                except AssertionError as error:
                    wrong += 1
                    print(f"WRONG {error}", flush=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_start) / 1024
    print(f"{count.tried} tried: {count.refused} refused, {count.same} loaded as saved, {count.other} loaded as forged, {wrong} wrong")
    print(f"slowest {count.slowest:.2f} s, peak memory grew by {grown:.0f} MiB")
    print(", ".join(f"{name} {number}" for name, number in sorted(count.by_mutation.items())))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
