"""A served world as a conversation: each message of the user is an action, each answer tells what came of it.

A client of OpenAI's interface sends the whole conversation each time. What it holds up to the last answer names a moment of a life, by a
digest of its messages (and of ``user``, where the caller says who that is): the life goes on from there. Where it has gone on already -
the answer is asked for again, an earlier message was changed, a second visitor says the same - a fork of that moment goes on, with draws
of its own. No two conversations move one life.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from wgtorch.core.checkpoint.atomic import write_file
from wgtorch.core.errors import Finding, RequestError
from wgtorch.play.episodes import images_of, words_of
from wgtorch.serving.sessions import Session, Sessions
from wgtorch.storage.media import png_bytes
from wgtorch.world import World
from wgtorch.world_runtime.cycle import stages_that_tell

_KEPT = 10_000  # conversations whose moments are known without a folder
_FOLDER = "chats"

Message = Mapping[str, str]


class WorldChat:
    """Conversations with a served world.

    Args:
        sessions: where their lives are. When there are as many as there may be, the conversation that was silent longest is put away;
            it goes on where sessions have a folder, and is over where they have none.
    """

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self._moments: OrderedDict[str, tuple[str, str]] = OrderedDict()  # by digest: id of a session, id of a commit
        self._asked: OrderedDict[str, int] = OrderedDict()  # by digest: how often a message was answered
        self._lock = threading.Lock()

    def answer(
        self,
        history: Sequence[Message],
        action: str,
        *,
        seed: int | None = None,
        caller: str | None = None,
        with_picture: bool = False,
        cancelled: Callable[[], bool] | None = None,
    ) -> dict[str, Any]:
        """What comes of an action.

        Args:
            history: the messages before it, each with ``role`` and ``content``.
            action: the user's message; an empty one lets the world develop by itself.
            seed: root of all draws from here on; the life's own where left out.
            caller: who speaks; conversations of different callers are different ones.
            with_picture: gives the episode's picture, too.
            cancelled: asked between nodes.

        Returns:
            As a service answers: ``{"outputs": {"text": ..., "usage": ..., "picture": "data:image/png;base64,..."}}``.

        Raises:
            RequestError: the conversation is not known (404), or another call is at work in it (409).
        """
        past = [[entry["role"], entry["content"]] for entry in history]
        asked = _digest(caller, [*past, ["user", action]])
        with self._lock:
            again = self._asked.get(asked, 0)
            _keep(self._asked, asked, again + 1)
            session, is_same_life = self._session(_digest(caller, past) if history else None)
            self.sessions.yields(session.id)
        if seed is None and (again or not is_same_life):
            seed = session.world.life.seed if not again and session.world.life.seed is not None else int(asked[:12], 16) + again
        with session.alone() as world:
            used = asdict(session.service.used.total)
            session.service.answer({"action": action.strip() or None, "seed": seed}, cancelled=cancelled)
            self._tell(world, cancelled)
            text = _words(world)
            self._note(_digest(caller, [*past, ["user", action], ["assistant", text]]), session.id, world.commits[-1].id)
            spent = asdict(session.service.used.total)
            outputs = {"text": text, "usage": {name: spent[name] - used[name] for name in ("prompt_tokens", "completion_tokens")}}
            images = images_of(world.state) if with_picture else []
            if images:
                outputs["picture"] = f"data:image/png;base64,{base64.b64encode(png_bytes(images[0])).decode()}"
        return {"outputs": outputs}

    def _session(self, past: str | None) -> tuple[Session, bool]:
        """The session in which a conversation goes on, and whether that is its own life and no fork of it."""
        if past is None:
            return self.sessions.create(), False
        place = self._moments.get(past) or self._noted(past)
        if place is None:
            mend = "Send the answers as they were given, or begin with one message of the user."
            found = Finding("request.messages", "answers that were not given here", "a conversation with this server", mend)
            raise RequestError("the conversation is not known", [found], status=404)
        try:
            session = self.sessions.get(place[0])
        except RequestError as error:
            if error.status != 404:
                raise
            text = "the conversation was put away for newer ones; begin another one, or serve with a folder for sessions"
            raise RequestError(text, status=404) from None
        with session.alone() as world:
            if world.commits[-1].id == place[1]:
                return session, True
        return self.sessions.create(of=session, commit=place[1]), False

    @staticmethod
    def _tell(world: World, cancelled: Callable[[], bool] | None) -> None:
        """Runs the stages of the next pass that only tell of the new episode."""
        told = stages_that_tell(world)
        if world.life.stage >= told:
            return
        with closing(world.stream(cancelled=cancelled)) as steps:
            for _ in steps:
                if world.life.stage == told:
                    break

    def _note(self, digest: str, session_id: str, commit: str) -> None:
        with self._lock:
            _keep(self._moments, digest, (session_id, commit))
        if self.sessions.folder is not None:
            text = json.dumps([session_id, commit])
            write_file(self.sessions.folder / _FOLDER / digest, lambda part: part.write_text(text, encoding="utf-8"))

    def _noted(self, digest: str) -> tuple[str, str] | None:
        """The moment that a server noted which ran before."""
        place = None if self.sessions.folder is None else self.sessions.folder / _FOLDER / digest
        if place is None or not place.is_file():
            return None
        session_id, commit = json.loads(place.read_text(encoding="utf-8"))
        return str(session_id), str(commit)


def _digest(caller: str | None, messages: Sequence[Sequence[str]]) -> str:
    return hashlib.blake2b(json.dumps([caller, messages]).encode(), digest_size=20).hexdigest()


def _keep(held: OrderedDict[str, Any], key: str, value: Any) -> None:
    held[key] = value
    held.move_to_end(key)
    while len(held) > _KEPT:
        held.popitem(last=False)


def _words(world: World) -> str:
    """What is told of the episode: the last slot that holds words, in the order of the State."""
    state = world.state
    return "" if state is None else next((text for slot in reversed(state.schema) if (text := words_of(state[slot]))), "")
