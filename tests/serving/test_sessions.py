"""Visitors of a served world: each lives a life of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from PIL import Image

from tests.serving.test_negotiation import ask
from tests.world_blocks import stage_of
from wgtorch import Block, Graph, Pipeline, Stage
from wgtorch.core.errors import PortTypeError
from wgtorch.serving.server import Limits, serving
from wgtorch.serving.services import WorldService
from wgtorch.serving.sessions import Sessions
from wgtorch.world import World

pytestmark = pytest.mark.skipif(not hasattr(World, "fork"), reason="worlds cannot be forked")


@pytest.fixture(scope="module")
def world() -> World:
    return World.from_template("default", steps=1, larger=False)


@pytest.fixture(scope="module")
def url(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(world, limits=Limits(sessions=5), sessions_dir=tmp_path_factory.mktemp("sessions")) as address:
        yield address


def send(url: str, method: str, path: str, message: dict[str, Any] | None = None, accept: str = "application/json") -> tuple[int, Any]:
    data = None if message is None else json.dumps(message).encode()
    status, headers, content = ask(url, path, data, method=method, accept=accept)
    return status, json.loads(content) if headers.get("content-type") == "application/json" else content


def test_a_visitor_creates_acts_looks_edits_goes_back_and_deletes(url: str, world: World) -> None:
    status, made = send(url, "POST", "/sessions", {"seed": 7})
    assert status == 201 and made["passes"] == 0 and made["seed"] == 7
    one = f"/sessions/{made['id']}"
    status, lived = send(url, "POST", f"{one}/act", {"action": "go to the sea", "num_steps": 2})
    alone = World.from_template("default", steps=1, larger=False)
    state = alone.run(action="go to the sea", num_steps=2, seed=7)
    assert status == 200 and lived["passes"] == 2 and lived["state"]["intent"] == json.loads(json.dumps(state.intent))
    status, seen = send(url, "GET", one)
    assert status == 200 and seen["steps"] and seen["state"]["intent"] == lived["state"]["intent"]
    status, edited = send(url, "PATCH", one, {"intent": {**seen["state"]["intent"], "text": "it snows"}})
    assert status == 200 and edited["state"]["intent"]["text"] == "it snows"
    status, back = send(url, "POST", f"{one}/rewind", {"step": 0})
    assert status == 200 and back["passes"] == 1
    status, page = send(url, "GET", f"{one}/page", accept="text/html")
    assert status == 200 and b"<html" in page
    assert send(url, "DELETE", one)[0] == 204
    assert send(url, "GET", one)[0] == 404
    assert world.life.passes == 0, "the served world's own life is nobody's"


def test_visitors_at_once_never_share_a_life(url: str) -> None:
    made = [send(url, "POST", "/sessions", {"seed": seed})[1]["id"] for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda each: send(url, "POST", f"/sessions/{each}/act", {"num_steps": 1})[1], made))
    for seed, lived, session in zip((1, 2), found, made, strict=True):
        alone = World.from_template("default", steps=1, larger=False)
        assert lived["state"]["intent"] == json.loads(json.dumps(alone.run(seed=seed).intent))
        assert send(url, "DELETE", f"/sessions/{session}")[0] == 204


def test_a_fork_shares_the_past_and_owns_its_future(url: str) -> None:
    first = send(url, "POST", "/sessions", {"seed": 3})[1]["id"]
    send(url, "POST", f"/sessions/{first}/act", {"num_steps": 1})
    status, forked = send(url, "POST", f"/sessions/{first}/fork")
    assert status == 201 and forked["parent"] == first and forked["passes"] == 1
    send(url, "POST", f"/sessions/{forked['id']}/act", {"num_steps": 1})
    assert send(url, "GET", f"/sessions/{first}")[1]["passes"] == 1
    assert send(url, "GET", f"/sessions/{forked['id']}")[1]["passes"] == 2
    for session in (first, forked["id"]):
        assert send(url, "DELETE", f"/sessions/{session}")[0] == 204


@pytest.mark.parametrize(
    ("method", "path", "message", "status", "words"),
    [
        ("GET", "/sessions/nobody", None, 404, "POST /sessions makes one"),
        ("POST", "/sessions/nobody/act", {}, 404, "POST /sessions makes one"),
        ("POST", "/sessions", {"sede": 1}, 400, "did you mean 'seed'"),
        ("POST", "/sessions", {"seed": "x"}, 400, "expected a whole number"),
        ("POST", "/run", {"inputs": {"prompt": "x"}}, 400, "A world is told an action"),
        ("POST", "/v1/images/generations", {"prompt": "x"}, 404, "it takes an action"),
    ],
)
def test_what_makes_no_sense_is_refused(url: str, method: str, path: str, message: Any, status: int, words: str) -> None:
    found, answer = send(url, method, path, message)
    assert found == status and words in answer["error"]["message"]


@pytest.mark.parametrize("action", [5, True, 1.5, {"Anna": 5}, ["wait"] * 2, [5], {"Anna": ["rest"]}])
def test_an_action_is_text_or_texts_by_who_acts(url: str, action: Any) -> None:
    session = send(url, "POST", "/sessions", {"seed": 7})[1]["id"]
    for path in ("/run", f"/sessions/{session}/act"):
        status, answer = send(url, "POST", path, {"action": action})
        assert status == 422 and "action" in answer["error"]["message"]
    assert send(url, "GET", f"/sessions/{session}")[1]["passes"] == 0
    assert send(url, "POST", f"/sessions/{session}/act", {"action": [{"the traveller": "rest"}, None], "num_steps": 2})[0] == 200
    assert send(url, "DELETE", f"/sessions/{session}")[0] == 204


@pytest.mark.parametrize(("kind", "fits", "wrong"), [("number", 5, "five"), ("list", [[1, 2]], {"x": 1}), ("dict", {"x": 1}, 5)])
def test_a_world_whose_ports_say_what_an_action_is_takes_that(kind: str, fits: Any, wrong: Any) -> None:
    world = World("pad")
    block = Block.wrap(lambda action: {"intent": f"{action}"}, inputs={"action": kind}, outputs={"intent": "text"})
    world.add_stage(stage_of("environment", block, [], ["intent"]), "environment")
    world.set_cycle(["environment"])
    with serving(world) as address:
        assert send(address, "POST", "/run", {"action": wrong})[0] == 422
        status, answer = send(address, "POST", "/run", {"action": fits})
        assert status == 200 and answer["state"]["intent"] == str(fits[0] if isinstance(fits, list) else fits)
    with pytest.raises(PortTypeError, match="pad: action is .*; expected a"):
        world.run(action=wrong)


def test_no_file_of_the_server_is_opened_for_a_visitor(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(tmp_path / "secret.png")
    secret = str(tmp_path / "secret.png")
    look = Block.wrap(lambda image: {"description": f"{image.shape}"}, inputs={"image": "image"}, outputs={"description": "text"})
    for source, message in (
        ("action", {"action": secret}),
        ("content.image", {"content": {"image": secret}}),
        ("recipe", {"recipe": secret}),
    ):
        stage = stage_of("philosopher", look, [], ["description"])
        stage.set_state_contract([], ["description"], {"work.image": source}, {"description": "work.description"})
        world = World("looker")
        world.add_stage(stage)
        world.set_cycle(["philosopher"])
        with serving(world) as address:
            one = f"/sessions/{send(address, 'POST', '/sessions')[1]['id']}"
            method, path = ("POST", f"{one}/act") if source == "action" else ("PATCH", one)
            status, answer = send(address, method, path, message)
            assert status == 400 and "files are not opened here" in answer["error"]["message"], source


def test_an_id_of_a_session_is_no_option_of_a_command(url: str) -> None:
    made = [send(url, "POST", "/sessions")[1]["id"] for _ in range(3)]
    assert all(each.isalnum() for each in made)
    assert [send(url, "DELETE", f"/sessions/{each}")[0] for each in made] == [204] * 3


def test_there_are_no_more_sessions_than_allowed() -> None:
    world = World.from_template("default", steps=1, larger=False)
    with serving(world, limits=Limits(sessions=1)) as address:
        assert send(address, "POST", "/sessions")[0] == 201
        status, answer = send(address, "POST", "/sessions")
        assert status == 503 and "delete one" in answer["error"]["message"]


def test_events_of_a_session_are_streamed(url: str) -> None:
    session = send(url, "POST", "/sessions", {"seed": 1})[1]["id"]
    status, content = send(url, "POST", f"/sessions/{session}/act", {"num_steps": 1}, accept="text/event-stream")
    assert status == 200 and content.decode().count("event: step") >= 5 and "event: result" in content.decode()
    assert send(url, "DELETE", f"/sessions/{session}")[0] == 204


def test_nothing_is_left_of_a_deleted_session(tmp_path: Path) -> None:
    world = World.from_template("default", steps=1, larger=False)
    with serving(world, sessions_dir=tmp_path) as address:
        session = send(address, "POST", "/sessions", {"seed": 1})[1]["id"]
        send(address, "POST", f"/sessions/{session}/act", {"num_steps": 1})
        assert [path.name for path in tmp_path.iterdir()] == [session]
        assert send(address, "DELETE", f"/sessions/{session}")[0] == 204
        assert list(tmp_path.iterdir()) == []


def test_a_life_is_taken_away_and_found_again_by_the_next_server(world: World, tmp_path: Path) -> None:
    with serving(world, sessions_dir=tmp_path / "lives") as url:
        one = f"/sessions/{send(url, 'POST', '/sessions', {'seed': 7})[1]['id']}"
        lived = send(url, "POST", f"{one}/act", {"action": "go to the sea", "num_steps": 2})[1]
        status, exported = send(url, "GET", f"{one}/export", accept="*/*")
        assert status == 200
    (tmp_path / "life.zip").write_bytes(exported)
    copy = World.from_template("default", steps=1, larger=False)
    copy.set_storage({"state_dir": tmp_path / "life.zip"})
    assert list(copy.history.steps) and copy.history[-1].outcome
    with serving(world, sessions_dir=tmp_path / "lives") as url:
        status, seen = send(url, "GET", one)
        assert status == 200 and seen["passes"] == 2 and seen["state"]["intent"] == lived["state"]["intent"]
        assert send(url, "POST", f"{one}/act", {"action": "wait"})[1]["passes"] == 3
        assert send(url, "GET", "/sessions/..%2f..%2fetc")[0] == 404


def test_a_session_tells_what_its_models_used() -> None:
    class Priced(Block):
        """Tells its usage."""

        outputs = {"recipe": "any", "usage": "dict"}

        def forward(self, intent: str = "") -> dict:
            return {"recipe": intent, "usage": {"prompt_tokens": 5, "completion_tokens": 3, "cost": 0.25, "provider": "p", "model": "m"}}

    graph = Graph("g")
    graph.add_node(Priced(), "model")
    graph.expose_input("model", "intent")
    graph.expose_output("model", "recipe")
    pipeline = Pipeline("p")
    pipeline.add_graph(graph, "g")
    pipeline.infer_exposed_ports()
    stage = Stage("s")
    stage.add_pipeline(pipeline, "p")
    stage.set_state_contract([], ["recipe"], {}, {"recipe": "p.recipe"})
    world = World("w")
    world.add_stage(stage, "s")
    world.set_cycle(["s"])
    sessions = Sessions(WorldService(world), most=4)
    one, two = sessions.create(seed=1), sessions.create(seed=2)
    assert one.told()["used"]["calls"] == 0
    sessions.act(one.id, {"num_steps": 3})
    sessions.act(two.id, {"num_steps": 1})
    assert [(each.told()["used"]["calls"], each.told()["used"]["cost"]) for each in (one, two)] == [(3, 0.75), (1, 0.25)]
    assert one.told()["used"]["prompt_tokens"] == 15


@pytest.mark.parametrize("kept", [False, True], ids=["memory", "folder"])
def test_a_new_session_begins_where_serving_began(kept: bool, tmp_path: Path) -> None:
    world = World.from_template("default", steps=1, larger=False)
    if kept:
        world.set_storage({"state_dir": tmp_path / "served"})
    world.run(num_steps=2, seed=3)
    sessions = Sessions(WorldService(world), most=3, folder=tmp_path / "sessions" if kept else None)
    sessions.service.answer({"action": "go to the sea"})
    assert world.life.passes == 3
    made = sessions.create()
    assert made.world.life.passes == 2 and "sea" not in str(sessions.look(made.id)["state"]["intent"].get("action"))
    assert sessions.act(made.id, {"num_steps": 1})["passes"] == 3
