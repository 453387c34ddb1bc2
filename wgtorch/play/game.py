"""One world that people play: one pass at a time in a thread of its own, watched by everybody who has the page open."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from wgtorch.core.checkpoint.atomic import write_file
from wgtorch.core.errors import WgtorchError, suggest, without_python_advice
from wgtorch.core.json_text import loads, parse_json
from wgtorch.play.episodes import Episodes, slot_text
from wgtorch.storage.commit import Commit
from wgtorch.storage.log import CommitLog
from wgtorch.world import World
from wgtorch.world_runtime.cycle import stages_that_tell

LONGEST_ACTION = 2000  # letters
_KEPT_EVENTS = 256  # for pages that come back
FIRST_BRANCH = "main"
_BRANCHES = "branches.json"


class PlayError(WgtorchError, ValueError):
    """What somebody asked of a game cannot be done now; the message says why and what can."""


class Game:
    """A world that is played.

    Passes run in a thread, one at a time; between two stages named in :attr:`pauses` the pass waits, and slots may be edited. After a
    pass the stages of the next one that only tell of the new episode run too, so that what comes of an action is read before the next
    action is asked for. All that happens is told to subscribers as events ``{"id", "kind", ...}`` of the kinds ``begun``, ``stage``,
    ``paused``, ``pass``, ``failed`` and ``changed``.

    Attributes:
        is_busy: a pass is running, or waits between two stages.

    Args:
        world: what is played; its life goes on where it is.
        seed: root of all random draws of a life that has none yet.
        folder: where branches keep their lives; those that lie there already are played on. In memory when left out.

    Example:
        >>> game = Game(World.from_template("default"), seed=7)
        >>> game.act("go to the sea"); game.wait()
    """

    def __init__(self, world: World, *, seed: int | None = None, folder: str | os.PathLike[str] | None = None) -> None:
        self.seed = seed
        self.folder = None if folder is None else Path(folder)
        self.branch = FIRST_BRANCH
        self.branches: dict[str, World] = {FIRST_BRANCH: world}
        self.parents: dict[str, tuple[str, int] | None] = {FIRST_BRANCH: None}
        self.episodes: dict[str, Episodes] = {FIRST_BRANCH: Episodes(world)}
        self.pauses: set[str] = set()
        self.paused_after: str | None = None
        self.stage: str | None = None
        self.action: str | None = None
        self.error: dict[str, str] | None = None
        self.is_busy = False
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._go_on = threading.Event()
        self._stop = threading.Event()
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)
        self._next_event = 1
        self._subscribers: set[Callable[[dict[str, Any]], None]] = set()
        self._take_up_branches()

    @property
    def world(self) -> World:
        """The world of the branch that is played."""
        return self.branches[self.branch]

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
            self._begin(action, self._pass)

    def tell(self) -> None:
        """Begins to tell of the newest episode where that was cut off; returns at once. For a life that is taken up again."""
        with self._lock:
            if not self.is_busy and self.world.life.passes and self.world.life.stage < stages_that_tell(self.world):
                self._begin(None, self._tell)

    def begin(self) -> None:
        """Lets a new life begin by itself, or its first pass go on, so that there is something to act on; returns at once.

        A world whose stages ask models behind an API, which may cost, waits until somebody acts.
        """
        with self._lock:
            life, world = self.world.life, self.world
            if not (self.is_busy or life.passes or any(stage.is_async for stage in world.nodes.values())):
                self._begin(None, self._pass)

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
                value = parse_json(text)
            except ValueError as error:
                raise PlayError(f"slot {slot!r}: expected JSON, as it was: {error}") from error
            if type(value) is not type(old):
                raise PlayError(f"slot {slot!r}: expected a {_json_name(old)}, as it was, found a {_json_name(value)}")
        with self._lock:
            told = stages_that_tell(self.world)
            is_over = not self.is_busy and bool(self.world.life.passes) and self.world.life.stage <= told
            if is_over:
                self._back_to_before_telling(slot)
            self.world.edit(**{slot: value})
            self.episodes[self.branch].forget()  # the newest stored step may be another now
            self.publish("changed")
            if is_over and self.world.life.stage > told:
                self._begin(None, self._pass)  # the stages that made something of it run again
        self.tell()

    def undo(self, passes: int = 1) -> None:
        """Takes back the last passes.

        Raises:
            PlayError: a pass is running, there are not so many, or the world's storage keeps no log.
        """
        with self._idle():
            target = self.world.life.passes - passes
            if passes < 1 or target < 0:
                raise PlayError(f"there are {self.world.life.passes} passes; {passes} cannot be taken back")
            self._need_log()
            self.world.rewind(commit=self._end_of(target) if target else self.world.commits[0])
            self.error = None
            self.episodes[self.branch].forget()
        self.publish("changed")
        self.tell()

    def fork(self, name: str, passes: int | None = None) -> None:
        """Makes a branch that shares the past up to a pass, and plays it from now on.

        Args:
            name: of the branch.
            passes: how many passes they share; all that there are when left out.

        Raises:
            PlayError: a pass is running, the name is taken or empty, there is no such pass, or the world's storage keeps no log.
        """
        name = name.strip()[:60]
        with self._idle():
            if not name or name in self.branches:
                raise PlayError(f"a branch needs a name of its own; there are {', '.join(self.branches)}")
            self._need_log()
            here = self.world.life.passes
            at = here if passes is None else passes
            if not 0 < at <= here:
                raise PlayError(f"there are {here} passes; a branch begins after one of them, found {at}")
            folder = None if self.folder is None else self.folder / f"{len(self.branches):03d}"
            self.branches[name] = forked = self.world.fork(commit=None if at == here else self._end_of(at), state_dir=folder)
            self.parents[name], self.episodes[name] = (self.branch, at), Episodes(forked)
            self._note_branches()
            self.branch, self.error = name, None
        self.publish("changed")
        self.tell()

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
        self.tell()

    @property
    def keeps_log(self) -> bool:
        """Whether the world's storage keeps a log, so that :meth:`undo` and :meth:`fork` work."""
        return isinstance(self.world.history.storage, CommitLog)

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

    def _need_log(self) -> None:
        if not self.keeps_log:
            kind = type(self.world.history.storage).__name__
            raise PlayError(f"the world's storage, {kind}, keeps no log, so there are no moments to go back to or to branch from")

    def _note_branches(self) -> None:
        if self.folder is None:
            return
        content = [{"name": name, "parent": self.parents[name]} for name in self.branches]
        write_file(self.folder / _BRANCHES, lambda part: part.write_text(json.dumps(content), encoding="utf-8"))

    def _take_up_branches(self) -> None:
        """Opens the branches of an earlier game: the folder's list has them in the order of their numbers."""
        if self.folder is None or not (self.folder / _BRANCHES).is_file():
            return
        for number, entry in enumerate(loads((self.folder / _BRANCHES).read_text(encoding="utf-8"))):
            if number:
                branch = self.world.fork()
                branch.set_storage({"state_dir": str(self.folder / f"{number:03d}")})
                self.branches[entry["name"]] = branch.resume()
                self.parents[entry["name"]] = tuple(entry["parent"])
                self.episodes[entry["name"]] = Episodes(branch)

    @contextmanager
    def _idle(self) -> Iterator[None]:
        with self._lock:
            if self.is_busy:
                raise PlayError("the world is busy; wait until the pass is through")
            yield

    def _begin(self, action: str | None, run: Callable[[str | None], None]) -> None:
        """Starts the thread of a pass, or of what is left of one."""
        self.error, self.stage, self.action, self.is_busy = None, None, action, True
        self._stop.clear()
        self._go_on.clear()
        self._thread = threading.Thread(target=self._guarded, args=(action, run), name="wgtorch-play", daemon=True)
        self.publish("begun", action=action)
        self._thread.start()

    def _guarded(self, action: str | None, run: Callable[[str | None], None]) -> None:
        world, episodes = self.world, self.episodes[self.branch]
        try:
            run(action)
        except Exception as error:
            without_python_advice(error)  # the page has its own
            notes = getattr(error, "__notes__", [])
            self.error = {"type": type(error).__name__, "message": "\n".join([str(error), *notes])}
            self.publish("failed", **self.error)
        finally:
            self.stage = None
            episodes.changed()
            self.is_busy = False  # before the event, since a page that hears it asks at once, and once
            self.publish("pass", passes=world.life.passes)

    def _pass(self, action: str | None) -> None:
        """What is left of a pass, and what the next one tells of it."""
        passes = self.world.life.passes
        self._live(action)
        if self.world.life.passes > passes:
            self._tell()

    def _tell(self, action: str | None = None) -> None:
        told = stages_that_tell(self.world)
        if self.world.life.stage < told:
            self._live(None, until=told)

    def _live(self, action: str | None, until: int | None = None) -> None:
        """Runs stages to the end of the pass, or until the life is at a place of the cycle."""
        world = self.world
        steps = world.stream(action=action, seed=self.seed if world.life.seed is None else None)
        with closing(steps):
            for step in steps:
                if step.kind != "stage":
                    continue
                self.stage = step.stage
                self.episodes[self.branch].changed()
                self.publish("stage", stage=step.stage, skipped=step.skipped, seconds=round(step.elapsed, 2))
                if step.stage in self.pauses and not self._stop.is_set():
                    self._pause(str(step.stage))
                if self._stop.is_set() or world.life.stage == until:
                    break

    def _end_of(self, passes: int) -> Commit:
        """The moment after so many passes, with what was told of the last one."""
        told = stages_that_tell(self.world)
        found = next((one for one in reversed(self.world.commits) if one.passes == passes and one.stage <= told), None)
        if found is None:
            raise PlayError(f"the world's log has no moment after pass {passes}")
        return found

    def _back_to_before_telling(self, slot: str) -> None:
        """Takes back what was told of an episode of which something else is edited: the stages that made it come first."""
        life, told = self.world.life, stages_that_tell(self.world)
        telling = [self.world.nodes[stage_id].state_contract for stage_id in self.world.cycle[:told]]
        if not self.keeps_log or not 0 < life.stage <= told or slot in {name.split(".")[0] for one in telling for name in one.writes}:
            return
        before = next((one for one in reversed(self.world.commits) if (one.passes, one.stage) == (life.passes, 0)), None)
        if before is not None:
            self.world.rewind(commit=before)

    def _pause(self, stage: str) -> None:
        self.paused_after = stage
        self._go_on.clear()
        self.publish("paused", stage=stage)
        self._go_on.wait()
        self.paused_after = None


def _json_name(value: Any) -> str:
    return "mapping" if isinstance(value, Mapping) else "list" if isinstance(value, (list, tuple)) else type(value).__name__
