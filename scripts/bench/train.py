#!/usr/bin/env python
"""A training step through Trainable and Lightning against the same step written by hand, and the memory of two adapters.

    python scripts/bench/train.py                     # all of it: 33 and 35 million weights, about four minutes
    python scripts/bench/train.py --what xl --steps 30              # with pictures, prompts, encoders and autoencoder
    python scripts/bench/train.py --width 768 --what lora --steps 30

The two loops do the same work on the same modules: one noised step of the backbone, backward, clipping, AdamW over the same
parameters, and the same reading of the loss. They take turns, so that whatever else the machine does falls on both. Times are of
the processor; ratios are the median over neighbouring steps, and that of the two minima. The losses of the two have to be equal.

``xl`` is a LoRA step of a model of Stable Diffusion XL's shape, made small: pictures and prompts come in, text encoders and autoencoder
are inside the timing. The loop by hand has prompt embeddings, and means and deviations of latents, ready; so has the cache. It says too
what a step costs without the cache, and what of that is left with it. It needs diffusers and transformers. ``train_before.py`` compares the
same step with that of an older state of this project.

``recipe`` is the loop of diffusers' examples/text_to_image/train_text_to_image_lora.py - Accelerator, UNet with peft's adapters,
DDPMScheduler, gather, clipping, AdamW, its scheduler, and a log line - on latents and text that are ready, as everywhere here; its
draws alone are ours, so that both see the same noise. It needs accelerate, and is left out, with a word, where that is missing.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

import wgtorch
from wgtorch import Block, BlockRegistry, Graph
from wgtorch.train import Trainable
from wgtorch.train.objective import Step
from wgtorch.train.objectives.noising import draw_times
from wgtorch.train.trainable import key_to_seed

UNET = {
    "sample_size": 16, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 256, "attention_head_dim": 8, "layers_per_block": 1,
    "block_out_channels": [128, 256, 384], "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}  # fmt: skip
"""Of Stable Diffusion's kind, with 35 million weights."""
ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]
"""Layers that the recipe puts adapters on."""
NOISE = {"type": "denoising", "prediction": "noise", "schedule": {"kind": "diffusion"}}
FLOW = {"type": "denoising", "prediction": "x0", "schedule": {"kind": "flow", "num_train_timesteps": 1}}
TARGET = 1.05
OF_COMPUTED = 0.6
"""What a step may cost that finds prompt embeddings and latents ready, of one that computes them."""
clock = time.process_time
"""Seconds of the processor that this process has used: what others do on the machine does not count. Run it with one thread."""


def backbone(width: int, depth: int) -> Block:
    """The painter's backbone, wider: 33 million weights at width 640 and depth 7."""
    torch.manual_seed(0)
    block = BlockRegistry.build({"block_type": "backbone/scene", "config": {"width": width, "heads": 8, "depth": depth, "conv_width": 160}})
    for parameter in block.leave.parameters():
        torch.nn.init.normal_(parameter, std=0.02)  # zeros, as it begins, would leave the rest without gradients
    return block


class Batches:
    """One batch again and again: data is no part of what is measured."""

    def __init__(self, batch: dict[str, Tensor], count: int) -> None:
        self.batch, self.count = batch, count

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter([self.batch] * self.count)

    def __len__(self) -> int:
        return self.count


class Hand:
    """The loop written by hand over the same modules."""

    def __init__(self, block: Block, schedule: Any, times: Any, lr: float) -> None:
        self.block, self.schedule, self.times = block, schedule, times
        self.parameters = list(block.trainable_parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, fused=True)
        self.index = 0

    def step(self, batch: dict[str, Tensor]) -> float:
        draws = Step(self.index, torch.Generator().manual_seed(key_to_seed(0, "train", 0, self.index)))
        x0 = batch["latent"]
        timestep, alpha, sigma = draw_times(self.times, self.schedule, len(x0), draws.generator)
        noise = draws.normal(x0)
        x = alpha.view(-1, 1, 1, 1) * x0 + sigma.view(-1, 1, 1, 1) * noise
        loss = (self.block(x, timestep, batch["condition"])["pred"] - x0).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.index += 1
        return loss.item()


class Recipe:
    """The loop of diffusers' training script for LoRA, with accelerate."""

    def __init__(self, block: Block, lr: float, folder: Path) -> None:
        from accelerate import Accelerator
        from accelerate.utils import ProjectConfiguration
        from diffusers import DDPMScheduler, UNet2DConditionModel
        from diffusers.optimization import get_scheduler
        from peft import LoraConfig

        ours: Any = block
        self.accelerator = Accelerator(
            gradient_accumulation_steps=1, cpu=True, project_config=ProjectConfiguration(project_dir=folder, logging_dir=folder)
        )
        unet: Any = UNet2DConditionModel.from_config(ours.model.config)
        unet.requires_grad_(False)
        rank = next(layer.r["style"] for layer in ours.model.modules() if hasattr(layer, "lora_A"))
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ATTENTION), adapter_name="style")
        unet.load_state_dict(ours.model.state_dict())
        self.layers = [parameter for parameter in unet.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(self.layers, lr=lr)
        rates = get_scheduler("constant", optimizer=optimizer)
        self.noising = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        self.unet, self.optimizer, self.rates = self.accelerator.prepare(unet.train(), optimizer, rates)
        self.index = 0

    def step(self, batch: dict[str, Tensor]) -> float:
        generator = torch.Generator().manual_seed(key_to_seed(0, "train", 0, self.index))
        latents, train_loss = batch["latent"], 0.0
        with self.accelerator.accumulate(self.unet):
            timesteps = (torch.rand(len(latents), generator=generator) * self.noising.config.num_train_timesteps).long()
            noise = torch.randn(latents.shape, generator=generator)
            noisy = self.noising.add_noise(latents, noise, timesteps)
            pred = self.unet(noisy, timesteps, batch["condition"], return_dict=False)[0]
            loss = torch.nn.functional.mse_loss(pred.float(), noise.float(), reduction="mean")
            train_loss += self.accelerator.gather(loss.repeat(len(latents))).mean().item()
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.layers, 1.0)
            self.optimizer.step()
            self.rates.step()
            self.optimizer.zero_grad()
        self.accelerator.log({"train_loss": train_loss}, step=self.index)
        self.index += 1
        return train_loss


class Turns(pl.Callback):
    """Times Lightning's steps, and lets the hand-written loop have its turn after every ``block`` of them."""

    def __init__(self, hand: Hand | Recipe | CachedXL, batch: dict[str, Tensor], block: int, warmup: int) -> None:
        self.hand, self.batch, self.block, self.warmup = hand, batch, block, warmup
        self.theirs: list[float] = []
        self.ours: list[float] = []
        self.losses: list[tuple[float, float]] = []
        self.pending: list[float] = []
        self.last = clock()

    def on_train_batch_end(self, trainer: pl.Trainer, trainable: Any, outputs: Any, *args: Any) -> None:
        self.pending.append(float(outputs["loss"]))
        now = clock()
        self.ours.append(now - self.last)
        if len(self.pending) == self.block:
            for mine in self.pending:
                start = clock()
                theirs = self.hand.step(self.batch)
                self.theirs.append(clock() - start)
                self.losses.append((mine, theirs))
            self.pending = []
        self.last = clock()


def compare(what: str, args: argparse.Namespace) -> None:
    """Prints what a step costs both ways."""
    block = backbone(args.width, args.depth)
    if what == "lora":
        print(str(wgtorch.lora.add(block, name="style", rank=args.rank, freeze_base=True)).splitlines()[0])
    twin = copy.deepcopy(block).train()
    trainable = Trainable(block, objective=FLOW, optimizer={"type": "adamw", "lr": args.lr})
    batch = {"latent": torch.rand(args.batch, 3, 64, 64), "condition": torch.rand(args.batch, 7, 8)}
    objective: Any = trainable.objective
    turns = Turns(Hand(twin, objective.schedule, objective.times, args.lr), batch, args.block, args.warmup)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as contexts:
        if what == "lora":
            contexts.enter_context(wgtorch.lora.use_adapter(block, "style"))
            contexts.enter_context(wgtorch.lora.use_adapter(twin, "style"))
        train(trainable, turns, args, Path(folder))
    report(what, "by hand", block, turns, args)


def recipe(args: argparse.Namespace) -> None:
    """Prints what a LoRA step on a UNet costs through Trainable, and by diffusers' training script."""
    if find_spec("accelerate") is None or find_spec("diffusers") is None:
        print("recipe: left out; diffusers' training scripts need accelerate: pip install accelerate diffusers")
        return
    torch.manual_seed(0)
    block = BlockRegistry.build({"block_type": "backbone/unet_2d_condition", "config": {"model": UNET}})
    print(
        str(wgtorch.lora.add(block, name="style", rank=args.rank, target_modules=ATTENTION, freeze_base=True)).splitlines()[0],
    )
    batch = {"latent": torch.randn(args.batch, 4, 16, 16), "condition": torch.randn(args.batch, 77, UNET["cross_attention_dim"])}
    with tempfile.TemporaryDirectory() as folder, wgtorch.lora.use_adapter(block, "style"):
        turns = Turns(Recipe(block, args.lr, Path(folder)), batch, args.block, args.warmup)
        trainable = Trainable(block, objective=NOISE, optimizer={"type": "adamw", "lr": args.lr})
        train(trainable, turns, args, Path(folder))
    report("recipe", "diffusers", block, turns, args)


def xl_model(folder: Path) -> Path:
    """A pipeline of Stable Diffusion XL's parts with random weights, 58 million in the UNet, as diffusers writes it."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    names = ["<|startoftext|>", "<|endoftext|>", *(chr(code) + end for end in ("", "</w>") for code in range(97, 123))]
    (folder / "words").mkdir(parents=True)
    (folder / "words/vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    (folder / "words/merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(vocab=str(folder / "words/vocab.json"), merges=str(folder / "words/merges.txt"), model_max_length=77)
    text = {"vocab_size": 60, "num_hidden_layers": 6, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    first = CLIPTextConfig(hidden_size=256, intermediate_size=1024, num_attention_heads=4, **text)
    second = CLIPTextConfig(hidden_size=384, intermediate_size=1536, num_attention_heads=6, projection_dim=384, **text)
    shape = {
        "sample_size": 16, "in_channels": 4, "out_channels": 4, "block_out_channels": (64, 128, 256), "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"), "cross_attention_dim": 640,
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (2, 4, 8),
        "transformer_layers_per_block": (1, 2, 4), "addition_embed_type": "text_time", "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 384 + 6 * 32, "use_linear_projection": True,
    }  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 128, 128), latent_channels=4, layers_per_block=2, sample_size=128,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    pipeline = StableDiffusionXLPipeline(
        vae=vae, text_encoder=CLIPTextModel(first), text_encoder_2=CLIPTextModelWithProjection(second), tokenizer=tokenizer,
        tokenizer_2=tokenizer, unet=UNet2DConditionModel(**shape), scheduler=EulerDiscreteScheduler(), add_watermarker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder / "xl")
    return folder / "xl"


class CachedXL:
    """The loop by hand over an XL's UNet, with embeddings and the posterior of latents ready."""

    def __init__(self, graph: Graph, schedule: Any, times: Any, batch: dict[str, Any], lr: float) -> None:
        found = graph.run(
            {"prompt": batch["prompt"], "guidance_scale": 1.0}, outputs=["text_encoders.embedding", "text_encoder_2.pooled"], training=False
        )
        self.embedding, self.pooled = (value.detach().clone() for value in found.values())
        with torch.no_grad():
            self.posterior = graph.nodes["codec"].posterior(batch["image"])
        unet = self.block = graph.nodes["backbone"]
        self.unet, self.schedule, self.times = unet.model, schedule, times
        self.parameters = list(unet.trainable_parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, fused=True)
        side = float(batch["image"].shape[-1])
        self.ids = torch.tensor([[side, side, 0.0, 0.0, side, side]]).expand(len(self.embedding), -1)
        self.index = 0

    def step(self, batch: dict[str, Any]) -> float:
        draws = Step(self.index, torch.Generator().manual_seed(key_to_seed(0, "train", 0, self.index)))
        x0 = self.posterior["mean"] + self.posterior["deviation"] * draws.normal(self.posterior["mean"])
        timestep, alpha, sigma = draw_times(self.times, self.schedule, len(x0), draws.generator)
        noise = draws.normal(x0)
        x = alpha.view(-1, 1, 1, 1) * x0 + sigma.view(-1, 1, 1, 1) * noise
        with wgtorch.lora.use_adapter(self.block, "style"):
            told = {"text_embeds": self.pooled, "time_ids": self.ids}
            pred = self.unet(x, timestep, self.embedding, added_cond_kwargs=told, return_dict=False)[0]
        loss = (pred - noise).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.index += 1
        return loss.item()


def xl(args: argparse.Namespace) -> None:
    """Prints what a LoRA step on pictures and prompts costs, with what is frozen kept and computed, and by hand with it ready."""
    if find_spec("diffusers") is None or find_spec("transformers") is None:
        print("xl: left out; it needs diffusers and transformers: pip install 'wgtorch[diffusers]'")
        return
    batch = {"image": torch.rand(args.batch, 3, 128, 128), "prompt": ["a cat", "the old dog of the house"] * (args.batch // 2)}
    with tempfile.TemporaryDirectory() as folder:
        path, medians = xl_model(Path(folder)), []
        for name, cache in (("xl kept", {}), ("xl computed", None)):
            graphs = [Graph.from_diffusers(path) for _ in range(2)]
            for graph in graphs:
                torch.manual_seed(0)
                wgtorch.lora.add(graph, name="style", rank=args.rank, nodes=["backbone"], freeze_base=True)
                graph.train()
            trainable = Trainable(graphs[0], objective="denoising", optimizer={"type": "adamw", "lr": args.lr}, cache=cache)
            objective: Any = trainable.objective
            hand = CachedXL(graphs[1], objective.schedule_of(objective.denoiser(graphs[0])), objective.times, batch, args.lr)
            turns = Turns(hand, batch, args.block, args.warmup)
            train(trainable, turns, args, Path(folder))
            report(name, "by hand", graphs[0].nodes["backbone"], turns, args)
            medians.append(statistics.median(turns.ours[args.warmup :]))
    print(f"xl: a step with what is frozen kept is {medians[0] / medians[1]:.3f} of one that computes it (target {OF_COMPUTED})")


def train(trainable: Trainable, turns: Turns, args: argparse.Namespace, folder: Path) -> None:
    """Lightning's loop, in which the other one takes its turns."""
    from lightning.pytorch.loggers import CSVLogger

    steps = args.warmup + args.steps
    loader: Any = Batches(turns.batch, steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl.Trainer(
            max_steps=steps, accelerator="cpu", gradient_clip_val=1.0, logger=CSVLogger(folder), enable_checkpointing=False,
            enable_progress_bar=args.bar, enable_model_summary=False, log_every_n_steps=10, callbacks=[turns],
        ).fit(trainable, loader)  # fmt: skip


def report(what: str, other: str, block: Block, turns: Turns, args: argparse.Namespace) -> None:
    """Prints both, after their losses have been compared."""
    worst = max(abs(mine - theirs) / abs(theirs) for mine, theirs in turns.losses)
    assert worst < 1e-4, f"the two loops do not compute the same: {worst}"
    ours, theirs = turns.ours[args.warmup :], turns.theirs[args.warmup :]
    total = sum(parameter.numel() for parameter in block.parameters())
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    least = min(ours) / min(theirs)
    print(
        f"{what}: {total / 1e6:.1f}M weights, {sum(p.numel() for p in block.trainable_parameters()) / 1e6:.2f}M train, batch {args.batch}\n"
        f"  {other:<10} median {1e3 * statistics.median(theirs):7.1f} ms   least {1e3 * min(theirs):7.1f} ms\n"
        f"  Trainable  median {1e3 * statistics.median(ours):7.1f} ms   least {1e3 * min(ours):7.1f} ms\n"
        f"  ratio      of neighbours {ratio:.3f}   of the least {least:.3f}   (target {TARGET})   losses equal to {worst:.0e}"
    )


def memory(args: argparse.Namespace) -> None:
    """Prints the bytes of weights of two places with two adapters, and of two copies of the model."""

    def size(graph: Graph) -> int:
        return sum(parameter.numel() * parameter.element_size() for parameter in graph.parameters())

    def two_places(first: Block, second: Block) -> Graph:
        graph = Graph("two")
        graph.add_node(first, "first", auto_connect=False)
        graph.add_node(second, "second", auto_connect=False)
        return graph

    block = backbone(args.width, args.depth)
    shared, copies = two_places(block, block), two_places(block, copy.deepcopy(block))
    alone, double = size(shared), size(copies)
    for name in ("day", "night"):
        wgtorch.lora.add(shared, name=name, rank=args.rank, wear=False)
    shared.set_adapter("first", "day")
    shared.set_adapter("second", "night")
    print(
        f"memory of weights: one model {alone / 2**20:.1f} MiB, two places with two adapters {size(shared) / 2**20:.1f} MiB, "
        f"two copies {double / 2**20:.1f} MiB: {size(shared) / double:.2f} of two copies"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", choices=("lora", "plain", "xl", "recipe", "memory", "all"), default="all")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--depth", type=int, default=7)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--block", type=int, default=1, help="steps until it is the other's turn")
    parser.add_argument("--bar", action="store_true", help="with Lightning's progress bar")
    args = parser.parse_args()
    if args.steps % args.block or args.warmup % args.block:
        parser.error("--steps and --warmup must be multiples of --block")
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for what in ("lora", "plain"):
        if args.what in (what, "all"):
            compare(what, args)
    if args.what in ("xl", "all"):
        xl(args)
    if args.what in ("recipe", "all"):
        recipe(args)
    if args.what in ("memory", "all"):
        memory(args)


if __name__ == "__main__":
    main()
