#!/usr/bin/env python
"""Measures the default world, and the models that ship with the package: painter, describer and the words between them.

    python scripts/evaluate_default.py                        # 300 prompts; about 8 minutes, the judge's training included
    python scripts/evaluate_default.py --world-only           # the simulated world alone: a minute
    python scripts/evaluate_default.py --prompts 1000
    python scripts/evaluate_default.py --painter 'outputs/default_painter/<time>/checkpoints/last#backbone'

Prompt adherence is judged by a classifier that is trained here, on drawings of its own with blur and noise; it is built
otherwise than the describer that ships and has never seen a generated picture. It is trained once (about 4 minutes of one
core) and kept, as the drawings are, beneath --root. Prompts and drawings are held out: no model was trained on
them. The grid of pictures and the numbers as JSON lie in --out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.scene_measures import (
    free_prompts,
    held_out_drawings,
    held_out_prompts,
    kept_judge,
    labels_for,
    pictures_from,
    right,
    save_sheet,
    seconds_a_picture,
    shares,
    table,
)
from scripts.typed_actions import understood
from wgtorch.blocks.scenes.describer import SceneDescriber
from wgtorch.core.block import BlockRegistry
from wgtorch.core.checkpoint.refs import PACKAGED
from wgtorch.core.config.template import build_template
from wgtorch.graph import Graph
from wgtorch.templates.world import READER_REF
from wgtorch.train.scenes.disturbing import disturb

MAIN = ("time", "weather", "terrain", "landmark")


def arguments() -> argparse.ArgumentParser:
    """The program's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=300, help="held-out prompts that are painted")
    parser.add_argument("--drawings", type=int, default=1000, help="held-out drawings that are read")
    parser.add_argument("--painter", default="wgtorch:scene_painter", help="checkpoint_ref of the painter's weights")
    parser.add_argument("--describer", default="wgtorch:scene_describer", help="checkpoint_ref of the describer's weights")
    parser.add_argument("--judge-pictures", type=int, default=40_000, help="drawings that the judge is trained on")
    parser.add_argument("--seed", type=int, default=0, help="of the painter's noise")
    parser.add_argument("--root", type=Path, default=Path("outputs/scenes"), help="keeps the drawings and the judge")
    parser.add_argument("--out", type=Path, default=Path("outputs/evaluate_default"), help="takes pictures.png and numbers.json")
    parser.add_argument("--world-only", action="store_true", help="measure the simulated world alone, without pictures")
    parser.add_argument("--passes", type=int, default=200, help="passes of each simulated life")
    parser.add_argument("--lives", type=int, default=3, help="simulated lives, with seeds from 0")
    return parser


def measure_world(passes: int, lives: int) -> dict[str, dict[str, float]]:
    """What simulated lives are like, by seed, and how typed actions are read."""
    from wgtorch.blocks.simulation.checker import KINDS, contradictions, is_caused
    from wgtorch.blocks.simulation.lives import live
    from wgtorch.evaluation.simulation import distinct

    found: dict[str, dict[str, float]] = {}
    for seed in range(lives):
        started = time.perf_counter()
        episodes = list(live(seed, passes))
        seconds = (time.perf_counter() - started) / passes
        content, wrong = episodes[-1].after, Counter(entry.kind for entry in contradictions(episodes))
        events = content["events"]
        before = episodes[max(0, passes - 51)].after
        parts = ("places", "characters", "objects", "threads")
        found[f"seed {seed}"] = {
            "distinct-4": distinct([episode.outcome for episode in episodes], content),
            "new facts in the last 50": sum(len(set(content[part]) - set(before[part])) for part in parts),
            **{f"contradictions per 100: {kind}": 100 * wrong[kind] / passes for kind in KINDS},
            "caused by an earlier": sum(any(is_caused(e, events[c - 1]) for c in e["caused_by"]) for e in events) / len(events),
            "events a pass": len(events) / passes,
            "ms a pass, no picture": 1000 * seconds,
            "bytes a pass": len(json.dumps(events)) / passes,
        }
    found["typed actions"] = understood(BlockRegistry.build({"block_type": "reader/trained", "config": {"checkpoint_ref": READER_REF}}))
    return found


def show_world(found: Mapping[str, Mapping[str, float]]) -> None:
    """Prints what :func:`measure_world` gave, a column for each seed."""
    columns = {name: values for name, values in found.items() if name != "typed actions"}
    print("".ljust(34) + "".join(name.rjust(10) for name in columns))
    for row in next(iter(columns.values())):
        print(row.ljust(34) + "".join(f"{values[row]:10.3g}" for values in columns.values()))
    print(f"typed actions read rightly: {found['typed actions']['right']:.1%}; turned round: {found['typed actions']['turned_round']}\n")


def main() -> None:
    args = arguments().parse_args()
    world = measure_world(args.passes, args.lives)
    show_world(world)
    if args.world_only:
        return
    graph = build_template("graph", "text_to_image", {"painter": args.painter})
    assert isinstance(graph, Graph)
    describer = BlockRegistry.build({"block_type": "vlm/scene", "config": {"checkpoint_ref": args.describer}}).eval()
    assert isinstance(describer, SceneDescriber)
    judge = kept_judge(args.root, pictures=args.judge_pictures)

    prompts, free = held_out_prompts(args.prompts), free_prompts() * max(1, args.prompts // 75)
    asked, freely_asked = labels_for(prompts), labels_for(free)
    painted = pictures_from(graph, "prompt", [prompt.text for prompt in prompts], seed=args.seed)
    freely_painted = pictures_from(graph, "prompt", [prompt.text for prompt in free], seed=args.seed + 1000)
    drawings = held_out_drawings(args.drawings, args.root)
    disturbed = disturb(drawings["image"], torch.Generator().manual_seed(args.seed))

    judged = right(judge, painted, asked)
    columns = {
        "painted as asked": shares(judged),
        "as another asked": shares(right(judge, painted, asked.roll(1, 0))),  # what chance would reach
        "in free words": shares(right(judge, freely_painted, freely_asked)),
        "describer on drawn": shares(right(describer.logits, drawings["image"], drawings["labels"])),
        "describer on painted": shares(right(describer.logits, painted, asked)),
        "judge on drawn": shares(right(judge, drawings["image"], drawings["labels"])),
        "judge on disturbed": shares(right(judge, disturbed, drawings["labels"])),
    }
    print(f"\n{len(prompts)} held-out prompts, {len(free)} in free words, {len(disturbed)} held-out drawings\n")
    print(table(columns))
    seconds = seconds_a_picture(graph, {"prompt": "A red castle on the left of a meadow, at dusk"})
    megabytes = sum(path.stat().st_size for path in PACKAGED.glob("*.safetensors")) / 1e6
    print(f"\none picture: {seconds:.2f} s on {torch.get_num_threads()} threads; weights in the package: {megabytes:.1f} MB")
    reached = {
        "time, weather, terrain and landmark painted as asked in 90% of pictures each": min(
            columns["painted as asked"][name] for name in MAIN
        )
        >= 0.9,
        "describer right in 98% of drawings for each attribute": min(columns["describer on drawn"].values()) >= 0.98,
        "a picture in less than 2 s": seconds < 2,
        "weights of less than 10 MB": megabytes < 10,
    }
    print("\n".join(f"{'reached' if done else 'MISSED '}  {what}" for what, done in reached.items()))
    args.out.mkdir(parents=True, exist_ok=True)
    grid = save_sheet(painted[:80], args.out / "pictures.png", columns=10)
    numbers = {"world": world, "shares": columns, "seconds_a_picture": seconds, "megabytes": megabytes, "reached": reached, **vars(args)}
    (args.out / "numbers.json").write_text(json.dumps(numbers, indent=1, default=str) + "\n", encoding="utf-8")
    print(f"pictures: {grid}")


if __name__ == "__main__":
    main()
