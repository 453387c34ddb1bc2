#!/usr/bin/env python
"""A LoRA step of a model of Stable Diffusion XL's shape beside the same step of an older state of this project, in turns.

    git worktree add ../before <commit>
    python scripts/bench/train_before.py ../before

Two processes, one over each state's package, train the same weights on the same pictures and prompts, each as its Lightning and its
Trainable do it: text encoders and autoencoder are inside the timing. While one makes a step the other waits; times are of the
processor, the ratio is the median over neighbouring steps. The model is that of ``train.py --what xl``. Needs diffusers and transformers.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TARGET = 0.6


def worker(args: argparse.Namespace) -> None:
    """Makes a step for each line that comes in, and answers with its seconds and its loss."""
    import lightning.pytorch as pl
    import torch

    import wgtorch
    from wgtorch.train import Trainable

    assert wgtorch.__file__ is not None
    assert Path(wgtorch.__file__).is_relative_to(args.before), wgtorch.__file__

    class Turns(pl.Callback):
        """Waits for its turn before each step."""

        def on_train_batch_start(self, *_: Any) -> None:
            if not sys.stdin.readline():
                sys.exit()
            self.started = time.process_time()

        def on_train_batch_end(self, trainer: pl.Trainer, trainable: Any, outputs: Any, *_: Any) -> None:
            loss = float(outputs["loss"])
            print(f"{time.process_time() - self.started} {loss}", flush=True)

    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(1)
    batch = {"image": torch.rand(args.batch, 3, 128, 128), "prompt": ["a cat", "the old dog of the house"] * (args.batch // 2)}
    graph = wgtorch.Graph.from_diffusers(args.model)
    torch.manual_seed(0)
    wgtorch.lora.add(graph, name="style", rank=args.rank, nodes=["backbone"], freeze_base=True)
    graph.train()
    kept = {"cache": {}} if "cache" in inspect.signature(Trainable).parameters else {}
    trainable = Trainable(graph, objective="denoising", optimizer={"type": "adamw", "lr": args.lr}, **kept)
    count = sum(parameter.numel() for parameter in graph.trainable_parameters())
    print(f"{count}", flush=True)
    loader: Any = torch.utils.data.DataLoader(range(args.steps), batch_size=1, collate_fn=lambda _: batch)  # type: ignore[arg-type]
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        pl.Trainer(
            max_steps=args.steps, accelerator="cpu", gradient_clip_val=1.0, logger=pl.loggers.CSVLogger(folder),
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=10, callbacks=[Turns()],
        ).fit(trainable, loader)  # fmt: skip


def start(root: Path, model: Path, args: argparse.Namespace) -> subprocess.Popen[str]:
    """A worker over the package of a folder."""
    command = [sys.executable, __file__, str(root), "--model", str(model)]
    command += [f"--{name}={getattr(args, name)}" for name in ("rank", "batch", "lr")] + [f"--steps={args.warmup + args.steps}"]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def turn(process: subprocess.Popen[str]) -> tuple[float, float]:
    """(seconds of the processor, loss) of one step."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return answer(process, 2)  # type: ignore[return-value]


def answer(process: subprocess.Popen[str], count: int) -> tuple[float, ...]:
    """The numbers of a worker's next line of so many of them; what else it prints is passed by."""
    assert process.stdout is not None
    for line in process.stdout:
        words = line.split()
        try:
            if len(words) == count:
                return tuple(float(word) for word in words)
        except ValueError:
            pass
        sys.stderr.write(line)
    raise SystemExit(f"a worker ended with {process.wait()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=lambda text: Path(text).resolve(), help="a folder with the older state")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.model is not None:
        worker(args)
        return
    from train import xl_model

    with tempfile.TemporaryDirectory() as folder:
        model = xl_model(Path(folder))
        before, now = (start(root, model, args) for root in (args.before, ROOT))
        counts = [int(answer(process, 1)[0]) for process in (before, now)]
        pairs = [(turn(before), turn(now)) for _ in range(args.warmup + args.steps)][args.warmup :]
        for process in (before, now):
            process.communicate()
    then, present = ([pair[which][0] for pair in pairs] for which in (0, 1))
    losses = [statistics.mean(pair[which][1] for pair in pairs) for which in (0, 1)]
    ratio = statistics.median(new / old for old, new in zip(then, present, strict=True))
    for name, seconds, count, loss in zip(("before", "now"), (then, present), counts, losses, strict=True):
        print(
            f"{name:<7} median {1e3 * statistics.median(seconds):7.1f} ms   least {1e3 * min(seconds):7.1f} ms   "
            f"{count} weights train   mean loss {loss:.4f}"
        )
    print(f"now/before: of neighbours {ratio:.3f}   of the least {min(present) / min(then):.3f}   (target {TARGET})")


if __name__ == "__main__":
    main()
