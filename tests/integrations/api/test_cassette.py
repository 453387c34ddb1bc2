"""Cassettes: what was recorded is replayed bit for bit, without a connection."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextvars import copy_context
from pathlib import Path

import pytest
import torch

from wgtorch import Graph
from wgtorch.core.errors import ConfigError
from wgtorch.core.run.rng import Rng
from wgtorch.integrations.api import Cassette, UsageMeter, cassette
from wgtorch.integrations.api.answers import Question
from wgtorch.integrations.models.errors import ApiContentError, ApiRequestError, ApiTransportError, ReplayError
from wgtorch.integrations.models.requests import Message, TextRequest
from wgtorch.testing import Reply, ScriptedServer, refusal


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "tape.sqlite"


def counting(server: ScriptedServer) -> None:
    """Every answer of the server is another one."""
    server.respond = lambda seen: f"answer {len(server.requests)}"


def test_every_kind_of_answer_is_replayed_bit_for_bit(server: ScriptedServer, build, tape: Path) -> None:
    image = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(3))

    def everything() -> list:
        spoken = build("text_to_speech")(text=["a", "b"])
        return [
            build()(prompt=["one", "two"])["text"],
            build("llm/anthropic")(prompt="one")["text"],
            list(build().stream(prompt="a b c")),
            build("vlm")(image=image)["text"],
            build("embedder")(text=["x", "y"])["embedding"],
            build("image_generator")(prompt=["sea", "hut"])["image"],
            build("image_generator")(prompt="sea", image=image)["image"],
            spoken["audio"],
            build("speech_to_text")(audio=spoken["audio"])["text"],
        ]

    with cassette(tape, mode="record"):
        recorded = everything()
    asked = len(server.requests)
    server.stop()
    with cassette(tape, mode="replay"):
        replayed = everything()
    assert len(server.requests) == asked > 8
    for before, after in zip(recorded, replayed, strict=True):
        assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after


def test_a_replay_needs_neither_key_nor_sdk_nor_connection(
    server: ScriptedServer, build, tape: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", "sk-test-123456")
    llm = build(api_key_env="TEST_API_KEY", mode="record", cassette=str(tape))
    assert llm(prompt="x")["text"] == "x"
    monkeypatch.delenv("TEST_API_KEY")
    monkeypatch.setattr("wgtorch.integrations.api.backends.client_at", lambda address: pytest.fail("a client was made"))
    again = build(api_key_env="TEST_API_KEY", mode="replay", cassette=str(tape))
    assert again(prompt="x")["text"] == "x" and len(server.requests) == 1


def test_auto_asks_only_for_what_is_not_there(server: ScriptedServer, build, tape: Path) -> None:
    counting(server)
    llm = build(mode="auto", cassette=str(tape))
    assert llm(prompt="x")["text"] == llm(prompt="x")["text"] == "answer 1"
    assert llm(prompt=["y", "x", "z"])["text"][1] == "answer 1" and len(server.requests) == 3
    assert llm(prompt="x", temperature=0.5)["text"] == "answer 4", "another option is another question"
    assert build(mode="live", cassette=str(tape))(prompt="x")["text"] == "answer 5"


def test_draws_of_a_seed_are_told_apart(server: ScriptedServer, build, tape: Path) -> None:
    counting(server)
    llm = build("llm/anthropic", mode="auto", cassette=str(tape))
    first, second = llm(prompt="x", rng=Rng(1, "a"))["text"], llm(prompt="x", rng=Rng(2, "a"))["text"]
    assert first != second and llm(prompt="x", rng=Rng(1, "a"))["text"] == first and len(server.requests) == 2
    rows = llm(prompt=["x", "x"], rng=Rng(3, "a"))["text"]
    assert len(set(rows)) == 2 and llm(prompt=["x", "x"], rng=Rng(3, "a"))["text"] == rows and len(server.requests) == 4


def test_without_seeds_a_replay_follows_the_order_of_the_recording(server: ScriptedServer, build, tape: Path) -> None:
    counting(server)
    with cassette(tape, mode="record"):
        recorded = [build()(prompt="x")["text"] for _ in range(3)]
    for _ in range(2):
        with cassette(tape, mode="replay"):
            assert [build()(prompt="x")["text"] for _ in range(3)] == recorded == ["answer 1", "answer 2", "answer 3"]
    with cassette(tape, mode="replay"):
        assert build()(prompt="x", rng=Rng(9, "elsewhere"))["text"] == "answer 1"


def test_a_replay_without_an_answer_says_so(server: ScriptedServer, build, tape: Path) -> None:
    with cassette(tape, mode="replay"), pytest.raises(ReplayError, match="there is no such file"):
        build()(prompt="x")
    with cassette(tape, mode="record"):
        build()(prompt="x")
    with cassette(tape, mode="replay"), pytest.raises(ReplayError, match=r"holds no answer to this complete request \(1 others"):
        build()(prompt="other")
    assert len(server.requests) == 1


def test_errors_are_recorded_too_and_asked_again_where_that_is_allowed(server: ScriptedServer, build, tape: Path) -> None:
    server.script(refusal("not this"), Reply("down", status=500))
    with cassette(tape, mode="record"):
        with pytest.raises(ApiContentError):
            build()(prompt="bad")
        with pytest.raises(ApiTransportError):
            build(retries=0)(prompt="down")
    with cassette(tape, mode="replay"):
        with pytest.raises(ApiContentError, match="status 400, not this"):
            build()(prompt="bad")
        with pytest.raises(ApiTransportError) as caught:
            build()(prompt="down")
        assert caught.value.status == 500
    with cassette(tape, mode="auto"):
        assert build()(prompt="bad")["text"] == "bad"
    with cassette(tape, mode="replay"):
        assert build()(prompt="bad")["text"] == "bad"


def test_answers_are_kept_as_they_come_also_when_a_sibling_fails(server: ScriptedServer, build, tape: Path) -> None:
    server.respond = lambda seen: refusal() if seen.prompt == "bad" else seen.prompt
    with cassette(tape, mode="auto"), pytest.raises(ApiContentError):
        build()(prompt=["a", "b", "bad"])
    with cassette(tape, mode="replay"):
        assert build()(prompt=["a", "b"])["text"] == ["a", "b"]


def test_threads_and_processes_share_a_file(server: ScriptedServer, build, tape: Path) -> None:
    tapes = [Cassette(tape, "auto"), Cassette(tape, "auto")]  # two connections, as two processes have
    llm = build(mode="auto", cassette=str(tape))
    found: list[str] = []
    threads = [threading.Thread(target=lambda n=n: found.extend(llm(prompt=[f"{n % 3}-{k}" for k in range(8)])["text"])) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(found)) == sorted(f"{n}-{k}" for n in range(3) for k in range(8)) and len(found) == 48
    assert [len(one) for one in tapes] == [24, 24]
    for one in tapes:
        one.close()


def test_what_is_no_cassette_is_refused(build, tmp_path: Path, tape: Path) -> None:
    (tmp_path / "text.sqlite").write_text("nothing of that kind, but long enough to be looked at" * 10)
    with cassette(tmp_path / "text.sqlite"), pytest.raises(ReplayError, match="cannot be opened"):
        build()(prompt="x")
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE things (a)")
    other.commit()
    other.close()
    with cassette(tmp_path / "other.sqlite"), pytest.raises(ReplayError, match="of version 0, or none"):
        build()(prompt="x")
    with pytest.raises(ConfigError, match="needs a cassette"):
        build(mode="replay")(prompt="x")


def test_the_environment_chooses_for_a_whole_program(server: ScriptedServer, build, tape: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WGTORCH_API_CASSETTE", str(tape))
    assert build()(prompt="x")["text"] == "x"
    monkeypatch.setenv("WGTORCH_API_MODE", "replay")
    meter = UsageMeter()
    graph = Graph("g")
    graph.add_node(build(), "llm")
    graph.infer_exposed_ports()
    assert graph.run({"prompt": "x"}, callbacks=[meter])["text"] == "x" and len(server.requests) == 1
    assert (meter.total.calls, meter.total.replayed, meter.total.prompt_tokens) == (1, 1, 0)


_ASKS = """
import sys
from wgtorch import BlockRegistry
from wgtorch.integrations.api import cassette

url, tape, count = sys.argv[1:]
llm = BlockRegistry.build({"block_type": "llm", "config": {"model_id": "m", "endpoint_url": url, "limits": {"in_flight": 4}}})
sys.stdin.readline()
with cassette(tape, mode="auto"):
    print(llm(prompt=[f"question {n}" for n in range(int(count))])["text"])
"""


@pytest.mark.xdist_group("processes")
def test_two_processes_ask_each_question_once(server: ScriptedServer, tape: Path) -> None:
    server.delay = 0.01
    server.respond = lambda seen: f"answer {len(server.requests)} to {seen.prompt}"
    command = [sys.executable, "-c", _ASKS, server.url, str(tape), "40"]
    pair = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate("go\n", timeout=300)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert told[0] == told[1] and len(server.requests) == 40 == len({seen.prompt for seen in server.requests})


def test_threads_and_rows_of_a_batch_ask_each_question_once(server: ScriptedServer, build, tape: Path) -> None:
    server.delay = 0.02
    counting(server)
    with cassette(tape, mode="auto"):
        llm = build()
        answers: list[list[str]] = [[], []]

        def ask(at: int) -> None:
            answers[at] = llm(prompt=["a", "b", "a", "c"])["text"]

        threads = [threading.Thread(target=copy_context().run, args=(ask, at)) for at in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers[0] == answers[1] and answers[0][0] == answers[0][2] and len(server.requests) == 3


def test_what_another_could_not_answer_is_asked_here(server: ScriptedServer, build, tape: Path) -> None:
    server.script(Reply("no", status=400), "fine")
    with cassette(tape, mode="auto") as opened:
        with pytest.raises(ApiRequestError):
            build()(prompt="x")
        assert build()(prompt="x")["text"] == "fine"
        question = Question("complete", TextRequest((Message("user", "y"),)), "openai", "tiny")
        assert opened.claim([question], "first") == [True] and opened.claim([question], "other") == [False]
        opened.release("first")
        assert build()(prompt="y")["text"] == "y"
    assert [path.name for path in tape.parent.iterdir() if "lock" in path.name] == []


_CLAIMS = """
import sys, time
from wgtorch.integrations.api import Cassette
from wgtorch.integrations.api.answers import Question
from wgtorch.integrations.models.requests import Message, TextRequest
questions = [Question("complete", TextRequest((Message("user", word),)), "openai", "tiny") for word in "xy"]
tape = Cassette(sys.argv[1])
assert tape.claim(questions, "killed") == [True, True]
print("claimed", flush=True)
time.sleep(60)
"""


@pytest.mark.xdist_group("processes")
def test_the_claim_of_a_process_that_was_killed_dies_with_it(server: ScriptedServer, build, tape: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _CLAIMS, str(tape)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "claimed\n"
    with cassette(tape, mode="auto") as opened:
        question = Question("complete", TextRequest((Message("user", "x"),)), "openai", "tiny")
        assert opened.claim([question], "other") == [False]
        process.kill()  # nobody has waited for it yet, so its number is still taken
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        found: list[str] = []
        asks = threading.Thread(target=copy_context().run, args=(lambda: found.extend(build()(prompt=["x", "y"])["text"]),), daemon=True)
        asks.start()
        asks.join(60)
    process.communicate()
    assert found == ["x", "y"]
    assert [path.name for path in tape.parent.iterdir() if "lock" in path.name] == []
