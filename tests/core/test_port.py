"""Ports: kinds, shapes and the reasons they give."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from wgtorch.core.errors import PortError, PortTypeError, UnknownNameError
from wgtorch.core.port import MISSING, Port, make_spec


def test_a_port_gives_a_reason_and_not_a_bool() -> None:
    assert Port(dtype="text").why_not(Port(dtype="text")) is None
    reason = Port("image", dtype="image").why_not(Port("words", dtype="text"))
    assert reason == "'text' does not feed 'image'"


@pytest.mark.parametrize("other", ["tensor", "text", "image", "dict", "list", "tokens"])
def test_any_matches_everything_both_ways(other: str) -> None:
    assert Port(dtype="any").why_not(Port(dtype=other)) is None
    assert Port(dtype=other).why_not(Port(dtype="any")) is None


@pytest.mark.parametrize("special", ["image", "latent", "embedding", "tokens", "video", "audio"])
def test_tensor_is_the_general_form_of_every_kind_in_a_tensor(special: str) -> None:
    assert Port(dtype="tensor").why_not(Port(dtype=special)) is None
    assert Port(dtype=special).why_not(Port(dtype="tensor")) is None


def test_two_special_tensor_kinds_do_not_match() -> None:
    assert Port(dtype="latent").why_not(Port(dtype="embedding")) is not None


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown kind of value 'txet'; did you mean 'text'"):
        Port(dtype="txet")


def test_an_unknown_aggregation_names_those_there_are() -> None:
    with pytest.raises(PortError, match=r"'x': unknown aggregation 'mean'; one of \('single', 'concat', 'sum', 'first', 'dict', 'list'\)"):
        Port("x", aggregation="mean")  # type: ignore[arg-type]


def test_a_default_makes_a_port_optional() -> None:
    assert Port(dtype="number", default=3).optional
    assert not Port(dtype="number").optional


def test_check_names_place_value_and_kind() -> None:
    with pytest.raises(PortTypeError) as caught:
        Port(dtype="text").check(torch.zeros(2, 3), "graph/a.words")
    assert str(caught.value) == "graph/a.words: got Tensor[2, 3] float32; expected a str or a list of str (kind 'text')"
    assert isinstance(caught.value, (TypeError, ValueError))


def test_check_looks_at_every_item_of_what_is_gathered() -> None:
    ones = [torch.ones(1), torch.ones(1)]
    checked = Port(dtype="tensor", aggregation="list").check(ones, "g/a.xs")
    assert [a is b for a, b in zip(checked, ones, strict=True)] == [True, True]
    with pytest.raises(PortTypeError, match=r"^g/a.xs.1: got str 'b'; expected a torch.Tensor"):
        Port(dtype="tensor", aggregation="list").check([torch.ones(1), "b"], "g/a.xs")
    assert Port(dtype="number", aggregation="dict").check({"a": 1, "b": 2}, "g/a.xs") == {"a": 1, "b": 2}
    with pytest.raises(PortTypeError, match=r"^g/a.xs.b: got str '2'; expected"):
        Port(dtype="number", aggregation="dict").check({"a": 1, "b": "2"}, "g/a.xs")


def test_an_optional_port_takes_none_and_a_required_one_does_not() -> None:
    assert Port(dtype="tensor", optional=True).check(None, "x") is None
    with pytest.raises(PortTypeError, match="expected a torch.Tensor"):
        Port(dtype="tensor").check(None, "x")


@pytest.mark.parametrize(
    ("pattern", "shape", "fits"),
    [
        ((None, 3), (7, 3), True),
        ((None, 3), (7, 4), False),
        (("n", "n"), (5, 5), True),
        (("n", "n"), (5, 6), False),
        ((None,), (1, 1), False),
        ((), (), True),
    ],
)
def test_shape_patterns(pattern: tuple, shape: tuple[int, ...], fits: bool) -> None:
    port = Port(dtype="tensor", shape=pattern)
    if fits:
        port.check(torch.zeros(shape), "x")
    else:
        with pytest.raises(PortTypeError, match="got shape"):
            port.check(torch.zeros(shape), "x")


def test_a_spec_takes_kinds_and_ports_and_refuses_the_rest() -> None:
    spec = make_spec({"a": "text", "b": Port(dtype="image", optional=True)}, "out")
    assert [(port.name, port.direction, port.dtype, port.optional) for port in spec.values()] == [
        ("a", "out", "text", False),
        ("b", "out", "image", True),
    ]
    with pytest.raises(PortError, match=r"port 'c': declared as int 3; expected the name of a kind or a Port"):
        make_spec({"c": 3}, "in")  # type: ignore[dict-item]


def test_absent_stays_itself_when_copied() -> None:
    assert copy.deepcopy(MISSING) is MISSING
    assert copy.copy(MISSING) is MISSING
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING
    assert not MISSING
