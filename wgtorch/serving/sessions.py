"""A served world's visitors: each has a life of its own, forked from the one that is served, over the same modules."""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wgtorch.core.errors import RequestError, StorageError, suggest
from wgtorch.serving.checks import refuse_path_slots
from wgtorch.serving.services import Tell, WorldService
from wgtorch.world import World

_ID_BYTES = 12  # of an id, which nobody can guess
_ID = re.compile(r"[A-Za-z0-9_-]{16,24}")  # 16 in folders that were written before ids were of hexadecimal digits


@dataclass(slots=True)
class Session:
    """One visitor's life.

    Args:
        id: what its address ends in; nobody can guess it.
        service: runs the world for it, one call at a time.
        parent: the session that it was forked from.
    """

    id: str
    service: WorldService
    parent: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def world(self) -> World:
        """Its world."""
        world: World = self.service.level
        return world

    def told(self) -> dict[str, Any]:
        """Where its life stands, without tensors' bytes."""
        world = self.world
        return {
            "id": self.id,
            "parent": self.parent,
            "passes": world.life.passes,
            "seed": world.life.seed,
            "filled": [] if world.state is None else list(world.state.filled),
            "steps": list(world.history.steps),
            "used": asdict(self.service.used.total),
        }

    @contextmanager
    def alone(self) -> Iterator[Any]:
        """The world, while no other call changes it.

        Raises:
            RequestError: another call does.
        """
        if not self.lock.acquire(blocking=False):
            raise RequestError(f"session {self.id}: another call is at work in it; wait for its answer", status=409)
        try:
            yield self.world
        finally:
            self.lock.release()


class Sessions:
    """The sessions of a served world.

    Args:
        service: of the world that is served; its own life is touched by no session.
        most: how many there may be at once.
        folder: where each keeps its log, in a folder of its own, from which a server that is started again takes it up; in memory
            where left out.
    """

    def __init__(self, service: WorldService, *, most: int, folder: str | Path | None = None) -> None:
        self.service = service
        self.begins: World | None = None
        with suppress(StorageError):  # storage without a log, of which a session says so itself
            self.begins = service.level.fork()
        self.most = most
        self.folder = None if folder is None else Path(folder)
        self._sessions: dict[str, Session] = {}
        self._yielding: OrderedDict[str, None] = OrderedDict()  # ids of those that are put away for others, the next one first
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Ids, the oldest first."""
        return list(self._sessions)

    def get(self, session_id: str) -> Session:
        """A session.

        Raises:
            RequestError: there is none of that id (404).
        """
        found = self._sessions.get(session_id) or self._taken_up(session_id)
        if found is None:
            raise RequestError(f"there is no session {session_id[:60]!r}; POST /sessions makes one", status=404)
        return found

    def _taken_up(self, session_id: str) -> Session | None:
        """A session of a server that ran before, from its folder."""
        if self.folder is None or not _ID.fullmatch(session_id):
            return None
        with self._lock:
            if session_id in self._sessions or not (self.folder / session_id).is_dir():
                return self._sessions.get(session_id)
            world = self._served().fork()
            world.set_storage({"state_dir": self.folder / session_id})
            if world.commits:  # a life may be there before its first episode is whole
                world.resume()
            return self._added(session_id, world)

    def _served(self) -> World:
        """The served world as it was when serving began, whatever ``POST /run`` has lived in it since."""
        world: World = self.service.level if self.begins is None else self.begins
        return world

    def _added(self, session_id: str, world: World, parent: str | None = None) -> Session:
        """A new entry; the caller holds the lock."""
        for other in list(self._yielding):
            if len(self._sessions) >= self.most and other != parent and not self._sessions[other].lock.locked():
                del self._sessions[other], self._yielding[other]
        if len(self._sessions) >= self.most:
            raise RequestError(f"there are {self.most} sessions already; delete one, or come back later", status=503)
        service = WorldService(world, device=self.service.device, timeout=self.service.timeout)
        made = self._sessions[session_id] = Session(session_id, service, parent)
        return made

    def create(self, seed: int | None = None, *, of: Session | None = None, step: int | None = None, commit: str | None = None) -> Session:
        """Begins a life: where serving began, or from another session's at a step or another moment of its past.

        Raises:
            RequestError: there are too many sessions (503).
        """
        with self._lock:
            session_id = secrets.token_hex(_ID_BYTES)
            source: Any = self._served() if of is None else of.world
            place = None if self.folder is None else self.folder / session_id
            world = source.fork(step=step, commit=commit, state_dir=place)
            if seed is not None:
                world.life.seed = seed
            return self._added(session_id, world, None if of is None else of.id)

    def yields(self, session_id: str) -> None:
        """Says of a session that it was used and is put away, the one that was silent longest first, where others need its place.

        A life in a folder can be taken up again; one in memory is over.
        """
        with self._lock:
            if session_id in self._sessions:
                self._yielding[session_id] = None
                self._yielding.move_to_end(session_id)

    def delete(self, session_id: str) -> None:
        """Ends a life, and takes away what it kept."""
        session = self.get(session_id)
        with session.alone(), self._lock:
            del self._sessions[session_id]
            self._yielding.pop(session_id, None)
            if self.folder is not None:
                shutil.rmtree(self.folder / session_id, ignore_errors=True)

    def act(
        self, session_id: str, message: Mapping[str, Any], tell: Tell | None = None, cancelled: Callable[[], bool] | None = None
    ) -> dict[str, Any]:
        """Lives on for some passes with an action, as ``POST /run`` does for a world."""
        session = self.get(session_id)
        with session.alone():
            return session.service.answer(message, tell=tell, cancelled=cancelled)

    def look(self, session_id: str) -> dict[str, Any]:
        """Where a life stands, with its State and content."""
        session = self.get(session_id)
        state = session.world.state
        return {**session.told(), "state": None if state is None else dict(state), "content": dict(session.world.content)}

    def edit(self, session_id: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """Changes slots of the State, and fields of the content.

        Raises:
            RequestError: a field is no slot and not ``content``.
        """
        with self.get(session_id).alone() as world:
            known = [*world.state_schema, "content"]
            for name in message:
                if name not in known:
                    raise RequestError(f"no slot {name!r} to edit; {suggest(name, known)}")
            refuse_path_slots(world.nodes.values(), message)
            world.edit(**message)
        return self.look(session_id)

    def rewind(self, session_id: str, step: Any) -> dict[str, Any]:
        """Goes back to the end of a step.

        Raises:
            RequestError: the step is no number.
        """
        with self.get(session_id).alone() as world:
            if isinstance(step, bool) or not isinstance(step, int):
                raise RequestError(f"step is {step!r}; expected a number of GET /sessions/<id>, under steps")
            world.rewind(step)
        return self.look(session_id)

    def fork(self, session_id: str, step: int | None = None) -> Session:
        """Another session that shares the past of one."""
        session = self.get(session_id)
        with session.alone():
            return self.create(of=session, step=step)

    def page(self, session_id: str) -> str:
        """A life as one HTML page: what ``World.report`` writes."""
        from wgtorch.world import WorldReports

        session = self.get(session_id)
        with session.alone() as world:
            return str(WorldReports.get("html")(world).html)

    def export(self, session_id: str) -> bytes:
        """A life to take away: its log as a zip, which ``world.set_storage({"state_dir": "life.zip"})`` reads."""
        with self.get(session_id).alone() as world, tempfile.TemporaryDirectory() as place:
            world.fork(state_dir=Path(place) / "life")
            return Path(shutil.make_archive(f"{place}/life", "zip", Path(place) / "life")).read_bytes()
