"""Saving and loading about 500 MB, and memory of two tasks on one model, against what else one could do.

    python scripts/bench/checkpoint.py [--megabytes 500] [--rounds 7] [--only disk|tasks]

Rounds are interleaved and medians shown, since other work may run on the machine. ``read`` adds one look at every weight,
as a first forward pass does: a mapped file costs nothing until then.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wgtorch import Block, Graph, register_block

WIDTH = 2048


@register_block("bench/stack")
class Stack(Block):
    """A row of ``nn.Linear``: [B, 2048] to [B, 2048]."""

    outputs: ClassVar[Mapping[str, Any]] = {"y": "tensor"}

    def __init__(self, layers: int = 30) -> None:
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def graph_of(layers: int) -> Graph:
    graph = Graph("bench")
    graph.add_node("bench/stack", "model", config={"layers": layers})
    graph.infer_exposed_ports()
    return graph


def touch(module: nn.Module) -> float:
    return sum(float(tensor.sum()) for tensor in module.state_dict().values())


def clocked(work: Callable[[], Any]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def medians(jobs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            times[name].append(clocked(job))
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, times: Mapping[str, float], base: str) -> None:
    print(f"\n{title}")
    for name, value in times.items():
        print(f"  {name:<58} {value * 1e3:9.1f} ms  {value / times[base]:6.2f}x")


def disk(layers: int, rounds: int, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    graph = graph_of(layers)
    model = graph.nodes["model"]
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    print(f"{size / 1e6:.0f} MB of weights, torch {torch.__version__}, {torch.get_num_threads()} threads")
    single, pickled, plain = folder / "single.safetensors", folder / "model.pt", folder / "copy"
    checkpoint, archive = folder / "checkpoint", folder / "model.wgt"

    def synced(path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    def save_safetensors() -> None:
        save_file(model.state_dict(), single)
        synced(single)

    def save_torch() -> None:
        torch.save(model.state_dict(), pickled)
        synced(pickled)

    def copy_file() -> None:
        shutil.copyfile(single, plain)
        synced(plain)

    saving = {
        "safetensors save_file + fsync": save_safetensors,
        "torch.save + fsync": save_torch,
        "file copy + fsync": copy_file,
        "wgtorch save (folder; hashes, fsync)": lambda: graph.save(checkpoint),
        "wgtorch save (archive; hashes, fsync)": lambda: graph.save_checkpoint(archive, "archive"),
    }
    show("saving", medians(saving, rounds), "safetensors save_file + fsync")

    def empty() -> Stack:
        with torch.device("meta"):
            return Stack(layers)

    def from_safetensors() -> nn.Module:
        module = empty()
        module.load_state_dict(load_file(single), assign=True)
        return module

    def from_torch() -> nn.Module:
        module = empty()
        module.load_state_dict(torch.load(pickled, mmap=True, weights_only=True), assign=True)
        return module

    loading: dict[str, Callable[[], Any]] = {
        "safetensors load_file + load_state_dict(assign)": from_safetensors,
        "torch.load(mmap) + load_state_dict(assign)": from_torch,
        "wgtorch load (folder)": lambda: Graph.load(checkpoint),
        "wgtorch load (archive)": lambda: Graph.load_from_checkpoint(archive),
    }
    base = "safetensors load_file + load_state_dict(assign)"
    show("loading, nothing read yet", medians(loading, rounds), base)
    reading = {f"{name}, read": (lambda job=job: touch(job())) for name, job in loading.items()}
    reading["plain read of the file"] = lambda: single.read_bytes()
    show("loading, every weight read once", medians(reading, rounds), f"{base}, read")
    proving = {f"{base}, read": reading[f"{base}, read"]}
    proving["wgtorch load (folder, verify=True), read"] = lambda: touch(Graph.load_from_checkpoint(checkpoint, verify=True))
    show("loading with every hash checked", medians(proving, max(3, rounds // 2)), f"{base}, read")
    print("\npeak extra memory while loading and reading (of the weights' bytes; a process each)")
    for name, path in (("folder", checkpoint), ("archive", archive)):
        peak, before = measured("load", str(path), str(layers))
        print(f"  wgtorch load ({name:<7}) {(peak - before) / size:6.3f}x")
    peak, before = measured("safetensors", str(single), str(layers))
    print(f"  safetensors            {(peak - before) / size:6.3f}x")


def variants(layers: int, folder: Path) -> None:
    """A light variant: the base by its ref, one LoRA of its own."""
    from safetensors.torch import save_file

    try:
        import peft
    except ImportError:
        print("\nlight variant: peft is not installed")
        return
    base = folder / "base.safetensors"
    save_file(graph_of(layers).nodes["model"].state_dict(), base)
    graph = Graph("variant")
    graph.add_node("bench/stack", "model", config={"layers": layers, "checkpoint_ref": str(base)})
    graph.infer_exposed_ports()
    block = graph.nodes["model"]
    config = peft.LoraConfig(r=8, target_modules=[name for name, part in block.named_modules() if isinstance(part, nn.Linear)])
    peft.inject_adapter_in_model(config, block, "mine")
    block.peft_config = {"mine": config}
    adapter = sum(value.numel() * value.element_size() for value in peft.get_peft_model_state_dict(block, adapter_name="mine").values())
    saved = graph.save(folder / "variant")
    total = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())
    print(f"\nlight variant: adapters {adapter} bytes, checkpoint {total} bytes, overhead {100 * (total / adapter - 1):.2f}%")


# --- two tasks on one model ---------------------------------------------------------------------------------------------


def tasks(folder: Path) -> None:
    """Memory of one and two tasks on one U-Net, read once: anonymous and mapped pages together."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(256, 512), layers_per_block=2, cross_attention_dim=256, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    unet.save_pretrained(folder / "unet")
    size = sum(tensor.numel() * tensor.element_size() for tensor in unet.state_dict().values())
    del unet
    print(f"\ntwo tasks on one U-Net of {size / 1e6:.0f} MB (extra memory, of one task's; a process each)")
    one: dict[str, float] = {}
    for way in ("wgtorch", "from_pipe", "separate"):
        used = []
        for count in (1, 2):
            peak, before = measured("tasks", str(folder / "unet"), way, str(count))
            used.append(peak - before)
        one[way] = used[0]
        print(f"  {way:<12} one {used[0] / 1e6:8.1f} MB   two {used[1] / 1e6:8.1f} MB   {used[1] / used[0]:5.2f}x")


def resident() -> int:
    """Bytes of this process in memory, mapped files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def measured(*job: str) -> tuple[int, int]:
    """(bytes at the highest, bytes before) of a job in a process of its own."""
    result = subprocess.run([sys.executable, __file__, "--job", *job], capture_output=True, text=True, check=True)
    found = json.loads(result.stdout.splitlines()[-1])
    return found["peak"], found["before"]


def peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def work(job: str, *args: str) -> None:
    held: Any = None
    if job == "tasks":
        folder, way, count = args[0], args[1], int(args[2])
        _warm_tasks(folder)
        gc.collect()
        before = resident()
        held = _tasks(folder, way, count)
        after = resident()
        print(json.dumps({"peak": after, "before": before}))
        return
    graph_of(1).save(Path(args[0]).parent / f"warm-{os.getpid()}")  # imports and first calls are not the weights'
    Graph.load(Path(args[0]).parent / f"warm-{os.getpid()}")
    from safetensors.torch import load_file

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = resident()
    if job == "load":
        held = Graph.load_from_checkpoint(args[0])
    else:
        with torch.device("meta"):
            held = Stack(int(args[1]))
        held.load_state_dict(load_file(args[0]), assign=True)
    touch(held)
    print(json.dumps({"peak": peak(), "before": before}))


def _warm_tasks(folder: str) -> None:
    import diffusers  # noqa: F401
    from diffusers import UNet2DConditionModel  # noqa: F401


def _tasks(folder: str, way: str, count: int) -> Any:
    from diffusers import UNet2DConditionModel

    if way == "wgtorch":
        config = {name: value for name, value in json.loads((Path(folder) / "config.json").read_text()).items() if not name.startswith("_")}
        register_unet(config)
        from wgtorch.core.pool import Pool

        pool = Pool()
        graphs = []
        for index in range(count):
            graph = Graph(f"task_{index}")
            with pool:
                graph.add_node("bench/unet", "unet", config={"checkpoint_ref": folder})
            graphs.append(graph)
        for graph in graphs:
            touch(graph)
        return graphs
    first = UNet2DConditionModel.from_pretrained(folder)
    others = [first if way == "from_pipe" else UNet2DConditionModel.from_pretrained(folder) for _ in range(count - 1)]
    for model in (first, *others):
        touch(model)
    return first, others


def register_unet(config: Mapping[str, Any]) -> None:
    from diffusers import UNet2DConditionModel

    @register_block("bench/unet")
    class UNet(Block):
        outputs: ClassVar[Mapping[str, Any]] = {"pred": "tensor"}

        def __init__(self) -> None:
            super().__init__()
            inner = UNet2DConditionModel.from_config(dict(config))
            for name, child in inner.named_children():
                self.add_module(name, child)

        def forward(self, latent: Tensor) -> Tensor:
            return latent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("disk", "tasks", "variant"))
    parser.add_argument("--job", nargs="*")
    options = parser.parse_args()
    if options.job:
        work(*options.job)
        return
    layers = max(1, round(options.megabytes * 1e6 / (WIDTH * (WIDTH + 1) * 4)))
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        if options.only in (None, "disk"):
            disk(layers, options.rounds, folder)
        if options.only in (None, "variant"):
            variants(layers, folder)
        if options.only in (None, "tasks"):
            tasks(folder)


if __name__ == "__main__":
    main()
