#!/usr/bin/env python
"""A Stable Diffusion of 1.5 million weights that paints coloured shapes, to try recipes on a CPU; and pictures to try them with.

It is trained here from nothing, in about ten minutes of one core, and written as diffusers writes its folders. Words that it knows are in
docs/training.md, with what LoRA and DreamBooth make of it.

python scripts/small_diffusion.py model my_model
python scripts/small_diffusion.py pictures my_pictures --kind neon     # 20 in a style it never saw, with captions beside
python scripts/small_diffusion.py pictures my_star --kind badge        # 6 of one thing
python scripts/small_diffusion.py pictures my_stars --kind class --shape star --count 40
python scripts/small_diffusion.py paint my_model before.png "a red circle on white" "a blue star on yellow" --lora <run>/lora
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgtorch.train.data.base import Data

SIZE, INNER = 64, 4  # pixels, and how often finer it is drawn
COLOURS = {
    "red": (214, 40, 40), "green": (48, 160, 72), "blue": (42, 92, 200), "yellow": (244, 204, 48), "purple": (130, 60, 170),
    "orange": (240, 130, 40), "white": (245, 245, 240), "black": (30, 30, 36),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "cross")
WORDS = ("a", "on", "sks", *COLOURS, *SHAPES)


def draw(shape: str, colour: str, ground: str, rng: random.Random, kind: str = "plain") -> Any:
    """A picture of a shape somewhere near the middle: ``plain``, ``neon`` (an outline that glows in the dark) or a striped ``badge``."""
    from PIL import Image, ImageDraw, ImageFilter

    side = SIZE * INNER
    radius, turn = side * rng.uniform(0.24, 0.34), rng.uniform(-0.3, 0.3)
    x, y = (side / 2 + side * rng.uniform(-0.1, 0.1) for _ in range(2))
    picture = Image.new("RGB", (side, side), COLOURS[ground] if kind != "neon" else (12, 10, 30))
    pen = ImageDraw.Draw(picture)
    points = _outline(shape, x, y, radius, turn)
    if kind == "neon":
        pen.line([*points, points[0], points[1]], fill=COLOURS[colour], width=side // 22, joint="curve")
        glow = picture.filter(ImageFilter.GaussianBlur(side // 24))
        picture = Image.blend(picture, Image.eval(glow, lambda value: min(255, 2 * value)), 0.5)
    else:
        pen.polygon(points, fill=COLOURS[colour])
    if kind == "badge":  # the same shape again inside, and again
        for share, inner in ((0.72, "white"), (0.46, "purple"), (0.2, "yellow")):
            pen.polygon(_outline(shape, x, y, radius * share, turn), fill=COLOURS[inner])
    return picture.resize((SIZE, SIZE), Image.Resampling.BOX)


def _outline(shape: str, x: float, y: float, radius: float, turn: float) -> list[tuple[float, float]]:
    if shape == "cross":
        a, b = 0.34, 1.0
        corners = [(a, b), (a, a), (b, a), (b, -a), (a, -a), (a, -b), (-a, -b), (-a, -a), (-b, -a), (-b, a), (-a, a), (-a, b)]
        cos, sin = math.cos(turn), math.sin(turn)
        return [(x + radius * (cos * u - sin * v), y + radius * (sin * u + cos * v)) for u, v in corners]
    count, start = {"circle": (48, 0.0), "square": (4, math.pi / 4), "triangle": (3, -math.pi / 2), "star": (10, -math.pi / 2)}[shape]
    lengths = [radius * (0.45 if shape == "star" and k % 2 else 1.0) for k in range(count)]
    angles = [start + turn + 2 * math.pi * k / count for k in range(count)]
    return [(x + length * math.cos(angle), y + length * math.sin(angle)) for length, angle in zip(lengths, angles, strict=True)]


def any_words(rng: random.Random, shape: str | None = None) -> tuple[str, str, str]:
    """(shape, colour, ground) by chance; the ground is of another colour."""
    colour, ground = rng.sample(list(COLOURS), 2)
    return shape or rng.choice(SHAPES), colour, ground


class Shapes(Data):
    """Plain pictures with their captions: ``image`` [B, 3, 64, 64] in [0, 1] and ``prompt``."""

    def __init__(self, count: int, batch_size: int = 16) -> None:
        super().__init__(batch_size=batch_size)
        rng = random.Random(0)
        words = [any_words(rng) for _ in range(count)]
        self.items = [
            {"image": _tensor(draw(*each, rng)), "prompt": f"a {colour} {shape} on {ground}"}
            for each in words
            for shape, colour, ground in (each,)
        ]

    def train(self) -> Any:
        return self.items


def _tensor(picture: Any) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def pipeline_of(folder: Path) -> Any:
    """The parts, with random weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    names = ["<|startoftext|>", "<|endoftext|>", *(chr(code) + end for end in ("", "</w>") for code in range(97, 123))]
    merges: list[str] = []
    for word in WORDS:  # each word one token, where no other takes its letters first
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges += [] if f"{parts[0]} {parts[1]}" in merges else [f"{parts[0]} {parts[1]}"]
            parts = [parts[0] + parts[1], *parts[2:]]
            names += [] if parts[0] in names else [parts[0]]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    tokenizer = CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=12)
    text = CLIPTextConfig(
        vocab_size=len(names), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=12, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(24, 48), latent_channels=4, layers_per_block=1, norm_num_groups=8, sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, mid_block_add_attention=False,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=SIZE // 2, in_channels=4, out_channels=4, block_out_channels=(32, 64, 96), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=8,
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=64,
    )  # fmt: skip
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False)
    return StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def train_autoencoder(vae: Any, images: Tensor, steps: int) -> None:
    """Pictures to latents of about unit variance and back."""
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        x = images[torch.randint(len(images), (16,))] * 2 - 1
        posterior = vae.encode(x).latent_dist
        loss = F.l1_loss(vae.decode(posterior.sample()).sample, x) + 1e-5 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"autoencoder, step {step + 1}: {float(loss):.4f}", flush=True)
    with torch.no_grad():
        vae.register_to_config(scaling_factor=float(1 / vae.encode(images[:200] * 2 - 1).latent_dist.mean.std()))


def make_model(folder: Path, args: argparse.Namespace) -> None:
    """Trains it: the autoencoder by itself, then UNet and text encoder by Lightning."""
    from wgtorch import Graph
    from wgtorch.train.fitting import fit

    data = Shapes(args.count)
    with tempfile.TemporaryDirectory() as name:
        pipeline = pipeline_of(Path(name) / "words")
        train_autoencoder(pipeline.vae, torch.stack([item["image"] for item in data.items]), args.autoencoder_steps)
        pipeline.save_pretrained(Path(name) / "start")
        graph = Graph.from_diffusers(Path(name) / "start")
        graph.train()
        settings = {
            "data": data,
            "objective": {"type": "denoising", "drop_condition": 0.1},
            "optimizer": {"type": "adamw", "lr": 2e-3, "weight_decay": 0.01, "schedule": {"type": "cosine", "warmup": 50}},
            "freeze": ["codec*", "encoder*"] if "encoder" in graph.nodes else ["codec*"],
            "cache": {},
            "ema": {"decay": 0.995},
            "checkpoint": {"every": args.steps},
            "trainer": {"max_steps": args.steps, "accelerator": "cpu", "gradient_clip_val": 1.0, "enable_progress_bar": False},
        }
        trained = fit(graph, settings, Path(name) / "run")
        with trained.averaged():
            graph.to_diffusers(folder)


def make_pictures(folder: Path, args: argparse.Namespace) -> None:
    """Pictures, and captions as text files beside them."""
    folder.mkdir(parents=True)
    rng = random.Random(args.kind)
    for index in range(args.count or {"neon": 20, "badge": 6, "class": 40}[args.kind]):
        shape, colour, ground = any_words(rng, args.shape or ("star" if args.kind != "neon" else None))
        if args.kind == "badge":
            colour, ground = "red", rng.choice(["white", "green", "yellow", "black"])
        draw(shape, colour, ground, rng, {"class": "plain"}.get(args.kind, args.kind)).save(folder / f"{index:02}.png")
        what = f"a {colour} {shape}" if args.kind == "neon" else f"a sks {shape}" if args.kind == "badge" else f"a {colour} {shape}"
        (folder / f"{index:02}.txt").write_text(f"{what} on {ground}\n")


def paint(folder: Path, args: argparse.Namespace) -> None:
    """A row of pictures by diffusers itself."""
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    if args.lora:
        pipeline.load_lora_weights(args.lora)
    rows = []
    for prompt in args.prompts:
        generator = torch.Generator().manual_seed(args.seed)
        rows.append(pipeline(prompt, num_inference_steps=30, guidance_scale=4.0, height=SIZE, width=SIZE, generator=generator).images[0])
    sheet = Image.new("RGB", (len(rows) * (SIZE + 2) - 2, SIZE), "white")
    for index, picture in enumerate(rows):
        sheet.paste(picture, (index * (SIZE + 2), 0))
    sheet.save(args.file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    model, pictures, painted = (commands.add_parser(name) for name in ("model", "pictures", "paint"))
    for command in (model, pictures, painted):
        command.add_argument("folder", type=Path)
    model.add_argument("--count", type=int, default=1500)
    model.add_argument("--steps", type=int, default=1500)
    model.add_argument("--autoencoder-steps", type=int, default=400)
    pictures.add_argument("--kind", choices=("neon", "badge", "class"), required=True)
    pictures.add_argument("--shape", choices=SHAPES)
    pictures.add_argument("--count", type=int)
    painted.add_argument("file", type=Path)
    painted.add_argument("prompts", nargs="+")
    painted.add_argument("--lora", type=Path)
    painted.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"model": make_model, "pictures": make_pictures, "paint": paint}[args.command](args.folder, args)


if __name__ == "__main__":
    main()
