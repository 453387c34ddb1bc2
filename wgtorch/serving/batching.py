"""Concurrent requests that share one forward pass: their rows are joined for the run and cut apart again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import torch
from torch import Tensor

from wgtorch.core.kinds import get_kind
from wgtorch.serving.services import BlockService, Service, TaskService


@dataclass(slots=True)
class _Group:
    """Requests that differ in nothing but the values of their rows."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    answers: list[asyncio.Future[Any]] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    full: asyncio.Event = field(default_factory=asyncio.Event)


class Batcher:
    """Collects requests for a moment and runs those that go together at once.

    Requests go together when all their inputs are tensors whose first dimension is the batch, with the same names, dtypes
    and shapes of a row, and they ask for the same without a seed: draws are keyed by the place in the batch, so a seeded
    request is run alone and gives what it gives alone.

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
        """True for a request that may share a pass."""
        return _rows(self.service, message) is not None

    async def answer(self, message: dict[str, Any], limiter: anyio.CapacityLimiter) -> dict[str, Any] | Exception:
        """The request's own part of what its group was answered, or what was raised."""
        rows = _rows(self.service, message)
        assert rows is not None
        inputs = message["inputs"]
        like = tuple((name, value.dtype, tuple(value.shape[1:])) for name, value in sorted(inputs.items()))
        key = (like, repr([(name, message[name]) for name in sorted(message) if name != "inputs"]))
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
        found = await anyio.to_thread.run_sync(self._together, group.messages, group.rows, limiter=limiter)
        for future, answer in zip(group.answers, found, strict=True):
            if not future.done():
                future.set_result(answer)

    def _together(self, messages: Sequence[dict[str, Any]], rows: Sequence[int]) -> Sequence[dict[str, Any] | Exception]:
        """One answer for each request; where one pass for all fails, or its outputs have no rows, each is run alone."""
        if len(messages) > 1:
            names = messages[0]["inputs"]
            joined = {name: torch.cat([message["inputs"][name] for message in messages]) for name in names}
            try:
                outputs = self.service.answer({**messages[0], "inputs": joined})["outputs"]
            except Exception:
                outputs = None  # whose fault it was shows when each is run alone
            if outputs is not None and all(_has_rows(value, sum(rows)) for value in outputs.values()):
                parts = {name: _cut(value, rows) for name, value in outputs.items()}
                return [{"outputs": {name: part[index] for name, part in parts.items()}} for index in range(len(messages))]
        return [self._alone(message) for message in messages]

    def _alone(self, message: dict[str, Any]) -> dict[str, Any] | Exception:
        try:
            return self.service.answer(message)
        except Exception as error:
            return error


def _rows(service: Service, message: Mapping[str, Any]) -> int | None:
    """How many rows a request has; None when it cannot share a pass."""
    inputs = message.get("inputs")
    if not isinstance(service, (TaskService, BlockService)) or not isinstance(inputs, dict) or not inputs:
        return None
    if message.get("seed") is not None or not all(isinstance(value, Tensor) and value.dim() for value in inputs.values()):
        return None
    spec = service.level.get_input_spec()
    if any(name not in spec or (get_kind(spec[name].dtype).name == "image" and value.dim() != 4) for name, value in inputs.items()):
        return None
    sizes = {value.shape[0] for value in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else None


def _has_rows(value: Any, rows: int) -> bool:
    if isinstance(value, Tensor):
        return value.dim() > 0 and value.shape[0] == rows
    return isinstance(value, (list, tuple)) and len(value) == rows


def _cut(value: Any, rows: Sequence[int]) -> list[Any]:
    if isinstance(value, Tensor):
        return list(value.split(list(rows)))
    ends = [sum(rows[: index + 1]) for index in range(len(rows))]
    return [value[end - count : end] for end, count in zip(ends, rows, strict=True)]
