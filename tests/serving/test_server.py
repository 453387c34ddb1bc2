"""The server: what it answers, what it refuses and how, and what it does when many call at once."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import torch
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.serving.blocks import Counts, Fails, graph_of
from tests.serving.calling import call, findings, run
from tests.world_blocks import FULL, assert_same, stage_of, tiny_world
from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, StateError
from wgtorch.serving.server import Limits, serving
from wgtorch.serving.wire import CONTENT_TYPE, STREAM_TYPE, body, frames
from wgtorch.world_runtime.state import State


@pytest.fixture(scope="module")
def scale() -> Iterator[str]:
    with serving(graph_of("serving_test/scale", "scale", factor=3.0), limits=Limits(max_bytes=100_000)) as url:
        yield url


@pytest.fixture(scope="module")
def everything() -> Iterator[str]:
    with serving(graph_of("serving_test/everything", "all")) as url:
        yield url


def test_a_graph_answers_over_http(scale: str) -> None:
    status, answer = run(scale, inputs={"x": torch.ones(2, 2), "bias": torch.tensor(1.0)})
    assert status == 200
    assert_same(answer, {"outputs": {"y": torch.full((2, 2), 4.0)}})
    assert call(scale, "/health", None, method="GET")[1] == {"status": "ok", "level": "graph", "id": "scale", "running": 0, "waiting": 0}
    contract = call(scale, "/spec", None, method="GET")[1]
    assert contract["inputs"] == {"x": {"dtype": "tensor"}, "bias": {"dtype": "tensor", "optional": True}}
    assert contract["outputs"] == {"y": {"dtype": "tensor"}}


def test_text_and_numbers_may_go_as_plain_json(everything: str) -> None:
    sent = {"inputs": {"text": "a hill", "number": 2, "data": {"a": [1, {"b": None}]}, "items": []}}
    status, answer = call(everything, data=json.dumps(sent).encode(), kind="application/json", accept="application/json")
    assert (status, answer["outputs"]) == (200, {"text": "a hill", "number": 2, "data": {"a": [1, {"b": None}]}, "items": []})
    status, answer = call(everything, data=body({"inputs": {"items": [torch.ones(1)]}}), accept="application/json")
    assert (status, answer["outputs"]["items"]) == (200, [{"$tensor": {"dtype": "float32", "shape": [1], "data": "AACAPw=="}}])


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"inputs": {"y": torch.ones(1)}}, [("scale.y", "unknown input", ""), ("scale.x", "missing", "a torch.Tensor")]),
        ({"inputs": {"x": "text"}}, [("scale.x", "str 'text'", "a tensor: files are not opened here")]),
        ({"inputs": {"x": 3}}, [("scale.x", "got int 3", "a torch.Tensor (kind 'tensor')")]),
        ({"inputs": [1]}, [("request.inputs", "got list", "a valid dictionary")]),
        ({"inputs": {"x": torch.ones(1)}, "seed": 1.5}, [("request.seed", "got float", "a valid integer")]),
        ({"inputs": {"x": torch.ones(1)}, "path": ["a", 3]}, [("request.path[1]", "got int", "a valid string")]),
        ({"inputs": {"x": torch.ones(1)}, "num_loop_steps": 0}, [("request.num_loop_steps", "got int", "greater than or equal to 1")]),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_all_findings(scale: str, message: dict[str, Any], expected: list) -> None:
    status, answer = run(scale, **message)
    assert (status, answer["error"]["type"]) == (400, "RequestError")
    assert findings(answer) == expected


def test_an_unknown_field_names_the_known_ones(scale: str) -> None:
    _, answer = run(scale, inputs={"x": torch.ones(1)}, sede=1)
    ((where, found, expected),) = findings(answer)
    assert (where, found) == ("request.sede", "unknown field") and "'seed'" in expected


def test_a_file_of_the_server_is_never_opened_for_a_caller(everything: str, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "secret.png")
    for image in (str(tmp_path / "secret.png"), [str(tmp_path / "secret.png")], "/etc/hostname"):
        status, answer = run(everything, inputs={"image": image})
        assert status == 400 and "files are not opened here" in answer["error"]["message"]
        status, answer = run(everything, inputs={"image": image}, path=["w", "g"])
        assert status == 400 and "files are not opened here" in answer["error"]["message"]


def test_a_stage_opens_no_files_either(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "secret.png")
    look = Block.wrap(lambda image: {"description": "x"}, inputs={"image": "image"}, outputs={"description": "text"})
    stage = stage_of("looker", look, [], ["description"])
    stage.set_state_contract([], ["description"], {"work.image": "recipe.image"}, {"description": "work.description"})
    with serving(stage) as url:
        status, answer = run(url, state={"recipe": {"image": str(tmp_path / "secret.png")}})
        assert status == 400 and findings(answer)[0][2] == "tensors: files are not opened here"
        assert run(url, state={"recipe": {"image": torch.zeros(3, 4, 4)}})[1] == {"state": {"description": "x"}}


def test_other_pages_other_methods_other_contents(scale: str) -> None:
    for path, method, status in (("/", "GET", 404), ("/run", "GET", 405), ("/../etc/passwd", "GET", 404), ("/spec", "POST", 405)):
        found, answer = call(scale, path, None, method=method)
        assert found == status and "POST /run" in answer["error"]["message"]
    status, answer = call(scale, data=b"{}", kind="application/x-www-form-urlencoded")
    assert status == 415 and CONTENT_TYPE in answer["error"]["message"]


def test_a_body_that_is_too_large_is_refused_before_it_is_read(scale: str) -> None:
    status, answer = call(scale, data=None, headers={"Content-Length": str(10**12)})
    assert status == 413 and "100000 bytes" in answer["error"]["message"]


def test_a_body_of_unknown_length_is_read_up_to_the_limit(scale: str) -> None:
    parts = urlsplit(scale)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    try:
        connection.request("POST", "/run", body=iter([b"x" * 60_000] * 2), headers={"Content-Type": CONTENT_TYPE}, encode_chunked=True)
        assert connection.getresponse().status == 413
    finally:
        connection.close()


def test_a_body_that_never_ends_is_given_up_on() -> None:
    with serving(graph_of("serving_test/scale", "scale", factor=3.0), limits=Limits(read_timeout=0.5)) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), timeout=120) as connection:
            head = f"POST /run HTTP/1.1\r\nHost: x\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: 1000\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 10)
            assert b" 408 " in connection.recv(4096).split(b"\r\n")[0]
        assert call(url, "/health", None, method="GET")[1]["status"] == "ok"


def test_without_the_key_nothing_but_health_answers() -> None:
    with serving(graph_of("serving_test/scale"), api_key="s3cret") as url:
        for shown in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}, {"Authorization": "Bearer s3cret\u00e9"}):
            for path, method in (("/run", "POST"), ("/spec", "GET"), ("/openapi.json", "GET")):
                status, answer = call(url, path, body({"inputs": {}}), method=method, headers=shown)
                assert (status, answer["error"]["type"]) == (401, "RequestError")
                assert "s3cret" not in str(answer)
        key = {"Authorization": "Bearer s3cret"}
        assert call(url, data=body({"inputs": {"x": torch.ones(1)}}), headers=key)[0] == 200
        assert call(url, "/health", None, method="GET")[0] == 200
        assert call(url, "/openapi.json", None, method="GET", headers=key)[1]["security"] == [{"key": []}]


def test_openapi_says_what_run_takes(everything: str) -> None:
    described = call(everything, "/openapi.json", None, method="GET")[1]
    post = described["paths"]["/run"]["post"]
    request = {**post["requestBody"]["content"][CONTENT_TYPE]["schema"], "components": described["components"]}
    jsonschema.Draft202012Validator.check_schema(request)
    checks = jsonschema.Draft202012Validator(request)
    assert checks.is_valid({"inputs": {"text": "a", "image": {"$tensor": "inputs.image"}, "data": {}}, "seed": 3})
    assert not checks.is_valid({"inputs": {"image": "picture.png"}})
    assert not checks.is_valid({"inputs": {"data": 3}})
    answer = post["responses"]["200"]["content"][CONTENT_TYPE]["schema"]
    assert list(answer["properties"]["outputs"]["properties"]) == ["text", "image", "number", "data", "items"]


@pytest.mark.parametrize("level", ["stage", "world"])
def test_openapi_of_what_runs_over_a_state(level: str) -> None:
    world = tiny_world()
    with serving(world if level == "world" else world.nodes["author"]) as url:
        post = call(url, "/openapi.json", None, method="GET")[1]["paths"]["/run"]["post"]
    assert "state" in post["requestBody"]["content"][CONTENT_TYPE]["schema"]["properties"]


def test_what_fails_inside_is_named_and_shows_no_traceback() -> None:
    with serving(graph_of(Fails(), "broken")) as url:
        status, answer = run(url, inputs={"x": torch.ones(1)})
    assert status == 500
    fault = {"type": "ZeroDivisionError", "message": "the lens is cracked", "findings": [], "node": "node"}
    assert answer == {"error": fault}


def test_runs_go_on_at_once_up_to_the_limit_and_the_rest_waits_or_is_sent_away() -> None:
    block = Counts()
    block.meeting = threading.Barrier(2)
    with serving(graph_of(block), limits=Limits(concurrency=2)) as url, ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda index: run(url, inputs={"x": torch.full((1,), float(index))}), range(6)))
    assert [answer["outputs"]["y"].item() for _, answer in answers] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert block.most == 2
    block.meeting = threading.Barrier(2)
    with serving(graph_of(block), limits=Limits(concurrency=1, waiting=1)) as url, ThreadPoolExecutor(1) as pool:
        first = pool.submit(run, url, inputs={"x": torch.ones(1)})
        while not block.inside:
            time.sleep(0.005)
        waiting = [threading.Thread(target=run, args=(url,), kwargs={"inputs": {"x": torch.ones(1)}}) for _ in range(1)]
        waiting[0].start()
        while call(url, "/health", None, method="GET")[1]["waiting"] < 1:
            time.sleep(0.005)
        status, answer = run(url, inputs={"x": torch.ones(1)})
        assert status == 503 and "come back later" in answer["error"]["message"]
        block.meeting.wait(timeout=60)
        assert first.result()[0] == 200
        block.meeting.wait(timeout=60)
        waiting[0].join()


def slow_loop(turns: list[int]) -> Any:
    """A graph whose loop notes its turns, each of which takes a moment."""

    def step(x: torch.Tensor) -> dict[str, Any]:
        turns.append(len(turns))
        time.sleep(0.02)
        return {"x": x + 1}

    graph = graph_of(Block.wrap(step, inputs={"x": "tensor"}, outputs={"x": "tensor"}), "slow")
    graph.add_edge("node.x", "node.x")
    return graph


def test_a_run_that_takes_too_long_is_stopped() -> None:
    turns: list[int] = []
    with serving(slow_loop(turns), limits=Limits(timeout=0.2)) as url:
        status, answer = run(url, inputs={"x": torch.zeros(1)}, num_loop_steps=10_000)
        assert (status, answer["error"]["type"]) == (504, "RunTimeoutError")
        status, answer = run(url, inputs={"x": torch.zeros(1)}, num_loop_steps=10_000, timeout=0.05, path=["a", "slow"])
        assert (status, answer["error"]["type"]) == (504, "RunTimeoutError")
    assert len(turns) < 50
    with serving(slow_loop(turns), limits=Limits(timeout=60)) as url:
        assert run(url, inputs={"x": torch.zeros(1)}, num_loop_steps=2)[1]["outputs"]["x"].item() == 2


def test_an_answer_of_one_block_that_comes_too_late_is_none() -> None:
    def slow(x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.1)
        return x

    with serving(graph_of(Block.wrap(slow, outputs={"y": "tensor"})), limits=Limits(timeout=0.05)) as url:
        assert run(url, inputs={"x": torch.zeros(1)})[0] == 504


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("timeout", -1, "a number above 0, or None for no limit"),
        ("timeout", float("nan"), "a number above 0, or None for no limit"),
        ("read_timeout", 0, "a number above 0"),
        ("read_timeout", None, "a number above 0"),
        ("concurrency", 0, "a whole number above 0"),
        ("max_batch", 1.5, "a whole number above 0"),
        ("waiting", True, "a whole number from 0"),
        ("batch_wait", -0.1, "a number from 0"),
    ],
)
def test_a_limit_that_is_none_is_refused_by_name(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"Limits\.{name}: found .*; expected {expected}$"):
        Limits(**{name: value})
    assert Limits(waiting=0, batch_wait=0, timeout=None).waiting == 0


@pytest.mark.parametrize("accept", [CONTENT_TYPE, STREAM_TYPE])
def test_a_run_whose_caller_hangs_up_is_stopped(accept: str) -> None:
    turns: list[int] = []
    with serving(slow_loop(turns)) as url:
        parts = urlsplit(url)
        raw = body({"inputs": {"x": torch.zeros(1)}, "num_loop_steps": 10_000})
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            head = (
                f"POST /run HTTP/1.1\r\nHost: x\r\nContent-Type: {CONTENT_TYPE}\r\nAccept: {accept}\r\nContent-Length: {len(raw)}\r\n\r\n"
            )
            connection.sendall(head.encode() + raw)
            while not turns:
                time.sleep(0.005)
        while call(url, "/health", None, method="GET")[1]["running"]:
            time.sleep(0.01)
    assert len(turns) < 10_000


def test_a_stream_tells_each_turn_and_then_the_answer() -> None:
    with serving(slow_loop([])) as url:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        headers = {"Content-Type": CONTENT_TYPE, "Accept": STREAM_TYPE}
        connection.request("POST", "/run", body({"inputs": {"x": torch.zeros(1)}, "num_loop_steps": 3}), headers)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Type")) == (200, STREAM_TYPE)
        entries = list(frames(iter(lambda: answer.read(64), b""), "stream"))
        connection.close()
    turns = [entry["event"]["step"] for entry in entries[:-1] if entry["event"]["kind"] == "loop"]
    assert turns == [0, 1, 2]
    assert entries[-1]["result"]["outputs"]["x"].item() == 3


def test_a_world_lives_on_with_every_call() -> None:
    expected = tiny_world()
    expected.run(num_steps=3, seed=5, action="go")
    with serving(tiny_world()) as url:
        status, answer = run(url, num_steps=2, seed=5, action="go")
        assert (status, answer["passes"], answer["seed"]) == (200, 2, 5)
        answer = run(url, action="go")[1]
    assert_same(answer["state"], dict(expected.state or {}))
    assert_same(answer["content"], dict(expected.content))


def test_a_world_is_given_an_episode_and_streams_its_stages() -> None:
    expected = list(tiny_world().stream(State(**FULL), seed=5))
    with serving(tiny_world()) as url:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
        connection.request("POST", "/run", body({"state": FULL, "seed": 5}), {"Content-Type": CONTENT_TYPE, "Accept": STREAM_TYPE})
        answer = connection.getresponse()
        entries = list(frames(iter(lambda: answer.read(4096), b""), "stream"))
        connection.close()
        assert run(url, state={"nothing": 1})[1]["error"]["findings"][0]["where"] == "tiny: state"
    told = [entry["step"] for entry in entries[:-1]]
    assert [(step["kind"], step["stage"], step["skipped"], step["stored"]) for step in told] == [
        (step.kind, step.stage, step.skipped, step.stored) for step in expected
    ]
    assert_same(told[-1]["state"], dict(expected[-1].state or {}))


def test_two_calls_of_one_world_come_one_after_the_other() -> None:
    expected = tiny_world()
    expected.run(num_steps=8, seed=5)
    with serving(tiny_world()) as url, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: run(url, num_steps=2, seed=5)[1], range(4)))
    assert sorted(answer["passes"] for answer in answers) == [2, 4, 6, 8]
    assert_same(max(answers, key=lambda answer: answer["passes"])["content"], dict(expected.content))


def test_a_stage_with_a_condition_that_nobody_else_could_look_at_is_not_served() -> None:
    stage = stage_of("author", "world_test/tell", ["intent"], ["outcome"], lambda state: True)
    with pytest.raises(StateError, match="bare function"), serving(stage):
        pass


def test_json_that_could_not_be_given_back_is_refused(everything: str) -> None:
    plain = {"text": "a", "number": 1, "data": {}, "items": []}
    for name, value in (
        ("number", "1e999"),
        ("number", "NaN"),
        ("text", '"\\ud800"'),
        ("data", '{"\\udfff": 1}'),
        ("items", f"[{'9' * 400}.0]"),
    ):
        text = json.dumps({"inputs": plain}).replace(f'"{name}": {json.dumps(plain[name])}', f'"{name}": {value}')
        status, answer = call(everything, data=text.encode(), kind="application/json", accept="application/json")
        assert (status, answer["error"]["type"]) == (400, "RequestError"), (name, value)
    text = json.dumps({"inputs": {**plain, "text": "\U0001f600", "number": 1e300}})  # two halves that are a whole
    status, answer = call(everything, data=text.encode(), kind="application/json", accept="application/json")
    assert (status, answer["outputs"]["text"], answer["outputs"]["number"]) == (200, "\U0001f600", 1e300)


def test_types_of_bodies_are_read_in_any_case_and_a_wrong_method_is_told_the_right_one(everything: str) -> None:
    address = urlsplit(everything)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)

    def ask(method: str, body: bytes, kind: str) -> tuple[int, str | None, bytes]:
        connection.request(method, "/run", body, {"content-type": kind, "accept": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.headers["allow"], answer.read()

    plain = json.dumps({"inputs": {"text": "a", "number": 1, "data": {}, "items": []}}).encode()
    assert ask("POST", plain, "Application/JSON; Charset=UTF-8")[0] == 200
    form = b'--b\r\nContent-Disposition: form-data; name="nonsense"\r\n\r\na\r\n--b--\r\n'
    for kind in ("multipart/form-data; boundary=b; charset=utf-8", 'Multipart/Form-Data; Boundary="b"'):
        assert b"nonsense" in ask("POST", form, kind)[2]
    deep = form.replace(b"nonsense", b"outputs").replace(b"\r\na\r", b"\r\n" + b"[" * 50_000 + b"\r")
    assert ask("POST", deep, "multipart/form-data; boundary=b")[0] == 400
    assert ask("GET", b"", "text/plain")[:2] == (405, "POST")
    connection.close()
