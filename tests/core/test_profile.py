"""Profiles of runs: nodes by path, a trace with their spans, nothing where it was not asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.world_blocks import tiny_world
from wgtorch import Block, Graph, Pipeline, State
from wgtorch.core.errors import PortTypeError
from wgtorch.core.run.profile import Profile


class Mul(Block):
    """A product that takes a while."""

    outputs = {"y": "tensor"}

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = torch.mm(x, x) / 100
        return x


class Far(Block):
    """Waits, in a thread of its own, and tells what it used."""

    outputs = {"y": "tensor", "usage": "dict"}

    async def forward(self, x: Tensor) -> dict:
        return {"y": torch.sin(x), "usage": {"prompt_tokens": 7, "completion_tokens": 2, "cost": 0.5}}


def graph() -> Graph:
    g = Graph("g")
    g.add_node(Mul(8), "slow", auto_connect=False)
    g.add_node(Mul(), "fast", auto_connect=False)
    g.add_node(Far(), "far", auto_connect=False)
    g.add_edge("slow.y", "fast.x")
    g.add_edge("fast.y", "far.x")
    g.expose_input("slow", "x")
    g.expose_output("far", "y")
    return g


X = torch.ones(200, 200) / 200


def test_nodes_are_counted_and_the_result_is_the_same(tmp_path: Path) -> None:
    pipeline = Pipeline("p")
    pipeline.add_graph(graph(), "first")
    pipeline.infer_exposed_ports()
    profile, seen = Profile(), []
    result = pipeline.run({"x": X}, profile=profile, callbacks=[lambda event: seen.append(event.kind)])
    assert torch.equal(result["y"], pipeline.run({"x": X})["y"]) and seen
    assert {path: (node.level, node.calls) for path, node in profile.nodes.items()} == {
        "first": ("graph", 1), "first/slow": ("block", 1), "first/fast": ("block", 1), "first/far": ("block", 1)
    }  # fmt: skip
    assert profile.nodes["first/far"].tokens == 9 and profile.nodes["first/far"].cost == 0.5
    below = sum(node.total for path, node in profile.nodes.items() if path != "first")
    assert profile.nodes["first"].own == pytest.approx(profile.nodes["first"].total - below)
    text = str(profile)
    assert "first/slow" in text and "aten::mm" in text and "tokens" in text and "first/slow" in profile.table(rows=4)
    trace = json.loads(profile.save(tmp_path / "sub" / "trace.json").read_text(encoding="utf-8"))
    names = [event.get("name") for event in trace["traceEvents"]]
    for name in ("graph first", "block first/slow", "block first/far", "aten::mm", "aten::sin"):
        assert name in names, name
    spans = {event["name"]: event for event in trace["traceEvents"] if event.get("ph") == "X"}
    outer, inner = spans["graph first"], spans["block first/slow"]
    assert outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + 1


def test_it_is_printed_and_written_where_that_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph().run({"x": X}, profile=True)
    assert "slow" in capsys.readouterr().out
    graph().run({"x": X}, profile=tmp_path / "t.json")
    assert "aten::mm" in capsys.readouterr().out and (tmp_path / "t.json").is_file()


def test_several_runs_add_up_and_failures_are_counted() -> None:
    profile, g = Profile(), graph()
    for _ in range(2):
        g.run({"x": X}, profile=profile)
    assert profile.nodes["slow"].calls == 2
    with pytest.raises(RuntimeError):
        g.run({"x": torch.ones(2, 3)}, profile=profile)
    assert profile.nodes["slow"].calls == 3
    g.run({"x": X}, profile=profile)


def test_stages_and_worlds() -> None:
    world, profile = tiny_world(), Profile()
    world.run(num_steps=2, seed=1, profile=profile)
    assert {path for path in profile.nodes if "/" not in path} <= set(world.cycle)
    assert any(node.level == "block" and node.calls == 2 for node in profile.nodes.values())
    stage: Any = world.nodes["architect"]
    of_stage = Profile()
    stage.run(State(intent="a"), content=world.content, profile=of_stage)
    assert of_stage.nodes


def test_what_it_cannot_be() -> None:
    with pytest.raises(PortTypeError, match="profile is int 3; expected True, a path"):
        graph().run({"x": X}, profile=3)  # type: ignore[call-overload]
    with pytest.raises(PortTypeError, match="nothing was run with it yet"):
        Profile().save("trace.json")
    with pytest.raises(TypeError, match="batch\\(\\) has no option 'profile'"):
        graph().batch([{"x": X}], profile=True)
    with pytest.raises(TypeError, match="no option 'profile'"):
        graph().run_until({"x": X}, before="fast", profile=True)


def test_nothing_is_imported_where_it_is_not_used() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); from wgtorch import Graph; "
        "print([name for name in set(sys.modules) - before if 'profil' in name])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "['wgtorch.core.run.profile']"
