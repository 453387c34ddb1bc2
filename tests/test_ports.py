"""The ports of all registered blocks: described once, without contradiction, and read."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import defaultdict
from functools import cache
from typing import Any

import pytest

from tests.world_blocks import Look  # noqa: F401 - registers blocks that are not the package's
from wgtorch import ports
from wgtorch.blocks.diffusion.noise import GaussianNoise
from wgtorch.blocks.prompt import Prompt
from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import PluginError
from wgtorch.core.port import Port
from wgtorch.integrations.models.llm import LLM


@cache
def registered() -> dict[str, type[Any]]:
    """The package's block classes that load here; others lack an extra."""
    found = {}
    for name in BlockRegistry.names():
        try:
            block_class = BlockRegistry.get(name)
        except PluginError:
            continue
        if block_class.__module__.startswith("wgtorch."):
            found[name] = block_class
    return found


def all_ports() -> list[tuple[str, str, Port]]:
    """(block, in or out, port)."""
    return [(name, port.direction, port) for name, each in registered().items() for spec in each.class_ports() for port in spec.values()]


def test_every_port_of_every_block_is_described() -> None:
    found = all_ports()
    assert len(registered()) > 120 and len(found) > 700, "few blocks load"
    assert [f"{name}: {direction} {port.name}" for name, direction, port in found if not port.description] == []


@pytest.mark.parametrize("name", ["backbone/scene", "llm", "memory", "solver/euler", "diffusers/guided_condition"])
def test_help_shows_what_the_ports_are(name: str) -> None:
    block_class = registered().get(name) or pytest.skip(f"{name} does not load here")
    text = inspect.getdoc(block_class) or ""
    for spec in block_class.class_ports():
        for port in spec.values():
            assert f"{port.direction:<4}{port.name} ({port.dtype}" in text and f": {port.description}" in text


def test_ports_that_an_instance_makes_are_described_too() -> None:
    prompt = Prompt(prompt="{{ intent }}{% if action %} {{ action }}{% endif %}", optional=["action"]).get_input_spec()
    assert prompt["action"].optional and prompt["action"].description == "put in place of {{ action }}"
    noise = GaussianNoise(shape=[4, 8, 8], schedule={"kind": "flow", "num_steps": 2}).get_output_spec()
    assert list(noise) == ["latent", "timestep", "progress"] and all(port.description for port in noise.values())
    of_an_api = LLM(provider="openai", model_id="m", api_key_env="PATH")
    ports = [*of_an_api.get_input_spec().values(), *of_an_api.get_output_spec().values()]
    assert len(ports) == 14 and all(port.description for port in ports)


def test_inputs_of_one_name_and_kind_have_shapes_that_go_together() -> None:
    shapes = defaultdict(set)
    for _, direction, port in all_ports():
        if direction == "in" and port.shape is not None:
            shapes[port.name, port.dtype, len(port.shape)].add(port.shape)
    clashes = [
        (key, patterns)
        for key, patterns in shapes.items()
        if any(len({size for size in column if isinstance(size, int)}) > 1 for column in zip(*patterns, strict=True))
    ]
    assert clashes == []
    assert len(shapes) > 10


def test_an_input_that_forward_does_not_read_says_so() -> None:
    unread = []
    for name, block_class in registered().items():
        function = ast.parse(textwrap.dedent(inspect.getsource(block_class.forward))).body[0]
        assert isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        if function.args.kwarg is None:
            used = {node.id for line in function.body for node in ast.walk(line) if isinstance(node, ast.Name)}
            inputs = block_class.class_ports()[0].values()
            unread += [f"{name}: {port.name}" for port in inputs if port.name not in used and "not read" not in port.description]
    assert unread == []


def test_a_shared_port_is_used_by_several_blocks() -> None:
    shared = {id(port): name for name, port in vars(ports).items() if isinstance(port, Port)}
    used: dict[str, int] = defaultdict(int)
    for block_class in {base for each in registered().values() for base in each.__mro__ if "forward" in dir(base)}:
        for which in ("inputs", "outputs"):
            declared = vars(block_class).get(which, {})
            for port in declared.values() if isinstance(declared, dict) else ():
                used[shared.get(id(port), "")] += 1
    assert [name for name in shared.values() if used[name] < 2] == []


def test_codecs_of_videos_give_no_pictures() -> None:
    codecs = {name: set(each.class_ports()[1]) for name, each in registered().items() if name.startswith("codec/autoencoder_kl_")}
    decoders = {name for name in codecs if name.endswith(("cogvideox", "hunyuan_video", "ltx_video"))}
    if not decoders:
        pytest.skip("no codec of diffusers loads here")
    assert {name for name in decoders if codecs[name] != {"video"}} == set()
