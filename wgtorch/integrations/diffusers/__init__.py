"""Parts of diffusers as blocks; needs ``pip install 'wgtorch[diffusers]'``."""

from wgtorch.integrations.diffusers.adapters import add_adapter
from wgtorch.integrations.diffusers.exporter import pipeline_of, to_diffusers
from wgtorch.integrations.diffusers.first_block_cache import cache_first_block
from wgtorch.integrations.diffusers.importer import from_diffusers
from wgtorch.integrations.diffusers.schedulers import DiffusersSchedule, DiffusersSolver

__all__ = ["DiffusersSchedule", "DiffusersSolver", "add_adapter", "cache_first_block", "from_diffusers", "pipeline_of", "to_diffusers"]
