#!/usr/bin/env python
"""What it costs that a place uses an adapter: switching between places, and different adapters within one batch.

    python scripts/bench/lora.py                 # all, about a minute on one core
    python scripts/bench/lora.py --only switch   # some of: switch mixed memory
    python scripts/bench/lora.py --rounds 50 --batch 8 --rank 16

On a tiny UNet of diffusers with random weights. All ways are timed in one process, in interleaved rounds; a figure is the least of its
rounds. Before that all must give the same numbers.

- switch: two calls of the engine at two places with two adapters, beside two at one place with one; and PEFT's ``set_adapter``, which
  walks all layers. Target: at most 50 microseconds for each call.
- mixed: a batch with another adapter for every other sample, beside one adapter for all, and beside PEFT's ``adapter_names``.
  Target: at most 1.1 of one adapter for all.
- memory: weights of two places with two adapters, beside one model and two copies of it; and what is allocated when a place is told
  to use another adapter, which is nothing.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import peft
import torch
from diffusers import UNet2DConditionModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from wgtorch import Block, Graph, lora

NAMES = ("winter", "summer")


class Backbone(Block):
    """A UNet of diffusers with everything but the latent given."""

    outputs = {"y": "tensor"}
    ref_module = "model"

    def __init__(self, model: nn.Module, condition: Tensor) -> None:
        super().__init__()
        self.model = model
        self.condition = condition

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, 7, encoder_hidden_states=self.condition, return_dict=False)[0]


class Nothing(Block):
    """One adapted layer of four numbers: the call costs nothing but the place."""

    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x


def unet() -> UNet2DConditionModel:
    """Four million parameters."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64, 128), layers_per_block=1, cross_attention_dim=32, attention_head_dim=4,
        norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip


def interleaved(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Least seconds of each way."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    return {name: min(values) for name, values in times.items()}


def set_adapter(model: nn.Module, name: str) -> None:
    """What PEFT's own ``set_adapter`` does."""
    for part in model.modules():
        if isinstance(part, BaseTunerLayer):
            part.set_adapter(name)


def row(words: str, seconds: float, beside: float | None = None, target: float | None = None) -> None:
    ratio = "" if beside is None else f"  {seconds / beside:6.3f}x"
    reached = "" if target is None or beside is None else f"  (target {target}x: {'reached' if seconds <= target * beside else 'MISSED'})"
    print(f"  {words:<48}{seconds * 1e6:12.1f} us{ratio}{reached}")


def switch(arguments: argparse.Namespace) -> None:
    """The price of a place."""
    model = unet()
    layers: Any = chain_of(Backbone(model, torch.randn(1, 8, 32)), 1)
    for name in NAMES:
        lora.add(layers, name, rank=arguments.rank, wear=False)
    calls = 200
    graphs = {"no adapter": chain_of(Nothing(), calls), "one adapter": chain_of(Nothing(), calls), "in turn": chain_of(Nothing(), calls)}
    for words in ("one adapter", "in turn"):
        for name in NAMES:
            lora.add(graphs[words], name, rank=2)
        for index in range(calls):
            graphs[words].set_adapter(f"n{index}", NAMES[index % 2 if words == "in turn" else 0])
    x = torch.randn(2, 4)
    ways: dict[str, Callable[[], Any]] = {words: lambda graph=graph: graph(x=x) for words, graph in graphs.items()}
    count = sum(isinstance(part, BaseTunerLayer) for part in model.modules())
    for name in NAMES * 2:
        ways[f"PEFT to {name}"] = lambda name=name: set_adapter(model, name)
    with torch.no_grad():
        found = interleaved(ways, arguments.rounds)
    print(f"switching place, a call ({count} adapted layers in the UNet):")
    row("engine, a node without adapters", found["no adapter"] / calls)
    row("engine, a node that uses the same as the last", found["one adapter"] / calls)
    row("engine, a node that uses another than the last", found["in turn"] / calls)
    cost = (found["in turn"] - found["no adapter"]) / calls
    print(f"  a place that uses another costs {cost * 1e6:.1f} us more (target 50 us: {'reached' if cost <= 50e-6 else 'MISSED'})")
    row("PEFT's set_adapter on the UNet", found["PEFT to winter"])


def chain_of(block: Block, length: int) -> Graph:
    """One block at many places in a row."""
    graph = Graph("chain")
    for index in range(length):
        graph.add_node(block, f"n{index}")
        if index:
            graph.add_edge(f"n{index - 1}.y", f"n{index}.x")
    graph.expose_input("n0", "x")
    graph.expose_output(f"n{length - 1}", "y")
    return graph


def mixed(arguments: argparse.Namespace) -> None:
    """The price of different adapters within one batch."""
    batch = arguments.batch
    torch.manual_seed(1)
    x, condition = torch.randn(batch, 4, 16, 16), torch.randn(batch, 8, 32)
    graph = chain_of(Backbone(unet(), condition), 1)
    theirs = unet()
    for name in NAMES:
        lora.add(graph, name, rank=arguments.rank, target_modules=["to_q", "to_k", "to_v", "to_out.0", "conv1"], init_lora_weights=False)
        theirs.__dict__.pop("peft_config", None)
        config = peft.LoraConfig(r=arguments.rank, lora_alpha=arguments.rank, target_modules=["to_q", "to_k", "to_v", "to_out.0", "conv1"])
        peft.inject_adapter_in_model(config, theirs, name)
    theirs.load_state_dict(graph.nodes["n0"].model.state_dict())
    theirs.eval()
    samples = [NAMES[index % 2] for index in range(batch)]

    def ours(adapter: str | Sequence[str] | None) -> Tensor:
        graph.set_adapter("n0", adapter)
        return graph(x=x)["y"]

    def by_peft() -> Tensor:
        hooks = [
            part.register_forward_pre_hook(lambda _, args, kwargs: (args, {**kwargs, "adapter_names": samples}), with_kwargs=True)
            for part in theirs.modules()
            if isinstance(part, BaseTunerLayer)
        ]
        started = time.perf_counter()
        y = theirs(x, 7, encoder_hidden_states=condition, return_dict=False)[0]
        spent.append(time.perf_counter() - started)
        for hook in hooks:
            hook.remove()
        return y

    spent: list[float] = []
    with torch.no_grad():
        set_adapter(theirs, NAMES[0])
        torch.testing.assert_close(ours(samples), by_peft(), rtol=1e-3, atol=1e-4)
        spent.clear()
        found = interleaved(
            {
                "none": lambda: ours(None),
                "one": lambda: ours(NAMES[0]),
                "mixed": lambda: ours(samples),
                "PEFT one": lambda: theirs(x, 7, encoder_hidden_states=condition, return_dict=False),
                "PEFT mixed": by_peft,
            },
            arguments.rounds,
        )
    print(f"a batch of {batch}, rank {arguments.rank}:")
    row("no adapter", found["none"])
    row("one adapter for all", found["one"], found["one"])
    row("another for every other sample", found["mixed"], found["one"], 1.1)
    row("PEFT, one adapter for all", found["PEFT one"], found["one"])
    row("PEFT, adapter_names", min(spent), found["PEFT one"])


def memory(arguments: argparse.Namespace) -> None:
    """What two adapters at two places weigh."""
    block = Backbone(unet(), torch.randn(1, 8, 32))
    alone, sizes = held(block), {}
    for words, second in (("two places, one base", block), ("two copies", copy.deepcopy(block))):
        graph = Graph("pair")
        for node, child, name in (("first", block, NAMES[0]), ("second", second, NAMES[1])):
            graph.add_node(child, node)
            if name not in lora.adapters(graph):
                lora.add(graph, name, rank=arguments.rank, nodes=[node], wear=False)
            graph.set_adapter(node, name)
        sizes[words] = held(graph)
        if second is block:
            print(f"telling a place to use another adapter allocates {allocated(graph)} bytes of tensors")
        for name in lora.adapters(graph):
            lora.remove(graph, name)
    print("memory of weights:")
    print(f"  {'one model without adapters':<48}{alone / 2**20:12.1f} MiB")
    for words, size in sizes.items():
        print(f"  {words + ', with two adapters':<48}{size / 2**20:12.1f} MiB{size / alone:9.3f}x")


def allocated(graph: Graph) -> int:
    """Bytes of tensors that are made when a place is told to use another adapter."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for name in NAMES * 2:
            graph.set_adapter("first", name)
    return sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())


def held(module: nn.Module) -> int:
    """Bytes of the parameters and buffers, each storage once."""
    storages = (value.untyped_storage() for value in [*module.parameters(), *module.buffers()])
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=("switch", "mixed", "memory"), default=("switch", "mixed", "memory"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "switch" in arguments.only:
        switch(arguments)
    if "mixed" in arguments.only:
        mixed(arguments)
    if "memory" in arguments.only:
        memory(arguments)


if __name__ == "__main__":
    main()
