"""What has to be seen on a GPU: prints a table of checks and ends not with 0 when one of them failed. Takes some minutes at most.

python scripts/gpu_smoke.py                    without a GPU it says so, and ends with 0
python scripts/gpu_smoke.py --device cpu       the same checks on a CPU, as far as they mean something there
python scripts/gpu_smoke.py --only draws compile
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from wgtorch import Block, Graph, Rng

CHECKS: dict[str, Callable[[torch.device], str]] = {}
WIDTH = 64


def check(function: Callable[[torch.device], str]) -> Callable[[torch.device], str]:
    """Makes a row of the table of a function: its name, and what it returns or fails with."""
    CHECKS[function.__name__] = function
    return function


class Net(Block):
    """Two layers, of weights that a seed gives."""

    outputs = {"y": "tensor"}
    uses_global_rng = False

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / WIDTH**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Draws(Block):
    """Adds noise of the run's own."""

    outputs = {"y": "tensor"}

    def forward(self, x: Tensor, rng: Rng) -> Tensor:
        return x + rng.normal(x.shape, device=x.device, dtype=x.dtype)


class Foreign(Block):
    """Draws on its device as code does that knows of no run, in one kernel and in another."""

    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + torch.randn_like(x) + torch.rand(x.shape, device=x.device))


class Product(Block):
    """The dtype of a matrix product, seen in a thread."""

    outputs = {"y": "any"}
    is_async = True

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": (x @ x.T).dtype}


class AsyncProduct(Block):
    """The dtypes of matrix products before and after others had their turn, in a coroutine."""

    outputs = {"y": "any"}

    async def forward(self, x: Tensor) -> dict[str, Any]:
        before = (x @ x.T).dtype
        await asyncio.sleep(0.01)
        return {"y": before if before == (x @ x.T).dtype else (before, (x @ x.T).dtype)}


def chain(*blocks: Block) -> Graph:
    graph = Graph("chain")
    for index, block in enumerate(blocks):
        graph.add_node(block, f"n{index}", auto_connect=False)
        if index:
            graph.add_edge(f"n{index - 1}.y", f"n{index}.x")
    graph.expose_input("n0", "x")
    graph.expose_output(f"n{len(blocks) - 1}", "y")
    return graph


def loop(turns: int) -> Graph:
    graph = Graph("loop", metadata={"num_loop_steps": turns})
    graph.add_node(Net(1), "a", auto_connect=False)
    graph.add_node(Net(2), "b", auto_connect=False)
    graph.add_edge("a.y", "b.x")
    graph.add_edge("b.y", "a.x")
    graph.expose_input("a", "x")
    graph.expose_output("b", "y")
    return graph


def batch(device: torch.device, rows: int = 4) -> Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(3)).to(device)


def global_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def copied(value: Tensor) -> Tensor:
    return value.detach().clone()  # what a CUDA graph returns is overwritten by its next run


@check
def draws(device: torch.device) -> str:
    """Seeded draws repeat, follow the seed alone, and are the same in a batch, beside others, and on a CPU."""
    graph = chain(Draws()).to(device)
    x = batch(device)
    first = graph.run({"x": x}, seed=7)["y"]
    assert first.device.type == device.type
    assert torch.equal(first, graph.run({"x": x}, seed=7)["y"]), "two runs with one seed differ"
    assert not torch.equal(first, graph.run({"x": x}, seed=8)["y"]), "two seeds give the same"
    torch.testing.assert_close(first[:2], graph.run({"x": x[:2]}, seed=7)["y"], msg="a smaller batch draws other numbers")
    torch.testing.assert_close(first.cpu(), chain(Draws()).run({"x": x.cpu()}, seed=7)["y"], msg="a CPU draws other numbers")
    return "repeat; the same in a smaller batch and on a CPU"


@check
def foreign_draws(device: torch.device) -> str:
    """Blocks that draw from PyTorch's generator of the device repeat with a seed."""
    graph = chain(Foreign()).to(device)
    for training in (False, True):
        found = [copied(graph.run({"x": batch(device)}, seed=seed, training=training)["y"]) for seed in (7, 7, 8)]
        assert torch.equal(found[0], found[1]), f"two runs with one seed differ (training={training})"
        assert not torch.equal(found[0], found[2]), f"two seeds give the same (training={training})"
    return "torch.randn and dropout inside a block repeat"


@check
def generators(device: torch.device) -> str:
    """A seeded run neither moves the global generators nor is moved by those who draw from them meanwhile."""
    graph = chain(Draws(), Foreign()).to(device)
    x = batch(device)
    alone = copied(graph.run({"x": x}, seed=7)["y"])
    before, before_cpu = global_state(device), torch.get_rng_state()
    for training in (False, True):
        graph.run({"x": x}, seed=7, training=training)
    assert torch.equal(global_state(device), before), f"the global generator of {device} moved"
    assert torch.equal(torch.get_rng_state(), before_cpu), "the global generator of the CPU moved"
    ended = threading.Event()
    found: list[Tensor] = []

    def runs() -> None:
        found.extend(copied(graph.run({"x": x}, seed=7)["y"]) for _ in range(50))
        ended.set()

    expected_generator = torch.Generator(device).manual_seed(11)
    torch.manual_seed(11)
    thread = threading.Thread(target=runs)
    thread.start()
    count = 0
    while not ended.is_set() or count < 50:
        assert torch.equal(torch.randn(9, device=device), torch.randn(9, device=device, generator=expected_generator)), "somebody drew"
        count += 1
    thread.join()
    assert len(found) == 50 and all(torch.equal(alone, one) for one in found), "draws beside a run changed it"
    return f"50 runs beside {count} draws elsewhere, neither felt the other"


@check
def autocast(device: torch.device) -> str:
    """Autocast of the device reaches nodes that run aside: in threads, in coroutines, under a time limit, and by arun."""
    x = batch(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        for block in (Product(), AsyncProduct()):
            graph = chain(block)
            found = {
                "run": graph.run({"x": x})["y"],
                "a run with a limit": graph.run({"x": x}, timeout=60)["y"],
                "arun": asyncio.run(graph.arun({"x": x}))["y"],
            }
            assert set(found.values()) == {torch.bfloat16}, f"{type(block).__name__}: {found}"
    assert chain(Product()).run({"x": x})["y"] == torch.float32, "autocast stayed on after its end"
    return "bfloat16 in threads, coroutines, with a limit, in arun; off after"


@check
def compile(device: torch.device) -> str:
    """``compile(mode="reduce-overhead")``, CUDA graphs where there are any: a loop's body, and a whole graph with gradients."""
    x = batch(device)
    eager, compiled = loop(20).to(device), loop(20).to(device)
    compiled.compile(mode="reduce-overhead")
    expected = eager.run({"x": x})["y"]
    for _ in range(4):  # the first warm up, then a graph is recorded and replayed
        torch.testing.assert_close(copied(compiled.run({"x": x})["y"]), expected, rtol=1e-3, atol=1e-3)
    other = compiled.run({"x": x + 1})["y"]
    torch.testing.assert_close(copied(other), eager.run({"x": x + 1})["y"], rtol=1e-3, atol=1e-3)
    plain = chain(Net(1), Net(2)).to(device)
    whole = torch.compile(plain, mode="reduce-overhead", fullgraph=True)
    for _ in range(4):
        torch.compiler.cudagraph_mark_step_begin()
        plain.zero_grad()
        whole(x=x)["y"].square().sum().backward()
        gradients = [copied(parameter.grad) for parameter in plain.parameters()]
    plain.zero_grad()
    plain(x=x)["y"].square().sum().backward()
    for found, parameter in zip(gradients, plain.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-3, atol=1e-3)
    return "a loop of 20 steps and a graph's gradients as without"


@contextlib.contextmanager
def one_process(device: torch.device) -> Iterator[None]:
    import torch.distributed as dist

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@check
def fsdp2(device: torch.device) -> str:
    """``fully_shard`` on the blocks and the graph, in a group of one: the same outputs and gradients, and a step of an optimizer."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    x = batch(device)
    plain, sharded = (chain(Net(1), Net(2)).to(device) for _ in range(2))
    expected = plain(x=x)["y"]
    expected.square().sum().backward()
    with one_process(device):
        mesh = init_device_mesh(device.type, (1,))
        for block in [*sharded.nodes.values(), sharded]:
            fully_shard(block, mesh=mesh)
        found = sharded(x=x)["y"]
        torch.testing.assert_close(found, expected)
        found.square().sum().backward()
        for (name, mine), theirs in zip(sharded.named_parameters(), plain.parameters(), strict=True):
            assert mine.grad is not None, f"{name} has no gradient"
            torch.testing.assert_close(mine.grad.full_tensor(), theirs.grad)  # type: ignore[attr-defined]
        optimizer = torch.optim.AdamW(sharded.parameters(), lr=1e-2)
        optimizer.step()
        assert not torch.equal(sharded(x=x)["y"], expected), "the step changed nothing"
    return "outputs, gradients and a step of AdamW"


@check
def offload(device: torch.device) -> str:
    """A level that is moved to the CPU leaves nothing on the GPU, and computes the same when it is back."""
    shared = Net(1)
    x = batch(device)
    graph = chain(shared, Net(2), shared)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    graph.to(device)
    expected = copied(graph.run({"x": x})["y"]).cpu()
    for _ in range(2):
        graph.to("cpu")
        assert {parameter.device.type for parameter in graph.parameters()} == {"cpu"}
        if device.type == "cuda":
            assert torch.cuda.memory_allocated(device) <= before, "something stayed on the GPU"
        graph.to(device)
        torch.testing.assert_close(graph.run({"x": x})["y"].cpu(), expected, rtol=0, atol=0)
    return "all of it left twice and came back the same"


@check
def picture(device: torch.device) -> str:
    """The painter that ships paints the picture of the CPU."""
    words = {"prompt": "a red castle at night"}
    here = Graph.from_template("text_to_image").to(device).run(words, seed=1)["image"]
    there = Graph.from_template("text_to_image").run(words, seed=1)["image"]
    assert here.device.type == device.type
    far = (here.cpu() - there).abs().max().item()
    assert far < 0.05, f"they differ by {far:.3f} of 1"
    return f"at most {far:.4f} of 1 away from the CPU's"


def row(name: str, result: str, detail: str) -> str:
    return f"{name:14} {result:8} {detail}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="where to (cuda)")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="CHECK", help=", ".join(CHECKS))
    given = parser.parse_args()
    device = torch.device(given.device)
    print(row("check", "result", "detail"))
    if device.type == "cuda" and not torch.cuda.is_available():
        for name in given.only:
            print(row(name, "no GPU", (CHECKS[name].__doc__ or "").strip()))
        return 0
    failed = 0
    for name in given.only:
        started = time.perf_counter()
        try:
            result, detail = "ok", CHECKS[name](device)
        except Exception as error:  # a row of the table like any other; the rest is still to be seen
            traceback.print_exc()
            result, detail = "FAILED", f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            failed += 1
        print(row(name, result, f"{detail}   ({time.perf_counter() - started:.1f} s)"), flush=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    print(f"{len(given.only) - failed} of {len(given.only)} ok on {name}, PyTorch {torch.__version__}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
