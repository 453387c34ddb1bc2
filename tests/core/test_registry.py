"""Registries: names, nearest names, pip lines, entry points, lazy providers."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import tests.blocks_for_tests as blocks
from wgtorch.cli.main import main
from wgtorch.core import registry as registry_module
from wgtorch.core.block import Block, BlockRegistry, register_block
from wgtorch.core.config.template import TemplateRegistry
from wgtorch.core.errors import ConfigError, StructureError, UnknownNameError, WgtorchError
from wgtorch.core.registry import Registry, provide_modules
from wgtorch.evaluation import EvaluatorRegistry, evaluate
from wgtorch.graph import Graph
from wgtorch.world import World


def test_a_block_is_built_from_its_type_and_config() -> None:
    block = BlockRegistry.build({"block_type": "test/scale", "config": {"factor": 3.0}})
    assert type(block) is blocks.Scale
    assert block.config == {"factor": 3.0}
    assert block.block_type == "test/scale"


def test_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown block type 'test/scael'; did you mean .*'test/scale'"):
        BlockRegistry.build({"block_type": "test/scael"})


def test_an_unknown_type_is_a_key_error_with_a_readable_message() -> None:
    with pytest.raises(KeyError) as caught:
        BlockRegistry.get("nothing-like-it")
    assert str(caught.value).startswith("unknown block type 'nothing-like-it'; ")


def test_a_type_that_an_extra_would_supply_gives_the_pip_line() -> None:
    with pytest.raises(UnknownNameError, match=r"pip install 'wgtorch\[diffusers\]'"):
        BlockRegistry.get("diffusers/unet2d")


def test_a_wrong_argument_is_named_before_the_block_is_built() -> None:
    with pytest.raises(ConfigError) as caught:
        BlockRegistry.build({"block_type": "test/scale", "config": {"factro": 3.0}})
    assert "test/scale.config.factro: unknown key" in str(caught.value)
    assert "Did you mean 'factor'?" in str(caught.value)
    with pytest.raises(ConfigError, match=r"test/scale.config.factor: got str 'three'; expected number"):
        BlockRegistry.build({"block_type": "test/scale", "config": {"factor": "three"}})


def test_all_wrong_arguments_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        BlockRegistry.build({"block_type": "test/affine", "config": {"width": "wide", "seed": "s", "more": 1}})
    for name in ("width", "seed", "more"):
        assert f"test/affine.config.{name}" in str(caught.value)


def test_a_name_belongs_to_one_definition() -> None:
    with pytest.raises(StructureError, match=r"block type 'test/scale' is already registered by tests.blocks_for_tests.Scale"):

        @register_block("test/scale")
        class Other(Block):
            pass

    assert BlockRegistry.get("test/scale") is blocks.Scale


def test_the_same_definition_again_replaces_itself() -> None:
    registry: Registry[type] = Registry("thing")

    def define() -> type:
        class Thing:
            pass

        return Thing

    first, second = define(), define()
    registry.register("thing", first)
    registry.register("thing", second)
    assert registry.get("thing") is second


def test_a_module_is_imported_when_its_name_is_first_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_PROVIDED", {})
    registry: Registry[type] = Registry("thing", group="test.things")
    calls = []

    def load(name: str) -> None:
        calls.append(name)
        registry.register("one", Graph)

    monkeypatch.setattr(registry_module, "import_module", load)
    provide_modules("test.things", {"wgtorch.things": ("one", "two")})
    assert registry.names() == ["one", "two"]
    assert "one" in registry
    assert calls == []
    assert registry.get("one") is Graph
    assert registry.get("one") is Graph
    assert calls == ["wgtorch.things"]


def test_entry_points_are_found_lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def entry_points(*, group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint("their/scale", "tests.blocks_for_tests:Scale", group)]

    monkeypatch.setattr(registry_module, "entry_points", entry_points)
    registry: Registry[type] = Registry("thing", group="test.group")
    assert asked == []
    assert "their/scale" in registry.names()
    assert registry.get("their/scale") is blocks.Scale
    assert asked == ["test.group"]


def test_registries_list_their_names_in_order() -> None:
    registry: Registry[int] = Registry("number")
    for name in ("b", "a", "c"):
        registry.register(name, 1)
    assert list(registry) == ["a", "b", "c"]


# --- plug-ins: packages of others that announce names -----------------------------------------------------------------

GOOD = '''
from wgtorch.core.block import Block, register_block
from wgtorch.core.config.template import register_template
from wgtorch.graph import Graph

class Loose(Block):
    """A class that nothing registers but its entry point."""
    outputs = {"y": "tensor"}
    def forward(self, x): return {"y": x}

@register_block("good/two")
class Two(Loose): "Another."

@register_block("good/three")
class Three(Loose): "A third one."

def plain(*, size: int = 2):
    """A function that nothing registers but its entry point."""
    graph = Graph("plain"); graph.add_node(Loose(), "a"); graph.infer_exposed_ports()
    return graph

def wrong_level(): return "no graph"
number = 5
'''


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a package with entry points: group -> name -> where it points."""
    count = iter(range(100))

    def install(points: dict[str, dict[str, str]], **modules: str) -> None:
        name = f"plugin_{next(count)}"
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        rows = [f"[{group}]\n" + "\n".join(f"{key} = {value}" for key, value in entries.items()) for group, entries in points.items()]
        (info / "entry_points.txt").write_text("\n".join(rows))

    monkeypatch.syspath_prepend(str(tmp_path))
    for registry in (BlockRegistry, TemplateRegistry, EvaluatorRegistry):
        for name in registry.names():  # what a module registers while the copy stands would be gone with it
            registry.get(name)
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_waiting", None)
        monkeypatch.setattr(registry, "_faults", {})
        monkeypatch.setattr(registry, "_loaded_modules", set())
    yield install
    for module in ("good_plugin", "bad_plugin"):
        sys.modules.pop(module, None)


def test_plugins_bring_a_class_a_module_of_several_and_a_template(plugins: Callable[..., None]) -> None:
    plugins(
        {
            "wgtorch.blocks": {"good/loose": "good_plugin:Loose", "good": "good_plugin"},
            "wgtorch.templates": {"graph/good": "good_plugin:plain"},
        },
        good_plugin=GOOD,
    )
    assert {"good/loose", "good/two", "good/three"} <= set(BlockRegistry.names())
    assert "good" not in BlockRegistry.names()
    assert BlockRegistry.build({"block_type": "good/three"}).block_type == "good/three"
    assert BlockRegistry.build({"block_type": "good/loose"}).to_config() == {"block_type": "good/loose", "config": {}}
    assert BlockRegistry.origin("good/loose") == "plugin_0"
    assert Graph.from_template("good").graph_id == "plain"
    with pytest.raises(ConfigError, match=r"template 'good'.size: got str 'x'; expected integer"):
        Graph.from_template("good", size="x")
    assert BlockRegistry.faults() == TemplateRegistry.faults() == ()


@pytest.mark.parametrize(
    ("group", "name", "value", "reason"),
    [
        ("wgtorch.templates", "graph/mine", "nowhere.typo:build", "ModuleNotFoundError: No module named 'nowhere'"),
        ("wgtorch.templates", "graph/mine", "good_plugin:missing", "AttributeError: module 'good_plugin' has no attribute 'missing'"),
        ("wgtorch.templates", "graph/mine", "good_plugin:number", "TypeError: leads to int 5; expected a function that builds a level"),
        ("wgtorch.templates", "mine", "good_plugin:plain", "TypeError: has no level in its name; expected a function that builds a level"),
        ("wgtorch.templates", "graph/text_to_image", "good_plugin:plain", "the name is wgtorch's own; choose another one"),
        ("wgtorch.blocks", "mine/it", "bad_plugin:It", "ZeroDivisionError: division by zero"),
        ("wgtorch.blocks", "mine/it", "good_plugin:number", "TypeError: leads to int 5; expected a class derived from wgtorch.Block"),
        ("wgtorch.blocks", "mine/it", "good_plugin:Two", "ValueError: the class is registered as 'good/two'; give the entry point that"),
        ("wgtorch.blocks", "mine", "empty_plugin", "the module registers no block type when it is imported"),
        ("wgtorch.blocks", "mine", "bad_plugin", "ZeroDivisionError"),
        ("wgtorch.blocks", "mine/it", "script_plugin:It", "SystemExit: 3"),
        ("wgtorch.templates", "graph/mine", "script_plugin:build", "SystemExit: 3"),
        ("wgtorch.blocks", "mine", "greedy_plugin", "block type 'solver/euler' is wgtorch's own; choose another name for greedy_plugin.It"),
    ],
    ids=lambda value: value.replace("/", "-") if len(value) < 30 else "reason",
)
def test_a_wrong_plugin_is_named_with_its_fault_and_harms_no_other(
    plugins: Callable[..., None], group: str, name: str, value: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    greedy = (
        "from wgtorch.core.block import Block, register_block\n@register_block('solver/euler')\nclass It(Block): outputs = {'y': 'any'}\n"
    )
    plugins({"wgtorch.blocks": {"good/loose": "good_plugin:Loose"}}, good_plugin=GOOD)
    plugins({group: {name: value}}, bad_plugin="1 / 0", empty_plugin="", script_plugin="raise SystemExit(3)", greedy_plugin=greedy)
    registry = BlockRegistry if group == "wgtorch.blocks" else TemplateRegistry
    command = ["blocks" if registry is BlockRegistry else "templates"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "not loaded: " in said.err and f"{name!r} of plugin_1 ({value}): {reason}" in said.err
    assert ("solver/euler: " if registry is BlockRegistry else "world/default: ") in said.out
    assert len(said.err.splitlines()) == 1
    assert main([*command, "noise/gaussian" if registry is BlockRegistry else "world/default"]) == 0
    assert capsys.readouterr().err == said.err  # who asks for one name is told as well
    assert "good/loose" in BlockRegistry.names()
    if not TemplateRegistry._provided().get(name):
        assert name not in registry.names()
        with pytest.raises(WgtorchError, match=re.escape(reason.split(":")[0])):
            registry.get(name)
    assert BlockRegistry.get("solver/euler").__module__.startswith("wgtorch.")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("good_plugin:Twoo", "AttributeError: module 'good_plugin' has no attribute 'Twoo'"),
        ("good_plugin:Three", "ValueError: the class is registered as 'good/three'"),
    ],
)
def test_a_wrong_attribute_is_named_though_the_module_registers_the_name(plugins: Callable[..., None], value: str, reason: str) -> None:
    plugins({"wgtorch.blocks": {"good/three": "good_plugin:Three", "good/two": value}}, good_plugin=GOOD)
    (fault,) = BlockRegistry.faults()
    assert f"'good/two' of plugin_0 ({value}): {reason}" in str(fault)
    assert "good/three" in BlockRegistry.names()


def test_a_wrong_template_harms_no_command(plugins: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    plugins({"wgtorch.templates": {"mine": "good_plugin:plain"}}, good_plugin=GOOD)
    assert main(["validate", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_wrong_evaluators_stand_in_the_table_and_harm_no_other(
    plugins: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "def fails(past):\n    return {'x': past.episodes[0].state.artifacts['no']}\ndef fine(past):\n    return {'x': 1}\n"
    points = {"mine": "evaluators_plugin:fails", "typo": "evaluators_plugin:nope", "fine": "evaluators_plugin:fine"}
    plugins({"wgtorch.evaluators": points}, evaluators_plugin=code)
    world = World.from_template("default", steps=1)
    world.set_storage({"state_dir": str(tmp_path / "states")})
    world.run(num_steps=2, seed=1)
    found = evaluate(world)
    assert found["fine"] == {"x": 1} and found["cost"]
    said = "TypeError: list indices must be integers or slices, not str; in the evaluator 'mine' of plugin_0"
    assert found.measures["mine"].reason == said
    assert "has no attribute 'nope'" in str(found.measures["typo"].reason)
    asked = evaluate(world, ["mine", "fine"])  # who asks for it by name is given its row, the traceback and the others' too
    assert asked["fine"] == {"x": 1} and [measure.name for measure in asked.failed] == ["mine"]
    assert isinstance(asked.failed[0].error, TypeError) and asked.failed[0].error.__traceback__ is not None
    assert main(["evaluate", str(tmp_path / "states"), "--only", "fine"]) == 0
    said_of_typo = capsys.readouterr()
    assert "typo" not in said_of_typo.out and "not loaded: evaluator 'typo' of plugin_0" in said_of_typo.err
