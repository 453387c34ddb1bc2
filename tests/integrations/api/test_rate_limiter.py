"""The line in front of an API, with the time handed in."""

from __future__ import annotations

import math

from wgtorch.integrations.api.rate_limiter import Counts
from wgtorch.integrations.api.terms import Limits


def test_a_call_waits_for_another_to_end_when_as_many_as_may_are_in_flight() -> None:
    counts, limits = Counts(), Limits(in_flight=2)
    first = counts.begin(1, 0.0)
    assert counts.delay(limits, 1, 0.0) == 0
    counts.begin(1, 0.0)
    assert counts.delay(limits, 1, 100.0) == math.inf
    counts.end(first, None)
    assert counts.delay(limits, 1, 100.0) == 0


def test_limits_are_of_the_caller_and_counts_of_all() -> None:
    counts = Counts()
    counts.begin(1, 0.0)
    counts.begin(1, 0.0)
    assert counts.delay(Limits(in_flight=2), 1, 0.0) == math.inf
    assert counts.delay(Limits(in_flight=3), 1, 0.0) == 0


def test_requests_of_a_minute_are_those_of_the_last_sixty_seconds() -> None:
    counts, limits = Counts(), Limits(requests_per_minute=3)
    for when in (0.0, 10.0, 20.0):
        assert counts.delay(limits, 1, when) == 0
        counts.end(counts.begin(1, when), None)
    assert counts.delay(limits, 1, 25.0) == 35.0
    assert counts.delay(limits, 1, 60.0) == 0
    counts.begin(1, 60.0)
    assert counts.delay(limits, 1, 60.0) == 10.0


def test_tokens_of_a_minute_wait_until_enough_of_them_are_old() -> None:
    counts, limits = Counts(), Limits(tokens_per_minute=100)
    counts.begin(60, 0.0)
    counts.begin(30, 10.0)
    assert counts.delay(limits, 10, 20.0) == 0
    assert counts.delay(limits, 40, 20.0) == 40.0
    assert counts.delay(limits, 80, 20.0) == 50.0
    assert counts.delay(limits, 40, 61.0) == 0


def test_an_estimate_gives_way_to_what_the_provider_counted() -> None:
    counts, limits = Counts(), Limits(tokens_per_minute=100)
    record = counts.begin(90, 0.0)
    assert counts.delay(limits, 50, 1.0) == 59.0
    counts.end(record, 20)
    assert counts.delay(limits, 50, 1.0) == 0


def test_a_record_that_is_corrected_after_its_minute_changes_nothing() -> None:
    counts, limits = Counts(), Limits(tokens_per_minute=100)
    record = counts.begin(90, 0.0)
    assert counts.delay(limits, 100, 60.0) == 0
    counts.end(record, 500)
    assert counts.delay(limits, 100, 60.0) == 0


def test_a_call_larger_than_the_limit_goes_alone_instead_of_never() -> None:
    counts, limits = Counts(), Limits(tokens_per_minute=100)
    assert counts.delay(limits, 1000, 0.0) == 0
    counts.begin(5, 0.0)
    assert counts.delay(limits, 1000, 1.0) == 59.0


def test_a_pause_that_a_provider_asks_for_holds_for_everybody() -> None:
    counts = Counts()
    counts.pause(7.0)
    assert counts.delay(Limits(), 1, 5.0) == 2.0
    assert counts.delay(Limits(), 1, 7.0) == 0
