"""Two processes that average their gradients (DDP over gloo), with a block that stands at several places."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

from tests.train.toys import Distance, Linear, Numbers, chain
from wgtorch.train.objective import Step

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
import torch
from tests.train.toys import QUIET, Linear, Numbers, chain
from wgtorch.train.fitting import fit
from pathlib import Path

torch.manual_seed(0)
shared = Linear()
target = chain(shared, Linear(), shared, Linear())
settings = dict(data=dict(type="train_toys/numbers", batch_size=2), objective="train_toys/mse", optimizer=dict(type="sgd", lr=0.1),
                freeze=["c", "d"], trainer={{**QUIET, "max_steps": 3, "devices": 2, "strategy": "ddp", "limit_val_batches": 0}})
fit(target, settings, Path({folder!r}))
"""


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_a_shared_block_frozen_at_one_place_trains_as_in_one_process_over_both_shares(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(root=str(ROOT), folder=str(tmp_path / "run")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]

    torch.manual_seed(0)
    shared = Linear()
    hand: Any = chain(shared, Linear(), shared, Linear())
    hand.set_trainable("c", False)
    hand.set_trainable("d", False)
    hand.train()
    shares = [Numbers(batch_size=2).loaders(seed=0, rank=rank, world_size=2)[0] for rank in (0, 1)]
    optimizer = torch.optim.SGD(list(hand.trainable_parameters()), lr=0.1)
    for _, batches in zip(range(3), zip(*shares, strict=True), strict=False):
        optimizer.zero_grad()
        for batch in batches:
            (Distance()(hand, batch, Step(0, torch.Generator())) / 2).backward()
        optimizer.step()

    from wgtorch import Graph

    trained = Graph.load(tmp_path / "run/checkpoints/last")
    for name, value in hand.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value)
    manifest = json.loads((tmp_path / "run/checkpoints/last/manifest.json").read_text())
    assert len(manifest["blocks"]) == 3, "the shared block is stored once"
