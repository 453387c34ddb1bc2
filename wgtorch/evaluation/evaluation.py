"""evaluate: all registered measures of a world, as a table and as data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from wgtorch.core.errors import ConfigError, suggest
from wgtorch.core.signature import parameters_of
from wgtorch.core.trust import Trust
from wgtorch.evaluation.past import Past
from wgtorch.evaluation.registry import EvaluatorRegistry, NotMeasured
from wgtorch.world import World


@dataclass(frozen=True, slots=True)
class Measure:
    """What one evaluator gave.

    Args:
        name: of the evaluator.
        meaning: the first line of its docstring.
        values: numbers by name; empty where nothing could be measured.
        reason: why nothing could be.
        error: what the evaluator raised, where it failed.
    """

    name: str
    meaning: str
    values: Mapping[str, float]
    reason: str | None = None
    error: Exception | None = None


class Evaluation(Mapping[str, Mapping[str, float]]):
    """Numbers by evaluator and name; prints as a table, and shows itself in a notebook.

    Example:
        >>> found = wgtorch.evaluate(world)
        >>> found["intent_outcome"]["agreement"]
        >>> print(found.to_json())
    """

    def __init__(self, title: str, episodes: int, measures: Sequence[Measure]) -> None:
        self.title = title
        self.episodes = episodes
        self.measures = {measure.name: measure for measure in measures}

    def __getitem__(self, name: str) -> Mapping[str, float]:
        if name not in self.measures:
            raise KeyError(f"no evaluator {name!r} was asked; {suggest(name, self.measures)}")
        return self.measures[name].values

    def __iter__(self) -> Any:
        return iter(self.measures)

    def __len__(self) -> int:
        return len(self.measures)

    @property
    def failed(self) -> list[Measure]:
        """Those whose evaluator raised an error; they hold it."""
        return [measure for measure in self.measures.values() if measure.error is not None]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(evaluator, number's name, number, what it means) for each number; one that was not measured says why."""
        found = []
        for measure in self.measures.values():
            if measure.reason is not None:
                found.append((measure.name, "-", "not measured" if measure.error is None else "failed", measure.reason))
            for position, (name, value) in enumerate(measure.values.items()):
                found.append((measure.name if position == 0 else "", name, f"{value:.4g}", measure.meaning if position == 0 else ""))
        return found

    def to_data(self) -> dict[str, Any]:
        """Plain data: ``{"world", "episodes", "measures": {evaluator: {"values" | "not_measured" | "failed", "meaning"}}}``."""
        return {
            "world": self.title,
            "episodes": self.episodes,
            "measures": {
                name: {"meaning": measure.meaning}
                | (
                    {"values": dict(measure.values)}
                    if measure.reason is None
                    else {"not_measured" if measure.error is None else "failed": measure.reason}
                )
                for name, measure in self.measures.items()
            },
        }

    def to_json(self) -> str:
        """The same as JSON."""
        return json.dumps(self.to_data(), indent=2, ensure_ascii=False)

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max([len(row[column]) for row in rows], default=0) for column in range(3)]
        lines = ["  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] + [row[3]]).rstrip() for row in rows]
        return "\n".join([f"{self.title}: {self.episodes} episodes", *lines])

    def __repr__(self) -> str:
        return f"Evaluation({self.title!r}, {list(self.measures)})"

    def _repr_html_(self) -> str:
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows())
        return f"<table><caption>{escape(self.title)}: {self.episodes} episodes</caption>{body}</table>"


def evaluate(
    world: World | Past | str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Evaluation:
    """Measures a world by its stored history.

    Evaluators that run something again do so in forks: the world itself stays as it is. One that raises an error takes no other's row
    away: its own says so, and ``found.failed`` holds the error.

    Args:
        world: a world, or a folder that holds one (see :func:`evaluate_folder`).
        names: which evaluators; all that are registered by default.
        options: by evaluator, what it takes beside the history, as ``{"recipe_picture": {"judge": my_judge}}``.

    Raises:
        UnknownNameError: no such evaluator.
        ConfigError: an evaluator has no such option, or options are given for one that is not asked.
        TypeError: ``world`` is something else.
    """
    if isinstance(world, (str, os.PathLike)):
        return evaluate_folder(world, names, options=options)
    if not isinstance(world, (World, Past)):
        raise TypeError(f"evaluate: got {type(world).__name__}; expected a World, or the folder of one")
    past = world if isinstance(world, Past) else Past.of(world)
    faults = EvaluatorRegistry.faults() if names is None else None  # what of a package nobody asked for harms no other
    names = [names] if isinstance(names, str) else list(EvaluatorRegistry.names() if names is None else names)
    evaluators = {name: EvaluatorRegistry.get(name) for name in names}
    for name, given in (options or {}).items():
        if name not in evaluators:
            raise ConfigError(f"evaluate: options for {name!r}, which is not asked; {suggest(name, evaluators)}")
        known = [parameter.name for parameter in parameters_of(evaluators[name])][1:]
        for option in given:
            if option not in known:
                raise ConfigError(f"evaluate: {name} has no option {option!r}; {suggest(option, known)}")
    measures = []
    for name, evaluator in evaluators.items():
        meaning = (evaluator.__doc__ or "").strip().split("\n")[0]
        try:
            values = {key: float(value) for key, value in evaluator(past, **(options or {}).get(name, {})).items()}
            measures.append(Measure(name, meaning, values))
        except NotMeasured as reason:
            measures.append(Measure(name, meaning, {}, str(reason)))
        except Exception as error:
            origin = EvaluatorRegistry.origin(name)
            error.add_note(f"in the evaluator {name!r} of {origin}")
            measures.append(Measure(name, meaning, {}, f"{type(error).__name__}: {error}; in the evaluator {name!r} of {origin}", error))
    measures += [Measure(fault.name, "", {}, f"not loaded: {fault}") for fault in faults or ()]
    title = past.world.world_id if past.world is not None else "world"
    return Evaluation(title, len(past.history), measures)


def evaluate_folder(
    folder: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    trust: Trust | bool | None = None,
) -> Evaluation:
    """As :func:`evaluate`, of a folder: one of ``wgtorch run``, a world's ``state_dir``, or one written by ``World.save``.

    Raises:
        StorageError: the folder holds no world's history.
    """
    from wgtorch.report.report import past_in

    world, history = past_in(Path(folder), trust=trust)
    return evaluate(Past.of(world) if world is not None else Past(history), names, options=options)
