"""hydra/sweeper=optuna: trials, the best of them, and going on in the same folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

pytest.importorskip("optuna")
pytest.importorskip("lightning")

ROOT = Path(__file__).parents[2]
WORDS = [
    "-m", "hydra/sweeper=optuna", "experiment=tiny_denoising", "trainer.max_steps=2", "+trainer.enable_progress_bar=false", "samples=null",
    "+optimized_metric=val/loss", "optimizer.lr=tag(log,interval(1e-4,1e-2))", "hydra.sweep.dir=sweep", "logger=csv",
]  # fmt: skip


def sweep(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, str(ROOT / "scripts/train.py"), *WORDS, *more]
    return subprocess.run(start, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_it_runs_as_many_trials_as_are_wanted_and_goes_on(tmp_path: Path) -> None:
    done = sweep(tmp_path, "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Best of 2 trials" in done.stdout
    done = sweep(tmp_path, "hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(path.parent.name for path in (tmp_path / "sweep").glob("*/result.json")) == ["0", "1", "2"]
    best = OmegaConf.load(tmp_path / "sweep/optimization_results.yaml")
    assert 1e-4 <= best.best_params["optimizer.lr"] <= 1e-2
    wrong = sweep(tmp_path, "hydra.sweeper.direction=down", "hydra.sweep.dir=other")
    assert wrong.returncode != 0
    assert "minimize or maximize" in wrong.stderr
