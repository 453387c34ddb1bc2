"""Parts of diffusers as blocks; needs ``pip install 'wgtorch[diffusers]'``."""

from wgtorch.integrations.diffusers.exporting import pipeline_of, to_diffusers
from wgtorch.integrations.diffusers.importing import from_diffusers
from wgtorch.integrations.diffusers.schedulers import DiffusersSchedule, DiffusersSolver

__all__ = ["DiffusersSchedule", "DiffusersSolver", "from_diffusers", "pipeline_of", "to_diffusers"]
