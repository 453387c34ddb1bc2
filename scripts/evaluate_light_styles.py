#!/usr/bin/env python
"""Light worlds in styles that nobody tuned for: small adapters of the painter of pixel scenes, one for each style; the base is frozen.

Two things are measured of what each paints: which style a classifier sees, that learned from drawings by other hands; and how many of
the attributes of a plan a judge (experiment=default_pixel_judge) still reads. The judge knows no styles, so it is shown the pictures
with the style undone, as far as colours in 8 bits and the palette allow; what it reads of drawings that went both ways says how far.

python scripts/evaluate_light_styles.py --judge 'outputs/default_pixel_judge/<time>/checkpoints/last#block'
python scripts/evaluate_light_styles.py --judge ... --styles negative --layers attention --weight 1     # without what keeps the drawing
python scripts/evaluate_light_styles.py --judge ... --styles negative --no-colours
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgtorch import lora
from wgtorch.blocks.pixel_scenes import PixelSceneDescriber
from wgtorch.blocks.pixel_scenes.palette import snap
from wgtorch.core.block import BlockRegistry
from wgtorch.graph import Graph
from wgtorch.templates.pixel_scenes import PAINTER_REF
from wgtorch.train.fitting import fit
from wgtorch.train.pixel_scenes.data import HANDS, HELD_OUT, DrawnPixelScenes, PixelScenes, pictures_of
from wgtorch.train.pixel_scenes.evaluation import ATTRIBUTES, agreement, paint, plans_for
from wgtorch.train.scenes.grids import grid_of, save_png

_LINES = torch.tensor([1.0, 0.6]).repeat(32).view(1, 1, 64, 1)
STYLES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "negative": (lambda x: 1 - x, lambda x: 1 - x),
    "turned": (lambda x: x[:, [1, 2, 0]], lambda x: x[:, [2, 0, 1]]),
    "screen": (lambda x: x * _LINES, lambda x: (x / _LINES).clamp(0, 1)),
}
"""(a style, the way back) of pictures [B, 3, 64, 64] in [0, 1]: inverted colours, colours a third of the wheel on, a screen's lines."""
LAYERS: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["qkv", "attend"]},
    "all": {"target_modules": ".+"},
    "ends": {"target_modules": ["merge"], "modules_to_save": ["enter", "leave"]},
}
"""What the adapter is on: a light world's attention; every layer; or one layer beside whole copies of the first and the last."""


class Styled(PixelScenes):
    """Drawings of the painter's hand in a style, with their plans."""

    def __init__(self, style: Callable[[Tensor], Tensor], **options: Any) -> None:
        super().__init__(**options)
        self.collate = lambda items: self._styled(PixelScenes.collate(items), style)  # type: ignore[method-assign]

    @staticmethod
    def _styled(batch: dict[str, Tensor], style: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        image = style(batch["image"])
        return {**batch, "image": image, "latent": image * 2 - 1}


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


@torch.no_grad()
def fit_colours(graph: Graph, style: str, count: int = 100) -> tuple[Tensor, Tensor]:
    """The affine map of colours in [-1, 1], M [3, 3] and b [3], from what the base paints of plans to drawings of them in the style.

    Colours are compared as means of squares of 8 pixels, since the two do not agree in every pixel.
    """
    scenes = DrawnPixelScenes(count, seed="colours", things=4)
    wanted = STYLES[style][0](pictures_of([scenes[k] for k in range(count)])[0]) * 2 - 1
    painted = paint(graph, [scenes.plan(k) for k in range(count)]) * 2 - 1
    x, y = (F.avg_pool2d(each, 8).movedim(1, -1).flatten(0, -2) for each in (painted, wanted))
    found = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], dim=1), y).solution  # [4, 3]
    return found[:3].T, found[3]


@torch.no_grad()
def begin_with_colours(painter: Any, style: str, colours: Tensor, offset: Tensor) -> None:
    """Has the copies of the first and the last layer take the base's middle to the style's colours: M^-1 enters, M leaves."""
    enter, leave = painter.enter.modules_to_save[style], painter.leave.modules_to_save[style]
    back = torch.linalg.inv(colours)
    weight = enter.weight.unflatten(1, (3, -1))  # [out, 3, 16, 3, 3]
    enter.weight.copy_(torch.einsum("odkhw,dc->ockhw", weight, back).flatten(1, 2))
    leave.weight.copy_(torch.einsum("cd,dkihw->ckihw", colours, leave.weight.unflatten(0, (3, -1))).flatten(0, 1))
    leave.bias.copy_((colours @ leave.bias.unflatten(0, (3, -1)) + offset.unsqueeze(1)).flatten())


def train(style: str, args: argparse.Namespace) -> tuple[Graph, float]:
    """(the painter with an adapter of a style, seconds of the processor)."""
    started = time.process_time()
    graph = Graph.from_template("scene_to_image", painter=args.painter, scale=1)
    colours = fit_colours(graph, style) if args.colours else None
    report = lora.add(graph, style, rank=args.rank, **LAYERS[args.layers], nodes=["backbone"], freeze_base=True)
    print(str(report).splitlines()[0])
    if colours is not None:
        begin_with_colours(graph.nodes["backbone"], style, *colours)
    kept = {"keep": args.keep, "count": 45_500, "seed": 7} if args.keep else {}
    settings = {
        "data": Styled(STYLES[style][0], batch_size=args.batch, validation=32, objects=0.75, weight=args.weight, **kept),
        "objective": {"type": "denoising", "loss_on": "flow", "times": {"type": "logit_normal", "mean": 0.0, "std": 1.3}},
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
        save_png(grid_of(torch.cat(rows), columns=8, scale=2), args.sheet)


if __name__ == "__main__":
    main()
