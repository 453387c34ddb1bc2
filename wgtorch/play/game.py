"""One world that people play: one pass at a time in a thread of its own, watched by everybody who has the page open."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from wgtorch.core.errors import WgtorchError, suggest
from wgtorch.play.episodes import Episodes, slot_text
from wgtorch.world import World

LONGEST_ACTION = 2000  # letters
_KEPT_EVENTS = 256  # for pages that come back
FIRST_BRANCH = "main"


class PlayError(WgtorchError, ValueError):
    """What somebody asked of a game cannot be done now; the message says why and what can."""


class Game:
    """A world that is played.

    Passes run in a thread, one at a time; between two stages named in :attr:`pauses` the pass waits, and slots may be edited. All that
    happens is told to subscribers as events ``{"id", "kind", ...}`` of the kinds ``begun``, ``stage``, ``paused``, ``pass``, ``failed``
    and ``changed``.

    Args:
        world: what is played; its life goes on where it is.
        seed: root of all random draws of a life that has none yet.

    Example:
        >>> game = Game(World.from_template("default"), seed=7)
        >>> game.act("go to the sea"); game.wait()
    """

    def __init__(self, world: World, *, seed: int | None = None) -> None:
        self.seed = seed
        self.branch = FIRST_BRANCH
        self.branches: dict[str, World] = {FIRST_BRANCH: world}
        self.parents: dict[str, tuple[str, int] | None] = {FIRST_BRANCH: None}
        self.episodes: dict[str, Episodes] = {FIRST_BRANCH: Episodes(world)}
        self.pauses: set[str] = set()
        self.paused_after: str | None = None
        self.stage: str | None = None
        self.action: str | None = None
        self.error: dict[str, str] | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._go_on = threading.Event()
        self._stop = threading.Event()
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)
        self._next_event = 1
        self._subscribers: set[Callable[[dict[str, Any]], None]] = set()

    @property
    def world(self) -> World:
        """The world of the branch that is played."""
        return self.branches[self.branch]

    @property
    def is_busy(self) -> bool:
        """A pass is running, or waits between two stages."""
        return self._thread is not None and self._thread.is_alive()

    # --- what a person does -------------------------------------------------------------------------------------------

    def act(self, action: str | None = None) -> None:
        """Begins the next pass, or goes on with one that stopped; returns at once.

        Args:
            action: what the person does; None lets the world develop by itself.

        Raises:
            PlayError: somebody's pass is running, or the action is too long.
        """
        action = (action or "").strip() or None
        if action is not None and len(action) > LONGEST_ACTION:
            raise PlayError(f"the action has {len(action)} letters; expected at most {LONGEST_ACTION}")
        with self._lock:
            if self.is_busy:
                raise PlayError("the world is busy with another action; wait until it is through")
            self.error, self.stage, self.action = None, None, action
            self._stop.clear()
            self._go_on.clear()
            self._thread = threading.Thread(target=self._pass, args=(action,), name="wgtorch-play", daemon=True)
            self.publish("begun", action=action)
            self._thread.start()

    def wait(self, timeout: float | None = None) -> None:
        """Waits for the pass that is running."""
        if self._thread is not None:
            self._thread.join(timeout)

    def proceed(self) -> None:
        """Lets a pass that waits between two stages go on.

        Raises:
            PlayError: none waits.
        """
        if self.paused_after is None:
            raise PlayError("nothing waits to go on")
        self._go_on.set()

    def stop(self) -> None:
        """Stops the pass that is running after the stage it is in; the next action goes on from there."""
        self._stop.set()
        self._go_on.set()

    def set_pauses(self, stages: Iterator[str] | list[str]) -> None:
        """Says after which stages a pass waits to be looked at.

        Raises:
            PlayError: there is no such stage.
        """
        chosen = [str(stage) for stage in stages]
        for stage in chosen:
            if stage not in self.world.cycle:
                raise PlayError(f"no stage {stage!r}; {suggest(stage, self.world.cycle)}")
        self.pauses = set(chosen)
        self.publish("changed")

    def edit(self, slot: str, text: str) -> None:
        """Replaces a slot of the state in flight: text as it is, anything else as JSON; empty text empties the slot.

        Raises:
            PlayError: a pass is running, the slot does not exist or cannot be written as text, or the text does not fit it.
        """
        if self.is_busy and self.paused_after is None:
            raise PlayError("the world is busy; slots can be edited between stages")
        state = self.world.state
        if state is None or slot not in state:
            raise PlayError(f"no slot {slot!r} to edit; {suggest(slot, self.world.state_schema)}")
        old = state[slot]
        if old is not None and slot_text(old) is None:
            raise PlayError(f"slot {slot!r} holds what cannot be written as text; it can only be made anew by its stage")
        value: Any = text or None
        if value is not None and old is not None and not isinstance(old, str):
            try:
                value = json.loads(text)
            except ValueError as error:
                raise PlayError(f"slot {slot!r}: expected JSON, as it was: {error}") from error
            if type(value) is not type(old):
                raise PlayError(f"slot {slot!r}: expected a {_json_name(old)}, as it was, found a {_json_name(value)}")
        self.world.state = state.replace(**{slot: value})
        self.episodes[self.branch].changed()
        self.publish("changed")

    def undo(self, passes: int = 1) -> None:
        """Takes back the last passes.

        Raises:
            PlayError: a pass is running, there are not so many, or the world cannot go back.
        """
        with self._idle():
            target = self.world.life.passes - passes
            if passes < 1 or target < 0:
                raise PlayError(f"there are {self.world.life.passes} passes; {passes} cannot be taken back")
            if not self.can_go_back:
                raise PlayError("this world cannot go back: it has no World.rewind")
            _method(self.world, "rewind")(target)
            self.error = None
            self.episodes[self.branch].forget()
        self.publish("changed")

    def fork(self, name: str, passes: int | None = None) -> None:
        """Makes a branch that shares the past up to a pass, and plays it from now on.

        Raises:
            PlayError: a pass is running, the name is taken or empty, or the world cannot be forked.
        """
        name = name.strip()[:60]
        with self._idle():
            if not name or name in self.branches:
                raise PlayError(f"a branch needs a name of its own; there are {', '.join(self.branches)}")
            if not self.can_branch:
                raise PlayError("this world cannot be branched: it has no World.fork")
            step = self.world.life.passes if passes is None else passes
            self.branches[name] = forked = _method(self.world, "fork")(step=step)
            self.parents[name], self.episodes[name] = (self.branch, step), Episodes(forked)
            self.branch, self.error = name, None
        self.publish("changed")

    def switch(self, name: str) -> None:
        """Plays another branch from now on.

        Raises:
            PlayError: a pass is running, or there is no such branch.
        """
        with self._idle():
            if name not in self.branches:
                raise PlayError(f"no branch {name!r}; {suggest(name, self.branches)}")
            self.branch, self.error = name, None
        self.publish("changed")

    @property
    def can_go_back(self) -> bool:
        """Whether :meth:`undo` works for this world."""
        return hasattr(self.world, "rewind")

    @property
    def can_branch(self) -> bool:
        """Whether :meth:`fork` works for this world."""
        return hasattr(self.world, "fork")

    # --- who watches --------------------------------------------------------------------------------------------------

    def publish(self, kind: str, **data: Any) -> None:
        """Tells everybody that something happened."""
        with self._lock:
            event = {"id": self._next_event, "kind": kind, **data}
            self._next_event += 1
            self._events.append(event)
            subscribers = list(self._subscribers)
        for tell in subscribers:
            tell(event)

    @contextmanager
    def subscribed(self, after: int | None = None) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        """Events from now on, or from the one after number `after`, as a queue of the running event loop."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()

        def tell(event: dict[str, Any]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, event)

        with self._lock:
            for event in self._events:
                if after is not None and event["id"] > after:
                    queue.put_nowait(event)
            self._subscribers.add(tell)
        try:
            yield queue
        finally:
            with self._lock:
                self._subscribers.discard(tell)

    # --- private steps ------------------------------------------------------------------------------------------------

    @contextmanager
    def _idle(self) -> Iterator[None]:
        with self._lock:
            if self.is_busy:
                raise PlayError("the world is busy; wait until the pass is through")
            yield

    def _pass(self, action: str | None) -> None:
        world, episodes = self.world, self.episodes[self.branch]
        try:
            seed = self.seed if world.life.seed is None else None
            for step in world.stream(action=action, seed=seed):
                if step.kind != "stage":
                    continue
                self.stage = step.stage
                episodes.changed()
                self.publish("stage", stage=step.stage, skipped=step.skipped, seconds=round(step.elapsed, 2))
                if step.stage in self.pauses and not self._stop.is_set():
                    self._pause(str(step.stage))
                if self._stop.is_set():
                    break
        except Exception as error:
            notes = getattr(error, "__notes__", [])
            self.error = {"type": type(error).__name__, "message": "\n".join([str(error), *notes])}
            self.publish("failed", **self.error)
        finally:
            self.stage = None
            episodes.changed()
            self.publish("pass", passes=world.life.passes)

    def _pause(self, stage: str) -> None:
        self.paused_after = stage
        self._go_on.clear()
        self.publish("paused", stage=stage)
        self._go_on.wait()
        self.paused_after = None


def _method(world: World, name: str) -> Callable[..., Any]:
    """A method that not every kind of world has."""
    found: Callable[..., Any] = getattr(world, name)
    return found


def _json_name(value: Any) -> str:
    return "mapping" if isinstance(value, Mapping) else "list" if isinstance(value, (list, tuple)) else type(value).__name__
