"""Optimizers and schedules of the learning rate: those of PyTorch, by name, with settings for each place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from wgtorch.core.block import Block
from wgtorch.core.errors import ConfigError, TrainingError, require, suggest
from wgtorch.train.learned import learned_parameters
from wgtorch.train.muon import MuonAdamW
from wgtorch.train.objective import Objective
from wgtorch.train.patterns import check_patterns, matches, names_of
from wgtorch.train.registries import (
    OptimizerRegistry,
    ScheduleRegistry,
    check_numbers,
    check_settings,
    register_optimizer,
    register_schedule,
)

Factor = Callable[[int], float]
Steps = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
_NOT_NEGATIVE = ("lr", "weight_decay", "momentum", "eps")

for _name, _optimizer in {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adafactor": torch.optim.Adafactor,
    "muon": MuonAdamW,
    "sgd": torch.optim.SGD,
}.items():
    OptimizerRegistry.register(_name, _optimizer)


@register_optimizer("adamw_8bit")
def adamw_8bit(params: Any, **settings: Any) -> torch.optim.Optimizer:
    """AdamW whose averages are kept in 8 bits, in blocks (Dettmers et al. 2022, https://arxiv.org/abs/2110.02861), by bitsandbytes."""
    library: Any = require("bitsandbytes", "bitsandbytes")
    return library.optim.AdamW8bit(params, **settings)


@register_schedule("constant")
def constant(total: float, *, warmup: Steps = 0) -> Factor:
    """One, after a linear rise over ``warmup`` steps."""
    return lambda step: _risen(step, warmup)


@register_schedule("linear")
def linear(total: float, *, warmup: Steps = 0, start: Share = 0.0, end: Share = 0.0) -> Factor:
    """A rise over ``warmup`` steps; from the share ``start`` of the training on, a straight fall to ``end`` at its end."""
    return lambda step: _risen(step, warmup) * (1 - (1 - end) * _through(step, max(warmup, start * total), total))


@register_schedule("cosine")
def cosine(total: float, *, warmup: Steps = 0, end: Share = 0.0) -> Factor:
    """A rise over ``warmup`` steps, then half a cosine down to ``end`` (Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983)."""
    return lambda step: _risen(step, warmup) * (end + (1 - end) * (1 + math.cos(math.pi * _through(step, warmup, total))) / 2)


def _risen(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / (warmup + 1))


def _through(step: int, start: float, total: float) -> float:
    return min(1.0, max(0.0, (step - start) / max(1.0, total - start)))


@dataclass(frozen=True, slots=True)
class Plan:
    """How a target's parameters are optimized.

    Args:
        optimizer: registered name, or a class or function called with parameter groups and ``settings``.
        settings: its arguments, for all places.
        schedule: of the learning rate: ``{"type": name, ...}``; None keeps it.
        nodes: by pattern, what is different at some places: arguments, and ``schedule``.
        decay_matrices_only: no weight decay for parameters with fewer than two dimensions (biases, norms).
    """

    optimizer: str | Callable[..., torch.optim.Optimizer]
    settings: Mapping[str, Any]
    schedule: Mapping[str, Any] | None
    nodes: Mapping[str, Mapping[str, Any]]
    decay_matrices_only: bool

    @classmethod
    def of(cls, config: str | Mapping[str, Any]) -> Plan:
        """From ``{"type": "adamw", "lr": 1e-4, "schedule": ..., "nodes": {pattern: {"lr": 1e-5}}}``, or a name.

        Raises:
            UnknownNameError: there is no such optimizer or schedule.
            ConfigError: it is built in another way.
        """
        if not isinstance(config, (str, Mapping)):
            raise ConfigError(f"optimizer: found {config!r}; expected a name, or settings such as {{'type': 'adamw', 'lr': 1e-4}}")
        rest: dict[str, Any] = {"type": config} if isinstance(config, str) else dict(config)
        name = rest.pop("type", None)
        make = OptimizerRegistry.get(name) if isinstance(name, str) else name
        if not callable(make):
            raise ConfigError(f"optimizer: no 'type'; expected one of {OptimizerRegistry.names()}")
        schedule, nodes, matrices = rest.pop("schedule", None), rest.pop("nodes", None) or {}, rest.pop("decay_matrices_only", None)
        if not isinstance(nodes, Mapping):
            raise ConfigError(f"optimizer.nodes: found {nodes!r}; expected settings by pattern, as {{'*backbone': {{'lr': 1e-5}}}}")
        if not isinstance(matrices, bool | None):
            raise ConfigError(f"optimizer.decay_matrices_only: found {matrices!r}; expected true or false")
        places = {f"optimizer.nodes[{pattern!r}]": value for pattern, value in nodes.items()}
        for where, value in {"optimizer": {**rest, "schedule": schedule}, **places}.items():
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: found {value!r}, expected settings such as {{'lr': 1e-5}}")
            if "lr" in value and (isinstance(value["lr"], bool) or not isinstance(value["lr"], (int, float, torch.Tensor))):
                raise ConfigError(f"{where}.lr: found {value['lr']!r}; expected a number, as 1e-4")
            betas = value.get("betas", (0.9, 0.999))
            if not (isinstance(betas, (list, tuple)) and all(isinstance(beta, (int, float)) and 0 <= beta < 1 for beta in betas)):
                found = f"{betas!r}" if isinstance(betas, (list, tuple, str)) else f"{betas!r}, a {type(betas).__name__}"
                raise ConfigError(f"{where}.betas: found {found}; expected a list of numbers from 0 to below 1, as [0.9, 0.999]")
            plain: dict[str, Any] = {key: each.tolist() if isinstance(each, torch.Tensor) else each for key, each in value.items()}
            check_numbers(plain, where)
            for key in _NOT_NEGATIVE:
                if isinstance(plain.get(key), (int, float)) and plain[key] < 0:
                    raise ConfigError(f"{where}.{key}: found {plain[key]}; expected at least 0")
            check_settings(make, {key: each for key, each in value.items() if key != "schedule"}, where, ("params",))
            if value.get("schedule") is not None:
                schedule_from(value["schedule"], 1)
        return cls(name, rest, schedule, nodes, bool(matrices))

    def groups(self, target: Block, objective: Objective) -> list[dict[str, Any]]:
        """Parameter groups, each parameter once, with a ``schedule`` in each.

        Raises:
            TrainingError: nothing trains, a pattern means nothing, or two of them ask for different things of one weight.
        """
        check_patterns(target, tuple(self.nodes), "optimizer.nodes")
        names, own = names_of(target), [parameter for parameter in objective.parameters() if parameter.requires_grad]
        found: dict[tuple[str | None, bool], list[nn.Parameter]] = {}
        for parameter in [*learned_parameters(target, objective), *own]:
            pattern = self._pattern_of(names.get(id(parameter), []))
            undecayed = self.decay_matrices_only and parameter.dim() < 2
            found.setdefault((pattern, undecayed), []).append(parameter)
        groups = []
        for (pattern, undecayed), parameters in found.items():
            special = dict(self.nodes[pattern]) if pattern is not None else {}
            schedule = special.pop("schedule", self.schedule)
            name = f"{pattern or 'rest'}{' (no decay)' if undecayed else ''}"
            group = {"params": parameters, **special, "schedule": schedule, "name": name}
            groups.append({**group, "weight_decay": 0.0} if undecayed else group)
        return groups

    def _pattern_of(self, names: list[str]) -> str | None:
        """The first pattern that means a parameter, wherever it stands."""
        per_place = {name: next((pattern for pattern in self.nodes if matches(pattern, name)), None) for name in names}
        found = list(dict.fromkeys(pattern for pattern in per_place.values() if pattern is not None))
        if len({repr(sorted(self.nodes[pattern].items(), key=repr)) for pattern in found}) > 1:
            places = ", ".join(f"{name} by {pattern!r}" for name, pattern in per_place.items() if pattern is not None)
            raise TrainingError(
                f"optimizer.nodes: one weight is meant by patterns with different settings: {places}. A shared weight has one learning "
                "rate; give both the same, or clone_node one place"
            )
        return found[0] if found else None

    def build(self, groups: list[dict[str, Any]], total: float) -> tuple[torch.optim.Optimizer, Any]:
        """The optimizer, and a scheduler that is stepped after each of its steps; None where no group has a schedule.

        Raises:
            ConfigError: an argument does not fit the optimizer.
        """
        schedules = [group.get("schedule") for group in groups]
        plain = [{key: value for key, value in group.items() if key != "schedule"} for group in groups]
        try:
            make = OptimizerRegistry.get(self.optimizer) if isinstance(self.optimizer, str) else self.optimizer
            optimizer = make(plain, **self.settings)
        except (TypeError, ValueError) as error:
            name = self.optimizer if isinstance(self.optimizer, str) else getattr(self.optimizer, "__name__", self.optimizer)
            raise ConfigError(f"optimizer ({name}): {error}") from error
        _fuse(optimizer)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])  # as schedulers note it
        if not any(schedules):
            return optimizer, None
        if (scheduler := _of_torch(schedules, optimizer)) is not None:
            return optimizer, scheduler
        factors = [schedule_from(schedule, total) if schedule else constant(total) for schedule in schedules]
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factors)


def told_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What an optimizer was told for each of its groups: all but its parameters and the learning rate of now."""
    return [{key: value for key, value in group.items() if key not in ("params", "lr")} for group in optimizer.param_groups]


def take_settings(optimizer: Any, scheduler: Any, told: list[dict[str, Any]], saved: Mapping[str, Any], step: int) -> None:
    """Has an optimizer whose state a checkpoint gave follow the settings of now, where these are others than they were.

    Args:
        optimizer: with the state, and so the settings, of the checkpoint.
        scheduler: of the learning rate; None for none.
        told: the settings of now, by group.
        saved: ``settings`` as they were, by group, and ``is_scheduled``, whether there was a scheduler.
        step: steps that were made.

    Raises:
        ConfigError: the optimizer is of another sort, or a scheduler of PyTorch's would have to be told another learning rate.
    """
    follows_step = isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
    for group, now, then in zip(optimizer.param_groups, told, saved["settings"], strict=True):
        if missing := sorted(now.keys() - group.keys() - {"initial_lr"}):
            raise ConfigError(
                f"optimizer: {type(optimizer).__name__} needs {', '.join(missing)}, which the checkpoint to go on with was written "
                "without, by another optimizer; go on with that one, or begin a new training with the weights in the checkpoint"
            )
        changed = {key: value for key, value in now.items() if then.get(key, value) != value}
        if scheduler is not None and not follows_step and "initial_lr" in changed:
            raise ConfigError(
                f"optimizer.lr: found {now['initial_lr']}, and the checkpoint to go on with began with {then['initial_lr']}, from which "
                f"{type(scheduler).__name__} goes on; give that one, or begin a new training with the weights in the checkpoint"
            )
        group.update(changed)
        if scheduler is None and ("initial_lr" in changed or saved["is_scheduled"]):
            group["lr"] = now["initial_lr"]
    if follows_step:  # whose rate is a function of the step
        scheduler.last_epoch = scheduler.last_epoch if saved["is_scheduled"] else step
        scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        for group, base, factor in zip(optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = base * factor(scheduler.last_epoch)
        scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]


def _fuse(optimizer: torch.optim.Optimizer) -> None:
    """Has PyTorch's Adam on a CPU make one pass over each weight, where nothing was said: the numbers are the same but for rounding.

    Said in the groups and not to the constructor, after which Lightning would not clip gradients under mixed precision.
    """
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
        return
    if any(type(each) is not nn.Parameter or each.device.type != "cpu" for group in optimizer.param_groups for each in group["params"]):
        return
    for group in optimizer.param_groups:
        if group["fused"] is None and not any(group[name] for name in ("foreach", "capturable", "differentiable")):
            group["fused"] = True


def _of_torch(schedules: list[Any], optimizer: torch.optim.Optimizer) -> Any:
    """A scheduler of PyTorch's, which is made for the whole optimizer; None where the schedules are functions of the step."""
    kinds = [schedule.get("type") if isinstance(schedule, Mapping) else None for schedule in schedules]
    if not any(isinstance(kind, type) and issubclass(kind, torch.optim.lr_scheduler.LRScheduler) for kind in kinds):
        return None
    first = schedules[0]
    if any(schedule != first for schedule in schedules):
        raise ConfigError("optimizer.nodes: a scheduler of PyTorch's is that of all places; give it as optimizer.schedule alone")
    try:
        return first["type"](optimizer, **{key: value for key, value in first.items() if key != "type"})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"schedule ({first['type'].__name__}): {error}") from error


def schedule_from(config: str | Mapping[str, Any], total: float) -> Factor:
    """A schedule of the learning rate.

    Args:
        config: a name, or ``{"type": name, ...}``.
        total: steps of the training; infinite where it is not known.

    Raises:
        UnknownNameError: there is no such schedule.
        ConfigError: an argument does not fit, or the schedule needs to know the total.
    """
    if not isinstance(config, (str, Mapping)):
        raise ConfigError(f"schedule: found {config!r}; expected a name, or settings such as {{'type': 'cosine', 'warmup': 10}}")
    rest = {"type": config} if isinstance(config, str) else dict(config)
    name = rest.pop("type", None)
    if callable(name):
        if isinstance(name, type) and issubclass(name, torch.optim.lr_scheduler.LRScheduler):
            return constant(total)  # it is made with the optimizer
        return name(total, **rest)
    if not isinstance(name, str):
        raise ConfigError(f"schedule: no 'type'; {suggest('', ScheduleRegistry.names())}")
    if not math.isfinite(total) and name != "constant":
        raise ConfigError(f"schedule {name!r} ends with the training, whose number of steps is not known; set trainer.max_steps")
    entry = ScheduleRegistry.get(name)
    check_settings(entry, rest, "schedule", ("total",))
    try:
        return entry(total, **rest)
    except TypeError as error:
        raise ConfigError(f"schedule ({name}): {error}") from error
