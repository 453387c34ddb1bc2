"""How well slots of a state agree with each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.core.block import Block, BlockRegistry
from wgtorch.evaluation.past import Episode, Past
from wgtorch.evaluation.registry import NotMeasured, register_evaluator
from wgtorch.report.words import words
from wgtorch.world_runtime.state import State

_FOUND = re.compile(r"[a-z]+", re.IGNORECASE)


@register_evaluator("intent_outcome")
def intent_outcome(past: Past, *, embedder: str | Block = "embedder/hashed") -> dict[str, float]:
    """Agreement of what was to happen and what happened: cosine of their embeddings, beside that of another episode's.

    Args:
        past: the history.
        embedder: a block with input ``text`` and output ``embedding``, or its type. The default one compares words alone.

    Returns:
        ``agreement`` in [-1, 1], the mean over episodes; ``by_chance``, the same of intents with outcomes of other episodes; and
        ``told``, the share of episodes whose own outcome is nearest to the intent among all.
    """
    return _agreement(past.episodes, "intent", "outcome", embedder)


@register_evaluator("artifacts_description")
def artifacts_description(past: Past, *, embedder: str | Block = "embedder/hashed", limit: int = 50) -> dict[str, float]:
    """Agreement of the artifacts and their description: the philosopher looks again, and is compared with what is stored.

    Args:
        past: the history, with its world.
        embedder: as for ``intent_outcome``.
        limit: at most so many episodes, the latest, are looked at.

    Returns:
        ``agreement`` in [-1, 1], the mean; ``identical``, the share of episodes described in the same words.
    """
    world = past.require_world()
    stage = next((stage for stage in world.nodes.values() if stage.role == "philosopher"), None)
    if stage is None:
        raise NotMeasured("the world has no stage of role 'philosopher' that looks at artifacts")
    pairs = []
    for episode in past.episodes[-limit:]:
        state = episode.state
        again = stage.run(state.replace(description=None, outcome=None), content=episode.before, seed=0)
        pairs.append((words(state.description), words(again.description)))
    vectors = [_embedded(embedder, column) for column in zip(*pairs, strict=True)]
    return {
        "agreement": _cosines(*vectors).mean().item(),
        "identical": sum(stored == again for stored, again in pairs) / len(pairs),
    }


@register_evaluator("recipe_picture")
def recipe_picture(past: Past, *, judge: Callable[[Any], Any] | None = None, limit: int = 50) -> dict[str, float]:
    """Agreement of recipe and picture: the share of what the recipe's scene asks for that a judge reads in the picture.

    Args:
        past: the history.
        judge: what reads a picture: a function of one artifact that gives attributes as in ``recipe["scene"]`` (nested data, of
            which what both have is compared), or a text. By default what the philosopher has read, in ``description``.
        limit: at most so many episodes, the latest, are looked at.

    Returns:
        ``agreement``, over all attributes; and the share for each kind of attribute (``weather``, ``things.colour``).
    """
    right: dict[str, list[bool]] = {}
    for episode in past.episodes[-limit:]:
        for scene, read in _readings(episode, judge):
            for name, agrees in _compared(scene, read, ""):
                right.setdefault(name, []).append(agrees)
    if not right:
        raise NotMeasured("no recipe asks for attributes ('scene') that description or judge read; pass judge=")
    everything = [agrees for found in right.values() for agrees in found]
    return {"agreement": sum(everything) / len(everything)} | {name: sum(found) / len(found) for name, found in right.items()}


def _readings(episode: Episode, judge: Callable[[Any], Any] | None) -> Iterator[tuple[Mapping[str, Any], Any]]:
    recipe, artifacts = episode.state.recipe, episode.state.artifacts
    scenes = recipe.get("scene") if isinstance(recipe, Mapping) else None
    if scenes is None:
        return
    scenes = [scenes] if isinstance(scenes, Mapping) else list(scenes)
    if judge is not None:
        reads = [judge(artifact) for artifact in (artifacts if isinstance(artifacts, (list, tuple)) else [artifacts])]
    else:
        told = episode.state.description
        reads = told.get("attributes", []) if isinstance(told, Mapping) else list(told) if isinstance(told, (list, tuple)) else [told]
    yield from zip(scenes, reads, strict=False)


def _compared(asked: Any, read: Any, name: str) -> Iterator[tuple[str, bool]]:
    """(kind of attribute, whether it was read) for each leaf that is asked for; a text is looked through for the word."""
    if isinstance(asked, Mapping):
        for key, value in asked.items():
            if isinstance(read, str) or (isinstance(read, Mapping) and key in read):
                yield from _compared(value, read if isinstance(read, str) else read[key], f"{name}.{key}" if name else str(key))
    elif isinstance(asked, (list, tuple)):
        for value in asked:
            yield from _compared(value, read if isinstance(read, str) else _same_slot(value, read), name)
    elif isinstance(asked, str):
        if isinstance(read, str) and " " in read.strip():
            if asked != "none" and _FOUND.fullmatch(asked):
                yield name, asked.lower() in _FOUND.findall(read.lower())
        else:
            yield name, asked == read
    elif asked is not None and not isinstance(asked, bool):
        yield name, bool(asked == read)


def _same_slot(thing: Any, read: Any) -> Any:
    """What was read where a thing of a scene stands; nothing where nothing was."""
    if not isinstance(thing, Mapping) or not isinstance(read, Sequence):
        return None
    missing = dict.fromkeys(thing)
    return next((other for other in read if isinstance(other, Mapping) and other.get("slot") == thing.get("slot")), missing)


def _agreement(episodes: Sequence[Episode], first: str, second: str, embedder: str | Block) -> dict[str, float]:
    pairs = [(words(_slot(episode.state, first)), words(_slot(episode.state, second))) for episode in episodes]
    a, b = (_embedded(embedder, column) for column in zip(*pairs, strict=True))
    table = torch.nn.functional.normalize(a.float(), dim=1) @ torch.nn.functional.normalize(b.float(), dim=1).T  # [N, N]
    own, count = table.diagonal(), len(pairs)
    others = (table.sum() - own.sum()) / max(count * (count - 1), 1)
    return {
        "agreement": own.mean().item(),
        "by_chance": others.item(),
        "told": (own >= table.max(dim=1).values - 1e-6).float().mean().item(),
    }


def _slot(state: State, name: str) -> Any:
    if name not in state:
        raise NotMeasured(f"the world's states have no slot {name!r}")
    return state[name]


def _embedded(embedder: str | Block, texts: Sequence[str]) -> Tensor:
    block = BlockRegistry.build({"block_type": embedder}) if isinstance(embedder, str) else embedder
    found: Tensor = block.run({"text": list(texts)})["embedding"]
    return found


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(first.float(), second.float(), dim=1)
