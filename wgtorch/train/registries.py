"""What a training's config names: objectives, data, optimizers, schedules of the learning rate, rewards."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from wgtorch.core.config.schema import argument_findings, check_block_config, config_error
from wgtorch.core.errors import ConfigError, WgtorchError, suggest
from wgtorch.core.registry import Registry

T = TypeVar("T")

ObjectiveRegistry: Registry[type[Any]] = Registry("objective", group="wgtorch.objectives")
DataRegistry: Registry[type[Any]] = Registry("data", group="wgtorch.data")
OptimizerRegistry: Registry[Callable[..., Any]] = Registry("optimizer", group="wgtorch.optimizers")
ScheduleRegistry: Registry[Callable[..., Any]] = Registry("schedule of the learning rate", group="wgtorch.lr_schedules")
RewardRegistry: Registry[Callable[..., Any]] = Registry("reward", group="wgtorch.rewards")


def register_objective(name: str) -> Callable[[type[Any]], type[Any]]:
    """Class decorator: makes an :class:`~wgtorch.train.objective.Objective` known to configs.

    Example:
        >>> @register_objective("my_loss")
        ... class MyLoss(Objective): ...
    """
    return partial(ObjectiveRegistry.register, name)


def register_data(name: str) -> Callable[[type[Any]], type[Any]]:
    """Class decorator: makes a :class:`~wgtorch.train.data.Data` known to configs."""
    return partial(DataRegistry.register, name)


def register_optimizer(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: names a function ``(param_groups, **settings) -> torch.optim.Optimizer``."""
    return partial(OptimizerRegistry.register, name)


def register_schedule(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: names a function ``(total_steps, **settings) -> (step -> factor of the learning rate)``."""
    return partial(ScheduleRegistry.register, name)


def register_reward(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: names a function ``(values, batch, **settings) -> Tensor [B]``, higher is better."""
    return partial(RewardRegistry.register, name)


def build(registry: Registry[Any], config: Any, where: str) -> Any:
    """What a config names: ``{"type": name, ...arguments}``, or the name alone. Anything that is no config is returned as it is.

    Raises:
        UnknownNameError: no such name; the nearest ones are in the message.
        ConfigError: ``type`` is missing, or the arguments do not fit.
    """
    if isinstance(config, str):
        config = {"type": config}
    if not isinstance(config, Mapping):
        return config
    settings = dict(config)
    name = settings.pop("type", None)
    if not isinstance(name, str):
        raise ConfigError(f"{where}: no 'type'; expected {{'type': name, ...}}; {suggest('', registry.names())}")
    entry = registry.get(name)
    if isinstance(entry, type):
        check_block_config(entry, settings, where)
    try:
        return entry(**settings)
    except WgtorchError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} ({name}): {error}") from error


def built_from(kind: Callable[..., T], settings: Mapping[str, Any], where: str, **more: Any) -> T:
    """What some settings describe.

    Args:
        kind: called with the settings.
        settings: its arguments; one that it does not take is an error.
        where: in the config.
        more: arguments that are not for configs.

    Raises:
        ConfigError: a setting is unknown or does not fit.
    """
    check_settings(kind, settings, where, tuple(more))
    try:
        return kind(**settings, **more)
    except WgtorchError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def check_settings(function: Callable[..., Any], given: Any, where: str, without: Sequence[str] = ()) -> None:
    """Checks settings by name: their names, and their types.

    Args:
        function: called with them.
        given: what stands in the config.
        where: in the config.
        without: parameters that are not for configs.

    Raises:
        ConfigError: they are no mapping, one is not known, or does not fit.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: found {given!r}; expected settings by name, or null for none")
    parameters = inspect.signature(function).parameters.values()
    known = [each.name for each in parameters if each.name not in without]
    for name in given if not any(each.kind is each.VAR_KEYWORD for each in parameters) else ():
        if name not in known:
            raise ConfigError(f"{where}: unknown {name!r}; {suggest(str(name), known)}")
    check_arguments(function, given, where)


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
    """Checks settings against the types of a function's parameters, before it is called with them.

    Raises:
        ConfigError: lists everything that does not fit.
    """
    if findings := argument_findings(function.__init__ if isinstance(function, type) else function, given, where):  # type: ignore[misc]
        raise config_error(where, findings)


def check_numbers(given: Any, where: str) -> None:
    """Refuses numbers that are NaN or infinite, however deep they stand in settings.

    Raises:
        ConfigError: says where the first of them is.
    """
    if isinstance(given, float) and not math.isfinite(given):
        raise ConfigError(f"{where}: found {given}; expected a number, and not an infinite one")
    inner = given.items() if isinstance(given, Mapping) else enumerate(given) if isinstance(given, (list, tuple)) else ()
    for key, value in inner:
        check_numbers(value, f"{where}.{key}" if where else str(key))
