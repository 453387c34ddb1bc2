"""Schedules: where on the way from noise to data a sampler makes its steps."""

from wgtorch.blocks.diffusion.schedules.block import GridSchedule, build_schedule
from wgtorch.blocks.diffusion.schedules.diffusion import DiffusionSchedule
from wgtorch.blocks.diffusion.schedules.flow import FlowSchedule, shifted_sigmas
from wgtorch.blocks.diffusion.schedules.grid import SamplerState, TimeGrid

__all__ = ["DiffusionSchedule", "FlowSchedule", "TimeGrid", "GridSchedule", "SamplerState", "build_schedule", "shifted_sigmas"]
