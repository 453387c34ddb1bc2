#!/usr/bin/env python
"""What first-block caching saves, and what it costs in the picture: the small painter that ships with the package, at one threshold.

python scripts/bench/first_block_cache.py --steps 24 --threshold 0.1
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from wgtorch import Graph
from wgtorch.integrations.diffusers.first_block_cache import cache_first_block

PROMPTS = [
    "a red castle in the hills by day",
    "a white ship at sea at dusk",
    "a yellow tent in the desert by day",
    "a blue tower in the snow",
]


def main() -> None:
    """Prints steps, times and errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--threshold", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    graphs = [Graph.from_template("text_to_image", steps=arguments.steps) for _ in range(2)]
    cache_first_block(graphs[1], arguments.threshold)
    skipped = []

    def watch(event: Any) -> None:
        if event.path == "backbone" and event.kind == "end":
            skipped.append(event.outputs["step_cache"].skipped > 0)

    pictures = [graph.run({"prompt": PROMPTS}, seed=1)["image"] for graph in graphs]
    graphs[1].run({"prompt": PROMPTS}, seed=1, callbacks=[watch])
    times: list[list[float]] = [[], []]
    for _ in range(arguments.rounds):
        for own, graph in zip(times, graphs, strict=True):
            started = time.perf_counter()
            graph.run({"prompt": PROMPTS}, seed=1)
            own.append(time.perf_counter() - started)
    plain, cached = (min(own) for own in times)
    error = (pictures[0] - pictures[1]).square().mean()
    print(f"text_to_image, {len(PROMPTS)} pictures, {arguments.steps} steps, threshold {arguments.threshold:g}")
    print(f"  first block alone in {sum(skipped)} of {len(skipped)} steps")
    print(f"  plain {plain:.3f} s, cached {cached:.3f} s: {cached / plain:.2f}x")
    print(f"  mean error {(pictures[0] - pictures[1]).abs().mean():.4f} of 1, PSNR {-10 * torch.log10(error):.1f} dB")


if __name__ == "__main__":
    main()
