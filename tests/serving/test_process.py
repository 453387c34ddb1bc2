"""A real server in a process of its own, killed in the middle of a world's life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("urllib3")

from tests.serving.calling import call
from tests.world_blocks import assert_same, default_world, record_of
from wgtorch.core.errors import EndpointError

pytestmark = pytest.mark.xdist_group("processes")


class Served:
    """``wgtorch serve`` as a child process."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        command = [sys.executable, "-m", "wgtorch.cli.main", "serve", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        assert self.process.stdout is not None
        self.hello = self.process.stdout.readline()
        self.url = self.hello.split(" at ")[1].split()[0] if " at " in self.hello else ""

    def end(self, how: signal.Signals) -> int:
        """Ends the process, and gives its exit status."""
        self.process.send_signal(how)
        status = self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def test_a_world_goes_on_where_a_killed_server_left_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = default_world()
    expected.run(num_steps=3, seed=7, action="go to the sea")

    config = tmp_path / "author.yaml"
    default_world().nodes["author"].save_config(config)
    server = Served(str(config), "--port", "0", WGTORCH_API_KEY="s3cret")
    assert server.hello == f"Serving stage author at {server.url} (with a key)\n"
    try:
        assert call(server.url, "/spec", None, method="GET")[0] == 401
        monkeypatch.setenv("WGTORCH_TEST_KEY", "s3cret")
        world = default_world()
        options = {"api_key_env": "WGTORCH_TEST_KEY", "retries": 1}
        world.replace_child("author", {"endpoint_url": server.url, "endpoint": options})
        world.set_storage({"state_dir": str(tmp_path / "states")})
        steps = []

        def live() -> None:
            for step in world.stream(num_steps=3, seed=7, action="go to the sea"):
                steps.append((step.index, step.stage))
                if steps[-1] == (1, "philosopher"):
                    server.end(signal.SIGKILL)

        with pytest.raises(EndpointError, match=f"author: no answer from {server.url}"):
            live()
        assert (world.life.passes, world.life.stage) == (1, 1), "what was done is kept"
        server = Served(str(config), "--port", server.url.rsplit(":", 1)[1], WGTORCH_API_KEY="s3cret")
        world.run(num_steps=3, seed=7, action="go to the sea")
        assert_same(record_of(world), record_of(expected))
        assert server.end(signal.SIGINT) in (0, 130)
    finally:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)
