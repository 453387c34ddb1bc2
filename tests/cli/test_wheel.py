"""A wheel brings the configs along, so that training needs no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("lightning")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_wgtorch_train_runs_from_a_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    kept = shutil.ignore_patterns("__pycache__", "local", "*.egg-info")
    for name in ("wgtorch", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=kept)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", str(source), "-w", str(tmp_path)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "wgtorch/conf/train.yaml" in archive.namelist()
        archive.extractall(tmp_path / "site")
    (tmp_path / "here").mkdir()
    words = ["tiny_denoising", "trainer.max_steps=2", "+trainer.enable_progress_bar=false", "samples=null"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "wgtorch.cli.main", "train", *words]
    done = subprocess.run(start, cwd=tmp_path / "here", env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = (tmp_path / "here").glob("outputs/tiny_denoising/*")
    assert (run / "checkpoints/last/manifest.json").is_file()
