"""What a world's stages leave behind to be looked at later: whether each ran and why not, what it read and wrote, its calls, its time.

A trace is plain data: texts are cut, tensors told by their shape. What a stage made is in the stored states, not here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from wgtorch.core.kinds import describe
from wgtorch.core.run.context import RunContext, RunOptions
from wgtorch.core.run.events import Event
from wgtorch.core.run.result_cache import ResultCache
from wgtorch.core.structure import Node
from wgtorch.storage.base import Life
from wgtorch.world_runtime.changes import changes
from wgtorch.world_runtime.cycle import WorldStep
from wgtorch.world_runtime.state import State, holds_something, look_up

LONGEST = 4000  # letters of one text
_DEEPEST = 8  # mappings in mappings
_MOST = 200  # calls, and items of a list


class StageTrace(Mapping[str, Any]):
    """One stage of one pass, watched while it runs; then a mapping of what it left.

    What the State holds never changes, so it is put into words when somebody reads them; what the content holds, at once.

    Args:
        stage: what runs.
        stage_id: its id in the world.
        life: the world's, before the stage.
        state: the State before.
        action: the user's action.
    """

    def __init__(self, stage: Any, stage_id: str, life: Life, state: State, action: Any) -> None:
        self.stage, self.stage_id, self.place, self.index = stage, stage_id, life.stage, life.passes
        self.before, self.after, self.action = state, state, action
        self.content = life.content
        self.calls: list[dict[str, Any]] = []
        self._at = datetime.now(UTC)
        self._started = time.perf_counter()
        self._of_content = {source: self._told(source) for source, root, _ in stage.state_contract.sources if root == "content"}
        self._ended: dict[str, Any] = {}
        self._entry: dict[str, Any] | None = None

    def watched(self, run: RunContext, answers: ResultCache | None) -> RunContext:
        """The run, its calls that wait on a network noted, and answered by what was answered before. Other stages are left as they are."""
        if answers is None:
            return run
        return replace(run, options=replace(run.options, callbacks=(*run.options.callbacks, self._note), results=answers))

    def done(self, step: WorldStep) -> StageTrace:
        """The trace of a stage that is through."""
        self._ended = {"seconds": round(step.elapsed, 6), "skipped": step.skipped, "stored": step.stored}
        if step.skipped is None:
            self.after = self.before if step.state is None else step.state
            nodes = {node_id: reason for node_id, place in self.stage.node_specs.items() if (reason := self._why(place)) is not None}
            changed = (
                []
                if step.applied is None
                else [(each.path, each.kind, each.before, each.after) for each in changes(self.content, step.content)]
            )
            self._ended |= {"not_run": nodes, "updated": step.applied is not None, "changes": changed}
        self.content = {}
        return self

    def failed(self, error: BaseException) -> StageTrace:
        """The trace of a stage that ended with an error, or was stopped."""
        told = {"type": type(error).__name__, "message": cut(str(error)), "node": getattr(error, "node_path", None)}
        self._ended = {"seconds": round(time.perf_counter() - self._started, 6), "stored": None, "error": told}
        self.content = {}
        return self

    def __getitem__(self, name: str) -> Any:
        return self._words()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._words())

    def __len__(self) -> int:
        return len(self._words())

    def __reduce__(self) -> Any:
        return dict, (self._words(),)

    def _words(self) -> dict[str, Any]:
        if self._entry is None:
            self._entry = self._in_words()
            self.before = self.after = State(schema=self.before.schema)
        return self._entry

    def _in_words(self) -> dict[str, Any]:
        is_through, is_skipped = "error" not in self._ended, self._ended.get("skipped") is not None
        contract = self.stage.state_contract
        entry: dict[str, Any] = {
            "pass": self.index,
            "place": self.place,
            "stage": self.stage_id,
            "role": self.stage.role,
            "at": self._at.isoformat(timespec="milliseconds"),
            "skipped": None,
            "begins": bool(contract.new_state) and is_through and not is_skipped,
        }
        if self.action is not None:
            entry["action"] = plain(self.action)
        entry |= {name: self._ended[name] for name in ("seconds", "skipped", "stored") if name in self._ended}
        if is_skipped:
            return entry
        reads = {source: self._of_content.get(source) or self._told(source) for source in contract.reads.values()}
        entry["reads"] = {source: told[0] for source, told in reads.items() if told is not None}
        if not is_through:
            return {**entry, "calls": self.calls, "error": self._ended["error"]}
        after, before = self.after, self.before
        written = {slot: after[slot] for slot in after.schema if after[slot] is not before[slot]}
        entry["writes"] = {slot: plain(value) for slot, value in written.items() if holds_something(value)}
        optional = {"not_run": self._ended["not_run"], "calls": self.calls, "updated": self._ended["updated"]}
        optional["changes"] = self._ended["changes"]
        return {**entry, **{name: value for name, value in optional.items() if value}}

    def _told(self, source: str) -> tuple[Any] | None:
        """What the contract reads at a source, in words; of the whole content, which grows, its keys. None where that is nothing."""
        root, *fields = source.split(".")
        outside = {"action": self.action, "content": self.content}
        if root not in outside and root not in self.before:
            return None
        try:
            value = look_up(outside[root] if root in outside else self.before[root], fields, source)
        except ValueError:  # the stage itself will say so
            return None
        if not holds_something(value):
            return None
        return (describe(value) if source == "content" else plain(value),)

    def _why(self, place: Node) -> str | None:
        if place.condition is None:
            return None
        reason: str | None = self.stage.skip_reason(place, RunContext(RunOptions(""), state=self.before))
        return reason

    def _note(self, event: Event) -> None:
        """Keeps prompts, answers and usage of a block that waits or tells its usage; may be told from several threads."""
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
