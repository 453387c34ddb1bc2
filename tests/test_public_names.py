"""The published example of all public names, run line by line as it is written."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch

from wgtorch import Block, Graph, Pipeline, World

EXAMPLE = Path(__file__).parent / "data" / "public_names.py.txt"

# What the example leaves out with "...": the statement as it is written, and what stands in for the dots.
FILLED = {
    "p.run({...})": "p.run({'x': torch.ones(2)})",
    "s.run(State(intent='a storm comes'), content={...})": "s.run(State(intent='a storm comes'), content={'style': 'ink'})",
    "...": "[w.add_stage(role) for role in ('philosopher', 'author', 'environment', 'creator')]",
}


class Plan(Block):
    """A stand-in for the pipeline that the example's stage is built around."""

    outputs = {"recipe": "dict"}

    def forward(self, text: str, style: str = "") -> dict:
        return {"recipe": {"prompts": [f"{text} {style}".strip()]}}


def planning_pipeline() -> Pipeline:
    graph = Graph("plan")
    graph.add_node(Plan(), "plan")
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "plan")
    for port in ("text", "style"):
        graph.expose_input("plan", port)
        pipeline.expose_input("plan", port)
    graph.expose_output("plan", "recipe")
    pipeline.expose_output("plan", "recipe")
    return pipeline


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any]]:
    """The names that the example leaves behind, and the value of each expression statement."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    scope: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for statement in module.body:
        source = ast.unparse(statement)
        if source.startswith("s = Stage("):
            scope["p"] = planning_pipeline()
        code = FILLED.get(source, source)
        if isinstance(statement, ast.Expr):
            values[source] = eval(code, scope)
        else:
            exec(code, scope)
    return scope, values


def test_every_statement_of_the_example_runs_and_gives_what_it_says(ran: tuple[dict[str, Any], dict[str, Any]]) -> None:
    scope, values = ran
    assert values["block.config"] == {"factor": 3.0}
    assert list(values["block.get_input_spec()"]) == ["x", "bias"]
    assert values["block.get_input_spec()"]["bias"].optional
    assert torch.equal(values["block.run({'x': torch.ones(2)})"]["y"], torch.tensor([3.0, 3.0]))
    assert torch.equal(values["block(x=torch.ones(2))"]["y"], torch.tensor([3.0, 3.0]))
    assert values["g.validate()"].is_valid
    assert torch.equal(values["g.run({'x': torch.ones(2)})"]["y"], torch.tensor([10.0, 10.0]))
    assert torch.equal(values["g.run({'x': torch.ones(2)}, outputs=['a.y'])"]["a.y"], torch.tensor([2.0, 2.0]))
    assert values["g.nodes['a']"] is scope["g"].nodes["a"]
    assert torch.equal(values["p.run({...})"]["y"], torch.tensor([100.0, 100.0]))
    assert values["Graph.load('dir')"].to_config()["nodes"][0]["config"] == {"factor": 2.0}


def test_the_stage_and_the_worlds_of_the_example_live(ran: tuple[dict[str, Any], dict[str, Any]]) -> None:
    scope, values = ran
    planned = values["s.run(State(intent='a storm comes'), content={...})"]
    assert planned.recipe == {"prompts": ["a storm comes ink"]}
    assert isinstance(scope["w"], World)
    assert scope["state"].filled == ("intent", "recipe", "artifacts")
    assert len(scope["w"].history) == 2
    assert (Path("runs/my_world") / "00001" / "state.json").is_file()
    assert values["World.from_template('default').run(num_steps=3)"].filled == ("intent", "recipe", "artifacts")


def test_the_state_of_the_example_answers_by_name_and_number(ran: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, values = ran
    assert values["st['intent']"] == values["st[1]"] == values["st.intent"] == "..."
    assert values["st.filled"] == ("intent", "artifacts")
    assert values["st.complete"] is False
