"""A world played by the official client: a conversation is a life, and asking again is a fork of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("openai")

import openai

from tests.serving.test_sessions import send
from wgtorch.serving.server import Limits, serving
from wgtorch.world import World


@pytest.fixture(scope="module")
def world() -> World:
    return World.from_template("default", steps=1, larger=False)


@pytest.fixture(scope="module")
def url(world: World) -> Iterator[str]:
    with serving(world, limits=Limits(sessions=4)) as address:
        yield address


def client_of(url: str) -> Any:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def say(client: Any, messages: list[dict[str, str]], text: str, **fields: Any) -> list[dict[str, str]]:
    """The conversation with one message more, and its answer."""
    asked = [*messages, {"role": "user", "content": text}]
    found = client.chat.completions.create(model="default", messages=asked, **fields).choices[0].message
    return [*asked, {"role": "assistant", "content": found.content}]


def test_a_conversation_is_a_life(url: str, world: World) -> None:
    with client_of(url) as client:
        told = say(client, say(client, [], "wait", seed=7), "go to the moon")
    assert "go to the moon" in told[3]["content"]
    alone = world.fork()
    alone.run(action="wait", seed=7)
    alone.run(action="go to the moon")
    assert told[1]["content"] == world_words(alone, -1)
    assert world.life.passes == 0


def test_a_model_has_the_name_that_it_is_served_under_and_its_own_is_taken_too(world: World) -> None:
    with serving(world, name="blue") as address, client_of(address) as client:
        assert [model.id for model in client.models.list()] == ["blue"]
        for name in ("blue", "default", "wgtorch"):
            answer = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "wait"}])
            assert answer.model == "blue"
        with pytest.raises(openai.NotFoundError, match="there is no model 'red' here; there is 'blue'"):
            client.chat.completions.create(model="red", messages=[{"role": "user", "content": "wait"}])


def world_words(world: World, index: int) -> str:
    """What was told of a stored episode."""
    return str(world.history[index].outcome)


def test_asking_again_is_a_fork_and_both_go_on(url: str) -> None:
    with client_of(url) as client:
        first = say(client, [], "wait", seed=7)
        one, other = say(client, first, "look around"), say(client, first, "look around")
        assert one != other
        again = say(client, one, "sing", seed=3)
        assert say(client, one, "sing", seed=3) == again  # a fork of the same moment, and the same draws
        assert say(client, other, "sing", seed=3) != again


def test_visitors_who_say_the_same_share_no_life(url: str) -> None:
    with client_of(url) as client:
        mine, yours = say(client, [], "wait", user="anna"), say(client, [], "wait", user="bruno")
        assert mine != yours
        with pytest.raises(openai.NotFoundError, match="the conversation is not known"):
            say(client, mine, "look around", user="bruno")


def test_a_picture_beside_the_words_whole_and_streamed(url: str) -> None:
    with client_of(url) as client:
        asked: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "wait"}], "modalities": ["text", "image"]}
        whole = client.chat.completions.create(**asked).choices[0].message
        picture = base64.b64decode(whole.images[0]["image_url"]["url"].partition(",")[2])
        with Image.open(io.BytesIO(picture)) as opened:
            assert min(opened.size) >= 64
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].usage.total_tokens == 0
        assert any(chunk.choices and getattr(chunk.choices[0].delta, "images", None) for chunk in chunks)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "wait"}]}, "a world has rules of its own"),
        ({"n": 2}, "Ask again for another answer"),
        ({"temperature": 0.2}, "request.temperature"),
        ({"messages": [{"role": "assistant", "content": "Once"}]}, "the last one is not the user's"),
    ],
)
def test_what_a_world_cannot_be_told_is_refused_before_it_lives(url: str, fields: dict[str, Any], words: str) -> None:
    with client_of(url) as client, pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(**{"model": "default", "messages": [{"role": "user", "content": "wait"}], **fields})


def test_conversations_make_room_for_newer_ones_and_go_on_from_their_folder(world: World, tmp_path: Path) -> None:
    with serving(world, limits=Limits(sessions=2), sessions_dir=tmp_path) as url, client_of(url) as client:
        told = [say(client, [], "wait", seed=seed) for seed in (1, 2, 3)]
        kept = say(client, told[0], "look around")
    with serving(world, limits=Limits(sessions=2)) as url, client_of(url) as client:
        first = say(client, [], "wait", seed=1)
        say(client, [], "wait", seed=2), say(client, [], "wait", seed=3)
        with pytest.raises(openai.NotFoundError, match="put away for newer ones"):
            say(client, first, "look around")
    with serving(world, sessions_dir=tmp_path) as url, client_of(url) as client:
        assert say(client, kept, "sing", seed=5)[:-2] == kept


def test_the_picture_of_a_session_by_accept(url: str) -> None:
    made = send(url, "POST", "/sessions", {"seed": 7})[1]["id"]
    status, fault = send(url, "GET", f"/sessions/{made}", accept="image/png")
    assert status == 404 and "nothing that can be sent as image/png now" in fault["error"]["message"]
    status, lived = send(url, "POST", f"/sessions/{made}/act", {"action": "wait"}, accept="image/png")
    assert status == 200 and send(url, "GET", f"/sessions/{made}", accept="image/*")[1] == lived
    with Image.open(io.BytesIO(lived)) as opened:
        assert opened.format == "PNG"
    assert send(url, "GET", f"/sessions/{made}", accept="video/mp4")[0] == 406
    assert send(url, "DELETE", f"/sessions/{made}")[0] == 204
