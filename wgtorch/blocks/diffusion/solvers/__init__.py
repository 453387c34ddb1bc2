"""Solvers: blocks around the steps of :mod:`wgtorch.blocks.diffusion.solvers.formulas`."""

from wgtorch.blocks.diffusion.solvers.base import GridSolver, StochasticSolver
from wgtorch.blocks.diffusion.solvers.ddim import DDIM
from wgtorch.blocks.diffusion.solvers.ddpm import DDPM
from wgtorch.blocks.diffusion.solvers.dpmpp_2m import DPMpp2M
from wgtorch.blocks.diffusion.solvers.dpmpp_2m_sde import DPMpp2MSDE
from wgtorch.blocks.diffusion.solvers.dpmpp_3m_sde import DPMpp3MSDE
from wgtorch.blocks.diffusion.solvers.euler import Euler
from wgtorch.blocks.diffusion.solvers.euler_ancestral import EulerAncestral
from wgtorch.blocks.diffusion.solvers.flow_euler import FlowEuler
from wgtorch.blocks.diffusion.solvers.flow_heun import FlowHeun
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
