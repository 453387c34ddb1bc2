"""Parts of diffusers as blocks; needs ``pip install 'wgtorch[diffusers]'``."""

from wgtorch.integrations.diffusers.schedulers import DiffusersSchedule, DiffusersSolver

__all__ = ["DiffusersSchedule", "DiffusersSolver"]
