"""The forms that requests and answers may have, settled before anything runs."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
import torch
from PIL import Image
from torch import Tensor

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

from tests.serving.blocks import graph_of
from tests.serving.calling import call, findings
from wgtorch.core.block import Block
from wgtorch.core.run import background
from wgtorch.serving.negotiation import EVENTS_TYPE, form_for
from wgtorch.serving.server import Limits, serving
from wgtorch.serving.streaming import Stream
from wgtorch.serving.wire import CONTENT_TYPE, body
from wgtorch.storage.media import wav_bytes, writes_mp4
from wgtorch.world import World

RUNS = []


class Media(Block):
    """One output of each kind that has a media type of its own."""

    inputs = {"text": "text", "picture": "image", "sound": "audio", "numbers": "tensor"}
    outputs = {"image": "image", "video": "video", "audio": "audio", "sampling_rate": "number", "heard": "tensor"}

    def forward(
        self, text: str = "", picture: Tensor | None = None, sound: Tensor | None = None, numbers: Tensor | None = None
    ) -> dict[str, Any]:
        RUNS.append(text)
        image = torch.full((2, 3, 4, 4), 0.5) if picture is None else picture
        heard = torch.zeros(1) if sound is None else sound
        heard = heard if numbers is None else numbers
        audio = torch.zeros(1, 1, 8)
        return {"image": image, "video": torch.zeros(1, 2, 3, 16, 16), "audio": audio, "sampling_rate": 8000, "heard": heard}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(graph_of(Media()), cors=["https://page.test"]) as address:
        yield address


def ask(
    url: str,
    path: str = "/run",
    data: bytes | None = b"{}",
    *,
    accept: str = "",
    kind: str = "application/json",
    method: str = "POST",
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request(method, path, body=data, headers={"Content-Type": kind, "Accept": accept, **headers})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


CONTRACT = {"outputs": {"image": {"dtype": "image"}, "audio": {"dtype": "audio"}}}


@pytest.mark.parametrize(
    ("accept", "media_type", "output"),
    [
        ("", CONTENT_TYPE, None),
        ("*/*", CONTENT_TYPE, None),
        ("application/json", "application/json", None),
        ("text/html, application/json;q=0.9", "application/json", None),
        ("application/json;q=0.2, image/png;q=0.8", "image/png", "image"),
        ("image/*", "image/png", "image"),
        ("video/mp4, audio/wav", "audio/wav", "audio"),
        ("text/event-stream", "text/event-stream", None),
    ],
)
def test_the_most_wanted_form_that_can_be_given_is_chosen(accept: str, media_type: str, output: str | None) -> None:
    form = form_for(accept, CONTRACT, {})
    assert (form.media_type, form.output) == (media_type, output)


@pytest.mark.parametrize("accept", ["text/html", "video/mp4", "application/json;q=0"])
def test_what_cannot_be_given_is_refused_before_anything_runs(url: str, accept: str) -> None:
    before = len(RUNS)
    status, _, content = ask(url, accept=accept, data=json.dumps({"outputs": ["image"]}).encode())
    assert (status, len(RUNS)) == (406, before)
    (entry,) = findings(json.loads(content))
    assert entry[0] == "Accept" and CONTENT_TYPE in entry[2] and "image/png" in entry[2]


def test_a_world_refuses_a_form_without_living_a_pass() -> None:
    world = World.from_template("default", steps=1, larger=False)
    with serving(world) as address:
        assert ask(address, accept="video/mp4", data=b'{"num_steps": 1}')[0] == 406
        assert world.life.passes == 0


def test_a_picture_a_sound_and_a_video_alone(url: str) -> None:
    status, headers, content = ask(url, accept="image/png")
    assert (status, headers["content-type"], headers["x-wgtorch-output"]) == (200, "image/png", "image")
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.size == (8, 4), "the rows of a batch side by side"
    status, headers, content = ask(url, accept="audio/wav")
    assert content == wav_bytes(torch.zeros(1, 8), 8000)
    form = "video/mp4" if writes_mp4() else "image/gif"
    status, headers, content = ask(url, accept=form)
    assert (status, headers["content-type"]) == (200, form) and len(content) > 100


def test_json_holds_tensors_both_ways(url: str) -> None:
    raw = base64.b64encode(torch.tensor([1.0, float("nan"), -2.0]).numpy().tobytes()).decode()
    sent = {"inputs": {"numbers": {"$tensor": {"dtype": "float32", "shape": [3], "data": raw}}}, "outputs": ["heard", "sampling_rate"]}
    status, _, content = ask(url, accept="application/json", data=json.dumps(sent).encode())
    assert (status, json.loads(content)) == (200, {"outputs": {"heard": sent["inputs"]["numbers"], "sampling_rate": 8000}})


@pytest.mark.parametrize(
    "wrong",
    [{"dtype": "float32", "shape": [2], "data": "AAAA"}, {"dtype": "float31", "shape": [1], "data": ""},
     {"dtype": "float32", "shape": [-1], "data": ""}, {"dtype": "float32", "shape": [1], "data": "not base64"}, {"shape": [1]}],
    ids=["short", "dtype", "shape", "base64", "missing"],
)  # fmt: skip
def test_a_tensor_that_is_none_is_refused(url: str, wrong: dict[str, Any]) -> None:
    status, _, content = ask(url, data=json.dumps({"inputs": {"numbers": {"$tensor": wrong}}}).encode())
    assert status == 400 and findings(json.loads(content))[0][0] == "request.inputs.numbers"


def form_of(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, str]:
    """A multipart body as a browser sends it, and its content type."""
    lines = b""
    for name, filename, content in parts:
        file = "" if filename is None else f'; filename="{filename}"\r\nContent-Type: application/octet-stream'
        lines += f'--edge\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
    return lines + b"--edge--\r\n", "multipart/form-data; boundary=edge"


def test_a_form_brings_files_and_fields(url: str) -> None:
    held = io.BytesIO()
    Image.new("RGB", (5, 7), (255, 0, 0)).save(held, "PNG")
    sound = wav_bytes(torch.full((1, 4), 0.5), 8000)
    data, kind = form_of(
        ("picture", "a.png", held.getvalue()), ("sound", "a.wav", sound), ("text", None, b"a hill"), ("outputs", None, b"image, heard")
    )
    status, _, content = ask(url, data=data, kind=kind, accept="application/json")
    outputs = json.loads(content)["outputs"]
    assert status == 200 and RUNS[-1] == "a hill"
    assert outputs["image"]["$tensor"]["shape"] == [3, 7, 5] and outputs["heard"]["$tensor"]["shape"] == [1, 4]


def test_a_form_that_does_not_fit_names_its_parts(url: str) -> None:
    data, kind = form_of(("picture", "a.png", b"no picture"), ("txet", None, b"x"))
    status, _, content = ask(url, data=data, kind=kind)
    assert status == 400 and [entry[0] for entry in findings(json.loads(content))] == ["request.picture", "request.txet"]
    status, _, content = ask(url, data=b"--edge\r\nbroken", kind=kind)
    assert status == 400


def test_server_sent_events_tell_of_nodes_and_end_with_the_result(url: str) -> None:
    status, headers, content = ask(url, accept="text/event-stream", data=json.dumps({"outputs": ["sampling_rate"]}).encode())
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    entries = [dict(row.split(": ", 1) for row in entry.split("\n")) for entry in content.decode().strip().split("\n\n")]
    assert {entry["event"] for entry in entries[:-1]} == {"event"}
    assert entries[-1]["event"] == "result"
    assert json.loads(entries[-1]["data"]) == {"outputs": {"sampling_rate": 8000}}
    assert any(json.loads(entry["data"])["kind"] == "end" for entry in entries[:-1])


def test_a_fault_is_the_last_event(url: str) -> None:
    _, _, content = ask(url, accept="text/event-stream", data=b'{"inputs": {"nothing": 1}}')
    last = content.decode().strip().split("\n\n")[-1]
    assert last.startswith("event: fault\n") and "unknown input" in last and '"status": 400' in last


def test_pages_of_other_origins_may_call_where_they_are_named(url: str) -> None:
    _, headers, _ = ask(url, "/health", None, method="GET", Origin="https://page.test")
    assert headers["access-control-allow-origin"] == "https://page.test"
    assert "access-control-allow-origin" not in ask(url, "/health", None, method="GET", Origin="https://other.test")[1]
    preflight = {"Origin": "https://page.test", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    status, headers, _ = ask(url, "/run", None, method="OPTIONS", **preflight)
    assert status == 200 and "POST" in headers["access-control-allow-methods"]


def test_the_docs_page_needs_nothing_from_elsewhere(url: str) -> None:
    status, headers, content = ask(url, "/docs", None, method="GET")
    assert status == 200 and headers["content-type"].startswith("text/html")
    assert b"openapi.json" in content and b"http://" not in content and b"https://" not in content


def test_openapi_says_what_there_is(url: str) -> None:
    described = json.loads(ask(url, "/openapi.json", None, method="GET")[2])
    assert {"/run", "/spec", "/health", "/v1/models", "/v1/images/generations"} <= set(described["paths"])
    given = described["paths"]["/run"]["post"]["responses"]["200"]["content"]
    assert {"image/png", "audio/wav", "application/json", "text/event-stream", CONTENT_TYPE} <= set(given)


def test_bytes_in_flight_are_bounded() -> None:
    with serving(graph_of(Media()), limits=Limits(bytes_in_flight=2000)) as address:
        status, answer = call(address, data=body({"inputs": {"numbers": torch.zeros(1000)}}))
        assert status == 503 and "in flight" in answer["error"]["message"]
        for _ in range(3):  # what was answered is in flight no longer
            assert call(address, data=body({"inputs": {"numbers": torch.zeros(200)}}))[0] == 200


def closed_within(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_connections_are_bounded_and_silent_ones_are_closed_before_a_key_was_shown() -> None:
    limits = Limits(connections=2, header_timeout=0.5)
    with serving(graph_of(Media()), api_key="secret", limits=limits) as address:
        parts = urlsplit(address)
        place = (parts.hostname, parts.port)
        with socket.create_connection(place) as first, socket.create_connection(place) as second:
            first.sendall(b"GET /health HT")
            time.sleep(0.05)
            with socket.create_connection(place) as third:
                assert closed_within(third, 60)
            assert closed_within(first, 60) and closed_within(second, 60)
        assert call(address, "/health", None, method="GET")[0] == 200


def test_headers_are_bounded() -> None:
    with serving(graph_of(Media()), limits=Limits(header_bytes=2000)) as address:
        assert call(address, "/health", None, method="GET", headers={"X-Long": "x" * 100})[0] == 200
        with suppress(ConnectionError):  # the rest of the headers meets a closed connection, at times before the answer is read
            assert call(address, "/health", None, method="GET", headers={"X-Long": "x" * 100_000})[0] in (400, 431)
        assert call(address, "/health", None, method="GET")[0] == 200


def test_who_reads_slowly_holds_up_nobody_else() -> None:
    """Models that wait on a network tell of their text in a thread that all of them share."""
    written: list[bytes] = []

    async def answered() -> None:
        reads = asyncio.Event()

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                await reads.wait()
                written.append(message["body"])

        async def told(tell: Any) -> None:
            for number in range(3):
                tell({"event": number})

        def work(tell: Any, stop: Any) -> dict[str, Any]:
            try:
                background.submit(told(tell)).result(60)
            finally:
                loop.call_soon_threadsafe(reads.set)
            return {"text": "all"}

        loop = asyncio.get_running_loop()
        await Stream(work, anyio.CapacityLimiter(1), EVENTS_TYPE)({}, asyncio.Event().wait, send)

    asyncio.run(answered())
    assert [re.findall(r"data: (.*)", part.decode()) for part in written] == [["0"], ["1"], ["2"], ['{"text": "all"}'], []]
