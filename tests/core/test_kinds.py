"""Kinds: what they accept, how they normalise, what annotations stand for."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import pytest
import torch
from PIL import Image
from torch import Tensor

from wgtorch.core.errors import PortTypeError, UnknownNameError
from wgtorch.core.kinds import Kind, describe, get_kind, kind_of_annotation, kinds, mismatch, register_kind
from wgtorch.core.port import Port
from wgtorch.core.run.events import Event


def test_the_kinds_of_the_specification_are_there() -> None:
    wanted = {"tensor", "text", "tokens", "image", "video", "audio", "latent", "embedding", "dict", "any"}
    assert wanted <= set(kinds())


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (Tensor, "tensor"),
        (Tensor | None, "tensor"),
        (Optional[str], "text"),  # noqa: UP045
        (str | list[str], "text"),
        (int, "number"),
        (float, "number"),
        (dict[str, int], "dict"),
        (list[Tensor], "list"),
        (tuple[int, ...], "list"),
        (Sequence[int], "list"),
        (bytes, "any"),
        (bytearray | None, "any"),
        (range, "any"),
        (deque[int], "any"),
        (Annotated[Tensor, "image"], "image"),
        (Annotated[Tensor | None, "latent"], "latent"),
        ("embedding", "embedding"),
        (Tensor | str, "any"),
        (Any, "any"),
        (object, "any"),
    ],
)
def test_annotations(annotation: Any, kind: str) -> None:
    assert kind_of_annotation(annotation) == kind


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("text", ["a", ["a", "b"]], [3, ["a", 3], torch.zeros(1)]),
        ("tensor", [torch.zeros(2)], ["a", [1.0]]),
        ("tokens", [torch.tensor([[1, 2]])], [torch.zeros(1, 2), "a"]),
        ("image", [torch.zeros(3, 4, 4), torch.zeros(1, 3, 4, 4), Image.new("RGB", (2, 2))], [torch.zeros(4), "no_such_file.png", []]),
        ("number", [1, 2.5, torch.tensor(3)], ["1", [1]]),
        ("dict", [{}, {"a": 1}], [[("a", 1)]]),
        ("list", [[], (1, 2)], ["ab", {1}]),
        ("any", [None, object()], []),
    ],
)
def test_what_kinds_accept(kind: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert get_kind(kind).accepts(value), value
    for value in bad:
        assert not get_kind(kind).accepts(value), value


def test_pictures_are_normalised_to_a_float_tensor(tmp_path: Path) -> None:
    picture = Image.new("RGB", (3, 2), (255, 0, 51))
    picture.save(tmp_path / "p.png")
    expected = torch.tensor([1.0, 0.0, 0.2]).view(3, 1, 1).expand(3, 2, 3)
    port = Port(dtype="image")
    for form in (picture, str(tmp_path / "p.png"), tmp_path / "p.png", (expected * 255).round().to(torch.uint8)):
        torch.testing.assert_close(port.check(form, "x"), expected)
    gray = port.check(Image.new("L", (3, 2), 255), "x")
    torch.testing.assert_close(gray, torch.ones(3, 2, 3))


def test_a_float_image_passes_by_reference() -> None:
    image = torch.rand(3, 4, 4)
    assert Port(dtype="image").check(image, "x") is image


def test_a_list_of_pictures_stays_a_list() -> None:
    pair = Port(dtype="image").check([Image.new("RGB", (2, 2)), torch.zeros(3, 2, 2)], "x")
    assert isinstance(pair, list)
    assert [tuple(item.shape) for item in pair] == [(3, 2, 2), (3, 2, 2)]


def test_a_user_adds_a_kind() -> None:
    even = register_kind(
        Kind("test-even", lambda value: isinstance(value, int) and value % 2 == 0, "an even int", lambda value: value // 2)
    )
    assert Port(dtype="test-even").check(6, "x") == 3
    with pytest.raises(PortTypeError, match=r"x: got int 5; expected an even int \(kind 'test-even'\)"):
        Port(dtype="test-even").check(5, "x")
    assert mismatch("test-even", "text") is not None
    assert mismatch("test-even", "any") is None
    assert register_kind(even) is even
    with pytest.raises(PortTypeError, match="already registered with another meaning"):
        register_kind(Kind("test-even", lambda value: True, "something else"))


TENSORS = {"tensor", "tokens", "image", "video", "audio", "latent", "embedding"}
OTHERS = {"text", "number", "dict", "list"}


@pytest.mark.parametrize("source", sorted({"any"} | TENSORS | OTHERS))
def test_what_feeds_what(source: str) -> None:
    fed = {target for target in {"any"} | TENSORS | OTHERS if mismatch(source, target) is None}
    if source == "any":
        assert fed == {"any"} | TENSORS | OTHERS
    elif source == "tensor":  # may hold any tensor, one number among them
        assert fed == {"any", "number"} | TENSORS
    elif source in TENSORS:
        assert fed == {"any", "tensor", source}
    else:
        assert fed == {"any", source}


def test_why_one_does_not_feed_the_other() -> None:
    assert mismatch("image", "number") == "'image' does not feed 'number'"
    with pytest.raises(UnknownNameError, match="unknown kind of value 'imgae'; did you mean 'image'"):
        mismatch("text", "imgae")


def test_describe_never_shows_a_long_value_whole() -> None:
    assert describe(torch.zeros(2, 3)) == "Tensor[2, 3] float32"
    assert describe([torch.zeros(1), 2]) == "list of 2 (Tensor[1] float32, ...)"
    assert describe({"b": 1, "a": 2}) == "dict with keys ['a', 'b']"
    assert len(describe("x" * 1000)) < 80


def test_what_a_run_tells_shows_itself_in_a_line() -> None:
    from wgtorch.world import World

    steps = list(World.from_template("default", steps=1, larger=False).stream(num_steps=2, seed=1, events=True))
    longest = max(map(repr, steps), key=len)
    assert len(longest) < 1500 and "\n" not in longest
    assert repr(Event("end", "codec", "block", inputs={"latent": torch.zeros(1, 3, 4, 4)}, outputs={"x": 1})) == (
        "Event(kind='end', path='codec', level='block', inputs={latent: Tensor[1, 3, 4, 4] float32}, outputs={x: int 1})"
    )


def test_none_at_a_port_without_a_default_is_refused_with_the_way_to_take_it() -> None:
    with pytest.raises(
        PortTypeError, match=r"got NoneType None; expected a torch\.Tensor .*has a default: \(\.\.\., x: Tensor \| None = None\)"
    ):
        Port("x", dtype="tensor").check(None, "x")
    assert Port("x", dtype="tensor", optional=True).check(None, "x") is None
