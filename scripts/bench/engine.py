#!/usr/bin/env python
"""What the engine costs: CPU microseconds a node, beside other ways to run the same work, and whether the targets are reached.

    python scripts/bench/engine.py                      # everything, about a minute on one core
    python scripts/bench/engine.py --only chain loop    # some of: chain dag loop memory building
    python scripts/bench/engine.py --rounds 100

Nodes do next to nothing (identity, or one sum of two tensors of four numbers), so what is timed is the walk from node to
node. All ways are timed in one process, in interleaved rounds, by process CPU time; a figure is the least of its rounds.
Before that every way must give the reference's numbers, bit for bit, and call the nodes as often as it does.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from wgtorch import Block, Event, Graph, register_block

INPUT = "x"
CASES = ("chain", "dag", "loop", "memory", "building")
SAMPLE_NS = 2_000_000  # CPU time of one sample: many calls of a fast way, one call of a slow one
SLOW_NS = 20_000_000  # a way whose one call takes longer is timed in FEW rounds
FEW = 5
MIB = 2**20


# --- the work ---------------------------------------------------------------------------------------------------------


class Sum(nn.Module):
    """a + b."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


@register_block("bench/identity")
class IdentityBlock(Block):
    """What nn.Identity is, with ports."""

    outputs = {"y": "tensor"}

    def forward(self, a: Tensor) -> Tensor:
        return a


class SumBlock(Block):
    """What Sum is, with ports."""

    outputs = {"y": "tensor"}

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class AddOne(Block):
    """Allocates a tensor as large as the one it is given."""

    outputs = {"y": "tensor"}

    def forward(self, a: Tensor) -> Tensor:
        return a + 1


@dataclass(frozen=True)
class Shape:
    """A graph to be run in several ways.

    Args:
        title: what the table calls it.
        nodes: (name, names of its sources) in data order; INPUT is the graph's own input.
        outputs: names of the nodes whose values come out.
        turns: how often the nodes run; each turn starts from the last output.
    """

    title: str
    nodes: tuple[tuple[str, tuple[str, ...]], ...]
    outputs: tuple[str, ...]
    turns: int = 1

    @property
    def calls(self) -> int:
        """How many nodes one run calls."""
        return len(self.nodes) * self.turns

    def modules(self) -> dict[str, nn.Module]:
        """Plain modules by node."""
        return {name: nn.Identity() if len(sources) == 1 else Sum() for name, sources in self.nodes}


def chain_of(length: int) -> Shape:
    nodes = tuple((f"n{k}", (f"n{k - 1}" if k else INPUT,)) for k in range(length))
    return Shape(f"chain of {length}", nodes, (f"n{length - 1}",))


def dag_of(layers: int, width: int) -> Shape:
    """Every node reads two nodes of the layer before through two ports."""
    nodes = tuple(
        (f"n{layer}_{k}", tuple(f"n{layer - 1}_{other % width}" if layer else INPUT for other in (k, k + 1)))
        for layer in range(layers)
        for k in range(width)
    )
    return Shape(f"{layers}x{width} DAG", nodes, tuple(f"n{layers - 1}_{k}" for k in range(width)))


def loop_of(turns: int) -> Shape:
    return Shape(f"loop of 2, {turns} turns", (("n0", (INPUT,)), ("n1", ("n0",))), ("n1",), turns)


# --- the ways to run it -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One way to run a shape: ``call`` is what is timed, ``read`` takes the output tensors from what it returned."""

    call: Callable[[], Any]
    read: Callable[[Any], Sequence[Tensor]]


def reference(shape: Shape, x: Tensor) -> Way:
    """nn.Sequential for a chain; else a loop in plain Python over the same modules, the least that Python can do."""
    modules = shape.modules()
    if shape.turns > 1:
        first, second = modules.values()

        def looped() -> Tensor:
            value = x
            for _ in range(shape.turns):
                value = second(first(value))
            return value

        return Way(looped, lambda value: [value])
    if len(shape.outputs) == 1:
        sequential = nn.Sequential(*modules.values())
        return Way(lambda: sequential(x), lambda value: [value])
    width = len(shape.outputs)
    flat = list(modules.values())
    layers = [[(module, k, (k + 1) % width) for k, module in enumerate(flat[at : at + width])] for at in range(0, len(flat), width)]

    def layered() -> list[Tensor]:
        values = [x] * width
        for layer in layers:
            values = [module(values[left], values[right]) for module, left, right in layer]
        return values

    return Way(layered, lambda values: values)


class _Walk(nn.Module):
    """The shape as a module, for torch.fx to trace."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.parts = nn.ModuleDict(shape.modules())

    def forward(self, x: Tensor) -> list[Tensor]:
        values = {INPUT: x}
        for _ in range(self.shape.turns):
            for name, sources in self.shape.nodes:
                values[name] = self.parts[name](*[values[source] for source in sources])
            values[INPUT] = values[self.shape.outputs[-1]]
        return [values[name] for name in self.shape.outputs]


class _KeepModules(torch.fx.Tracer):
    """Traces calls of modules as calls, so that torch.fx calls as many of them as everybody else."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def traced(shape: Shape, x: Tensor) -> Way:
    """torch.fx: straight-line code, loops unrolled."""
    walk = _Walk(shape)
    module = torch.fx.GraphModule(walk, _KeepModules().trace(walk))
    return Way(lambda: module(x), lambda values: values)


def tensordict(shape: Shape, x: Tensor) -> Way:
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule, TensorDictSequential

    def out_key(name: str) -> str:
        return INPUT if shape.turns > 1 and name in shape.outputs else name

    modules = shape.modules()
    sequence = TensorDictSequential(
        *[TensorDictModule(modules[name], in_keys=list(sources), out_keys=[out_key(name)]) for name, sources in shape.nodes]
    )

    def call() -> Any:
        values = TensorDict({INPUT: x}, [])
        for _ in range(shape.turns):
            values = sequence(values)
        return values

    return Way(call, lambda values: [values[out_key(name)] for name in shape.outputs])


def graph_of(shape: Shape, block: Callable[[], Block] | None = None) -> Graph:
    """The shape as a Graph with input ``x`` and the outputs' node names as outputs."""
    graph = Graph("bench", metadata={"num_loop_steps": shape.turns} if shape.turns > 1 else None)
    for name, sources in shape.nodes:
        default = IdentityBlock if len(sources) == 1 else SumBlock
        graph.add_node((block or default)(), name)
    for name, sources in shape.nodes:
        for port, source in zip("ab", sources, strict=False):
            if source == INPUT:
                graph.expose_input(name, port, INPUT)
            else:
                graph.add_edge(source, "y", name, port)
    if shape.turns > 1:
        graph.add_edge(shape.outputs[-1], "y", shape.nodes[0][0], "a")
    for name in shape.outputs:
        graph.expose_output(name, "y", name)
    return graph


def ignore(event: Event) -> None:
    """The least a callback can do."""


def called(shape: Shape, x: Tensor) -> Way:
    graph = graph_of(shape)
    return Way(lambda: graph(x=x), lambda values: list(values.values()))


def run(shape: Shape, x: Tensor) -> Way:
    graph, inputs = graph_of(shape), {INPUT: x}
    return Way(lambda: graph.run(inputs), lambda values: list(values.values()))


def run_with_callback(shape: Shape, x: Tensor) -> Way:
    graph, inputs, callbacks = graph_of(shape), {INPUT: x}, [ignore]
    return Way(lambda: graph.run(inputs, callbacks=callbacks), lambda values: list(values.values()))


def langgraph(shape: Shape, x: Tensor) -> Way:
    """One node function a module; values travel in one channel, or in one a node where nodes read several."""
    from langgraph.graph import END, START, StateGraph

    modules = shape.modules()
    shared = all(len(sources) == 1 for _, sources in shape.nodes)
    keys = {name: INPUT if shared else name for name in (INPUT, *modules)}

    class Values(dict):
        """The state; its channels are declared below."""

    Values.__annotations__ = dict.fromkeys([*keys.values(), "turn"], Any)
    builder = StateGraph(Values)

    def node(name: str, sources: tuple[str, ...]) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        module, reads, writes = modules[name], [keys[source] for source in sources], keys[name]
        ends_turn = shape.turns > 1 and name == shape.outputs[-1]

        def step(values: Mapping[str, Any]) -> dict[str, Any]:
            given = {writes: module(*[values[key] for key in reads])}
            return {**given, "turn": values["turn"] + 1} if ends_turn else given

        return step

    for name, sources in shape.nodes:
        builder.add_node(name, node(name, sources))
    for name, sources in shape.nodes:
        parents = list(dict.fromkeys(sources))
        builder.add_edge(START if parents == [INPUT] else parents[0] if len(parents) == 1 else parents, name)
    for name in shape.outputs:
        if shape.turns > 1:
            builder.add_conditional_edges(name, lambda values: shape.nodes[0][0] if values["turn"] < shape.turns else END)
        else:
            builder.add_edge(name, END)
    compiled = builder.compile()
    config: Any = {"recursion_limit": shape.calls + 5}
    return Way(lambda: compiled.invoke({INPUT: x, "turn": 0}, config), lambda values: [values[keys[name]] for name in shape.outputs])


def haystack(shape: Shape, x: Tensor) -> Way:
    """One component a module; in a loop the last component sends its value back, or out after the last turn."""
    os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
    from haystack import Pipeline, component

    @component
    class Part:
        def __init__(self, module: nn.Module, sources: tuple[str, ...], *, starts: bool = False, ends: bool = False) -> None:
            self.module, self.ends, self.turn = module, ends, 0
            for port, _ in zip("ab", sources, strict=False):
                component.set_input_type(self, port, Tensor, *([None] if starts else []))
            if starts:
                component.set_input_type(self, "back", Tensor, None)
            component.set_output_types(self, **dict.fromkeys(["y", "back"] if ends else ["y"], Tensor))

        def run(self, **inputs: Tensor) -> dict[str, Tensor]:
            back = inputs.pop("back", None)  # the start stays at its socket and comes again beside what is sent back
            value = self.module(*inputs.values() if back is None else [back])
            if not self.ends:
                return {"y": value}
            self.turn = (self.turn + 1) % shape.turns
            return {"back": value} if self.turn else {"y": value}

    modules = shape.modules()
    pipeline = Pipeline(max_runs_per_component=shape.turns)
    loops = shape.turns > 1
    for name, sources in shape.nodes:
        starts, ends = loops and sources == (INPUT,), loops and name in shape.outputs
        pipeline.add_component(name, Part(modules[name], sources, starts=starts, ends=ends))
    inputs: dict[str, dict[str, Tensor]] = {}
    for name, sources in shape.nodes:
        for port, source in zip("ab", sources, strict=False):
            if source == INPUT:
                inputs.setdefault(name, {})[port] = x
            else:
                pipeline.connect(f"{source}.y", f"{name}.{port}")
    if loops:
        pipeline.connect(f"{shape.outputs[-1]}.back", f"{shape.nodes[0][0]}.back")
    return Way(lambda: pipeline.run(inputs), lambda values: [values[name]["y"] for name in shape.outputs])


CALL, RUN, CALLBACK = "wgtorch graph(x=x)", "wgtorch graph.run", "graph.run, one callback"
WAYS: dict[str, tuple[Callable[[Shape, Tensor], Way], str]] = {  # builder and the module it needs
    "reference": (reference, "torch"),
    "torch.fx": (traced, "torch"),
    "TensorDictSequential": (tensordict, "tensordict"),
    CALL: (called, "torch"),
    RUN: (run, "torch"),
    CALLBACK: (run_with_callback, "torch"),
    "LangGraph": (langgraph, "langgraph"),
    "Haystack": (haystack, "haystack"),
}


# --- timing -----------------------------------------------------------------------------------------------------------


def check(shape: Shape, ways: Mapping[str, Way]) -> None:
    """Every way gives the reference's values and calls as many nodes; else there is nothing to compare.

    Raises:
        AssertionError: one does not.
    """
    calls = 0

    def count(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal calls
        calls += isinstance(module, (nn.Identity, Sum, IdentityBlock, SumBlock))

    expected = ways["reference"].read(ways["reference"].call())
    for name, way in ways.items():
        calls = 0
        hook = nn.modules.module.register_module_forward_hook(count)
        try:
            values = way.read(way.call())
        finally:
            hook.remove()
        same = len(values) == len(expected) and all(torch.equal(a, b) for a, b in zip(values, expected, strict=True))
        assert same, f"{name}, {shape.title}: the outputs are not the reference's"
        assert calls == shape.calls, f"{name}, {shape.title}: {calls} nodes called; expected {shape.calls}"


def sample(call: Callable[[], Any], repeats: int) -> float:
    """CPU nanoseconds of one call."""
    started = time.process_time_ns()
    for _ in range(repeats):
        call()
    return (time.process_time_ns() - started) / repeats


def measure(shape: Shape, names: Sequence[str], rounds: int) -> dict[str, float]:
    """CPU microseconds a node by way: the least over interleaved rounds."""
    x = torch.arange(4.0)
    ways = {name: WAYS[name][0](shape, x) for name in names}
    check(shape, ways)
    once = {name: min(sample(way.call, 1) for _ in range(3)) for name, way in ways.items()}
    repeats = {name: max(1, int(SAMPLE_NS / cost)) for name, cost in once.items()}
    slow = {name for name, cost in once.items() if cost > SLOW_NS}
    best = dict.fromkeys(ways, float("inf"))
    for turn in range(rounds):
        for name, way in ways.items():
            if name not in slow or turn < FEW:
                best[name] = min(best[name], sample(way.call, repeats[name]))
    return {name: cost / shape.calls / 1000 for name, cost in best.items()}


def table(figures: Mapping[str, Mapping[str, float]], missing: Sequence[str]) -> str:
    """Ways down, shapes across: microseconds a node, and how many times the reference."""
    lines = [f"{'us a node (x reference)':<25}" + "".join(f"{title:>22}" for title in figures)]
    for name in WAYS:
        if name in missing:
            lines.append(f"{name:<25}{'not installed':>22}")
            continue
        cells = [f"{costs[name]:.2f} ({costs[name] / costs['reference']:.2f}x)" for costs in figures.values()]
        lines.append(f"{name:<25}" + "".join(f"{cell:>22}" for cell in cells))
    lines.append("reference: nn.Sequential of nn.Identity for a chain, else a loop in plain Python over the same modules")
    return "\n".join(lines)


# --- targets ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """A target, whether it is reached, and the numbers that say so."""

    target: str
    reached: bool
    found: str

    def __str__(self) -> str:
        return f"  [{'reached' if self.reached else 'MISSED '}] {self.target}\n            {self.found}"


def at_most(target: str, limit: float, values: Mapping[str, float], unit: str) -> Verdict:
    found = ", ".join(f"{title} {value:.2f}{unit}" for title, value in values.items())
    return Verdict(target, all(value <= limit for value in values.values()), found)


def verdicts(figures: Mapping[str, Mapping[str, float]]) -> list[Verdict]:
    """What the figures say of the targets for time."""
    found = []
    ends = {chain_of(length).title for length in (10, 500)}  # these tell what is flat; the ratio is asked of the others
    for way in (CALL, RUN):
        ratios = {title: costs[way] / costs["reference"] for title, costs in figures.items() if title not in ends}
        found.append(at_most(f"{way}: at most 1.5 times the reference", 1.5, ratios, "x"))
    for way, limit in ((CALL, 3.0), (RUN, 3.0), (CALLBACK, 10.0)):
        found.append(at_most(f"{way}: at most {limit:g} us a node", limit, {title: costs[way] for title, costs in figures.items()}, " us"))
    lengths = {shape.title: shape.calls for shape in map(chain_of, (10, 500)) if shape.title in figures}
    for way in (CALL, RUN, CALLBACK) if len(lengths) == 2 else ():
        (short, few), (long, many) = lengths.items()
        each = (figures[long][way] * many - figures[short][way] * few) / (many - few)
        own = (figures[short][way] - each) * few
        growth = figures[long][way] / figures[short][way]
        found.append(
            Verdict(
                f"{way}: flat from {few} to {many} nodes (a node costs at most 1.1 times as much among {many})",
                growth <= 1.1,
                f"{figures[short][way]:.2f} -> {figures[long][way]:.2f} us, {growth:.2f}x; "
                f"a call costs {own:.1f} us, and {each:.2f} us a node",
            )
        )
    return found


class _CountOps(TorchDispatchMode):
    """Counts the operations that PyTorch is asked for; a copy would be one."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.ops.append(str(func))
        return func(*args, **(kwargs or {}))


def never_copied(length: int = 50, size: int = 64 * MIB) -> Verdict:
    """A large tensor comes out of a chain as the very storage that went in, and no operation was run on the way."""
    graph, x = graph_of(chain_of(length)), torch.zeros(size // 4)
    output = f"n{length - 1}"
    seen: list[Tensor] = []

    def watch(event: Event) -> None:
        seen.extend((event.inputs or {}).values())
        seen.extend((event.outputs or {}).values())

    with _CountOps() as counted:
        outputs = [graph(x=x)[output], graph.run({INPUT: x})[output], graph.run({INPUT: x}, callbacks=[watch])[output]]
    values = [*outputs, *seen]
    pointers = {value.data_ptr() for value in values}
    storages = {value.untyped_storage().data_ptr() for value in values}
    reached = pointers == {x.data_ptr()} and storages == {x.untyped_storage().data_ptr()} and not counted.ops
    return Verdict(
        f"a tensor of {size // MIB} MiB through {length} nodes is never copied",
        reached and len(seen) == 3 * length,  # a node's start tells its input, its end both
        f"{len(seen)} values seen at the nodes, {len(outputs)} at the end: {len(pointers)} data_ptr, {len(storages)} storage; "
        f"{len(counted.ops)} operations run",
    )


def peak_mib() -> float:
    """The most memory this process held, in MiB.

    ``ru_maxrss`` also counts what the parent held when it started this process, so Linux's own figure comes first.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def peak_of(way: str, length: int, size: int = 16 * MIB) -> float:
    """MiB by which a chain of blocks that each allocate ``size`` bytes raises this process's peak."""
    blocks = [AddOne() for _ in range(length)]
    sequential, graph = nn.Sequential(*blocks), graph_of(chain_of(length), AddOne)
    calls: dict[str, Callable[[Tensor], Any]] = {
        "reference": sequential,
        CALL: lambda x: graph(x=x),
        RUN: lambda x: graph.run({INPUT: x}),
        CALLBACK: lambda x: graph.run({INPUT: x}, callbacks=[ignore]),
    }
    with torch.no_grad():
        calls[way](torch.zeros(4))  # what the first call of anything allocates is not the chain's
        x = torch.zeros(size // 4)
        x.add_(0)
        before = peak_mib()
        calls[way](x)
    return peak_mib() - before


def flat_memory(lengths: tuple[int, int] = (4, 40)) -> Verdict:
    """Peaks of a short and a long chain, each in a process of its own."""
    peaks: dict[str, list[float]] = {}
    for way in ("reference", CALL, RUN, CALLBACK):
        for length in lengths:
            command = [sys.executable, __file__, "--peak", way, str(length)]
            # By itself glibc soon keeps blocks of this size on its heap, with holes; so each goes back when it is freed.
            environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(MIB)}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"measuring {way} over {length} nodes failed:\n{done.stderr}")
            peaks.setdefault(way, []).append(float(done.stdout))
    found = "; ".join(f"{way} {short:.0f} -> {long:.0f} MiB" for way, (short, long) in peaks.items())
    return Verdict(
        f"peak memory of a chain does not grow with its length ({lengths[0]} and {lengths[1]} nodes that each allocate 16 MiB)",
        all(long - short < 8 for short, long in peaks.values()),
        f"peak above the start: {found}",
    )


def grown(length: int) -> Graph:
    """A chain with an exposed input and output from the beginning, to which node after node is added and joined."""
    graph = Graph("grown")
    graph.add_node(IdentityBlock(), "n0")
    graph.expose_input("n0", "a")
    graph.expose_output("n0", "y")
    for k in range(1, length):
        graph.add_node(IdentityBlock(), f"n{k}")
        graph.add_edge(f"n{k - 1}.y", f"n{k}.a")
    return graph


def cpu_seconds(call: Callable[[], Any], rounds: int = FEW) -> float:
    """The least CPU time of a few calls."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def linear_building(few: int = 100, many: int = 1_600, limit: float = 20.0) -> Verdict:
    short, long = (cpu_seconds(lambda n=length: grown(n)) for length in (few, many))
    return Verdict(
        f"growing an exposed graph from {few} to {many} nodes costs at most {limit:g} times as much",
        long <= limit * short,
        f"{short * 1e3:.1f} -> {long * 1e3:.1f} ms, {long / short:.1f}x; {long / many * 1e6:.0f} us a node and its edge",
    )


def built_from_config(length: int = 10_000, limit: float = 3.0) -> Verdict:
    config = grown(length).to_config()
    seconds = cpu_seconds(lambda: Graph.from_config(config), rounds=2)
    bare = cpu_seconds(lambda: [IdentityBlock() for _ in range(length)], rounds=2)
    return Verdict(
        f"Graph.from_config of {length} nodes takes at most {limit:g} s",
        seconds <= limit,
        f"{seconds:.2f} s, {seconds / bare:.0f} times what making its blocks alone takes",
    )


# --- the program ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="interleaved rounds of timing")
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES, help="what to measure")
    parser.add_argument("--peak", nargs=2, metavar=("WAY", "LENGTH"), help=argparse.SUPPRESS)  # the memory measure calls itself
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: expected at least 1")
    torch.set_num_threads(1)
    if options.peak:
        print(peak_of(options.peak[0], int(options.peak[1])))
        return
    shapes = {"chain": [chain_of(10), chain_of(50), chain_of(500)], "dag": [dag_of(10, 10)], "loop": [loop_of(50)]}
    missing = [name for name, (_, needs) in WAYS.items() if importlib.util.find_spec(needs) is None]
    names = [name for name in WAYS if name not in missing]
    print(f"CPU time, least of {options.rounds} rounds; Python {platform.python_version()}, torch {torch.__version__}, one thread\n")
    figures = {shape.title: measure(shape, names, options.rounds) for case in options.only if case in shapes for shape in shapes[case]}
    found = []
    if figures:
        print(table(figures, missing), end="\n\n", flush=True)
        found += verdicts(figures)
    if "memory" in options.only:
        found += [never_copied(), flat_memory()]
    if "building" in options.only:
        found += [linear_building(), built_from_config()]
    print("targets", *found, sep="\n")


if __name__ == "__main__":
    main()
