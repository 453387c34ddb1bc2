"""DDIM: the same marginals as DDPM with less noise on the way, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from torch import Tensor

from wgtorch.blocks.diffusion.model_prediction import ModelPrediction
from wgtorch.blocks.diffusion.schedules.grid import SamplerState, TimeGrid
from wgtorch.blocks.diffusion.solvers.base import GridArguments, History, Stepped, StochasticSolver, Timestep
from wgtorch.blocks.diffusion.solvers.formulas import ddim_coefficients, ddim_step
from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import Rng


@register_block("solver/ddim")
class DDIM(StochasticSolver):
    """Denoising diffusion implicit models (Song et al. 2020, https://arxiv.org/abs/2010.02502).

    Args:
        eta: share of DDPM's noise that is added, in [0, 1]; None leaves it to the input ``eta``, 0 where that is not fed.
        rederive_epsilon: with a limited x0, eps is what that leaves of x, instead of the predicted one.
    """

    inputs: Mapping[str, Any] = {"eta": Port(dtype="number", description="share of DDPM's noise that is added, in [0, 1]")}

    def __init__(self, *, eta: float | None = 0.0, rederive_epsilon: bool = False, **grid: Unpack[GridArguments]) -> None:
        super().__init__(**grid)
        if eta is not None and not 0 <= eta <= 1:
            raise ValueError(f"DDIM.eta: found {eta}, expected a number from 0 to 1")
        self.eta = eta
        if self.limits is not None:
            self.limits = self.limits._replace(rederives=rederive_epsilon)
        self.wants_rng = eta != 0
        self.stochastic = bool(eta)
        self._of_eta: dict[float, DDIM] = {}  # the same of an eta that was fed

    def forward(  # type: ignore[override]
        self,
        latent: Tensor,
        timestep: Timestep,
        pred: Tensor,
        progress: SamplerState | None = None,
        eta: float | None = None,
        noise: Tensor | None = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """One iteration, as of every solver; ``noise`` is standard normal and like ``latent``.

        Raises:
            PortError: ``eta`` is fed to a solver that was built with one.
        """
        if not eta:
            return super().forward(latent, timestep, pred, progress, noise, rng)
        if self.eta is not None:
            raise PortError(f"{self.block_id}.eta: got {eta:g}, but the solver was built with eta={self.eta:g}; build it with eta=None")
        if eta not in self._of_eta:
            self._of_eta[eta] = DDIM(**{**self.config, "eta": float(eta)})
        return self._of_eta[eta].forward(latent, timestep, pred, progress, None, noise, rng)

    def coefficients(self, grid: TimeGrid) -> Sequence[Tensor]:
        return ddim_coefficients(grid.starts, grid.ends, self.eta or 0.0)

    def step(self, x: Tensor, model: ModelPrediction, history: History, z: Tensor | None, numbers: Sequence[Tensor]) -> Stepped:
        return ddim_step(model.x0, model.eps, z, *numbers), ()
