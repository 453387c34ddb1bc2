"""Levels on a Hub: published with a card, loaded back equal. The Hub is a small server of its own, spoken to by huggingface_hub."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.world_blocks import tiny_world
from wgtorch import Graph
from wgtorch.hub import card_of

pytest.importorskip("huggingface_hub")


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's HTTP interface as a push and a download of small files take."""

    files: dict[str, dict[str, bytes]] = {}

    def _send(self, body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), "Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
            self.files.setdefault(name, {})
            self._send({"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": name})
        elif path == "/api/validate-yaml":
            self._send({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            asked = json.loads(body)["files"]
            self._send({"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for one in asked]})
        elif "/commit/" in path:
            repo = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files.setdefault(repo, {})[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"http://{self.headers['Host']}/{repo}/commit/{'0' * 40}"
            self._send({"success": True, "commitUrl": url, "commitOid": "0" * 40, "hookOutput": ""})
        else:
            self._send({"error": path}, status=404)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "/resolve/" in path:
            repo, _, rest = path.removeprefix("/").partition("/resolve/")
            content = self.files[repo][rest.partition("/")[2]]
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": "0" * 40, "Accept-Ranges": "bytes"}
            self._send(content, headers=headers)
        elif path.startswith("/api/models/"):
            repo = path.removeprefix("/api/models/").partition("/revision/")[0].partition("/tree/")[0]
            siblings = [{"rfilename": name} for name in self.files[repo]]
            if "/tree/" in path:
                held = self.files[repo].items()
                tree = [{"type": "file", "path": name, "size": len(raw), "oid": hashlib.sha1(raw).hexdigest()} for name, raw in held]
                self._send(tree)
            else:
                self._send({"id": repo, "sha": "0" * 40, "siblings": siblings, "private": False, "tags": [], "downloads": 0, "likes": 0})
        else:
            self._send({"error": path}, status=404)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.files = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


ROUND = """
import json, sys, torch
from tests.blocks_for_tests import as_pipeline
from tests.world_blocks import assert_same, tiny_world
from wgtorch import Graph, hub
endpoint = sys.argv[1]
graph = Graph.from_template("caption")
world = tiny_world()
world.run(num_steps=2, seed=3)
stage = world.nodes["architect"]
levels = {"graph": graph, "world": world, "stage": stage, "pipeline": next(iter(stage.nodes.values()))}
levels["block"] = next(iter(graph.nodes.values()))
for name, level in levels.items():
    url = hub.push_to_hub(level, f"me/{name}", endpoint=endpoint, token="hf_fake")
    assert url.startswith(endpoint), url
    back = hub.from_hub(f"me/{name}", endpoint=endpoint, token="hf_fake")
    assert type(back) is type(level), name
    assert all(torch.equal(one, two) for one, two in zip(level.state_dict().values(), back.state_dict().values(), strict=True)), name
    if name == "world":
        assert_same(dict(back.content), dict(world.content))
        assert back.life.passes == 2
    if name == "graph":
        image = torch.rand(1, 3, 64, 64)
        assert back.run({"image": image})["text"] == graph.run({"image": image})["text"]
print("same")
"""


def test_every_level_is_published_and_comes_back(hub: str, tmp_path: Path) -> None:
    settings = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    environment = {**os.environ, **settings}
    done = subprocess.run([sys.executable, "-c", ROUND, hub], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and done.stdout.strip().endswith("same"), done.stderr[-3000:]
    assert set(Hub.files) == {"me/graph", "me/world", "me/stage", "me/pipeline", "me/block"}
    card = Hub.files["me/graph"]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: wgtorch\ntags: [wgtorch, graph]\n---\n") and 'from_hub("me/graph")' in card
    assert any(name.endswith(".safetensors") for name in Hub.files["me/graph"])


def test_cards_say_ports_and_models() -> None:
    card = card_of(Graph.from_template("caption"), "me/x")
    assert "| in | `image` | image |" in card and "| `describer` | `vlm/scene` |" in card and "MB of weights" in card
    assert "tags: [wgtorch, world]" in card_of(tiny_world(), "me/w")
