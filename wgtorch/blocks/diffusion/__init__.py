"""Parts of diffusion graphs: schedules, noise, solvers, guidance, codecs."""

from wgtorch.blocks.diffusion import codec, guidance, noise, schedules, solvers
from wgtorch.blocks.diffusion.guidance import add_preview, steer

__all__ = ["add_preview", "codec", "guidance", "noise", "schedules", "solvers", "steer"]
