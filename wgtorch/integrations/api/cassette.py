"""Cassettes: answers of APIs in a file, by what was asked. What was recorded can be replayed without a network."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.json_text import expect
from wgtorch.integrations.api.answers import Answer, Question, digest
from wgtorch.integrations.models import errors
from wgtorch.integrations.models.errors import ApiError, ReplayError

Mode = Literal["live", "record", "replay", "auto"]
MODES: tuple[str, ...] = get_args(Mode)
MODE_VARIABLE, PATH_VARIABLE = "WGTORCH_API_MODE", "WGTORCH_API_CASSETTE"
_VERSION = 1
_TABLES = """
CREATE TABLE questions (key TEXT PRIMARY KEY, asked TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE answers (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, draw TEXT NOT NULL, nth INTEGER NOT NULL,
    answer TEXT, blob BLOB, error TEXT, message TEXT, status INTEGER, UNIQUE (key, draw, nth)
);
"""
_CLAIMS = """
CREATE TABLE IF NOT EXISTS asking (key TEXT NOT NULL, draw TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (key, draw)) WITHOUT ROWID
"""
_COLUMNS = "answer, blob, error, message, status"
_WRITE = f"INSERT OR REPLACE INTO answers (key, draw, nth, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class Cassette:
    """Answers by what was asked, in one SQLite file; may be used from several threads and processes.

    A question is its kind, provider, model, messages and options, without seed and address. Answers of runs with a seed
    are told apart by it. Where there is none, a cassette that records keeps answers to the same question in their order,
    and replays them so. In ``auto`` each question is asked once, whichever threads and processes ask it at once: one claims it,
    the others wait for its answer.

    Args:
        path: the file; made when something is recorded.
        mode: ``record`` asks the API and keeps the answers; ``replay`` never asks it; ``auto`` asks for what is not there;
            ``live`` leaves the file alone.
    """

    _open: ClassVar[dict[tuple[str, str], Cassette]] = {}
    _open_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: str | os.PathLike[str] | None, mode: Mode = "auto") -> None:
        if mode not in MODES:
            raise ConfigError(f"mode: found {mode!r}; {suggest(mode, MODES)}")
        if path is None and mode != "live":
            raise ConfigError(f"mode {mode!r} needs a cassette; give the path of its file (cassette=..., or {PATH_VARIABLE})")
        self.path = None if path is None else Path(path).expanduser()
        self.mode = mode
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0  # the process that opened it; SQLite's connections must not be carried into a forked one
        self._turns: Counter[tuple[str, str]] = Counter()
        self._asking: dict[str, Any] = {}  # locks of callers that claimed something; the system gives up those of a process that ends

    @classmethod
    def at(cls, path: str | os.PathLike[str] | None, mode: Mode) -> Cassette:
        """The one cassette of this process for a file and a mode."""
        key = (str(Path(path).expanduser().resolve()) if path is not None else "", mode)
        with cls._open_lock:
            if key not in cls._open:
                cls._open[key] = cls(path, mode)
            return cls._open[key]

    @property
    def reads(self) -> bool:
        """True when answers are looked for in the file."""
        return self.mode in ("replay", "auto")

    @property
    def writes(self) -> bool:
        """True when answers are kept."""
        return self.mode in ("record", "auto")

    def find(self, question: Question) -> Answer | None:
        """The recorded answer, or None where the API is to be asked.

        Raises:
            ReplayError: in ``replay`` there is none, or the file cannot be read.
            ApiError: in ``replay``, the error that was recorded.
        """
        asked = question.described()
        key, draw = digest(asked), question.draw
        with self._lock:
            connection = self._connect(create=False)
            row = None if connection is None else self._row(connection, key, draw)
        if row is None:
            if self.mode == "replay":
                raise self._missing(question, connection is None)
            return None
        answer, blob, error, message, status = row
        where = f"the cassette {str(self.path)!r}"
        if error is None:
            try:
                return Answer.from_json(answer, blob or b"")
            except ReplayError as found:
                raise ReplayError(f"{where}: {found}") from None
        if self.mode == "auto":  # what failed once is asked again
            return None
        for name, value, kind in (("error", error, str), ("message", message, str), ("status", status, (int, type(None)))):
            expect(value, kind, name, where, ReplayError)
        raise _recorded_error(error)(message, provider=question.provider, model=question.model, status=status)

    def keep(self, question: Question, answer: Answer | ApiError) -> None:
        """Writes an answer, or the error that came in its place, at once."""
        asked = question.described()
        key, draw = digest(asked), question.draw
        row: tuple[Any, ...]
        if isinstance(answer, Answer):
            row = (answer.to_json(), answer.blob or None, None, None, None)
        else:
            row = (None, None, type(answer).__name__, str(answer), answer.status)
        with self._lock:
            connection = self._connect(create=True)
            assert connection is not None
            nth = self._turn(key, draw) if self.mode == "record" and not draw else 0
            with self._said("written"), connection:
                connection.execute("INSERT OR IGNORE INTO questions VALUES (?, ?)", (key, asked))
                connection.execute(_WRITE, (key, draw, nth, *row))
                connection.execute("DELETE FROM asking WHERE key=? AND draw=?", (key, draw))

    def claim(self, questions: Sequence[Question], owner: str) -> list[bool]:
        """For each question whether its caller is to ask it; else somebody else asks it now, or it has been answered meanwhile.

        Who claims must :meth:`release`, or :meth:`keep` an answer.

        Args:
            questions: that :meth:`find` has no answer to.
            owner: names this caller among all of them.
        """
        with self._lock:
            connection = self._connect(create=True)
            assert connection is not None
            with self._said("written"):
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    return [self._claim(connection, digest(question.described()), question.draw, owner) for question in questions]

    def release(self, owner: str) -> None:
        """Gives up what a caller claimed and has no answer to."""
        with self._lock:
            connection = self._connect(create=True)
            assert connection is not None
            with self._said("written"), connection:
                connection.execute("DELETE FROM asking WHERE owner=?", (owner,))
            if (lock := self._asking.pop(owner, None)) is not None:
                lock.release()
                Path(lock.lock_file).unlink(missing_ok=True)

    def _claim(self, connection: sqlite3.Connection, key: str, draw: str, owner: str) -> bool:
        answered = "SELECT 1 FROM answers WHERE key=? AND draw=? AND nth=0 AND error IS NULL"
        if connection.execute(answered, (key, draw)).fetchone():
            return False
        claimed = connection.execute("SELECT owner FROM asking WHERE key=? AND draw=?", (key, draw)).fetchone()
        if claimed is not None and not self._is_void(*claimed):
            return False
        if owner not in self._asking:
            self._asking[owner] = self._lock_of(owner)
            self._asking[owner].acquire()
        connection.execute("INSERT OR REPLACE INTO asking VALUES (?, ?, ?)", (key, draw, owner))
        return True

    def _is_void(self, owner: str) -> bool:
        """True where who claimed a question will never answer it: its lock is free, so its process ended."""
        from filelock import Timeout

        lock = self._lock_of(owner)
        if owner in self._asking or not Path(lock.lock_file).exists():
            return owner not in self._asking
        try:
            lock.acquire()
        except Timeout:
            return False
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
        return True

    def _lock_of(self, owner: str) -> Any:
        from filelock import FileLock

        return FileLock(f"{self.path}-{owner}.lock", timeout=0, thread_local=False)

    def rewind(self) -> None:
        """Begins at the first answer of questions that were asked several times."""
        with self._lock:
            self._turns.clear()

    def close(self) -> None:
        """Closes the file; it is opened again when it is needed."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __len__(self) -> int:
        with self._lock:
            connection = self._connect(create=False)
            with self._said("read"):
                return 0 if connection is None else int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])

    def __bool__(self) -> bool:
        return True

    # --- private steps ------------------------------------------------------------------------------------------------

    def _row(self, connection: sqlite3.Connection, key: str, draw: str) -> tuple | None:
        """The answer to this question and draw; in a replay also one that another draw was given, in order."""
        with self._said("read"):
            if draw or self.mode == "auto":
                found = connection.execute(f"SELECT {_COLUMNS} FROM answers WHERE key=? AND draw=? AND nth=0", (key, draw)).fetchone()
                if found is not None or self.mode == "auto":
                    return found
            rows = connection.execute(f"SELECT {_COLUMNS} FROM answers WHERE key=? ORDER BY id", (key,)).fetchall()
        return rows[min(self._turn(key, ""), len(rows) - 1)] if rows else None

    def _turn(self, key: str, draw: str) -> int:
        """How often this was asked before."""
        self._turns[key, draw] += 1
        return self._turns[key, draw] - 1

    def _connect(self, *, create: bool) -> sqlite3.Connection | None:
        if self._connection is not None and self._owner == os.getpid():
            return self._connection
        assert self.path is not None
        if not self.path.is_file() and not create:
            return None
        with self._said("opened"):
            if create:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            is_replay = self.mode == "replay"
            connection = _read_only(self.path.resolve()) if is_replay else sqlite3.connect(self.path, timeout=30, check_same_thread=False)
            with _closed_on_error(connection):
                if not is_replay:
                    connection.execute("PRAGMA synchronous=NORMAL")
                    with connection:
                        _make_tables(connection)
                version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != _VERSION:
            connection.close()
            raise ReplayError(f"{str(self.path)!r} is a cassette of version {version}, or none; expected version {_VERSION}")
        self._connection, self._owner = connection, os.getpid()
        weakref.finalize(self, connection.close).atexit = False  # Python 3.13 warns of those that nobody closed
        return connection

    @contextmanager
    def _said(self, done: str) -> Iterator[None]:
        """Has what SQLite refuses be an error that names the file."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ReplayError(f"the cassette {str(self.path)!r} cannot be {done}: {error}") from None

    def _missing(self, question: Question, no_file: bool) -> ReplayError:
        why = "there is no such file" if no_file else f"it holds no answer to this {question.kind} request"
        seen = "" if no_file else f" ({self._nearest(question)})"
        return ReplayError(
            f"{question.provider} {question.model}: replay from {str(self.path)!r}: {why}{seen}. "
            "The question differs from what was recorded - prompt, options or model; record it again, or use mode 'auto'.",
            provider=question.provider,
            model=question.model,
        )

    def _nearest(self, question: Question) -> str:
        with self._lock, self._said("read"):
            connection = self._connect(create=False)
            assert connection is not None
            pattern = f'%"kind":"{question.kind}","model":"{question.model}"%'
            count = connection.execute("SELECT count(*) FROM questions WHERE asked LIKE ?", (pattern,)).fetchone()[0]
        return f"{count} others to this model are there" if count else "nothing of this model is there"


@contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _read_only(path: Path) -> sqlite3.Connection:
    """Opens a file that is not written to. What a killed recorder left unfinished in it is rolled back in a copy in memory."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30, check_same_thread=False)
    try:
        with _closed_on_error(connection):
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError as error:
        journal = path.with_name(f"{path.name}-journal")
        if not journal.is_file():
            raise
        with tempfile.TemporaryDirectory() as folder:
            for file in (path, journal):
                shutil.copyfile(file, Path(folder) / file.name)
            mended = sqlite3.connect(Path(folder) / path.name)
            connection = sqlite3.connect(":memory:", check_same_thread=False)
            try:
                with _closed_on_error(connection):
                    mended.backup(connection)
            except sqlite3.Error:
                raise error from None
            finally:
                mended.close()
        return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")  # of two processes one makes them
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        for statement in _TABLES.split(";")[:-1]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={_VERSION}")
    connection.execute(_CLAIMS)


def _recorded_error(name: str) -> type[ApiError]:
    found = getattr(errors, name, ApiError)
    return found if isinstance(found, type) and issubclass(found, ApiError) else ApiError


_chosen: ContextVar[Cassette | None] = ContextVar("wgtorch_cassette", default=None)


@contextmanager
def cassette(path: str | os.PathLike[str], mode: Mode = "auto") -> Iterator[Cassette]:
    """Everything that runs inside records to this file, or replays from it, unless a block's config says otherwise.

    Example:
        >>> with cassette("storm.sqlite", mode="record"):
        ...     world.run(num_steps=3, seed=7)
        >>> with cassette("storm.sqlite", mode="replay"):     # no network, no key, the same world
        ...     again.run(num_steps=3, seed=7)
    """
    opened = Cassette(path, mode)
    token = _chosen.set(opened)
    try:
        yield opened
    finally:
        _chosen.reset(token)
        opened.close()


def cassette_now(mode: Mode | None, path: str | None) -> Cassette | None:
    """The cassette for a call: that of the block's config, of the code around, of the environment; None for none."""
    if mode is None and path is None:
        around = _chosen.get()
        if around is not None:
            return around if around.mode != "live" else None
    wanted = mode or os.environ.get(MODE_VARIABLE) or ("live" if path is None and PATH_VARIABLE not in os.environ else "auto")
    if wanted not in MODES:
        raise ConfigError(f"{MODE_VARIABLE}: found {wanted!r}; {suggest(wanted, MODES)}")
    if wanted == "live":
        return None
    return Cassette.at(path or os.environ.get(PATH_VARIABLE), wanted)  # type: ignore[arg-type]
