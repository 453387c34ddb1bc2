"""What a place may say of adapters, and what of it concerns which block."""

from __future__ import annotations

import math
from typing import Any

import pytest

from wgtorch.core.errors import StructureError
from wgtorch.lora.selection import PerSample, as_active, canonical, names_of, restricted


@pytest.mark.parametrize(
    ("written", "plain", "names", "active"),
    [
        (None, None, (), None),
        ("", None, (), None),
        ({}, None, (), None),
        ("one", "one", ("one",), (("one", 1.0),)),
        ({"one": 2, "two": -0.5}, {"one": 2.0, "two": -0.5}, ("one", "two"), (("one", 2.0), ("two", -0.5))),
        (["one", None, "two", "one"], ("one", None, "two", "one"), ("one", "two"), PerSample(("one", None, "two", "one"))),
        ([None], (None,), (), PerSample((None,))),
    ],
)
def test_each_form(written: Any, plain: Any, names: tuple[str, ...], active: Any) -> None:
    found = canonical(written, "g/n0")
    assert found == plain and type(found) is type(plain) and canonical(found, "g/n0") == found
    assert names_of(found) == names and as_active(found) == active
    if isinstance(found, dict):
        assert all(type(weight) is float for weight in found.values())


@pytest.mark.parametrize("weight", [True, False, math.inf, -math.inf, math.nan, "1", None, 1j])
def test_a_weight_is_a_finite_number(weight: Any) -> None:
    with pytest.raises(StructureError, match=r"g/n0: adapter 'one': .*; expected a name and a finite number, its weight"):
        canonical({"two": 1.0, "one": weight}, "g/n0")


@pytest.mark.parametrize("written", [{1: 1.0}, {None: 1.0}])
def test_a_weight_has_a_name(written: Any) -> None:
    with pytest.raises(StructureError, match="expected a name and a finite number"):
        canonical(written, "g/n0")


@pytest.mark.parametrize("written", [[], (), [1], ["one", 1], ["one", ["two"]], 3, 1.5, True, {"one"}, object()])
def test_anything_else_is_an_error(written: Any) -> None:
    with pytest.raises(StructureError, match=r"g/n0: adapter is .*; expected a name, \{name: weight\}, a list with a name or None"):
        canonical(written, "g/n0")


@pytest.mark.parametrize(
    ("adapter", "part"),
    [
        (None, None),
        ("one", "one"),
        ("three", None),
        ({"one": 0.5, "three": 2.0}, {"one": 0.5}),
        ({"three": 2.0}, None),
        (("one", "three", None, "two"), ("one", None, None, "two")),
        (("three", None), None),
    ],
)
def test_what_of_it_concerns_a_block(adapter: Any, part: Any) -> None:
    assert restricted(adapter, {"one", "two"}) == part
