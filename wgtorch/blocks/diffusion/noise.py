"""Where a sampling loop starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from wgtorch.blocks.diffusion.schedules.block import build_schedule
from wgtorch.blocks.diffusion.schedules.grid import SamplerState
from wgtorch.core.block import register_block
from wgtorch.core.errors import PortError
from wgtorch.core.port import Port
from wgtorch.core.run.rng import GLOBAL_RNG, Rng
from wgtorch.ports import CLEAN_LATENT, FIRST_TIMESTEP, NOISE, NUM_STEPS, PROGRESS, STRENGTH
from wgtorch.roles import Noise


class NoiseSource(Noise):
    """What blocks that start a loop share: the grid of the loop, from ``schedule`` or from the input ``progress``.

    With a schedule of its own the block gives ``progress`` to the solver and the first ``timestep`` to backbone and solver, so
    they agree. Beside a schedule node it takes ``progress`` from there. With neither it starts at ``timestep``.

    Args:
        timestep: that the loop starts at, without a schedule.
        schedule: settings of a schedule, as for :func:`build_schedule`.
    """

    inputs: Mapping[str, Any] = {"progress": PROGRESS, "num_steps": NUM_STEPS}
    outputs: Mapping[str, Any] = {"timestep": FIRST_TIMESTEP}
    uses_global_rng = False

    def __init__(self, timestep: float | None, schedule: Mapping[str, Any] | None) -> None:
        super().__init__()
        if schedule is not None and timestep is not None:
            raise ValueError(f"{type(self).__name__}: got a timestep and a schedule, which has its own; leave timestep out")
        self.schedule = None if schedule is None else build_schedule(schedule)
        self.timestep = 1.0 if timestep is None else timestep
        if self.schedule is not None:
            self.outputs = {**self.get_output_spec(), "progress": PROGRESS}

    def initial_state(self, progress: SamplerState | None, num_steps: int | None, strength: float | None = None) -> SamplerState | None:
        """The start of the loop's grid, where there is one.

        Raises:
            PortError: the inputs ask for a grid, and there is no schedule of its own.
        """
        if progress is None and self.schedule is not None:
            return self.schedule(num_steps=num_steps, strength=strength)["progress"]
        given = [name for name, value in (("num_steps", num_steps), ("strength", strength)) if value is not None]
        if given:
            raise PortError(
                f"{self.block_id}: got {' and '.join(given)}, but has no schedule of its own; give it one "
                "(schedule={'kind': 'diffusion'}), or feed them to the schedule node"
            )
        return progress

    def outputs_of(self, latent: Tensor, progress: SamplerState | None) -> dict[str, Any]:
        """The outputs of the block."""
        found: dict[str, Any] = {"latent": latent, "timestep": self.timestep if progress is None else progress.timestep}
        return found if self.schedule is None else {**found, "progress": progress}


def noise_for(condition: Tensor, shape: Sequence[int], rng: Rng | None) -> Tensor:
    """Standard normal noise [B, *shape] for ``condition`` [B, ...], of its device, and its dtype where that can hold it."""
    dtype = condition.dtype if condition.is_floating_point() else None
    return (rng or GLOBAL_RNG).normal((condition.shape[0], *shape), dtype=dtype, device=condition.device)


@register_block("noise/gaussian")
class GaussianNoise(NoiseSource):
    """Standard normal noise, one row for each condition, and the timestep that the loop starts at.

    Example:
        >>> GaussianNoise(shape=[4, 64, 64], schedule={"kind": "diffusion", "num_steps": 30, "sigmas": "karras", "convention": "euler"})

    Args:
        shape: of one latent, [C, H, W].
        timestep: what the loop starts at, where there is no schedule; 1 in a flow that runs from noise (1) to data (0).
        schedule: settings of a schedule, as for :func:`build_schedule`.
    """

    inputs = {"condition": Port(dtype="embedding", description="conditions [B, ...]: how many rows to draw, their dtype and device")}

    def __init__(self, *, shape: list[int], timestep: float | None = None, schedule: dict[str, Any] | None = None) -> None:
        super().__init__(timestep, schedule)
        if not shape or min(shape) < 1:
            raise ValueError(f"GaussianNoise.shape: found {shape}, expected positive sizes [C, H, W]")
        self.shape = tuple(shape)

    def forward(
        self,
        condition: Tensor,
        progress: SamplerState | None = None,
        num_steps: int | None = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """``latent`` [B, *shape] for ``condition`` [B, ...]; each row is drawn from its own sample's generator."""
        start = self.initial_state(progress, num_steps)
        noise = noise_for(condition, self.shape, rng)
        return self.outputs_of(noise if start is None else start.start(noise), start)


@register_block("noise/image")
class ImageNoise(NoiseSource):
    """A clean latent, noised to where the loop starts: for image to image.

    Args:
        strength: the share of the grid to walk, in (0, 1], where the input ``strength`` is not fed: how much may change.
        schedule: settings of a schedule, as for :func:`build_schedule`; left out beside a schedule node.
    """

    inputs = {"image_latent": CLEAN_LATENT, "strength": STRENGTH, "noise": NOISE}

    def __init__(self, *, strength: float = 0.8, schedule: dict[str, Any] | None = None) -> None:
        super().__init__(None, schedule)
        self.strength = strength

    def forward(
        self,
        image_latent: Tensor,
        progress: SamplerState | None = None,
        num_steps: int | None = None,
        strength: float | None = None,
        noise: Tensor | None = None,
        rng: Rng | None = None,
    ) -> dict[str, Any]:
        """``latent``, like ``image_latent`` [B, C, ...].

        Raises:
            PortError: neither a schedule of its own nor ``progress``.
        """
        own = self.strength if strength is None and progress is None and self.schedule is not None else strength
        start = self.initial_state(progress, num_steps, own)
        if start is None:
            raise PortError(f"{self.block_id}: nothing says where the loop starts; give it a schedule, or add a schedule node")
        if noise is None:
            noise = (rng or GLOBAL_RNG).normal(image_latent.shape, dtype=image_latent.dtype, device=image_latent.device)
        return self.outputs_of(start.start(noise, image_latent), start)
