"""OpenTelemetry: a span for each level, node and model call of a run, and counts of calls and tokens.

Only the API package is needed (``pip install opentelemetry-api``); where no SDK is set up, nothing is recorded.
"""

from __future__ import annotations

import threading
from typing import Any, cast

from wgtorch.core.errors import require
from wgtorch.core.run.events import Event


class Telemetry:
    """A callback that tells OpenTelemetry of a run. One may serve several runs, one after the other or at once.

    Spans are named by the path of their node and nest as the levels do. Attributes are ``wgtorch.level``, ``wgtorch.root`` and, where a
    model told its usage, ``gen_ai.usage.input_tokens`` and ``gen_ai.usage.output_tokens``. What is skipped is an event of the span
    around it.

    Args:
        tracer: of OpenTelemetry; that of the global provider by default.

    Example:
        >>> graph.run({"prompt": "the sea"}, seed=7, callbacks=[Telemetry()])

    Raises:
        MissingExtraError: ``opentelemetry-api`` is not installed.
    """

    def __init__(self, tracer: Any = None) -> None:
        self._api = cast(Any, require("opentelemetry.trace", "telemetry"))
        meter = cast(Any, require("opentelemetry.metrics", "telemetry")).get_meter("wgtorch")
        self.tracer = tracer if tracer is not None else self._api.get_tracer("wgtorch")
        self.calls = meter.create_counter("wgtorch.calls", description="Calls of nodes, by level")
        self.tokens = meter.create_counter("wgtorch.tokens", description="Tokens that models used, by direction")
        self._open: dict[tuple[Any, str, str], list[Any]] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Told of every event of a run."""
        key = (getattr(event, "item", None), event.root, event.path)
        if event.kind == "start":
            parent = self._around(key)
            context = None if parent is None else self._api.set_span_in_context(parent)
            attributes = {"wgtorch.level": event.level, "wgtorch.root": event.root}
            span = self.tracer.start_span(event.path or event.root, context=context, attributes=attributes)
            with self._lock:
                self._open.setdefault(key, []).append(span)
            self.calls.add(1, {"wgtorch.level": event.level})
        elif event.kind in ("end", "error"):
            with self._lock:
                spans = self._open.get(key) or []
                span = spans.pop() if spans else None
                if not spans:
                    self._open.pop(key, None)
            if span is not None:
                self._finish(span, event)
        elif event.kind == "skip" and (around := self._around(key)) is not None:
            around.add_event("skip", {"wgtorch.path": event.path, "wgtorch.reason": event.reason or ""})

    def _finish(self, span: Any, event: Event) -> None:
        usage = (event.outputs or {}).get("usage")
        for entry in usage if isinstance(usage, (list, tuple)) else [usage]:
            if isinstance(entry, dict):
                for name, direction in (
                    ("input_tokens", "input"),
                    ("prompt_tokens", "input"),
                    ("output_tokens", "output"),
                    ("completion_tokens", "output"),
                ):
                    if isinstance(entry.get(name), (int, float)):
                        span.set_attribute(f"gen_ai.usage.{direction}_tokens", entry[name])
                        self.tokens.add(int(entry[name]), {"direction": direction})
        if event.kind == "error":
            span.set_status(self._api.Status(self._api.StatusCode.ERROR, event.reason or ""))
        span.end()

    def _around(self, key: tuple[Any, str, str]) -> Any:
        """The open span of the nearest level around a path."""
        item, root, path = key
        with self._lock:
            while path:
                path = path.rpartition("/")[0]
                if spans := self._open.get((item, root, path)):
                    return spans[-1]
        return None
