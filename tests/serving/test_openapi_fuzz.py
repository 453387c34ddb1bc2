"""Whatever a request looks like that the OpenAPI allows, or nearly allows: never a 500. A lane of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("schemathesis")

from tests.serving.blocks import graph_of
from tests.serving.test_negotiation import ask
from tests.serving.test_openai_front import Embedder, Talker
from wgtorch.serving.server import Limits, serving
from wgtorch.serving.wire import CONTENT_TYPE
from wgtorch.world import World


@pytest.mark.slow
@pytest.mark.parametrize("what", ["talker", "embedder", "world"])
def test_no_request_that_schemathesis_makes_ends_in_a_500(what: str, tmp_path: Path) -> None:
    level = {
        "talker": lambda: graph_of(Talker(), "it"),
        "embedder": lambda: graph_of(Embedder(), "it"),
        "world": lambda: World.from_template("default", steps=1, larger=False),
    }[what]()
    with serving(level, limits=Limits(timeout=20.0, sessions=10_000)) as url:
        described = json.loads(ask(url, "/openapi.json", None, method="GET")[2])
        for methods in described["paths"].values():  # schemathesis writes JSON; what it makes is the same in safetensors
            for entry in methods.values() if isinstance(methods, dict) else ():
                if isinstance(entry, dict) and "requestBody" in entry:
                    entry["requestBody"]["content"].pop(CONTENT_TYPE, None)
                    for content in entry["requestBody"]["content"].values():  # a run that has no time ends in a 504, rightly
                        content["schema"].get("properties", {}).pop("timeout", None)
        (tmp_path / "openapi.json").write_text(json.dumps(described))
        program = str(Path(sys.executable).parent / "schemathesis")
        command = [program, "run", str(tmp_path / "openapi.json"), "--url", url, "--checks", "not_a_server_error", "--seed", "1"]
        command += ["--max-examples", "20", "--phases", "examples,coverage,fuzzing", "--no-color"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert "generated" in done.stdout
