"""What happens to weights, layers and hooks of a block between two runs: no sequence of it leaves a stale result, and results are kept."""

from __future__ import annotations

import functools
import zlib
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize, prune

from tests.matrix import spread
from wgtorch import Block, Graph, NodeCache

X = torch.linspace(-1, 1, 8).view(2, 4)


class Net(Block):
    """Weights of all kinds."""

    outputs = {"y": "any"}

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.linear, self.last = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 4)
        self.scale, self.imaginary = nn.Parameter(torch.ones(4)), nn.Parameter(torch.complex(torch.rand(4, 4), torch.rand(4, 4)))
        self.register_buffer("shift", torch.zeros(4))
        self.register_buffer("absent", None)
        self.several, self.loose, self.calls = nn.ParameterList([torch.ones(4)]), torch.ones(4), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.last(self.linear(self.first(x))) * self.scale * getattr(self.scale, "factor", 1.0) + self.shift
        y = y * (1.5 if self.linear.bias.requires_grad else 1.0)
        y = y + (x @ self.imaginary.real) + (x @ self.imaginary.imag) + len(self.several) * sum(self.several)
        return y * self.loose if self.absent is None else y + self.absent


def graph_of(width: int = 4) -> Graph:
    graph = Graph("g")
    for name in "ab":
        graph.add_node(Net(width), name, auto_connect=False)
    graph.add_edge("a.y", "b.x")
    graph.infer_exposed_ports()
    return graph


class Triangle(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() * 0.5


class Adds(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.25


def swapped(block: Net) -> None:
    torch.utils.swap_tensors(block.linear.weight, nn.Parameter(block.linear.weight.detach() * 0.75))


def swapped_by_conversion(block: Net) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        block.load_state_dict({name: value * 0.75 for name, value in block.double().float().state_dict().items()})
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def data(change: Callable[[Tensor], Tensor]) -> Callable[[Net], None]:
    def edit(block: Net) -> None:
        weight = _weight(block, "linear")
        weight.data = change(weight.data)

    return edit


def conjugated(block: Net) -> None:
    block.imaginary.data = block.imaginary.data.conj()


def negated(block: Net) -> None:
    block.imaginary.data = torch._neg_view(block.imaginary.data)


@torch.no_grad()
def set_again(block: Net) -> None:
    weight = _weight(block, "linear")
    weight.set_(weight.detach().t() * 0.75)


def past_the_count(block: Net) -> None:
    weight = _weight(block, "first")
    version = weight._version
    with torch.no_grad():
        weight.mul_(0.75)
    torch._C._autograd._unsafe_set_version_counter((weight,), (version,))


def assigned(block: Net) -> None:
    block.load_state_dict({name: value * 0.75 for name, value in block.state_dict().items()}, assign=True)


def parametrized(block: Net) -> None:
    if parametrize.is_parametrized(block.linear):
        parametrize.remove_parametrizations(block.linear, "weight")
    else:
        parametrize.register_parametrization(block.linear, "weight", Triangle())


def pruned(block: Net) -> None:
    block.first = prune.l1_unstructured(nn.Linear(4, block.first.out_features), "weight", 0.25)


def normed(block: Net) -> None:
    block.first = nn.utils.parametrizations.weight_norm(nn.Linear(4, block.first.out_features))


def moved_to_a_buffer(block: Net) -> None:
    scale = block.scale.detach() * 0.75
    del block.scale
    block.register_buffer("scale", scale)


def given_an_attribute(block: Net) -> None:
    block.scale.factor = getattr(block.scale, "factor", 1.0) - 0.25  # type: ignore[attr-defined]


def hooked_with_keywords(block: Net) -> None:
    block.linear.register_forward_pre_hook(lambda module, args, kwargs: ((args[0] * 0.75,), kwargs), with_kwargs=True)


def made_in_inference(block: Net) -> None:
    with torch.inference_mode():
        block.shift = block.shift + 0.25


def _weight(block: Net, name: str) -> nn.Parameter:
    return max(getattr(block, name).parameters(), key=Tensor.numel)


EDITS: dict[str, Callable[[Net], Any]] = {
    "swap_tensors": swapped,
    "conversion by swapping": swapped_by_conversion,
    "data assigned": data(lambda weight: weight * 0.75),
    "data transposed": data(lambda weight: weight.t()),
    "data expanded": data(lambda weight: weight[:1].expand_as(weight)),
    "data conjugated": conjugated,
    "data negated": negated,
    "set_": set_again,
    "storage filled": lambda block: block.linear.bias.untyped_storage().copy_((block.linear.bias.detach() * 0.75 + 1).untyped_storage()),
    "version put back": past_the_count,
    "loaded by assigning": assigned,
    "vector to parameters": lambda block: nn.utils.vector_to_parameters(
        torch.linspace(-1, 1, block.last.weight.numel()), [_weight(block, "last")]
    ),
    "parametrized": parametrized,
    "gradients asked for": lambda block: block.linear.bias.requires_grad_(not block.linear.bias.requires_grad),
    "pruned": pruned,
    "weight norm": normed,
    "buffer reassigned": lambda block: setattr(block, "shift", block.shift + 0.25),
    "buffer filled": lambda block: setattr(block, "absent", torch.ones(4) if block.absent is None else block.absent + 1),
    "buffer in inference mode": made_in_inference,
    "parameter to buffer": moved_to_a_buffer,
    "attribute of a parameter": given_an_attribute,
    "one more of a list": lambda block: block.several.append(torch.ones(4)),
    "class of a layer": lambda block: setattr(block.last, "__class__", nn.Linear if type(block.last) is Adds else Adds),
    "layer replaced": lambda block: setattr(block, "last", nn.Linear(block.linear.in_features, 4)),
    "hook with keywords": hooked_with_keywords,
    "tensor that is no weight": lambda block: block.loose.data.mul_(0.75),
    "foreach": lambda block: torch._foreach_mul_([block.linear.bias.data, block.first.bias.data], 0.75),
    "memory of an array": lambda block: block.first.bias.detach().numpy().__setitem__(1, 7.0),
}


@pytest.mark.parametrize(("edit", "where", "mode"), spread(product(EDITS, ["memory", "folder"], ["no_grad", "inference_mode"])))
def test_an_edit_of_a_weight_is_seen(edit: str, where: str, mode: str, tmp_path: Path) -> None:
    for width in (4, 64):
        graph, cache = graph_of(width), NodeCache(directory=tmp_path / str(width) if where == "folder" else None)
        with getattr(torch, mode)():
            before = [graph.run({"x": X}, cache=cache)["y"] for _ in range(2)][-1]
        assert graph.nodes["a"].calls == 1
        EDITS[edit](graph.nodes["a"])
        with getattr(torch, mode)():
            found, want = graph.run({"x": X}, cache=cache)["y"], graph.run({"x": X})["y"]
        assert torch.equal(found, want)
        assert not torch.equal(before, want), "the edit changes nothing"


MOVES = st.tuples(st.sampled_from(["a", "b", "run"]), st.sampled_from(sorted(EDITS)), st.integers(0, 2))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    moves=st.lists(MOVES, min_size=3, max_size=12),
    width=st.sampled_from([4, 64]),
    is_large=st.booleans(),
)
def test_no_sequence_of_edits_leaves_a_stale_result_and_results_are_kept(
    moves: list[Any], width: int, is_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wgtorch.core.run.fingerprint._LARGE", 1000 if is_large else 2**26)  # such are told without being read
    graph, cache, values = graph_of(width), NodeCache(), [X, X + 1, X * 2]
    blocks = graph.nodes.values()
    edited, since = {"a": 0, "b": 0}, Counter[int]()
    for where, edit, index in [*moves, *[("run", "", 0)] * 3]:
        if where != "run":
            EDITS[edit](graph.nodes[where])
            edited[where] += 1
            since.clear()
            continue
        calls = sum(block.calls for block in blocks)
        found = graph.run({"x": values[index]}, cache=cache)["y"]
        counts = [block.calls for block in blocks]
        assert torch.equal(found, graph.run({"x": values[index]})["y"]), f"stale after {edited}"
        for block, count in zip(blocks, counts, strict=True):
            block.calls = count
        if since[index] > 1:  # a first call after an edit may change the block: pruned layers make their weight in it
            assert sum(counts) == calls, f"computed again, though nothing changed: {cache.stats}"
        since[index] += 1
    assert cache.stats.hits


def test_functions_in_place_of_pytorchs_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, cache, linear = graph_of(), NodeCache(), functional.linear

    def adding(number: float) -> Callable[..., Tensor]:
        @functools.wraps(linear)
        def other(*args: Any) -> Tensor:
            return linear(*args) + number

        return other

    found = []
    for number in (0.0, 1.0, 2.0, 1.0):
        monkeypatch.setattr(functional, "linear", adding(number) if number else linear)
        found.append(graph.run({"x": X}, cache=cache)["y"])
        assert torch.equal(found[-1], graph.run({"x": X})["y"])
    assert not torch.equal(found[1], found[2])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_what_nobody_can_tell_is_not_kept(tmp_path: Path) -> None:
    class Holds(Block):
        outputs = {"y": "any"}

        def __init__(self, held: Any) -> None:
            super().__init__()
            self.held, self.calls = held, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x + 1

    for held, words in ((zlib.compressobj(), "other processes"), (torch.jit.script(nn.Sequential(nn.Linear(4, 4))), "is scripted")):
        graph, cache = Graph("g"), NodeCache(directory=tmp_path / words)
        graph.add_node(Holds(held), "n", auto_connect=False)
        graph.infer_exposed_ports()
        for _ in range(2):
            graph.run({"x": X}, cache=cache)
        assert graph.nodes["n"].calls == 2
        assert words in cache.stats.uncached["n"]
