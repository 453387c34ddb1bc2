"""How a run begins: its options checked, and its context made of them."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor

from wgtorch.core.errors import PortError, PortTypeError
from wgtorch.core.kinds import describe
from wgtorch.core.run.active_call import active_call
from wgtorch.core.run.cached_call import CachedRun
from wgtorch.core.run.context import RunContext, RunOptions
from wgtorch.core.run.events import Callback, callbacks_of
from wgtorch.core.run.joined_runs import meeting
from wgtorch.core.run.loop_steps import LoopSteps, check_loop_steps
from wgtorch.core.run.node_cache import NodeCache
from wgtorch.core.run.pause import claim_request
from wgtorch.core.run.profile import check_profile
from wgtorch.core.run.rng import Key, check_seed

F = TypeVar("F", bound=Callable[..., Any])


class LifeKeywords(TypedDict, total=False):
    """Options that ``run`` of every level takes; :meth:`wgtorch.core.composite.Composite.run` says what they mean."""

    training: bool | None
    callbacks: Callback | Iterable[Callback] | None
    timeout: float | None
    cancelled: Callable[[], bool] | None
    debug: bool
    cache: NodeCache | None
    profile: Any
    """True, a path, or a :class:`~wgtorch.core.run.profile.Profile`."""


class RunKeywords(LifeKeywords, total=False):
    """Options that ``run`` of graphs, pipelines and stages takes."""

    seed: int | Sequence[int] | None
    num_loop_steps: int | Mapping[str, int] | None


def shows_options(keywords: type) -> Callable[[F], F]:
    """A method whose ``**options`` stand one by one in its signature, for ``help()``, editors and ``inspect``."""
    off = {"debug": False, "profile": False}

    def shown(method: F) -> F:
        signature = inspect.signature(method)
        named = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=off.get(name), annotation=kind.__forward_arg__)
            for name, kind in keywords.__annotations__.items()
        ]
        method.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
        return method

    return shown


def check_options(
    root: str,
    *,
    seed: Any = None,
    callbacks: Any = None,
    num_loop_steps: Any = None,
    timeout: Any = None,
    cancelled: Any = None,
    training: Any = None,
    debug: Any = False,
    cache: Any = None,
    dry_run: Any = False,
    profile: Any = False,
    device: Any = None,
) -> tuple[Key | None, LoopSteps | None, tuple[Callback, ...] | None]:
    """Options of a run that every level checks alike: the seed as a key, iterations by path, and callbacks as a tuple.

    Raises:
        PortTypeError: an option is of another kind than it has to be.
    """
    key = None if seed is None else check_seed(seed, root)
    steps = None if num_loop_steps is None else check_loop_steps(num_loop_steps, root)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0):
        raise PortTypeError(f"{root}: timeout is {describe(timeout)} ({timeout!r}); expected seconds from 0, or None for no limit")
    for name, value in (("training", training), ("debug", debug)):
        if not (value is None or isinstance(value, bool)):
            raise PortTypeError(f"{root}: {name} is {describe(value)} ({value!r}); expected True or False")
    if cancelled is not None and not callable(cancelled):
        raise PortTypeError(f"{root}: cancelled is {describe(cancelled)}; expected a function without arguments that tells whether to stop")
    if cache is not None and not isinstance(cache, NodeCache):
        raise PortTypeError(f"{root}: cache is {describe(cache)}; expected a NodeCache, as cache=NodeCache(max_bytes=2**30)")
    if not isinstance(dry_run, bool) and dry_run != "fake":
        raise PortTypeError(f"{root}: dry_run is {describe(dry_run)} ({dry_run!r}); expected True, False or 'fake'")
    if profile is not False:
        check_profile(profile, root)
    if device is not None:
        try:
            torch.device(device)
        except (RuntimeError, TypeError) as error:
            raise PortTypeError(f"{root}: device is {describe(device)} ({device!r}); expected one of PyTorch's, as 'cuda:0'") from error
    return key, steps, None if callbacks is None else callbacks_of(callbacks, root)


COMMON_OPTIONS = tuple(check_options.__kwdefaults__ or ())
"""Names of options that :func:`check_options` looks at."""


def new_run(root: str, **options: Any) -> RunContext:
    """A run that starts now at the level called ``root``.

    Inside the call of a node of another run it goes on with that one's path, draws, callbacks, limits and mode, as far as it is
    not told otherwise.

    Args:
        root: the level's id.
        options: as :func:`check_options` takes them.

    Raises:
        PortTypeError: an option is of another kind than it has to be.
    """
    key, steps, told = check_options(root, **options)
    get = options.get
    timeout, cancelled, training, cache = get("timeout"), get("cancelled"), get("training"), get("cache")
    debug, is_dry = bool(get("debug")), bool(get("dry_run"))
    cached, pause = None if cache is None else CachedRun(cache), claim_request()
    deadline = None if timeout is None else time.monotonic() + timeout
    if (outer := active_call()) is None:
        own = RunOptions(root, told or (), cancelled, deadline, bool(training), debug, is_dry, batch=meeting.get(), cache=cached)
        own.pause = pause
        run = RunContext(own, key=key, num_loop_steps=steps)
        return run if pause is None else pause.begin(run)
    inner = outer.child()
    around = inner.options
    stops = [stop for stop in (cancelled, around.cancelled) if stop is not None]
    inner.options = replace(
        around,
        callbacks=around.callbacks if told is None else told,
        cancelled=(lambda: any(stop() for stop in stops)) if len(stops) > 1 else next(iter(stops), None),
        deadline=min([limit for limit in (deadline, around.deadline) if limit is not None], default=None),
        training=around.training if training is None else training,
        debug=debug or around.debug,
        is_dry=is_dry,
        taken=None,
        cache=cached or around.cache,
        pause=pause,
    )
    inner.num_loop_steps = steps
    if key is not None:
        inner.key = key
    return inner if pause is None else pause.begin(inner)


@lru_cache(maxsize=64)
def options_of(level: Any) -> tuple[str, ...]:
    """Names of what ``run`` of a class of levels takes."""
    return tuple(inspect.signature(level.run).parameters)[1:]


def check_seeds_fit(key: Key | None, values: Mapping[str, Any], where: str) -> None:
    """Refuses seeds of another number than there are samples, as far as the inputs tell.

    Raises:
        PortError: names both numbers.
    """
    if type(key) is not tuple:
        return
    sizes = {
        name: len(value)
        for name, value in values.items()
        if isinstance(value, (list, tuple)) or (isinstance(value, Tensor) and value.dim())
    }
    if sizes and len(key) not in sizes.values():
        raise PortError(f"{where}: {len(key)} seeds, and the inputs hold {sizes} samples; give one seed for each sample, or a single one")


def requested(outputs: str | Sequence[str], where: str) -> list[str]:
    """Names of outputs as a list; one name alone is meant as one.

    Raises:
        PortTypeError: it is something else.
    """
    if isinstance(outputs, str):
        return [outputs]
    names = list(outputs) if isinstance(outputs, Iterable) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise PortTypeError(
            f"{where}: outputs is {describe(outputs)}; expected names, as outputs=['image'], or ports inside, as 'node.port'"
        )
    return names
