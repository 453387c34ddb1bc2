"""A whole life in one file: the report's page, and its pictures as an animation."""

from __future__ import annotations

import io

from wgtorch.play.episodes import images_of
from wgtorch.play.game import Game

_SIDE = 256  # pixels of an animation
_SHOWN = 1600  # milliseconds of a picture


def page_of(game: Game) -> str:
    """The life of the branch that is played as one HTML page."""
    return str(game.world.report().html)


def animation_of(game: Game, *, side: int = _SIDE) -> bytes | None:
    """The pictures of all episodes, one after another, as a GIF; None where there are none."""
    from PIL import Image

    world = game.world
    states = list(world.history)
    if world.state is not None and (not states or states[-1] != world.state):
        states.append(world.state)
    frames = []
    for state in states:
        for image in images_of(state)[:1]:
            array = (image.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            picture = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).convert("RGB")
            resample = Image.Resampling.NEAREST if max(picture.size) <= side or max(picture.size) % side == 0 else Image.Resampling.BOX
            frames.append(picture.resize((side, side), resample))
    if not frames:
        return None
    held = io.BytesIO()
    frames[0].save(held, "GIF", save_all=True, append_images=frames[1:], duration=_SHOWN, loop=0)
    return held.getvalue()
