"""Bodies: what goes in comes out, tensors are not copied, and nothing hostile is more than a refusal."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load

from tests.storage.test_encoding import VALUES
from tests.world_blocks import assert_same
from wgtorch.core.errors import PortError, RequestError
from wgtorch.serving.wire import body, frame, frames, pack, unpack, unpack_json

MESSAGE = {"inputs": {"x": torch.arange(6.0).view(2, 3), "ids": torch.arange(3)}, "seed": 7}


@given(st.dictionaries(st.text(min_size=1, max_size=3).filter(lambda key: key not in ("format",)), VALUES, max_size=3))
def test_whatever_is_sent_arrives(values):
    sent = {"inputs": values}
    assert_same(unpack(bytearray(body(sent)), "request"), sent)


def test_a_body_is_a_plain_safetensors_file_with_little_beside_the_tensors():
    sent = {"inputs": {"x": torch.randn(1000, 100)}}
    raw = body(sent)
    assert set(load(raw)) == {"inputs.x", "__wgtorch__"}
    torch.testing.assert_close(load(raw)["inputs.x"], sent["inputs"]["x"], rtol=0, atol=0)
    assert len(raw) - 400_000 < 512


def test_tensors_are_sent_from_where_they_lie_and_read_where_they_arrive():
    x = torch.randn(64, 64)
    parts, length = pack({"x": x})
    assert sum(len(part) for part in parts) == length
    sent = next(part for part in parts if isinstance(part, memoryview) and part.nbytes == x.nbytes)
    x[0, 0] = 5.0
    assert sent[:4].tobytes() == torch.tensor([5.0]).numpy().tobytes(), "the part is the tensor's own memory"
    buffer = bytearray(body({"x": x}))
    found = unpack(buffer, "request")["x"]
    found.zero_()
    assert unpack(buffer, "request")["x"].abs().sum() == 0, "the tensor is the buffer's own memory"


@pytest.mark.parametrize("value", [object(), torch.zeros(2, device="meta"), torch.eye(2).to_sparse(), {1: "x"}])
def test_what_cannot_travel_is_named(value):
    with pytest.raises(PortError, match=r"inputs\.a\.0"):
        body({"inputs": {"a": [value]}})


def test_a_body_cut_anywhere_is_refused():
    raw = body(MESSAGE)
    for end in range(len(raw)):
        with pytest.raises(RequestError, match="cannot be read"):
            unpack(bytearray(raw[:end]), "request")


@given(st.data())
def test_a_damaged_body_is_refused_or_means_something_else_and_does_nothing_worse(data):
    raw = bytearray(body(MESSAGE))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    refusal = None
    try:
        assert isinstance(unpack(raw, "request"), dict)
    except RequestError as error:
        refusal = error
    assert refusal is None or (refusal.status == 400 and refusal.findings[0].where.startswith("request"))


def safetensors(header: object, data: bytes = b"") -> bytearray:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return bytearray(len(raw).to_bytes(8, "little") + raw + data)


def with_text(text: bytes) -> bytearray:
    return safetensors({"__wgtorch__": {"dtype": "U8", "shape": [len(text)], "data_offsets": [0, len(text)]}}, text)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (bytearray(), "0 bytes"),
        (bytearray((2**62).to_bytes(8, "little") + b"{}"), "announces a header of 4611686018427387904 bytes"),
        (bytearray(b"\x80\x04\x95" + b"x" * 60), "pickle or zip written by torch.save"),
        (safetensors({}), "no entry '__wgtorch__'"),
        (safetensors({"__wgtorch__": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"), "no entry '__wgtorch__'"),
        (with_text(b"[1]"), "expected a mapping"),
        (with_text(b"{}"), "another format"),
        (with_text(b'{"format": 2}'), "another format"),
        (with_text(b'{"format": 1, "x": NaN}'), "NaN is no JSON"),
        (with_text(b'{"format": 1, "x": \xff}'), "damaged"),
        (with_text(b'{"format": 1, "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"), "nested too deep"),
        (with_text(b'{"format": 1, "x": {"$tensor": "gone"}}'), "'gone' is missing"),
        (with_text(b'{"format": 1, "x": {"$tensor": [1]}}'), "damaged"),
        (with_text(b'{"format": 1, "x": {"$tuple": 3}}'), "damaged"),
        (with_text(b'{"format": 1, "x": {"$number": "__import__"}}'), "damaged"),
    ],
)
def test_hostile_bodies(raw, words):
    with pytest.raises(RequestError, match="cannot be read") as raised:
        unpack(raw, "request")
    assert words in str(raised.value)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"NaN", b"\xff", b"[" * 100_000, b'{"x": {"$tensor": "t"}}'])
def test_hostile_json(text):
    with pytest.raises(RequestError):
        unpack_json(text, "request")


@given(st.lists(st.integers(0, 400), min_size=1, max_size=4), st.integers(1, 300))
def test_a_stream_is_read_however_it_is_cut(sizes, cut):
    raw = b"".join(frame({"x": torch.arange(size), "n": size}) for size in sizes)
    chunks = [raw[start : start + cut] for start in range(0, len(raw), cut)]
    assert [entry["n"] for entry in frames(iter(chunks), "stream")] == sizes
    with pytest.raises(RequestError, match="ends in the middle"):
        list(frames(iter([raw[:-1]]), "stream"))
