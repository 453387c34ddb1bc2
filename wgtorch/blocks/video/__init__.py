"""Small parts of graphs that make videos."""

from wgtorch.blocks.video.frames import JoinFrames, RepeatFrames, SplitFrames, Walk

__all__ = ["JoinFrames", "RepeatFrames", "SplitFrames", "Walk"]
