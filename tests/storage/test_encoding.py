"""Values as JSON and tensors, and pictures as PNG."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from tests.world_blocks import assert_same
from wgtorch.core.errors import StorageError
from wgtorch.storage.encoding import decode, encode, images_in, write_png


def through_json(value):
    """What comes back after encoding, JSON text and decoding."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(encode(value, "slot", tensors), allow_nan=False)
    return decode(json.loads(text), tensors)


DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)


@st.composite
def small_tensors(draw) -> Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return (torch.rand(shape, generator=generator) * 100).to(draw(st.sampled_from(DTYPES)))


KEYS = st.text(max_size=3) | st.sampled_from(["$tensor", "$tuple", "$mapping", "$number", "a.b", "a", "b"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | small_tensors(),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
def test_whatever_can_be_stored_comes_back(value):
    assert_same(through_json(value), value)


def test_numbers_that_json_has_no_word_for():
    assert through_json([math.inf, -math.inf]) == [math.inf, -math.inf]
    assert math.isnan(through_json({"x": math.nan})["x"])
    assert_same(through_json({"$number": "1"}), {"$number": "1"})


def test_two_values_at_one_path_are_two():
    value = {"a.b": torch.zeros(2), "a": {"b": torch.ones(2)}}
    assert_same(through_json(value), value)


def test_tensors_lose_their_graph_and_their_shared_memory():
    base = torch.arange(6.0, requires_grad=True)
    tensors: dict[str, Tensor] = {}
    encode([base, base[1:3], base.view(2, 3).t()], "slot", tensors)
    assert [tensor.requires_grad for tensor in tensors.values()] == [False] * 3
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors.values()}) == 3
    assert [tensor.untyped_storage().nbytes() for tensor in tensors.values()] == [24, 8, 24]
    assert all(tensor.is_contiguous() for tensor in tensors.values())


class Thing:
    def __repr__(self) -> str:
        return "<a thing>"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Thing(), "slot: Thing <a thing> cannot be stored; expected text, numbers, tensors, and lists or mappings of these"),
        ([1, {"deep": (2, Thing())}], r"slot\.1\.deep\.1: Thing"),
        ({1: 2}, "slot: key 1 is int; expected str"),
        ({"x": {None: 2}}, r"slot\.x: key None is NoneType; expected str"),
        ({1, 2}, r"slot: set \{1, 2\} cannot be stored"),
        (b"bytes", "slot: bytes b'bytes' cannot be stored"),
        (1j, "slot: complex 1j cannot be stored"),
        (
            [torch.ones(2).to_sparse()],
            r"slot\.0: Tensor\[2\] float32, sparse_coo on cpu, cannot be stored; expected a dense tensor with data",
        ),
        ([torch.zeros(2, device="meta")], r"slot\.0: Tensor\[2\] float32, strided on meta, cannot be stored"),
        ({"x": torch.zeros(2, dtype=torch.complex128)}, r"slot\.x: Tensor\[2\] complex128, .*of a dtype that safetensors has"),
    ],
)
def test_what_cannot_be_stored_is_named_with_its_path(value, words):
    with pytest.raises(StorageError, match=words):
        encode(value, "slot", {})


def test_a_missing_tensor_is_an_error():
    with pytest.raises(StorageError, match=r"the tensor 'slot\.0' is missing"):
        decode([{"$tensor": "slot.0"}], {})


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_are_found_and_named_by_their_path():
    picture, batch = torch.rand(3, 4, 5), torch.rand(2, 3, 4, 4)
    value = {
        "first": [picture, "text", batch],
        "grey": (torch.rand(1, 4, 4),),
        "one": batch[:1],
        "levels": torch.zeros(3, 4, 4, dtype=torch.uint8),
    }
    found = dict(images_in(value, "artifacts"))
    assert list(found) == [
        "artifacts_first_0",
        "artifacts_first_2_0",
        "artifacts_first_2_1",
        "artifacts_grey_0",
        "artifacts_one",
        "artifacts_levels",
    ]
    assert found["artifacts_first_0"] is picture
    assert torch.equal(found["artifacts_first_2_1"], batch[1])


@pytest.mark.parametrize(
    "value",
    [
        torch.rand(4, 4, 3),
        torch.rand(3),
        torch.rand(3, 1, 1),
        torch.rand(2, 2, 3, 4, 4),
        torch.zeros(3, 4, 4, dtype=torch.int64),
        "text",
        None,
        3,
    ],
)
def test_what_is_no_picture(value):
    assert list(images_in(value, "artifacts")) == []


def test_names_are_safe_in_a_folder():
    value = {"../../up": torch.rand(3, 2, 2), "a/b\0c": torch.rand(3, 2, 2), "x" * 500: torch.rand(3, 2, 2)}
    names = [name for name, _ in images_in(value, "artifacts")]
    assert names[:2] == ["artifacts_______up", "artifacts_a_b_c"] and len(names[2]) == 100


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 4, 4)])
def test_a_png_holds_the_tensor(tmp_path, shape):
    levels = torch.randint(256, shape, generator=torch.Generator().manual_seed(0))
    write_png(levels / 255, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        assert image.size == (shape[2], shape[1]) and image.mode == "RGB"
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(shape[1], shape[2], 3).permute(2, 0, 1)
    assert torch.equal(pixels.long(), levels.expand(3, -1, -1))


def test_a_png_rounds_cuts_and_enlarges(tmp_path):
    picture = torch.tensor([[[-0.2, 0.309], [0.499, 1.7]]]).expand(3, 2, 2)
    write_png(picture.to(torch.float64), tmp_path / "picture.png", scale=3)
    with Image.open(tmp_path / "picture.png") as image:
        assert image.size == (6, 6)
        corners = [image.getpixel(at) for at in ((0, 0), (5, 0), (2, 5), (3, 3))]
    assert corners == [(0, 0, 0), (79, 79, 79), (127, 127, 127), (255, 255, 255)]
