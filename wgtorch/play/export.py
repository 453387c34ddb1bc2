"""A whole life in one file: the report's page, and its pictures as an animation."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from wgtorch.play.episodes import images_of
from wgtorch.play.game import Game
from wgtorch.storage.media import video_bytes

_SIDE = 256  # pixels of an animation
_SHOWN = 1600  # milliseconds of a picture


def page_of(game: Game) -> str:
    """The life of the branch that is played as one HTML page."""
    return str(game.world.report().html)


def animation_of(game: Game, *, side: int = _SIDE) -> bytes | None:
    """The pictures of all episodes, one after another, as a GIF; None where there are none."""
    world = game.world
    states = list(world.history)
    if world.state is not None and (not states or states[-1] != world.state):
        states.append(world.state)
    frames = []
    for state in states:
        for image in images_of(state)[:1]:
            longest = max(image.shape[-2:])
            way = "nearest" if longest <= side or longest % side == 0 else "area"
            frames.append(F.interpolate(image[None].float().cpu(), (side, side), mode=way)[0].expand(3, -1, -1))
    return video_bytes(torch.stack(frames), "gif", fps=1000 / _SHOWN) if frames else None
