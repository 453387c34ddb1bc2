"""Solvers: plain functions of tensors in the symbols of their papers, and thin blocks around them."""

from wgtorch.blocks.diffusion.solvers.base import GridSolver, StochasticSolver
from wgtorch.blocks.diffusion.solvers.ddim import DDIM, ddim_step
from wgtorch.blocks.diffusion.solvers.ddpm import DDPM, ddpm_step
from wgtorch.blocks.diffusion.solvers.dpmpp_2m import DPMpp2M, dpmpp_1_step, dpmpp_2m_step
from wgtorch.blocks.diffusion.solvers.dpmpp_2m_sde import DPMpp2MSDE, dpmpp_1_sde_step, dpmpp_2m_sde_step
from wgtorch.blocks.diffusion.solvers.euler import Euler, euler_step
from wgtorch.blocks.diffusion.solvers.euler_ancestral import EulerAncestral, euler_ancestral_step
from wgtorch.blocks.diffusion.solvers.flow_euler import FlowEuler, flow_euler_step
from wgtorch.blocks.diffusion.solvers.flow_heun import FlowHeun
from wgtorch.blocks.diffusion.solvers.heun import Heun, heun_step
from wgtorch.blocks.diffusion.solvers.lcm import LCM, consistency, lcm_step
from wgtorch.blocks.diffusion.solvers.unipc import UniPC, unipc_correct, unipc_predict

__all__ = [
    "DDIM",
    "DDPM",
    "LCM",
    "DPMpp2M",
    "DPMpp2MSDE",
    "Euler",
    "EulerAncestral",
    "FlowEuler",
    "FlowHeun",
    "GridSolver",
    "Heun",
    "StochasticSolver",
    "UniPC",
    "consistency",
    "ddim_step",
    "ddpm_step",
    "dpmpp_1_sde_step",
    "dpmpp_1_step",
    "dpmpp_2m_sde_step",
    "dpmpp_2m_step",
    "euler_ancestral_step",
    "euler_step",
    "flow_euler_step",
    "heun_step",
    "lcm_step",
    "unipc_correct",
    "unipc_predict",
]
