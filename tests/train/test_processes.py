"""Two processes that average their gradients (DDP over gloo), with a block that stands at several places."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")

from tests.train.toys import Distance, Linear, Numbers, chain, run_settings
from wgtorch.core.errors import TrainingError
from wgtorch.train.fitting import fit
from wgtorch.train.folders import read_training
from wgtorch.train.objective import Step

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
import torch
from tests.train.toys import QUIET, Linear, Numbers, chain
from wgtorch.core.errors import TrainingError
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
    done = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True, check=False, timeout=300)
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


SHARDED = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
import torch
from torch.distributed.tensor import DTensor
from tests.train.test_processes import shard_settings, sharded_target
from wgtorch.core.errors import TrainingError
from wgtorch.train.fitting import fit

folder, steps, resume = sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None
target = sharded_target(resume is not None)
fit(target, shard_settings(2, steps, devices=2, strategy="fsdp2"), Path(folder), resume=resume)
assert [isinstance(target.nodes[name].layer.weight, DTensor) for name in "abcd"] == [True, True, True, False], "a frozen place is whole"
"""


def sharded_target(is_resumed: bool = False) -> Any:
    torch.manual_seed(9 if is_resumed else 0)  # all that a resumed run has comes from the checkpoint
    shared = Linear()
    return chain(shared, Linear(), shared, Linear())


def shard_settings(batch_size: int, steps: int, **trainer: Any) -> dict[str, Any]:
    """A training that is saved between two accumulated batches, after its third of them."""
    trainer = {"max_steps": steps, "accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "val_check_interval": 3, **trainer}
    return run_settings(
        data={"type": "train_toys/numbers", "batch_size": batch_size},
        optimizer={"type": "adamw", "lr": 0.05},
        freeze=["d"],
        checkpoint={"every": 2, "keep": 3},
        trainer=trainer,
    )


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """The model in a checkpoint, and the weights whose averages it is."""
    from wgtorch import Graph

    return {**Graph.load(folder).state_dict(), **read_training(folder)["state_dict"]}


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_sharded_over_two_processes_it_saves_and_resumes_as_in_one(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(SHARDED.format(root=str(ROOT)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

    def sharded(*arguments: Any) -> None:
        command = [sys.executable, str(program), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]

    straight = tmp_path / "straight/checkpoints"
    fit(sharded_target(), shard_settings(4, 4), tmp_path / "straight")
    sharded(tmp_path / "first", 4)
    middle = tmp_path / "first/checkpoints/best-000001"
    assert read_training(middle)["gradients"], "it was written in the middle of an accumulation"
    sharded(tmp_path / "second", 4, middle)
    with pytest.raises(TrainingError, match="written by 2 processes in the middle of an accumulation, and there are 1"):
        fit(sharded_target(True), shard_settings(4, 4), tmp_path / "other", resume=middle)
    fit(sharded_target(True), shard_settings(4, 4), tmp_path / "third", resume=tmp_path / "first/checkpoints/best-000003")
    expected = weights_of(straight / "last")
    assert len(expected) > 8, "averages, and the weights behind them"
    for run in ("first", "second", "third"):
        torch.testing.assert_close(weights_of(tmp_path / run / "checkpoints/last"), expected)


PLAIN = """
import sys
sys.path.insert(0, {root!r})
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tests.train.toys import Linear, chain
from wgtorch import lora

rank, port, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{{port}}", rank=rank, world_size=2)
torch.manual_seed(0)
shared = Linear()
graph = chain(shared, Linear(), shared)
lora.add(graph, "worn", rank=2, wear=False)
graph.set_adapter("c", "worn")
graph.set_trainable("a", False)
graph.set_trainable("b", False)
x = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))[rank * 2 : rank * 2 + 2]
model = DistributedDataParallel(graph)
for _ in range(2):
    model.zero_grad()
    model(x=x)["y"].square().mean().backward()
if rank == 0:
    torch.save([parameter.grad for parameter in graph.trainable_parameters()], out)
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_plain_ddp_waits_for_nothing_that_no_gradient_reaches(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PLAIN.format(root=str(ROOT)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    started = [
        subprocess.Popen(
            [sys.executable, str(program), str(rank), str(port), str(tmp_path / "out.pt")], env=environment, stderr=subprocess.PIPE
        )
        for rank in (0, 1)
    ]
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()[-2000:]

    from wgtorch import lora

    torch.manual_seed(0)
    shared = Linear()
    graph: Any = chain(shared, Linear(), shared)
    lora.add(graph, "worn", rank=2, wear=False)
    graph.set_adapter("c", "worn")
    graph.set_trainable("a", False)
    graph.set_trainable("b", False)
    graph(x=torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))["y"].square().mean().backward()
    whole = [parameter.grad for parameter in graph.trainable_parameters()]
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    assert len(found) == len(whole) == 4, "weight, bias and the two of the adapter"
    for mine, expected in zip(found, whole, strict=True):
        torch.testing.assert_close(mine, expected)


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("what", ["world=gallery", "world=default", "graph=diffusers"])
def test_adapters_train_in_two_processes_as_shipped(what: str, tmp_path: Path) -> None:
    data = ["data=scene_prompts", "data.batch_size=2"]
    if what == "graph=diffusers":
        pytest.importorskip("diffusers")
        from PIL import Image

        from tests.integrations.diffusers import tiny

        tiny.stable_diffusion_xl(tmp_path / "words").save_pretrained(tmp_path / "model")
        for index in range(4):
            (tmp_path / "pictures").mkdir(exist_ok=True)
            Image.new("RGB", (16, 16), (60 * index, 0, 0)).save(tmp_path / f"pictures/{index}.png")
        data = ["graph.folder=model", "data=image_folder", "data.folder=pictures", "data.prompt=a", "data.size=16", "data.step=2"]
    quick = ["lora=rank8", "trainer=ddp_cpu", "trainer.max_steps=2", "samples=null", "+trainer.limit_val_batches=0"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/train.py"), what, *data, *quick, "+trainer.enable_progress_bar=false"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob("outputs/train/*/checkpoints/last/manifest.json"))
