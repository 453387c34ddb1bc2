"""Numbers that blocks are built from: NaN, infinity, True, texts and tensors of one element are none."""

from __future__ import annotations

import inspect
import math
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
import torch

from wgtorch.blocks.diffusion.guidance import ClassifierFreeGuidance
from wgtorch.core.block import Block, BlockRegistry
from wgtorch.core.config.yaml_text import parse_yaml, write_yaml
from wgtorch.core.errors import ConfigError
from wgtorch.core.signature import _number_arguments, ensure_plain
from wgtorch.graph import Graph
from wgtorch.integrations.api.terms import budget_of

WRONG = [None, math.nan, math.inf, -math.inf, True, "7", torch.tensor(7.0), np.float32(7), [7.0]]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__ + str(value)[:4])
def test_a_scale_is_one_finite_number(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"ClassifierFreeGuidance\.scale"):
        ClassifierFreeGuidance(scale=value)


def test_every_number_of_every_block_is_looked_at() -> None:
    """All blocks of this package, without a list of them: NaN in place of each argument that is annotated as a number."""
    taken, named, others = [], 0, []
    for name in BlockRegistry.names():
        block_class = BlockRegistry.get(name)
        for argument, kind, _ in _number_arguments(block_class.__init__) if block_class.__module__.startswith("wgtorch.") else ():
            try:
                block_class(**{argument: [math.nan] if kind == "several" else math.nan, **_others(block_class, argument)})
            except Exception as error:
                is_named = isinstance(error, ValueError) and argument in str(error) and "nan" in str(error)
                named += is_named
                others += [] if is_named else [f"{name}.{argument}: {error}"]  # something else that has to be given was looked at first
            else:
                taken.append(f"{name}.{argument}")
    assert not taken
    assert named >= 200 and len(others) < 40, others


def _others(block_class: type[Block], argument: str) -> dict[str, Any]:
    """Something for the arguments that have to be given; nothing looks at them before the numbers were."""
    parameters = inspect.signature(block_class.__init__).parameters.values()
    needed = [each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD]
    return {name: 1 for name in needed if name not in ("self", argument)}


def test_a_file_with_such_a_number_says_where() -> None:
    graph = Graph("g")
    graph.add_node("guidance/cfg", "guide", config={"scale": 3.0})
    text = write_yaml(graph.to_config()).replace("3.0", ".nan")
    assert text.count(".nan") == 1
    with pytest.raises(ConfigError, match=r"guidance/cfg|ClassifierFreeGuidance\.scale"):
        Graph.from_config(parse_yaml(text))


def test_numbers_of_numpy_and_members_of_enumerations_are_written_as_what_they_are() -> None:
    class Word(StrEnum):
        SEA = "sea"

    graph = Graph("g")
    graph.add_node(ClassifierFreeGuidance(scale=np.float64(2.5)), "guide")
    again = parse_yaml(write_yaml(graph.to_config()))
    assert again["nodes"][0]["config"]["scale"] == 2.5
    assert type(ensure_plain(Word.SEA, "it")) is str and ensure_plain(Word.SEA, "it") == "sea"


def test_blocks_of_others_say_themselves_what_they_take() -> None:
    class Fill(Block):
        outputs = {"y": "any"}

        def __init__(self, value: float = 0.0) -> None:
            super().__init__()
            self.value = value

    assert math.isnan(Fill(math.nan).value)


def test_a_budget_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"llm\.budget\.money: found nan, expected a number from 0"):
        budget_of({"money": math.nan}, "llm")
