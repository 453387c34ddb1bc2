"""Everything that a result may depend on beside inputs and weights: no edit of it leaves a stale result."""

from __future__ import annotations

import copyreg
import functools
import random
import sys
import types
import weakref
from collections import defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from wgtorch import Block, Graph, NodeCache, Pipeline

X = torch.linspace(-1, 1, 8).view(2, 4)
SETTINGS = types.ModuleType("settings_of_a_user")
SETTINGS.SCALE = 1.0  # type: ignore[attr-defined]
COUNTS = [0]


class Helper:
    def scaled(self, x: Tensor) -> Tensor:
        return x * 1.0


class Slotted:
    __slots__ = ("factor", "opaque")

    def __init__(self) -> None:
        self.factor, self.opaque = 1.0, object()

    def __reduce__(self) -> Any:
        raise TypeError("no")


@functools.lru_cache
def cached_factor(k: int) -> float:
    return k / 2


class Reads(Block):
    """Reads one thing of each kind."""

    outputs = {"y": "any"}
    shift = torch.zeros(4)
    several = {1.0}

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.deep: Any = functools.reduce(lambda inner, _: {"a": inner}, range(9), 1.0)
        self.hidden = {"a": [nn.Linear(4, 4)]}
        self.slotted, self.array, self.table, self.plain = Slotted(), np.ones(20_000), dict.fromkeys(range(5_000), 1.0), torch.ones(2_000)
        self.calls, self.log = 0, []

    @functools.cached_property
    def once(self) -> float:
        return 1.0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.log.append("called")
        deep = self.deep
        while isinstance(deep, dict):
            deep = deep["a"]
        y = Helper().scaled(self.hidden["a"][0](self.linear(x))) * SETTINGS.SCALE * deep * self.slotted.factor * cached_factor(2)
        return y * float(self.array[3]) * self.table[7] * self.plain[5] * sum(self.several) * self.once + self.shift


def graph_of(block: Block) -> Graph:
    graph = Graph("g")
    graph.add_node(block, "n", auto_connect=False)
    graph.infer_exposed_ports()
    return graph


class Adds(TorchFunctionMode):
    def __torch_function__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        return found + 1 if function is nn.functional.linear else found


def plus_one(module: nn.Module, args: Any, result: Any) -> Any:
    return result + 1 if isinstance(module, nn.Linear) else None


def set_deep(block: Reads) -> None:
    inner = block.deep
    while isinstance(inner["a"], dict):
        inner = inner["a"]
    inner["a"] = 2.0


def hidden(block: Reads) -> None:
    with torch.no_grad():
        block.hidden["a"][0].weight.add_(1)


def patch(where: Any, name: str, value: Any) -> Callable[[Any], Any]:
    return lambda block: lambda monkeypatch: monkeypatch.setattr(where, name, value)


EDITS: dict[str, Callable[[Any], Any]] = {
    "hook of the graph": lambda block: lambda graph: graph.register_forward_hook(lambda module, args, result: {"y": result["y"] + 1}),
    "forward of the graph": lambda block: lambda graph: setattr(graph, "forward", lambda *args, **inputs: {"y": torch.ones(1)}),
    "attribute of the class": patch(Reads, "shift", torch.ones(4)),
    "set of the class": patch(Reads, "several", {1.0, 2.0}),
    "constant of a module": patch(SETTINGS, "SCALE", 3.0),
    "method of a helper": patch(Helper, "scaled", lambda self, x: x * 2),
    "forward of a layer": patch(nn.Linear, "forward", lambda self, x: x),
    "deep inside": set_deep,
    "hidden module": hidden,
    "slot": lambda block: setattr(block.slotted, "factor", 2.0),
    "array": lambda block: block.array.__setitem__(3, 2.0),
    "large table": lambda block: block.table.__setitem__(7, 2.0),
    "plain tensor": lambda block: block.plain.__setitem__(5, 2.0),
    "cached property": lambda block: block.__dict__.__setitem__("once", 2.0),
}


@pytest.mark.parametrize("saved", [False, True], ids=["memory", "folder"])
@pytest.mark.parametrize("edit", EDITS, ids=lambda name: name.replace(" ", "_"))
def test_an_edit_is_seen(edit: str, saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = Reads()
    graph, cache = graph_of(block), NodeCache(directory=tmp_path if saved else None)
    before = [graph.run({"x": X}, cache=cache)["y"] for _ in range(3)]
    assert block.calls == 2, "the first call fills the cached property; the third is not made"
    more = EDITS[edit](block)
    if isinstance(more, types.FunctionType):
        more(monkeypatch if "monkeypatch" in more.__code__.co_varnames else graph)
    found, want = graph.run({"x": X}, cache=cache)["y"], graph.run({"x": X})["y"]
    assert torch.equal(found, want)
    assert not torch.equal(before[-1], want), "the edit changes nothing"


def test_hooks_of_all_modules_and_modes_around_operators_are_obeyed() -> None:
    graph, cache = graph_of(Reads()), NodeCache()
    _, plain = (graph.run({"x": X}, cache=cache)["y"] for _ in range(2))
    for register in (
        lambda: register_module_forward_hook(plus_one),
        lambda: register_module_forward_pre_hook(lambda module, args: (args[0] + 1,) if isinstance(module, nn.Linear) else None),
    ):
        handle = register()
        try:
            assert torch.equal(graph.run({"x": X}, cache=cache)["y"], changed := graph.run({"x": X})["y"])
            assert not torch.equal(changed, plain)
        finally:
            handle.remove()
    with Adds():
        assert torch.equal(graph.run({"x": X}, cache=cache)["y"], graph.run({"x": X})["y"])
    assert torch.equal(graph.run({"x": X}, cache=cache)["y"], plain)


def test_a_dry_run_and_a_transform_leave_nothing_in_a_cache() -> None:
    graph, cache = graph_of(Block.wrap(lambda x: x * 2, inputs={"x": "any"}, outputs={"y": "any"})), NodeCache()
    graph.run({"x": X}, dry_run="fake", cache=cache)
    assert len(cache) == 0
    rows = torch.func.vmap(lambda x: graph.run({"x": x}, cache=cache)["y"])(X)
    assert torch.equal(rows, X * 2)
    assert len(cache) == 0


def test_a_level_inside_keeps_its_hook() -> None:
    inner, pipeline, cache = graph_of(Reads()), Pipeline("p"), NodeCache()
    pipeline.add_graph(inner, "i")
    pipeline.infer_exposed_ports()
    _, plain = (pipeline.run({"x": X}, cache=cache)["y"] for _ in range(2))
    inner.register_forward_hook(lambda module, args, result: {"y": result["y"] + 1})
    assert torch.equal(pipeline.run({"x": X}, cache=cache)["y"], plain + 1)


class Remembers(Reads):
    """Gives something else at each call."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.count, self.seen, self.generator = how, 0, [], np.random.default_rng(0)  # type: ignore[var-annotated]
        self.python, self.average, self.iterator = random.Random(0), torch.zeros(4), iter(range(99))

    def forward(self, x: Tensor) -> Tensor:
        match self.how:
            case "count":
                self.count += 1
                return x + self.count
            case "list":
                self.seen.append(1)
                return x + len(self.seen)
            case "numpy":
                return x + float(self.generator.normal())
            case "python":
                return x + self.python.random()
            case "tensor":
                self.average = self.average / 2 + 1
                return x + self.average
            case "iterator":
                return x + next(self.iterator)
        COUNTS[0] += 1
        return x + COUNTS[0]


class Plus:
    def __call__(self, x: Tensor) -> Tensor:
        return x + 1


class Times:
    def __call__(self, x: Tensor) -> Tensor:
        return x * 3


def test_another_base_of_a_class_is_seen() -> None:
    class Of(Plus):
        pass

    block = Block.wrap(lambda x: Of()(x), inputs={"x": "any"}, outputs={"y": "any"})
    graph, cache = graph_of(block), NodeCache()
    assert torch.equal([graph.run({"x": X}, cache=cache)["y"] for _ in range(2)][-1], X + 1)
    assert cache.stats.hits == 1
    Of.__bases__ = (Times,)
    assert torch.equal(graph.run({"x": X}, cache=cache)["y"], X * 3)


def test_a_call_after_which_nothing_tells_what_a_block_holds_is_not_kept() -> None:
    block = Gives(lambda: setattr(block, "made", (k for k in [1])) or X)  # type: ignore[func-returns-value]
    graph, cache = graph_of(block), NodeCache()
    assert torch.equal(graph.run({"x": X}, cache=cache)["y"], X)
    assert "goes on whenever it is asked" in cache.stats.uncached["n"]


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_lists_that_lie_inside_of_themselves_are_no_others(where: str) -> None:
    inner: list[Any] = [2]
    outer: list[Any] = [1, inner]
    inner.append(outer if where == "outside" else inner)  # both are written [1, [2, [...]]]
    block = Gives(lambda: torch.tensor(outer[1][1][0]))
    block.held = outer
    graph, cache = graph_of(block), NodeCache()
    for last in (outer, inner, outer):
        inner[1] = last
        assert graph.run({"x": X}, cache=cache)["y"] == last[0]


@pytest.mark.parametrize("how", ["count", "list", "numpy", "python", "tensor", "iterator", "global"])
def test_a_block_with_a_memory_is_not_kept(how: str) -> None:
    COUNTS[0] = 0
    want = [graph.run({"x": X})["y"] for graph in [graph_of(Remembers(how))] for _ in range(3)]
    COUNTS[0] = 0
    graph, cache = graph_of(Remembers(how)), NodeCache()
    found = [graph.run({"x": X}, cache=cache)["y"] for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))
    assert "its call changes" in cache.stats.uncached["n"]


class Gives(Block):
    outputs = {"y": "any"}

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.make, self.calls = make, 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return self.make()


class Meta(type):
    shared = 2.0

    def __getattr__(cls, name: str) -> float:
        return cls.shared


class OfMeta(metaclass=Meta):
    __factors__ = (1.0,)

    def __class_getitem__(cls, key: int) -> float:
        return 2.0

    @property
    def factor(self) -> float:
        return self.__dict__["_factor"]

    @factor.setter
    def factor(self, value: float) -> None:
        self.__dict__["_factor"] = value


class Defaults(dict[str, float]):
    def __missing__(self, key: str) -> float:
        return 2.0


class Point(NamedTuple):
    x: float

    def twice(self) -> float:
        return 2 * self.x


class Shortened:
    __slots__ = ("factor",)


copyreg.pickle(Shortened, lambda value: (Shortened, ()))


def set_factor(value: float) -> float:
    made = OfMeta()
    made.factor = value
    return made.factor


def named(factor: float) -> Any:
    made = Shortened()
    made.factor = factor
    return made


@torch.no_grad()
def decorated(x: Tensor) -> Tensor:
    return x * OF_DECORATED[0]


@functools.singledispatch
def dispatched(value: Any) -> float:
    return 1.0


OF_DECORATED, DEFAULTS, SHORT, POINT, MEMORY = [1.0], Defaults(), named(1.0), Point(1.0), bytearray(b"a")
FACTORIES, VIEW, OF_THIS_CONTEXT = defaultdict(lambda: 1.0), memoryview(MEMORY), ContextVar("of this context", default=1.0)
HELPER, BY_NAME = Helper(), 1.0
TO_HELPER = weakref.ref(HELPER)
REACHED: dict[str, tuple[Callable[[Tensor], Any], Callable[[pytest.MonkeyPatch], Any]]] = {
    "metaclass": (lambda x: x * OfMeta.anything, lambda patch: patch.setattr(Meta, "shared", 3.0)),
    "method of a metaclass": (lambda x: x * OfMeta.anything, lambda patch: patch.setattr(Meta, "__getattr__", lambda cls, name: 3.0)),
    "class in brackets": (lambda x: x * OfMeta[0], lambda patch: patch.setattr(OfMeta, "__class_getitem__", classmethod(lambda *_: 3.0))),
    "double underscores": (lambda x: x * OfMeta.__factors__[0], lambda patch: patch.setattr(OfMeta, "__factors__", (3.0,))),
    "setter": (
        lambda x: x * set_factor(1.0),
        lambda patch: patch.setattr(OfMeta, "factor", OfMeta.factor.setter(lambda self, value: self.__dict__.update(_factor=3.0))),
    ),
    "class of a mapping": (lambda x: x * DEFAULTS["a"], lambda patch: patch.setattr(Defaults, "__missing__", lambda self, key: 3.0)),
    "class of a tuple": (lambda x: x * POINT.twice(), lambda patch: patch.setattr(Point, "twice", lambda self: 3.0)),
    "factory of a mapping": (
        lambda x: x * FACTORIES.default_factory(),
        lambda patch: patch.setattr(FACTORIES, "default_factory", lambda: 3.0),
    ),  # type: ignore[misc]
    "memory": (lambda x: x * VIEW[0], lambda patch: MEMORY.__setitem__(0, 3)),
    "context": (lambda x: x * OF_THIS_CONTEXT.get(), lambda patch: OF_THIS_CONTEXT.set(3.0)),
    "weak reference": (
        lambda x: x * getattr(TO_HELPER(), "factor", 1.0),
        lambda patch: patch.setattr(HELPER, "factor", 3.0, raising=False),
    ),
    "words": (lambda x: x * globals()["BY_NAME"], lambda patch: patch.setitem(globals(), "BY_NAME", 3.0)),
    "words of modules": (lambda x: x * sys.modules[__name__].BY_NAME, lambda patch: patch.setitem(globals(), "BY_NAME", 3.0)),
    "what a library's wrapper holds": (decorated, lambda patch: OF_DECORATED.__setitem__(0, 3.0)),
    "dispatch by type": (lambda x: x * dispatched(1), lambda patch: dispatched.register(int, lambda value: 3.0)),
    "what pickles leave out": (lambda x: x * SHORT.factor, lambda patch: patch.setattr(SHORT, "factor", 3.0)),
    "name": (lambda x: x * len(plus_one.__name__), lambda patch: patch.setattr(plus_one, "__name__", "a")),
}


@pytest.mark.parametrize("kind", REACHED, ids=lambda name: name.replace(" ", "_"))
def test_what_code_reaches_by_other_ways_is_seen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, edit = REACHED[kind]
    graph, cache = graph_of(Block.wrap(function, inputs={"x": "any"}, outputs={"y": "any"})), NodeCache()
    before = [graph.run({"x": X}, cache=cache)["y"] for _ in range(3)]
    assert cache.stats.hits, cache.stats.uncached
    edit(monkeypatch)
    found, want = graph.run({"x": X}, cache=cache)["y"], graph.run({"x": X})["y"]
    assert torch.equal(found, want) and not torch.equal(before[-1], want)


@pytest.mark.parametrize("kind", ["class of an input", "method of an input", "fill", "bfloat16", "inference"])
def test_classes_of_inputs_and_settings_are_told_apart(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    function = lambda x: calls.append(x) or torch.ones(1)  # type: ignore[func-returns-value]  # noqa: E731
    graph, cache = graph_of(Block.wrap(function, inputs={"x": "any"}, outputs={"y": "any"})), NodeCache()
    given: Any = POINT if kind == "method of an input" else X
    graph.run({"x": given}, cache=cache)
    if kind == "class of an input":
        given = nn.Parameter(X, requires_grad=False)
    elif kind == "method of an input":
        monkeypatch.setattr(Point, "twice", lambda self: 3.0)
    where, name = {
        "fill": (torch.utils.deterministic, "fill_uninitialized_memory"),
        "bfloat16": (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
    }.get(kind, (POINT, "x"))
    before = getattr(where, name)
    if where is not POINT:
        setattr(where, name, not before)
    with torch.inference_mode(kind == "inference"):
        graph.run({"x": given}, cache=cache)
    if where is not POINT:
        setattr(where, name, before)
    assert len(calls) == 2, cache.stats.uncached


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: np.zeros(3), lambda value: value.__setitem__(0, 1.0)),
        (lambda: {1, 2}, lambda value: value.add(3)),
        (lambda: bytearray(b"ab"), lambda value: value.append(1)),
        (lambda: [[np.zeros(3)]], lambda value: value[0][0].__setitem__(0, 1.0)),
    ],
    ids=["array", "set", "bytearray", "nested"],
)
def test_whoever_gets_a_result_may_change_it(make: Callable[[], Any], change: Callable[[Any], None]) -> None:
    block = Gives(make)
    graph, cache = graph_of(block), NodeCache()
    for _ in range(3):
        found = graph.run({"x": X}, cache=cache)["y"]
        assert repr(found) == repr(make())
        change(found)
    assert block.calls == 1


def test_results_made_in_inference_mode_are_looked_at_whole() -> None:
    class Clears(Block):
        outputs = {"y": "any"}

        def forward(self, x: Tensor) -> Tensor:
            x[7, 7] = 0.0
            return x.sum()

    graph = Graph("g")
    graph.add_node(Gives(lambda: torch.ones(64, 64)), "a", auto_connect=False)
    graph.add_node(Clears(), "b", auto_connect=False)
    graph.add_edge("a.y", "b.x")
    graph.infer_exposed_ports()
    graph.expose_output("a", "y", "made")
    cache = NodeCache()
    with torch.inference_mode():
        graph.run({"x": X}, cache=cache, outputs=["b.y"])
        assert graph.run({"x": X}, cache=cache, outputs=["a.y"])["a.y"][7, 7] == 1


def test_threads_and_backends_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Gives(lambda: torch.ones(1))
    graph, cache = graph_of(block), NodeCache()
    for threads in (1, 2, 1):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        graph.run({"x": X}, cache=cache)
    assert block.calls == 2


class OfMode(Gives):
    """Gives which of its modules are in train: those of the tree, and one beside it, which no run sets."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.layer, self.beside = nn.Identity(), [nn.Identity()]

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.tensor([self.training, self.layer.training, self.beside[0].training])


class RunsInside(Block):
    outputs = {"y": "any"}

    def __init__(self, graph: Graph, cache: NodeCache) -> None:
        super().__init__()
        self.graph, self.cache = graph, cache

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.graph.run({"x": x}, cache=self.cache)["y"]


def test_train_and_eval_are_told_apart_and_a_kept_result_sets_neither() -> None:
    block, cache = OfMode(), NodeCache()
    graph = graph_of(block)
    versions = []
    for mode in (True, True, False, True):
        graph.train(mode)
        assert graph.run({"x": X}, cache=cache)["y"].tolist() == [False, False, True]
        assert block.training is mode
        versions.append(block.calls)
    assert versions == [1, 1, 1, 1]
    block.beside[0].eval()
    assert graph.run({"x": X}, cache=cache)["y"].tolist() == [False, False, False]
    outer = graph_of(RunsInside(graph, cache))
    for training in (True, False, True):
        assert outer.run({"x": X}, training=training)["y"].tolist() == [training, training, False]
    assert block.calls == 3
