"""A world as a page in the browser: it is watched, acted in, taken back, branched and exported."""

from wgtorch.play.app import make_play_app
from wgtorch.play.game import Game

__all__ = ["Game", "make_play_app"]
