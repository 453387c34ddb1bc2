"""What is replaced in installed packages while the process runs: no edit of it leaves a stale result, and none makes results be lost."""

from __future__ import annotations

import builtins
import contextlib
import copy
import copyreg
import functools
import importlib
import importlib.util
import io
import json
import math
import operator
import os
import re
import statistics
import sys
import textwrap
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.matrix import spread
from wgtorch import Block, Graph, NodeCache, Pipeline
from wgtorch.core.run import installed
from wgtorch.core.run.replaced_code import replacements

X = torch.linspace(-1, 1, 8).view(2, 4)
PACKAGE = {
    "__init__.py": """
        from .outer import outer, Model, Scaler, FACTOR
        from . import tables
        """,
    "inner.py": """
        import math
        BIAS = 0.0
        calls = 0
        def inner(x, *, by=1.0, shift=(0.0,)):
            global calls
            calls += 1
            return x * by * math.sqrt(4.0) + BIAS + shift[0]
        def unused(x):
            return x
        class Deep:
            gain = 1.0
            made = 0
            def __init__(self, gain=1.0):
                self.own = gain
                Deep.made += 1
            @staticmethod
            def doubled(x):
                return x + x
            @classmethod
            def named(cls, x):
                return x * cls.gain
            @property
            def offset(self):
                return 0.0
            def __mul__(self, other):
                return other * self.own
            def apply(self, x):
                return self.named(self.doubled(x)) + self.offset
        """,
    "half.py": """
        IS_THERE = False
        from look_of_test import look
        look()
        IS_THERE = True
        def sum(x):
            return x
        class Half:
            class Inside:
                @staticmethod
                def twice(x):
                    return x + x
            def apply(self, x):
                return sum(self.Inside.twice(x))
        """,
    "lazy.py": """
        raise ImportError("what it needs is not there")
        """,
    "odd.py": """
        from collections.abc import Mapping
        class Shy(type):
            def __getattribute__(cls, name):
                raise RuntimeError(name)
        class Kept(metaclass=Shy):
            pass
        class Closed(Mapping):
            def __getattribute__(self, name):
                raise RuntimeError(name)
            def __getitem__(self, key):
                raise RuntimeError(key)
            __iter__ = __len__ = __getitem__
        closed = Closed()
        """,
    "late.py": """
        def late(x):
            return x * 1.0
        """,
    "outer.py": """
        import functools
        import torch
        from torch import nn
        from .inner import inner, Deep
        from . import inner as module
        FACTOR = 1.0
        def traced(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return function(*args, **kwargs)
            return wrapper
        @functools.lru_cache
        def cached(k):
            return float(k)
        def scaled(function, by):
            def within(x):
                return function(x) * by
            return within
        times = scaled(inner, 1.0)
        @traced
        def outer(x):
            from .late import late
            return times(late(module.inner(x))) * cached(2) * FACTOR + pow(1.0, 1)
        class Base(nn.Module):
            def forward(self, x):
                return self.hook(self.deep * x)
            def hook(self, x):
                return x
        class Model(Base):
            def __init__(self):
                super().__init__()
                self.deep, self.act = Deep(), nn.GELU()
            def hook(self, x):
                return self.act(self.deep.apply(x)).tanh()
        class Scaler:
            def __init__(self, by):
                self.by = by
            def __call__(self, x):
                return x * self.by
            def step(self, x):
                return self(x) + 1
        """,
    "tables.py": """
        from collections.abc import Mapping
        class Registry(Mapping):
            def __init__(self):
                self.own = {}
            def __getitem__(self, name):
                return self.own.get(name) or TABLE[name]
            def __iter__(self):
                return iter(self.own)
            def __len__(self):
                return len(self.own)
        REGISTRY = Registry()
        def first(x):
            return x + 1.0
        def second(x):
            return x + 2.0
        TABLE = {"first": first, "second": second}
        def by_name(name, x):
            return REGISTRY[name](x)
        """,
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A package that lies where installed ones lie."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "installed_of_test").mkdir()
    for name, text in PACKAGE.items():
        lines = text.split("\n")
        (folder / "installed_of_test" / name).write_text("\n".join(line[8:] for line in lines))
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(folder))
    patch.setattr(installed, "_INSTALLED", (*installed._INSTALLED, str(folder)))
    yield importlib.import_module("installed_of_test")
    patch.undo()
    for name in [name for name in sys.modules if name.startswith("installed_of_test")]:
        del sys.modules[name]


class Calls(Block):
    """Hands its input to what it was given."""

    outputs = {"y": "any"}

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what, self.calls = what, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.what(x)


class Reads(Calls):
    def __init__(self) -> None:
        super().__init__(None)

    def forward(self, x: Tensor) -> Any:
        import installed_of_test

        self.calls += 1
        y = installed_of_test.tables.by_name("first", installed_of_test.outer(x)) * installed_of_test.FACTOR
        return (
            torch.tanh(y) + torch.Tensor.relu(x) + float(np.sin(0.5)) + math.floor(1.5) + x.exp() + np.linalg.norm(np.ones(2)) + sum([1, 2])
        )


class OfLibraries(Calls):
    """Calls what Python's own library and PyTorch do by way of other modules of theirs."""

    def __init__(self) -> None:
        super().__init__(None)

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        text = json.dumps([1.5, {"a": 2}], indent=1) + textwrap.fill("one two three", 7) + re.sub("o", "00", "one two") + repr(x)
        number = statistics.mean([1, 2]) + float(Fraction(1, 2) + 1) + copy.deepcopy([3, 4])[0]
        return torch.func.vmap(torch.sin)(x) + number + len(text)


def graph_of(block: Block, depth: int) -> Any:
    graph: Any = Graph("g")
    graph.add_node(block, "n", auto_connect=False)
    graph.infer_exposed_ports()
    for _ in range(depth):
        pipeline = Pipeline("p")
        pipeline.add_graph(graph, "g")
        pipeline.infer_exposed_ports()
        graph = pipeline
    return graph


def module(name: str) -> Any:
    return importlib.import_module(f"installed_of_test.{name}" if name else "installed_of_test")


def twice(x: Any, *args: Any, **kwargs: Any) -> Any:
    return x * 2 + 1


class Twice:
    def __init__(self) -> None:
        self.by = 2.0

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return x * self.by + 1


def put(where: Callable[[], Any], name: str, value: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Sets an attribute to what ``value`` makes of the one that is there."""

    def edit(patch: pytest.MonkeyPatch) -> None:
        owner = where()
        patch.setattr(owner, name, value(owner.__dict__.get(name)), raising=False)

    return edit


def item(where: Callable[[], Any], name: Any, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setitem(where(), name, value)


def after_gelu(layer: nn.Module, result: Any) -> Any:
    return result + 1 if isinstance(layer, nn.GELU) else result


def after(function: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: function(*args, **kwargs) + 1


READS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "function of torch": put(lambda: torch, "tanh", lambda _: twice),
    "function of torch by another of its own": put(lambda: torch, "tanh", lambda _: torch.sin),
    "function of torch by an object": put(lambda: torch, "tanh", lambda _: Twice()),
    "function of torch by a partial": put(lambda: torch, "tanh", lambda _: functools.partial(torch.mul, 3)),
    "function of torch by a lambda": put(lambda: torch, "tanh", lambda was: lambda x: was(x) + 1),
    "function of torch by a method": put(lambda: torch, "tanh", lambda _: Twice().__call__),
    "function of torch by a cached one": put(lambda: torch, "tanh", lambda _: functools.lru_cache(twice)),
    "method of Tensor": put(lambda: torch.Tensor, "relu", lambda _: twice),
    "method that Tensor had of its base": put(lambda: torch.Tensor, "exp", lambda _: twice),
    "operator of Tensor": put(lambda: torch.Tensor, "__mul__", lambda was: lambda a, b: torch.mul(a, b) + 1),
    "function of numpy": put(lambda: np, "sin", lambda _: np.cos),
    "function of a module inside of numpy": put(lambda: np.linalg, "norm", lambda _: lambda x: 7.0),
    "function of Python's library": put(lambda: math, "floor", lambda _: math.ceil),
    "function of Python's library in a package": put(lambda: math, "sqrt", lambda _: lambda x: 3.0),
    "builtin function": put(lambda: builtins, "sum", lambda _: lambda values: 9),
    "builtin function in a package": put(lambda: builtins, "pow", lambda _: lambda a, b: 7.0),
    "a name that hides a builtin": put(lambda: module("outer"), "pow", lambda _: lambda a, b: 5.0),
    "exported function": put(lambda: module(""), "outer", lambda was: after(was)),
    "function one step in": put(lambda: module("inner"), "inner", lambda was: after(was)),
    "function behind a cache": put(lambda: module("outer"), "cached", lambda _: lambda k: 5.0),
    "function that is imported when called": put(lambda: module("late"), "late", lambda _: twice),
    "module": lambda patch: patch.setattr(module("outer"), "module", types.SimpleNamespace(inner=twice)),
    "module of sys.modules": item(lambda: sys.modules, "installed_of_test.late", types.SimpleNamespace(late=twice)),
    "constant that is read": put(lambda: module(""), "FACTOR", lambda _: 3.0),
    "constant inside": put(lambda: module("outer"), "FACTOR", lambda _: 3.0),
    "constant inside by an equal one": put(lambda: module("inner"), "BIAS", lambda _: torch.ones(4)),
    "entry of a table": item(lambda: module("tables").TABLE, "first", twice),
    "entry of a table by another of its own": lambda patch: patch.setitem(module("tables").TABLE, "first", module("tables").second),
    "entry of a registry": item(lambda: module("tables").REGISTRY.own, "first", twice),
    "table": put(lambda: module("tables"), "TABLE", lambda _: {"first": twice}),
}
MODEL: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "forward of a layer": put(lambda: nn.GELU, "forward", lambda _: lambda self, x: x + 2),
    "forward of a layer by another's": put(lambda: nn.GELU, "forward", lambda _: nn.Sigmoid.forward),
    "call of a layer": put(lambda: nn.GELU, "__call__", lambda _: lambda self, x: x + 2),
    "call of all layers": put(lambda: nn.Module, "_call_impl", lambda was: lambda self, *x, **kw: after_gelu(self, was(self, *x, **kw))),
    "function that a layer calls": put(lambda: functional, "gelu", lambda _: twice),
    "method of Tensor in a package": put(lambda: torch.Tensor, "tanh", lambda _: twice),
    "overridden method": put(lambda: module("outer").Model, "hook", lambda _: lambda self, x: x * 3),
    "method of a base": put(lambda: module("outer").Base, "forward", lambda _: lambda self, x: x * 3),
    "method of an object that is held": put(lambda: module("inner").Deep, "apply", lambda _: lambda self, x: x * 3),
    "static method": put(lambda: module("inner").Deep, "doubled", lambda _: staticmethod(lambda x: x * 3)),
    "class method": put(lambda: module("inner").Deep, "named", lambda _: classmethod(lambda cls, x: x * 3)),
    "property": put(lambda: module("inner").Deep, "offset", lambda _: property(lambda self: 2.0)),
    "property by an attribute": put(lambda: module("inner").Deep, "offset", lambda _: 2.0),
    "operator": put(lambda: module("inner").Deep, "__mul__", lambda _: lambda self, other: other * 3),
    "attribute of a class": put(lambda: module("inner").Deep, "gain", lambda _: 3.0),
    "attribute of a class that hides a method": put(lambda: module("outer").Model, "__getattr__", lambda _: lambda self, name: twice),
}
LIBRARIES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "method behind json": put(lambda: json.encoder.JSONEncoder, "iterencode", lambda _: lambda self, value, **_: ["1234567"]),
    "function behind json": put(lambda: json.encoder, "_make_iterencode", lambda was: lambda *args: lambda value, depth: ["12"]),
    "function behind re": put(lambda: re, "_compile", lambda was: lambda pattern, flags: was("w", flags)),
    "method behind textwrap": put(lambda: textwrap.TextWrapper, "_wrap_chunks", lambda _: lambda self, chunks: ["1", "2"]),
    "function behind statistics": put(lambda: statistics, "_sum", lambda was: lambda data: (int, Fraction(9), 2)),
    "operator of a fraction": put(lambda: Fraction, "__add__", lambda _: lambda a, b: 7.0),
    "entry of the table of copy": item(lambda: copy._deepcopy_dispatch, list, lambda value, *_: [5]),
    "function behind repr": put(lambda: torch._tensor_str, "_str_intern", lambda _: lambda value, **_: "tensor"),
    "function behind vmap": put(lambda: torch._functorch.vmap, "_flat_vmap", lambda was: after(was)),
    "function behind vmap where it is called": put(lambda: torch._functorch.apis, "vmap_impl", lambda was: after(was)),
}
HELD = {
    "call of a held object": put(lambda: module("outer").Scaler, "__call__", lambda _: twice_of),
}


def twice_of(self: Any, x: Any) -> Any:
    return x * 2 + 1


CASES = {
    **{f"reads-{name}": edit for name, edit in READS.items()},
    **{f"model-{name}": edit for name, edit in MODEL.items()},
    **{f"libraries-{name}": edit for name, edit in LIBRARIES.items()},
    **{f"held-{name}": edit for name, edit in HELD.items()},
    "imported-function one step in": put(lambda: module("inner"), "inner", lambda was: after(was)),
    "imported-operator": put(lambda: operator, "mul", lambda _: operator.add),
}


def block_of(kind: str) -> Block:
    torch.manual_seed(0)
    if kind == "reads":
        return Reads()
    if kind == "libraries":
        return OfLibraries()
    if kind == "model":
        return Calls(module("").Model())
    if kind == "held":
        return Calls(module("").Scaler(3.0))
    function = module("outer").outer
    return Calls(lambda x: operator.mul(function(x), 2.0))


@pytest.mark.parametrize(("case", "where"), spread(product(CASES, ["memory", "folder"])))
def test_what_is_replaced_is_seen(package: Any, case: str, where: str, tmp_path: Path) -> None:
    saved, edit = where == "folder", CASES[case]
    folder = tmp_path if saved else None
    block = block_of(case.partition("-")[0])
    graph, cache = graph_of(block, depth=int(saved)), NodeCache(directory=folder)
    before = [graph.run({"x": X}, cache=cache)["y"] for _ in range(3)][-1]
    assert block.calls == 1, cache.stats
    with pytest.MonkeyPatch().context() as patch:
        edit(patch)
        want = graph.run({"x": X})["y"]
        assert not torch.equal(before, want), "the edit changes nothing"
        for _ in range(2):
            assert torch.equal(graph.run({"x": X}, cache=cache)["y"], want)
        if saved:
            assert torch.equal(graph.run({"x": X}, cache=NodeCache(directory=folder))["y"], want)
    for again in (cache, NodeCache(directory=folder)):
        assert torch.equal(graph.run({"x": X}, cache=again)["y"], before)


def test_what_a_package_adds_to_itself_when_it_is_used_loses_nothing() -> None:
    block, cache = Calls(lambda x: torch.ops.aten.tanh(x)), NodeCache()
    graph = graph_of(block, 0)
    graph.run({"x": X}, cache=cache)
    assert torch.ops.aten.bin is not None  # which has the name of a builtin
    graph.run({"x": X}, cache=cache)
    assert block.calls == 1, cache.stats.uncached


@pytest.mark.parametrize("is_held", [False, True])
def test_what_copies_an_object_is_seen(package: Any, is_held: bool) -> None:
    held = module("inner").Deep(2.0)

    def copied(x: Tensor) -> Any:
        import installed_of_test

        return x * copy.copy(held if is_held else installed_of_test.inner.Deep(2.0)).own

    graph, cache = graph_of(Calls(copied), 0), NodeCache()
    assert torch.equal([graph.run({"x": X}, cache=cache)["y"] for _ in range(2)][-1], X * 2)
    with pytest.MonkeyPatch().context() as patch:
        patch.setitem(copyreg.dispatch_table, module("inner").Deep, lambda value: (type(value), (3.0,)))
        assert torch.equal(graph.run({"x": X}, cache=cache)["y"], X * 3)


FIRST = ["function of torch", "function of torch by another of its own", "function of torch by an object", "constant that is read"]
FIRST += ["forward of a layer", "forward of a layer by another's", "function that a layer calls", "function one step in"]


@pytest.mark.parametrize("name", FIRST, ids=lambda name: name.replace(" ", "_"))
def test_what_was_replaced_before_the_first_look_is_not_taken_from_a_folder(package: Any, name: str, tmp_path: Path) -> None:
    graph = graph_of(block_of("reads" if name in READS else "model"), 0)
    before = graph.run({"x": X}, cache=NodeCache(directory=tmp_path))["y"]
    with pytest.MonkeyPatch().context() as patch:
        {**READS, **MODEL}[name](patch)
        replacements.cache_clear()  # as in another process
        want = graph.run({"x": X})["y"]
        assert not torch.equal(before, want)
        assert torch.equal(graph.run({"x": X}, cache=NodeCache(directory=tmp_path))["y"], want)
    replacements.cache_clear()
    assert torch.equal(graph.run({"x": X}, cache=NodeCache(directory=tmp_path))["y"], before)


def test_what_a_package_does_to_itself_is_no_edit(package: Any) -> None:
    """Counts that a package keeps, what it imports when called, and what others put beside its own."""
    block = block_of("reads")
    graph, cache = graph_of(block, 0), NodeCache()
    graph.run({"x": X}, cache=cache)
    counted = module("inner").calls
    module("outer").outer(X)
    assert module("inner").calls > counted
    made = module("inner").Deep.made
    assert module("inner").Deep().made == made + 1
    nn.Linear(1, 1).register_forward_hook(lambda *_: None).remove()
    module("inner").beside = module("tables").second
    graph.run({"x": X}, cache=cache)
    assert block.calls == 1
    del module("inner").beside


def test_modules_are_watched_once_they_are_whole(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is looked at while it is imported holds little of what it is to hold: what comes later is no edit, and is watched."""
    looked = types.ModuleType("look_of_test")
    looked.look = replacements().found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "look_of_test", looked)
    half = module("half")
    assert not [where for where, _ in replacements().found() if where.startswith("installed_of_test.half")]
    graph, cache = graph_of(Calls(lambda x: half.Half().apply(x)), 0), NodeCache()
    assert torch.equal([graph.run({"x": X}, cache=cache)["y"] for _ in range(2)][-1], X * 2)
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(half.Half.Inside, "twice", staticmethod(twice))
        assert torch.equal(graph.run({"x": X}, cache=cache)["y"], X * 2 + 1)
    monkeypatch.setitem(torch.ops.aten.__dict__, "tanh", twice)
    assert ("torch.ops.aten.tanh", twice) in replacements().found()


def test_what_is_replaced_in_a_module_in_place_of_another_is_seen(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(x: Tensor) -> Any:
        from installed_of_test.late import late

        return late(x)

    graph, cache = graph_of(Calls(late), 0), NodeCache()
    first = module("late")
    graph.run({"x": X}, cache=cache)
    monkeypatch.delitem(sys.modules, "installed_of_test.late")
    monkeypatch.setattr(package, "late", first)  # which is put back in the end
    again = module("late")
    assert again is not first and torch.equal([graph.run({"x": X}, cache=cache)["y"] for _ in range(2)][-1], X)
    monkeypatch.setattr(again, "late", twice)
    assert torch.equal(graph.run({"x": X}, cache=cache)["y"], X * 2 + 1)


def test_nothing_that_is_loaded_is_asked_to_do_anything(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that load themselves when they are asked stay as they are; classes and objects that refuse every question are passed by."""
    spec = importlib.util.find_spec("installed_of_test.lazy")
    assert spec is not None and spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    lazy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lazy)
    monkeypatch.setitem(sys.modules, "installed_of_test.lazy", lazy)
    for name, found in {"lazy_of_test": lazy, "nothing_of_test": None, "shy_of_test": module("odd").closed, "odd.py": 3}.items():
        monkeypatch.setitem(sys.modules, name, found)
        monkeypatch.setattr(module("inner"), f"{name}_is_held", found, raising=False)
    block, cache = Calls(lambda x: module("inner").inner(x)), NodeCache()
    graph = graph_of(block, 0)
    for _ in range(2):
        graph.run({"x": X}, cache=cache)
    assert block.calls == 1, cache.stats.uncached
    with pytest.raises(ImportError, match="what it needs is not there"):
        _ = lazy.anything


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("what", ["replacements", "cache", "unfinished"])
def test_a_process_that_is_forked_while_another_thread_looks_goes_on(what: str) -> None:
    cache, unfinished, stop = NodeCache(), Graph("g").unfinished, threading.Event()
    use: Callable[[], Any] = {"replacements": replacements().found, "cache": lambda: cache.stats, "unfinished": unfinished.clear}[what]
    lock = {"replacements": replacements().lock, "cache": cache._lock, "unfinished": unfinished._lock}[what]

    def look() -> None:
        while not stop.wait(1e-4):
            with lock:
                [use() for _ in range(100)]

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(20):
            if (child := os.fork()) == 0:
                os._exit(0 if lock.acquire(timeout=10) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()


def test_a_call_that_replaces_something_is_not_kept(package: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module("inner"), "inner", module("inner").inner)  # which is put back in the end

    class Replaces(Calls):
        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            y = self.what(x)
            module("inner").inner = twice
            return y

    block = Replaces(None)
    block.what = module("outer").outer
    graph, cache = graph_of(block, 0), NodeCache()
    graph.run({"x": X}, cache=cache)
    assert "replaces functions" in cache.stats.uncached["n"]
    assert torch.equal(graph.run({"x": X}, cache=cache)["y"], module("outer").outer(X))


@contextlib.contextmanager
def shown(value: Any) -> Iterator[None]:
    """While it lasts, the shell remembers what it showed last."""
    builtins._ = value  # type: ignore[attr-defined]
    yield
    del builtins._  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "around",
    [lambda: contextlib.redirect_stdout(io.StringIO()), lambda: warnings.catch_warnings(record=True), lambda: shown(torch.rand(3))],
    ids=["stdout", "warnings", "shell"],
)
def test_where_a_process_writes_to_is_no_edit(around: Callable[[], Any]) -> None:
    block = OfLibraries()
    graph, cache = graph_of(block, 0), NodeCache()
    graph.run({"x": X}, cache=cache)
    for _ in range(2):
        with around():
            print("something")
            graph.run({"x": X}, cache=cache)
    assert block.calls == 1
