#!/usr/bin/env python
"""A training step through Trainable and Lightning against the same step written by hand, and the memory of two adapters.

    python scripts/bench/train.py                     # a LoRA step and a plain one on 33 million weights, and memory
    python scripts/bench/train.py --width 768 --what lora --steps 30

The two loops do the same work on the same modules: one noised step of the backbone, backward, clipping, AdamW over the same
parameters, and the same reading of the loss. They take turns in blocks of steps, so that whatever else the machine does falls
on both. Times are of the processor; ratios are of medians and of minima. The losses of the two have to be equal.
"""

from __future__ import annotations

import argparse
import copy
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
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

FLOW = {"type": "denoising", "prediction": "x0", "schedule": {"kind": "flow", "num_train_timesteps": 1}}
TARGET = 1.05
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
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr)
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


class Turns(pl.Callback):
    """Times Lightning's steps, and lets the hand-written loop have its turn after every ``block`` of them."""

    def __init__(self, hand: Hand, batch: dict[str, Tensor], block: int, warmup: int) -> None:
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
    total = sum(parameter.numel() for parameter in block.parameters())
    trainable = Trainable(block, objective=FLOW, optimizer={"type": "adamw", "lr": args.lr})
    context = wgtorch.lora.wearing(block, "style") if what == "lora" else None
    batch = {"latent": torch.rand(args.batch, 3, 64, 64), "condition": torch.rand(args.batch, 7, 8)}
    objective: Any = trainable.objective
    turns = Turns(Hand(twin, objective.schedule, objective.times, args.lr), batch, args.block, args.warmup)
    steps = args.warmup + args.steps
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightning.pytorch.loggers import CSVLogger

        trainer = pl.Trainer(
            max_steps=steps, accelerator="cpu", gradient_clip_val=1.0, logger=CSVLogger(Path(folder)), enable_checkpointing=False,
            enable_progress_bar=args.bar, enable_model_summary=False, log_every_n_steps=10, callbacks=[turns],
        )  # fmt: skip
        loader: Any = Batches(batch, steps)
        if context is None:
            trainer.fit(trainable, loader)
        else:
            with context, wgtorch.lora.wearing(twin, "style"):
                trainer.fit(trainable, loader)
    worst = max(abs(mine - theirs) / abs(theirs) for mine, theirs in turns.losses)
    assert worst < 1e-4, f"the two loops do not compute the same: {worst}"
    ours, theirs = turns.ours[args.warmup :], turns.theirs[args.warmup :]
    ratio = statistics.median(ours) / statistics.median(theirs)
    least = min(ours) / min(theirs)
    print(
        f"{what}: {total / 1e6:.1f}M weights, {sum(p.numel() for p in block.trainable_parameters()) / 1e6:.2f}M train, batch {args.batch}\n"
        f"  by hand    median {1e3 * statistics.median(theirs):7.1f} ms   least {1e3 * min(theirs):7.1f} ms\n"
        f"  Trainable  median {1e3 * statistics.median(ours):7.1f} ms   least {1e3 * min(ours):7.1f} ms\n"
        f"  ratio      median {ratio:.3f}   least {least:.3f}   (target {TARGET})   losses equal to {worst:.0e}"
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
    parser.add_argument("--what", choices=("lora", "plain", "memory", "all"), default="all")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--depth", type=int, default=7)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--block", type=int, default=5, help="steps until it is the other's turn")
    parser.add_argument("--bar", action="store_true", help="with Lightning's progress bar")
    args = parser.parse_args()
    if args.steps % args.block or args.warmup % args.block:
        parser.error("--steps and --warmup must be multiples of --block")
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for what in ("lora", "plain"):
        if args.what in (what, "all"):
            compare(what, args)
    if args.what in ("memory", "all"):
        memory(args)


if __name__ == "__main__":
    main()
