"""Tensors as bytes: 8 bits a value where that is all they hold, and never another bit when they are read."""

import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world_blocks import tiny_world
from wgtorch.core.errors import StorageError
from wgtorch.storage import DirectoryStorage
from wgtorch.storage.tensor_blobs import blob_of, tensor_of

DTYPES = ("float32", "float64", "float16", "bfloat16", "uint8", "int64", "bool")
PICTURE = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def again(tensor):
    return tensor_of(b"".join(blob_of(tensor)), "here")


def size(tensor):
    return sum(memoryview(part).nbytes for part in blob_of(tensor))


@pytest.mark.parametrize("tensor", [PICTURE, PICTURE / 255, (PICTURE / 255)[..., ::2].mT], ids=["bytes", "picture", "strided"])
def test_what_holds_8_bits_takes_8_bits(tensor):
    found = again(tensor)
    assert found.dtype == tensor.dtype and torch.equal(found, tensor) and found.is_contiguous()
    assert size(tensor) < tensor.numel() + 1000


def test_drawn_pictures_are_packed():
    drawn = (PICTURE[..., :8, :8] / 255).repeat_interleave(8, -1).repeat_interleave(8, -2)
    assert size(drawn) < drawn.numel() / 5 and torch.equal(again(drawn), drawn)


@pytest.mark.parametrize("wrong", [1e-7, 2.0, -1.0, float("nan"), float("inf"), -0.0], ids=str)
@pytest.mark.parametrize("at", [0, 4097, 12287])
def test_one_value_that_is_no_level_leaves_a_tensor_as_it_is(wrong, at):
    tensor = (PICTURE / 255).flatten().clone()
    tensor[at] = wrong
    found = again(tensor)
    assert torch.equal(found.view(torch.int32), tensor.view(torch.int32)), "bit for bit"
    assert size(tensor) > 4 * tensor.numel()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(DTYPES), st.integers(0, 9000), st.integers(0, 2**30))
def test_every_tensor_is_what_it_was(dtype, count, seed):
    choose = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 256, (count,), generator=choose, dtype=torch.uint8)
    tensor = (raw / 255).to(getattr(torch, dtype)) if seed % 2 else raw.to(getattr(torch, dtype))
    found = again(tensor)
    assert found.dtype == tensor.dtype and found.shape == tensor.shape and torch.equal(found, tensor)


def test_damage_and_bombs_are_named():
    raw = b"".join(blob_of(PICTURE / 255))
    start = raw.index(zlib.compress(bytes(PICTURE.numpy().tobytes()), 0))
    for damaged in (raw[:20], raw[:-9], raw[:start] + zlib.compress(bytes(100 << 20)), raw + b"more", raw.replace(b'"U8"', b'"I8"')):
        with pytest.raises(StorageError, match="here: no tensor"):
            tensor_of(damaged, "here")


def test_a_world_of_pictures_is_small_and_read_as_it_was(tmp_path):
    world = tiny_world()
    world.set_storage({"state_dir": tmp_path})
    picture = (PICTURE / 255).repeat_interleave(2, -1)
    world.content = {**world.content, "picture": picture, "numbers": picture * 0.7}
    world.run(num_steps=2, seed=1)
    content = DirectoryStorage(tmp_path).read_life().content
    assert torch.equal(content["picture"], picture) and torch.equal(content["numbers"], picture * 0.7)
    assert DirectoryStorage(tmp_path).size() < 6 * picture.numel() + 20_000, "once, whatever stages follow: one byte, and four"
