#!/usr/bin/env python
"""Light worlds in styles that nobody tuned for: small adapters of the painter of pixel scenes, one for each style; the base is frozen.

Training is that of experiment=light_style. Two things are measured of what each paints: which style a classifier sees, that learned from
drawings by other hands; and how many of the attributes of a plan a judge (experiment=default_pixel_judge) still reads. The judge knows no
styles, so it is shown the pictures with the style undone, as far as colours in 8 bits and the palette allow; what it reads of drawings
that went both ways says how far.

python scripts/evaluate_light_styles.py --judge 'outputs/default_pixel_judge/<time>/checkpoints/last#block'
python scripts/evaluate_light_styles.py --judge ... --styles inverted --layers attention --weight 1     # without what keeps the drawing
python scripts/evaluate_light_styles.py --judge ... --styles inverted --no-colours
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.pixel_measures import ATTRIBUTES, agreement, paint, plans_for
from scripts.scene_measures import save_sheet
from wgtorch.blocks.pixel_scenes.describer import PixelSceneDescriber
from wgtorch.blocks.pixel_scenes.palette import snap
from wgtorch.core.block import BlockRegistry
from wgtorch.graph import Graph
from wgtorch.templates.pixel_scenes import PAINTER_REF
from wgtorch.train.fitting import fit
from wgtorch.train.pixel_scenes.data import HANDS, HELD_OUT, STYLES, DrawnPixelScenes, pictures_of

LAYERS: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["qkv", "attend"]},
    "all": {"target_modules": ".+"},
    "ends": {"target_modules": ["merge"], "modules_to_save": ["enter", "leave"]},
}
"""What the adapter is on: a light world's attention; every layer; or one layer beside whole copies of the first and the last."""


def classifier(count: int = 500) -> nn.Module:
    """What tells the styles, and none, apart: a small network that learned from drawings by all hands, of plans of its own."""
    torch.manual_seed(0)
    ways = [lambda x: x, *(style for style, _ in STYLES.values())]
    hands = [DrawnPixelScenes(count, seed="styles", hand=hand) for hand in HANDS]
    drawn = pictures_of([scenes[k] for scenes in hands for k in range(count)])[0]
    net = nn.Sequential(
        nn.Conv2d(3, 24, 4, stride=2), nn.ReLU(), nn.Conv2d(24, 32, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(32 * 16, len(ways)),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(500):
        picked, wanted = torch.randint(len(drawn), (32,)), torch.randint(len(ways), (32,))
        x = torch.cat([ways[way](drawn[k : k + 1]) for k, way in zip(picked.tolist(), wanted.tolist(), strict=True)])
        optimizer.zero_grad()
        F.cross_entropy(net(snap(x)), wanted).backward()
        optimizer.step()
    return net.eval()


@torch.no_grad()
def says(net: nn.Module, pictures: Tensor, style: str | None) -> float:
    """Share of pictures that the classifier takes for a style's; None for pictures of no style."""
    wanted = 0 if style is None else 1 + list(STYLES).index(style)
    return float((net(pictures).argmax(-1) == wanted).float().mean())


def train(style: str, args: argparse.Namespace) -> tuple[Graph, float]:
    """(the painter with an adapter of a style, seconds of the processor)."""
    started = time.process_time()
    graph = Graph.from_template("scene_to_image", painter=args.painter, scale=1)
    kept = {"keep": args.keep, "count": 45_500, "seed": 7} if args.keep else {}
    settings = {
        "data": {
            "type": "pixel_scenes", "style": style, "batch_size": args.batch, "validation": 32, "objects": 0.75, "weight": args.weight,
            **kept,
        },
        "objective": {"type": "denoising", "loss_on": "flow", "times": {"type": "logit_normal", "mean": 0.0, "std": 1.3}},
        "lora": {
            "name": style, "rank": args.rank, **LAYERS[args.layers], "nodes": "backbone", "freeze_base": True,
            "colours": 100 if args.colours else None,
        },
        "optimizer": {"type": "adamw", "lr": args.lr, "weight_decay": 0.0, "schedule": {"type": "cosine", "warmup": 20}},
        "trainer": {
            "max_steps": args.steps, "precision": "bf16-mixed", "accelerator": "cpu", "gradient_clip_val": 1.0, "limit_val_batches": 0,
            "enable_progress_bar": False,
        },
        "ema": {"decay": args.ema} if args.ema else None,
        "checkpoint": {"every": args.steps},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trained = fit(graph, settings, Path(folder))
        if trained.averaging is not None:
            graph.load_weights(Path(folder) / "checkpoints/last")
    return graph.eval(), time.process_time() - started


def row(name: str, style_seen: float, read: dict[str, float], seconds: float | None) -> str:
    """A line of the table."""
    least = min(read, key=lambda name: read[name])
    cost = "-" if seconds is None else f"{seconds:.0f} s"
    return f"{name:<28}{style_seen:>10.1%}{sum(read.values()) / len(read):>12.1%}   {read[least]:.1%} ({least})   {cost}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", required=True, help="checkpoint_ref of the judge")
    parser.add_argument("--painter", default=PAINTER_REF, help="checkpoint_ref of the painter")
    parser.add_argument("--styles", nargs="+", choices=list(STYLES), default=list(STYLES))
    parser.add_argument("--layers", choices=list(LAYERS), default="ends")
    parser.add_argument("--colours", action=argparse.BooleanOptionalAction, default=True, help="the ends begin with the style's colours")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight", type=float, default=4.0, help="what a pixel of a thing counts")
    parser.add_argument("--ema", type=float, default=0.99, help="decay of the averages; 0 for none")
    parser.add_argument("--count", type=int, default=150, help="pictures of each measurement, with four things each")
    parser.add_argument("--keep", help="folder of drawings, as data.keep of experiment=default_pixel_painter with seed 7")
    parser.add_argument("--sheet", type=Path, help="a PNG: a row of pictures of the base, and one of each style")
    args = parser.parse_args()
    args.colours = args.colours and args.layers == "ends"
    torch.set_num_threads(1)
    judge = BlockRegistry.build({"block_type": "vlm/pixel_scene", "config": {"checkpoint_ref": args.judge}}).eval()
    assert isinstance(judge, PixelSceneDescriber)
    net, plans = classifier(), plans_for(args.count, things=4)
    drawn_plans = [DrawnPixelScenes(args.count, seed=HELD_OUT, things=4).plan(k) for k in range(args.count)]
    drawn = pictures_of([DrawnPixelScenes(args.count, seed=HELD_OUT, things=4)[k] for k in range(args.count)])[0]
    base = paint(Graph.from_template("scene_to_image", painter=args.painter, scale=1), plans)
    lines, rows = [row("base, painted", says(net, base, None), agreement(judge, base, plans), None)], [base[:8]]
    for name in args.styles:
        style, back = STYLES[name]
        both_ways = snap(style(drawn))
        lines.append(row(f"{name}, drawn", says(net, both_ways, name), agreement(judge, back(both_ways), drawn_plans), None))
        graph, seconds = train(name, args)
        painted = paint(graph, plans)
        lines.append(row(f"{name}, painted", says(net, painted, name), agreement(judge, back(painted), plans), seconds))
        rows.append(painted[:8])
        print(lines[-2], lines[-1], sep="\n", flush=True)
    print(f"\n{'':<28}{'style seen':>10}{'attributes':>12}   lowest of {len(ATTRIBUTES)}   processor")
    print("\n".join(lines))
    if args.sheet:
        save_sheet(torch.cat(rows), args.sheet, columns=8)


if __name__ == "__main__":
    main()
