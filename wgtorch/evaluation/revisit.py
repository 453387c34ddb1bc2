"""Whether a place that was left is the same when somebody comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from wgtorch.evaluation.past import Episode, Past
from wgtorch.evaluation.registry import NotMeasured, register_evaluator

_PLACES = ("recipe.scene.place", "content.place")
_SIZE = 8


@register_evaluator("revisit")
def revisit(past: Past, *, place: str | None = None, facts: str = "content.places") -> dict[str, float]:
    """Consistency of a place that is left and visited again: of its facts, and of its pictures.

    Args:
        past: the history.
        place: path of the place's name in an episode, as ``content.hero.place``; by default where the known templates have it.
        facts: path of the facts about places by name.

    Returns:
        ``visits``, how often somebody came back; ``facts``, the share of a place's facts that are as they were left, or that an
        event in between says it changed (``effects`` with the fact's path in ``content.events``); with pictures,
        ``same_place`` and ``other_place``, mean distances in colour (0 to 1, thumbnails of 8 x 8) of a picture to the one of the
        visit before, and to those of other places. Without a return, nothing can be measured.
    """
    episodes = past.episodes
    names = [_name(episode, place) for episode in episodes]
    if not any(names):
        raise NotMeasured(f"no episode says where it takes place (looked at {[place] if place else list(_PLACES)}); pass place=")
    same, changed, visits = 0, 0, 0
    near: list[float] = []
    far: list[float] = []
    pictures = [_thumbnail(episode.state.artifacts) for episode in episodes]
    for left, back in _returns(names):
        visits += 1
        before = _at(episodes[left], f"{facts}.{names[left]}", after=True)
        now = _at(episodes[back], f"{facts}.{names[back]}", after=False)
        told = _effects(episodes, left, back)
        for path, held in _differences(before, now, (*facts.split(".")[1:], str(names[back]))):
            same += held or path in told
            changed += not held and path not in told
        first, second = pictures[left], pictures[back]
        if first is not None and second is not None:
            near.append(_distance(first, second))
            others = zip(pictures, names, strict=True)
            far += [_distance(second, picture) for picture, name in others if picture is not None and name != names[back]]
    if not visits:
        raise NotMeasured("nobody came back to a place that was left; run the world for more passes, or go back by an action")
    found: dict[str, float] = {"visits": visits}
    if same + changed:
        found["facts"] = same / (same + changed)
    if near and far:
        found |= {"same_place": sum(near) / len(near), "other_place": sum(far) / len(far)}
    return found


def _returns(names: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """(last episode of a visit, first of the next visit to the same place) for each return."""
    last: dict[Any, int] = {}
    for index, name in enumerate(names):
        if name is not None and name in last and last[name] < index - 1:
            yield last[name], index
        last[name] = index


def _name(episode: Episode, place: str | None) -> str | None:
    for path in [place] if place else _PLACES:
        found = _at(episode, path, after=True)
        if isinstance(found, str) and found:
            return found
    return None


def _at(episode: Episode, path: str, *, after: bool) -> Any:
    """A value of an episode by path: of ``content`` (before or after it), or of a slot; None where there is none."""
    root, *fields = path.split(".")
    if root == "content":
        value: Any = episode.after if after else episode.before
    elif root in episode.state:
        value = episode.state[root]
    else:
        return None
    if isinstance(value, Mapping) and len(fields) > 1 and ".".join(fields[1:]) in (value.get(fields[0]) or ()):
        return value[fields[0]][".".join(fields[1:])]  # names of places may hold dots
    for field in fields:
        if isinstance(value, (list, tuple)) and value:
            value = value[0]
        value = value.get(field) if isinstance(value, Mapping) else None
    return value


def _differences(before: Any, now: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """(path, whether it is as it was) for each fact of a place."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*before, *now]):
            yield (*path, str(name)), before.get(name) == now.get(name)
    elif before is not None or now is not None:
        yield path, before == now


def _effects(episodes: Sequence[Episode], left: int, back: int) -> set[tuple[str, ...]]:
    """Paths of the facts that events between two episodes say they changed, and of all that lies above each."""
    earlier = {_id(event) for event in episodes[left].before.get("events") or ()}
    found: set[tuple[str, ...]] = set()
    for event in episodes[back].after.get("events") or ():
        if _id(event) not in earlier and isinstance(event, Mapping):
            for effect in event.get("effects") or ():
                path = tuple(str(part) for part in effect.get("path") or ()) if isinstance(effect, Mapping) else ()
                found |= {path[:length] for length in range(1, len(path) + 1)}
    return found


def _id(event: Any) -> Any:
    return event.get("id") if isinstance(event, Mapping) else event


def _thumbnail(artifacts: Any) -> Tensor | None:
    """The first picture, 8 x 8, float [3, 8, 8]; None where there is none."""
    first = artifacts[0] if isinstance(artifacts, (list, tuple)) and artifacts else artifacts
    if isinstance(first, Tensor) and first.dim() == 4:
        first = first[0]
    if not isinstance(first, Tensor) or first.dim() != 3 or first.shape[0] not in (1, 3, 4):
        return None
    return torch.nn.functional.adaptive_avg_pool2d(first[:3].float().cpu(), _SIZE)


def _distance(first: Tensor, second: Tensor) -> float:
    return (first - second).abs().mean().item()
