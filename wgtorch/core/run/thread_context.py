"""What a call takes along into another thread: context variables, adapters, grad mode, autocast, served draws."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch

from wgtorch.core import adapter_hook
from wgtorch.core.run.active_call import ActiveCall, enter_call
from wgtorch.core.run.autocast import autocast_states
from wgtorch.core.run.foreign_draws import is_serving, serving


class _autocast_as:
    """Sets autocast of every device type, in a thread that begins; the state is the thread's own, so there is nothing to warn of."""

    def __init__(self, states: list[tuple[str, bool, torch.dtype]]) -> None:
        self.states = states

    def __enter__(self) -> None:
        self.before, self.cache = autocast_states(), torch.is_autocast_cache_enabled()
        torch.autocast_increment_nesting()
        self._set(self.states)

    def __exit__(self, *exception: object) -> None:
        self._set(self.before)
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()

    @staticmethod
    def _set(states: list[tuple[str, bool, torch.dtype]]) -> None:
        for kind, enabled, dtype in states:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)


class SteppedHere(Coroutine[Any, Any, Any]):
    """A coroutine, each of whose steps has the grad mode, autocast and served draws of where it was made.

    The thread of its event loop serves other runs between the steps.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self.grad, self.inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        self.autocast, self.serves = autocast_states(), is_serving()

    def _modes(self) -> AbstractContextManager[Any]:
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(self.inference))
        stack.enter_context(torch.set_grad_enabled(self.grad))
        stack.enter_context(_autocast_as(self.autocast))
        stack.enter_context(serving(self.serves))
        return stack

    def send(self, value: Any) -> Any:
        """One step."""
        with self._modes():
            return self.coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """One step that begins with an exception."""
        with self._modes():
            return self.coroutine.throw(*error)

    def close(self) -> None:
        """Ends it."""
        self.coroutine.close()

    def __await__(self) -> Any:
        return (yield from self.coroutine.__await__())


def in_this_context(function: Callable[[], Any], call: ActiveCall | None = None) -> Callable[[], Any]:
    """The function as it would run here, in whatever thread calls it: same context variables, adapters, grad mode and autocast.

    Args:
        function: what to call.
        call: the call of a node that it is, where it is one.
    """
    context = contextvars.copy_context()
    if call is not None:
        context.run(enter_call, call)
    function = adapter_hook.hook.preserve(function)
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    autocast: Any = _autocast_as(autocast_states()) if any(on for _, on, _ in autocast_states()) else nullcontext()
    serves = is_serving()

    def called() -> Any:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad), autocast, serving(serves):
            return context.run(function)

    return called
