"""Levels that are written out in the plan around them compute what they compute when they are called."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from wgtorch import Block, Graph, Pipeline
from wgtorch.core.errors import RunCancelled
from wgtorch.core.plan import Call, Chain


class Add(Block):
    outputs = {"y": "tensor"}

    def __init__(self, k: float = 1.0):
        super().__init__()
        self.k = k

    def forward(self, x: Tensor, b: Tensor | None = None) -> Tensor:
        return x * 2 + self.k if b is None else x * 2 + b


class Noise(Block):
    outputs = {"y": "tensor"}

    def forward(self, x: Tensor, rng: Any = None) -> Tensor:
        return x + rng.normal(x.shape)


class ForeignNoise(Block):
    outputs = {"y": "tensor"}

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn(x.shape)


class Split(Block):
    outputs = {"y": "tensor", "z": "tensor"}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": x + 1, "z": x - 1}


class Breaks(Block):
    outputs = {"y": "tensor"}

    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError("inside")


def chain(*parts: Any, name: str = "g", **place: Any) -> Graph:
    g = Graph(name)
    for index, part in enumerate(parts):
        g.add_node(part, f"n{index}", auto_connect=False, **place)
        if index:
            g.add_edge(f"n{index - 1}.y", f"n{index}.x")
    g.expose_input("n0", "x")
    g.expose_output(f"n{len(parts) - 1}", "y")
    return g


def calls(level: Any) -> list[str]:
    """Nodes as a fast walk calls them."""
    steps = level.plan().fast_steps
    return [call.node for step in steps for call in (step.calls if isinstance(step, Chain) else [step]) if isinstance(call, Call)]


def nested() -> Graph:
    return chain(Add(1), chain(Noise(), chain(ForeignNoise(), Add(3)), Add(5)), Noise())


def test_calls_of_levels_below_stand_in_the_plan() -> None:
    level = nested()
    assert calls(level) == ["n0", "n1/n0", "n1/n1/n0", "n1/n1/n1", "n1/n2", "n2"]
    assert level.plan().order() == ("n0", "n1", "n2")


@given(st.recursive(st.sampled_from([Add, Noise, ForeignNoise]), lambda parts: st.lists(parts, min_size=1, max_size=3), max_leaves=8))
def test_runs_that_are_watched_and_that_are_not_give_the_same(sketch: Any) -> None:
    def built(part: Any) -> Any:
        return chain(*map(built, part)) if isinstance(part, list) else part()

    level, x = chain(built(sketch)), torch.ones(2, 3)
    want = level.run({"x": x}, seed=3, callbacks=[lambda event: None])["y"]
    assert torch.equal(level.run({"x": x}, seed=3)["y"], want)
    assert torch.equal(level.run({"x": x}, seed=3, outputs=["y"])["y"], want)


def test_a_level_at_two_places_and_values_read_under_two_names() -> None:
    part, level = Graph("part"), Graph("g")
    part.add_node(Split(), "s")
    part.infer_exposed_ports()
    level.add_node(part, "a")
    level.add_node(part, "b")
    level.add_edge("a.y", "b.x")
    level.expose_input("a", "x")
    for node, port in (("a", "y"), ("a", "z"), ("b", "z")):
        level.expose_output(node, port, f"{node}_{port}")
    found = level.run({"x": torch.zeros(1)})
    assert {name: value.item() for name, value in found.items()} == {"a_y": 1, "a_z": -1, "b_z": 0}
    part.expose_output("s", "y", "again")
    level.expose_output("a", "again")
    assert level.run({"x": torch.zeros(1)})["again"].item() == 1


def test_inputs_that_are_left_out_stay_left_out() -> None:
    part = chain(Add(1))
    part.expose_input("n0", "b")
    level = chain(part)
    assert level.run({"x": torch.ones(1)})["y"].item() == 3
    level.expose_input("n0", "b")
    assert calls(level) == ["n0/n0"]
    assert level.run({"x": torch.ones(1)})["y"].item() == 3
    assert level.run({"x": torch.ones(1), "b": torch.full((1,), 5.0)})["y"].item() == 7


@pytest.mark.parametrize("how", ["forward_hook", "forward_pre_hook", "forward", "compile", "everywhere"])
def test_what_is_done_to_a_level_afterwards_is_seen(how: str) -> None:
    inner = chain(Add(1))
    level, seen = chain(inner), []
    level.run({"x": torch.ones(1)})
    removed: Any = None

    def note(*args: Any, **kwargs: Any) -> None:
        seen.append(1)

    if how == "forward":
        own = inner.forward
        inner.forward = lambda **inputs: (note(), own(**inputs))[1]  # type: ignore[method-assign]
    elif how == "compile":
        inner._compiled_call_impl = lambda **inputs: (note(), inner._call_impl(**inputs))[1]
    elif how == "everywhere":
        removed = nn.modules.module.register_module_forward_hook(lambda module, args, out: note() if module is inner else None)
    else:
        getattr(inner, f"register_{how}")(note)
    try:
        level.run({"x": torch.ones(1, requires_grad=True)}, training=True)["y"].sum().backward()
    finally:
        if removed is not None:
            removed.remove()
    assert seen == [1]


def test_what_was_put_around_a_level_is_called() -> None:
    class Around(nn.Module):
        def __init__(self, inside: nn.Module):
            super().__init__()
            self.inside, self.calls = inside, 0

        def forward(self, **inputs: Any) -> Any:
            self.calls += 1
            return self.inside(**inputs)

    level = chain(chain(Add(1)))
    want = level.run({"x": torch.ones(1)})["y"]
    around = level.nodes._modules["n0"] = Around(level.nodes["n0"])
    assert torch.equal(level(x=torch.ones(1))["y"], want) and around.calls == 1


def test_changes_below_are_followed() -> None:
    inner = chain(Add(1), Add(1))
    level = Pipeline("p")
    level.add_graph(chain(inner), "a")
    level.infer_exposed_ports()
    assert level.run({"x": torch.ones(1)})["y"].item() == 7
    inner.replace_node("n1", Add(10))
    assert level.run({"x": torch.ones(1)})["y"].item() == 16
    inner.nodes._modules["n0"] = Add(0)
    assert level.run({"x": torch.ones(1)})["y"].item() == 14
    assert copy.deepcopy(level).run({"x": torch.ones(1)})["y"].item() == 14


def test_a_failure_and_a_stop_name_the_whole_path() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        chain(Add(), chain(Add(), Breaks())).run({"x": torch.ones(1)})
    assert caught.value.__notes__ == ["raised in node n1/n1 of g"]
    with pytest.raises(RunCancelled, match="before n0/n0 of g"):
        chain(chain(Add())).run({"x": torch.ones(1)}, cancelled=lambda: True)


def test_a_run_inside_a_block_of_a_level_below_has_its_path() -> None:
    class Asks(Block):
        outputs = {"y": "tensor"}

        def __init__(self, inner: Graph | None = None):
            super().__init__()
            self.inner = inner or chain(Noise())

        def forward(self, x: Tensor) -> Tensor:
            return self.inner.run({"x": x})["y"]

    level, x = chain(chain(Asks())), torch.zeros(2, 2)
    assert torch.equal(level.run({"x": x}, seed=1)["y"], level.run({"x": x}, seed=1, callbacks=[lambda event: None])["y"])


def test_places_that_need_more_keep_their_call() -> None:
    assert calls(chain(chain(Add()), trainable=False)) == ["n0"]
    assert calls(chain(chain(Add()), timeout=5.0)) == ["n0"]
    looping = Graph("loop", metadata={"num_loop_steps": 2})
    looping.add_node(Add(), "n")
    looping.add_edge("n.y", "n.x")
    looping.expose_input("n", "x")
    looping.expose_output("n", "y")
    assert calls(chain(looping)) == ["n0"]
    assert chain(looping).run({"x": torch.ones(1)})["y"].item() == 7
