#!/usr/bin/env python
"""Measures the painter of pixel scenes with the describer that ships and with a judge, and both of them with drawings.

The describer learned from drawings by other hands than the painter's, a judge (experiment=default_pixel_judge) by hands of its own.

python scripts/evaluate_pixel_scenes.py
python scripts/evaluate_pixel_scenes.py --painter 'outputs/default_pixel_painter/<time>/checkpoints/last#backbone' --count 200
python scripts/evaluate_pixel_scenes.py --judge 'outputs/default_pixel_judge/<time>/checkpoints/last#block'
python scripts/evaluate_pixel_scenes.py --sheet /tmp/hundred.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.pixel_measures import ATTRIBUTES, agreement, paint, plans_for, same_character
from scripts.scene_measures import save_sheet, seconds_a_picture, table
from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.core.block import BlockRegistry
from wgtorch.graph import Graph
from wgtorch.templates.pixel_scenes import DESCRIBER_REF, PAINTER_REF
from wgtorch.train.pixel_scenes.data import HELD_OUT, DrawnPixelScenes, pictures_of


def arguments() -> argparse.ArgumentParser:
    """The program's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--painter", default=PAINTER_REF, help="checkpoint_ref of the painter")
    parser.add_argument("--describer", default=DESCRIBER_REF, help="checkpoint_ref of the describer")
    parser.add_argument("--judge", help="checkpoint_ref of a judge, which measures too")
    parser.add_argument("--steps", type=int, default=10, help="solver steps")
    parser.add_argument(
        "--count", type=int, default=300, help="pictures of each measurement; of one thing four times as many, so many of each sort"
    )
    parser.add_argument("--sheet", type=Path, help="a PNG of 100 pictures, to look at")
    return parser


def main() -> None:
    args = arguments().parse_args()
    torch.set_num_threads(1)
    graph = Graph.from_template("scene_to_image", painter=args.painter, steps=args.steps)
    measured = {"none": (0, None), "one": (1, False), "one held out": (1, True), "four": (4, False), "four held out": (4, True)}
    plans = {
        title: plans_for(4 * args.count if things == 1 else args.count, things=things, held_out=held_out)
        for title, (things, held_out) in measured.items()
    }
    pictures = {title: paint(graph, found) for title, found in plans.items()}
    drawn = DrawnPixelScenes(args.count, seed=HELD_OUT, things=4)
    plans["four drawn"] = [drawn.plan(k) for k in range(args.count)]
    pictures["four drawn"] = pictures_of([drawn[k] for k in range(args.count)])[0]
    for name, ref in {"the describer": args.describer, "the judge": args.judge}.items():
        if ref is None:
            continue
        reader = BlockRegistry.build({"block_type": "vlm/pixel_scene", "config": {"checkpoint_ref": ref}}).eval()
        assert isinstance(reader, PixelSceneDescriber)
        print(f"what {name} sees of {', '.join(f'{len(found)} ({title})' for title, found in plans.items())} pictures:")
        print(table({title: agreement(reader, pictures[title], plans[title]) for title in plans}, ATTRIBUTES))
        print(f"the same character told from another by {name}: {same_character(graph, reader, pairs=args.count):.1%}")
    print(f"seconds a picture: {seconds_a_picture(graph, {'scene': plans_for(1, things=4)[0]}):.3f}")
    if args.sheet:
        save_sheet(paint(graph, plans_for(100)), args.sheet, columns=10)


if __name__ == "__main__":
    main()
