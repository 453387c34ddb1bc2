"""Solvers: blocks around the steps of :mod:`wgtorch.blocks.diffusion.solvers.formulas`."""

from wgtorch.blocks.diffusion.solvers.base import GridSolver, StochasticSolver
from wgtorch.blocks.diffusion.solvers.ddim import DDIM
from wgtorch.blocks.diffusion.solvers.ddpm import DDPM
from wgtorch.blocks.diffusion.solvers.dpmpp import DPMpp2M, DPMpp2MSDE, DPMpp3MSDE
from wgtorch.blocks.diffusion.solvers.euler import Euler, EulerAncestral
from wgtorch.blocks.diffusion.solvers.flow import FlowEuler, FlowHeun
from wgtorch.blocks.diffusion.solvers.heun import Heun
from wgtorch.blocks.diffusion.solvers.lcm import LCM
from wgtorch.blocks.diffusion.solvers.unipc import UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "LCM",
    "DPMpp2M",
    "DPMpp2MSDE",
    "DPMpp3MSDE",
    "Euler",
    "EulerAncestral",
    "FlowEuler",
    "FlowHeun",
    "GridSolver",
    "Heun",
    "StochasticSolver",
    "UniPC",
]
