"""Servers that are not ours, each installed into an environment of its own: what works with which.

    pytest -m "slow and network" -n 0 tests/integrations/api/test_foreign_servers.py -s

What it prints is the table of docs/model_servers.md. ``transformers serve`` has its own tests.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from wgtorch.core.block import BlockRegistry
from wgtorch.core.errors import ConfigError
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.models.errors import ApiAuthenticationError, ApiError
from wgtorch.testing import ScriptedServer
from wgtorch.testing.replies import Seen

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.xdist_group("processes")]
SCHEMA = {"type": "object", "properties": {"a": {"enum": [7]}}, "required": ["a"]}
KEY = "sk-foreign-12345678"
_START = 180  # seconds


def answer(seen: Seen) -> str:
    return '{"a": 7}' if "JSON" in seen.system else f"You said: {seen.prompt}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def installed(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        pytest.skip(f"{command[0]} could not install it: {done.stderr[-300:]}")


def served(command: list[str], folder: Path, health: str, **environment: str) -> Iterator[None]:
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **environment, "PYTHONPATH": ""}
        )
    try:
        for _ in range(_START):
            if process.poll() is not None:
                pytest.fail((folder / "server.log").read_text()[-2000:])
            try:
                urllib.request.urlopen(health, timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def litellm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A LiteLLM proxy in front of a scripted server."""
    folder, port = tmp_path_factory.mktemp("litellm"), free_port()
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    installed(str(folder / "venv/bin/pip"), "install", "-q", "litellm[proxy]", folder=folder)
    with ScriptedServer(answer) as behind:
        settings = {"model": "openai/m", "api_base": behind.url, "api_key": "none"}
        (folder / "config.yaml").write_text(json.dumps({"model_list": [{"model_name": "m", "litellm_params": settings}]}))
        command = [str(folder / "venv/bin/litellm"), "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
        health = f"http://127.0.0.1:{port}/health/liveliness"
        for _ in served(command, folder, health, LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_MASTER_KEY=KEY):
            yield f"http://127.0.0.1:{port}/v1", "m"


@pytest.fixture(scope="module")
def mock_llm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """@dwmkerr/mock-llm, which gives one answer to everything."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm")
    folder, port = tmp_path_factory.mktemp("mock_llm"), free_port()
    installed("npm", "install", "--silent", "--no-audit", "--no-fund", "@dwmkerr/mock-llm", folder=folder)
    choice = {"index": 0, "message": {"role": "assistant", "content": '{"a": 7}'}, "finish_reason": "stop"}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    body["usage"] = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    (folder / "mock.yaml").write_text(json.dumps({"rules": [{"match": "@", "response": {"status": 200, "content": json.dumps(body)}}]}))
    command = [str(folder / "node_modules/.bin/mock-llm"), "--config", "mock.yaml"]
    for _ in served(command, folder, f"http://127.0.0.1:{port}/health", HOST="127.0.0.1", PORT=str(port)):
        yield f"http://127.0.0.1:{port}/v1", "m"


LLAMA_CPP = """
import sys, threading, xllamacpp
chosen = xllamacpp.CommonParams()
chosen.model.path, chosen.port, chosen.api_keys, chosen.model_alias = sys.argv[1], int(sys.argv[2]), [sys.argv[3]], {"twin"}
chosen.n_ctx, chosen.n_parallel, chosen.warmup = 512, 1, False
chosen.cpuparams.n_threads = chosen.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(chosen)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """llama.cpp's server, which xllamacpp brings, with a tiny model of random weights that is made here."""
    pytest.importorskip("gguf")
    from tests.integrations.transformers import tiny

    folder, port = tmp_path_factory.mktemp("llama_cpp"), free_port()
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    installed(str(folder / "venv/bin/pip"), "install", "-q", "xllamacpp", folder=folder)
    tiny.gguf_file(folder / "twin.gguf")
    command = [str(folder / "venv/bin/python"), "-c", LLAMA_CPP, "twin.gguf", str(port), KEY]
    for _ in served(command, folder, f"http://127.0.0.1:{port}/health"):
        yield f"http://127.0.0.1:{port}/v1", "twin"


def tried(url: str, model: str, provider: str = "openai") -> dict[str, str]:
    """What works, and in the words of the error why the rest does not."""

    def build(kind: str = "llm", **config: Any) -> Any:
        at = {"provider": provider, "model_id": model, "endpoint_url": url, "api_key_env": "WGTORCH_FOREIGN_KEY", "retries": 0}
        at |= {"timeout": 60, **({"max_tokens": 24, "allow_cut": True} if kind == "llm" else {}), **config}
        return BlockRegistry.build({"block_type": kind, "config": at})

    ways: dict[str, Callable[[], Any]] = {
        "chat": lambda: build(system="Be brief.")(prompt="Hello")["text"],
        "stream": lambda: "".join(build().stream(prompt="Hello")),
        "options": lambda: build(temperature=0.3, top_p=0.9, max_tokens=64, stop="END")(prompt="Hello", rng=Rng(3, "x"))["text"],
        "schema": lambda: build(schema=SCHEMA)(prompt="A number.")["data"]["a"] == 7,
        "picture": lambda: build("vlm")(image=torch.rand(3, 16, 16), prompt="What is it?")["text"],
        "embeddings": lambda: build("embedder")(text=["a", "b"])["embedding"].shape[0] == 2,
        "images": lambda: build("image_generator")(prompt="sea")["image"].dim() == 4,
    }
    found = {}
    for name, ask in ways.items():
        try:
            found[name] = "yes" if ask() else "empty"
        except (ApiError, ConfigError) as error:
            found[name] = f"no: {str(error)[:90]}"
    print(f"\n{json.dumps(found, indent=1)}")
    return found


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTORCH_FOREIGN_KEY", KEY)


def test_everything_works_through_a_litellm_proxy(litellm: tuple[str, str]) -> None:
    assert set(tried(*litellm).values()) == {"yes"}
    block = {"model_id": "missing", "endpoint_url": litellm[0], "api_key_env": "WGTORCH_FOREIGN_KEY"}
    with pytest.raises(ApiError, match="Invalid model name"):
        BlockRegistry.build({"block_type": "llm", "config": block})(prompt="x")


def test_text_works_with_a_mock_server_of_npm_and_the_rest_is_an_error_of_ours(mock_llm: tuple[str, str]) -> None:
    found = tried(*mock_llm)
    assert all(found[name] == "yes" for name in ("chat", "stream", "options", "schema", "picture"))
    assert all(found[name].startswith("no: ") for name in ("embeddings", "images"))


def test_text_and_schemas_work_with_llama_cpp_and_a_key_that_is_wrong_is_an_error(
    llama_cpp: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tried(*llama_cpp, provider="llama_cpp")
    assert all(found[name] == "yes" for name in ("chat", "stream", "options", "schema"))
    assert all(found[name].startswith("no: ") for name in ("picture", "embeddings", "images"))
    config = {"provider": "llama_cpp", "model_id": "twin", "endpoint_url": llama_cpp[0], "api_key_env": "WGTORCH_FOREIGN_KEY"}
    llm = BlockRegistry.build({"block_type": "llm", "config": {**config, "max_tokens": 2, "allow_cut": True}})
    usage = [llm(prompt="The keeper lights the lamp, " * 12 + end)["usage"] for end in ("and sleeps.", "and the sea is calm.")]
    assert usage[1]["cached_tokens"] > 0.8 * usage[1]["prompt_tokens"], "it keeps what it read of a prompt's beginning"
    with pytest.raises(ApiError, match="exceeds the available context size"):
        llm(prompt="The keeper lights the lamp. " * 200)
    monkeypatch.setenv("WGTORCH_FOREIGN_KEY", "sk-wrong-12345678")
    with pytest.raises(ApiAuthenticationError, match="Invalid API Key"):
        llm(prompt="x")
