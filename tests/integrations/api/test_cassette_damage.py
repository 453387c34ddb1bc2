"""Cassettes that are damaged, made up by somebody, or left by a recorder that was killed: named errors, and nothing kept is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from wgtorch.integrations.api import Cassette
from wgtorch.integrations.api.answers import Answer, Question
from wgtorch.integrations.models.errors import ApiError, ReplayError
from wgtorch.integrations.models.requests import Message, TextRequest


def question(number: int) -> Question:
    return Question("complete", TextRequest((Message("user", f"question {number}"),)), "openai", "m")


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    path = tmp_path / "tape.sqlite"
    recording = Cassette(path, "record")
    for number in range(20):
        recording.keep(question(number), Answer(text=f"answer {number}", pieces=("answer", f" {number}"), prompt_tokens=3))
    recording.close()
    return path


def killed_in_a_write(tape: Path) -> None:
    child = os.fork()
    if child == 0:
        connection = sqlite3.connect(tape)
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN IMMEDIATE")
        for number in range(500):
            connection.execute("INSERT INTO questions VALUES (?, ?)", (f"unfinished {number}", "x" * 3000))
        connection.execute("UPDATE answers SET answer = 'lost'")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert tape.with_name(f"{tape.name}-journal").stat().st_size > 0


@pytest.mark.parametrize("mode", ["replay", "auto"])
def test_a_recorder_that_was_killed_loses_nothing_that_was_kept(tape, mode):
    killed_in_a_write(tape)
    before = tape.read_bytes()
    replaying = Cassette(tape, mode)
    assert [replaying.find(question(number)).text for number in range(20)] == [f"answer {number}" for number in range(20)]
    assert len(replaying) == 20
    if mode == "replay":
        assert tape.read_bytes() == before, "a replay writes nothing"
        with pytest.raises(ReplayError, match="holds no answer to this complete request"):
            replaying.find(question(99))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("answer", "[1]"),
        ("answer", "[" * 100_000),
        ("answer", '{"text": 5}'),
        ("answer", '{"text": NaN}'),
        ("answer", '{"blob": "x"}'),
        ("answer", '{"pieces": [1]}'),
        ("answer", '{"shape": [1000000, 1000000]}'),
        ("answer", '{"shape": [-1, -1]}'),
        ("answer", '{"__class__": "os.system"}'),
        ("answer", b"\xff\xfe"),
        ("answer", 7),
        ("blob", "text"),
        ("error", 5),
        ("error", b"x"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_answer_that_nobody_recorded_is_named(tape, column, value):
    with closing(sqlite3.connect(tape)) as connection, connection:
        connection.execute(f"UPDATE answers SET {column} = ?", (value,))
    connection.close()
    with pytest.raises(ReplayError, match=r"tape\.sqlite"):
        Cassette(tape, "replay").find(question(3))


def test_recorded_errors_name_no_other_class(tape):
    with closing(sqlite3.connect(tape)) as connection, connection:
        connection.execute("UPDATE answers SET error = 'SystemExit', message = 'go'")
    connection.close()
    with pytest.raises(ApiError, match="go"):
        Cassette(tape, "replay").find(question(3))


def test_a_file_with_any_bytes_changed_is_read_or_named(tape):
    raw = tape.read_bytes()
    choose = random.Random(0)
    read = 0
    for _ in range(150):
        damaged = bytearray(raw)
        for _ in range(choose.randint(1, 4)):
            at = choose.randrange(len(raw))
            damaged[at : at + choose.randint(1, 30)] = choose.randbytes(choose.randint(1, 30))
        tape.write_bytes(damaged[: choose.choice([len(damaged), choose.randrange(len(damaged))])])
        try:
            found = Cassette(tape, "replay").find(question(3))
            read += found is not None
        except ApiError:  # ReplayError is one
            pass
    assert read, "what was not touched is read"


def test_what_is_written_and_read_is_one(tape):
    with closing(sqlite3.connect(tape)) as connection, connection:
        (text,) = connection.execute("SELECT answer FROM answers LIMIT 1").fetchone()
    connection.close()
    answer = Answer.from_json(text)
    assert json.loads(answer.to_json()) == json.loads(text)
    for own in (Answer(text="\ud800"), Answer(blob=b"1234" * 6, shape=(2, 3)), Answer(left_out=("seed",), thoughts="hm", cached_tokens=2)):
        assert Answer.from_json(own.to_json(), own.blob) == own
