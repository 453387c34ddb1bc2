"""Concurrent requests that share forward passes: their rows are joined for the run and cut apart again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
from torch import Tensor

from wgtorch.core.kinds import get_kind
from wgtorch.core.run.result_cache import keeping_nothing
from wgtorch.serving.requests import TaskRequest, read_request
from wgtorch.serving.services import Service, TaskService


@dataclass(slots=True)
class _Group:
    """Requests that ask for the same of different inputs."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    answers: list[asyncio.Future[Any]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    full: asyncio.Event = field(default_factory=asyncio.Event)


class Batcher:
    """Collects requests for a moment and runs those that go together at once.

    Requests to a graph or pipeline go together when they ask for the same outputs with the same limits, whatever their inputs are and
    whether or not each has a seed: a draw is keyed by the request's own seed and its own row, so each gives what it gives alone.

    Args:
        service: runs them.
        max_batch: rows of one pass.
        wait: seconds that the first of a pass waits for others.
    """

    def __init__(self, service: Service, max_batch: int, wait: float) -> None:
        self.service = service
        self.max_batch = max_batch
        self.wait = wait
        self._open: dict[Any, _Group] = {}

    def takes(self, message: Mapping[str, Any]) -> bool:
        """True for a request that may share a pass: one for the level as a whole, as a remote node's call for its place is not."""
        rows = rows_of(self.service, message)
        return rows is not None and rows <= self.max_batch

    async def answer(self, message: dict[str, Any], limiter: anyio.CapacityLimiter) -> dict[str, Any] | Exception:
        """The request's own part of what its group was answered, or what was raised."""
        rows = rows_of(self.service, message)
        assert rows is not None
        alike = {name: value for name, value in message.items() if name not in ("inputs", "seed")}
        key = repr(sorted(alike.items()))
        group = self._open.get(key)
        if group is None or sum(group.rows) + rows > self.max_batch:
            group = self._open[key] = _Group()
            begun = asyncio.create_task(self._run(key, group, limiter))
        else:
            begun = None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        group.messages.append(message)
        group.answers.append(future)
        group.rows.append(rows)
        if sum(group.rows) >= self.max_batch:
            group.full.set()
        found = await future
        if begun is not None:
            await begun
        return found

    async def _run(self, key: Any, group: _Group, limiter: anyio.CapacityLimiter) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(group.full.wait(), self.wait)
        if self._open.get(key) is group:
            del self._open[key]
        found = await anyio.to_thread.run_sync(self._together, group.messages, limiter=limiter)
        for future, answer in zip(group.answers, found, strict=True):
            if not future.done():
                future.set_result(answer)

    def _together(self, messages: list[dict[str, Any]]) -> list[dict[str, Any] | Exception]:
        """One answer for each request."""
        service = self.service
        assert isinstance(service, TaskService)
        answers: list[dict[str, Any] | Exception] = []
        ready: list[tuple[int, dict[str, Any], TaskRequest]] = []
        for index, message in enumerate(messages):
            try:
                request = read_request(TaskRequest, message)
                service.check_digest(request)
                ready.append((index, service.checked(request), request))
                answers.append({})
            except Exception as error:
                answers.append(error)
        if not ready:
            return answers
        first = ready[0][2]
        with keeping_nothing():  # the next request may be another caller's
            found = service.level.batch(
                [values for _, values, _ in ready],
                seed=None if all(request.seed is None for _, _, request in ready) else [request.seed for _, _, request in ready],
                batch_size=len(ready),
                outputs=first.outputs,
                num_loop_steps=first.num_loop_steps,
                timeout=service.limit(first.timeout),
            )
        for (index, _, _), result in zip(ready, found, strict=True):
            answers[index] = result if isinstance(result, Exception) else {"outputs": result}
        return answers


def rows_of(service: Service, message: Mapping[str, Any]) -> int | None:
    """How many rows a request has: one where no input says more; None when it cannot share a pass."""
    inputs = message.get("inputs", {})
    if not isinstance(service, TaskService) or not isinstance(inputs, dict):
        return None
    if any(message.get(name) for name in ("path", "draws", "iterations", "sample")):
        return None
    spec = service.level.get_input_spec()
    sizes = {_rows(value, spec[name].dtype) for name, value in inputs.items() if name in spec}
    if len(sizes - {None}) > 1:
        return None
    return next(iter(sizes - {None}), 1)


def _rows(value: Any, kind: str) -> int | None:
    if isinstance(value, Tensor) and value.dim() > (3 if get_kind(kind).name == "image" else 0):
        return int(value.shape[0])
    return len(value) if kind == "text" and isinstance(value, list) else None
