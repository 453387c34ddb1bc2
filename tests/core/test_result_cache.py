"""What nodes that wait brought in a run that failed, and calls that are cancelled while they wait."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import threading
import weakref
from collections import OrderedDict
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from wgtorch.core.block import Block
from wgtorch.core.errors import PortTypeError, RunCancelled
from wgtorch.core.port import MISSING
from wgtorch.core.run import background
from wgtorch.core.run.node_cache import NodeCache
from wgtorch.core.run.result_cache import ResultCache, UnfinishedResults
from wgtorch.core.run.rng import Rng
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.serving.services import service_for
from wgtorch.stage import Stage
from wgtorch.world_runtime.state import State


@dataclass
class Words:
    text: str


def kept(child: object, values: dict, result: object = "result", **limits: int) -> UnfinishedResults:
    """What a run leaves that made one call and failed."""
    unfinished = UnfinishedResults(**limits)
    run = ResultCache(unfinished)
    run.keep(("a",), child, values, result)
    run.end()
    return unfinished


def test_a_result_is_given_again_only_for_the_same_call() -> None:
    child, values = torch.nn.Identity(), {"x": torch.ones(2), "words": ["sea", {"n": 1}]}
    for key, other, asked in (
        (("a",), child, {**values, "words": ["sea", {"n": 2}]}),
        (("a",), child, {**values, "x": torch.zeros(2)}),
        (("a",), torch.nn.Identity(), values),
        (("b",), child, values),
    ):
        assert ResultCache(kept(child, values)).find(key, other, asked) is MISSING
    unfinished = kept(child, values)
    assert ResultCache(unfinished).find(("a",), child, {"x": torch.ones(2), "words": ["sea", {"n": 1}]}) == "result"
    assert ResultCache(unfinished).find(("a",), child, values) is MISSING, "it is given once"


def test_what_was_changed_in_place_since_is_another_call() -> None:
    child, values, result = torch.nn.Identity(), {"x": torch.ones(2), "words": ["sea"]}, {"y": torch.ones(2)}
    unfinished = kept(child, values, result)
    result["y"].zero_()
    values["x"].zero_()
    assert ResultCache(unfinished).find(("a",), child, values) is MISSING
    values["x"].fill_(1)
    values["words"].append("storm")
    assert ResultCache(unfinished).find(("a",), child, values) is MISSING
    found = ResultCache(unfinished).find(("a",), child, {"x": torch.ones(2), "words": ["sea"]})
    assert torch.equal(found["y"], torch.ones(2))


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (np.ones(3), lambda value: value.fill(5)),
        (OrderedDict(a=1), lambda value: value.update(a=2)),
        ({"sea"}, lambda value: value.add("storm")),
        (bytearray(b"sea"), lambda value: value.extend(b"s")),
        (Words("sea"), lambda value: setattr(value, "text", "storm")),
    ],
)
def test_objects_of_others_that_were_changed_in_place_are_another_call_and_results_stay_as_they_came(value: Any, change: Any) -> None:
    child, result = torch.nn.Identity(), copy.deepcopy(value)
    unfinished = kept(child, {"x": value}, {"y": result})
    change(result)
    found = ResultCache(unfinished).find(("a",), child, {"x": copy.deepcopy(value)})
    assert found is MISSING or repr(found["y"]) == repr(value)
    unfinished = kept(child, {"x": value})
    change(value)
    assert ResultCache(unfinished).find(("a",), child, {"x": value}) is MISSING


def test_a_call_that_is_made_does_not_make_those_beside_it_other_calls() -> None:
    child = torch.nn.Identity()
    child.scale = 1.0
    run = ResultCache(kept(child, {"x": 1}))
    assert run.find(("another",), child, {"x": 2}) is MISSING
    child.scale = 2.0  # by that call, while others of the child are looked for
    assert run.find(("a",), child, {"x": 1}) == "result"
    assert ResultCache(kept(child, {"x": 1})).find(("a",), child, {"x": 1}) == "result"
    unfinished = kept(child, {"x": 1})
    child.scale = 3.0
    assert ResultCache(unfinished).find(("a",), child, {"x": 1}) is MISSING


def test_what_cannot_be_copied_is_not_kept_and_a_smaller_bound_holds_at_once() -> None:
    assert len(kept(torch.nn.Identity(), {"x": threading.Lock()})) == 0
    child = torch.nn.Identity()
    unfinished = kept(child, {}, np.ones(1000))
    assert unfinished.bytes >= 8000
    unfinished.max_bytes = 100
    assert (len(unfinished), unfinished.bytes) == (0, 0)


def test_no_more_is_kept_than_allowed_and_it_can_be_forgotten() -> None:
    child = torch.nn.Identity()
    unfinished = kept(child, {}, "a" * 60, max_bytes=100)
    run = ResultCache(unfinished)
    run.keep(("b",), child, {}, "b" * 60)
    run.keep(("c",), child, {}, "c" * 30)
    run.end()
    assert (len(unfinished), unfinished.bytes) == (2, 90), "the oldest went"
    run.keep(("d",), torch.nn.Identity(), {}, "d" * 101)
    run.end()
    assert unfinished.bytes == 90, "what is larger than all of it is not kept"
    assert len(pickle.loads(pickle.dumps(unfinished))) == 0 and copy.deepcopy(unfinished).bytes == 90
    unfinished.clear()
    assert (len(unfinished), unfinished.bytes) == (0, 0)
    with pytest.raises(PortTypeError, match=r"unfinished.max_bytes: found int -1; expected a number of bytes, or None"):
        unfinished.max_bytes = -1


class Ask(Block):
    outputs = {"y": "text"}

    uses_global_rng = False

    def __init__(self, wrong: str = "bad", *, once: bool = False) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.wrong, self.mark, self.once = wrong, "", once

    async def forward(self, x: str) -> dict:
        self.asked.append(x)
        await asyncio.sleep(0.05 if x != self.wrong else 0)
        if x == self.wrong and not (self.once and self.asked.count(x) > 1):
            raise ValueError("no answer")
        return {"y": self.said(x)}

    def said(self, x: str) -> str:
        return x.upper() + self.mark


class Longer(Ask):
    def said(self, x: str) -> str:
        return x + "x"


class Drawn(Ask):
    async def forward(self, x: str, rng: Rng) -> dict:
        self.asked.append(x)
        return {"y": x}


class Parse(Block):
    """Fails at what it is given, as long as that is not a number."""

    outputs = {"y": "number"}

    def forward(self, text: str) -> int:
        return int(text)


def asking(*names: str, wrong: str = "bad") -> Graph:
    graph = Graph("g")
    for name in names:
        graph.add_node(Ask(wrong), name)
        graph.expose_input(name, "x", name=name)
        graph.expose_output(name, "y", name=f"{name}_y")
    return graph


def asked(graph: Graph) -> dict[str, list[str]]:
    return {name: child.asked for name, child in graph.nodes.items()}


def test_siblings_of_a_failed_node_come_home_and_are_not_asked_twice() -> None:
    graph = asking("one", "two")
    with pytest.raises(ValueError, match="no answer") as caught:
        graph.run({"one": "bad", "two": "slow"})
    assert any("1 answer that came is kept: g, run again with the same inputs and seed" in note for note in caught.value.__notes__)
    graph.nodes["one"].wrong = ""
    assert graph.run({"one": "bad", "two": "slow"}) == {"one_y": "BAD", "two_y": "SLOW"}
    assert asked(graph) == {"one": ["bad", "bad"], "two": ["slow"]}
    assert len(graph.unfinished) == 0, "nothing is left of a run that succeeded"
    graph.run({"one": "bad", "two": "slow"})
    assert asked(graph)["two"] == ["slow", "slow"], "the run after it is one of its own"


def test_a_run_that_fails_again_loses_nothing() -> None:
    graph = asking("one", "two", "three")
    inputs = {"one": "bad", "two": "slow", "three": "slow"}
    for _ in range(3):
        with pytest.raises(ValueError, match="no answer"):
            graph.run(inputs)
    assert asked(graph) == {"one": ["bad"] * 3, "two": ["slow"], "three": ["slow"]}
    with pytest.raises(ValueError, match="no answer"):
        graph.run({**inputs, "three": "other"})
    assert asked(graph) == {"one": ["bad"] * 4, "two": ["slow"], "three": ["slow", "other"]}, "what was changed is asked for"


def test_a_run_does_not_fail_at_the_same_answer_for_ever() -> None:
    class Answers(Ask):
        def said(self, x: str) -> str:
            return ["oops", "7"][len(self.asked) - 1]

    graph = Graph("g")
    graph.add_node(Answers(), "ask")
    graph.add_node(Parse(), "parse")
    graph.add_edge("ask.y", "parse.text")
    graph.infer_exposed_ports()
    for _ in range(2):  # the second time with the answer of the first, as what failed may have been mended
        with pytest.raises(ValueError, match="oops"):
            graph.run({"x": "the sea"})
    assert graph.run({"x": "the sea"}) == {"y": 7}


def test_a_run_that_was_stopped_with_answers_of_another_keeps_them() -> None:
    graph = Graph("g")
    graph.add_node(Ask("never"), "ask")
    graph.add_node(Parse(), "parse")
    graph.add_edge("ask.y", "parse.text")
    graph.infer_exposed_ports()
    with pytest.raises(ValueError, match="invalid literal"):
        graph.run({"x": "sea"})
    stops = iter([False, True, True, True])
    with pytest.raises(RunCancelled):
        graph.run({"x": "sea"}, cancelled=lambda: next(stops))
    with pytest.raises(ValueError, match="invalid literal"):
        graph.run({"x": "sea"})
    assert graph.nodes["ask"].asked == ["sea"]


def test_a_node_whose_config_was_changed_is_asked_again() -> None:
    graph = asking("one", "two", "three")
    inputs = {"one": "bad", "two": "slow", "three": "slow"}
    with pytest.raises(ValueError, match="no answer"):
        graph.run(inputs)
    graph.nodes["one"].wrong = ""
    graph.nodes["two"].mark = "!"
    assert graph.run(inputs) == {"one_y": "BAD", "two_y": "SLOW!", "three_y": "SLOW"}
    assert asked(graph) == {"one": ["bad", "bad"], "two": ["slow", "slow"], "three": ["slow"]}


class Surrounded(Ask):
    """Says what it finds around it."""

    def __init__(self) -> None:
        super().__init__("bad")
        self.generator = torch.Generator().manual_seed(1)

    def said(self, x: str) -> str:
        number = torch.randint(9, (1,), generator=self.generator).item() if x == "draw" else ""
        return f"{os.environ.get('WGTORCH_TEST_WORD')} {torch.is_autocast_enabled('cpu')} {number}"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda patch, _: patch.setenv("WGTORCH_TEST_WORD", "sea"), "slow"),
        (lambda *_: torch.set_autocast_enabled("cpu", True), "slow"),
        (lambda _, block: block.generator.manual_seed(2), "draw"),
    ],
    ids=["environment", "autocast", "generator"],
)
def test_what_changed_around_a_run_is_asked_again(change: Any, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for is_changed in (False, True):
        graph = asking("one")
        graph.add_node(Surrounded(), "two", auto_connect=False)
        graph.expose_input("two", "x", name="two")
        graph.expose_output("two", "y", name="two_y")
        with pytest.raises(ValueError, match="no answer"):
            graph.run({"one": "bad", "two": text})
        graph.nodes["one"].wrong = ""
        try:
            if is_changed:
                change(monkeypatch, graph.nodes["two"])
            graph.run({"one": "bad", "two": text})
        finally:
            torch.set_autocast_enabled("cpu", False)
        assert len(graph.nodes["two"].asked) == 1 + is_changed


def test_what_was_removed_is_not_kept_alive() -> None:
    graph = asking("one", "two")
    with pytest.raises(ValueError, match="no answer"):
        graph.run({"one": "bad", "two": "slow"})
    removed = weakref.ref(graph.nodes["two"])
    graph.remove_node("two")
    gc.collect()
    assert removed() is None and copy.deepcopy(graph).unfinished is not graph.unfinished


class Streams(Ask):
    """Tells of parts of what it says."""

    async def forward(self, x: str, stream: Any = None) -> dict:
        self.asked.append(x)
        for letter in x if stream is not None else "":
            stream(y=letter)
        return {"y": x}


@pytest.mark.parametrize("is_cached", [False, True])
def test_a_kept_answer_is_one_chunk_of_a_stream(is_cached: bool) -> None:
    graph = asking("one")
    graph.add_node(Streams(), "two", auto_connect=False)
    graph.expose_input("two", "x", name="two")
    graph.expose_output("two", "y", name="two_y")
    options: dict[str, Any] = {"cache": NodeCache()} if is_cached else {}
    for told in (["s", "e", "a"], ["sea"]):
        found = []
        with pytest.raises(ValueError, match="no answer"):
            for event in graph.stream({"one": "bad", "two": "sea"}, **options):
                found += [event.outputs["y"]] if event.kind == "chunk" else []
        assert found == told
    assert graph.nodes["two"].asked == ["sea"]


def test_callers_of_a_served_level_have_answers_of_their_own() -> None:
    graph = asking("one", "two")
    service = service_for(graph)
    for _ in range(2):
        with pytest.raises(ValueError, match="no answer"):
            service.answer({"inputs": {"one": "bad", "two": "slow"}})
    assert asked(graph)["two"] == ["slow", "slow"] and len(graph.unfinished) == 0
    with pytest.raises(ValueError, match="no answer"):
        graph.run({"one": "bad", "two": "slow"})
    assert len(graph.unfinished) == 1, "who has it in code keeps what was paid"


def test_a_copy_of_a_level_has_what_the_level_has() -> None:
    graph = asking("one", "two")
    with pytest.raises(ValueError, match="no answer"):
        graph.run({"one": "bad", "two": "slow"})
    other = copy.deepcopy(graph)
    for each in (graph, other):
        each.nodes["one"].wrong = ""
        each.run({"one": "bad", "two": "slow"})
        assert asked(each) == {"one": ["bad", "bad"], "two": ["slow"]}


def test_forgetting_keeping_nothing_and_training_ask_again() -> None:
    for way in ("clear", "none", "training"):
        graph = asking("one", "two")
        if way == "none":
            graph.unfinished.max_bytes = 0
        with pytest.raises(ValueError, match="no answer"):
            graph.run({"one": "bad", "two": "slow"}, training=way == "training")
        if way == "clear":
            graph.unfinished.clear()
        graph.nodes["one"].wrong = ""
        graph.run({"one": "bad", "two": "slow"})
        assert asked(graph)["two"] == ["slow", "slow"], way


def test_runs_that_are_alike_and_succeed_have_answers_of_their_own() -> None:
    """Four runs of one request are four answers; of a batch in which one failed only that one's sibling is kept."""
    graph = asking("one", "two")
    graph.batch([{"one": "a", "two": "b"}] * 4)
    assert asked(graph) == {"one": ["a"] * 4, "two": ["b"] * 4}
    results = graph.batch([{"one": text, "two": "b"} for text in ("a", "bad", "a")])
    assert [isinstance(result, ValueError) for result in results] == [False, True, False] and len(graph.unfinished) == 1


@pytest.mark.parametrize("level", ["graph", "pipeline", "stage"])
@pytest.mark.parametrize("way", ["run", "arun", "stream"])
def test_every_level_and_way_to_run_it(level: str, way: str) -> None:
    graph = asking("one", "two")
    top: Any = graph
    inputs: Any = {"one": "bad", "two": "slow"}
    if level != "graph":
        top = Pipeline("p")
        top.add_graph(graph, "g")
        top.infer_exposed_ports()
    if level == "stage":
        pipeline, top = top, Stage("s")
        top.add_pipeline(pipeline, "p")
        mapping = {f"p.{name}": f"intent.{name}" for name in inputs}
        top.set_state_contract(["intent"], ["outcome"], mapping_input=mapping, mapping_output={"outcome": ["p.one_y"]})
        inputs = State(intent=inputs)

    def make() -> Any:
        if way == "run":
            return top.run(inputs, seed=3)
        if way == "arun":
            return asyncio.run(top.arun(inputs, seed=3))
        return list(top.stream(inputs, seed=3))

    with pytest.raises(ValueError, match="no answer"):
        make()
    graph.nodes["one"].wrong = ""
    make()
    assert [len(texts) for texts in asked(graph).values()] == [2, 1]


def test_items_of_a_list_and_iterations_of_a_loop_are_calls_of_their_own() -> None:
    graph = Graph("g")
    graph.add_node(Ask("c", once=True), "ask", map=["x"])
    graph.infer_exposed_ports()
    with pytest.raises(ValueError, match="no answer"):
        graph.run({"x": ["a", "b", "c", "a"]})
    assert graph.run({"x": ["a", "b", "c", "a"]}) == {"y": ["A", "B", "C", "A"]}
    assert sorted(graph.nodes["ask"].asked) == ["a", "a", "b", "c", "c"]

    loop = Graph("l")
    loop.add_node(Longer("xxxx", once=True), "ask")
    loop.add_edge("ask.y", "ask.x")
    loop.expose_input("ask", "x")
    loop.expose_output("ask", "y")
    with pytest.raises(ValueError, match="no answer"):
        loop.run({"x": "x"}, num_loop_steps=5)
    assert loop.run({"x": "x"}, num_loop_steps=5) == {"y": "xxxxxx"}
    assert loop.nodes["ask"].asked == ["x", "xx", "xxx", "xxxx", "xxxx", "xxxxx"]


def test_another_seed_asks_what_draws_again_and_nothing_else() -> None:
    graph = asking("one", "two")
    graph.add_node(Drawn(), "drawn")
    graph.expose_input("drawn", "x", name="drawn")
    graph.expose_output("drawn", "y", name="drawn_y")
    inputs = {"one": "bad", "two": "slow", "drawn": "lots"}
    for seed in (1, 1, 2):
        with pytest.raises(ValueError, match="no answer"):
            graph.run(inputs, seed=seed)
    assert asked(graph) == {"one": ["bad"] * 3, "two": ["slow"], "drawn": ["lots"] * 2}


def test_cancelling_reaches_what_a_call_waits_for_however_deep() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def forever() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    future = background.start(lambda: background.start(lambda: background.submit(forever()).result()).result())
    assert begun.wait(60)
    future.cancel()
    assert ended.wait(60)
    with pytest.raises(CancelledError):
        future.result(60)


def test_a_call_that_would_wait_for_itself_is_refused() -> None:
    async def inner() -> None:
        """Never awaited."""

    async def outer() -> None:
        background.submit(inner()).result()

    with pytest.raises(RuntimeError, match="would wait for itself"):
        background.submit(outer()).result(60)
