"""Grids over the sigmas of a flow that runs from noise (1) to data (0)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from wgtorch.blocks.diffusion.noise_level import flow_level
from wgtorch.blocks.diffusion.schedules.block import GridSchedule
from wgtorch.blocks.diffusion.schedules.grid import TimeGrid, time_grid
from wgtorch.blocks.diffusion.schedules.shift import dynamic_mu, shift_sigma, shift_sigma_by_mu, stretch_to_terminal
from wgtorch.blocks.diffusion.schedules.sigmas import SIGMAS
from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.ports import MU, NUM_TOKENS

CONVENTIONS = ("even", "trained", "dpm_solver", "unipc")
NOT_QUITE_NOISE = 1e-6  # by how much the first sigma of UniPC's grid stays below 1


def shifted_sigmas(num_steps: int, shift: float = 1.0) -> tuple[float, ...]:
    """Sigmas from 1 to 0, ``num_steps + 1`` of them; ``shift`` > 1 spends more steps near the noise."""
    even = [1 - step / num_steps for step in range(num_steps + 1)]
    return tuple(shift_sigma(sigma, shift) for sigma in even)


@register_block("schedule/flow")
class FlowSchedule(GridSchedule):
    """Where to sample a flow model: x = (1 - sigma) x0 + sigma eps (Lipman et al. 2023, https://arxiv.org/abs/2210.02747).

    Args:
        num_steps: steps of the grid.
        num_train_timesteps: by which a sigma is multiplied to be a timestep: 1000 for most models, 1 where they take sigma.
        shift: more than 1 spends more steps near the noise; see :func:`shift_sigma`.
        dynamic_shift: True shifts by what the inputs ``mu`` or ``tokens`` say, instead; or the settings of
            :func:`dynamic_mu`.
        shift_terminal: the last sigma before the data; see :func:`stretch_to_terminal`.
        convention: ``even`` sigmas; ``trained``, those of training timesteps T to 1 (flow matching in Esser et al. 2024);
            ``dpm_solver`` and ``unipc``, as these samplers' authors lay out flows, with whole timesteps.
        sigmas: the sigmas themselves, falling, before any shift and without the end, instead of ``convention``.
        sequence: ``karras``, ``exponential`` or ``beta`` between the largest and the smallest of those.
        final_sigmas_type: ``zero`` ends at the data, ``sigma_min`` where the last step starts.
    """

    inputs: Mapping[str, Any] = {
        "mu": MU,
        "tokens": NUM_TOKENS,
        "sigmas": Port(dtype="list", description="the noise levels of this run, falling, before any shift and without the end"),
    }

    def __init__(
        self,
        *,
        num_steps: int = 20,
        num_train_timesteps: int = 1000,
        shift: float = 1.0,
        dynamic_shift: bool | dict[str, Any] = False,
        shift_terminal: float | None = None,
        convention: str = "even",
        sigmas: list[float] | None = None,
        sequence: str | None = None,
        final_sigmas_type: str = "zero",
    ) -> None:
        super().__init__(num_steps if sigmas is None else len(sigmas))
        if num_train_timesteps < 1:
            raise ValueError(f"FlowSchedule.num_train_timesteps: found {num_train_timesteps}, expected at least 1")
        if shift <= 0:
            raise ValueError(f"FlowSchedule.shift: found {shift}, expected a number above 0")
        if convention not in CONVENTIONS:
            raise ValueError(f"FlowSchedule.convention: found {convention!r}, expected one of {', '.join(CONVENTIONS)}")
        if sequence is not None and sequence not in SIGMAS:
            raise ValueError(f"FlowSchedule.sequence: found {sequence!r}, expected one of {', '.join(SIGMAS)}")
        if sigmas is not None and not (sigmas[0] <= 1 and sigmas[-1] > 0 and all(a > b for a, b in pairwise(sigmas))):
            raise ValueError(f"FlowSchedule.sigmas: found {sigmas}, expected numbers that fall, from at most 1 to above 0")
        if final_sigmas_type not in ("zero", "sigma_min"):
            raise ValueError(f"FlowSchedule.final_sigmas_type: found {final_sigmas_type!r}, expected one of zero, sigma_min")
        self.scale = num_train_timesteps
        self.shift = shift
        self.dynamic = dict(dynamic_shift) if isinstance(dynamic_shift, Mapping) else {}
        self.is_dynamic = bool(dynamic_shift) or isinstance(dynamic_shift, Mapping)
        self.terminal = shift_terminal
        self.convention = convention
        self.own_sigmas = None if sigmas is None else tuple(sigmas)
        self.sequence = sequence
        self.to_data = final_sigmas_type == "zero"
        if not self.is_dynamic:
            self.grid()

    def forward(
        self,
        timestep: float | Tensor | None = None,
        num_steps: int | None = None,
        strength: float | None = None,
        mu: float | None = None,
        tokens: int | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """The start of a loop, as in :class:`GridSchedule`.

        Raises:
            PortError: the sigmas do not fall, or are no sigmas of a flow.
        """
        if sigmas is not None and len(sigmas) and not 0 < float(sigmas[-1]) <= float(sigmas[0]) <= 1:
            raise PortError(f"{self.block_id}.sigmas: got {list(sigmas)}; expected numbers that fall, from at most 1 to above 0")
        more: dict[str, float] = {}
        if self.is_dynamic:
            if mu is None and tokens is None:
                raise PortError(f"{self.block_id}: the shift is dynamic; feed the input mu, or tokens, how many the latent has")
            more["mu"] = float(mu) if mu is not None else dynamic_mu(int(tokens or 0), **self.dynamic)
        grid = self.grid(num_steps, **more) if sigmas is None else self.grid_of("sigmas", sigmas, **more)
        return self.initial_state(grid, timestep, strength)

    def make_grid(self, num_steps: int, mu: float | None = None, sigmas: Sequence[float] | None = None, **more: Any) -> TimeGrid:
        """A new grid."""
        if sigmas is None and self.own_sigmas is not None and num_steps != len(self.own_sigmas):
            raise PortError(
                f"{self.block_id}.num_steps: found {num_steps}, but it was given {len(self.own_sigmas)} sigmas; leave num_steps out"
            )
        given = self.own_sigmas if sigmas is None else sigmas
        even = self.convention == "even" and given is None
        if even and mu is None and self.terminal is None and self.sequence is None:
            known = shifted_sigmas(num_steps, self.shift)
            falling, end = known[:-1], 0.0 if self.to_data else known[-2]
            return time_grid([sigma * self.scale for sigma in falling], [flow_level(sigma) for sigma in (*falling, end)])
        shifted = self._shifted(self._raw_sigmas(num_steps) if given is None else np.array(given, dtype=np.float32), mu)
        if self.convention == "unipc" and abs(shifted[0] - 1) < NOT_QUITE_NOISE:
            shifted[0] -= NOT_QUITE_NOISE
        if self.sequence is not None:
            shifted = SIGMAS[self.sequence](shifted[-1].item(), shifted[0].item(), num_steps)
        rounded = np.array([*shifted, 0.0 if self.to_data else shifted[-1]], dtype=np.float32)
        if self.convention in ("dpm_solver", "unipc"):
            timesteps = (shifted * self.scale).astype(np.int64).tolist()
        else:
            timesteps = (rounded[:-1] * np.float32(self.scale)).tolist()
        return time_grid(timesteps, [flow_level(sigma) for sigma in rounded.tolist()])

    def _raw_sigmas(self, num_steps: int) -> Any:
        """Sigmas before the shift, [N]."""
        if self.convention == "even":
            return np.linspace(1, 1 / num_steps, num_steps)
        smallest = 1 / self.scale
        if self.convention == "trained":
            # The ends of training are themselves shifted, unless the shift depends on the picture.
            ends = np.array([1.0, smallest], dtype=np.float32)
            largest, smallest = ((ends if self.is_dynamic else shift_sigma(ends, self.shift)).astype(np.float32) * self.scale).tolist()
            return np.linspace(largest, smallest, num_steps) / self.scale
        if self.convention == "dpm_solver":
            return (1.0 - np.linspace(1, smallest, num_steps + 1))[::-1][:-1].copy()
        return np.linspace(1, smallest, num_steps + 1)[:-1]

    def _shifted(self, sigmas: Any, mu: float | None) -> Any:
        shifted = shift_sigma(sigmas, self.shift) if mu is None else shift_sigma_by_mu(sigmas, mu)
        return shifted if self.terminal is None else stretch_to_terminal(shifted, self.terminal)

    def level_at(self, timestep: float | Tensor) -> tuple[Any, Any]:
        """(alpha, sigma) at a timestep in [0, num_train_timesteps], or at each of [B]."""
        sigma = (timestep.float() if isinstance(timestep, Tensor) else timestep) / self.scale
        return 1 - sigma, sigma
