"""Calls of a node that are made again when they fail: how often, after how long, and after which errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from wgtorch.core.errors import EndpointError, RunCancelled, RunTimeoutError, StructureTypeError, suggest
from wgtorch.core.kinds import describe
from wgtorch.core.registry import Registry

RetryConditions: Registry[Callable[[BaseException], bool]] = Registry("condition of retries")
"""Which errors are worth another call, by the name that configs hold."""
_DEFAULTS: dict[str, Any] = {"times": 2, "wait": 0.5, "factor": 2.0, "longest": 30.0, "on": "any"}
_LOOK = 0.02  # seconds between looks at a cancelled run while it waits


def register_retry(name: str) -> Callable[[Callable[[BaseException], bool]], Callable[[BaseException], bool]]:
    """Decorator: names a condition of retries, so that configs may hold it.

    Example:
        >>> @register_retry("busy")
        ... def is_busy(error): return "busy" in str(error)
        >>> graph.add_node(llm, "llm", retry={"times": 3, "on": "busy"})
    """

    def decorate(condition: Callable[[BaseException], bool]) -> Callable[[BaseException], bool]:
        RetryConditions.register(name, condition)
        return condition

    return decorate


@register_retry("any")
def _any(error: BaseException) -> bool:
    return True


@register_retry("transport")
def _transport(error: BaseException) -> bool:
    return isinstance(error, (ConnectionError, TimeoutError, EndpointError))


def check_retry(retry: Any, where: str) -> dict[str, Any]:
    """What a place says of retries, with what is left out filled in.

    Args:
        retry: how many calls more, or a mapping: ``times``; ``wait``, seconds before the first of them; ``factor``, by which each wait is
            longer than the one before; ``longest``, seconds at most; ``on``, the name of a condition, a class of errors or several, or a
            function of the error.
        where: path of the place, for messages.

    Raises:
        StructureTypeError: it is something else.
        UnknownNameError: no condition is registered under that name.
    """
    given = {"times": retry} if isinstance(retry, int) and not isinstance(retry, bool) else retry
    if not isinstance(given, Mapping):
        raise StructureTypeError(
            f"{where}: retry={retry!r} is {describe(retry)}; expected how many calls more, or a mapping of {_DEFAULTS}"
        )
    for name in given:
        if name not in _DEFAULTS:
            raise StructureTypeError(f"{where}: retry has no {name!r}; {suggest(str(name), _DEFAULTS)}")
    filled = {**_DEFAULTS, **given}
    least = {"times": 1, "wait": 0, "factor": 1, "longest": 0}
    for name, bound in least.items():
        value = filled[name]
        kinds = (int,) if name == "times" else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not value >= bound:
            what = "a whole number" if name == "times" else "a number"
            raise StructureTypeError(f"{where}: retry's {name} is {value!r}; expected {what} from {bound}")
    _condition(filled["on"], where)
    return filled


def _condition(on: Any, where: str) -> Callable[[BaseException], bool]:
    """Which errors are worth another call."""
    kinds = tuple(on) if isinstance(on, (tuple, list)) else (on,)
    if isinstance(on, (tuple, list, type)):
        if not kinds or not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            raise StructureTypeError(
                f"{where}: retry's on is {on!r}; expected a condition's name, classes of errors, or a function of an error"
            )
        return lambda error: isinstance(error, kinds)
    return on if callable(on) else RetryConditions.get(on)


def call_again(call: Callable[[], Any], retry: Mapping[str, Any], run: Any, node: str, level: str) -> Any:
    """The result of a call, made again as often as the place allows; every call draws the same.

    Callbacks are told of each failure that is not the last, with an event of kind ``retry``.
    """
    worth = _condition(retry["on"], node)
    wait = float(retry["wait"])
    for attempt in range(retry["times"] + 1):
        try:
            return call()
        except (RunCancelled, RunTimeoutError):
            raise
        except Exception as error:
            if attempt == retry["times"] or not worth(error):
                if attempt:
                    error.add_note(f"{node} was called {attempt + 1} times")
                raise
            if run is not None:
                run.emit("retry", node, level, step=attempt, total=retry["times"], error=error)
        _wait(min(wait, float(retry["longest"])), run, node)
        wait *= retry["factor"]
    raise AssertionError("the last call returns or raises")


def _wait(seconds: float, run: Any, node: str) -> None:
    """Waits, unless the run is cancelled or late meanwhile."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if run is not None:
            run.check(node)
        time.sleep(left if run is None else min(left, _LOOK))
    if run is not None:
        run.check(node)
