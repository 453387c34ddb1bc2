"""Measures of what a world has lived through, by name: ``wgtorch.evaluate(world)`` and ``wgtorch evaluate DIR``.

An evaluator is a function of a world's :class:`~wgtorch.evaluation.past.Past` that gives numbers by name. Ten lines add one:

    >>> from wgtorch.evaluation import Past, register_evaluator
    >>> @register_evaluator("words")
    ... def words(past: Past, *, slot: str = "outcome") -> dict[str, float]:
    ...     '''Different words per episode.'''
    ...     texts = [str(episode.state[slot]).lower().split() for episode in past.episodes]
    ...     return {"different": len({word for text in texts for word in text}) / len(texts)}
    >>> print(wgtorch.evaluate(world, ["words"]))
"""

from wgtorch.evaluation.evaluation import Evaluation, Measure, evaluate, evaluate_folder
from wgtorch.evaluation.past import Episode, Past
from wgtorch.evaluation.registry import EvaluatorRegistry, NotMeasured, register_evaluator

__all__ = [
    "Episode",
    "Evaluation",
    "EvaluatorRegistry",
    "Measure",
    "NotMeasured",
    "Past",
    "evaluate",
    "evaluate_folder",
    "register_evaluator",
]
