"""What a world's stages leave behind to be looked at later: whether each ran and why not, what it read and wrote, its calls, its time.

A trace is plain data: texts are cut, tensors told by their shape. What a stage made is in the stored states, not here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import astuple, replace
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from wgtorch.core.kinds import describe
from wgtorch.core.run.context import Event, RunContext, RunOptions
from wgtorch.world_runtime.changes import changes
from wgtorch.world_runtime.cycle import WorldStep
from wgtorch.world_runtime.state import State, holds_something, look_up

LONGEST = 4000  # letters of one text
_DEEPEST = 8  # mappings in mappings
_MOST = 200  # calls, and items of a list


class StageTrace:
    """One stage of one pass, watched while it runs.

    Args:
        stage: what runs.
        stage_id: its id in the world.
        place: its place in the cycle.
        index: number of the pass.
        state: the State before.
        action: the user's action.
        content: the world's content before.
    """

    def __init__(self, stage: Any, stage_id: str, *, place: int, index: int, state: State, action: Any, content: Mapping[str, Any]) -> None:
        self.stage = stage
        self.before = state
        self.content = content
        self.calls: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._started = time.perf_counter()
        self.entry: dict[str, Any] = {
            "pass": index,
            "place": place,
            "stage": stage_id,
            "role": stage.role,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "skipped": None,
            "begins": bool(stage.state_contract.new_state),
        }
        if action is not None:
            self.entry["action"] = plain(action)
        self._reads = self._read(state, action, content)

    def watched(self, run: RunContext) -> RunContext:
        """The run, its calls that wait on a network noted. Other stages are left as they are: being told of every node has a price."""
        if not self.stage.is_async:
            return run
        return replace(run, options=replace(run.options, callbacks=(*run.options.callbacks, self._note)))

    def done(self, step: WorldStep) -> dict[str, Any]:
        """The trace of a stage that is through."""
        entry = {**self.entry, "seconds": round(step.elapsed, 6), "skipped": step.skipped, "stored": step.stored}
        if step.skipped is not None:
            return {**entry, "begins": False}
        nodes = {node_id: reason for node_id in self.stage.node_specs if (reason := self._why(node_id)) is not None}
        after = step.state
        changed = [] if after is None else [slot for slot in after.schema if after[slot] is not self.before[slot]]
        entry |= {
            "reads": self._reads,
            "writes": {slot: plain(after[slot]) for slot in changed if after is not None and holds_something(after[slot])},
        }
        optional: dict[str, Any] = {"not_run": nodes, "calls": self.calls, "updated": step.applied is not None}
        if step.applied is not None:
            optional["changes"] = [astuple(change) for change in changes(self.content, step.content)]
        return {**entry, **{name: value for name, value in optional.items() if value}}

    def failed(self, error: BaseException) -> dict[str, Any]:
        """The trace of a stage that ended with an error, or was stopped."""
        told = {"type": type(error).__name__, "message": cut(str(error)), "node": getattr(error, "node_path", None)}
        seconds = round(time.perf_counter() - self._started, 6)
        return {**self.entry, "begins": False, "seconds": seconds, "stored": None, "reads": self._reads, "calls": self.calls, "error": told}

    def _read(self, state: State, action: Any, content: Mapping[str, Any]) -> dict[str, Any]:
        """What the contract reads; of the whole content, which grows, its keys."""
        outside = {"action": action, "content": content}
        found = {}
        for source in dict.fromkeys(self.stage.state_contract.reads.values()):
            root, *fields = source.split(".")
            if root not in outside and root not in state:
                continue
            try:
                value = look_up(outside[root] if root in outside else state[root], fields, source)
            except ValueError:  # the stage itself will say so
                continue
            if holds_something(value):
                found[source] = describe(value) if source == "content" else plain(value)
        return found

    def _why(self, node_id: str) -> str | None:
        place = self.stage.node_specs[node_id]
        if place.condition is None:
            return None
        reason: str | None = self.stage.skip_reason(place, RunContext(RunOptions(""), state=self.before))
        return reason

    def _note(self, event: Event) -> None:
        """Keeps prompts, answers and usage of a block that waits or tells its usage."""
        if event.kind not in ("end", "error") or event.level != "block" or len(self.calls) >= _MOST:
            return
        outputs = event.outputs or {}
        call = {
            "path": event.path,
            "seconds": round(event.elapsed or 0.0, 6),
            "given": {name: plain(value) for name, value in (event.inputs or {}).items() if _is_short(value)},
            "gave": {name: plain(value) for name, value in outputs.items() if name != "usage" and _is_short(value)},
        }
        if outputs.get("usage"):
            call["usage"] = plain(outputs["usage"])
        if event.error is not None:
            call["error"] = f"{type(event.error).__name__}: {cut(str(event.error))}"
        with self._lock:
            self.calls.append(call)


def plain(value: Any, *, longest: int | None = LONGEST, depth: int = 0) -> Any:
    """A value as JSON data: tensors by their shape, texts cut to ``longest`` letters (None: whole)."""
    if isinstance(value, Tensor):
        return {"tensor": describe(value)}
    if isinstance(value, str):
        return value if longest is None else cut(value, longest)
    if longest is not None and depth > _DEEPEST:
        return describe(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, longest=longest, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = value if longest is None else value[:_MOST]
        return [plain(item, longest=longest, depth=depth + 1) for item in items]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return repr(value)
    return value if value is None or isinstance(value, (bool, int, float)) else describe(value)


def cut(text: str, longest: int = LONGEST) -> str:
    """A text, its end left out when it is long."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} letters)"


def _is_short(value: Any) -> bool:
    """True for what is worth keeping of a call: texts, numbers, and lists and mappings of these."""
    return value is not None and not isinstance(value, Tensor)
