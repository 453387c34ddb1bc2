"""Models beyond memory: moved whole, least recently used first, never lost, never while in use; the same results."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.blocks_for_tests import as_pipeline, as_stage
from wgtorch import lora
from wgtorch.core.block import Block, BlockRegistry, register_block
from wgtorch.core.device_store import DeviceStore
from wgtorch.core.errors import ModelMemoryError
from wgtorch.core.model_memory import ModelMemory, in_use
from wgtorch.core.pool import Pool
from wgtorch.graph import Graph
from wgtorch.world import World

WIDTH = 128  # of 64 KiB: smaller weights share pages with others
BYTES = WIDTH * WIDTH * 4


@register_block("test/wide")
class Wide(Block):
    """One square matrix."""

    outputs = {"y": "tensor"}
    uses_global_rng = False

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def refs(folder: Path, count: int = 3, width: int = WIDTH) -> list[str]:
    torch.manual_seed(0)
    for number in range(count):
        save_file({"linear.weight": torch.randn(width, width) / width}, folder / f"{number}.safetensors")
    return [str(folder / f"{number}.safetensors") for number in range(count)]


def chain(names: Sequence[str], pool: Pool | None = None, width: int = WIDTH) -> Graph:
    """Models one after the other."""
    graph = Graph("chain")
    for number, ref in enumerate(names):
        graph.add_node(
            BlockRegistry.build({"block_type": "test/wide", "config": {"checkpoint_ref": ref, "width": width}}, pool=pool), f"m{number}"
        )
        if pool is not None:
            pool.note_place(graph, f"m{number}", graph.nodes[f"m{number}"])
        if number:
            graph.add_edge(f"m{number - 1}.y", f"m{number}.x")
    graph.expose_input("m0", "x")
    graph.expose_output(f"m{len(names) - 1}", "y")
    return graph


class Elsewhere(DeviceStore):
    """A device that is no other memory: tensors "on" it are copies, known by their address."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.there: dict[int, Tensor] = {}

    def is_in(self, tensor: Tensor) -> bool:
        return tensor.data_ptr() in self.there

    def _to_device(self, data: Tensor) -> Tensor:
        if data.data_ptr() in self.there:
            return data
        copied = data.clone()
        self.there[copied.data_ptr()] = copied
        return copied

    def _to_host(self, data: Tensor) -> Tensor:
        del self.there[data.data_ptr()]
        return data.clone()


def device_pool(max_bytes: int) -> Pool:
    pool = Pool()
    pool.memory = ModelMemory(Elsewhere(), max_bytes)
    return pool


@pytest.fixture(params=["disk", "device"])
def make_pool(request: pytest.FixtureRequest) -> Callable[[int], Pool]:
    if request.param == "disk" and sys.platform != "linux":
        pytest.skip("Linux alone tells which pages are a file's")
    return (lambda size: Pool(max_bytes=size, offload="disk")) if request.param == "disk" else device_pool


def test_the_same_results_within_the_budget(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    names, x = refs(tmp_path), torch.randn(2, WIDTH)
    expected = chain(names).run({"x": x})["y"]
    pool = make_pool(2 * BYTES + 8192)
    graph, seen = chain(names, pool), []
    assert pool.resident_bytes <= 2 * BYTES + 8192
    for _ in range(2):
        run = graph.run({"x": x}, callbacks=[lambda event: seen.append(pool.resident_bytes)])
        torch.testing.assert_close(run["y"], expected)
    assert max(seen) <= 2 * BYTES + 8192
    assert [model.is_in for model in pool.report()].count(False) == 1


def test_the_least_recently_used_go_first(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    pool = make_pool(2 * BYTES + 8192)
    models: Any = [graph.nodes["m0"] for graph in (chain([ref], pool) for ref in refs(tmp_path))]
    x = torch.randn(1, WIDTH)
    for order, waits in (((0, 1), 2), ((2,), 0), ((1, 0), 2), ((0, 2), 1)):
        for number in order:
            models[number](x=x)
        assert pool.memory is not None
        assert [pool.memory.is_in(model) for model in models] == [number != waits for number in range(3)], order


def test_the_next_one_is_fetched_ahead(tmp_path: Path) -> None:
    class Ahead(Elsewhere):
        """Brings ahead, and notes what is waited for."""

        brings_ahead = True
        waited = 0

        def bring(self, tensors: Sequence[Tensor], *, ahead: bool = False) -> Any:
            super().bring(tensors)
            return "token" if ahead else None

        def wait(self, token: Any, tensors: Sequence[Tensor]) -> None:
            assert token == "token" and all(self.is_in(tensor) for tensor in tensors)
            self.waited += 1

    pool = Pool()
    pool.memory = memory = ModelMemory(Ahead(), 2 * BYTES)
    names, x = refs(tmp_path), torch.randn(1, WIDTH)
    graph = chain(names, pool)
    expected = graph.run({"x": x})["y"]
    moves = memory.moves
    for _ in range(2):
        torch.testing.assert_close(graph.run({"x": x})["y"], expected)
    assert memory.store.waited >= 4 and memory.moves - moves <= 1, "each was there when its call came"  # type: ignore[attr-defined]
    assert pool.resident_bytes <= 2 * BYTES


def test_one_that_fits_nowhere_is_named(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    graph = chain(refs(tmp_path, 1), make_pool(BYTES - 1))
    with pytest.raises(ModelMemoryError, match=rf"test/wide has {BYTES} bytes, and the pool's max_bytes is {BYTES - 1}; give the pool"):
        graph.run({"x": torch.ones(1, WIDTH)})
    with pytest.raises(ModelMemoryError):
        graph.run({"x": torch.ones(1, WIDTH)})


def test_changes_in_place_are_kept(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    pool = make_pool(2 * BYTES + 8192)
    graph, x = chain(refs(tmp_path), pool), torch.randn(1, WIDTH)
    plain = chain(refs(tmp_path))
    graph.run({"x": x})
    for one in (graph, plain):
        for number in range(3):
            weight: Any = one.nodes[f"m{number}"].linear.weight  # type: ignore[union-attr]
            weight.data[number].mul_(3)  # neither PyTorch's version nor a gradient tells of it
            with torch.no_grad():
                weight[:, 7] += 1
    for _ in range(3):
        torch.testing.assert_close(graph.run({"x": x})["y"], plain.run({"x": x})["y"])
    for name, weight in plain.state_dict().items():
        assert torch.equal(graph.state_dict()[name], weight)


def test_parameters_stay_the_objects_they_are(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    pool = make_pool(BYTES + 8192)
    graph, x = chain(refs(tmp_path), pool), torch.randn(1, WIDTH)
    before = [id(parameter) for parameter in graph.parameters()]
    graph.run({"x": x})
    assert [id(parameter) for parameter in graph.parameters()] == before


def test_optimizers_step_as_without_a_pool(tmp_path: Path) -> None:
    names, x = refs(tmp_path, 2), torch.randn(1, WIDTH)
    graphs = [chain(names), chain(names, device_pool(2 * BYTES))]
    for graph in graphs:
        optimizer = torch.optim.Adam(graph.parameters(), lr=0.1)
        for _ in range(3):
            graph(x=x)["y"].sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            graph.run({"x": x})
    torch.testing.assert_close(*[list(graph.parameters()) for graph in graphs])


def test_what_a_gradient_needs_stays_in(tmp_path: Path) -> None:
    pool = device_pool(BYTES)
    one, two = (chain([ref], pool) for ref in refs(tmp_path, 2))
    x = torch.randn(1, WIDTH)
    y = one(x=x)["y"]
    with pytest.raises(ModelMemoryError):
        two.run({"x": x})
    y.sum().backward()
    del y
    gc.collect()
    with pytest.raises(ModelMemoryError):  # the gradient waits for a step
        two.run({"x": x})
    one.zero_grad()
    two.run({"x": x})
    one.set_trainable("m0", False)
    y = one(x=x.requires_grad_())["y"]  # computed by a twin with detached weights
    with pytest.raises(ModelMemoryError):
        two.run({"x": x})
    del y
    two.run({"x": x})


def test_tied_and_adapted_weights_move_together(tmp_path: Path) -> None:
    pool = device_pool(3 * BYTES)
    graph = chain(refs(tmp_path), pool)
    pytest.importorskip("peft")
    first: Any = graph.nodes["m0"]
    other = Wide()
    other.linear = first.linear  # one module in two blocks
    tied = Graph("tied")
    tied.add_node(other, "o")
    tied.infer_exposed_ports()
    pool.note_place(tied, "o", other)
    lora.add(first, name="a", rank=2)
    store: Any = pool.memory and pool.memory.store
    x = torch.randn(1, WIDTH)
    first(x=x)
    assert all(store.is_in(parameter) for parameter in first.parameters())
    assert len(list(first.parameters())) == 3
    assert other.linear.weight is first.linear.base_layer.weight
    before = pool.memory.moves if pool.memory else 0
    tied.run({"x": x})
    assert pool.resident_bytes <= 3 * BYTES
    assert pool.memory is not None and pool.memory.moves == before + 1


def test_a_copy_is_managed_for_itself(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    pool = make_pool(4 * BYTES)
    graph = chain(refs(tmp_path, 1), pool)
    x = torch.randn(1, WIDTH)
    graph.run({"x": x})
    clone: Any = copy.deepcopy(graph)
    with torch.no_grad():
        clone.nodes["m0"].linear.weight.zero_()
    assert not clone.run({"x": x})["y"].any() and graph.run({"x": x})["y"].any()
    assert pool.memory is not None and pool.memory.is_managed(clone.nodes["m0"])
    sent = pickle.loads(pickle.dumps(graph.nodes["m0"]))
    torch.testing.assert_close(sent(x=x), graph.nodes["m0"](x=x))  # type: ignore[operator]


def test_runs_at_once_wait_for_each_other(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    names = refs(tmp_path)
    pool = make_pool(BYTES + 8192)
    graphs = [chain([ref], pool) for ref in names]
    expected = [chain([ref]).run({"x": torch.ones(1, WIDTH)})["y"] for ref in names]
    wrong: list[Any] = []

    def work(number: int) -> None:
        for _ in range(20):
            try:
                if not torch.allclose(graphs[number].run({"x": torch.ones(1, WIDTH)})["y"], expected[number], atol=1e-5):
                    wrong.append(number)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(number % 3,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert pool.resident_bytes <= BYTES + 8192


def test_one_in_use_is_never_moved(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    pool = make_pool(BYTES + 8192)
    first, second = (chain([ref], pool) for ref in refs(tmp_path, 2))
    model: Any = first.nodes["m0"]
    address, done = [], threading.Event()

    def inside(*_: Any) -> None:
        other = threading.Thread(target=lambda: (second.run({"x": torch.ones(1, WIDTH)}), done.set()))
        other.start()
        other.join(0.05)
        address.append((done.is_set(), model.linear.weight.data_ptr()))

    model.linear.register_forward_pre_hook(inside)
    model.linear.register_forward_hook(lambda *_: address.append((done.is_set(), model.linear.weight.data_ptr())))
    first.run({"x": torch.ones(1, WIDTH)})
    assert [is_done for is_done, _ in address] == [False, False] and len({place for _, place in address}) == 1
    assert done.wait(60)


def test_a_call_inside_a_call_says_what_is_around_it(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    pool = make_pool(BYTES + 8192)
    first, second = (chain([ref], pool) for ref in refs(tmp_path, 2))
    with in_use((first.nodes["m0"],)), pytest.raises(ModelMemoryError, match=r"calls around it use \['test/wide'\]"):
        second.run({"x": torch.ones(1, WIDTH)})
    second.run({"x": torch.ones(1, WIDTH)})


def test_a_failed_call_frees_its_model(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    pool = make_pool(BYTES + 8192)
    first, second = (chain([ref], pool) for ref in refs(tmp_path, 2))
    with pytest.raises(RuntimeError):
        first.run({"x": torch.ones(1, 3)})
    second.run({"x": torch.ones(1, WIDTH)})


def test_levels_and_worlds_share_one_budget(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    names, pool = refs(tmp_path, 2), make_pool(BYTES + 8192)
    one, two = (World(name) for name in ("one", "two"))
    for world in (one, two):
        world.add_stage(as_stage(chain(names, pool), "s"), "s")
        world.set_cycle(["s"])
    models = {id(module) for world in (one, two) for module in world.modules() if isinstance(module, Wide)}
    assert len(models) == 2 and len(pool) == 2
    pipeline = as_pipeline(chain(names, pool))
    x = torch.ones(1, WIDTH)
    torch.testing.assert_close(pipeline.run({"x": x})["y"], chain(names).run({"x": x})["y"])
    assert pool.resident_bytes <= BYTES + 8192


def test_meta_weights_and_fake_runs_move_nothing(tmp_path: Path, make_pool: Callable[[int], Pool]) -> None:
    pool = make_pool(BYTES + 8192)
    with torch.device("meta"):
        empty = Wide()
    graph = Graph("g")
    with pool:
        graph.add_node(empty, "m0")
    graph.infer_exposed_ports()
    assert graph(x=torch.ones(1, WIDTH, device="meta"))["y"].is_meta
    real = chain(refs(tmp_path), pool)
    report = real.run({"x": torch.ones(1, WIDTH)}, dry_run="fake")
    assert report.shapes["m2.y"] == (1, WIDTH)
    assert pool.memory is not None and pool.memory.moves == 0


def test_compiled_loops_keep_their_models_in(tmp_path: Path) -> None:
    pool = device_pool(2 * BYTES)
    plain = chain(refs(tmp_path, 2))
    graphs = [plain, chain(refs(tmp_path, 2), pool)]
    x = torch.ones(1, WIDTH)
    for graph in graphs:
        graph.add_edge("m1.y", "m0.x")
        graph.metadata["num_loop_steps"] = 3
    expected = plain.run({"x": x})["y"]
    graphs[1].compile(backend="eager")
    torch.testing.assert_close(graphs[1].run({"x": x})["y"], expected)
    assert pool.resident_bytes == 2 * BYTES and pool.memory is not None and pool.memory.moves == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_bytes": 1}, "max_bytes= alone says nothing; give offload="),
        ({"offload": "disk"}, "offload= alone says nothing; give max_bytes="),
        ({"max_bytes": 1, "offload": "cpu"}, "device='cpu' goes with offload='disk'"),
        ({"max_bytes": 1, "offload": "disk", "device": "cuda"}, "device='cuda' goes with offload='cpu'"),
        ({"max_bytes": True, "offload": "disk"}, "max_bytes is True"),
        ({"max_bytes": 1.5, "offload": "disk"}, "max_bytes is 1.5"),
        ({"max_bytes": 1, "offload": "nvme"}, "expected 'cpu'"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Pool(**options)


PEAK = """
import sys, torch
from tests.core.test_model_memory import chain
from wgtorch.core.pool import Pool

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

budget, *names = sys.argv[1:]
graph = chain(names, Pool(max_bytes=int(budget), offload="disk") if int(budget) else None, 2048)
x = torch.ones(1, 2048)
before = peak()
for _ in range(2):
    graph.run({"x": x})
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells which pages are a file's")
def test_the_process_stays_within_the_budget(tmp_path: Path) -> None:
    """Three models of 16 MiB each, of which two fit."""
    size, slack = 2048 * 2048 * 4, 6 * 2**20
    for number in range(3):
        save_file({"linear.weight": torch.ones(2048, 2048)}, tmp_path / f"{number}.safetensors")
    names = [str(tmp_path / f"{number}.safetensors") for number in range(3)]

    def peak(budget: int) -> int:
        done = subprocess.run([sys.executable, "-c", PEAK, str(budget), *names], capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return int(done.stdout)

    assert peak(0) >= 3 * size - slack
    assert peak(2 * size + 4096) <= 2 * size + slack


def test_what_goes_out_of_a_gpu_waits_for_all_of_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def to_host(data: torch.Tensor) -> torch.Tensor:
        order.append("copied")
        return data

    store = DeviceStore(torch.device("cuda"))
    monkeypatch.setattr(store, "_stream", object())
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: order.append(f"waited for {device}"))
    monkeypatch.setattr(store, "is_in", lambda tensor: True)
    monkeypatch.setattr(store, "_to_host", to_host)
    store.drop([torch.ones(1)])
    assert order == ["waited for cuda", "copied"]
