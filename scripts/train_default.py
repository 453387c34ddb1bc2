#!/usr/bin/env python
"""Trains the default models on scenes that it draws itself, and writes their weights into the package.

    python scripts/train_default.py data                    # draws the pictures (once, about 3 minutes of one core)
    python scripts/train_default.py text --minutes 4        # prompt -> attribute distributions
    python scripts/train_default.py describer --minutes 6   # picture -> attributes
    python scripts/train_default.py painter --minutes 60    # the flow model; run it again to go on where it stopped
    python scripts/train_default.py evaluate                # accuracy on drawn and on painted pictures, sample grid

Each run keeps its state under outputs/default_models/ and goes on from there (--fresh starts anew); it ends when the
minutes, counted over all its runs, are used up. Everything runs on the CPU; --threads sets how many threads.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from wgtorch.blocks.scenes.backbone import SceneBackbone
from wgtorch.blocks.scenes.describer import SceneDescriber
from wgtorch.blocks.scenes.pretrained import WEIGHTS, load_pretrained
from wgtorch.blocks.scenes.scene import ATTRIBUTES, VOCABULARY, Scene, caption, parse, sentence
from wgtorch.blocks.scenes.text import SceneTextEncoder, SceneTokenizer, condition_from_labels
from wgtorch.core.block import Block

OUT = Path("outputs/default_models")
SIZE = 64
NAMES = tuple(ATTRIBUTES)


# --- data --------------------------------------------------------------------------------------------------------------


def labels_of(attributes: dict[str, str]) -> list[int]:
    """Indices of the values, -1 where an attribute is not named."""
    return [ATTRIBUTES[name].index(attributes[name]) if name in attributes else -1 for name in NAMES]


def draw_part(job: tuple[int, int, int]) -> None:
    from wgtorch.blocks.scenes.drawing import draw

    seed, start, stop = job
    pictures = np.load(OUT / "pictures.npy", mmap_mode="r+")
    labels = np.load(OUT / "labels.npy", mmap_mode="r+")
    for k in range(start, stop):
        scene = Scene.sample(random.Random(f"{seed}/{k}"))
        pictures[k] = draw(scene, seed=k, size=SIZE)
        labels[k] = labels_of(scene.attributes())


def make_data(args: argparse.Namespace) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    np.lib.format.open_memmap(OUT / "pictures.npy", "w+", np.uint8, (args.pictures, SIZE, SIZE, 3))
    np.lib.format.open_memmap(OUT / "labels.npy", "w+", np.int8, (args.pictures, len(NAMES)))
    jobs = [(args.seed, start, min(start + 1000, args.pictures)) for start in range(0, args.pictures, 1000)]
    with multiprocessing.Pool(args.processes) as pool:
        for _ in tqdm(pool.imap_unordered(draw_part, jobs), total=len(jobs), desc="drawing", unit="k"):
            pass


def batches(size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures [B, 3, 64, 64] in [0, 1] and labels [B, 7], for ever, each epoch in another order."""
    pictures = np.load(OUT / "pictures.npy", mmap_mode="r")
    labels = torch.from_numpy(np.load(OUT / "labels.npy")).long()
    while True:
        order = torch.randperm(len(labels), generator=generator)
        for chosen in order.split(size)[: len(order) // size]:
            batch = torch.from_numpy(pictures[np.sort(chosen.numpy())])
            yield batch.permute(0, 3, 1, 2).float() / 255, labels[chosen.sort().values]


# --- the loop ------------------------------------------------------------------------------------------------------------


def train(
    name: str,
    model: Block,
    loss_of: Callable[[torch.Generator], Iterator[Tensor]],
    args: argparse.Namespace,
    *,
    optimizers: list[torch.optim.Optimizer],
    ema_decay: float,
    trained_on: str,
    report: Callable[[nn.Module, int], None] = lambda model, step: None,
    report_every: float = 600,
) -> None:
    """Trains for args.minutes with a linear warm-up and, over the last 30 %, a linear decay; exports an EMA of the weights."""
    state_file = OUT / f"{name}.pt"
    ema = {key: value.clone().float() for key, value in model.state_dict().items()}
    step, spent = 0, 0.0
    if state_file.exists() and not args.fresh:
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        ema, step, spent = state["ema"], state["step"], state["spent"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def save() -> None:
        state = {"model": model.state_dict(), "ema": ema, "step": step, "spent": spent}
        write(state_file, lambda path: torch.save(state | {"optimizers": [o.state_dict() for o in optimizers]}, path))
        export(name, model, ema, f"{trained_on}; {step} steps in {spent / 60:.0f} minutes on a CPU; seed {args.seed}")
        averaged = type(model).from_config(model.config)
        averaged.load_state_dict(ema)
        report(averaged.eval(), step)

    generator = torch.Generator().manual_seed(args.seed + step)
    torch.manual_seed(args.seed + step)
    losses, last, last_report, mean = loss_of(generator), time.monotonic(), spent, float("nan")
    bar = tqdm(total=round(60 * args.minutes), initial=round(spent), desc=name, unit="s", mininterval=10)
    while spent < 60 * args.minutes:
        decay = min(1.0, (1 - spent / (60 * args.minutes)) / 0.3)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * min(1.0, (step + 1) / 200) * max(decay, 0.01)
        loss = next(losses)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        weight = 1 - min(ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, value in model.state_dict().items():
                ema[key].lerp_(value.float(), weight)
        if not math.isfinite(value := loss.item()):
            raise FloatingPointError(f"{name}: the loss is {value} at step {step}")
        mean = value if math.isnan(mean) else 0.99 * mean + 0.01 * value
        now = time.monotonic()
        step, spent, last = step + 1, spent + now - last, now
        bar.update(round(spent) - bar.n)
        bar.set_postfix(step=step, loss=f"{mean:.4f}", refresh=False)
        if spent - last_report > report_every:
            save()
            last_report, last = spent, time.monotonic()
    bar.close()
    save()


def write(path: Path, writer: Callable[[Path], None]) -> None:
    """Writes a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    writer(part)
    part.chmod(0o644)
    part.replace(path)


def export(name: str, model: Block, weights: dict[str, Tensor], trained_on: str) -> None:
    half = {key: value.half().contiguous() for key, value in weights.items()}
    metadata = {
        "format": "pt",
        "block_type": model.block_type,
        "config": json.dumps(model.config),
        "trained_by": f"scripts/train_default.py {name}",
        "trained_on": trained_on,
        "license": "Apache-2.0",
    }
    write(WEIGHTS / f"scene_{name}.safetensors", lambda path: save_file(half, path, metadata=metadata))


# --- text ----------------------------------------------------------------------------------------------------------------

_FILLERS = ("the a of and in on it was then they into over slowly again old new city people story world wind light one who came").split()  # noqa: SIM905


def training_text(rng: random.Random) -> str:
    """A caption, a sentence, a part of one, or one within other words: labelled by `parse`, so any text will do."""
    scene = Scene.sample(rng)
    kind = rng.random()
    if kind < 0.55:
        return caption(scene, rng)
    if kind < 0.65:
        have = scene.attributes()
        return sentence({name: value for name, value in have.items() if rng.random() < 0.85})
    if kind < 0.8:  # a soup of known words, unknown ones and fillers
        pools = (VOCABULARY, _FILLERS, ("qqq",))
        return " ".join(rng.choice(rng.choices(pools, (2, 3, 1))[0]) for _ in range(rng.randint(1, 16)))
    text = caption(scene, rng).split()
    for _ in range(rng.randint(1, 6)):
        text.insert(rng.randrange(len(text) + 1), rng.choice(rng.choice((_FILLERS, ("qqq",), VOCABULARY))))
    return " ".join(text)


def train_text(args: argparse.Namespace) -> None:
    tokenizer, model = SceneTokenizer(), SceneTextEncoder()
    sizes = [len(values) for values in ATTRIBUTES.values()]

    def losses(generator: torch.Generator) -> Iterator[Tensor]:
        rng = random.Random(generator.initial_seed())
        while True:
            texts = [training_text(rng) for _ in range(128)]
            tokens = tokenizer(texts)["tokens"]
            tokens = tokens[:, : max(4, int((tokens != 0).sum(1).max()))]
            targets = torch.tensor([labels_of(parse(text)) for text in texts])
            logits = model.logits(tokens)
            yield sum(F.cross_entropy(z, torch.where(y < 0, size, y)) for z, y, size in zip(logits, targets.T, sizes, strict=True))

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    train(
        "text",
        model,
        losses,
        args,
        optimizers=[optimizer],
        ema_decay=0.998,
        trained_on="captions, sentences and word soups labelled by the grammar",
    )
    evaluate_text()


@torch.no_grad()
def evaluate_text() -> None:
    tokenizer, model, rng = SceneTokenizer(), load_pretrained("text"), random.Random("held out")
    texts = [caption(Scene.sample(rng), rng) for _ in range(2000)]
    guess = model(tokenizer(texts)["tokens"])["embedding"].argmax(-1)
    truth = condition_from_labels(torch.tensor([labels_of(parse(text)) for text in texts])).argmax(-1)
    print("text, held-out captions:", {name: f"{v:.2%}" for name, v in zip(NAMES, (guess == truth).float().mean(0).tolist(), strict=True)})


# --- describer -----------------------------------------------------------------------------------------------------------


def disturb(image: Tensor, generator: torch.Generator) -> Tensor:
    """Blurs, re-samples, adds noise to and re-lights pictures [B, 3, S, S] in [0, 1], each in its own measure."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(image), 1, 1, 1, generator=generator)

    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    soft = image
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        soft = F.conv2d(F.pad(soft, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    image = torch.lerp(image, soft, (uniform(-0.6, 1)).clamp(min=0))
    image = image * uniform(0.9, 1.1) + uniform(-0.04, 0.04)
    coarse = F.interpolate(torch.randn(len(image), 3, 16, 16, generator=generator), scale_factor=4, mode="bilinear")
    image = image + uniform(-0.06, 0.06).clamp(min=0) * coarse
    image = image + uniform(-0.1, 0.12).clamp(min=0) * torch.randn(image.shape, generator=generator)
    return image.clamp(0, 1)


def train_describer(args: argparse.Namespace) -> None:
    model = SceneDescriber()

    def losses(generator: torch.Generator) -> Iterator[Tensor]:
        for image, labels in batches(64, generator):
            image = disturb(image, generator)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model.logits(image)
            yield sum(
                F.cross_entropy(z.float(), y, ignore_index=-1, label_smoothing=0.02) for z, y in zip(logits.values(), labels.T, strict=True)
            )

    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    train(
        "describer",
        model,
        losses,
        args,
        optimizers=[optimizer],
        ema_decay=0.998,
        trained_on="drawn scenes with blur, noise and changed brightness",
    )
    print("describer, fresh drawings:", percent(describer_accuracy(load_pretrained("describer"), 1000)))


def fresh_drawings(count: int) -> tuple[Tensor, Tensor]:
    from wgtorch.blocks.scenes.drawing import draw

    rng = random.Random("held out")
    scenes = [Scene.sample(rng) for _ in range(count)]
    pictures = np.stack([draw(scene, seed=10**9 + k) for k, scene in enumerate(scenes)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255, torch.tensor([labels_of(s.attributes()) for s in scenes])


@torch.no_grad()
def agreement(model: SceneDescriber, pictures: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of pictures in which each attribute that was asked for is seen."""
    guesses = [z.argmax(-1) for z in model.logits(pictures).values()]
    return {name: (g == y)[y >= 0].float().mean().item() for name, g, y in zip(NAMES, guesses, labels.T, strict=True)}


def describer_accuracy(model: SceneDescriber, count: int) -> dict[str, float]:
    return agreement(model, *fresh_drawings(count))


def percent(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1%}" for name, value in values.items())


# --- painter -------------------------------------------------------------------------------------------------------------


def train_painter(args: argparse.Namespace) -> None:
    model = SceneBackbone()
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("blocks.") and "modulation" not in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers = [
        torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.lr, weight_decay=0.0, betas=(0.9, 0.98)),
    ]

    def losses(generator: torch.Generator) -> Iterator[Tensor]:
        for image, labels in batches(args.batch, generator):
            x0 = 2 * image - 1
            count = len(x0)
            # unconditional in a tenth of the cases, otherwise each attribute left out with probability 0.1 (CFG)
            left_out = torch.rand(labels.shape, generator=generator) < 0.1
            left_out |= torch.rand(count, 1, generator=generator) < 0.1
            condition = condition_from_labels(labels.masked_fill(left_out, -1))
            t = torch.sigmoid(-0.3 + 1.2 * torch.randn(count, generator=generator)).clamp(min=1e-3)
            noise = torch.randn(x0.shape, generator=generator)
            wide = t.view(-1, 1, 1, 1)
            with torch.autocast("cpu", torch.bfloat16):
                pred = model((1 - wide) * x0 + wide * noise, t, condition)["pred"]
            yield ((pred.float() - x0) / wide).square().mean()  # the loss of the velocity (x_t - pred) / t

    train(
        "painter",
        model,
        losses,
        args,
        optimizers=optimizers,
        ema_decay=0.9985,
        trained_on=f"drawn scenes, batches of {args.batch}",
        report=report_painter,
        report_every=60 * args.report,
    )


@torch.no_grad()
def paint(
    model: SceneBackbone, labels: Tensor, seed: int, *, steps: int = 16, guidance: float = 2.0, interval: tuple[float, float] = (0.05, 0.7)
) -> Tensor:
    """Pictures [B, 3, 64, 64] in [0, 1]: Euler's method from t = 1 to 0, guidance within an interval of t
    (Kynkaanniemi et al. 2024, https://arxiv.org/abs/2404.07724)."""
    x = torch.randn(len(labels), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    condition, nothing = condition_from_labels(labels), condition_from_labels(torch.full_like(labels, -1))
    times = torch.linspace(1, 0, steps + 1)
    for t, following in itertools.pairwise(times):
        pred = model(x, t, condition)["pred"]
        if interval[0] <= t <= interval[1]:
            without = model(x, t, nothing)["pred"]
            pred = without + guidance * (pred - without)
        x = x + (following - t) * (x - pred) / t
    return (x / 2 + 0.5).clamp(0, 1)


def held_out_labels(count: int) -> Tensor:
    rng = random.Random("held-out prompts")
    return torch.tensor([labels_of(Scene.sample(rng).attributes()) for _ in range(count)])


def save_grid(pictures: Tensor, path: Path, columns: int = 10, scale: int = 2) -> None:
    pixels = (pictures.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    side = SIZE * scale + 4
    rows = -(-len(pixels) // columns)
    grid = Image.new("RGB", (columns * side, rows * side), "white")
    for k, picture in enumerate(pixels):
        grid.paste(
            Image.fromarray(picture).resize((SIZE * scale,) * 2, Image.Resampling.NEAREST), (k % columns * side, k // columns * side)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.save(path)


def report_painter(model: nn.Module, step: int, count: int = 60) -> None:
    labels = held_out_labels(count)
    pictures = paint(model, labels, seed=1)
    save_grid(pictures, OUT / "samples" / f"painter-{step:06d}.png")
    if (WEIGHTS / "scene_describer.safetensors").exists():
        seen = percent(agreement(load_pretrained("describer"), pictures, labels))
        with (OUT / "painter.log").open("a") as log:
            log.write(f"step {step}: {seen}\n")


def evaluate(args: argparse.Namespace) -> None:
    evaluate_text()
    describer, painter = load_pretrained("describer"), load_pretrained("painter")
    print("describer, fresh drawings:", percent(describer_accuracy(describer, 1000)))
    labels = held_out_labels(args.count)
    start = time.perf_counter()
    pictures = torch.cat([paint(painter, part, seed=k) for k, part in enumerate(labels.split(50))])
    print(f"painter: {(time.perf_counter() - start) / len(labels):.2f} s a picture")
    print("painted pictures, as the describer sees them:", percent(agreement(describer, pictures, labels)))
    save_grid(pictures[:80], OUT / "samples" / "evaluate.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("data", "text", "describer", "painter", "evaluate"))
    parser.add_argument("--minutes", type=float, default=10, help="training time, over all runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="start anew")
    parser.add_argument("--pictures", type=int, default=120_000, help="data: how many to draw")
    parser.add_argument("--processes", type=int, default=2, help="data: how many draw")
    parser.add_argument("--batch", type=int, default=64, help="painter: pictures in a batch")
    parser.add_argument("--lr", type=float, default=2e-3, help="painter: highest learning rate")
    parser.add_argument("--report", type=float, default=10, help="painter: minutes between exports and sample grids")
    parser.add_argument("--count", type=int, default=200, help="evaluate: pictures to paint")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    OUT.mkdir(parents=True, exist_ok=True)
    run = {"data": make_data, "text": train_text, "describer": train_describer, "painter": train_painter, "evaluate": evaluate}
    run[args.what](args)


if __name__ == "__main__":
    main()
