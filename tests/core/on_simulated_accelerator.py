"""Checks of what moves between a device and the host, on PyTorch's simulated accelerator ``torch_openreg``; prints those that hold.

Run by ``test_simulated_accelerator.py`` in a process of its own, since the backend is registered for a whole process.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

warnings.filterwarnings("ignore", message="Set seed for `openreg`")

WIDTH = 64
SIZE = 2 * (WIDTH * WIDTH + WIDTH) * 4
CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(function)
    return function


def main() -> None:
    import torch_openreg  # noqa: F401  # registers the backend

    for function in CHECKS:
        torch.manual_seed(0)
        try:
            function()
        except Exception:
            print(f"FAILED {function.__name__}\n{traceback.format_exc()}")
        else:
            print(f"HOLDS {function.__name__}")


def build(pool: Any, count: int = 2) -> Any:
    """Models one after the other, the same whenever it is called."""
    from wgtorch import Block, Graph, Pool

    class Model(Block):
        outputs = {"y": "tensor"}

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.second(self.first(x)))

    torch.manual_seed(0)
    graph = Graph("g")
    with pool or Pool():
        for number in range(count):
            graph.add_node(Model(), f"m{number}", auto_connect=False)
            if number:
                graph.add_edge(f"m{number - 1}.y", f"m{number}.x")
    graph.infer_exposed_ports()
    return graph


def pool_of(models: float) -> Any:
    from wgtorch import Pool

    return Pool(device="openreg:0", max_bytes=int(SIZE * models) + 1024, offload="cpu")


def same(found: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(found.cpu(), want, rtol=1e-5, atol=1e-6)


@check
@torch.no_grad()
def two_models_that_do_not_fit_run_within_the_budget() -> None:
    x, pool = torch.randn(3, WIDTH), pool_of(1)
    want, graph = build(None).run({"x": x})["y"], build(pool)
    parameters = list(graph.parameters())
    for number in range(1, 4):
        found = graph.run({"x": x})["y"]
        assert found.device.type == "openreg"
        same(found, want)
        assert pool.memory.moves == 2 * number
        assert pool.resident_bytes <= pool.max_bytes
        waits, computes = graph.nodes["m0"].first.weight, graph.nodes["m1"].first.weight
        assert (waits.device.type, computes.device.type) == ("cpu", "openreg")
        assert waits.is_pinned()
    assert all(a is b for a, b in zip(parameters, graph.parameters(), strict=True))


@check
@torch.no_grad()
def what_comes_next_is_fetched_ahead_and_waited_for() -> None:
    x, pool = torch.randn(3, WIDTH), pool_of(2)
    want, graph = build(None, 3).run({"x": x})["y"], build(pool, 3)
    store, ahead, waited = pool.memory.store, [], []
    bring, wait = store.bring, store.wait
    store.bring = lambda tensors, *, ahead=False, told=ahead: (told.append(ahead), bring(tensors, ahead=ahead))[1]
    store.wait = lambda token, tensors: (waited.append(token), wait(token, tensors))[1]
    for _ in range(4):
        same(graph.run({"x": x})["y"], want)
        assert pool.resident_bytes <= pool.max_bytes
    assert sum(ahead) >= 3, ahead
    assert len(waited) >= 3
    assert all(isinstance(token, torch.Event) for token in waited)


@check
@torch.no_grad()
def tied_weights_stay_tied() -> None:
    x = torch.randn(3, WIDTH)

    def tied(pool: Any) -> Any:
        graph = build(pool)
        graph.nodes["m0"].second.weight = graph.nodes["m0"].first.weight  # the same parameter
        both = torch.randn(2 * WIDTH, WIDTH)
        graph.nodes["m1"].first.weight = nn.Parameter(both[:WIDTH])
        graph.nodes["m1"].second.weight = nn.Parameter(both[:WIDTH])  # two over one memory
        return graph

    want, pool = tied(None).run({"x": x})["y"], pool_of(1)
    graph = tied(pool)
    for _ in range(2):
        same(graph.run({"x": x})["y"], want)
    for name in ("m0", "m1"):
        assert graph.nodes[name].first.weight.data_ptr() == graph.nodes[name].second.weight.data_ptr()
    assert graph.nodes["m0"].first.weight is graph.nodes["m0"].second.weight


@check
@torch.no_grad()
def adapters_move_with_their_model() -> None:
    from wgtorch import lora

    x = torch.randn(3, WIDTH)

    def adapted(pool: Any) -> Any:
        graph = build(pool)
        lora.add(graph.nodes["m0"], name="a", rank=2)
        for name, parameter in graph.nodes["m0"].named_parameters():
            if "lora" in name:
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
        graph.configure_node("m0", adapter="a")
        return graph

    want, plain = adapted(None).run({"x": x})["y"], build(None).run({"x": x})["y"]
    assert not torch.allclose(want, plain)
    graph = adapted(pool_of(1.2))
    for _ in range(3):
        same(graph.run({"x": x})["y"], want)


@check
def a_step_of_training_is_that_of_the_host() -> None:
    x = torch.randn(3, WIDTH)

    def trained(pool: Any) -> tuple[list[Tensor], Any]:
        graph = build(pool)
        optimizer = torch.optim.SGD(graph.parameters(), lr=0.1)
        for _ in range(2):
            graph(x=x)["y"].square().sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return [parameter.detach().cpu() for parameter in graph.parameters()], graph

    want, _ = trained(None)
    found, _ = trained(pool_of(2))
    for a, b in zip(found, want, strict=True):
        same(a, b)


@check
@torch.no_grad()
def changed_weights_go_out_and_come_back_changed() -> None:
    x, graph = torch.randn(3, WIDTH), build(pool_of(1))
    graph.run({"x": x})
    graph.nodes["m1"].first.weight.mul_(2)  # on the device
    graph.nodes["m0"].first.weight.mul_(2)  # on the host
    other = build(None)
    for name in ("m0", "m1"):
        other.nodes[name].first.weight.mul_(2)
    for _ in range(2):
        same(graph.run({"x": x})["y"], other.run({"x": x})["y"])


@check
@torch.no_grad()
def meta_weights_move_nothing() -> None:
    pool = pool_of(1)
    with torch.device("meta"):
        graph = build(pool)
    assert graph.run({"x": torch.ones(1, WIDTH, device="meta")}, dry_run=True) is not None
    assert pool.memory.moves == 0
    assert graph.nodes["m0"].first.weight.is_meta


@check
def draws_of_a_seed_are_the_hosts_and_leave_the_devices_generator_alone() -> None:
    """Those of an ``rng``; kernels of the simulated device itself take no generator."""
    from wgtorch import Block, Graph, Rng

    class Draws(Block):
        outputs = {"y": "tensor"}

        def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
            assert rng is not None
            return x + rng.normal(tuple(x.shape), device=x.device) + rng.uniform(tuple(x.shape), device=x.device)

    graph, x = Graph("draws"), torch.ones(3, 4)
    graph.add_node(Draws(), "n")
    graph.infer_exposed_ports()
    before = torch.openreg.get_rng_state().clone(), torch.get_rng_state().clone()
    same(graph.run({"x": x.to("openreg:0")}, seed=7)["y"], graph.run({"x": x}, seed=7)["y"])
    after = torch.openreg.get_rng_state(), torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@check
@torch.no_grad()
def autocast_of_the_device_goes_into_threads_and_into_keys() -> None:
    from wgtorch import NodeCache

    graph, x, cache = build(None), torch.randn(3, WIDTH).to("openreg:0"), NodeCache()
    graph.to("openreg:0")
    plain = graph.run({"x": x}, cache=cache)["y"]
    graph.run({"x": x}, cache=cache)
    hits = cache.stats.hits
    with torch.autocast("openreg", dtype=torch.float16):
        streamed = list(graph.stream({"x": x}))[-1].outputs["y"]
        direct = graph.run({"x": x})["y"]
        graph.run({"x": x}, cache=cache)
    assert cache.stats.hits == hits, "a result of another autocast was given"
    assert streamed.dtype == direct.dtype
    assert torch.equal(streamed.cpu(), direct.cpu())
    assert plain.device.type == "openreg"


@check
@torch.no_grad()
def results_on_a_device_are_kept_and_edits_of_its_weights_seen() -> None:
    from wgtorch import NodeCache

    graph, x, cache = build(None), torch.randn(3, WIDTH).to("openreg:0"), NodeCache()
    graph.to("openreg:0")
    first, _ = (graph.run({"x": x}, cache=cache)["y"].cpu() for _ in range(2))
    assert cache.stats.hits == 1
    graph.nodes["m1"].second.weight.add_(0.5)
    found = graph.run({"x": x}, cache=cache)["y"].cpu()
    assert torch.equal(found, graph.run({"x": x})["y"].cpu())
    assert not torch.equal(found, first)


if __name__ == "__main__":
    main()
