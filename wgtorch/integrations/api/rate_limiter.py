"""The line in front of an API: who may go now, who waits for how long. Counts are kept here, limits come with each caller."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

from wgtorch.integrations.api.terms import Limits

WINDOW = 60.0  # seconds that "per minute" looks back


class Counts:
    """Calls in flight, and tries and tokens of the last minute. Pure: the time is handed in."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.most_in_flight = 0
        self.paused_until = 0.0
        self._tries: deque[list[float]] = deque()  # [when, tokens], oldest first
        self._tokens = 0.0

    def delay(self, limits: Limits, tokens: int, now: float) -> float:
        """Seconds until a call of so many tokens may begin; infinite while it waits for another to end."""
        self._forget(now)
        if self.in_flight >= limits.in_flight:
            return math.inf
        delay = max(0.0, self.paused_until - now)
        if limits.requests_per_minute is not None and len(self._tries) >= limits.requests_per_minute:
            delay = max(delay, self._tries[len(self._tries) - limits.requests_per_minute][0] + WINDOW - now)
        if limits.tokens_per_minute is not None:
            delay = max(delay, self._until_tokens(limits.tokens_per_minute - tokens, now))
        return delay

    def begin(self, tokens: int, now: float) -> list[float]:
        """Counts a call that begins; the record is corrected when it ends."""
        record = [now, float(tokens)]
        self._tries.append(record)
        self._tokens += tokens
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return record

    def end(self, record: list[float], tokens: int | None) -> None:
        """Counts a call that ended, with the tokens it took where the answer said."""
        self.in_flight -= 1
        if tokens is None:
            return
        if record[0] > -math.inf:
            self._tokens += tokens - record[1]
        record[1] = float(tokens)

    def pause(self, until: float) -> None:
        """Lets nobody begin before a time."""
        self.paused_until = max(self.paused_until, until)

    def _forget(self, now: float) -> None:
        while self._tries and self._tries[0][0] <= now - WINDOW:
            record = self._tries.popleft()
            self._tokens -= record[1]
            record[0] = -math.inf

    def _until_tokens(self, room: float, now: float) -> float:
        """Seconds until the minute's tokens are at most ``room``; a call larger than the limit waits for an empty minute."""
        left, room = self._tokens, max(room, 0.0)
        if left <= room:
            return 0.0
        for when, tokens in self._tries:
            left -= tokens
            if left <= room:
                return when + WINDOW - now
        return 0.0


class RateLimiter:
    """Callers in the order they came; used inside one event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = Counts()
        self._clock = clock
        self._waiting: deque[tuple[Limits, int, asyncio.Future[list[float]]]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def enter(self, limits: Limits, tokens: int) -> list[float]:
        """Waits for a turn. Who gets one must :meth:`leave`."""
        place: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self._waiting.append((limits, tokens, place))
        self._let_in()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # let in and cancelled at once
                self.leave(place.result(), 0)
            else:
                self._let_in()
            raise

    def leave(self, record: list[float], tokens: int | None = None) -> None:
        """Ends a turn."""
        self.counts.end(record, tokens)
        self._let_in()

    def pause(self, seconds: float) -> None:
        """Lets nobody in for a while."""
        self.counts.pause(self._clock() + seconds)

    def _let_in(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while self._waiting:
            limits, tokens, place = self._waiting[0]
            if place.cancelled():
                self._waiting.popleft()
                continue
            delay = self.counts.delay(limits, tokens, self._clock())
            if delay > 0:
                if delay < math.inf:
                    self._alarm = asyncio.get_running_loop().call_later(delay, self._let_in)
                return
            self._waiting.popleft()
            place.set_result(self.counts.begin(tokens, self._clock()))
