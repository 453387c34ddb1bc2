"""``wgtorch play``: what it opens, what it refuses."""

from __future__ import annotations

import re
import socket

import pytest
from starlette.testclient import TestClient

from wgtorch.cli.main import main


@pytest.fixture
def served(monkeypatch):
    """What would be served, with its options."""
    found = {}

    def serve_app(app, **options):
        found.update(app=app, **options)
        options["ready"](f"http://{options['host']}:{options['port']}")

    monkeypatch.setattr("wgtorch.serving.server.serve_app", serve_app)
    return found


def test_it_serves_a_world_and_says_its_address(served, tmp_path, capsys):
    assert main(["play", "default", "--out", str(tmp_path / "life"), "--port", "1234"]) == 0
    assert (served["host"], served["port"]) == ("127.0.0.1", 1234)
    told = capsys.readouterr().out
    address = re.search(r"http://127\.0\.0\.1:1234(/\?token=[\w-]{32})", told)
    assert address
    client = TestClient(served["app"], base_url="http://127.0.0.1:1234")
    assert client.get(address[1]).status_code == 200
    _game(served).wait(60)  # a new life begins by itself
    assert client.get("/api/view").json()["passes"] == 1


def test_a_folder_that_holds_a_life_goes_on_with_it_under_the_same_address(served, tmp_path, capsys):
    folder = str(tmp_path / "life")
    main(["play", "default", "--out", folder, "--seed", "5"])
    first = capsys.readouterr().out
    game = _game(served)
    game.wait(60)
    game.act("go to the sea")
    game.wait(60)
    main(["play", "default", "--out", folder])
    assert capsys.readouterr().out == first
    assert _game(served).world.life.passes == 2
    assert _game(served).world.life.seed == 5


def test_the_address_that_is_printed_lets_one_in_wherever_it_listens(monkeypatch, tmp_path, capsys):
    def serve_app(app, *, host, port, ready, **options):
        ready(f"http://{socket.gethostname()}:{port}")
        found.append(app)

    found = []
    monkeypatch.setattr("wgtorch.serving.server.serve_app", serve_app)
    assert main(["play", "default", "--out", str(tmp_path / "life"), "--host", "0.0.0.0"]) == 0
    base, path = re.search(r"(http://[^/\s]+)(/\?token=[\w-]{32})", capsys.readouterr().out).groups()
    for address in (base, "http://10.0.0.7:8765", "http://0.0.0.0:8765"):
        assert TestClient(found[0], base_url=address).get(path, follow_redirects=False).status_code == 303
    refused = TestClient(found[0], base_url="http://evil.example").get(path)
    assert refused.status_code == 421 and "--allow-host" in refused.text
    _game({"app": found[0]}).wait(60)


def test_only_worlds_can_be_played(capsys):
    assert main(["play", "graph/caption"]) == 2
    assert "is a graph; expected a world" in capsys.readouterr().err


def _game(served):
    routes = served["app"].app.routes
    return next(route for route in routes if route.path == "/api/view").endpoint.__self__.game
