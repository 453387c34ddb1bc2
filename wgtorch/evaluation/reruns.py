"""What forks and replays of a world tell."""

from __future__ import annotations

from wgtorch.evaluation.past import Past
from wgtorch.evaluation.registry import NotMeasured, register_evaluator
from wgtorch.world_runtime.changes import changes


@register_evaluator("action_effect")
def action_effect(past: Past, *, actions: int = 5) -> dict[str, float]:
    """Effect of an action: the same moment lived with and without it, in forks with the same draws.

    Args:
        past: the history, with its world.
        actions: at most so many of the actions that were taken are tried, the latest.

    Returns:
        ``actions``, how many were tried; ``intents``, the share that led to another intent; ``facts``, how many fields of
        the content differ on average, a pass later, from what they are without the action.
    """
    world = past.require_world()
    acted = [episode for episode in past.episodes if episode.action is not None][-actions:]
    if not acted:
        raise NotMeasured("no episode began with an action; run the world with action=")
    other_intents, facts = 0, 0
    for episode in acted:
        begun = episode.step - 1  # the pass whose development took the action
        ends = []
        for action in (episode.action, None):
            fork = world.fork(step=begun - 1) if begun else world.fork(commit=world.commits[0])
            fork.run(num_steps=1, action=action)
            told = fork.state
            fork.run(num_steps=1)
            ends.append((told, fork.content))
        (with_it, content_with), (without, content_without) = ends
        assert with_it is not None and without is not None  # a pass leaves a State
        other_intents += bool(changes(with_it.intent, without.intent))
        facts += len(changes(content_without, content_with))
    return {"actions": len(acted), "intents": other_intents / len(acted), "facts": facts / len(acted)}


@register_evaluator("determinism")
def determinism(past: Past, *, steps: int = 5) -> dict[str, float]:
    """Determinism: the share of passes that come out bit for bit the same when they are lived again.

    Args:
        past: the history, with its world.
        steps: at most so many passes, evenly over the history.
    """
    world = past.require_world()
    stored = past.history.steps
    if not stored:
        raise NotMeasured("the world has stored no episode yet; run it for some passes")
    chosen = stored[:: max(1, -(-len(stored) // steps))]
    same = [bool(world.replay(step)) for step in chosen]
    return {"passes": len(same), "same": sum(same) / len(same)}
