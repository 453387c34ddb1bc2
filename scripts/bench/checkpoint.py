"""Saving and loading about 500 MB, and memory of two tasks on one model, against what else one could do.

    python scripts/bench/checkpoint.py [--megabytes 500] [--rounds 7] [--only disk|tasks]

Rounds are interleaved; times are medians, and ratios medians of the ratios inside a round, since other work may run on the
machine. Loading is compared twice with ``safetensors.load_file`` and ``load_state_dict(assign=True)`` into a module made by
hand on the meta device: until the module stands with its weights mapped, of which nothing was read yet, and until it gave
its first output, for which every weight is read from the file. What wgtorch does beside (manifest, config and its check,
plan, proof of the files) is in its times. Imports are not: the first load of a process has its own line.
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
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wgtorch import Block, Graph, lora, register_block
from wgtorch.core.checkpoint.manifest import digest_of

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


def empty(layers: int) -> Stack:
    with torch.device("meta"):
        return Stack(layers)


def by_safetensors(path: str | Path, layers: int) -> nn.Module:
    """What one writes without wgtorch."""
    from safetensors.torch import load_file

    module = empty(layers)
    module.load_state_dict(load_file(path), assign=True)
    return module


def touch(module: nn.Module) -> float:
    return sum(float(tensor.sum()) for tensor in module.state_dict().values())


def clocked(work: Callable[[], Any]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rounds_of(jobs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every job in every round."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            times[name].append(clocked(job))
    return times


def show(title: str, times: Mapping[str, list[float]], base: str, limit: float | None = None) -> None:
    """Prints medians, and how many times the base's each took; with ``limit``, whether wgtorch keeps to it."""
    print(f"\n{title}")
    for name, values in times.items():
        ratio = statistics.median(value / other for value, other in zip(values, times[base], strict=True))
        asked = limit is not None and name.startswith("wgtorch")
        verdict = f"   {'reached' if ratio <= limit else 'MISSED'}: <= {limit}x" if asked else ""
        print(f"  {name:<58} {statistics.median(values) * 1e3:9.1f} ms  {ratio:6.2f}x{verdict}")


def disk(layers: int, rounds: int, folder: Path) -> None:
    from safetensors.torch import save_file

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
    show("saving", rounds_of(saving, rounds), "safetensors save_file + fsync")

    def from_torch() -> nn.Module:
        module = empty(layers)
        module.load_state_dict(torch.load(pickled, mmap=True, weights_only=True), assign=True)
        return module

    loading: dict[str, Callable[[], Any]] = {
        "safetensors load_file + load_state_dict(assign)": lambda: by_safetensors(single, layers),
        "torch.load(mmap) + load_state_dict(assign)": from_torch,
        "wgtorch load (folder)": lambda: Graph.load(checkpoint),
        "wgtorch load (archive)": lambda: Graph.load_from_checkpoint(archive),
    }
    base = "safetensors load_file + load_state_dict(assign)"
    show("loading, nothing read yet", rounds_of(loading, 10 * rounds), base, limit=1.1)
    x = torch.randn(1, WIDTH)

    def first_output(load: Callable[[], nn.Module]) -> Any:
        with torch.no_grad():
            return load()(x=x)

    reading = {name: (lambda job=job: first_output(job)) for name, job in loading.items()}
    reading["plain read of the file"] = single.read_bytes
    show("loading, until the first output (every weight read once)", rounds_of(reading, 2 * rounds), base, limit=1.1)
    verified = {"wgtorch load (folder, verify=True)": lambda: first_output(lambda: Graph.load_from_checkpoint(checkpoint, verify=True))}
    hashed = "safetensors, and sha256 of the file"
    proving: dict[str, Callable[[], Any]] = {hashed: lambda: (digest_of(single), reading[base]()), **verified}
    show("loading with every byte hashed, until the first output", rounds_of(proving, max(3, rounds // 2)), hashed, limit=1.1)
    first = {way: statistics.median(first_load(way, checkpoint, single, layers) for _ in range(3)) for way in ("safetensors", "wgtorch")}
    print("\nfirst load of a process, imports of what it needs included (a process each)")
    print("".join(f"  {way:<58} {seconds * 1e3:9.1f} ms\n" for way, seconds in first.items()), end="")
    print("\npeak extra memory while loading and reading (of the weights' bytes; a process each)")
    for name, path in (("folder", checkpoint), ("archive", archive)):
        peak, before = measured("load", str(path), str(layers))
        ratio = (peak - before) / size
        print(f"  wgtorch load ({name:<7}) {ratio:6.3f}x   {'reached' if ratio <= 1.1 else 'MISSED'}: <= 1.1x")
    peak, before = measured("safetensors", str(single), str(layers))
    print(f"  safetensors            {(peak - before) / size:6.3f}x")


def first_load(way: str, checkpoint: Path, single: Path, layers: int) -> float:
    """Seconds of the first load in a new process, after ``import wgtorch``."""
    job = ["first", way, str(checkpoint if way == "wgtorch" else single), str(layers)]
    result = subprocess.run([sys.executable, __file__, "--job", *job], capture_output=True, text=True, check=True)
    return float(result.stdout.splitlines()[-1])


def variants(layers: int, folder: Path) -> None:
    """A light variant: the base by its ref, one LoRA of its own."""
    from safetensors.torch import save_file

    if find_spec("peft") is None:
        print("\nlight variant: peft is not installed")
        return
    base = folder / "base.safetensors"
    save_file(graph_of(layers).nodes["model"].state_dict(), base)
    graph = Graph("variant")
    graph.add_node("bench/stack", "model", config={"layers": layers, "checkpoint_ref": str(base)})
    graph.infer_exposed_ports()
    lora.add(graph, "mine", rank=8, target_modules=r"layers\.\d+")
    block = graph.nodes["model"]
    adapter = sum(value.numel() * value.element_size() for name, value in block.named_parameters() if ".lora_" in name)
    assert adapter == sum(8 * (layer.in_features + layer.out_features) * 4 for layer in graph_of(layers).nodes["model"].layers)
    saved = graph.save(folder / "variant")
    total = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())
    overhead = total / adapter - 1
    verdict = "reached" if overhead <= 0.01 else "MISSED"
    print(f"\nlight variant: adapters {adapter} bytes, checkpoint {total} bytes, overhead {overhead:.2%}   {verdict}: <= 1%")


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
        verdict = f"   {'reached' if used[1] <= 1.05 * used[0] else 'MISSED'}: <= 1.05x" if way == "wgtorch" else ""
        print(f"  {way:<12} one {used[0] / 1e6:8.1f} MB   two {used[1] / 1e6:8.1f} MB   {used[1] / used[0]:5.2f}x{verdict}")


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
    if job == "first":
        way, path, layers = args[0], args[1], int(args[2])
        print(clocked(lambda: Graph.load(path) if way == "wgtorch" else by_safetensors(path, layers)))
        return
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
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = resident()
    if job == "load":
        held = Graph.load_from_checkpoint(args[0])
    else:
        held = by_safetensors(args[0], int(args[1]))
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
