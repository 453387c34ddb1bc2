"""``run(profile=...)``: where the time of a run goes, by node and by PyTorch's operators, as a table and as a Chrome trace.

PyTorch's own profiler records; every level, node and call of a model is a span in it (``record_function``), named by its path.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wgtorch.core.errors import PortTypeError
from wgtorch.core.kinds import describe
from wgtorch.core.run.events import Callback, Event, callbacks_of


@dataclass(slots=True)
class NodeTime:
    """What the calls of one node took together.

    Args:
        path: of the node.
        level: ``graph``, ``block``, ...
        calls: how many.
        total: seconds, with what is below it.
        own: seconds, without; calls that overlap each other are counted in full, so it may be less than 0.
        tokens: that its models told of, in and out.
        cost: money, by the price table, where a model told of it.
    """

    path: str
    level: str
    calls: int = 0
    total: float = 0.0
    own: float = 0.0
    tokens: int = 0
    cost: float = 0.0


class Profile:
    """What one or several runs took. Give it to a run, then look at it.

    Example:
        >>> profile = Profile()
        >>> graph.run({"prompt": "the sea"}, seed=7, profile=profile)
        >>> print(profile)                              # nodes, then operators
        >>> profile.save("trace.json")                  # for chrome://tracing and ui.perfetto.dev
        >>> profile.nodes["backbone"].total

    Attributes:
        nodes: by path, in the order in which they ended first.
        operators: PyTorch's profile of the last run, as :class:`torch.profiler.profile`; None before.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, NodeTime] = {}
        self.operators: Any = None
        self._lock = threading.Lock()
        self._open = threading.local()

    def __call__(self, event: Event) -> None:
        """Told of every event of a run."""
        if event.kind == "start":
            span = torch.profiler.record_function(f"{event.level} {event.path}")
            self._spans().append((event.path, span))
            span.__enter__()
        elif event.kind in ("end", "error"):
            spans = self._spans()
            if spans and spans[-1][0] == event.path:
                spans.pop()[1].__exit__(None, None, None)
            self._count(event)

    def _spans(self) -> list[tuple[str, Any]]:
        """Those that are open in this thread, the outermost first."""
        if not hasattr(self._open, "spans"):
            self._open.spans = []
        return self._open.spans  # type: ignore[no-any-return]

    def _count(self, event: Event) -> None:
        elapsed = event.elapsed or 0.0
        with self._lock:
            node = self.nodes.setdefault(event.path, NodeTime(event.path, event.level))
            node.level = event.level
            node.calls += 1
            node.total += elapsed
            node.own += elapsed
            above = event.path.rpartition("/")[0]
            if above:
                self.nodes.setdefault(above, NodeTime(above, "")).own -= elapsed
            usage = (event.outputs or {}).get("usage")
            for used in usage if isinstance(usage, (list, tuple)) else (usage,):
                if isinstance(used, Mapping):
                    node.tokens += sum(int(used.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
                    node.cost += float(used.get("cost") or 0.0)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the Chrome trace of the last run.

        Raises:
            PortTypeError: nothing was run with it yet.
        """
        if self.operators is None:
            raise PortTypeError("Profile: nothing was run with it yet; give it to a run, as graph.run(..., profile=profile)")
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.operators.export_chrome_trace(str(target))
        return target

    def table(self, rows: int = 30) -> str:
        """Nodes as a table, those that took longest by themselves first."""
        found = sorted(self.nodes.values(), key=lambda node: -node.own)[:rows]
        whole = sum(node.own for node in self.nodes.values()) or 1.0
        width = max([4, *(len(node.path) for node in found)])
        priced = any(node.tokens or node.cost for node in found)
        lines = [
            f"{'node':<{width}}  {'level':<8} {'calls':>6} {'total ms':>10} {'own ms':>10} {'own %':>6}"
            + priced * f" {'tokens':>8} {'cost':>8}"
        ]
        for node in found:
            times = f"{node.total * 1e3:>10.2f} {node.own * 1e3:>10.2f} {node.own / whole:>6.1%}"
            line = f"{node.path:<{width}}  {node.level:<8} {node.calls:>6} {times}"
            lines.append(line + priced * f" {node.tokens:>8} {node.cost:>8.4f}")
        return "\n".join(lines)

    def __str__(self) -> str:
        if self.operators is None:
            return self.table()
        rows = [row for row in self.operators.key_averages() if not row.key.startswith(_LEVELS)]
        rows.sort(key=lambda row: -(row.self_device_time_total + row.self_cpu_time_total))
        lines = [f"{'operator':<48} {'calls':>6} {'CPU ms':>10} {'device ms':>10}"]
        for row in rows[:12]:
            lines.append(
                f"{row.key[:48]:<48} {row.count:>6} {row.self_cpu_time_total / 1e3:>10.2f} {row.self_device_time_total / 1e3:>10.2f}"
            )
        return "\n".join([self.table(), "", *lines])


def check_profile(profile: Any, where: str) -> None:
    """Refuses what says nothing of a profile.

    Raises:
        PortTypeError: it is neither a bool, nor a path, nor a :class:`Profile`.
    """
    if not isinstance(profile, (bool, str, os.PathLike, Profile)):
        raise PortTypeError(f"{where}: profile is {describe(profile)}; expected True, a path for the trace, or a Profile")


_LEVELS = ("world ", "stage ", "pipeline ", "graph ", "block ", "ProfilerStep", "profiler::")


def profiled(run: Callable[..., Any], profile: Any, callbacks: Callback | Iterable[Callback] | None, where: str) -> Any:
    """Makes a run with a profiler around it.

    Args:
        run: takes ``callbacks``.
        profile: True prints the table; a path writes the trace there and prints the table; a :class:`Profile` is filled.
        callbacks: of the run.
        where: id of the level, for messages.

    Raises:
        PortTypeError: it is something else.
    """
    check_profile(profile, where)
    found = profile if isinstance(profile, Profile) else Profile()
    told = () if callbacks is None else callbacks_of(callbacks, where)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    # Nodes that wait, or have a time limit, run in threads of their own.
    everywhere = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with torch.profiler.profile(activities=activities, experimental_config=everywhere) as found.operators:
        result = run(callbacks=[found, *told])
    if isinstance(profile, (str, os.PathLike)):
        found.save(profile)
    if not isinstance(profile, Profile):
        print(found)
    return result
