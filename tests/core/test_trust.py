"""Configs from files: what they may read of the environment, which interpolations are resolved, and how the caller allows more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from tests.blocks_for_tests import Secret
from wgtorch import Block, Graph, Pipeline, World
from wgtorch.cli.main import main
from wgtorch.core.checkpoint.verify import inspect_checkpoint
from wgtorch.core.config.resolve import resolve_environment
from wgtorch.core.errors import ConfigError
from wgtorch.core.registry import LevelRegistry
from wgtorch.core.trust import Trust, from_file

REFUSED = r"reads the environment variable GITHUB_TOKEN; .*trust=Trust\(env=\('GITHUB_TOKEN',\)\).*--trust GITHUB_TOKEN"
ran: list[str] = []


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "hush")
    monkeypatch.setenv("WGTORCH_WORD", "word")


@pytest.fixture
def resolvers() -> Iterator[None]:
    """A caller's resolvers, among them another ``oc.env``; whoever calls one is noted."""
    ran.clear()
    for name in ("eval", "oc.env"):
        OmegaConf.register_new_resolver(name, lambda *args: ran.append(str(args)) or "ran", replace=True)
    yield
    OmegaConf.clear_resolvers()
    assert ran == []


def level_of(kind: str, key: Any) -> dict[str, Any]:
    """A level's config with one block at the bottom, as a file holds it."""
    config: dict[str, Any] = {"kind": "graph", "graph_id": "g", "nodes": [{"node_id": "a", "block_type": "test/secret"}]}
    config["nodes"][0]["config"] = {"depth": {"inner": key}}
    for outer in ("pipeline", "stage"):
        if config["kind"] != kind:
            config = {"kind": outer, f"{outer}_id": outer[0], "nodes": [{"node_id": f"in_{outer}", "config": config}]}
    return config if kind != "world" else {"kind": "world", "world_id": "w", "stages": {"environment": config}}


def written(folder: Path, content: Any, name: str = "g.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path


def values(level: Any) -> list[str]:
    return [block.depth.get("inner", block.key) for block in level.modules() if isinstance(block, Secret)]


def inner_of(level: Any) -> str:
    return next(block for block in level.modules() if isinstance(block, Secret)).depth["inner"]


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("graph", "g/a"),
        ("pipeline", "p/in_pipeline/a"),
        ("stage", "s/in_stage/in_pipeline/a"),
        ("world", "w/environment/in_stage/in_pipeline/a"),
    ],
)
def test_a_file_reads_its_own_variables_and_no_others_until_the_caller_says_so(kind: str, place: str, tmp_path: Path) -> None:
    level = LevelRegistry.get(kind)
    assert inner_of(level.from_yaml(written(tmp_path, level_of(kind, "a ${oc.env:WGTORCH_WORD}")))) == "a word"
    path = written(tmp_path, level_of(kind, "${oc.env:GITHUB_TOKEN}"))
    with pytest.raises(ConfigError, match=rf"g.yaml: {place}: test/secret: depth.inner: {REFUSED}"):
        level.from_yaml(path)
    for trust in (True, Trust(env=("GITHUB_TOKEN",)), Trust(env=("GITHUB_*",))):
        assert inner_of(level.from_yaml(path, trust=trust)) == "hush"
    for trust in (False, Trust(env=("GITHUB",)), Trust(endpoints=("https://h",))):
        with pytest.raises(ConfigError, match=REFUSED):
            level.from_yaml(path, trust=trust)
    assert inner_of(level.from_config(level_of(kind, "${oc.env:GITHUB_TOKEN}"))) == "hush"


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:GITHUB_TOKEN}",
        "so ${oc.env:WGTORCH_WORD} ${oc.env:GITHUB_TOKEN}",
        "${oc.env:'GITHUB_TOKEN'}",
        "${oc.env: GITHUB_TOKEN , x}",
        "${oc.env:WGTORCH_WORD,${oc.env:GITHUB_TOKEN}}",
        "${oc.env:WGTORCH_NONE,[{a: ${oc.env:GITHUB_TOKEN}}]}",
        "${oc.env:${oc.env:WGTORCH_NONE,GITHUB_TOKEN}}",
        "${${oc.env:WGTORCH_NONE,oc}.env:GITHUB_TOKEN}",
    ],
)
def test_every_way_of_writing_a_variable_is_seen(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=REFUSED):
        Graph.from_yaml(written(tmp_path, level_of("graph", text)))
    Graph.from_config(level_of("graph", text))


@pytest.mark.parametrize(
    "text",
    [
        "${eval:'1'}",
        "say ${eval:'1'}",
        "${oc.env:WGTORCH_WORD,${eval:'1'}}",
        "${oc.env:WGTORCH_NONE,[1, {a: ${eval:'1'}}]}",
        "${oc.env:${eval:'1'}}",
        "${${eval:'1'}:x}",
        "${eval:${oc.env:WGTORCH_WORD}}",
        "${oc.env:\"${eval:'1'}\"}",
        "${oc.decode:'${eval:1}'}",
        "${oc.create:{a: 1}}",
        "${key}",
        "${.key}",
        "${oc.env:}",
        "${oc.env:A,B,C}",
        "${oc.env:1}",
        "${oc.env:" * 900 + "A" + "}" * 900,
    ],
)
@pytest.mark.usefixtures("resolvers")
def test_no_other_interpolation_is_resolved_from_files_nor_from_code(text: str, tmp_path: Path) -> None:
    config = level_of("graph", text)
    for build in (lambda: Graph.from_config(config), lambda: Graph.from_yaml(written(tmp_path, config), trust=True)):
        with pytest.raises(ConfigError, match="only .{oc.env:NAME} is resolved here"):
            build()


@pytest.mark.usefixtures("resolvers")
def test_values_of_variables_are_taken_as_they_are_and_a_resolver_of_that_name_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTORCH_WORD", "${eval:'1'} ${oc.env:GITHUB_TOKEN}")
    given = {
        "a": "${oc.env:WGTORCH_WORD}",
        "b": ["-${oc.env:WGTORCH_NONE,'a b'}", r"\${x}"],
        "c": {"d": "${oc.env:WGTORCH_NONE,null}"},
        "e": 1,
    }
    expected = {"a": "${eval:'1'} ${oc.env:GITHUB_TOKEN}", "b": ["-a b", "${x}"], "c": {"d": None}, "e": 1}
    with from_file("f.yaml"):
        assert resolve_environment(given, "here") == expected


@pytest.mark.usefixtures("resolvers")
@pytest.mark.parametrize("format", ["dir", "archive"])
def test_checkpoints_are_files(format: str, tmp_path: Path) -> None:
    path = tmp_path / "saved"
    graph = Graph.from_config(level_of("graph", "${oc.env:GITHUB_TOKEN}"))
    graph.save_checkpoint(path, format=format)
    loads = [Graph.load, Graph.load_from_checkpoint, lambda path, **more: Graph.load_from_checkpoint(path, strict=False, **more)]
    for load in loads:
        with pytest.raises(ConfigError, match=rf"saved: g/a: test/secret: depth.inner: {REFUSED}"):
            load(path)
        assert inner_of(load(path, trust=Trust(env=("GITHUB_TOKEN",)))) == "hush"
    with pytest.raises(ConfigError, match=REFUSED):
        Block.load_from_checkpoint(path, part="a")
    other = written(tmp_path, level_of("graph", "${oc.env:WGTORCH_NONE,${eval:'1'}}"))
    with pytest.raises(ConfigError, match="only .{oc.env:NAME} is resolved"):
        Graph.load_from_checkpoint(path, other, trust=True)
    block = Secret(depth={"inner": "x"})
    block._config["depth"] = {"inner": "${oc.env:GITHUB_TOKEN}"}
    block.save_checkpoint(tmp_path / "block", format=format)
    with pytest.raises(ConfigError, match=REFUSED):
        Block.load(tmp_path / "block")


def test_looking_into_a_checkpoint_reads_no_variable_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "w.safetensors"
    from safetensors.torch import save_file

    from tests.blocks_for_tests import Affine

    save_file(Affine().state_dict(), weights)
    monkeypatch.setenv("MY_WEIGHTS", str(weights))
    graph = Graph("g")
    graph.add_node("test/affine", "a", config={"checkpoint_ref": "${oc.env:MY_WEIGHTS}"})
    graph.save(tmp_path / "saved")
    assert "MY_WEIGHTS; a file may read" in str(inspect_checkpoint(tmp_path / "saved"))
    with pytest.raises(ConfigError, match="MY_WEIGHTS"):
        Graph.load(tmp_path / "saved")
    assert isinstance(Graph.load(tmp_path / "saved", trust=Trust(env=("MY_WEIGHTS",))).nodes["a"], Affine)


@pytest.mark.parametrize("where", ["whole", "graph", "node", "inside"])
def test_what_a_ref_brings_is_the_files_and_the_rest_is_the_callers(where: str, tmp_path: Path) -> None:
    graph = level_of("graph", "${oc.env:GITHUB_TOKEN}")
    code: dict[str, Any] = {"node_id": "mine", "block_type": "test/secret", "config": {"key": "${oc.env:GITHUB_TOKEN}"}}
    ref = {"ref": "part.yaml"}
    part, config = {
        "whole": (level_of("pipeline", "${oc.env:GITHUB_TOKEN}"), ref),
        "graph": (graph, {"kind": "pipeline", "pipeline_id": "p", "nodes": [{"node_id": "g", "config": ref}]}),
        "node": (graph["nodes"][0], {**graph, "nodes": [code, ref]}),
        "inside": (graph["nodes"][0]["config"]["depth"], {**graph, "nodes": [code, {**graph["nodes"][0], "config": {"depth": ref}}]}),
    }[where]
    written(tmp_path, part, "part.yaml")
    level: Any = Graph if where in ("node", "inside") else Pipeline
    with pytest.raises(ConfigError, match=rf"part.yaml: .*a: test/secret: depth.inner: {REFUSED}"):
        level.from_config(config, base=tmp_path)
    built = level.from_config(config, base=tmp_path, trust=Trust(env=("GITHUB_TOKEN",)))
    assert set(values(built)) == {"hush"}
    written(tmp_path, yaml.safe_load(yaml.safe_dump(part).replace("GITHUB_TOKEN", "WGTORCH_WORD")), "part.yaml")
    mine = ["hush"] if where in ("node", "inside") else []
    assert values(level.from_config(config, base=tmp_path)) == [*mine, "word"]


def test_files_that_a_file_names_are_trusted_as_it_is(tmp_path: Path) -> None:
    written(tmp_path, level_of("graph", "${oc.env:GITHUB_TOKEN}"), "inner.yaml")
    outer = written(tmp_path, {"kind": "pipeline", "pipeline_id": "p", "nodes": [{"node_id": "g", "config": {"ref": "inner.yaml"}}]})
    with pytest.raises(ConfigError, match=f"p/g/a: .*{REFUSED}"):
        Pipeline.from_yaml(outer)
    assert inner_of(Pipeline.from_yaml(outer, trust=Trust(env=("GITHUB_TOKEN",)))) == "hush"
    pipeline = Pipeline("q")
    with pytest.raises(ConfigError, match=REFUSED):
        pipeline.add_graph(str(tmp_path / "inner.yaml"), "g")


def test_code_is_as_free_after_a_file_as_before(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Graph.from_yaml(written(tmp_path, level_of("graph", "${oc.env:GITHUB_TOKEN}")))
    Graph.from_yaml(written(tmp_path, level_of("graph", "x")))
    graph = Graph("g")
    graph.add_node("test/secret", "a", config={"key": "${oc.env:GITHUB_TOKEN}"})
    assert graph.nodes["a"].key == "hush"


@pytest.mark.parametrize(
    "given", [{"env": "NAME"}, {"env": (1,)}, {"endpoints": "https://h"}, {"endpoints": ("h",)}, {"endpoints": ("ftp://h",)}]
)
def test_trust_that_is_none(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Trust\.(env|endpoints): "):
        Trust(**given)
    with pytest.raises(ConfigError, match="trust is .*expected True or"):
        Graph.from_yaml(written(tmp_path, level_of("graph", "x")), trust="GITHUB_TOKEN")  # type: ignore[arg-type]


@pytest.mark.parametrize("command", ["validate", "draw", "run", "models"])
def test_the_command_line_trusts_files_no_more_than_it_is_told(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = level_of("graph", "${oc.env:GITHUB_TOKEN}")
    config["nodes"].append({"node_id": "b", "block_type": "test/secret", "config": {}})
    config["exposed_inputs"] = [{"node_id": n, "port_name": "text", "name": n} for n in "ab"]
    config["exposed_outputs"] = [{"node_id": n, "port_name": "text", "name": n} for n in "ab"]
    path = str(written(tmp_path, config))
    inputs = ["--input", "a=x", "--input", "b=x"] if command == "run" else []
    assert main([command, path, *inputs]) == 2
    assert "g/a: test/secret: depth.inner: reads the environment variable GITHUB_TOKEN" in capsys.readouterr().err
    assert main([command, path, *inputs, "--trust", "OTHER", "--trust", "GITHUB_*"]) == 0


def test_a_world_that_was_saved_is_a_file(tmp_path: Path) -> None:
    World.from_config(level_of("world", "${oc.env:GITHUB_TOKEN}")).save(tmp_path / "saved")
    with pytest.raises(ConfigError, match=REFUSED):
        World.load(tmp_path / "saved")
    assert inner_of(World.load(tmp_path / "saved", trust=True)) == "hush"
