"""The published example of all public names, run line by line as it is written."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import wgtorch
from tests.blocks_for_tests import Affine
from wgtorch import Block, Event, Graph, Pipeline, Stage, World
from wgtorch.cli.main import main

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


def test_a_callback_is_told_what_the_list_says() -> None:
    graph = Graph("g")
    graph.add_node(Plan(), "plan")
    graph.infer_exposed_ports()
    events: list[Event] = []
    graph.run({"text": "a storm"}, callbacks=[events.append])
    assert [(event.kind, event.path, event.level) for event in events if event.path] == [
        ("start", "plan", "block"),
        ("end", "plan", "block"),
    ]
    start, end = (event for event in events if event.path == "plan")
    assert start.inputs == {"text": "a storm"}
    assert end.outputs == {"recipe": {"prompts": ["a storm"]}}
    assert end.elapsed >= 0
    assert {"step", "total", "reason"} <= set(Event.__dataclass_fields__)


def test_ids_are_returned_and_made_where_they_are_left_out() -> None:
    graph, stage, world = Graph("plan_graph"), Stage("architect"), World("w")
    assert graph.add_node(Plan(), "given") == "given"
    assert graph.add_node(Plan()) in graph.nodes
    pipeline = planning_pipeline()
    assert pipeline.add_graph(graph) == "plan_graph"
    assert stage.add_pipeline(pipeline) == "p"
    assert world.add_stage(stage) == "architect"


def test_the_names_of_loading_adapters_and_training(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    lightning = pytest.importorskip("lightning.pytorch")
    graph = Graph("g")
    graph.add_node(Affine(4), "layer")
    graph.infer_exposed_ports()
    graph.save_checkpoint(tmp_path / "checkpoint")
    x = {next(iter(graph.get_input_spec())): torch.ones(1, 4)}
    before = graph.run(x)
    loaded = Graph.load_from_checkpoint(tmp_path / "checkpoint")
    torch.testing.assert_close(loaded.run(x), before, rtol=0, atol=0)
    assert World.load.__self__ is World

    wgtorch.lora.add(graph, name="winter", rank=2)
    with torch.no_grad():
        for name, parameter in graph.named_parameters():
            if "lora_B" in name:
                parameter.fill_(1.0)
    graph.set_adapter("layer", None)
    torch.testing.assert_close(graph.run(x), before, rtol=0, atol=0)
    graph.set_adapter("layer", "winter")
    assert not torch.equal(*(next(iter(outputs.values())) for outputs in (graph.run(x), before)))

    trainable = wgtorch.train.Trainable(Graph.from_template("text_to_image"), objective="denoising", train_only=["backbone"])
    assert isinstance(trainable, lightning.LightningModule)


def test_the_commands_of_the_list_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "train", "validate", "draw", "report", "serve", "templates"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"usage: wgtorch {command}" in capsys.readouterr().out
    scripts = Path(__file__).parents[1] / "scripts"
    for name in ("demo.sh", "test.sh"):
        assert os.access(scripts / name, os.X_OK)
    assert {"run_world.py", "train.py"} <= {path.name for path in scripts.iterdir()}
