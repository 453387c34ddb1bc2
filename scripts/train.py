"""Trains what the configs in conf/ describe: a Hydra program, for overrides and sweeps.

    python scripts/train.py experiment=tiny_denoising
    python scripts/train.py experiment=tiny_denoising trainer.max_steps=20 optimizer.lr=1e-3
    python scripts/train.py experiment=tiny_denoising -m optimizer.lr=1e-3,1e-4
    python scripts/train.py rerun=outputs/tiny_denoising/<time> seed=1      a run again, from the config it has kept
    python scripts/train.py experiment=tiny_denoising resume=outputs/tiny_denoising/<time>

Each run has a folder outputs/<experiment>/<time> with config.yaml, checkpoints/last and checkpoints/best (wgtorch
checkpoints), metrics.csv, samples/ and what TensorBoard reads.
"""

from __future__ import annotations

from wgtorch.cli.train import program

if __name__ == "__main__":
    program()
