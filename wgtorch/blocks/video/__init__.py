"""Small parts of graphs that make videos."""

from wgtorch.blocks.video.frames import JoinFrames, RepeatFrames, SplitFrames
from wgtorch.blocks.video.walk import Walk

__all__ = ["JoinFrames", "RepeatFrames", "SplitFrames", "Walk"]
