"""docs/training.md, as a person does it: 20 pictures and a model's folder become a LoRA file that diffusers loads."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lightning")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from tests.integrations.diffusers import tiny
from wgtorch import Graph

ROOT = Path(__file__).parents[2]
QUICK = [
    "data.size=16", "data.step=2", "trainer.max_steps=6", "optimizer.lr=0.05", "optimizer.schedule=null",
    "+trainer.enable_progress_bar=false", "trainer.accelerator=cpu",
]  # fmt: skip


def commands() -> list[str]:
    """The lines of the first shell block of the page."""
    text = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return block.group(1).strip().splitlines()


def pictures(folder: Path) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(20):
        height, width = generator.integers(16, 40, 2)
        Image.fromarray(generator.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{index}.png")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.xdist_group("processes")
def test_twenty_pictures_become_a_file_that_diffusers_loads(tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    lines = commands()
    assert len(lines) <= 5
    pictures(tmp_path / "my_pictures")
    tiny.stable_diffusion_xl(tmp_path / "words").save_pretrained(tmp_path / "my_model")
    (train,) = [shlex.split(line) for line in lines if line.startswith("wgtorch train")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    words = [word for word in train[1:] if not word.startswith("data.size=")]
    done = subprocess.run(
        [sys.executable, "-m", "wgtorch.cli.main", *words, *QUICK],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = tmp_path.glob("outputs/lora/*")
    assert f"Run: {folder}" in done.stdout
    card = (folder / "lora/README.md").read_text(encoding="utf-8")
    assert "base_model" not in card and "for my_model/unet" in card and str(tmp_path) not in card
    assert "my_pictures" in card
    assert "![samples](samples.png)" in card
    with Image.open(folder / "lora/samples.png") as shown:
        assert shown.size == (tiny.PIXELS, tiny.PIXELS)

    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(tmp_path / "my_model", add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "pt"}
    noise = torch.randn(1, 4, tiny.SIDE, tiny.SIDE, generator=torch.Generator().manual_seed(0))
    sizes = {"height": tiny.PIXELS, "width": tiny.PIXELS}
    plain = pipeline("a", latents=noise, **call, **sizes).images
    pipeline.load_lora_weights(folder / "lora")
    adapted = pipeline("a", latents=noise, **call, **sizes).images
    trained = Graph.load(folder / "checkpoints/last")
    ours = trained.run({"prompt": "a", "latents": noise, "num_inference_steps": 2, "guidance_scale": 1.0, **sizes})["image"]
    assert (adapted - plain).abs().max() > 1e-3, "it has learned something"
    torch.testing.assert_close(ours, adapted, atol=2e-4, rtol=1e-3)
