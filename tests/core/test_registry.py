"""Registries: names, nearest names, pip lines, entry points, lazy providers."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

import tests.blocks_for_tests as blocks
from wgtorch.core import registry as registry_module
from wgtorch.core.block import Block, BlockRegistry, register_block
from wgtorch.core.errors import ConfigError, StructureError, UnknownNameError
from wgtorch.core.registry import Registry


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


def test_a_provider_is_called_when_its_name_is_first_asked_for() -> None:
    registry: Registry[int] = Registry("number")
    calls = []

    def load() -> None:
        calls.append("load")
        registry.register("one", 1)

    registry.provide(load, "one", "two")
    assert registry.names() == ["one", "two"]
    assert "one" in registry
    assert calls == []
    assert registry.get("one") == 1
    assert registry.get("one") == 1
    assert calls == ["load"]


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
