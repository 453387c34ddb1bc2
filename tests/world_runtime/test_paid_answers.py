"""Answers that a stage had paid for before it failed: another process does not ask for them again, unless their request changed."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from tests.world_blocks import assert_same, environment_stage, record_of, stage_of
from wgtorch.core.block import Block, register_block
from wgtorch.graph import Graph
from wgtorch.pipeline import Pipeline
from wgtorch.stage import Stage
from wgtorch.storage import DirectoryStorage
from wgtorch.world import World


@register_block("world_test/paid")
class Paid(Block):
    """A model that is paid by the call; what it was asked is noted in a file."""

    is_async = True
    outputs: ClassVar[Mapping[str, Any]] = {"text": "text", "vector": "tensor"}

    def __init__(self, *, till: str, name: str = "model") -> None:
        super().__init__()
        self.till, self.name = Path(till), name

    def forward(self, text: str) -> dict[str, Any]:
        if self.name == "second" and (self.till / "closed").exists():
            raise RuntimeError("no credit")
        with (self.till / "asked").open("a") as file:
            file.write(f"{self.name}: {text}\n")
        return {"text": f"{self.name} on {text[:40]}", "vector": torch.tensor([len(text), float("nan")])}


@register_block("world_test/both")
class Both(Block):
    """Puts two answers together."""

    outputs: ClassVar[Mapping[str, Any]] = {"recipe": "dict"}

    def forward(self, one: str, two: str, vector: Tensor) -> dict[str, Any]:
        return {"recipe": {"count": 1, "level": 0.25, "known": f"{one}; {two}; {int(vector[0])}"}}


def world_of(till: Path, model: str = "first") -> World:
    graph = Graph("plan")
    graph.add_node("world_test/paid", "first", config={"till": str(till), "name": model})
    graph.add_node("world_test/paid", "second", config={"till": str(till), "name": "second"})
    graph.add_node("world_test/both", "both")
    for edge in (("first.text", "second.text"), ("first.text", "both.one"), ("second.text", "both.two"), ("first.vector", "both.vector")):
        graph.add_edge(*edge)
    graph.expose_input("first", "text", name="intent")
    graph.expose_output("both", "recipe", name="recipe")
    pipeline = Pipeline("plan")
    pipeline.add_graph(graph, "plan")
    pipeline.expose_input("plan", "intent", name="intent")
    pipeline.expose_output("plan", "recipe", name="recipe")
    architect = Stage("architect", role="architect")
    architect.add_pipeline(pipeline, "work")
    architect.set_state_contract(["intent"], ["recipe"])
    architect.set_execution_condition("architect")
    world = World("paid")
    world.add_stage(stage_of("philosopher", "world_test/look", ["artifacts"], ["description"], "philosopher"))
    world.add_stage(stage_of("author", "world_test/tell", ["intent", "description"], ["outcome"], "author"))
    world.add_stage(environment_stage())
    world.add_stage(architect)
    world.add_stage(stage_of("creator", "world_test/make", ["recipe"], ["artifacts"], "creator"))
    world.set_canonical_cycle()
    world.set_initial_content({"story": "It began.", "episodes": 0})
    return world


def asked(till: Path) -> list[str]:
    return [line.split(":")[0] for line in (till / "asked").read_text().splitlines()]


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A folder whose world failed at the second model of its second pass."""
    world = world_of(tmp_path)
    world.set_storage({"state_dir": tmp_path / "s"})
    world.run(seed=3)
    (tmp_path / "closed").touch()
    with pytest.raises(RuntimeError, match="no credit"):
        world.run()
    assert asked(tmp_path) == ["first", "second", "first"]
    (tmp_path / "closed").unlink()
    return tmp_path


def again(till: Path, **options: Any) -> World:
    world = world_of(till, **options)
    world.set_storage({"state_dir": till / "s"})
    return world.resume()


def test_another_process_pays_for_the_rest_alone(stopped: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    world = again(stopped)
    world.run()
    assert asked(stopped) == ["first", "second", "first", "second"]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    never_stopped = world_of(elsewhere)
    never_stopped.run(seed=3, num_steps=2)
    assert_same(record_of(world)["state"]["recipe"], record_of(never_stopped)["state"]["recipe"])
    world.run()
    assert asked(stopped)[4:] == ["first", "second"], "the next pass asks anew"


def test_it_may_fail_in_one_process_after_the_other(stopped: Path) -> None:
    (stopped / "closed").touch()
    for _ in range(3):
        with pytest.raises(RuntimeError, match="no credit"):
            again(stopped).run()
    (stopped / "closed").unlink()
    again(stopped).run()
    assert asked(stopped) == ["first", "second", "first", "second"]
    assert DirectoryStorage(stopped / "s").verify() > 0


@pytest.mark.parametrize("what", ["intent", "seed", "model"])
def test_what_changed_is_asked_for(stopped: Path, what: str) -> None:
    world = again(stopped, model="another") if what == "model" else again(stopped)
    if what == "intent":
        world.edit(intent="something else altogether")
    world.run(seed=8 if what == "seed" else None)
    assert asked(stopped)[3:] == ["another" if what == "model" else "first", "second"]


def test_a_fork_and_a_rewound_world_ask_for_themselves(stopped: Path) -> None:
    world = again(stopped)
    world.rewind(0)
    world.run()
    assert asked(stopped)[3:] == ["first", "second"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
def test_what_a_killed_process_had_paid_for_is_not_paid_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL in the middle of a stage: what models had answered in it is in the log."""
    world = world_of(tmp_path)
    world.set_storage({"state_dir": tmp_path / "s"})
    world.run(seed=3)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Both, "forward", lambda *args, **values: os.kill(os.getpid(), signal.SIGKILL))
        with suppress(BaseException):
            world.run()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert asked(tmp_path) == ["first", "second"] * 2
    world = again(tmp_path)
    assert (world.life.passes, world.life.stage) == (1, 3), "stages that were through are kept beside what was paid for"
    world.run()
    assert asked(tmp_path) == ["first", "second"] * 2
    assert world.replay(1)
