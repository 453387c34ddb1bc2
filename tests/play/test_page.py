"""The page's server: who may come in, what it answers, what it refuses, exports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.play.worlds import small_world
from wgtorch.play import Game, make_play_app
from wgtorch.play.app import STATIC

TOKEN = "a-token-of-twenty-letters"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def game() -> Game:
    return Game(small_world(), seed=3)


@pytest.fixture
def client(game) -> TestClient:
    return TestClient(make_play_app(game, token=TOKEN), base_url="http://127.0.0.1:8765", follow_redirects=False)


def test_the_token_opens_the_page_once_and_stays_as_a_cookie(client):
    assert client.get("/").status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    opened = client.get(f"/?token={TOKEN}")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict"))
    assert client.get("/").status_code == 200
    assert client.get("/api/view").json()["world"] == "small"


@pytest.mark.parametrize("path", ["/api/view", "/api/events", "/static/main.js", "/api/export.html", "/api/picture/now/0.png"])
def test_nothing_is_told_without_the_token(client, path):
    assert client.get(path).status_code == 401
    assert client.get(f"{path}?token={TOKEN}").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:8765"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-origin"}, 200),
        ({"host": "localhost:8765"}, 200),
        ({"host": "192.168.1.7:8765"}, 200),
        ({"host": "[fe80::1]:8765"}, 200),
        ({"host": "192.168.1.7.evil.example"}, 421),
    ],
    ids=["host", "host-suffix", "origin", "null-origin", "other-port", "cross-site", "own", "localhost", "address", "address6", "like-one"],
)
def test_hosts_and_origins_of_elsewhere_are_refused(client, headers, status):
    assert client.post("/api/pauses", json={"stages": []}, headers={**BEARER, **headers}).status_code == status


def test_a_host_that_was_allowed_may_be_called(game):
    client = TestClient(make_play_app(game, token=TOKEN, hosts=["Play.Example"]), base_url="http://play.example")
    assert client.get("/api/view", headers=BEARER).status_code == 200


def test_every_answer_has_a_policy_that_lets_only_own_files_run(client):
    for answer in (client.get("/", headers=BEARER), client.get("/nothing", headers=BEARER), client.get("/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_acting_undoing_and_wrong_requests(client, game):
    ask = lambda what, **data: client.post(f"/api/{what}", json=data, headers=BEARER)  # noqa: E731
    assert ask("act", action="<img src=x onerror=alert(1)>").json() == {"ok": True}
    game.wait(60)
    assert client.get("/api/view", headers=BEARER).json()["passes"] == 1
    assert ask("act", action=3).json() == {"error": "action: expected a text"}
    assert ask("pauses", stages="dream").json() == {"error": "stages: expected a list of texts"}
    assert ask("undo", passes="1").json() == {"error": "passes: expected a whole number"}
    assert ask("undo", passes=5).status_code == 409
    assert "did you mean" in ask("edit", slot="intnet", text="x").json()["error"]
    assert ask("nothing").status_code == 404
    form = client.post("/api/act", content=b"action=x", headers={**BEARER, "content-type": "application/x-www-form-urlencoded"})
    assert (form.status_code, form.json()["error"]) == (409, "expected a JSON object, as application/json")
    broken = client.post("/api/act", content=b"[1]", headers={**BEARER, "content-type": "application/json"})
    assert broken.json()["error"] == "expected a JSON object, found a list"
    long = client.post("/api/act", content=b"x" * (2 << 20), headers={**BEARER, "content-type": "application/json"})
    assert "longer than" in long.json()["error"]


def test_pictures_loops_and_exports(client, game):
    assert client.get("/api/export.gif", headers=BEARER).status_code == 404
    game.act("sing <script>alert(1)</script>")
    game.wait(60)
    picture = client.get("/api/picture/now/0.png", headers=BEARER)
    assert picture.headers["content-type"] == "image/png"
    assert client.get("/api/picture/7/0.png", headers=BEARER).status_code == 404
    assert client.get("/api/motion/now/0.gif", headers=BEARER).status_code == 404  # it has no plan
    assert client.get("/api/sound/now.wav", headers=BEARER).status_code == 404
    page = client.get("/api/export.html", headers=BEARER)
    assert "attachment" in page.headers["content-disposition"]
    assert "<script>alert" not in page.text
    assert client.get("/api/export.gif", headers=BEARER).content.startswith(b"GIF89a")


@pytest.mark.parametrize("name", ["..%2fgame.py", "%2e%2e/app.py", "nothing.js"])
def test_only_files_of_the_page_are_given(client, name):
    assert client.get(f"/static/{name}", headers=BEARER).status_code == 404


def test_the_page_asks_nobody_else_and_writes_no_html():
    assert {path.name for path in STATIC.iterdir()} >= {"index.html", "play.css", "main.js"}
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "innerHTML" not in text, path.name
        assert not re.search(r"\bstyle=|[\s{]style:", text), path.name
        for address in re.findall(r"https?://[^\s\"'`]+", text):
            assert address == "http://www.w3.org/2000/svg", (path.name, address)
        for module in re.findall(r'from "([^"]+)"', text):
            assert (STATIC / module).is_file(), (path.name, module)


def test_every_control_of_the_page_has_a_name():
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    for field in re.findall(r'<input[^>]*id="([^"]+)"', html):
        assert f'<label for="{field}"' in html, field
    for section in re.findall(r"<(?:section|nav)[^>]*>", html):
        assert "aria-label=" in section, section
    assert 'lang="en"' in html


def test_events_are_streamed_with_numbers(game):
    import asyncio

    from starlette.requests import Request

    app = make_play_app(game, token=TOKEN)
    route = next(route for route in app.app.routes if route.path == "/api/events")

    async def first() -> str:
        async def receive():
            await asyncio.sleep(60)

        game.publish("changed")
        request = Request({"type": "http", "headers": [(b"last-event-id", b"0")], "path": "/api/events", "method": "GET"}, receive)
        answer = await route.endpoint(request)
        parts = answer.body_iterator
        assert await anext(parts) == "retry: 1500\nevent: changed\ndata: {}\n\n"
        found = await asyncio.wait_for(anext(parts), 60)
        await parts.aclose()
        return found

    text = asyncio.run(first())
    assert text.startswith("id: 1\nevent: changed\n")
    assert json.loads(text.split("data: ")[1])["kind"] == "changed"


def test_token_of_a_folder_is_secret_and_stays(tmp_path):
    from wgtorch.cli.play import token_in

    made = token_in(tmp_path)
    assert token_in(tmp_path) == made
    assert (tmp_path / "play_token").stat().st_mode & 0o077 == 0
    Path(tmp_path / "play_token").write_text("short")
    with pytest.raises(ValueError, match="holds no token"):
        token_in(tmp_path)
