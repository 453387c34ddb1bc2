"""What a run used: tokens, money and time, by node, by model and together."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wgtorch.core.run.events import Event


@dataclass(slots=True)
class Used:
    """A sum of calls.

    Args:
        calls: answers.
        replayed: how many of them came from a cassette, and cost nothing.
        prompt_tokens, completion_tokens: as the providers counted.
        cost: by the price table.
        unpriced: calls whose price is not known, and that are not in ``cost``.
        latency: seconds, added up; calls that overlapped took less together.
    """

    calls: int = 0
    replayed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0
    latency: float = 0.0

    def add(self, usage: Mapping[str, Any]) -> None:
        """Adds the usage of one answer."""
        calls = int(usage.get("calls") or 1)
        self.calls += calls
        self.latency += float(usage.get("latency") or 0.0)
        if usage.get("replayed"):
            self.replayed += calls
            return
        self.prompt_tokens += int(usage.get("prompt_tokens") or 0)
        self.completion_tokens += int(usage.get("completion_tokens") or 0)
        if usage.get("cost") is None:
            self.unpriced += calls if "provider" in usage else 0
        else:
            self.cost += float(usage["cost"])

    def __str__(self) -> str:
        text = f"{self.calls} calls, {self.prompt_tokens} + {self.completion_tokens} tokens, {self.cost:.4f}, {self.latency:.1f} s"
        text += f", {self.replayed} replayed" if self.replayed else ""
        return text + (f", {self.unpriced} without a known price" if self.unpriced else "")


class UsageMeter:
    """A callback that sums what nodes used; may be given to several runs, also at once.

    Example:
        >>> meter = UsageMeter()
        >>> world.run(num_steps=3, callbacks=[meter])
        >>> meter.total.cost, meter.nodes["storytelling/author/tell/author/llm"].calls
        >>> print(meter)
    """

    def __init__(self) -> None:
        self.total = Used()
        self.nodes: dict[str, Used] = {}
        self.models: dict[str, Used] = {}
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        if event.kind != "end" or event.level != "block" or not isinstance(event.outputs, Mapping):
            return
        for usage in _usages(event.outputs.get("usage")):
            with self._lock:
                if (name := usage.get("id")) is not None:
                    if name in self._seen:  # an answer kept from a pass that failed is told of again
                        continue
                    self._seen.add(name)
                model = "/".join(str(usage[part]) for part in ("provider", "model") if part in usage) or "local"
                for used in (self.total, self.nodes.setdefault(event.path, Used()), self.models.setdefault(model, Used())):
                    used.add(usage)

    def under(self, path: str) -> Used:
        """What a level and everything below it used: ``under("author")``."""
        found = Used()
        with self._lock:
            for name, used in self.nodes.items():
                if name == path or name.startswith(f"{path}/"):
                    for field in Used.__dataclass_fields__:
                        setattr(found, field, getattr(found, field) + getattr(used, field))
        return found

    def __str__(self) -> str:
        rows = [f"{path}: {used}" for path, used in sorted(self.nodes.items())]
        return "\n".join([*rows, f"together: {self.total}"])


def _usages(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        if value:
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _usages(item)
