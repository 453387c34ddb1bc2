"""``stream``: the events of a run as they come, at the pace of whoever reads them."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.core.test_runs import Add, ring
from wgtorch import Block, Graph, Pipeline, Stage, State, World
from wgtorch.core.errors import MissingInputError, PortTypeError


class Counts(Add):
    """Counts its calls."""

    def __init__(self, k: float = 1.0) -> None:
        super().__init__(k)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Tells(Block):
    """Tells its words one by one."""

    outputs = {"text": "text"}

    def forward(self, prompt: str, stream: Any = None) -> str:
        for word in prompt.split():
            if stream is not None:
                stream(text=word)
        return prompt.upper()


class Fails(Block):
    outputs = {"y": "tensor"}

    def forward(self, x: Tensor) -> Tensor:
        raise ArithmeticError("no")


class Gate(Block):
    """Waits for a coroutine that only ends when it is cancelled."""

    outputs = {"y": "tensor"}

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.cancelled = threading.Event(), threading.Event()

    async def forward(self, x: Tensor) -> Tensor:
        import asyncio

        self.begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return x


def chain(*blocks: Block) -> Graph:
    graph = Graph("g")
    for index, block in enumerate(blocks):
        graph.add_node(block, f"n{index}", auto_connect=False)
        if index:
            graph.add_edge(f"n{index - 1}.y", f"n{index}.x")
    graph.expose_input("n0", "x")
    graph.expose_output(f"n{len(blocks) - 1}", "y")
    return graph


def telling() -> Pipeline:
    graph = Graph("words")
    graph.add_node(Tells(), "llm")
    graph.infer_exposed_ports()
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "g")
    pipeline.infer_exposed_ports()
    return pipeline


def test_a_stream_gives_what_callbacks_are_told_and_then_the_outputs() -> None:
    graph = ring(Add(1), Add(2), metadata={"num_loop_steps": 2})
    told: list[Any] = []
    graph.run({"x": torch.zeros(1)}, callbacks=told.append)
    events = list(graph.stream({"x": torch.zeros(1)}))
    assert [(e.kind, e.path, e.level, e.step) for e in events[:-1]] == [(e.kind, e.path, e.level, e.step) for e in told]
    last = events[-1]
    assert (last.kind, last.path, last.level, last.root) == ("end", "", "graph", "g")
    assert torch.equal(last.outputs["y"], graph.run({"x": torch.zeros(1)})["y"])
    assert last.elapsed >= 0


def test_words_of_nested_blocks_come_as_they_are_told() -> None:
    pieces = [(event.path, event.outputs["text"]) for event in telling().stream({"prompt": "the grey sea"}) if event.kind == "chunk"]
    assert pieces == [("g/llm", "the"), ("g/llm", "grey"), ("g/llm", "sea")]


def test_a_stage_streams_as_well_and_ends_with_the_state() -> None:
    stage = Stage("s", role="s")
    stage.add_pipeline(telling(), "p")
    stage.set_state_contract(["intent"], ["recipe"], {"p.prompt": "intent"}, {"recipe": "p.text"})
    events = list(stage.stream(State(intent="a b")))
    assert [event.outputs["text"] for event in events if event.kind == "chunk"] == ["a", "b"]
    assert events[-1].outputs["state"].recipe == "A B"


def test_a_world_streams_what_happens_inside_its_stages() -> None:
    world = World("w")
    stage = Stage("s", role="s")
    stage.add_pipeline(telling(), "p")
    stage.set_state_contract(["intent"], ["intent"], {"p.prompt": "intent"}, {"intent": "p.text"})
    world.add_stage(stage, "s")
    world.set_cycle(["s"])
    seen = []
    for step in world.stream(State(intent="a b"), num_steps=2, events=True):
        seen.append((step.kind, getattr(step, "path", None)))
        if step.kind == "pass" and step.index == 0:
            world.state = State(intent="edited")  # as between the steps of a stream without events
    assert seen.count(("chunk", "s/p/g/llm")) == 3
    assert [kind for kind, path in seen if path is None] == ["stage", "pass", "stage", "pass"]
    assert seen[-1] == ("end", "")
    assert step.outputs["state"].intent == "EDITED"
    for step in world.stream(State(intent="a b"), num_steps=2, events=True):
        if step.kind == "stage":
            break
    assert (world.life.passes, world.life.stage) == (2, 1)


def at(level: str, block: Block) -> tuple[Any, Any, dict[str, Any]]:
    """A level with the block at its bottom, what it is run with, and options of its stream."""
    graph = Graph("g")
    graph.add_node(block, "llm", auto_connect=False)
    graph.infer_exposed_ports()
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "g")
    pipeline.infer_exposed_ports()
    stage = Stage("s", role="s")
    stage.add_pipeline(pipeline, "p")
    stage.set_state_contract(["intent"], ["recipe"], {"p.prompt": "intent"}, {"recipe": "p.text"})
    world = World("w")
    world.add_stage(stage, "s")
    world.set_cycle(["s"])
    world.set_storage(None)
    levels: dict[str, Any] = {"graph": graph, "pipeline": pipeline, "stage": stage, "world": world}
    inputs = {"prompt": "a b c"} if level in ("graph", "pipeline") else State(intent="a b c")
    return levels[level], inputs, {"num_steps": 1, "events": True} if level == "world" else {}


class Slowly(Tells):
    """Tells words, and counts how far it is."""

    def __init__(self) -> None:
        super().__init__()
        self.told = 0

    def forward(self, prompt: str, stream: Any = None) -> str:
        for word in prompt.split():
            if word == "bad":
                raise ArithmeticError(word)
            self.told += 1
            if stream is not None:
                stream(text=word)
        return prompt


LEVELS = ("graph", "pipeline", "stage", "world")


@pytest.mark.parametrize("level", LEVELS)
def test_at_every_level_a_block_waits_in_the_midst_of_its_words_and_leaving_ends_it(level: str) -> None:
    block = Slowly()
    target, inputs, options = at(level, block)
    events = target.stream(inputs, **options)
    for count, _ in enumerate((event for event in events if event.kind == "chunk"), 1):
        assert block.told == count
        if count == 2:
            break
    events.close()
    assert block.told == 2
    assert [event.kind for event in target.stream(inputs, **options)].count("chunk") == 3, "the next run is whole"


@pytest.mark.parametrize("level", LEVELS)
def test_at_every_level_what_fails_is_told_with_its_path_and_raised(level: str) -> None:
    target, inputs, options = at(level, Slowly())
    inputs = State(intent="a bad") if isinstance(inputs, State) else {"prompt": "a bad"}
    seen = []
    with pytest.raises(ArithmeticError, match="bad"):
        for event in target.stream(inputs, **options):
            seen.append((event.kind, event.path))
    paths = {"graph": ["llm"], "pipeline": ["g/llm", "g"], "stage": ["p/g/llm", "p/g", "p"], "world": ["s/p/g/llm", "s/p/g", "s/p", "s"]}
    assert seen[-len(paths[level]) :] == [("error", path) for path in paths[level]]


@pytest.mark.parametrize("level", LEVELS[:3])
def test_at_every_level_one_failed_item_of_a_batch_does_not_lose_the_others(level: str) -> None:
    target, _, _ = at(level, Slowly())
    prompts = ["a", "bad", "c"]
    found = target.batch([State(intent=prompt) if level == "stage" else {"prompt": prompt} for prompt in prompts])
    assert isinstance(found[1], ArithmeticError)
    assert [each.recipe if level == "stage" else each["text"] for each in (found[0], found[2])] == ["a", "c"]


def test_a_stream_inside_of_a_stream_and_of_a_batch() -> None:
    inner = at("pipeline", Slowly())[0]

    class Joins(Block):
        outputs = {"text": "text"}

        def forward(self, prompt: str) -> str:
            return "".join(event.outputs["text"] for event in inner.stream({"prompt": prompt}) if event.kind == "chunk")

    outer = at("graph", Joins())[0]
    assert list(outer.stream({"prompt": "a b"}))[-1].outputs == {"text": "ab"}
    assert outer.batch([{"prompt": "a b"}, {"prompt": "bad"}, {"prompt": "c"}])[::2] == [{"text": "ab"}, {"text": "c"}]


def test_the_run_waits_for_the_reader() -> None:
    blocks = [Counts() for _ in range(4)]
    events = chain(*blocks).stream({"x": torch.zeros(1)})
    for event in events:
        number = int(event.path[1:])
        assert [block.calls for block in blocks] == [int(k < number or (k == number and event.kind == "end")) for k in range(4)]
        if number == 3 and event.kind == "end":
            break
    events.close()


def test_nothing_runs_before_the_first_event_is_asked_for() -> None:
    block = Counts()
    events = chain(block).stream({"x": torch.zeros(1)})
    assert block.calls == 0
    events.close()
    assert block.calls == 0


def test_leaving_the_loop_stops_the_run() -> None:
    blocks = [Counts() for _ in range(3)]
    graph = chain(*blocks)
    for event in graph.stream({"x": torch.zeros(1)}):
        if (event.kind, event.path) == ("start", "n1"):
            break
    assert [block.calls for block in blocks] == [1, 0, 0]
    assert all(module.training for module in graph.modules()), "modes are given back"
    assert graph.run({"x": torch.zeros(1)})["y"].item() == 3


def test_leaving_the_loop_cancels_what_waits_on_a_network() -> None:
    gate = Gate()
    graph = chain(gate)
    events = graph.stream({"x": torch.zeros(1)})
    assert next(events).kind == "start"

    leaver = threading.Timer(0, lambda: None)
    leaver.start()
    events.close()
    assert not gate.begun.is_set() or gate.cancelled.wait(60)


def test_what_fails_is_told_and_raised() -> None:
    kinds = []
    with pytest.raises(ArithmeticError) as raised:
        for event in chain(Add(), Fails()).stream({"x": torch.zeros(1)}):
            kinds.append((event.kind, event.path))
    assert kinds[-1] == ("error", "n1")
    assert "raised in node n1 of g" in raised.value.__notes__


def test_callbacks_cancelled_seed_and_the_gradient_mode_hold() -> None:
    told: list[Any] = []
    graph = chain(Add(), Add())
    events = list(graph.stream({"x": torch.zeros(1, requires_grad=True)}, callbacks=told.append, training=True, seed=3))
    assert [event.kind for event in told] == [event.kind for event in events[:-1]]
    assert events[-1].outputs["y"].requires_grad


def test_errors_of_the_call_are_those_of_run() -> None:
    graph = chain(Add())
    with pytest.raises(MissingInputError, match="x"):
        list(graph.stream({}))
    with pytest.raises(TypeError, match="no option 'sed'"):
        list(graph.stream({"x": torch.zeros(1)}, sed=1))
    with pytest.raises(TypeError, match="a dry run has no events"):
        graph.stream({"x": torch.zeros(1)}, dry_run=True)
    with pytest.raises(PortTypeError, match="callbacks"):
        list(graph.stream({"x": torch.zeros(1)}, callbacks=3))


_ENDS = """
import torch
from wgtorch import Block, Graph
graph = Graph("g")
graph.add_node(Block.wrap(torch.nn.Identity(), inputs={"input": "tensor"}, outputs={"y": "tensor"}), "same")
graph.infer_exposed_ports()
stream = graph.stream({"input": torch.ones(1)})
print(next(stream).kind)
"""


def test_a_process_may_end_in_the_middle_of_a_stream() -> None:
    done = subprocess.run([sys.executable, "-c", _ENDS], capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout, done.stderr) == ("start\n", "")
