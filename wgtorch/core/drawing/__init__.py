"""Pictures of a level's structure: as Mermaid and DOT text, and as SVG laid out so that no word lies over another."""

from wgtorch.core.drawing.link import Link
from wgtorch.core.drawing.text import Drawing, draw

__all__ = ["Drawing", "Link", "draw"]
